"""Writes examples so that the same examples give identical files, whatever the runner and its number of workers.

Beam promises no order, and training on another order gives another model. A killed and repeated run must give the same model as an
undisturbed one.
"""

import os
from collections.abc import Iterable, Iterator

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from components.example_gen.cleaning import to_bytes
from components.records import write_records

PREFIX = "examples"
HASH, EXAMPLE = "hash", "example"


class WriteInOrder(beam.PTransform):
    """Groups serialised examples by their hashes and writes them as gzipped TFRecords, in the order of the hashes.

    Takes Arrow arrays of them (see `components.encoded`).

    Args:
        folder: destination; it may not exist yet.
        files: the maximum number of files; each is held in memory while it is written.
    """

    def __init__(self, folder: str, files: int) -> None:
        super().__init__()
        self._folder = folder
        self._files = files

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        """Override of Beam's method."""
        return (
            examples
            | "Part" >> beam.FlatMap(_parted, self._files).with_output_types(beam.typehints.Tuple[int, bytes])
            | "BringTogether" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, self._folder, self._files)
        )


def write_in_order(folder: str, number: int, files: int, examples: pa.ChunkedArray) -> None:
    """Write serialised examples as one of `files` files, in the order of their hashes."""
    records = np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in examples.chunks])
    hashes = pd.util.hash_array(records, categorize=False)
    order = pc.sort_indices(pa.table({HASH: hashes, EXAMPLE: examples}), [(HASH, "ascending"), (EXAMPLE, "ascending")])
    write_records(os.path.join(folder, f"{PREFIX}-{number:05d}-of-{files:05d}.gz"), records[order.to_numpy()])


def _parted(examples: pa.Array, files: int) -> Iterator[tuple[int, bytes]]:
    """Yield (file, Arrow IPC of its examples)."""
    file_numbers = pd.util.hash_array(examples.to_numpy(zero_copy_only=False), categorize=False) % np.uint64(files)
    for number in np.unique(file_numbers).tolist():
        yield number, to_bytes(pa.table({EXAMPLE: examples.filter(pa.array(file_numbers == number))}))


def _write(element: tuple[int, Iterable[bytes]], folder: str, files: int) -> None:
    number, tables = element
    rows = pa.concat_tables([pa.ipc.open_stream(table).read_all() for table in tables])
    write_in_order(folder, number, files, rows.column(EXAMPLE))
