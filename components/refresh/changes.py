"""What a new catalogue changes of an earlier one: entries are compared by digests of their serialised examples.

The same row gives the same example, to the byte, and an example holds its item's id. So an entry whose digest the other catalogue
has too is unchanged, and only the few others are looked into. A digest takes 16 bytes; the examples are not kept in memory.

What is left on disk, for the Indexer:

    Split-changed/examples.gz   gzipped TFRecord: the entries of items that are new or changed, as the new catalogue has them
    gone.arrow                  Arrow IPC: `candidate_id`, binary; items whose earlier embedding is obsolete: gone or changed
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tfx.dsl.io import fileio

from components.indexer.embedding import candidate_id, read_serialized
from components.indexer.files import write_whole
from components.records import write_records
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
    digests, of_earlier, left, before = _digests(newer), [], [], 0
    for batch, own in _digested(earlier):
        of_earlier.append(own)
        before += len(batch)
        left += [candidate_id(batch[row]) for row in _rows_without(own, digests)]
    known, ids = _joined(of_earlier), []

    def changed() -> Iterator[bytes]:
        for batch, own in _digested(newer):
            for row in _rows_without(own, known):
                ids.append(candidate_id(batch[row]))
                yield batch[row]

    write_records(os.path.join(folder, CHANGED, "examples.gz"), changed())
    _write_gone(folder, left)
    again = len(set(ids) & set(left))
    return Changes(len(digests), before, new=len(ids) - again, changed=again, gone=len(left) - again)


def count_differing(earlier: Sequence[str], newer: Sequence[str]) -> int:
    """Count the entries of two tables that the other one lacks."""
    one, other = _digests(earlier), _digests(newer)
    return len(_rows_without(one, other)) + len(_rows_without(other, one))


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
    return _joined([own for _, own in _digested(patterns)])


def _joined(found: Sequence[pa.Array]) -> pa.Array:
    return pa.concat_arrays(found) if found else pa.array([], pa.binary(DIGEST_BYTES))


def _digested(patterns: Sequence[str]) -> Iterator[tuple[list[bytes], pa.Array]]:
    """Yield batches of serialised examples and their digests."""
    for batch in read_serialized(patterns):
        digests = [hashlib.blake2b(example, digest_size=DIGEST_BYTES).digest() for example in batch]
        yield batch, pa.array(digests, pa.binary(DIGEST_BYTES))


def _rows_without(digests: pa.Array, known: pa.Array) -> list[int]:
    """Return the rows of digests that are not among the known ones."""
    is_known = pc.is_in(digests, value_set=known).to_numpy(zero_copy_only=False)
    rows: list[int] = np.flatnonzero(~is_known).tolist()
    return rows
