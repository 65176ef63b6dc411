"""Reads a file to Arrow batches of raw columns, with the number of every row."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from components import object_store
from components.example_gen.csv_lines import CsvLines, FileFaultError
from components.example_gen.settings import SourceSettings
from schemas.errors import PassingError, UserError

BATCH_ROWS = 65_536
BLOCK_BYTES = 16 << 20
# By their first bytes, whatever the file's name.
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
OTHERS = {
    b"PAR1": "is a Parquet file. Say `format: parquet`",
    b"PK\x03\x04": "is a zip archive or a workbook of Excel. Unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "is a workbook of Excel. Save it as CSV",
    b"\xfd7zXZ": "is packed by xz. Unpack it, or pack it by gzip",
    b"7z\xbc\xaf": "is a 7-Zip archive. Unpack it",
    b"ORC": "is an ORC file. Write it as Parquet or CSV",
    b"Obj\x01": "is an Avro file. Write it as Parquet or CSV",
    b"ARROW1": "is an Arrow file. Write it as Parquet or CSV",
    b"SQLite format 3": "is an SQLite database. Write its table as CSV",
    b"\xff\xfe": "is in UTF-16, as Excel's Unicode text is. Save it as CSV UTF-8",
    b"\xfe\xff": "is in UTF-16. Save it in UTF-8",
}


@dataclass(frozen=True)
class RawBatch:
    """Consecutive rows of a file.

    Attributes:
        columns: by their names in the data. CSV gives binary; Parquet its own types.
        rows: [rows] int64, the position of each row in the file, from 1: its line in CSV, its number in Parquet.
    """

    columns: dict[str, pa.Array]
    rows: NDArray[np.int64]


RaggedRow = Callable[[int, int, int], None]
"""Called for a row with too many or too few columns: its line, the expected number, and the found one."""


def column_types(path: str, source: SourceSettings) -> dict[str, pa.DataType]:
    """Return the columns of a file with their types, read from its header or footer only.

    Raises:
        FileFaultError: the file is empty, truncated, or of another format.
    """
    with _opened(path, source) as file:
        if source.format == "parquet":
            schema = parquet.ParquetFile(file).schema_arrow
            _check_distinct(schema.names)
            return dict(zip(schema.names, schema.types, strict=True))
        names = _csv_header(file, source)
    return dict.fromkeys(names, pa.binary())


def _names_as_written(path: str, source: SourceSettings) -> dict[str, str]:
    """Map the names of a CSV's columns to their names in the file, before trimming."""
    with _opened(path, source) as file:
        written = _csv_header(file, source.model_copy(update={"trim": False}))
    return {name.strip(): name for name in written}


def read(path: str, source: SourceSettings, columns: Sequence[str], ragged: RaggedRow) -> Iterator[RawBatch]:
    """Read columns of a file, batch by batch.

    Raises:
        FileFaultError: the file is truncated or corrupt.
    """
    written = _names_as_written(path, source) if source.format == "csv" and source.trim else {}
    with _opened(path, source) as file:
        if source.format == "parquet":
            yield from _read_parquet(file, columns)
        else:
            yield from _read_csv(file, source, {written.get(name, name): name for name in columns}, ragged)


def beginning(path: str, size: int) -> bytes:
    """Return the first whole lines of a text file, unpacked, of at most `size` bytes; all of a shorter one.

    Raises:
        FileFaultError: the file is truncated, corrupt, or not text.
    """
    with _opened(path, SourceSettings(path=path, format="csv")) as file:
        text = b""
        while len(text) < size and (block := file.read(size - len(text))):
            text += block
    return text[: text.rfind(b"\n") + 1] if len(text) == size else text


@contextmanager
def _opened(path: str, source: SourceSettings) -> Iterator[pa.NativeFile]:
    """Open a file for Arrow, unpacked; errors meanwhile are faults of the file, but for a store that does not answer."""
    try:
        raw = object_store.open_input(path) if "://" in path else pa.OSFile(path)
    except PassingError:
        raise
    except (UserError, OSError) as error:
        raise FileFaultError(f"cannot be opened: {error}") from error
    with raw as file:
        try:
            if source.format == "parquet":
                yield file
                return
            first = file.read(max(map(len, OTHERS)))
            file.seek(0)
            if other_format := next((words for magic, words in OTHERS.items() if first.startswith(magic)), None):
                raise FileFaultError(other_format)
            compression = next((name for magic, name in COMPRESSIONS.items() if first.startswith(magic)), None)
            yield pa.CompressedInputStream(file, compression) if compression else file
        except (pa.ArrowException, OSError, EOFError) as error:
            if "://" in path and isinstance(error, OSError):
                lost = object_store.fault(path, error)
                if isinstance(lost, PassingError):
                    raise lost from error
            raise FileFaultError(f"cannot be read to its end as {source.format}: {error}") from error


def _read_parquet(file: pa.NativeFile, columns: Sequence[str]) -> Iterator[RawBatch]:
    read_rows = 0
    for batch in parquet.ParquetFile(file).iter_batches(BATCH_ROWS, columns=list(columns)):
        rows = np.arange(read_rows + 1, read_rows + batch.num_rows + 1)
        read_rows += batch.num_rows
        yield RawBatch({name: batch.column(name) for name in columns}, rows)


def _read_csv(
    file: pa.NativeFile, source: SourceSettings, columns: Mapping[str, str], ragged: RaggedRow
) -> Iterator[RawBatch]:
    """Read columns, mapped from their names in the file to their names here."""
    lines = CsvLines(file, source)
    skipped: list[int] = []
    widths: list[tuple[int, int]] = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        skipped.append(row.number - 1)  # Arrow counts the header
        widths.append((row.expected_columns, row.actual_columns))
        return "skip"

    reader = arrow_csv.open_csv(
        pa.PythonFile(lines, mode="r"),
        # Only a single thread knows the numbers of the rows that it skips.
        read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=arrow_csv.ParseOptions(
            delimiter=source.delimiter,
            quote_char=False if source.quoting == "none" else '"',
            escape_char="\\" if source.quoting == "backslash" else False,
            newlines_in_values=source.quoted_newlines,
            invalid_row_handler=skip,
        ),
        convert_options=arrow_csv.ConvertOptions(
            check_utf8=False, include_columns=list(columns), column_types=dict.fromkeys(columns, pa.binary())
        ),
    )
    kept_rows = 0
    for batch in reader:
        numbers = np.arange(kept_rows + 1, kept_rows + batch.num_rows + 1)
        kept_rows += batch.num_rows
        # The n-th skipped row shifts every kept row from its own number minus n on.
        shifts = np.array(skipped, np.int64) - np.arange(len(skipped))
        records = numbers + np.searchsorted(shifts, numbers, side="right")
        yield RawBatch({name: batch.column(written) for written, name in columns.items()}, lines.line_of(records))
    for line, (expected, came) in zip(lines.line_of(np.array(skipped, np.int64)).tolist(), widths, strict=True):
        ragged(line, expected, came)


def _csv_header(file: pa.NativeFile, source: SourceSettings) -> list[str]:
    # Rows after the header are in the buffer too; invalid UTF-8 in those is their own fault.
    with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        records = csv.reader(
            text,
            delimiter=source.delimiter,
            quoting=csv.QUOTE_NONE if source.quoting == "none" else csv.QUOTE_MINIMAL,
            doublequote=source.quoting == "double",
            escapechar="\\" if source.quoting == "backslash" else None,
        )
        try:
            names = next((record for record in records if record), None)
        except csv.Error as error:
            raise FileFaultError(f"does not begin with a header of CSV: {error}") from error
    if not names:
        raise FileFaultError("is empty; expected a header with the names of the columns")
    if not all(name.isprintable() for name in names):
        raise FileFaultError(f"has a header that is not UTF-8 text: {names!r}")
    while names and not names[-1]:  # as Excel writes them
        names.pop()
    if source.trim:
        names = [name.strip() for name in names]
    _check_distinct(names)
    return names


def _check_distinct(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise FileFaultError(f"has more than one column named {', '.join(repeated)}")
