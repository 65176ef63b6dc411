"""What each user did last, at hand for requests that are a user's id alone.

It starts from the day's log, which the run of the live version read, and goes on by the events that are posted. It is kept in one
SQLite file, so that it survives a restart; it holds the newest users, and of each the last items and the features of the last
interaction.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.records import read_records
from ndr_client import served
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec, IdFeature
from serving.errors import invalid
from serving.extent import parse_examples, values
from serving.settings import HistorySettings

PRIVATE_FILE = 0o600
LOADED_AT_ONCE = 10_000  # users in a transaction, between which events are taken
LONGEST_ID = 1000  # bytes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    id BLOB PRIMARY KEY,
    time INTEGER NOT NULL,  -- microseconds since 1970
    items BLOB NOT NULL,  -- a tf.train.BytesList, oldest first
    features BLOB NOT NULL  -- a tf.train.Example of a query, without the history
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON users (time);
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """A user interacted with an item.

    Attributes:
        user: the user's id.
        item: the item's id.
        time: microseconds since 1970-01-01 UTC.
    """

    user: bytes
    item: bytes
    time: int


class Histories:
    """The last interactions of each user. Safe to be used by many threads.

    Args:
        path: the SQLite file; made if missing.
        spec: which feature is the user's id, and which the history.
        settings: how many users are kept.
        log_of: finds the folder of the tf.Examples that a version's run read; None where they are gone.

    Raises:
        ValueError: no feature of the query is the user's id or a history, or one is of some kinds of event.
    """

    def __init__(
        self, path: Path, spec: FeatureSpec, settings: HistorySettings, log_of: Callable[[int], str | None]
    ) -> None:
        history = spec.history_feature
        self._user_features = [
            n for n, f in spec.raw_query.items() if (getattr(f, "column", None) or n) == spec.interactions.user
        ]
        if history is None or not self._user_features:
            raise ValueError("expected a query with the user's id and a history among its features")
        if any(feature.events for feature in spec.derived_histories.values()):
            raise ValueError(
                "expected no history with `events` among the query's features, as kinds of event are not posted"
            )
        self._history = history
        self._last: int = getattr(spec.query[history], "last")  # noqa: B009  # a HistoryFeature
        self._query = spec.raw_query
        self._settings = settings
        self._log_of = log_of
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(PRIVATE_FILE)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_SCHEMA)
        self._count: int = self._database.execute("SELECT count(*) FROM users").fetchone()[0]

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            self._database.close()

    def add(self, events: Sequence[Event]) -> None:
        """Takes in events; they are on the disk when it returns. A user's events are in the order of their times."""
        with self._lock, self._transaction():
            for event in events:
                known = self._read(event.user)
                newest, items, features = known or (0, [], b"")
                if event.time >= newest:
                    items = [*items, event.item]
                else:  # late: its place among the others is unknown but for the newest, which stays so
                    items = [*items[:-1], event.item, *items[-1:]]
                self._write(event.user, max(newest, event.time), items, features, known is None)
            self._evict()

    def load(self, version: int) -> None:
        """Takes in the log that a version's run read: whoever has no newer event is as in the log."""
        folder = self._log_of(version)
        if folder is None:
            _log.warning("histories: the log of version %d is gone; they stay as they are", version)
            return
        begun, newest = time.monotonic(), self._newest_of(folder)
        users = sorted(newest, key=lambda user: newest[user][0])[-self._settings.users :]
        for start in range(0, len(users), LOADED_AT_ONCE):
            with self._lock, self._transaction():
                for user in users[start : start + LOADED_AT_ONCE]:
                    at, items, features = newest[user]
                    known = self._read(user)
                    if known is None or known[0] <= at:
                        self._write(user, at, items, features, known is None)
                self._evict()
        _log.info("histories: %d users of version %d's log, in %.1f s", len(users), version, time.monotonic() - begun)

    def complete(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Fills in what the Examples of a request leave out, for each that has a user's id and no history."""
        if served.EXAMPLES not in inputs:
            return inputs
        examples = parse_examples(inputs[served.EXAMPLES].ravel())
        filled = [self._filled(example).SerializeToString() for example in examples]
        return {**inputs, served.EXAMPLES: np.array(filled, object).reshape(inputs[served.EXAMPLES].shape)}

    def queries(self, users: Iterable[bytes], exclude_seen: bool) -> list[bytes]:
        """A serialised Example for each user.

        Args:
            users: their ids.
            exclude_seen: whether the items of the history are excluded from the answer.
        """
        made = []
        for user in users:
            example = tf.train.Example()
            _set(example, self._user_features[0], [user])
            example = self._filled(example)
            if exclude_seen:
                _set(example, served.EXCLUDE, values(example.features.feature[self._history]))
            made.append(example.SerializeToString())
        return made

    def _filled(self, example: Any) -> Any:
        feature = example.features.feature
        ids = [values(feature[name]) for name in self._user_features if name in feature]
        if not any(ids) or (self._history in feature and values(feature[self._history])):
            return example
        user = bytes(next(each for each in ids if each)[0])
        with self._lock:
            known = self._read(user)
        items = known[1] if known else []
        filled = tf.train.Example.FromString(known[2] if known else b"")
        filled.MergeFrom(example)  # what the request says takes the place of what is stored
        now = datetime.now(UTC)
        derived = {
            "last_in_history": items[-1:],
            "hour_of_day": [b"%d" % now.hour],
            "day_of_week": [b"%d" % now.weekday()],
        }
        for name in self._user_features:
            _set(filled, name, [user])
        _set(filled, self._history, items)
        for name, declared in self._query.items():
            if isinstance(declared, IdFeature) and declared.derive and name not in feature:
                _set(filled, name, derived[declared.derive])
        return filled

    def _newest_of(self, folder: str) -> dict[bytes, tuple[int, list[bytes], bytes]]:
        """By user, the time of the newest interaction, the items up to and with it, and the features of the query."""
        found: dict[bytes, tuple[int, list[bytes], bytes]] = {}
        kept = {*self._query} - {self._history}
        for example in map(tf.train.Example.FromString, _records(folder)):
            feature = example.features.feature
            (user,), (item,), (at,) = (values(feature[name]) for name in (QUERY_ID, CANDIDATE_ID, TIMESTAMP))
            if user in found and found[user][0] > at:
                continue
            if user in found and found[user][0] == at:
                items = [*found[user][1], item]
            else:
                items = [*values(feature[self._history]), item]
            for name in [name for name in feature if name not in kept or name in (REWARD, TIMESTAMP)]:
                del feature[name]
            found[user] = (at, items[-self._last :], example.SerializeToString())
        return found

    def _read(self, user: bytes) -> tuple[int, list[bytes], bytes] | None:
        row = self._database.execute("SELECT time, items, features FROM users WHERE id = ?", (user,)).fetchone()
        return (row[0], list(tf.train.BytesList.FromString(row[1]).value), row[2]) if row else None

    def _write(self, user: bytes, at: int, items: list[bytes], features: bytes, is_new: bool) -> None:
        self._count += is_new
        kept = tf.train.BytesList(value=items[-self._last :]).SerializeToString()
        self._database.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?, ?)", (user, at, kept, features))

    def _evict(self) -> None:
        """Removes those whose last interaction is the oldest."""
        excess = self._count - self._settings.users
        if excess > 0:
            oldest = "DELETE FROM users WHERE id IN (SELECT id FROM users ORDER BY time LIMIT ?)"
            self._database.execute(oldest, (excess,))
            self._count -= excess

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)


class _Transaction:
    """All of it, or none of it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")


def events_of(content: Any, most: int) -> list[Event]:
    """Reads what was posted: `{"events": [{"user": ID, "item": ID, "time": MICROSECONDS}, ...]}`; the time is now by default.

    Raises:
        RequestError: INVALID_ARGUMENT, and says where.
    """
    listed = content.get("events") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not 0 < len(listed) <= most:
        raise invalid(f"expected an object with `events`, a list of 1 to {most} objects")
    now = time.time_ns() // 1000
    events = []
    for number, each in enumerate(listed):
        if not isinstance(each, dict) or not {"user", "item"} <= each.keys() <= {"user", "item", "time"}:
            raise invalid(f"events[{number}]: expected an object with user, item and, if need be, time")
        ids = [each[name].encode(errors="replace") if isinstance(each[name], str) else b"" for name in ("user", "item")]
        if not all(0 < len(id_) <= LONGEST_ID for id_ in ids):
            raise invalid(f"events[{number}]: expected texts of 1 to {LONGEST_ID} bytes as user and item")
        at = each.get("time", now)
        if type(at) is not int or not 0 <= at <= now + 60_000_000:
            raise invalid(f"events[{number}]: expected microseconds since 1970, not later than now, as time")
        events.append(Event(ids[0], ids[1], at))
    return events


def _records(folder: str) -> Iterator[bytes]:
    return read_records(sorted(tf.io.gfile.glob(f"{folder}/Split-*/*")))


def _set(example: Any, name: str, ids: Iterable[bytes]) -> None:
    example.features.feature[name].bytes_list.value[:] = ids
