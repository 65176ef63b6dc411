"""Counts the interactions of a day and adds the counts of earlier days."""

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from components.counts import files
from components.counts.files import DAYS, ITEMS, ONE, PAIRS, PARTITIONS, RECENT_DAYS, THROUGH, TRAINING, USERS
from components.counts.settings import CountsSettings
from components.decoded import decode, lists, rewarded, single
from components.digests import partition_of
from components.example_gen.cleaning import to_bytes
from components.utc import MICROSECONDS_A_DAY
from schemas.features import CANDIDATE_ID, QUERY_ID, TIMESTAMP

Key = tuple[str, int]
Counted = tuple[str, bytes]
"""The folder that some rows, as Arrow IPC, belong to: TRAINING for those of the training split only, else both folders."""
WAITING_ROWS = 1 << 20


class Count(beam.DoFn):
    """Maps batches of serialised interactions to ((kind, partition), (split, Arrow IPC of rows of that kind)).

    Args:
        split: `train` or `eval`.
        history: the feature with the query's history; None without one.
        span: the day, in days since 1970-01-01.
        since: the first microsecond that the base does not include.
        half_life_days: after this many days an interaction counts half; None for no decay.
    """

    def __init__(self, split: str, history: str | None, span: int, since: int, half_life_days: float | None) -> None:
        self._split = split
        self._history = history
        self._span = span
        self._since = since
        self._half_life_days = half_life_days
        self._waiting: dict[str, list[pa.Table]] = {}

    def start_bundle(self) -> None:
        """Override of Beam's method."""
        self._waiting = {kind: [] for kind in PARTITIONS}

    def process(self, batch: Sequence[bytes]) -> Iterator[tuple[Key, Counted]]:
        """Override of Beam's method."""
        for kind, rows in self._counted(batch).items():
            self._waiting[kind].append(rows)
            if sum(table.num_rows for table in self._waiting[kind]) >= WAITING_ROWS:
                yield from self._added_up(kind)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Override of Beam's method."""
        for kind in self._waiting:
            for counted in self._added_up(kind):
                yield WindowedValue(counted, 0, [GlobalWindow()])

    def _counted(self, batch: Sequence[bytes]) -> dict[str, pa.Table]:
        rows = rewarded(decode(batch))
        rows = rows.filter(pa.array(single(rows.column(TIMESTAMP)).to_numpy() >= self._since))
        times = single(rows.column(TIMESTAMP)).to_numpy()
        spans = times // MICROSECONDS_A_DAY
        weights = self._weights(spans)
        items = single(rows.column(CANDIDATE_ID)).cast(pa.binary())
        users = single(rows.column(QUERY_ID)).cast(pa.binary())
        ones = np.full(len(times), ONE)
        is_recent = pa.array(spans > self._span - RECENT_DAYS)
        return {
            ITEMS: pa.table({"item": items, "count": weights, "first": times}),
            DAYS: pa.table({"span": spans, "item": items, "count": ones}).filter(is_recent),
            USERS: pa.table({"user": users, "item": items, "count": ones, "last": times}),
            PAIRS: pairs(lists(rows, self._history), items, weights),
        }

    def _weights(self, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return [rows], the weight on the last span of an interaction of each span."""
        different, positions = np.unique(spans, return_inverse=True)
        by_day = [round(ONE * files.factor(self._half_life_days, self._span - span)) for span in different.tolist()]
        return np.array(by_day, np.int64)[positions]

    def _added_up(self, kind: str) -> Iterator[tuple[Key, Counted]]:
        """Add up the waiting rows of a kind, divided by their first key."""
        merged = files.merge(kind, self._waiting[kind])
        self._waiting[kind] = []
        if not merged.num_rows:
            return
        if PARTITIONS[kind] == 1:
            yield (kind, 0), (self._split, to_bytes(merged))
            return
        encoded = merged.column(files.KEYS[kind][0]).combine_chunks().dictionary_encode()
        partitions = np.array([partition_of(key, PARTITIONS[kind]) for key in encoded.dictionary.to_pylist()])
        partitions = partitions[encoded.indices.to_numpy()]
        for partition in np.unique(partitions).tolist():
            yield (kind, partition), (self._split, to_bytes(merged.filter(pa.array(partitions == partition))))


def pairs(histories: pa.ListArray, items: pa.Array, weights: NDArray[np.int64]) -> pa.Table:
    """Pair each item of a history with the item taken after it: `source`, `target`, `count` and the source's `total`.

    Args:
        histories: [rows] lists of ids; repeated ids count each time.
        items: [rows] ids of the items taken.
        weights: [rows], the weight of each row.
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
    return pa.table(
        {
            "source": sources.dictionary.take(pa.array(source)),
            "target": targets.dictionary.take(pa.array(target)),
            "count": counts,
            "total": totals[source],
        }
    )


class Carry(beam.DoFn):
    """Writes ((kind, partition), counts) to files in both folders; emits (folder, (name, size, digest)).

    Args:
        settings: how much is kept.
        span: the day, in days since 1970-01-01.
        base: the `through` folder of the earlier day; None without one.
        destination: the artifact's folder.
    """

    def __init__(self, settings: CountsSettings, span: int, base: str | None, destination: str) -> None:
        self._settings = settings
        self._span = span
        self._base = base
        self._destination = destination

    def process(self, element: tuple[Key, Iterable[Counted]]) -> Iterator[tuple[str, tuple[str, int, str]]]:
        """Override of Beam's method."""
        (kind, partition), counted = element
        tables = [(split, pa.ipc.open_stream(rows).read_all()) for split, rows in counted]
        training = files.merge(kind, [rows for split, rows in tables if split == TRAINING])
        carried = self._carried(kind, partition)
        through = self._bounded(kind, files.merge(kind, [*carried, *(rows for _, rows in tables)]))
        for name, rows in ((THROUGH, through), (TRAINING, self._bounded(kind, training))):
            if rows.num_rows:
                yield name, files.write_partition(f"{self._destination}/{name}", kind, partition, rows)

    def _carried(self, kind: str, partition: int) -> list[pa.Table]:
        if self._base is None:
            return []
        description = files.describe(self._base)
        factor = files.factor(self._settings.half_life_days, self._span - description.span)
        return [files.decay(kind, files.read_table(self._base, kind, partition, description), factor)]

    def _bounded(self, kind: str, rows: pa.Table) -> pa.Table:
        """Drop what is not kept of a kind."""
        if kind == DAYS:
            spans = rows.column("span").to_numpy()
            return rows.filter(pa.array((spans > self._span - RECENT_DAYS) & (spans <= self._span)))
        if kind == PAIRS:
            sources = files.codes_of(rows.column("source"))
            # Stable, so by target if equally strong.
            strongest = np.lexsort((-rows.column("count").to_numpy(), sources))
            positions = strongest[files.places_in_groups(sources) < self._settings.pairs_per_item]
            return rows.take(pa.array(np.sort(positions)))
        if kind == USERS:
            users = files.codes_of(rows.column("user"))
            places, last = files.places_in_groups(users), rows.column("last").to_numpy()
            newest = last[np.arange(len(last)) - places]
            is_recent = newest >= (self._span + 1 - self._settings.user_days) * MICROSECONDS_A_DAY
            return rows.filter(pa.array(is_recent & (places < self._settings.items_per_user)))
        return rows


def _sums(positions: NDArray[np.int64], values: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return [size] the sum of the values at each position."""
    total = np.zeros(size, np.int64)
    np.add.at(total, positions, values)
    return total
