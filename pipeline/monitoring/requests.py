"""Reads the logged sample of queries that a server answered; see `serving.request_log`."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tensorflow as tf

from ndr_client.served import K
from schemas.errors import UserError
from serving.request_log import PATTERN, SERVED_AT

ANSWER_PREFIX = "served_"
US = 1_000_000  # microseconds in a second


@dataclass(frozen=True)
class Query:
    """An answered query.

    Attributes:
        example: its features as a serialised tf.Example, without what the log added about the answer.
        k: the number of items asked for; None if the query was only embedded.
    """

    example: bytes
    k: int | None


def read(folder: Path, since: datetime) -> list[Query]:
    """Read the queries answered since a moment, oldest first.

    Raises:
        UserError: there are none, or a file is damaged.
    """
    queries = list(_queries(folder, since))
    if not queries:
        raise UserError(
            f"{folder}: expected queries that a server answered since {since:%Y-%m-%d %H:%M} UTC, found none. Let the embedded "
            "server log a sample: --set server.request_log.share=0.01, or name the folder: --set server.request_log.path=DIR."
        )
    return queries


def _queries(folder: Path, since: datetime) -> Iterator[Query]:
    for path in sorted(folder.glob(PATTERN)):
        if datetime.fromtimestamp(path.stat().st_mtime, UTC) < since:
            continue  # its newest query is older
        try:
            for record in tf.data.TFRecordDataset(str(path), compression_type="GZIP").as_numpy_iterator():
                example = tf.train.Example.FromString(record)
                if example.features.feature[SERVED_AT].int64_list.value[0] >= since.timestamp() * US:
                    yield _query(example)
        except (tf.errors.DataLossError, ValueError, IndexError, zlib.error) as error:
            raise UserError(
                f"{path}: expected a server's log of queries, found something else: {error}. Remove it."
            ) from error


def _query(example: tf.train.Example) -> Query:
    k = list(example.features.feature[K].int64_list.value)
    for name in list(example.features.feature):
        if name == K or name.startswith(ANSWER_PREFIX):
            del example.features.feature[name]
    return Query(example.SerializeToString(deterministic=True), k[0] if k else None)
