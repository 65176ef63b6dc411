"""Keeps the last interactions of each user, for requests that consist of a user's id only.

They start from the log of the day that the live version's run read, and continue with posted events. They are stored in one
SQLite file, so that they survive a restart; it holds the users with the newest interactions, and for each the last items and the
features of the last interaction.
"""

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.records import read_records
from ndr_client import served
from schemas.features import AGES_SUFFIX, CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec, IdFeature
from schemas.private_log import PRIVATE_FILE
from serving.errors import invalid, unavailable
from serving.extent import parse_examples, values
from serving.settings import HistorySettings

LOADED_AT_ONCE = 10_000  # users in a transaction; events are accepted in between
LONGEST_ID = 1000  # bytes
MICROSECONDS = 1_000_000  # in a second
_SCHEMA = """
CREATE TABLE IF NOT EXISTS users (
    id BLOB PRIMARY KEY,
    time INTEGER NOT NULL,  -- microseconds since 1970
    items BLOB NOT NULL,  -- a tf.train.BytesList, oldest first
    features BLOB NOT NULL,  -- a tf.train.Example of a query, without the history
    times BLOB NOT NULL DEFAULT x''  -- of the items, a tf.train.Int64List in microseconds since 1970; empty in rows of older files
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_time ON users (time);
"""
ADD_TIMES = "ALTER TABLE users ADD COLUMN times BLOB NOT NULL DEFAULT x''"
UNKNOWN = -1  # instead of a time
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


class Past(NamedTuple):
    """The stored interactions of a user.

    Attributes:
        newest: the time of the last interaction, microseconds since 1970-01-01 UTC.
        items: ids, oldest first.
        times: of the items; UNKNOWN if not known.
        features: a serialised tf.Example of the query, without the history.
    """

    newest: int
    items: list[bytes]
    times: list[int]
    features: bytes


class Histories:
    """The last interactions of each user. Thread-safe.

    Args:
        path: the SQLite file; created if missing.
        spec: names the features of the user's id and of the history.
        settings: the number of users to keep.
        log_of: finds the folder of the tf.Examples that a version's run read; None if they are gone.

    Raises:
        ValueError: no feature of the query is the user's id or a history, or one has only some kinds of event.
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
        self._has_ages = history in spec.aged_histories
        self._query = spec.raw_query
        self._settings = settings
        self._log_of = log_of
        self._lock = threading.Lock()
        self._reported = ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(PRIVATE_FILE)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.executescript(_SCHEMA)
        if "times" not in {column[1] for column in self._database.execute("PRAGMA table_info(users)")}:
            self._database.execute(ADD_TIMES)
        self._count: int = self._database.execute("SELECT count(*) FROM users").fetchone()[0]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._database.close()

    def add(self, events: Sequence[Event]) -> None:
        """Store events; they are on disk when it returns. A user's events are sorted by time.

        Raises:
            RequestError: UNAVAILABLE, they cannot be written, none of them.
        """
        try:
            self._add(events)
        except sqlite3.Error as error:
            if self._reported != str(error):
                _log.error("histories: events are refused: %s", error)
            self._reported = str(error)
            raise unavailable(f"events cannot be kept: {error}") from error
        self._reported = ""

    def _add(self, events: Sequence[Event]) -> None:
        with self._lock, self._transaction():
            for event in events:
                past = self._read(event.user)
                newest, items, times, features = past or Past(0, [], [], b"")
                # A late event goes before the newest one: its position among the others is unknown.
                place = len(items) if event.time >= newest else max(0, len(items) - 1)
                items, times = [*items], [*times]
                items.insert(place, event.item)
                times.insert(place, event.time)
                self._write(event.user, Past(max(newest, event.time), items, times, features), past is None)
            self._evict()

    def load(self, version: int) -> None:
        """Load the log that a version's run read; users with a newer event keep it."""
        folder = self._log_of(version)
        if folder is None:
            _log.warning("histories: the log of version %d is gone; they stay as they are", version)
            return
        begun, newest = time.monotonic(), self._newest_of(folder)
        users = sorted(newest, key=lambda user: newest[user].newest)[-self._settings.users :]
        for start in range(0, len(users), LOADED_AT_ONCE):
            with self._lock, self._transaction():
                for user in users[start : start + LOADED_AT_ONCE]:
                    past = self._read(user)
                    if past is None or past.newest <= newest[user].newest:
                        self._write(user, newest[user], past is None)
                self._evict()
        _log.info("histories: %d users of version %d's log, in %.1f s", len(users), version, time.monotonic() - begun)

    def complete(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Complete the Examples of a request that have a user's id and no history."""
        if served.EXAMPLES not in inputs:
            return inputs
        examples = parse_examples(inputs[served.EXAMPLES].ravel())
        filled = [self._filled(example).SerializeToString() for example in examples]
        return {**inputs, served.EXAMPLES: np.array(filled, object).reshape(inputs[served.EXAMPLES].shape)}

    def queries(self, users: Iterable[bytes], exclude_seen: bool, where: Sequence[bytes] = ()) -> list[bytes]:
        """Make a serialised Example for each user.

        Args:
            users: their ids.
            exclude_seen: whether the items of the history are excluded from the answer.
            where: the conditions that the items of the answer must meet.
        """
        serialized = []
        for user in users:
            example = tf.train.Example()
            _set(example, self._user_features[0], [user])
            example = self._filled(example)
            if exclude_seen:
                _set(example, served.EXCLUDE, values(example.features.feature[self._history]))
            if where:
                _set(example, served.WHERE, where)
            serialized.append(example.SerializeToString())
        return serialized

    def _filled(self, example: Any) -> Any:
        feature = example.features.feature
        ids = [feature[name].bytes_list.value for name in self._user_features if name in feature]
        if not any(ids) or (self._history in feature and values(feature[self._history])):
            return example
        user = next(user_ids for user_ids in ids if user_ids)[0]
        with self._lock:
            past = self._read(user)
        items = past.items if past else []
        filled = tf.train.Example.FromString(past.features if past else b"")
        filled.MergeFrom(example)  # the request overrides what is stored
        now = datetime.now(UTC)
        derived = {
            "last_in_history": items[-1:],
            "hour_of_day": [b"%d" % now.hour],
            "day_of_week": [b"%d" % now.weekday()],
        }
        for name in self._user_features:
            _set(filled, name, [user])
        _set(filled, self._history, items)
        if self._has_ages and past:
            ages = [float("nan") if at == UNKNOWN else now.timestamp() - at / MICROSECONDS for at in past.times]
            filled.features.feature[self._history + AGES_SUFFIX].float_list.value[:] = ages
        for name, declared in self._query.items():
            if isinstance(declared, IdFeature) and declared.derive and name not in feature:
                _set(filled, name, derived[declared.derive])
        return filled

    def _newest_of(self, folder: str) -> dict[bytes, Past]:
        """Map each user to the newest interaction's features, with the items up to and including it."""
        by_user: dict[bytes, Past] = {}
        wanted = {*self._query} - {self._history}
        for example in map(tf.train.Example.FromString, _records(folder)):
            feature = example.features.feature
            (user,), (item,), (at,) = (values(feature[name]) for name in (QUERY_ID, CANDIDATE_ID, TIMESTAMP))
            if user in by_user and by_user[user].newest > at:
                continue
            if user in by_user and by_user[user].newest == at:
                items, times = [*by_user[user].items, item], [*by_user[user].times, at]
            else:
                earlier = values(feature[self._history])
                ages = values(feature[self._history + AGES_SUFFIX]) if self._has_ages else ()
                items = [*earlier, item]
                times = [*_times(at, ages, len(earlier)), at]
            for name in [name for name in feature if name not in wanted or name in (REWARD, TIMESTAMP)]:
                del feature[name]
            by_user[user] = Past(at, items[-self._last :], times[-self._last :], example.SerializeToString())
        return by_user

    def _read(self, user: bytes) -> Past | None:
        row = self._database.execute("SELECT time, items, times, features FROM users WHERE id = ?", (user,)).fetchone()
        if row is None:
            return None
        items, times = tf.train.BytesList.FromString(row[1]).value, tf.train.Int64List.FromString(row[2]).value
        return Past(row[0], list(items), list(times) or [UNKNOWN] * len(items), row[3])

    def _write(self, user: bytes, past: Past, is_new: bool) -> None:
        self._count += is_new
        items = tf.train.BytesList(value=past.items[-self._last :]).SerializeToString()
        times = tf.train.Int64List(value=past.times[-self._last :]).SerializeToString()
        row = (user, past.newest, items, past.features, times)
        self._database.execute(
            "INSERT OR REPLACE INTO users (id, time, items, features, times) VALUES (?, ?, ?, ?, ?)", row
        )

    def _evict(self) -> None:
        """Remove the users with the oldest last interaction."""
        excess = self._count - self._settings.users
        if excess > 0:
            oldest = "DELETE FROM users WHERE id IN (SELECT id FROM users ORDER BY time LIMIT ?)"
            self._database.execute(oldest, (excess,))
            self._count -= excess

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit everything, or nothing."""
        count = self._count
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except BaseException:
            self._count = count
            raise


def events_of(content: Any, most: int) -> list[Event]:
    """Parse a post: `{"events": [{"user": ID, "item": ID, "time": MICROSECONDS}, ...]}`; the time is now by default.

    Raises:
        RequestError: INVALID_ARGUMENT, with the place.
    """
    listed = content.get("events") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not 0 < len(listed) <= most:
        raise invalid(f"expected an object with `events`, a list of 1 to {most} objects")
    now = time.time_ns() // 1000
    events = []
    for number, event in enumerate(listed):
        if not isinstance(event, dict) or not {"user", "item"} <= event.keys() <= {"user", "item", "time"}:
            raise invalid(f"events[{number}]: expected an object with user, item and, if need be, time")
        ids = [_utf8(event[name]) for name in ("user", "item")]
        if not all(0 < len(id_) <= LONGEST_ID for id_ in ids):
            raise invalid(f"events[{number}]: expected texts of 1 to {LONGEST_ID} bytes as user and item")
        at = event.get("time", now)
        if type(at) is not int or not 0 <= at <= now + 60_000_000:
            raise invalid(f"events[{number}]: expected microseconds since 1970, not later than now, as time")
        events.append(Event(ids[0], ids[1], at))
    return events


def _utf8(value: Any) -> bytes:
    """Encode a text; empty for an invalid one, such as half of a surrogate pair."""
    try:
        return value.encode() if isinstance(value, str) else b""
    except UnicodeEncodeError:
        return b""


def _times(at: int, ages: Sequence[float], items: int) -> list[int]:
    """Compute the time of each item of a history from its age at a time; UNKNOWN without ages."""
    aligned = ages if len(ages) == items else [float("nan")] * items
    return [UNKNOWN if math.isnan(age) else max(0, at - round(age * MICROSECONDS)) for age in aligned]


def _records(folder: str) -> Iterator[bytes]:
    return read_records(sorted(tf.io.gfile.glob(f"{folder}/Split-*/*")))


def _set(example: Any, name: str, ids: Iterable[bytes]) -> None:
    example.features.feature[name].bytes_list.value[:] = ids
