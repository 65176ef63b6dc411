"""A file to Arrow batches of raw columns, in which every row still knows its number."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from components.example_gen.settings import SourceSettings

BATCH_ROWS = 65_536
BLOCK_BYTES = 16 << 20
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


class FileFaultError(Exception):
    """A file that cannot be read, or not to its end. The text says why, without the file's name."""


@dataclass(frozen=True)
class RawBatch:
    """Consecutive rows of a file.

    Attributes:
        columns: by the data's own names. CSV gives binary; Parquet its own types.
        rows: [rows] int64, each row's number in the file, from 1; the header of CSV is not counted.
    """

    columns: dict[str, pa.Array]
    rows: NDArray[np.int64]


RaggedRow = Callable[[int, int, int], None]
"""Told the number of a row with too many or too few columns, how many were expected, and how many came."""


def column_types(path: str, source: SourceSettings) -> dict[str, pa.DataType]:
    """The columns of a file with their types, read from its header or footer alone.

    Raises:
        FileFaultError: the file is empty or truncated, or not of the format.
    """
    with _opened(path, source) as file:
        if source.format == "parquet":
            schema = parquet.ParquetFile(file).schema_arrow
            _check_distinct(schema.names)
            return dict(zip(schema.names, schema.types, strict=True))
        names = _csv_header(file, source)
    return dict.fromkeys(names, pa.binary())


def read(path: str, source: SourceSettings, columns: Sequence[str], ragged: RaggedRow) -> Iterator[RawBatch]:
    """Reads the columns of a file, a batch at a time.

    Raises:
        FileFaultError: the file is truncated or corrupt.
    """
    with _opened(path, source) as file:
        yield from (
            _read_parquet(file, columns) if source.format == "parquet" else _read_csv(file, source, columns, ragged)
        )


@contextmanager
def _opened(path: str, source: SourceSettings) -> Iterator[pa.NativeFile]:
    """A file as Arrow reads it, unpacked; what goes wrong meanwhile is a fault of the file."""
    try:
        raw: IO[bytes] = FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
    except (BeamIOError, OSError) as error:
        raise FileFaultError(f"cannot be opened: {error}") from error
    compression = next((name for suffix, name in COMPRESSIONS.items() if path.endswith(suffix)), None)
    with raw:
        file = pa.PythonFile(raw, mode="r")
        try:
            yield pa.CompressedInputStream(file, compression) if compression and source.format == "csv" else file
        except (pa.ArrowException, OSError, EOFError) as error:
            raise FileFaultError(f"cannot be read to its end as {source.format}: {error}") from error


def _read_parquet(file: pa.NativeFile, columns: Sequence[str]) -> Iterator[RawBatch]:
    read_rows = 0
    for batch in parquet.ParquetFile(file).iter_batches(BATCH_ROWS, columns=list(columns)):
        rows = np.arange(read_rows + 1, read_rows + batch.num_rows + 1)
        read_rows += batch.num_rows
        yield RawBatch({name: batch.column(name) for name in columns}, rows)


def _read_csv(
    file: pa.NativeFile, source: SourceSettings, columns: Sequence[str], ragged: RaggedRow
) -> Iterator[RawBatch]:
    skipped: list[int] = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        number = row.number - 1  # Arrow counts the header
        skipped.append(number)
        ragged(number, row.expected_columns, row.actual_columns)
        return "skip"

    reader = arrow_csv.open_csv(
        file if source.quoted_newlines else pa.PythonFile(_ClosedQuotes(file), mode="r"),
        # Only one thread knows the numbers of the rows that it skips.
        read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=arrow_csv.ParseOptions(
            delimiter=source.delimiter, newlines_in_values=True, invalid_row_handler=skip
        ),
        convert_options=arrow_csv.ConvertOptions(
            check_utf8=False, include_columns=list(columns), column_types=dict.fromkeys(columns, pa.binary())
        ),
    )
    kept_rows = 0
    for batch in reader:
        kept = np.arange(kept_rows + 1, kept_rows + batch.num_rows + 1)
        kept_rows += batch.num_rows
        # The n-th skipped row shifts every kept row from its own number less n on.
        shifts = np.array(skipped, np.int64) - np.arange(len(skipped))
        yield RawBatch(
            {name: batch.column(name) for name in columns}, kept + np.searchsorted(shifts, kept, side="right")
        )


class _ClosedQuotes:
    """A CSV stream as it is, read by Arrow; a line with an odd number of quotes is a fault: it would swallow rows behind it."""

    closed = False

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file
        self._lines = 0
        self._rest = b""

    def read(self, size: int) -> bytes:
        """The next bytes.

        Raises:
            FileFaultError: a quote is not closed in its line.
        """
        block: bytes = self._file.read(size)
        *lines, self._rest = (self._rest + block).split(b"\n") if block else (self._rest, b"")
        for number, line in enumerate(lines, self._lines + 1):
            if line.count(b'"') % 2:
                raise FileFaultError(
                    f"has a quote in line {number} that this line does not close. Mend it, or set quoted_newlines where "
                    "values do span lines"
                )
        self._lines += len(lines)
        return block

    def close(self) -> None:
        """Called by Arrow."""
        self.closed = True


def _csv_header(file: pa.NativeFile, source: SourceSettings) -> list[str]:
    # Rows behind the header come along in the buffer; what is not UTF-8 in those is their own fault.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        names = next(csv.reader(text, delimiter=source.delimiter), None)
    if not names:
        raise FileFaultError("is empty; expected a header with the names of the columns")
    if not all(name.isprintable() for name in names):
        raise FileFaultError(f"has a header that is not UTF-8 text: {names!r}")
    _check_distinct(names)
    return names


def _check_distinct(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise FileFaultError(f"has more than one column named {', '.join(repeated)}")
