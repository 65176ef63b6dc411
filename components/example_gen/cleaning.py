"""Turns files into clean rows: faulty ones are dropped, counted and named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.example_gen import columns, conversion, csv_lines, reading, scalars, ways_out
from components.example_gen.accounting import SHOWN_EXAMPLES, Accounting
from components.example_gen.columns import EVENT, OVER, Column
from components.example_gen.filters import PREFIX, filter_columns, is_met
from components.example_gen.rewards import rewarded
from components.example_gen.settings import SourceSettings
from components.example_gen.sources import SourceFile
from components.utc import MICROSECONDS_A_DAY, microseconds
from schemas.features import REWARD, TIMESTAMP, WEIGHTS_SUFFIX, InteractionColumns

FILE = "_file"
ROW = "_row"
ACCOUNTING = "accounting"
EXAMINED = 100  # faulty values from which advice is guessed
SHOWN_CHARACTERS = 40  # of a faulty value
EARLIEST = int(ways_out.EARLIEST.timestamp()) * 1_000_000


@dataclass(frozen=True)
class Cleaning:
    """What to read of each file, and what a row must meet.

    Attributes:
        source: how the files are written.
        columns: the columns to read.
        key: the output column whose hash partitions the rows.
        partitions: the number of partitions.
        max_id_bytes: a longer id is a fault.
        time_range: microseconds since 1970-01-01, from the first (included) to the second; rows outside belong to no
            day of the window. None for rows without a time.
        latest: microseconds since 1970-01-01; in a log of many days, a time at or after it, or before 1990, is
            impossible.
        closed: closed spans (days since 1970-01-01) of the window.
        keys: define the reward; None for rows without one.
        start: the first microsecond of the days that become examples; earlier rows are read only for histories. None if there are
            none.
        keep_event: whether rows keep their kind of event, under EVENT.
    """

    source: SourceSettings
    columns: list[Column]
    key: str
    partitions: int
    max_id_bytes: int
    time_range: tuple[int, int] | None = None
    latest: int = 0
    closed: tuple[int, ...] = ()
    keys: InteractionColumns | None = None
    start: int | None = None
    keep_event: bool = False

    @property
    def all_columns(self) -> list[Column]:
        """The columns to read, for rows and for their conditions."""
        return [*self.columns, *filter_columns(self.source.where)]

    @property
    def form(self) -> scalars.Form:
        """How values are written."""
        return scalars.Form(self.max_id_bytes, self.source.null_values, self.source.trim)


def file_faults(files: Sequence[SourceFile], cleaning: Cleaning) -> list[str]:
    """List faults in the headers and footers of files, before any row is read; one sentence each."""
    faults = []
    for file in files:
        try:
            types = reading.column_types(file.path, cleaning.source)
        except csv_lines.FileFaultError as error:
            faults.append(f"{file.path}: {error}.")
            continue
        wrong = columns.type_faults(cleaning.all_columns, types, as_text=cleaning.source.format == "csv")
        faults += [f"{file.path}: {sentence}." for sentence in wrong]
    return faults


@beam.typehints.with_output_types(beam.typehints.Tuple[int, bytes])
class CleanFiles(beam.DoFn):
    """Maps (number of the file, file) to (partition, Arrow IPC of its rows), and to `Accounting` in the output ACCOUNTING.

    A row has the declared columns, with the types of `columns.TYPES`, and its place, `_file` and `_row`.
    """

    def __init__(self, cleaning: Cleaning) -> None:
        self._cleaning = cleaning

    def process(self, element: tuple[int, SourceFile]) -> Iterator[Any]:
        """Override of Beam's method."""
        number, file = element
        accounting = Accounting()
        cleaner = _Cleaner(self._cleaning, file, accounting)
        try:
            for batch in reading.read(
                file.path, self._cleaning.source, sorted({c.source for c in self._cleaning.all_columns}), cleaner.ragged
            ):
                clean = cleaner.clean(batch)
                files = pa.array(np.full(clean.num_rows, number, np.int32))
                yield from parted(clean.append_column(FILE, files), self._cleaning)
        except csv_lines.FileFaultError as error:
            accounting.faults.append(f"{file.path}: {error}.")
        yield beam.pvalue.TaggedOutput(ACCOUNTING, accounting)


@dataclass
class _Cleaner:
    """Cleans the batches of one file."""

    cleaning: Cleaning
    file: SourceFile
    accounting: Accounting

    def ragged(self, row: int, expected: int, came: int) -> None:
        """Count a row with too many or too few columns."""
        before = int(self._is_before({}, 1)[0]) if self.file.day is not None else 0
        self.accounting.rows += 1
        self.accounting.before += before
        reason = f"rows with {came} columns instead of {expected}"
        self.accounting.drop(reason, 1, [self._place(row)], before=before)

    def clean(self, batch: reading.RawBatch) -> pa.Table:
        """Return the rows that meet their declarations."""
        faults: list[_Fault] = []
        values: dict[str, pa.Array] = {}
        if self.cleaning.source.format == "csv":
            faults.append(_Fault("the header once more", _are_headers(batch)))
        for column in self.cleaning.all_columns:
            converted = conversion.convert(column, batch.columns[column.source], self.cleaning.form)
            values[column.name] = converted.values
            faults += [_Fault(reason, mask, column) for reason, mask in converted.faults.items()]
        faults += self._faults_between(values)
        is_kept, has_day = self._is_in_window(values, faults, len(batch.rows))
        self.accounting.rows += int(is_kept.sum())
        is_kept = self._filter(values, faults, is_kept)
        is_kept = self._reward(values, faults, is_kept)
        self.accounting.dayless += int((is_kept & ~has_day).sum())
        is_before = self._is_before(values, len(is_kept))
        self.accounting.before += int((is_kept & is_before).sum())
        for fault in faults:
            at_fault = fault.mask & is_kept
            self._drop(fault, np.flatnonzero(at_fault), batch, int((at_fault & is_before).sum()))
            is_kept &= ~fault.mask
        return pa.table({**values, ROW: pa.array(batch.rows)}).filter(pa.array(is_kept))

    def _filter(
        self, values: dict[str, pa.Array], faults: "list[_Fault]", is_kept: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Leave out rows that do not meet the conditions, and columns that were read only for these."""
        for number, condition in enumerate(self.cleaning.source.where):
            met = is_met(condition, values.pop(f"{PREFIX}{number}"))
            for fault in faults:  # a faulty value is unknown
                if fault.column is not None and fault.column.name == f"{PREFIX}{number}":
                    met |= fault.mask
            self.accounting.filter(condition.reason, int((is_kept & ~met).sum()))
            is_kept = is_kept & met
        return is_kept

    def _reward(
        self, values: dict[str, pa.Array], faults: "list[_Fault]", is_kept: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Replace the columns of the reward by the reward, and leave out events of weight 0."""
        keys = self.cleaning.keys
        if keys is None or not (keys.reward or keys.event):
            return is_kept
        rewards = rewarded(keys, values, len(is_kept))
        faults += [_Fault(reason, mask, self._column(name)) for (name, reason), mask in rewards.faults.items()]
        values[REWARD] = rewards.values
        for name in (OVER, EVENT):
            if name != EVENT or not self.cleaning.keep_event:
                values.pop(name, None)
        if keys.event:
            reason = f"{keys.event.column}: weighs nothing"
            self.accounting.filter(reason, int((is_kept & rewards.weighs_nothing).sum()))
        return is_kept & ~rewards.weighs_nothing

    def _is_before(self, values: dict[str, pa.Array], rows: int) -> NDArray[np.bool_]:
        """Return [rows], which are of days before the window: by the file's day, or by the time if a file has many days."""
        if self.cleaning.start is None:
            return np.zeros(rows, bool)
        if self.file.day is not None:
            return np.full(rows, microseconds(self.file.day) < self.cleaning.start)
        is_before: NDArray[np.bool_] = (
            values[TIMESTAMP].fill_null(self.cleaning.start).to_numpy(zero_copy_only=False) < self.cleaning.start
        )
        return is_before

    def _drop(self, fault: "_Fault", at_fault: NDArray[np.int64], batch: reading.RawBatch, before: int) -> None:
        if not len(at_fault):
            return
        column, shown = fault.column, batch.rows[at_fault[:SHOWN_EXAMPLES]]
        if column is None:
            self.accounting.drop(fault.reason, len(at_fault), map(self._place, shown), before=before)
            return
        if fault.reason == ways_out.MISSING:
            places, way_out = [self._place(row) for row in shown], ways_out.way_out(column, ways_out.MISSING, [])
            self.accounting.drop(f"{column.source}: {ways_out.MISSING}", len(at_fault), places, way_out, before)
            return
        raw = batch.columns[column.source].take(pa.array(at_fault[:EXAMINED]))
        texts = [_text(value) for value in raw.to_pylist()]
        places = [f"{self._place(row)}: {_shown(text)}" for row, text in zip(shown, texts, strict=False)]
        way_out = ways_out.way_out(column, fault.reason, texts)
        self.accounting.drop(f"{column.source}: {fault.reason}", len(at_fault), places, way_out, before)

    def _place(self, row: int) -> str:
        return f"{before_rows([self.file], self.cleaning.source)[0]} {row}"

    def _faults_between(self, values: dict[str, pa.Array]) -> "list[_Fault]":
        faults = []
        for name, lists in values.items():
            if not pa.types.is_list(lists.type) or name.removesuffix(WEIGHTS_SUFFIX) != name:
                continue
            weights = name + WEIGHTS_SUFFIX
            if weights in values:
                values[name], values[weights], wrong = conversion.aligned(lists, values[weights])
                faults.append(_Fault(f"{weights}: another number than of {name}", wrong))
            else:
                values[name] = conversion.without_nulls(lists)
        if TIMESTAMP in values and self.file.day is not None:
            start = microseconds(self.file.day)
            times = values[TIMESTAMP].fill_null(start).to_numpy(zero_copy_only=False)
            is_outside = (times < start) | (times >= start + MICROSECONDS_A_DAY)
            faults.append(_Fault("not within its folder's day", is_outside, self._column(TIMESTAMP)))
        return faults

    def _column(self, name: str) -> Column:
        return next(column for column in self.cleaning.columns if column.name == name)

    def _is_in_window(
        self, values: dict[str, pa.Array], faults: "list[_Fault]", rows: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return [rows], which are of the run's days or of none; and which are of any day. Rows of no day are faults.

        In a log of many days, rows of other days are not part of the run.
        """
        everything = np.ones(rows, bool)
        if self.cleaning.time_range is None or self.file.day is not None:
            return everything, everything
        first, after = self.cleaning.time_range
        times = values[TIMESTAMP].fill_null(first).to_numpy(zero_copy_only=False)
        is_missing = values[TIMESTAMP].is_null().to_numpy(zero_copy_only=False)
        is_impossible = ~is_missing & ((times < EARLIEST) | (times >= max(self.cleaning.latest, after)))
        faults.append(_Fault("of no day that can be", is_impossible, self._column(TIMESTAMP)))
        is_within = (times >= first) & (times < after)
        if self.cleaning.closed:
            is_closed = is_within & ~is_missing & np.isin(times // MICROSECONDS_A_DAY, self.cleaning.closed)
            faults.append(_Fault("of a day that data.closed names", is_closed, self._column(TIMESTAMP)))
        other_times = times[~is_within & ~is_impossible]
        if len(other_times):
            self.accounting.of_other_days(len(other_times), int(other_times.min()), int(other_times.max()))
        return is_within | is_impossible, ~(is_missing | is_impossible)


@dataclass(frozen=True)
class _Fault:
    """Rows with the same fault, and the column whose values are shown; None if the fault is not of one value."""

    reason: str
    mask: NDArray[np.bool_]
    column: Column | None = None


def _are_headers(batch: reading.RawBatch) -> NDArray[np.bool_]:
    """Detect repeated headers, which are among the rows if files were concatenated."""
    are = np.ones(len(batch.rows), bool)
    for name, values in batch.columns.items():
        are &= pc.equal(values, name.encode()).fill_null(False).to_numpy(zero_copy_only=False)
        if not are.any():
            break
    return are


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")


def before_rows(files: Sequence[SourceFile], source: SourceSettings) -> list[str]:
    """Return the beginning of a row's place for each file; the row's number follows."""
    return [f"{file.path} {source.counted_by}" for file in files]


def partition(ids: pa.Array, partitions: int) -> NDArray[np.int64]:
    """Map [rows] binary ids to [rows] partitions; equal ids always have the same one."""
    return (id_hashes(ids) % np.uint64(partitions)).astype(np.int64)


def id_hashes(ids: pa.Array) -> NDArray[np.uint64]:
    """Map [rows] binary ids to [rows] hashes, each computed once; the same in every process."""
    encoded = ids.dictionary_encode()
    different = np.array(encoded.dictionary.to_pylist(), object)
    hashes: NDArray[np.uint64] = pd.util.hash_array(different, categorize=False)[encoded.indices.to_numpy()]
    return hashes


def to_bytes(rows: pa.Table) -> bytes:
    """Serialise a table as Arrow IPC."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def from_bytes(tables: Sequence[bytes]) -> pa.Table:
    """Read the rows of several tables in the order of the data, whatever the order from Beam."""
    rows = pa.concat_tables([pa.ipc.open_stream(table).read_all() for table in tables])
    return rows.sort_by([(FILE, "ascending"), (ROW, "ascending")]).combine_chunks()


def parted(rows: pa.Table, cleaning: Cleaning) -> Iterator[tuple[int, bytes]]:
    """Partition rows by the key's hash, to (partition, Arrow IPC)."""
    if not rows.num_rows:
        return
    partitions = partition(rows.column(cleaning.key).combine_chunks(), cleaning.partitions)
    for number in np.unique(partitions):
        yield int(number), to_bytes(rows.filter(pa.array(partitions == number)))
