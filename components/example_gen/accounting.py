"""Counts the rows that were read and dropped, with reasons, for the report of a run."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from components.utc import MICROSECONDS_A_DAY, day_of
from schemas.errors import UserError

SHOWN_EXAMPLES = 3
SHOWN_FAULTS = 10

Kind = Literal["interactions", "catalogue", "users"]


@dataclass
class Accounting:
    """Rows of one source.

    Attributes:
        rows: the number of rows read that are of the window's days, or of an impossible day.
        filtered: by reason, the number of these that do not meet a condition of `where`.
        dropped: by reason, the number of others that were dropped, and the places of the first few.
        ways_out: by reason, what the user may do about it.
        dayless: of the dropped rows of a log of many days, those without a possible time.
        other_days: of a log of many days, the number of rows of days outside the window.
        first_other: the earliest time of these, in microseconds since 1970-01-01 UTC.
        last_other: the latest.
        passed_over: the number of files skipped because their names begin with `_` or `.`, and the first few of them.
        rows_of_day: the number of clean rows of the run's own day.
        before: the number of unfiltered rows of days before the window, read only for histories. They were checked when their days
            were run, and count towards no limit.
        dropped_before: by reason, the number of dropped rows among these.
        absent: missing days before the window, ISO 8601.
        splits: the number of examples in each split.
        rewarded: the number of those with a reward above 0.
        users: the number of users with an interaction with a reward above 0 in the held-out hours.
        first_user: the least hash of these; see `components.example_gen.held_out`.
        faults: faults of whole files; any of them stops the run.
    """

    rows: int = 0
    filtered: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    ways_out: dict[str, str] = field(default_factory=dict)
    dayless: int = 0
    other_days: int = 0
    first_other: int | None = None
    last_other: int | None = None
    passed_over: tuple[int, list[str]] = (0, [])
    rows_of_day: int = 0
    before: int = 0
    dropped_before: dict[str, int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    rewarded: dict[str, int] = field(default_factory=dict)
    users: int = 0
    first_user: int | None = None
    faults: list[str] = field(default_factory=list)

    def drop(self, reason: str, rows: int, places: Iterable[str], way_out: str = "", before: int = 0) -> None:
        """Count dropped rows, `before` of them of days before the window.

        `places` names the first of them, `way_out` says what the user may do about it.
        """
        if before:
            self.dropped_before[reason] = self.dropped_before.get(reason, 0) + before
        if rows:
            counted, shown = self.dropped.get(reason, (0, []))
            self.dropped[reason] = counted + rows, sorted([*shown, *places], key=_in_order)[:SHOWN_EXAMPLES]
            if way_out:
                self.ways_out[reason] = min(way_out, self.ways_out.get(reason, way_out))

    def filter(self, reason: str, rows: int) -> None:
        """Count filtered rows."""
        if rows:
            self.filtered[reason] = self.filtered.get(reason, 0) + rows

    def of_other_days(self, rows: int, first: int, last: int) -> None:
        """Count rows of days outside the window, from one time to another."""
        self.other_days += rows
        self.first_other = min(first, first if self.first_other is None else self.first_other)
        self.last_other = max(last, last if self.last_other is None else self.last_other)

    def add(self, other: "Accounting") -> None:
        """Add the counts of another part of the data."""
        self.rows += other.rows
        for reason, (rows, places) in other.dropped.items():
            self.drop(reason, rows, places, other.ways_out.get(reason, ""), other.dropped_before.get(reason, 0))
        for reason, rows in other.filtered.items():
            self.filter(reason, rows)
        self.dayless += other.dayless
        if other.first_other is not None and other.last_other is not None:
            self.of_other_days(other.other_days, other.first_other, other.last_other)
        for split, examples in other.splits.items():
            self.splits[split] = self.splits.get(split, 0) + examples
        for split, examples in other.rewarded.items():
            self.rewarded[split] = self.rewarded.get(split, 0) + examples
        self.rows_of_day += other.rows_of_day
        self.before += other.before
        self.users += other.users
        first_users = [user for user in (self.first_user, other.first_user) if user is not None]
        self.first_user = min(first_users, default=None)
        self.faults += other.faults

    def to_text(self) -> str:
        """Serialise everything for `from_text`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Accounting":
        """Read what `to_text` wrote."""
        return cls(**json.loads(text))

    def to_json(self, kind: Kind) -> str:
        """Serialise the record that is stored with the examples."""
        dropped: dict[str, Any] = {
            reason: {"rows": rows, "first": places} for reason, (rows, places) in sorted(self.dropped.items())
        }
        return json.dumps(
            {
                "kind": kind,
                "rows": self.rows,
                "rows_of_day": self.rows_of_day,
                "before": self.before,
                "absent": self.absent,
                "other_days": self.other_days,
                "passed_over": {"files": self.passed_over[0], "first": self.passed_over[1]},
                "filtered": dict(sorted(self.filtered.items())),
                "dropped": dropped,
                "splits": dict(sorted(self.splits.items())),
            }
        )

    def check(
        self, kind: Kind, max_dropped_share: float, paths: Sequence[str], by_reason: Mapping[str, float] | None = None
    ) -> None:
        """Raise an error for unreadable files, for too many dropped rows, or if no rows are left.

        Args:
            kind: the kind of the source.
            max_dropped_share: the limit for all reasons without a limit of their own.
            paths: the files' paths.
            by_reason: the limits for single reasons.

        Raises:
            UserError: the fault, with its places.
        """
        if self.faults:
            raise UserError("\n".join(sorted(self.faults)))
        by_reason = by_reason or {}
        counted = {reason: rows - self.dropped_before.get(reason, 0) for reason, (rows, _) in self.dropped.items()}
        asked_for = self.rows - self.before - sum(self.filtered.values())
        lost = sum(rows for reason, rows in counted.items() if reason not in by_reason) - self.dayless
        key = "data.max_dropped_share"
        # A row without a time may be of any day of the log, and would count against each.
        limits = [(lost, asked_for - self.dayless, "", key, max_dropped_share)]
        limits += [(self.dayless, asked_for + self.other_days, "", key, max_dropped_share)]
        limits += [
            (counted.get(reason, 0), asked_for, f" ({reason})", f"{key}s", share) for reason, share in by_reason.items()
        ]
        for faulty, of, why, name, share in limits:
            if faulty > share * of:
                fault = f"{faulty} of {of} rows of the {kind} are at fault{why}, more than {name} allows ({share:g}):"
                hint = (
                    "Fix the data, or raise the limit where that is what the data is like; data.max_dropped_shares has limits for "
                    "single reasons."
                )
                raise UserError("\n".join([fault, *self.in_words(), hint]))
        # If all interactions are of days before, their own message is clearer.
        if not sum(self.splits.values()) and not (self.before and kind == "interactions"):
            read = ", ".join([*paths[:SHOWN_EXAMPLES], *(["..."] if len(paths) > SHOWN_EXAMPLES else [])])
            raise UserError(
                "\n".join(
                    [f"No row of the {kind} is left to work with; {self.rows} came from {read}", *self.in_words()]
                )
            )

    def in_words(self) -> list[str]:
        """List a line for each reason for leaving something out, the most frequent first."""
        lines = [f"  {rows} filtered, {reason}" for reason, rows in sorted(self.filtered.items())]
        for reason, (rows, places) in sorted(self.dropped.items(), key=lambda item: -item[1][0])[:SHOWN_FAULTS]:
            lines.append(f"  {rows} {reason} (first: {'; '.join(places)})")
            if reason in self.ways_out:
                lines.append(f"    {self.ways_out[reason]}")
        if self.first_other is not None and self.last_other is not None:
            ends = [str(day_of(time // MICROSECONDS_A_DAY)) for time in (self.first_other, self.last_other)]
            lines.append(f"  {self.other_days} of other days, from {' to '.join(ends)}")
        if self.before:
            lines.append(f"  {self.before} of days before the window, for histories alone")
        if self.absent:
            oldest, newest = self.absent[0], self.absent[-1]
            lines.append(f"  {len(self.absent)} days before the window are not there, from {oldest} to {newest}")
        if self.passed_over[0]:
            files, first = self.passed_over
            lines.append(
                f"  {files} files were passed over, as their names begin with _ or . (first: {'; '.join(first)})"
            )
        return lines


def _in_order(place: str) -> tuple[str, int, str]:
    """Return a sort key for `FILE line N: VALUE`: by file, then by number."""
    match = re.fullmatch(r"(.*?) (?:row|line) (\d+)(: .*)?", place, re.DOTALL)
    return (match[1], int(match[2]), place) if match else (place, 0, place)


def total(several: Iterable[Accounting]) -> Accounting:
    """Add up the accounting of all parts of the data."""
    added = Accounting()
    for accounting in several:
        added.add(accounting)
    return added
