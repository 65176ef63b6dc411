"""Guesses which source is the log and which the catalogue, and which columns are the user, item, time and reward."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from components.example_gen.csv_lines import FileFaultError
from pipeline.init.groups import Group
from pipeline.init.profiles import Profile, as_ids, profiles, tokens
from pipeline.init.tables import Table, sampled, values
from schemas.errors import UserError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


USERS = _words(
    "user uid userid username customer client visitor listener viewer reader member person account household shopper buyer player"
    " subscriber patron guest"
)
ITEMS = _words(
    "item itemid product track movie film video article song sku asin book news listing content recipe game podcast"
)
TIMES = _words("time timestamp datetime date ts at when epoch started created")
TITLES = _words("title name song label headline")
SHARES = _words("reward share fraction ratio completion weight score heard watched rating")  # of numbers in [0, 1]
RATINGS = _words("rating ratings stars score")
QUANTITIES = _words("quantity qty")
AMOUNTS = QUANTITIES | _words("revenue amount sales price value spend total seconds duration dwell watch playtime")
EVENTS = _words("event action eventtype activity")
CATALOGUE_BATCHES = 32  # batches of the reader to search for ids
CONTAINED = 0.9  # share of the log's ids that must be in the catalogue
SAME_NAME_CONTAINED = 0.5  # the same, if both columns have the same name
USERS_CONTAINED = 0.1  # share of the log's users that must be in the users' table, if both columns have the same name
OF_ITEM = 0.98  # share of the items that must have one value of a column that describes the item


@dataclass(frozen=True)
class Known:
    """A sampled source."""

    table: Table
    columns: dict[str, Profile]

    @property
    def name(self) -> str:
        """Its path relative to the folder."""
        return self.table.group.name

    def described(self) -> str:
        """Describe its columns, for an error message."""
        shown = ", ".join(f"{column.name} ({column.looks}: {column.why})" for column in self.columns.values())
        return f"  {self.name}: {shown}"


@dataclass(frozen=True)
class Declared:
    """What the user declared: paths relative to the folder, columns of the log; None for what is to be guessed."""

    interactions: str | None = None
    catalogue: str | None = None
    user: str | None = None
    item: str | None = None
    time: str | None = None
    reward: str | None = None


@dataclass(frozen=True)
class Choice:
    """Something chosen.

    Attributes:
        value: the choice.
        why: the reason.
    """

    value: Any
    why: str


@dataclass(frozen=True)
class Roles:
    """The guessed role of each source and column.

    Attributes:
        log: the interactions.
        catalogue: the items; without a catalogue file, the log's columns that describe items, one row for each item.
        is_from_log: whether the catalogue is made from the log.
        users: the users' table and its user column; None without one.
        others: the names of the unused sources, and why.
        user, item, key, time: columns; `key` is the catalogue's item column.
        reward: the value for `interactions.reward`; None if every interaction has weight 1.
        of_items: columns of the log that describe the item, and so are unknown at request time.
        share_in_baskets: the share of the log's rows with the same user and time as another.
        share_repeated: of the rows of returning users, the share with an item that the user took before.
    """

    log: Known
    catalogue: Known
    is_from_log: bool
    users: tuple[Known, Choice] | None
    others: dict[str, str]
    user: Choice
    item: Choice
    key: Choice
    time: Choice
    reward: Choice | None
    of_items: list[str]
    share_in_baskets: float
    share_repeated: float


def roles(folder: str, groups: Iterable[Group], declared: Declared) -> Roles:
    """Guess all roles.

    Raises:
        UserError: something cannot be guessed: what was looked for, what was found, and how to declare it.
    """
    sources, others = {}, {}
    for group in groups:
        try:
            table = sampled(group)
        except (FileFaultError, pa.ArrowException) as error:
            others[group.name] = f"{group.files[-1].path} {error}"
            continue
        if table.rows:
            sources[group.name] = Known(table, profiles(table))
        else:
            others[group.name] = "has no row"
    for option, name in (("interactions", declared.interactions), ("catalogue", declared.catalogue)):
        if name is not None and name not in sources:
            reason = f" ({others[name]})" if name in others else ""
            raise UserError(
                f"--{option} {name}: expected one of {', '.join(sources) or 'nothing that can be read'}{reason}."
            )
    logs = [sources[declared.interactions]] if declared.interactions else _logs(sources.values(), declared)
    if not logs:
        raise UserError(_no_log(folder, sources.values(), others))
    pairs = [(log, *match) for log in logs if (match := _catalogue(log, sources.values(), declared))]
    is_from_log = not pairs and declared.catalogue is None
    if is_from_log:
        pairs = [(log, *match) for log in logs if (match := _from_log(log, declared))]
    if not pairs:
        raise UserError(_no_catalogue(folder, logs, sources.values(), others))
    if len(pairs) > 1:
        names = ", ".join(log.name for log, *_ in pairs)
        raise UserError(
            f"{folder}: looked for the log of interactions, found several candidates: {names}. Choose one: --interactions PATH "
            "(a day's files in several folders are one log if each day has one folder)."
        )
    ((log, catalogue, item, key),) = pairs
    time = _time(log, {item.value}, declared)
    user = _user(log, {item.value, time.value}, declared)
    taken = {item.value, time.value, user.value}
    of_items = [name for name in log.columns if name not in taken and _is_of_item(log, item.value, name)]
    if is_from_log:
        catalogue = _items_of(log, [item.value, *of_items])
    users = _users(log, user.value, [source for source in sources.values() if source not in (log, catalogue)])
    used = [log, catalogue, *([users[0]] if users else [])]
    unused = {
        source.name: "is neither the log, the catalogue nor a users' table"
        for source in sources.values()
        if source not in used
    }
    reward = _reward(log, taken | set(of_items), declared)
    others |= unused
    shares = _share_in_baskets(log, user.value, time.value), share_repeated(log, user.value, item.value, time.value)
    return Roles(log, catalogue, is_from_log, users, others, user, item, key, time, reward, of_items, *shares)


def has_word(name: str, words: frozenset[str]) -> bool:
    """Return whether a column's name contains one of the words, or is one of them with separators in it."""
    return bool(words & set(tokens(name))) or "".join(tokens(name)) in words


def _logs(sources: Iterable[Known], declared: Declared) -> list[Known]:
    """Return the sources with a time whose only column with a different value in every row may be an event id."""
    logs = []
    for source in sources:
        times = [column for column in source.columns.values() if column.looks == "time"]
        named = [declared.user, declared.item, declared.time]
        if any(name is not None and name not in source.columns for name in named):
            continue
        keys = [
            column
            for column in source.columns.values()
            if column.may_be_key and not column.is_unique and column.looks != "time"
        ]
        if (times or declared.time) and len(keys) > 1:
            logs.append(source)
    return logs


def _catalogue(log: Known, sources: Iterable[Known], declared: Declared) -> tuple[Known, Choice, Choice] | None:
    """Find the catalogue, the log's item column, and the catalogue's."""
    candidates: list[tuple[tuple[bool, bool, float], Known, str, str, float]] = []
    for source in sources:
        if source is log or (declared.catalogue and source.name != declared.catalogue):
            continue
        keys = [column.name for column in source.columns.values() if column.may_be_key and column.is_unique]
        # The key of a users' table is the user.
        keys = [name for name in keys if not has_word(name, USERS)]
        for key in keys:
            ids = _all_ids(source.table, key)
            for name, column in log.columns.items():
                if declared.item and name != declared.item:
                    continue
                if not column.may_be_key or (not declared.item and (column.is_unique or has_word(name, USERS))):
                    continue
                share = _contained(as_ids(log.table, log.table.columns[name]), ids)
                same = tokens(name) == tokens(key)
                if share >= (SAME_NAME_CONTAINED if same or declared.item else CONTAINED):
                    candidates.append(((same, has_word(name, ITEMS), share), source, name, key, share))
    if not candidates:
        return None
    best = max(rank[:2] for rank, *_ in candidates)
    chosen = [candidate for candidate in candidates if candidate[0][:2] == best]
    if len(chosen) > 1:
        shown = "; ".join(f"{name} as {key} of {source.name} ({share:.0%})" for _, source, name, key, share in chosen)
        raise UserError(
            f"{log.name}: looked for the item of an interaction, a column whose ids have one row each in a catalogue; "
            f"found {shown}. Choose: --item COLUMN, --catalogue PATH."
        )
    ((_, source, name, key, share),) = chosen
    why = f"{share:.0%} of its values are in {key} of {source.name}"
    return (
        source,
        Choice(name, why),
        Choice(key, f"every row has a different value, and includes {share:.0%} of {name} of {log.name}"),
    )


def _from_log(log: Known, declared: Declared) -> tuple[Known, Choice, Choice] | None:
    """Use the log itself as the catalogue, if one of its columns is the item by its name."""
    items = [
        name
        for name, column in log.columns.items()
        if column.may_be_key
        and not column.is_unique
        and (name == declared.item if declared.item else has_word(name, ITEMS))
    ]
    if len(items) != 1:
        return None
    why = "as declared" if declared.item else f"its name, and {log.columns[items[0]].distinct:,} distinct values"
    return log, Choice(items[0], why), Choice(items[0], "the log's own: no file has one row for each")


def _items_of(log: Known, names: list[str]) -> Known:
    """Return the item columns of a log: the first row of each item."""
    ids = as_ids(log.table, log.table.columns[names[0]])
    first = pa.table({"item": ids, "at": pa.array(range(len(ids)))}).group_by("item").aggregate([("at", "min")])
    rows = first.filter(pc.is_valid(first["item"]))["at_min"].combine_chunks().sort()
    columns = {name: log.table.columns[name].take(rows) for name in names}
    table = replace(log.table, columns=columns, rows=len(rows))
    return Known(table, profiles(table))


def _users(log: Known, user: str, sources: Iterable[Known]) -> tuple[Known, Choice] | None:
    """Find the users' table: the one with most of the log's users."""
    ids, candidates = as_ids(log.table, log.table.columns[user]), []
    for source in sources:
        for key, column in source.columns.items():
            same = tokens(key) == tokens(user)
            if not (column.may_be_key and column.is_unique and (same or has_word(key, USERS))):
                continue
            share = _contained(ids, _all_ids(source.table, key))
            if share >= (USERS_CONTAINED if same else CONTAINED):
                candidates.append(
                    (share, source, Choice(key, f"every row has a different value; includes {share:.0%} of {user}"))
                )
    return max(candidates, key=lambda candidate: candidate[0])[1:] if candidates else None


def _all_ids(table: Table, column: str) -> pa.Array:
    batches = [as_ids(table, raw) for raw in islice(values(table, column), CATALOGUE_BATCHES)]
    return pa.chunked_array(batches, pa.binary()).unique()


def _contained(ids: pa.Array, keys: pa.Array) -> float:
    distinct = ids.drop_null().unique()
    return float(pc.mean(pc.is_in(distinct, keys)).as_py() or 0.0) if len(distinct) else 0.0


def _time(log: Known, taken: set[str], declared: Declared) -> Choice:
    times = {name: column for name, column in log.columns.items() if column.looks == "time" and name not in taken}
    if declared.time:
        if declared.time not in times:
            raise UserError(_not_so(log, "--time", declared.time, "a time", log.columns.get(declared.time)))
        return Choice(declared.time, "as declared")
    named = {name: column for name, column in times.items() if has_word(name, TIMES) or column.unit in (None, "iso")}
    chosen = named if named else times
    if len(chosen) != 1:
        raise UserError(_ambiguous(log, "the time of an interaction", chosen, "--time COLUMN"))
    ((name, column),) = chosen.items()
    return Choice(name, column.why)


def _user(log: Known, taken: set[str], declared: Declared) -> Choice:
    keys = {
        name: column
        for name, column in log.columns.items()
        if column.may_be_key and name not in taken and column.looks != "time"
    }
    if declared.user:
        if declared.user not in log.columns or not log.columns[declared.user].may_be_key:
            raise UserError(_not_so(log, "--user", declared.user, "ids", log.columns.get(declared.user)))
        return Choice(declared.user, "as declared")
    named = {name: column for name, column in keys.items() if has_word(name, USERS)}
    chosen = named or {name: column for name, column in keys.items() if tokens(name)[-1:] == ["id"]} or keys
    chosen = {name: column for name, column in chosen.items() if not column.is_unique}
    if len(chosen) != 1:
        raise UserError(_ambiguous(log, "the user of an interaction", chosen, "--user COLUMN"))
    ((name, column),) = chosen.items()
    by_name = "its name, and " if named else "the only remaining candidate, with "
    return Choice(name, f"{by_name}{column.distinct:,} distinct values in {column.values:,} rows")


def _share_in_baskets(log: Known, user: str, time: str) -> float:
    rows = pa.table({"user": log.table.columns[user], "time": log.table.columns[time]}).drop_null()
    sizes = rows.group_by(["user", "time"]).aggregate([([], "count_all")])["count_all"]
    return float(pc.sum(sizes.filter(pc.greater(sizes, 1))).as_py() or 0) / max(1, rows.num_rows)


def share_repeated(log: Known, user: str, item: str, time: str) -> float:
    """Return the share of the items of returning users that the user had taken at another time."""
    rows = pa.table(
        {name: log.table.columns[column] for name, column in (("user", user), ("item", item), ("time", time))}
    )
    times = rows.group_by("user").aggregate([("time", "count_distinct")])
    several = times.filter(pc.greater(times["time_count_distinct"], 1))["user"]
    rows = rows.drop_null().filter(pc.is_in(rows.drop_null()["user"], value_set=several.combine_chunks()))
    taken = rows.group_by(["user", "item"]).aggregate([("time", "count_distinct")])["time_count_distinct"]
    return 1.0 - len(taken) / (pc.sum(taken).as_py() or 1) if len(taken) else 0.0


def _is_of_item(log: Known, item: str, name: str) -> bool:
    """Return whether nearly every recurring item has one value of a column, or nearly every recurring value one item."""
    column = log.columns[name]
    raw = log.table.columns[name]
    if column.distinct < 2 or column.looks in ("nothing", "unknown") or pa.types.is_list(raw.type):
        return False
    ids = as_ids(log.table, log.table.columns[item])
    texts = raw if pa.types.is_binary(raw.type) else raw.cast(pa.string())
    rows = pa.table({"item": ids, "value": texts}).drop_null()
    return _has_one(rows, "item", "value") or _has_one(rows, "value", "item")


def _has_one(rows: pa.Table, key: str, of: str) -> bool:
    """Return whether nearly all recurring keys have one value of another column; False if no key recurs."""
    counted = rows.group_by(key).aggregate([(of, "count_distinct"), (of, "count")])
    again = counted.filter(pc.greater(counted[f"{of}_count"], 1))
    return bool(again.num_rows) and pc.mean(pc.less_equal(again[f"{of}_count_distinct"], 1)).as_py() >= OF_ITEM


def _reward(log: Known, taken: set[str], declared: Declared) -> Choice | None:
    numbers = {name: column for name, column in log.columns.items() if column.numbers and name not in taken}
    if declared.reward:
        if declared.reward not in numbers:
            raise UserError(_not_so(log, "--reward", declared.reward, "numbers", log.columns.get(declared.reward)))
        numbers = {declared.reward: numbers[declared.reward]}
    rewards = {
        name: choice for name, column in numbers.items() if (choice := _as_reward(column, bool(declared.reward)))
    }
    others = {name for name in rewards if not has_word(name, QUANTITIES)}
    if len(rewards) > 1 and len(others) == 1:  # the amount paid says more than the quantity
        (name,) = others
        counts = ", ".join(column for column in rewards if column != name)
        return Choice(rewards[name].value, f"{rewards[name].why} ({counts} could be one too)")
    if len(rewards) > 1:
        raise UserError(
            _ambiguous(log, "the reward of an interaction", {n: numbers[n] for n in rewards}, "--reward COLUMN")
        )
    return next(iter(rewards.values()), None)


def _as_reward(column: Profile, is_declared: bool) -> Choice | None:
    least, most, name = min(column.numbers), max(column.numbers), column.name
    if least < 0 or most <= 0 or (column.missing and not is_declared):  # a row without a reward is a fault
        return None
    reason = "as declared" if is_declared else "its name"
    if most <= 1 and (is_declared or has_word(name, SHARES)):
        return Choice(name, f"{reason}, and numbers from {least:g} to {most:g}")
    if has_word(name, RATINGS):
        value = {"column": name, "over": float(most), "clip": True}
        return Choice(
            value, f"{reason}, and {most:g} is the greatest of {column.values:,}, which gets the full reward of 1"
        )
    if is_declared or has_word(name, AMOUNTS):
        whole = sorted(column.numbers)[int(0.95 * (len(column.numbers) - 1))] or most
        value = {"column": name, "scale": "log", "over": float(f"{whole:.3g}"), "clip": True}
        return Choice(
            value, f"{reason}, and {whole:.3g} exceeds 95 % of {column.values:,} rows and gets the full reward of 1"
        )
    return None


def _not_so(log: Known, option: str, name: str, expected: str, column: Profile | None) -> str:
    if column is None:
        return f"{option} {name}: expected a column of {log.name} ({', '.join(log.columns)})."
    return f"{option} {name}: expected {expected} in {log.name}, found {column.looks}: {column.why}."


def _ambiguous(log: Known, wanted: str, chosen: Mapping[str, Profile], option: str) -> str:
    shown = "; ".join(f"{name} ({column.why})" for name, column in chosen.items())
    all_columns = "" if shown else f"\n{log.described()}"
    return f"{log.name}: looked for {wanted}, found {shown or 'none'}. Choose a column: {option}.{all_columns}"


def _no_log(folder: str, sources: Iterable[Known], others: Mapping[str, str]) -> str:
    return "\n".join(
        [
            f"{folder}: looked for a log of interactions: rows with a user, an item and a time (a timestamp, ISO 8601, or s, "
            "ms, us or ns since 1970). Found none in:",
            *(source.described() for source in sources),
            *(f"  {name}: {reason}" for name, reason in others.items()),
            "Name the log with --interactions PATH and --user, --item and --time COLUMN, or name another folder.",
        ]
    )


def _no_catalogue(folder: str, logs: list[Known], sources: Iterable[Known], others: Mapping[str, str]) -> str:
    return "\n".join(
        [
            f"{folder}: looked for a catalogue, a table with one row for each item of {', '.join(log.name for log in logs)}, or "
            "for a column of the log named like an item; found neither.",
            *(source.described() for source in sources),
            *(f"  {name}: {reason}" for name, reason in others.items()),
            "Name the log's item column (--item COLUMN), and a catalogue is made from the log; or add a catalogue to the folder "
            "(--catalogue PATH).",
        ]
    )
