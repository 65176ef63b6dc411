"""What a new catalogue changes of an earlier one: entries are compared by digests of their serialised examples.

The same row gives the same example, to the byte, and an example holds its item's id. So an entry whose digest the other catalogue
has too is unchanged, and only the few others are looked into. A digest takes 16 bytes; the examples are not kept in memory.

What is left on disk, for the Indexer:

    Split-changed/examples.gz   gzipped TFRecord: the entries of items that are new or changed, as the new catalogue has them
    gone.arrow                  Arrow IPC: `candidate_id`, binary; items whose earlier embedding is obsolete: gone or changed
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx.dsl.io import fileio

from components.digests import digest
from components.indexer.embedding import candidate_id, read_serialized
from components.records import write_records
from components.whole_files import write_whole
from schemas.features import CANDIDATE_ID

CHANGED = "Split-changed"
GONE = "gone.arrow"
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Changes:
    """How a catalogue differs from an earlier one, in items that may be retrieved.

    Attributes:
        items: in the new one.
        before: in the earlier one.
        new: that the earlier one lacks; what is not blocked any more is new.
        changed: with another value of any column.
        gone: that the new one lacks; what is blocked from now on is gone.
        others: entries of blocked items that differ, in either.
    """

    items: int
    before: int
    new: int
    changed: int
    gone: int
    others: int = 0

    @property
    def is_any(self) -> bool:
        """Whether the catalogues differ."""
        return bool(self.new or self.changed or self.gone or self.others)

    @property
    def share(self) -> float:
        """New, changed and gone items as a share of the earlier catalogue's items."""
        return (self.new + self.changed + self.gone) / max(1, self.before)


def compare(earlier: Sequence[str], newer: Sequence[str], folder: str) -> Changes:
    """Compare two catalogues and write the files that the module describes.

    Args:
        earlier: patterns of gzipped TFRecords of tf.Examples, an item an example.
        newer: the same of the new catalogue.
        folder: destination.
    """
    before, now, ids = _digests(earlier), _digests(newer), list[bytes]()
    left = [candidate_id(example) for example in _examples(earlier, _rows_without(before, now))]

    def changed() -> Iterator[bytes]:
        for example in _examples(newer, _rows_without(now, before)):
            ids.append(candidate_id(example))
            yield example

    write_records(os.path.join(folder, CHANGED, "examples.gz"), changed())
    _write_gone(folder, left)
    again = len(set(ids) & set(left))
    return Changes(len(now), len(before), new=len(ids) - again, changed=again, gone=len(left) - again)


def count_differing(earlier: Sequence[str], newer: Sequence[str]) -> int:
    """Count the entries of two tables that the other one lacks."""
    earlier_digests, newer_digests = _digests(earlier), _digests(newer)
    return len(_rows_without(earlier_digests, newer_digests)) + len(_rows_without(newer_digests, earlier_digests))


def changed_pattern(folder: str) -> str:
    """Return the pattern of the files with new and changed entries."""
    return os.path.join(folder, CHANGED, "*")


def read_gone(folder: str) -> pa.Array:
    """Read the ids of the items whose earlier embedding is obsolete."""
    with fileio.open(os.path.join(folder, GONE), "rb") as file:
        return pa.ipc.open_file(pa.BufferReader(file.read())).read_all().column(CANDIDATE_ID).combine_chunks()


def _write_gone(folder: str, ids: list[bytes]) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({CANDIDATE_ID: pa.array(ids, pa.binary())})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_whole(os.path.join(folder, GONE), sink.getvalue().to_pybytes())


def _digests(patterns: Sequence[str]) -> pa.Array:
    """[entries] digests of the serialised examples, in the order of the files."""
    kind = pa.binary(DIGEST_BYTES)
    digests = [
        pa.array([digest(example, DIGEST_BYTES) for example in batch], kind) for batch in read_serialized(patterns)
    ]
    return pa.concat_arrays(digests) if digests else pa.array([], kind)


def _rows_without(digests: pa.Array, known: pa.Array) -> NDArray[np.int64]:
    """[rows] those of the digests that are not among the known ones, ascending."""
    # One call: each builds a table of all that are known.
    return np.flatnonzero(~pc.is_in(digests, value_set=known).to_numpy(zero_copy_only=False))


def _examples(patterns: Sequence[str], rows: NDArray[np.int64]) -> Iterator[bytes]:
    """Yield the serialised examples of some rows, ascending; `_digests` numbers them."""
    start = 0
    for batch in read_serialized(patterns):
        first, last = np.searchsorted(rows, (start, start + len(batch)))
        yield from (batch[row - start] for row in rows[first:last].tolist())
        start += len(batch)
