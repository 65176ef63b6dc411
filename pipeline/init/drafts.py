"""Drafts the feature specification and the configuration, with a comment for each guess."""

import math
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from components.example_gen import sources
from components.example_gen.settings import FROM_LOG
from components.example_gen.sources import Window
from pipeline import config as configuration
from pipeline.init.days import Days, days_of, undated
from pipeline.init.groups import groups
from pipeline.init.profiles import Profile
from pipeline.init.roles import EVENTS, TITLES, Choice, Declared, Known, Roles, has_word, roles
from schemas import features
from schemas.errors import UserError

MOST_WINDOW_DAYS = 28
MOST_VALUES = 32  # values of a list
FEW = 1_000  # distinct values of a property of interactions, such as the device
WEEK = 7  # days
REPEATS = 0.02  # share of rows with an item that the user had before
BASKETS = 0.5  # share of rows in baskets
COMMENT_AT = 56


@dataclass
class Features:
    """The drafted features by tower, the reason for each, and their tables."""

    spec: dict[str, dict[str, Any]] = field(default_factory=lambda: {"query": {}, "item": {}})
    why: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    of_users: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: {"query": [], "item": []})

    def add(
        self, tower: str, column: str, why: str, feature: dict[str, Any], table: dict[str, Any] | None = None
    ) -> str:
        """Add a feature, with a table of its own if given; return its name."""
        name = self.name(column)
        if table is not None:
            feature = {**feature, "table": name}
            self.tables[name] = table
        if name != column and feature["kind"] not in ("history", "looked_up") and "derive" not in feature:
            feature = {**feature, "column": column}
        self.spec[tower][name] = feature
        self.why[name] = why
        return name

    def name(self, column: str) -> str:
        """Make a valid feature name from a column's name, unlike all others."""
        base = re.sub(r"[^A-Za-z0-9]+", "_", column).strip("_")
        if not base or not base[0].isalpha():
            base = f"column_{base}".rstrip("_")
        taken = {*features.RESERVED, *self.spec["query"], *self.spec["item"]}
        while base in taken or not features.is_name(base) or base.endswith(features.WEIGHTS_SUFFIX):
            base += "_1"
        return base


@dataclass(frozen=True)
class Draft:
    """The files written.

    Attributes:
        paths: of the files.
        day: the newest UTC day of the log.
        week: the first of the log's last seven existing days; the first day of all if it has fewer.
        others: the sources that are not used, and why.
    """

    paths: list[Path]
    day: date
    week: date
    others: dict[str, str]


def draft(folder: str, into: Path, name: str, declared: Declared) -> Draft:
    """Read the files of a folder and write `features.yaml` and the configuration.

    Args:
        folder: the folder of the log and the catalogue.
        into: the folder to write to.
        name: the dataset's name.
        declared: what the user declared, which is not guessed.

    Raises:
        UserError: something cannot be guessed, a file exists already, or the pipeline cannot read the data.
    """
    folder = str(Path(folder).absolute())
    paths = [into / features.FILE_NAME, into / f"{name}.yaml"]
    if existing := [str(path) for path in paths if path.exists() or path.is_symlink()]:
        raise UserError(
            f"{', '.join(existing)}: exists already, and nothing is overwritten. Name another folder: --into FOLDER."
        )
    dataset = roles(folder, groups(folder), declared)
    days = days_of(dataset.log.table, dataset.time.value, dataset.log.columns[dataset.time.value].unit)
    drafted = _features(dataset)
    texts = [_features_text(dataset, drafted), _configuration_text(dataset, drafted, days, name)]
    with TemporaryDirectory() as trial:
        for path, text in zip(paths, texts, strict=True):
            (Path(trial) / path.name).write_text(text, encoding="utf-8")
        loaded = configuration.load(Path(trial) / paths[1].name)
        loaded.feature_spec()
    sources.interaction_files(loaded.data, Window.of(loaded.data, days.last, goes_on=False, has_history=True))
    sources.catalogue_files(loaded.data, days.last)
    if loaded.data.users:
        sources.newest_files(loaded.data.users, days.last, "users")
    into.mkdir(parents=True, exist_ok=True)
    for path, text in zip(paths, texts, strict=True):
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    week = Window.of(loaded.data.model_copy(update={"window_days": WEEK}), days.last, True, has_history=False).start
    return Draft(paths, days.last, max(week, days.first), dataset.others)


def _features(dataset: Roles) -> Features:
    drafted = Features()
    key, user = dataset.key.value, dataset.user.value
    item = drafted.add("item", key, "the item's own id", {"kind": "id"}, _table(32, 64, {"min_count": 3}))
    for column in dataset.catalogue.columns.values():
        if column.name != key:
            _add_item_feature(drafted, column)
    length, why = 10, "the ten items before, strictly earlier"
    if dataset.share_in_baskets >= BASKETS:
        length, why = 100, "the hundred items before, of earlier baskets"
    history: dict[str, Any] = {"kind": "history", "table": item, "last": length}
    if dataset.share_repeated >= REPEATS:
        history["repeats"] = True
        why += f"; {dataset.share_repeated:.0%} of the items were taken again, so items in it get a bonus"
    else:
        history["negatives"] = False
        why += f"; only {dataset.share_repeated:.0%} of the items were taken again, so training need not score them low"
    drafted.add("query", "history", why, history)
    last = drafted.add(
        "query", "last_item", "the newest of them", {"kind": "id", "table": item, "derive": "last_in_history"}
    )
    for name, feature in list(drafted.spec["item"].items()):
        if name != item and feature["kind"] in ("id", "ids", "vector"):
            why = "of the newest item, looked up in the catalogue: requests send only its id"
            drafted.add("query", f"last_{name}", why, {"kind": "looked_up", "of": last, "feature": name})
    drafted.add("query", user, f"the user: {dataset.user.why}", {"kind": "id"}, _table(16, 64, {"min_count": 5}))
    if dataset.users:
        _add_user_features(drafted, *dataset.users)
    reward = dataset.reward.value if dataset.reward else None
    taken = {user, dataset.item.value, dataset.time.value, reward["column"] if isinstance(reward, dict) else reward}
    for column in dataset.log.columns.values():
        if column.name not in taken:
            _add_query_feature(drafted, column, dataset)
    return drafted


def _add_item_feature(drafted: Features, column: Profile) -> None:
    if column.looks in ("nothing", "unknown", "time") or column.distinct == 1:
        only = "one value in all rows" if column.distinct == 1 and column.looks != "time" else column.why
        return drafted.left_out["item"].append(f"{column.name}: {only}")
    if column.looks == "id" and column.is_unique:
        return drafted.left_out["item"].append(f"{column.name}: {column.why}; every item has a different one")
    feature, table = _feature(column)
    drafted.add("item", column.name, column.why, feature, table)
    return None


def _add_user_features(drafted: Features, users: Known, key: Choice) -> None:
    for column in users.columns.values():
        if column.name == key.value:
            continue
        of_few = column.looks in ("id", "ids") and 1 < column.distinct <= FEW and not column.is_unique
        if of_few or (column.looks == "number" and column.distinct > 1):
            feature, table = _feature(column)
            drafted.of_users.append(drafted.add("query", column.name, f"of the user: {column.why}", feature, table))
        else:
            drafted.left_out["query"].append(f"{column.name} of {users.name}: {column.why}")


def _add_query_feature(drafted: Features, column: Profile, dataset: Roles) -> None:
    """Add a property of interactions if its few values recur; others may be unknown at request time."""
    if column.name in dataset.of_items:
        reason = "describes the item, so it would give the item away"
    elif has_word(column.name, EVENTS):
        reason = "a kind of event does not describe a query; weight the kinds with `event` in `interactions`"
    elif column.looks in ("id", "ids") and 1 < column.distinct <= FEW and column.distinct < column.values / 4:
        feature, table = _feature(column)
        drafted.add(
            "query",
            column.name,
            f"{column.why}; must be known at request time, else remove it",
            feature,
            table,
        )
        return
    else:
        reason = "declare it if it is known at request time"
    drafted.left_out["query"].append(f"{column.name}: {column.why}; {reason}")


def _feature(column: Profile) -> tuple[dict[str, Any], dict[str, Any] | None]:
    separator = {"separator": column.separator} if column.separator not in ("", "|") else {}
    match column.looks:
        case "number":
            return {"kind": "number", **({"scale": "log"} if column.is_skewed else {})}, None
        case "vector":
            return {"kind": "vector", "size": column.size, **separator}, None
        case "text":
            return {"kind": "text"}, _table(16, 4096)
        case "ids":
            return {"kind": "ids", "max_values": min(column.size, MOST_VALUES), **separator}, _table_for(column)
        case _:
            return {"kind": "id"}, _table_for(column)


def _table_for(column: Profile) -> dict[str, Any]:
    """Declare a hashed table with about four buckets for each id seen, a power of two."""
    bits = min(16, max(4, math.ceil(math.log2(4 * max(1, column.distinct)))))
    return _table(4 if bits <= 6 else 8 if bits <= 9 else 16, 1 << bits)


def _table(width: int, buckets: int, vocabulary: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"width": width, **({"vocabulary": vocabulary} if vocabulary else {}), "hash_buckets": buckets}


def _features_text(dataset: Roles, drafted: Features) -> str:
    time = dataset.log.columns[dataset.time.value]
    sampled = [
        dataset.log,
        *([] if dataset.is_from_log else [dataset.catalogue]),
        *([dataset.users[0]] if dataset.users else []),
    ]
    lines = [
        "# Drafted by `ndr init`; docs/features.md describes all options. Guessed from",
        *(f"# {source.table.rows:,} rows of {_one_line(source.name)}, the newest file first" for source in sampled),
        "interactions:",
        _line("  user", dataset.user.value, dataset.user.why),
        _line("  item", dataset.item.value, dataset.item.why),
        _line("  time", dataset.time.value, dataset.time.why),
    ]
    if time.unit:
        lines.append(_line("  time_unit", time.unit, time.why))
    if dataset.reward:
        lines.append(
            _line(
                "  reward",
                dataset.reward.value,
                f"{dataset.reward.why}; without this line every interaction has weight 1",
            )
        )
    else:
        lines.append("  # no reward was recognised: every interaction has weight 1")
    lines += ["", "catalogue:", _line("  item", dataset.key.value, dataset.key.why)]
    if title := _title(dataset.catalogue):
        lines.append(_line("  title", title, "shown beside the id"))
    if dataset.users:
        users = {"user": dataset.users[1].value, "features": drafted.of_users}
        lines += ["", _line("users", users, dataset.users[1].why)]
    lines += ["", "tables:  # features with the same table share its rows; without a vocabulary ids are hashed"]
    lines += [_line(f"  {_scalar(name)}", table, None) for name, table in drafted.tables.items()]
    for tower in ("query", "item"):
        lines += ["", f"{tower}:"]
        lines += [_line(f"  {name}", feature, drafted.why[name]) for name, feature in drafted.spec[tower].items()]
        lines += [f"  # left out: {_one_line(reason)}" for reason in drafted.left_out[tower]]
    return "\n".join(lines) + "\n"


def _title(catalogue: Known) -> str | None:
    texts = [column for column in catalogue.columns.values() if column.looks in ("text", "id") and column.distinct > 1]
    titles = [column.name for column in texts if has_word(column.name, TITLES)]
    return next(iter([*titles, *(column.name for column in texts if column.looks == "text")]), None)


def _configuration_text(dataset: Roles, drafted: Features, days: Days, name: str) -> str:
    catch_up = min(days.number, MOST_WINDOW_DAYS)
    root = f"var/{name}"
    lines = [
        f"# Drafted by `ndr init`. The log has {days.first} to {days.last}, by {days.why}.",
        _line("name", name, None),
        _line("dataset", ".", "the folder of features.yaml, relative to this file"),
        _line("root", root, "everything that runs write; paths below are relative to it"),
        "data:",
        *_source_lines("interactions", dataset.log, dataset.user.value, days.is_daily),
    ]
    if dataset.is_from_log:
        lines.append(_line("  catalogue", FROM_LOG, "every item in the log, with the newest values of its columns"))
    else:
        lines += _source_lines("catalogue", dataset.catalogue, None, True)
    if dataset.users:
        lines += _source_lines("users", dataset.users[0], None, True)
    if days.is_daily:
        lines.append(_line("  first_day", days.first, "the first day with files"))
    if days.closed:
        lines.append(_line("  closed", days.closed, "days without files"))
    if dataset.share_in_baskets >= BASKETS:
        why = f"{dataset.share_in_baskets:.0%} of the rows are in baskets (same user and time); an item twice in one is one row"
        lines.append(_line("  repeated", "add_up", why))
    lines += [
        _line("  catch_up_days", catch_up, f"of the log's {days.number}; the first run trains on these"),
        _line("  window_days", 1, "each later day trains on its own interactions, from the model of the day before"),
        _line("  history_days", catch_up - 1, "earlier days that are read only for users' histories"),
        _line(
            "  split", {"by": "user", "share": 0.1}, "the day's interactions of a tenth of the users evaluate the model"
        ),
        "trainer:",
        _line(
            "  towers",
            {"query": [32], "item": [32]},
            "one linear layer each, to start with",
        ),
        "  batch_size: 512",
        "  epochs: 1",
        "  learning_rate: 0.1",
        _line("  adagrad_start", 1e-5, "so that the first steps of a rare id are small; less with larger batches"),
        "  softmax: {temperature: 0.2}",
        _line("  catch_up", {"epochs": 3}, "for the first run"),
        "evaluator:",
        _line("  recall_at", [10, 50], "a model below popularity is not pushed"),
    ]
    return "\n".join(lines) + "\n"


def _source_lines(kind: str, source: Known, user: str | None, is_daily: bool) -> list[str]:
    table = source.table
    path = table.source.path if is_daily else undated(table.source.path)
    declared = table.source.model_copy(update={"path": str(Path(path).absolute())})
    updates, reasons = {}, dict(table.reasons)
    if any(column.has_blanks for column in source.columns.values()):
        updates["trim"], reasons["trim"] = True, "ids have blanks around them"
    keys = ("path", "format", "delimiter", "quoting", "quoted_newlines", "null_values", "trim", "success_marker")
    declared = declared.model_copy(update=updates)
    changed = {
        key: value for key in keys if (value := getattr(declared, key)) != type(declared).model_fields[key].default
    }
    reasons["success_marker"] = "lies beside every file"
    lines = [f"  {kind}:", *(_line(f"    {key}", value, reasons.get(key)) for key, value in changed.items())]
    missing = source.columns[user].missing if user else 0
    if missing:
        where = [{"column": user, "missing": False}]
        lines.append(
            _line("    where", where, f"{missing:,} of {table.rows:,} rows have no {user}; then they are not faults")
        )
    return lines


def _line(key: str, value: Any, why: str | None) -> str:
    text = f"{key}: {_scalar(value)}"
    return text if why is None else f"{text.ljust(COMMENT_AT)}  # {_one_line(why)}"


def _scalar(value: Any) -> str:
    """Format a value as YAML in one line."""
    value = list(value) if isinstance(value, tuple) else value
    dumped = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...")


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
