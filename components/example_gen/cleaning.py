"""Files to clean rows: what is at fault is dropped, counted and named."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.example_gen import columns, conversion, reading
from components.example_gen.accounting import SHOWN_EXAMPLES, Accounting
from components.example_gen.columns import Column
from components.example_gen.settings import SourceSettings
from components.example_gen.sources import MICROSECONDS_A_DAY, SourceFile, microseconds
from schemas.features import REWARD, TIMESTAMP, WEIGHTS_SUFFIX

FILE = "_file"
ROW = "_row"
ACCOUNTING = "accounting"


@dataclass(frozen=True)
class Cleaning:
    """What is read of each file, and what a row must be.

    Attributes:
        source: how the files are written.
        columns: what is read.
        key: the output column by whose hash rows are parted.
        partitions: into how many parts.
        max_id_bytes: a longer id is a fault.
        time_range: microseconds since 1970-01-01, from the first (included) to the second; rows outside belong to no
            day of the window. None for rows without a time.
    """

    source: SourceSettings
    columns: list[Column]
    key: str
    partitions: int
    max_id_bytes: int
    time_range: tuple[int, int] | None = None


def file_faults(files: Sequence[SourceFile], cleaning: Cleaning) -> list[str]:
    """What is wrong with the headers and footers of files, before any row is read; one sentence each."""
    faults = []
    for file in files:
        try:
            found = reading.column_types(file.path, cleaning.source)
        except reading.FileFaultError as error:
            faults.append(f"{file.path}: {error}.")
            continue
        wrong = columns.type_faults(cleaning.columns, found, as_text=cleaning.source.format == "csv")
        faults += [f"{file.path}: {sentence}." for sentence in wrong]
    return faults


@beam.typehints.with_output_types(beam.typehints.Tuple[int, bytes])
class CleanFiles(beam.DoFn):
    """(number of the file, file) to (partition, Arrow IPC of its rows), and to `Accounting` in the output ACCOUNTING.

    A row has the declared columns, typed as `columns.TYPES` says, and `_file` and `_row`, where it stood.
    """

    def __init__(self, cleaning: Cleaning) -> None:
        self._cleaning = cleaning

    def process(self, element: tuple[int, SourceFile]) -> Iterator[Any]:
        """Called by Beam."""
        number, file = element
        accounting = Accounting()
        cleaner = _Cleaner(self._cleaning, file, accounting)
        try:
            for batch in reading.read(
                file.path, self._cleaning.source, sorted({c.source for c in self._cleaning.columns}), cleaner.ragged
            ):
                clean = cleaner.clean(batch)
                files = pa.array(np.full(clean.num_rows, number, np.int32))
                yield from _parted(clean.append_column(FILE, files), self._cleaning)
        except reading.FileFaultError as error:
            accounting.faults.append(f"{file.path}: {error}.")
        yield beam.pvalue.TaggedOutput(ACCOUNTING, accounting)


@dataclass
class _Cleaner:
    """Cleans the batches of one file."""

    cleaning: Cleaning
    file: SourceFile
    accounting: Accounting
    ragged_rows: set[int] = field(default_factory=set)

    def ragged(self, row: int, expected: int, came: int) -> None:
        """Counts a row with too many or too few columns."""
        self.accounting.rows += 1
        self.accounting.drop(f"rows with {came} columns instead of {expected}", 1, [place(self.file.path, row)])

    def clean(self, batch: reading.RawBatch) -> pa.Table:
        """The rows that keep to what is declared."""
        faults: dict[str, NDArray[np.bool_]] = {}
        values: dict[str, pa.Array] = {}
        for column in self.cleaning.columns:
            converted = conversion.convert(column, batch.columns[column.source], self.cleaning.max_id_bytes)
            values[column.name] = converted.values
            faults |= {f"{column.source}: {reason}": mask for reason, mask in converted.faults.items()}
        faults |= self._faults_between(values)
        is_kept = self._is_in_window(values, len(batch.rows))
        self.accounting.rows += int(is_kept.sum())
        for reason, mask in faults.items():
            at_fault = batch.rows[mask & is_kept]
            places = [place(self.file.path, row) for row in at_fault[:SHOWN_EXAMPLES]]
            self.accounting.drop(reason, len(at_fault), places)
            is_kept &= ~mask
        return pa.table({**values, ROW: pa.array(batch.rows)}).filter(pa.array(is_kept))

    def _faults_between(self, values: dict[str, pa.Array]) -> dict[str, NDArray[np.bool_]]:
        faults = {}
        if REWARD in values:
            reward = values[REWARD].fill_null(0.0).to_numpy(zero_copy_only=False)
            source = next(column.source for column in self.cleaning.columns if column.name == REWARD)
            faults[f"{source}: outside [0, 1]"] = (reward < 0.0) | (reward > 1.0)
        for name in values:
            if name.endswith(WEIGHTS_SUFFIX) and name.removesuffix(WEIGHTS_SUFFIX) in values:
                ids = name.removesuffix(WEIGHTS_SUFFIX)
                faults[f"{name}: another number than of {ids}"] = _lengths(values[name]) != _lengths(values[ids])
        if TIMESTAMP in values and self.file.day is not None:
            start = microseconds(self.file.day)
            times = values[TIMESTAMP].fill_null(start).to_numpy(zero_copy_only=False)
            source = next(column.source for column in self.cleaning.columns if column.name == TIMESTAMP)
            faults[f"{source}: not within its folder's day"] = (times < start) | (times >= start + MICROSECONDS_A_DAY)
        return faults

    def _is_in_window(self, values: dict[str, pa.Array], rows: int) -> NDArray[np.bool_]:
        """In a log of many days, rows of other days are no part of the run; rows without a time are faults."""
        if self.cleaning.time_range is None or self.file.day is not None:
            return np.ones(rows, bool)
        first, after = self.cleaning.time_range
        times = values[TIMESTAMP].fill_null(first).to_numpy(zero_copy_only=False)
        within: NDArray[np.bool_] = (times >= first) & (times < after)
        return within


def place(path: str, row: int) -> str:
    """Where a row stands."""
    return f"{path} row {row}"


def partition(ids: pa.Array, partitions: int) -> NDArray[np.int64]:
    """[rows] binary ids to [rows] partitions; the same id always goes to the same one."""
    values = np.array(ids.to_pylist(), object)
    return (pd.util.hash_array(values, categorize=False) % np.uint64(partitions)).astype(np.int64)


def to_bytes(rows: pa.Table) -> bytes:
    """A table as Arrow IPC."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def from_bytes(parts: Sequence[bytes]) -> pa.Table:
    """The rows of several tables in the order in which they stood in the data, whatever order Beam brings them in."""
    rows = pa.concat_tables([pa.ipc.open_stream(part).read_all() for part in parts])
    return rows.sort_by([(FILE, "ascending"), (ROW, "ascending")]).combine_chunks()


def _parted(rows: pa.Table, cleaning: Cleaning) -> Iterator[tuple[int, bytes]]:
    if not rows.num_rows:
        return
    parts = partition(rows.column(cleaning.key), cleaning.partitions)
    for part in np.unique(parts):
        yield int(part), to_bytes(rows.filter(pa.array(parts == part)))


def _lengths(lists: pa.ListArray) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return lengths
