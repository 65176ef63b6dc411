"""Examples on disk: the same examples give the same files, to the byte, whatever the runner and its number of workers.

Beam promises no order, and training on another order gives another model. A run that was killed and repeated has to give the model
of one that was not.
"""

import hashlib
import os
from collections.abc import Iterable

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.io import fileio

PREFIX = "examples"


class WriteInOrder(beam.PTransform):
    """Writes serialised examples as gzipped TFRecords, in the order of their digests, which also mixes what stood together.

    Args:
        folder: where to; it need not be there.
        files: how many at most; each is held in memory while it is written.
    """

    def __init__(self, folder: str, files: int) -> None:
        super().__init__()
        self._folder = folder
        self._files = files

    def expand(self, examples: beam.PCollection) -> beam.PCollection:
        """Called by Beam."""
        return (
            examples
            | "Part" >> beam.Map(_with_part, self._files)
            | "BringTogether" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write, self._folder, self._files)
        )


def _with_part(example: bytes, files: int) -> tuple[int, bytes]:
    # The encoders that write an example's features take them in another order in each process.
    same = tf.train.Example.FromString(example).SerializeToString(deterministic=True)
    return int.from_bytes(_digest(same)[:8], "big") % files, same


def _digest(example: bytes) -> bytes:
    return hashlib.blake2b(example, digest_size=16).digest()


def _write(element: tuple[int, Iterable[bytes]], folder: str, files: int) -> None:
    """A worker may be killed and another do the same again: a file has its name once it is whole."""
    part, examples = element
    fileio.makedirs(folder)
    path = os.path.join(folder, f"{PREFIX}-{part:05d}-of-{files:05d}.gz")
    unfinished = os.path.join(folder, f".{part:05d}.unfinished")
    with tf.io.TFRecordWriter(unfinished, options="GZIP") as writer:
        for example in sorted(examples, key=_digest):
            writer.write(example)
    fileio.rename(unfinished, path, overwrite=True)
