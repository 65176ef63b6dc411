"""Reads a bounded sample of a source, and finds out how its files are written."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from components.example_gen import reading
from components.example_gen.columns import is_text
from components.example_gen.csv_lines import FileFaultError
from components.example_gen.scalars import NULL_SPELLINGS
from components.example_gen.settings import SourceSettings
from pipeline.init.groups import Group
from schemas.errors import UserError

SAMPLE_BYTES = 4 << 20  # of unpacked text
SAMPLE_ROWS = 20_000
DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar"}
QUOTINGS: tuple[dict[str, Any], ...] = ({}, {"quoting": "backslash"}, {"quoted_newlines": True}, {"quoting": "none"})
RAGGED = 0.01  # if more rows have another number of columns, the delimiter is another


@dataclass(frozen=True)
class Table:
    """What is known of a source before anything is declared.

    Attributes:
        group: its files.
        source: how they are read.
        columns: the raw values of the newest file's first rows, by name, and of earlier files' if these are few. Leaves out
            columns that cannot be features.
        rows: the number of rows.
        reasons: by key of SourceSettings, a comment on why the source is read so.
    """

    group: Group
    source: SourceSettings
    columns: dict[str, pa.Array]
    rows: int
    reasons: dict[str, str]

    def with_source(self, reason: dict[str, str], **update: Any) -> "Table":
        """Return a copy with further keys of its source, and the reasons for them."""
        return replace(self, source=self.source.model_copy(update=update), reasons={**self.reasons, **reason})


def sampled(group: Group) -> Table:
    """Read the first rows of the newest file and, if these are few (a day that has just begun), of earlier files.

    Raises:
        FileFaultError: the file is not a table.
    """
    table = _sampled_newest(group)
    columns, rows = {name: [array] for name, array in table.columns.items()}, table.rows
    for file in reversed(group.files[:-1]):
        if not columns or rows >= SAMPLE_ROWS:
            break
        try:
            batch = next(reading.read(file.path, table.source, list(columns), _passed_over), None)
        except (FileFaultError, pa.ArrowException):  # the run will report it
            continue
        if batch is not None and all(batch.columns[name].type == table.columns[name].type for name in columns):
            for name, arrays in columns.items():
                arrays.append(batch.columns[name].slice(0, SAMPLE_ROWS - rows))
            rows += min(len(batch.rows), SAMPLE_ROWS - rows)
    return replace(table, columns={name: pa.concat_arrays(arrays) for name, arrays in columns.items()}, rows=rows)


def _sampled_newest(group: Group) -> Table:
    path = group.files[-1].path
    source = SourceSettings(path=group.path, format="parquet", success_marker=group.success_marker)
    try:
        types = reading.column_types(path, source)
    except FileFaultError:
        return _sampled_csv(group, path)
    flat = [name for name, kind in types.items() if not (pa.types.is_struct(kind) or pa.types.is_map(kind))]
    batch = next(reading.read(path, source, flat, _passed_over), None)
    columns = {name: batch.columns[name].slice(0, SAMPLE_ROWS) for name in flat} if batch else {}
    reason = {"format": f"as {Path(path).name} begins"}
    return Table(group, source, columns, len(next(iter(columns.values()), [])), reason)


def values(table: Table, column: str) -> Iterator[pa.Array]:
    """Read all of a column, batch by batch.

    Raises:
        UserError: a file cannot be read.
    """
    for file in table.group.files:
        try:
            for batch in reading.read(file.path, table.source, [column], _passed_over):
                yield batch.columns[column]
        except (FileFaultError, pa.ArrowException) as error:
            raise UserError(f"{file.path}: {error}.") from error


def _sampled_csv(group: Group, path: str) -> Table:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "sample"
        file.write_bytes(reading.beginning(path, SAMPLE_BYTES))
        best: tuple[tuple[bool, int], SourceSettings, dict[str, pa.Array]] | None = None
        fault = FileFaultError(f"has one column; looked for {', '.join(DELIMITERS.values())} between several")
        for delimiter in DELIMITERS:
            for quoting in QUOTINGS:
                marker = group.success_marker
                source = SourceSettings(
                    path=group.path, format="csv", delimiter=delimiter, success_marker=marker, **quoting
                )
                try:
                    columns, ragged = _read_whole(str(file), source)
                except (FileFaultError, pa.ArrowException) as error:
                    fault = FileFaultError(str(error))
                    continue
                rows = len(next(iter(columns.values()), []))
                rank = (ragged > RAGGED * (rows + ragged), -len(columns))
                if len(columns) > 1 and (best is None or rank < best[0]):
                    best = (rank, source, columns)
                break
    if best is None:
        raise fault
    _, source, columns = best
    name = Path(path).name
    reasons = {
        "format": f"as {name} begins",
        "delimiter": f"{DELIMITERS[source.delimiter]}: the header of {name} has {len(columns)} columns by it",
        "quoting": f"otherwise quotes of {name} are not closed",
        "quoted_newlines": f"otherwise quotes of {name} are not closed",
    }
    columns = {column: array.slice(0, SAMPLE_ROWS) for column, array in columns.items()}
    table = Table(group, source, columns, len(next(iter(columns.values()))), reasons)
    spellings = _spellings(columns)
    if not spellings:
        return table
    return table.with_source({"null_values": f"found in {name}"}, null_values=spellings)


def _read_whole(path: str, source: SourceSettings) -> tuple[dict[str, pa.Array], int]:
    """Read the columns of a small file, and count its rows with another number of columns."""
    ragged = []
    names = [name for name in reading.column_types(path, source) if name]
    batches = [batch.columns for batch in reading.read(path, source, names, lambda *row: ragged.append(row))]
    arrays = {name: pa.chunked_array([batch[name] for batch in batches], pa.binary()) for name in names}
    return {name: array.combine_chunks() for name, array in arrays.items()}, len(ragged)


def _spellings(columns: dict[str, pa.Array]) -> tuple[str, ...]:
    """Return the usual spellings of a missing value found in the columns."""
    spellings = {value for array in columns.values() if is_text(array.type) for value in array.unique().to_pylist()}
    return tuple(word for word in NULL_SPELLINGS if word.encode() in spellings)


def _passed_over(line: int, expected: int, came: int) -> None:
    """Ignore a ragged row: the run counts these."""
    logging.getLogger(__name__).debug("line %d: %d columns, expected %d", line, came, expected)
