"""Selects a table's rows as interactions of each day see them.

A day's table, such as a catalogue with a count of views, includes that day, and would reveal to a model what it is to predict. So
an interaction sees the newest table that does not include its own day: one of the day before or earlier that has the item (or the
user), or, for an item that none of these has, the first that does. The newest table is used for serving, on days that it does
not include.

Of tables before the newest, only differing rows are kept: a row that the next table repeats is left out. `SEEN_THROUGH` is the last
day, in days since 1970-01-01, whose interactions see a row: the day of the next table that has the item. Of an item's rows, an
interaction sees the one with the least `SEEN_THROUGH` not before its day, or else the newest table's.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import ragged
from components.example_gen.split_names import EARLIER_SPLIT, JUDGED_SPLIT
from schemas.features import SEEN_THROUGH

DAYS = 1 << 21  # more than any day's number
NEWEST = DAYS - 1
"""`SEEN_THROUGH` of the newest table's rows."""


@dataclass(frozen=True)
class Tables:
    """The tables that are read together.

    Attributes:
        days: for each file, the day of its table, in days since 1970-01-01; all equal if there is one table.
        changing: the columns that are taken from earlier tables; others are the newest's.
        judged: the first day with held-out interactions; None if the table is not used in evaluation.
    """

    days: Sequence[int] = ()
    changing: Collection[str] = ()
    judged: int | None = None

    @property
    def has_earlier(self) -> bool:
        """Whether there is more than one table."""
        return len(set(self.days)) > 1

    @property
    def splits(self) -> list[str]:
        """The splits to write besides the newest table's."""
        if not self.has_earlier:
            return []
        return [EARLIER_SPLIT, *([] if self.judged is None else [JUDGED_SPLIT])]

    def of(self, files: NDArray[np.int32]) -> NDArray[np.int64]:
        """Map [rows] numbers of files to the days of their tables."""
        return np.asarray(self.days, np.int64)[files] if self.has_earlier else np.zeros(len(files), np.int64)


class Divided(NamedTuple):
    """Rows by their use.

    Attributes:
        newest: those of the newest table.
        earlier: those of earlier tables that differ, with `SEEN_THROUGH`.
        judged: the newest's, as interactions of the first held-out day see them.
    """

    newest: pa.Table
    earlier: pa.Table
    judged: pa.Table


def divide(
    rows: pa.Table,
    days: NDArray[np.int64],
    is_newest: NDArray[np.bool_],
    key: str,
    changing: Collection[str],
    judged: int | None,
) -> Divided:
    """Divide the rows of several tables.

    Args:
        rows: each id once in each table.
        days: [rows], the days of the tables.
        is_newest: [rows], whether they are the newest table's.
        key: the column of the id.
        changing: as in `Tables`.
        judged: as in `Tables`.
    """
    newest = rows.filter(pa.array(is_newest))
    items = pc.index_in(rows.column(key).combine_chunks(), value_set=newest.column(key).combine_chunks())
    is_known = items.is_valid().to_numpy(zero_copy_only=False)  # removed items have no interactions
    known, days, items = rows.filter(pa.array(is_known)), days[is_known], items.drop_null().to_numpy().astype(np.int64)
    order = np.lexsort((days, items))
    known, days, items = known.take(pa.array(order)).combine_chunks(), days[order], items[order]
    for place, name in enumerate(known.column_names):
        if name not in changing and name != key:
            known = known.set_column(place, name, newest.column(name).take(pa.array(items)))
    before = np.flatnonzero(items[:-1] == items[1:])  # the following row is the next of the same item
    differs = np.zeros(len(before), bool)
    for name in changing:
        column = known.column(name).combine_chunks()
        differs |= _differ(column.take(pa.array(before)), column.take(pa.array(before + 1)))
    before = before[differs]
    through = days[before + 1]
    earlier = known.take(pa.array(before))
    seen_when_judged = newest.slice(0, 0)
    if judged is not None:
        versions = Versions(newest.num_rows, items[before], through)
        places = versions.places(np.arange(newest.num_rows), np.full(newest.num_rows, judged))
        seen_when_judged = pa.concat_tables([newest, earlier]).take(pa.array(places))
    return Divided(newest, earlier.append_column(SEEN_THROUGH, pa.array(through, pa.int64())), seen_when_judged)


class Versions:
    """Finds the row that an interaction sees.

    Args:
        newest: the number of rows of the newest table.
        items: [earlier rows] int64, the row of the newest table with the same id.
        through: [earlier rows] int64, `SEEN_THROUGH`.
    """

    def __init__(self, newest: int, items: NDArray[np.int64], through: NDArray[np.int64]) -> None:
        keys = items * DAYS + through
        self._rows = newest + np.argsort(keys)
        self._keys = np.sort(keys)

    def places(self, items: NDArray[np.int64], days: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows, those of earlier tables after the newest's.

        Args:
            items: [interactions], rows of the newest table.
            days: [interactions], days since 1970-01-01.
        """
        if not len(self._keys):
            return items
        positions = np.searchsorted(self._keys, items * DAYS + days)
        at = np.minimum(positions, len(self._keys) - 1)
        is_earlier = (positions < len(self._keys)) & (self._keys[at] // DAYS == items)
        places: NDArray[np.int64] = np.where(is_earlier, self._rows[at], items)
        return places


def _differ(left: pa.Array, right: pa.Array) -> NDArray[np.bool_]:
    """Return [rows], whether values differ, lists at any position; a missing one differs from all others."""
    differ: NDArray[np.bool_] = left.is_valid().to_numpy(zero_copy_only=False) != right.is_valid().to_numpy(
        zero_copy_only=False
    )
    if not pa.types.is_list(left.type):
        unequal: NDArray[np.bool_] = pc.fill_null(pc.not_equal(left, right), False).to_numpy(zero_copy_only=False)
        return differ | unequal
    lengths = [ragged.lengths(side) for side in (left, right)]
    differ = differ | (lengths[0] != lengths[1])
    alike = np.flatnonzero(~differ)
    of_left, of_right = (pc.list_flatten(side.take(pa.array(alike))) for side in (left, right))
    differ[np.repeat(alike, lengths[0][alike])[_differ(of_left, of_right)]] = True
    return differ
