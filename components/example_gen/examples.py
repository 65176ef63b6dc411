"""Writes clean rows as tf.Examples, and does the work of such a step around its Beam pipeline."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import pyarrow as pa
from tfx import types
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils

from components import recorded
from components.encoded import encode
from components.example_gen.accounting import SHOWN_EXAMPLES, Accounting, Kind, total
from components.example_gen.cleaning import ACCOUNTING, CleanFiles, Cleaning, file_faults
from components.example_gen.ordered import write_in_order
from components.example_gen.settings import ExampleGenSettings
from components.example_gen.sources import Found, SourceFile
from components.whole_files import write_whole
from schemas.errors import UserError

ACCOUNTING_FILE = "rows.json"
PARTITION_BYTES = 32 << 20
ROWS_AT_ONCE = 16_384
READ_AT_ONCE = 1 << 20


def partitions(files: Sequence[SourceFile]) -> int:
    """Return the number of partitions of the files' rows: each is held in memory at once."""
    return max(2, -(-sum(file.size for file in files) // PARTITION_BYTES))


def serialized_examples(rows: pa.Table) -> Iterator[pa.Array]:
    """Serialise rows to arrays of tf.Examples, some thousands each; a missing value is a feature without values."""
    names = [name for name in rows.column_names if not name.startswith("_")]
    yield from map(encode, rows.select(names).to_batches(max_chunksize=ROWS_AT_ONCE))


def generate(
    pipeline: beam.Pipeline,
    files: Sequence[SourceFile],
    cleaning: Cleaning,
    finish: beam.DoFn,
    splits: Sequence[str],
    examples: types.Artifact,
    carried: beam.PTransform | None = None,
) -> None:
    """Add to a Beam pipeline: read and clean files, group rows by partition, write examples.

    Args:
        pipeline: a Beam pipeline.
        files: the files to read.
        cleaning: how to read and check them.
        finish: maps (partition, parts of it) to arrays of serialised examples in an output for each split, and to `Accounting` in
            the output ACCOUNTING.
        splits: the splits to write.
        examples: the artifact to write to.
        carried: reads further rows, as (partition, Arrow IPC); None for none.
    """
    examples.split_names = artifact_utils.encode_split_names(list(splits))
    clean = (
        pipeline
        | "Files" >> beam.Create(list(enumerate(files)))
        | "Spread" >> beam.Reshuffle()
        | "Clean" >> beam.ParDo(CleanFiles(cleaning)).with_outputs(ACCOUNTING, main="rows")
    )
    rows = clean["rows"]
    if carried is not None:
        rows = (rows, pipeline | "Carried" >> carried) | "WithCarried" >> beam.Flatten()
    folders = {split: artifact_utils.get_split_uri([examples], split) for split in splits}
    finished = (
        rows
        | "BringTogether" >> beam.GroupByKey()
        | "FinishAndWrite" >> beam.ParDo(FinishAndWrite(finish, folders, cleaning.partitions))
    )
    _ = (
        (clean[ACCOUNTING], finished)
        | beam.Flatten()
        | "Sum" >> beam.CombineGlobally(total)
        | "WriteAccounting" >> beam.Map(_write_accounting, os.path.join(examples.uri, ACCOUNTING_FILE))
    )


def _write_accounting(accounting: Accounting, path: str) -> None:
    """Write the accounting under its name once it is complete; a worker may be killed and another repeat its work."""
    write_whole(path, accounting.to_text().encode())


class FinishAndWrite(beam.DoFn):
    """Writes (partition, parts of it) to a file of each split, in the order of the examples' hashes; emits `Accounting`.

    Args:
        finish: see `generate`.
        folders: the folder of each split; it may not exist yet.
        partitions: the number of partitions.
    """

    def __init__(self, finish: beam.DoFn, folders: Mapping[str, str], partitions: int) -> None:
        self._finish = finish
        self._folders = folders
        self._partitions = partitions

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Accounting]:
        """Override of Beam's method."""
        by_split: dict[str, list[pa.Array]] = {split: [] for split in self._folders}
        for output in self._finish.process(element):
            if output.tag == ACCOUNTING:
                yield output.value
            else:
                by_split[output.tag].append(output.value)
        for split, examples in by_split.items():
            if any(map(len, examples)):
                write_in_order(self._folders[split], element[0], self._partitions, pa.chunked_array(examples))


def check_files(files: Sequence[SourceFile], cleaning: Cleaning) -> None:
    """Check the header or footer of every file.

    Raises:
        UserError: one line for each fault.
    """
    faults = file_faults(files, cleaning)
    if faults:
        shown = [*faults[:10], *([f"... and {len(faults) - 10} more"] if len(faults) > 10 else [])]
        raise UserError("\n".join(shown))


def conclude(examples: types.Artifact, kind: Kind, settings: ExampleGenSettings, selection: Found) -> Accounting:
    """Return the accounting after the pipeline has run, and set it on the artifact.

    Raises:
        UserError: the run must not continue with this data.
    """
    path = os.path.join(examples.uri, ACCOUNTING_FILE)
    accounting = Accounting.from_text(io_utils.read_string_file(path))
    fileio.remove(path)
    accounting.passed_over = len(selection.passed_over), selection.passed_over[:SHOWN_EXAMPLES]
    accounting.absent = [day.isoformat() for day in selection.absent]
    paths = [file.path for file in selection.files]
    accounting.check(kind, settings.max_dropped_share, paths, settings.max_dropped_shares)
    examples.set_string_custom_property(recorded.ROWS, accounting.to_json(kind))
    examples.set_string_custom_property(recorded.CONTENT, _content(examples.uri))
    return accounting


def _content(folder: str) -> str:
    """Return a digest of all files of a folder of examples, which are identical whoever wrote them from the same rows."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(os.path.join(parent, name) for parent, _, names in fileio.walk(folder) for name in names):
        digest.update(os.path.relpath(path, folder).encode() + b"\0")
        with fileio.open(path, "rb") as file:
            while chunk := file.read(READ_AT_ONCE):
                digest.update(chunk)
    return digest.hexdigest()
