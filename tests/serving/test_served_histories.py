"""A request may be a user's id alone: the rest is from the day's log and from the events that were posted since."""

import gzip
import http.client
import json
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ndr_client import Client
from schemas.features import FeatureSpec
from serving.errors import RequestError
from serving.histories import Event, Histories
from serving.server import EmbeddedServer
from serving.settings import HistorySettings
from tests.serving.tiny import Pushes, Serve
from tests.waiting import wait_for

SPEC = FeatureSpec.model_validate({
    "interactions": {"user": "user", "item": "item", "time": "at"},
    "catalogue": {"item": "item"},
    "tables": {"item": {"width": 4, "hash_buckets": 8}, "user": {"width": 4, "hash_buckets": 8}},
    "query": {
        "user": {"kind": "id", "table": "user"},
        "past": {"kind": "history", "table": "item", "last": 3},
        "latest": {"kind": "id", "table": "item", "derive": "last_in_history"},
        "angle": {"kind": "number"},
    },
    "item": {"item": {"kind": "id", "table": "item"}},
})  # fmt: skip


def interaction(user: bytes, item: bytes, at: int, past: list[bytes], angle: float) -> bytes:
    made = tf.train.Example()
    feature = made.features.feature
    for name, ids in {
        "query_id": [user],
        "user": [user],
        "candidate_id": [item],
        "past": past,
        "latest": past[-1:],
    }.items():
        feature[name].bytes_list.value.extend(ids)
    feature["timestamp"].int64_list.value.append(at)
    feature["angle"].float_list.value.append(angle)
    feature["reward"].float_list.value.append(1.0)
    return made.SerializeToString()


@pytest.fixture
def log(tmp_path: Path) -> str:
    """Ann's newest is item 4 at the angle 2.1, after 1, 2 and 3; Bob has two at one time."""
    (tmp_path / "log" / "Split-train").mkdir(parents=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(tmp_path / "log" / "Split-train" / "data.gz"), options) as writer:
        for made in (
            interaction(b"ann", b"one-4", 40, [b"one-1", b"one-2", b"one-3"], 2.1),
            interaction(b"ann", b"one-1", 10, [], 0.6),
            interaction(b"bob", b"one-0", 20, [b"one-3"], 0.6),
            interaction(b"bob", b"one-1", 20, [b"one-3"], 0.6),
        ):
            writer.write(made)
    return str(tmp_path / "log")


def histories(path: Path, log: str | None = None, users: int = 100) -> Histories:
    return Histories(path / "histories.sqlite", SPEC, HistorySettings(users=users), lambda version: log)


def features(example: bytes) -> dict[str, list[Any]]:
    made = tf.train.Example.FromString(example).features.feature
    return {
        name: list(getattr(each, each.WhichOneof("kind")).value)
        for name, each in made.items()
        if each.WhichOneof("kind")
    }


def test_a_query_is_completed_from_the_log_and_survives_a_restart(tmp_path: Path, log: str) -> None:
    kept = histories(tmp_path, log)
    kept.load(1)
    kept.close()
    ann, bob, stranger = map(features, histories(tmp_path).queries([b"ann", b"bob", b"eve"], exclude_seen=True))
    assert (ann["past"], ann["latest"], ann["angle"]) == (
        [b"one-2", b"one-3", b"one-4"],
        [b"one-4"],
        [pytest.approx(2.1)],
    )
    assert ann["exclude"] == ann["past"] and ann["user"] == [b"ann"]
    assert not ann.keys() & {"candidate_id", "query_id", "timestamp", "reward"}
    assert bob["past"] == [b"one-3", b"one-0", b"one-1"]
    assert stranger == {"user": [b"eve"], "past": [], "latest": [], "exclude": []}
    assert stat.S_IMODE((tmp_path / "histories.sqlite").stat().st_mode) == 0o600


def test_events_follow_the_log_and_reloading_it_changes_nothing(tmp_path: Path, log: str) -> None:
    kept = histories(tmp_path, log)
    kept.load(1)
    kept.add([Event(b"ann", b"new", 50), Event(b"eve", b"first", 60)])
    kept.load(2)
    ann, eve = map(features, kept.queries([b"ann", b"eve"], exclude_seen=False))
    assert (ann["past"], ann["latest"]) == ([b"one-3", b"one-4", b"new"], [b"new"])
    assert eve["past"] == [b"first"] and "where" not in eve
    (asked,) = kept.queries([b"eve"], exclude_seen=False, where=[b"land=de", b"price<=3"])
    assert features(asked)["where"] == [b"land=de", b"price<=3"]


def test_the_users_that_are_kept_are_bounded(tmp_path: Path) -> None:
    kept = histories(tmp_path, users=2)
    kept.add([Event(b"u%d" % n, b"i", n) for n in range(1, 6)])
    pasts = [features(each)["past"] for each in kept.queries([b"u%d" % n for n in range(1, 6)], False)]
    assert pasts == [[], [], [], [b"i"], [b"i"]]


def test_ages_are_as_of_now_and_unknown_where_a_file_is_from_before_they_were_kept(tmp_path: Path) -> None:
    aged = SPEC.query["past"].model_copy(update={"encoder": "attention"})
    spec = SPEC.model_copy(update={"query": {**SPEC.query, "past": aged}})
    now = time.time_ns() // 1000
    with sqlite3.connect(tmp_path / "histories.sqlite") as older:
        older.execute("CREATE TABLE users (id BLOB PRIMARY KEY, time INTEGER, items BLOB, features BLOB) WITHOUT ROWID")
        first = tf.train.BytesList(value=[b"first"]).SerializeToString()
        older.execute("INSERT INTO users VALUES (?, ?, ?, ?)", (b"eve", now - 90_000_000, first, b""))
    said = tf.train.Example.FromString(interaction(b"ann", b"one-4", now - 60_000_000, [b"one-2", b"one-3"], 0.0))
    said.features.feature["past_ages"].float_list.value.extend([3600.0, 30.0])
    (tmp_path / "log" / "Split-eval").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(tmp_path / "log" / "Split-eval" / "data.gz"), "GZIP") as writer:
        writer.write(said.SerializeToString())
    kept = Histories(tmp_path / "histories.sqlite", spec, HistorySettings(), lambda version: str(tmp_path / "log"))
    kept.load(1)
    kept.add([Event(b"ann", b"new", now - 10_000_000), Event(b"eve", b"then", now - 5_000_000)])
    ann, eve, stranger = map(features, kept.queries([b"ann", b"eve", b"bob"], False))
    # A minute before now there were 30 seconds since one-3; of ann only the last three are kept.
    assert ann["past"] == [b"one-3", b"one-4", b"new"] and eve["past"] == [b"first", b"then"]
    assert ann["past_ages"] == pytest.approx([90.0, 60.0, 10.0], abs=5.0)
    assert eve["past_ages"] == pytest.approx([float("nan"), 5.0], abs=5.0, nan_ok=True)
    assert "past_ages" not in stranger


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.binary(min_size=1, max_size=3)), max_size=12))
def test_events_in_order_leave_the_last_of_each_user(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[bytes, bytes]]
) -> None:
    kept = histories(tmp_path_factory.mktemp("kept"))
    kept.add([Event(user, item, number) for number, (user, item) in enumerate(events)])
    found = [features(each)["past"] for each in kept.queries([b"a", b"b"], False)]
    assert found == [[item for each, item in events if each == user][-3:] for user in (b"a", b"b")]
    kept.close()


@pytest.fixture
def kept_server(serve: Serve, pushes: Pushes, tmp_path: Path, log: str) -> EmbeddedServer:
    pushes.push("one")
    kept = histories(tmp_path, log)
    server = serve(pushes.root, histories=kept)
    wait_for(lambda: features(kept.queries([b"ann"], False)[0])["past"])
    return server


def post(server: EmbeddedServer, path: str, content: object) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900)
    connection.request("POST", path, json.dumps(content))
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_a_request_is_a_users_id_alone(kept_server: EmbeddedServer) -> None:
    path = "/v1/models/retriever:predict"
    # Ann is at 2.1: items 4, 3, 2, 1, 0 in this order; she saw 2, 3 and 4.
    assert post(kept_server, path, {"users": ["ann"], "k": 2})[1]["predictions"][0]["item_ids"] == ["one-1", "one-0"]
    everything = {"users": ["ann"], "k": 2, "exclude_seen": False}
    assert post(kept_server, path, everything)[1]["predictions"][0]["item_ids"] == ["one-4", "one-3"]
    assert post(kept_server, "/v1/events", {"events": [{"user": "ann", "item": "one-1"}]}) == (200, {"taken": 1})
    found = post(kept_server, path, {"users": ["ann"], "k": 2})[1]["predictions"][0]["item_ids"]
    assert found == ["one-2", "one-0"]  # of the last three, 3, 4 and 1
    alone = tf.train.Example()
    alone.features.feature["user"].bytes_list.value.append(b"ann")
    with Client(f"127.0.0.1:{kept_server.port}") as client:
        assert client.retrieve([alone.SerializeToString()], 1).item_ids.tolist() == [[b"one-4"]]


BAD = [
    ("/v1/events", [], "expected an object with `events`"),
    ("/v1/events", {"events": []}, "a list of 1 to 4096 objects"),
    ("/v1/events", {"events": [{"user": "a"}]}, r"events[0]: expected an object with user, item"),
    ("/v1/events", {"events": [{"user": "a", "item": "b" * 1001}]}, "expected texts of 1 to 1000 bytes"),
    ("/v1/events", {"events": [{"user": "a", "item": "b", "time": 1 << 62}]}, "not later than now"),
    ("/v1/models/retriever:predict", {"users": ["a"], "k": 10_001}, "`k` from 1 to 10000"),
    ("/v1/models/retriever:predict", {"users": [1]}, "expected `users`, a list of texts"),
    ("/v1/models/retriever:predict", {"users": ["a"], "where": "a=b"}, "and `where`, a list of texts"),
    ("/v1/models/retriever:predict", {"users": ["a"] * 1000, "where": [""] * 2000}, "both times the users"),
    ("/v1/models/retriever:predict", {"users": ["a"] * 1000, "where": ["b" * 5000]}, "both times the users"),
    ("/v1/models/item_tower:predict", {"users": ["a"]}, "expected `users` only of the retriever"),
    ("/v1/models/retriever:predict", {"users": ["a"], "exclude": ["b"]}, "received 'exclude' too"),
    ("/v1/models/retriever:predict", {"users": ["\ud800"]}, "received half of a surrogate pair"),
    ("/v1/events", {"events": [{"user": "\ud800", "item": "b"}]}, "expected texts of 1 to 1000 bytes"),
]


def test_invalid_events_are_refused(kept_server: EmbeddedServer) -> None:
    for path, content, words in BAD:
        status, answer = post(kept_server, path, content)
        assert status == 400 and words in answer["error"]


def test_events_may_be_packed(kept_server: EmbeddedServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", kept_server.rest_port, timeout=900)
    body = gzip.compress(json.dumps({"events": [{"user": "ann", "item": "one-1"}]}).encode())
    connection.request("POST", "/v1/events", body, {"Content-Encoding": "gzip"})
    assert connection.getresponse().read() == b'{"taken": 1}'


def test_events_that_the_disk_has_no_room_for_are_refused_whole_and_later_ones_are_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = histories(tmp_path, users=2)
    kept.add([Event(b"ann", b"one", 1)])
    pages = kept._database.execute("PRAGMA page_count").fetchone()[0]
    kept._database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says of a full disk
    too_many = [Event(b"u%d" % number, b"x" * 1000, 2) for number in range(100)]
    for _ in range(2):
        with pytest.raises(RequestError, match="events cannot be kept: database or disk is full") as refusal:
            kept.add(too_many)
        assert refusal.value.code == grpc.StatusCode.UNAVAILABLE
    assert caplog.text.count("events are refused") == 1
    kept._database.execute("PRAGMA max_page_count = 1000000")
    kept.add([Event(b"bob", b"two", 3)])
    # Both are kept: the refused ones left nothing, nor do they count.
    assert [features(each)["past"] for each in kept.queries([b"ann", b"u1", b"bob"], False)] == [[b"one"], [], [b"two"]]


def test_a_user_that_is_a_number_is_the_models_to_judge(kept_server: EmbeddedServer) -> None:
    """Regression: as many bytes as the number were made."""
    asked = tf.train.Example()
    asked.features.feature["user"].int64_list.value.append(1 << 40)
    with Client(f"127.0.0.1:{kept_server.port}") as client, pytest.raises(grpc.RpcError) as refusal:
        client.retrieve([asked.SerializeToString()], 1)
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "angle" in refusal.value.details()


def test_without_histories_nothing_is_taken(served: EmbeddedServer) -> None:
    status, answer = post(served, "/v1/events", {"events": [{"user": "a", "item": "b"}]})
    assert status == 400 and "ndr serve --histories" in answer["error"]


def test_a_history_of_some_kinds_of_event_is_refused_and_kinds_alone_are_not(tmp_path: Path) -> None:
    declared = SPEC.model_dump()
    declared["interactions"]["event"] = {"column": "kind", "weights": {"view": 0.1, "buy": 1}}
    with_kinds = FeatureSpec.model_validate(declared)
    Histories(tmp_path / "one.sqlite", with_kinds, HistorySettings(users=1), lambda version: None).close()
    declared["query"]["bought"] = {"kind": "history", "table": "item", "last": 3, "events": ["buy"]}
    of_kinds = FeatureSpec.model_validate(declared)
    with pytest.raises(ValueError, match="no history with `events`"):
        Histories(tmp_path / "two.sqlite", of_kinds, HistorySettings(users=1), lambda version: None)
