"""How many rows came, how many were dropped, and why: what a run says of its data."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import apache_beam as beam

from schemas.errors import UserError

ROWS_PROPERTY = "rows"
SHOWN_EXAMPLES = 3
SHOWN_FAULTS = 10

Kind = Literal["interactions", "catalogue"]


@dataclass
class Accounting:
    """Rows of one source.

    Attributes:
        rows: how many were read.
        dropped: by reason, how many were dropped, and where the first few of them stand.
        rows_of_day: how many of the clean rows are of the run's own day.
        splits: how many examples each split has.
        rewarded: how many of those have a reward above 0.
        users: how many users have an interaction with a reward above 0 in the hours that are held out.
        first_user: the least hash of these; see `components.example_gen.held_out`.
        faults: what is wrong with a whole file; with any of these the run stops.
    """

    rows: int = 0
    dropped: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    rows_of_day: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    rewarded: dict[str, int] = field(default_factory=dict)
    users: int = 0
    first_user: int | None = None
    faults: list[str] = field(default_factory=list)

    def drop(self, reason: str, rows: int, places: Iterable[str]) -> None:
        """Counts dropped rows; `places` says where the first of them stand."""
        if rows:
            known, shown = self.dropped.get(reason, (0, []))
            self.dropped[reason] = known + rows, sorted([*shown, *places], key=_in_order)[:SHOWN_EXAMPLES]

    def add(self, other: "Accounting") -> None:
        """Adds what another part of the data counted."""
        self.rows += other.rows
        for reason, (rows, places) in other.dropped.items():
            self.drop(reason, rows, places)
        for split, examples in other.splits.items():
            self.splits[split] = self.splits.get(split, 0) + examples
        for split, examples in other.rewarded.items():
            self.rewarded[split] = self.rewarded.get(split, 0) + examples
        self.rows_of_day += other.rows_of_day
        self.users += other.users
        known = [each for each in (self.first_user, other.first_user) if each is not None]
        self.first_user = min(known, default=None)
        self.faults += other.faults

    def to_text(self) -> str:
        """All of it, for `from_text`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Accounting":
        """What `to_text` wrote."""
        return cls(**json.loads(text))

    def to_json(self, kind: Kind) -> str:
        """What is kept with the examples."""
        dropped: dict[str, Any] = {
            reason: {"rows": rows, "first": places} for reason, (rows, places) in sorted(self.dropped.items())
        }
        return json.dumps(
            {
                "kind": kind,
                "rows": self.rows,
                "rows_of_day": self.rows_of_day,
                "dropped": dropped,
                "splits": dict(sorted(self.splits.items())),
            }
        )

    def check(self, kind: Kind, max_dropped_share: float, paths: Sequence[str]) -> None:
        """Stops on files that cannot be read, on too many dropped rows, and on nothing left.

        Raises:
            UserError: with what was found and where.
        """
        if self.faults:
            raise UserError("\n".join(sorted(self.faults)))
        lost = sum(rows for rows, _ in self.dropped.values())
        if lost > max_dropped_share * self.rows:
            found = f"{lost} of {self.rows} rows of the {kind} are at fault, more than data.max_dropped_share allows"
            hint = "Mend the data, or raise the limit where that is what the data is like."
            raise UserError("\n".join([f"{found} ({max_dropped_share:g}):", *self._lines(), hint]))
        if not sum(self.splits.values()):
            read = ", ".join([*paths[:SHOWN_EXAMPLES], *(["..."] if len(paths) > SHOWN_EXAMPLES else [])])
            raise UserError(
                "\n".join([f"No row of the {kind} is left to work with; {self.rows} came from {read}", *self._lines()])
            )

    def _lines(self) -> list[str]:
        by_count = sorted(self.dropped.items(), key=lambda item: -item[1][0])
        return [f"  {rows} {reason} (first: {'; '.join(places)})" for reason, (rows, places) in by_count[:SHOWN_FAULTS]]


def _in_order(place: str) -> tuple[str, int]:
    """Sorts `FILE row N` by file, then by number."""
    file, _, row = place.rpartition(" row ")
    return file, int(row)


class Sum(beam.CombineFn):
    """Sums the accounting of all parts of the data."""

    def create_accumulator(self) -> Accounting:
        """Called by Beam."""
        return Accounting()

    def add_input(self, accumulator: Accounting, element: Accounting) -> Accounting:
        """Called by Beam."""
        accumulator.add(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Accounting]) -> Accounting:
        """Called by Beam."""
        total = Accounting()
        for accumulator in accumulators:
            total.add(accumulator)
        return total

    def extract_output(self, accumulator: Accounting) -> Accounting:
        """Called by Beam."""
        return accumulator
