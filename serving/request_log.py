"""Logs a sample of the answered queries as files of tf.Examples, for `ndr skew` and `ndr shadow`.

    FOLDER/requests-TIME-HOST-PID-NUMBER.tfrecord.gz   complete; TFRecord, gzip, the oldest first by name

A query's Example has its features, and about the answer:

    k                int64    the number of items asked for (the retriever only)
    served_at        int64    microseconds since 1970-01-01 UTC
    served_version   int64    the version that answered
    served_items     bytes    the ids that were found, best first (the retriever only)
    served_scores    float    their scores (the retriever only)

A separate thread writes the queries. If it cannot keep up, or the disk fails, queries are dropped and requests are
still answered.
"""

import contextlib
import logging
import os
import queue
import random
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from ndr_client import served
from schemas.features import AGES_SUFFIX, WEIGHTS_SUFFIX
from serving.extent import parse_examples
from serving.record import Record
from serving.settings import RequestLogSettings

SERVED_AT, SERVED_VERSION = "served_at", "served_version"
SERVED_ITEMS, SERVED_SCORES = "served_items", "served_scores"
PATTERN = "requests-*.tfrecord.gz"
QUERIED = (served.QUERY_TOWER, served.RETRIEVER)
FIRST_SHARD = f"{served.RETRIEVER}-0-of-"  # of a query that all shards were asked, one copy is enough
MOST_PENDING = 1000  # records that wait to be written
LEFTOVER_SECONDS = 3600.0  # an unfinished file older than this was left by a killed server
_UNFINISHED = ".unfinished-"
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600  # queries are personal data
_log = logging.getLogger(__name__)


class RequestLog:
    """Logs a sample of queries. Thread-safe.

    Args:
        folder: the files' folder; created if missing.
        settings: the size and age of the sample.
    """

    def __init__(self, folder: Path, settings: RequestLogSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._random = random.Random()
        self._pending: queue.Queue[tuple[Record, int] | None] = queue.Queue(MOST_PENDING)
        self._thread = threading.Thread(target=self._write, name="request log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the writer."""
        if self._settings.share:
            self._thread.start()

    def stop(self) -> None:
        """Complete the last file."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._pending.put(None, timeout=1.0)
            self._thread.join(5.0)

    def observe(self, record: Record) -> None:
        """Take the queries of an answered request at random."""
        is_query = record.model in QUERIED or record.model.startswith(FIRST_SHARD)
        if not self._settings.share or record.code != grpc.StatusCode.OK or not is_query:
            return
        if record.signature == served.EMBEDDINGS_SIGNATURE or self._random.random() >= self._settings.share:
            return
        try:
            self._pending.put_nowait((record, time.time_ns() // 1000))
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        file: _File | None = None
        reported = ""
        number = 0
        while True:
            with contextlib.suppress(queue.Empty):
                if (taken := self._pending.get(timeout=min(1.0, self._settings.file_seconds))) is None:
                    break
                try:
                    if file is None:
                        number += 1
                        file = self._begin(number)
                    for example in examples_of(*taken):
                        file.write(example.SerializeToString())
                    reported = ""
                except Exception as error:  # whatever is wrong with a disk or a query, the next ones are logged
                    file, self.dropped = None, self.dropped + 1
                    if reported != str(error):
                        _log.error("queries are not kept: %s", error)
                    reported = str(error)
            file = self._complete_if_due(file)
        if file is not None:
            self._complete(file)

    def _begin(self, number: int) -> "_File":
        self._folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS + 2 * self._settings.file_seconds:
                path.unlink(missing_ok=True)
        now = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
        return _File(self._folder, f"requests-{now}-{socket.gethostname()}-{os.getpid()}-{number:06d}.tfrecord.gz")

    def _complete_if_due(self, file: "_File | None") -> "_File | None":
        if file is None:
            return None
        if file.bytes >= self._settings.file_bytes or time.monotonic() - file.begun >= self._settings.file_seconds:
            self._complete(file)
            return None
        return file

    def _complete(self, file: "_File") -> None:
        try:
            file.complete()
            self._retain()
        except (OSError, tf.errors.OpError) as error:
            _log.error("%s: queries are lost: %s", file.path, error)

    def _retain(self) -> None:
        """Remove files that are too old, then the oldest until the rest is small enough."""
        left = self._settings.total_bytes
        for path in sorted(self._folder.glob(PATTERN), reverse=True):
            status = path.stat()
            left -= status.st_size
            if left < 0 or time.time() - status.st_mtime > self._settings.days * 24 * 3600:
                path.unlink(missing_ok=True)


class _File:
    """A file being written; it gets its name once it is complete."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.begun = time.monotonic()
        self.bytes = 0
        self._aside = folder / f"{_UNFINISHED}{name}"
        os.close(os.open(self._aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _PRIVATE_FILE))
        self._writer = tf.io.TFRecordWriter(str(self._aside), tf.io.TFRecordOptions(compression_type="GZIP"))

    def write(self, content: bytes) -> None:
        self._writer.write(content)
        self.bytes += len(content)

    def complete(self) -> None:
        self._writer.close()
        self._aside.rename(self.path)


def examples_of(record: Record, served_at: int) -> list[Any]:
    """Make a tf.Example for each row of an answered request.

    Args:
        record: the request's record.
        served_at: microseconds since 1970-01-01 UTC.
    """
    if served.EXAMPLES in record.inputs:
        examples = parse_examples(record.inputs[served.EXAMPLES])
    else:
        names = record.inputs.keys() - {served.K}
        rows = record.extent.rows if record.extent else 0
        examples = [_example({name: record.inputs[name][row] for name in names}) for row in range(rows)]
    for row, example in enumerate(examples):
        feature = example.features.feature
        feature[SERVED_AT].int64_list.value[:] = [served_at]
        feature[SERVED_VERSION].int64_list.value[:] = [record.version or 0]
        if served.K in record.inputs:
            feature[served.K].int64_list.value[:] = [int(record.inputs[served.K][row])]
        if served.ITEM_IDS in record.outputs:
            ids = record.outputs[served.ITEM_IDS][row]
            is_item = ids != served.NO_ITEM.encode()
            feature[SERVED_ITEMS].bytes_list.value[:] = ids[is_item].tolist()
            feature[SERVED_SCORES].float_list.value[:] = record.outputs[served.SCORES][row][is_item].tolist()
    return examples


def _example(values: dict[str, Any]) -> Any:
    """Make an Example from a row of named tensors; an empty text and a NaN stand for a missing value there.

    Values beside ids, such as ages, stay beside them: padding where the ids are padding.
    """
    example = tf.train.Example()
    for name, value in values.items():
        array = np.atleast_1d(value)
        feature = example.features.feature[name]
        if array.dtype == np.dtype(object):
            feature.bytes_list.value[:] = [text for text in array.tolist() if text]
        elif array.dtype.kind == "f":
            beside = values.get(name.removesuffix(AGES_SUFFIX).removesuffix(WEIGHTS_SUFFIX), array)
            is_beside = beside.dtype == np.dtype(object) and beside.shape == array.shape
            is_there = beside != b"" if is_beside else ~np.isnan(array)
            feature.float_list.value[:] = array[is_there].tolist()
        else:
            feature.int64_list.value[:] = array.tolist()
    return example
