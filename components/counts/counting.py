"""Counts the interactions of a day and adds them to what earlier days left."""

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from components.counts import files
from components.counts.files import DAYS, ITEMS, ONE, PAIRS, PARTS, RECENT_DAYS, THROUGH, TRAINING, USERS
from components.counts.settings import CountsSettings
from components.decoded import decode, id_part, lists, rewarded, single
from components.example_gen.sources import MICROSECONDS_A_DAY
from schemas.features import CANDIDATE_ID, QUERY_ID, TIMESTAMP

Key = tuple[str, int]
Counted = tuple[str, pd.DataFrame]
"""Which folder some rows are for: TRAINING where only that of the training split, and both otherwise."""


class Count(beam.DoFn):
    """Batches of serialised interactions to ((kind, part), (split, rows of that kind)).

    Args:
        split: `train` or `eval`.
        history: the feature that holds the query's history; None where there is none.
        span: the day, in days since 1970-01-01.
        since: the first microsecond that the base does not count yet.
        half_life_days: after how many days an interaction counts half; None for never.
    """

    def __init__(self, split: str, history: str | None, span: int, since: int, half_life_days: float | None) -> None:
        self._split = split
        self._history = history
        self._span = span
        self._since = since
        self._half_life_days = half_life_days

    def process(self, batch: Sequence[bytes]) -> Iterator[tuple[Key, Counted]]:
        """Called by Beam."""
        rows = rewarded(decode(batch))
        rows = rows.filter(pa.array(single(rows.column(TIMESTAMP)).to_numpy() >= self._since))
        if not rows.num_rows:
            return
        times = single(rows.column(TIMESTAMP)).to_numpy()
        spans = times // MICROSECONDS_A_DAY
        weights = self._weights(spans)
        items = single(rows.column(CANDIDATE_ID)).cast(pa.binary())
        item = items.to_numpy(zero_copy_only=False)
        yield from self._parted(ITEMS, pd.DataFrame({"item": item, "count": weights, "first": times}), "item")
        is_recent = spans > self._span - RECENT_DAYS
        days = pd.DataFrame({"span": spans, "item": item, "count": ONE})[is_recent]
        yield from self._parted(DAYS, days, "item")
        user = single(rows.column(QUERY_ID)).to_numpy(zero_copy_only=False)
        users = pd.DataFrame({"user": user, "item": item, "count": ONE, "last": times})
        yield from self._parted(USERS, users, "user")
        yield from self._parted(PAIRS, pairs(lists(rows, self._history), items, weights), "source")

    def _weights(self, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        """[rows] what an interaction of each span counts on the last one."""
        different, positions = np.unique(spans, return_inverse=True)
        by_day = [round(ONE * files.factor(self._half_life_days, self._span - each)) for each in different.tolist()]
        return np.array(by_day, np.int64)[positions]

    def _parted(self, kind: str, rows: pd.DataFrame, key: str) -> Iterator[tuple[Key, Counted]]:
        if not len(rows):
            return
        merged = files.merge(kind, [rows])
        if PARTS[kind] == 1:
            yield (kind, 0), (self._split, merged)
            return
        codes, different = pd.factorize(merged[key])
        parts = np.array([id_part(each, PARTS[kind]) for each in different])[codes]
        for part in np.unique(parts).tolist():
            yield (kind, part), (self._split, merged[parts == part])


def pairs(histories: pa.ListArray, items: pa.Array, weights: NDArray[np.int64]) -> pd.DataFrame:
    """Each item of a history with the item that was taken after it: `source`, `target`, `count` and the source's `total`.

    Args:
        histories: [rows] lists of ids; an id that is there twice counts twice.
        items: [rows] ids that were taken.
        weights: [rows], what each row counts.
    """
    lengths = np.diff(histories.offsets.to_numpy())
    sources = histories.values.cast(pa.binary()).dictionary_encode()
    targets = items.dictionary_encode()
    number = max(1, len(targets.dictionary))
    target = np.repeat(targets.indices.to_numpy().astype(np.int64), lengths)
    keys = sources.indices.to_numpy().astype(np.int64) * number + target
    different, positions = np.unique(keys, return_inverse=True)
    counts = _sums(positions, np.repeat(weights, lengths), len(different))
    source, target = np.divmod(different, number)
    totals = _sums(source, counts, len(sources.dictionary))
    return pd.DataFrame(
        {
            "source": sources.dictionary.to_numpy(zero_copy_only=False)[source],
            "target": targets.dictionary.to_numpy(zero_copy_only=False)[target],
            "count": counts,
            "total": totals[source],
        }
    )


class Carry(beam.DoFn):
    """((kind, part), what was counted) to files of both folders; emits (folder, (name, size, digest)).

    Args:
        settings: how much is kept.
        span: the day, in days since 1970-01-01.
        base: the `through` folder of the day that is carried on; None where there is none.
        destination: the artifact's folder.
    """

    def __init__(self, settings: CountsSettings, span: int, base: str | None, destination: str) -> None:
        self._settings = settings
        self._span = span
        self._base = base
        self._destination = destination

    def process(self, element: tuple[Key, Iterable[Counted]]) -> Iterator[tuple[str, tuple[str, int, str]]]:
        """Called by Beam."""
        (kind, part), counted = element
        frames = list(counted)
        training = files.merge(kind, [rows for split, rows in frames if split == TRAINING])
        carried = self._carried(kind, part)
        through = self._bounded(kind, files.merge(kind, [*carried, *(rows for _, rows in frames)]))
        for name, rows in ((THROUGH, through), (TRAINING, self._bounded(kind, training))):
            if len(rows):
                yield name, files.write_part(f"{self._destination}/{name}", kind, part, rows)

    def _carried(self, kind: str, part: int) -> list[pd.DataFrame]:
        if self._base is None:
            return []
        description = files.describe(self._base)
        factor = files.factor(self._settings.half_life_days, self._span - description.span)
        return [files.decay(kind, files.read_part(self._base, kind, part, description), factor)]

    def _bounded(self, kind: str, rows: pd.DataFrame) -> pd.DataFrame:
        """What is kept of a kind."""
        if kind == DAYS:
            return rows[(rows["span"] > self._span - RECENT_DAYS) & (rows["span"] <= self._span)]
        if kind == PAIRS:
            strongest = rows.sort_values(["source", "count", "target"], ascending=[True, False, True])
            kept = strongest.groupby("source").head(self._settings.pairs_per_item)
            return kept.sort_values(["source", "target"])
        if kind == USERS:
            newest = rows.groupby("user")["last"].transform("max")
            rows = rows[newest >= (self._span + 1 - self._settings.user_days) * MICROSECONDS_A_DAY]
            return rows.groupby("user").head(self._settings.items_per_user)
        return rows


def _sums(positions: NDArray[np.int64], values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """[size] the sum of the values at each position."""
    total = np.zeros(size, np.int64)
    np.add.at(total, positions, values)
    return total
