"""Queries that were answered are kept: complete files only, bounded on the disk, in the form that TFDV reads."""

import json
import os
import stat
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ndr_client import Client
from serving import request_log
from serving.access_log import AccessLog
from serving.extent import Extent
from serving.record import GRPC, Record
from serving.request_log import RequestLog
from serving.settings import AccessLogSettings, RequestLogSettings
from tests.serving.test_requests_grpc import DEFAULT, EXAMPLES, retrieval
from tests.serving.tiny import DAY, Pushes, Serve, example
from tests.waiting import wait_for

VERSION = int(f"{DAY:%Y%m%d}001")


def kept(folder: Path) -> list[tf.train.Example]:
    paths = [str(path) for path in sorted(folder.glob(request_log.PATTERN))]
    records = tf.data.TFRecordDataset(paths, compression_type="GZIP").as_numpy_iterator()
    return [tf.train.Example.FromString(record) for record in records]


def values(made: tf.train.Example) -> dict[str, list[Any]]:
    features = made.features.feature
    return {name: list(getattr(each, each.WhichOneof("kind")).value) for name, each in features.items()}


def test_the_queries_of_both_forms_are_logged_with_the_answers(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, request_log={"share": 1.0, "file_seconds": 0.1})
    before = time.time_ns() // 1000
    with Client(f"127.0.0.1:{server.port}") as client:
        client.retrieve({"angle": [0.6], "past": [["a", ""]]}, 2, exclude=[[b"one-1"]])
        client.retrieve([example(0.6, (b"one-1",))], 2)
        client.embed("query_tower", [example(2.0)])
        client.embed("item_tower", [example(1.0, feature="number")])  # no query
    folder = pushes.root.parent / "requests"
    wait_for(lambda: len(kept(folder)) == 3)
    by_tensors, by_examples, embedded = map(values, kept(folder))
    # The angle 0.6 is nearest to item 1, which is excluded, then to items 2 and 0: cos(0.4) = 0.921, cos(0.6) = 0.825.
    answer = {"k": [2], "served_version": [VERSION], "served_items": [b"one-2", b"one-0"]}
    for found in (by_tensors, by_examples):
        assert found.items() >= answer.items()
        assert found["served_scores"] == pytest.approx([0.92106, 0.82534], abs=1e-5)
        assert found["angle"] == pytest.approx([0.6]) and found["exclude"] == [b"one-1"]
        assert before <= found["served_at"][0] <= time.time_ns() // 1000
    assert by_tensors["past"] == [b"a"]  # an empty text stands for none
    assert embedded.keys() == {"angle", "exclude", "served_at", "served_version"}
    assert not list(folder.glob(".unfinished-*"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_ages_stay_beside_the_items_of_a_history() -> None:
    """Regression: what was NaN or padding among them moved the others, and the query could not be asked again."""
    made = Record(GRPC, "Predict", model="query_tower", signature=DEFAULT, version=VERSION)
    made.inputs = {
        "past": np.array([[b"", b"a", b"b"]], object),
        "past_ages": np.array([[0.0, np.nan, 5.0]], np.float32),
        "angle": np.array([np.nan], np.float32),
    }
    made.extent = Extent(rows=1)
    (found,) = map(values, request_log.examples_of(made, 0))
    assert found["past"] == [b"a", b"b"] and found["angle"] == []
    assert found["past_ages"] == pytest.approx([np.nan, 5.0], nan_ok=True)


def record(served_version: int) -> Record:
    made = Record(GRPC, "Predict", model="query_tower", signature=EXAMPLES, version=served_version)
    made.inputs = {"examples": np.array([example(0.6)], object)}
    return made


def has_file(folder: Path, number: int) -> bool:
    return any(folder.glob(f"requests-*-{number:06d}.tfrecord.gz"))


def test_files_are_complete_once_they_have_their_name_and_the_oldest_are_removed(tmp_path: Path) -> None:
    # Each query is some 60 bytes, so that each makes a file; a file is some 120 bytes once it is compressed.
    settings = RequestLogSettings(share=1.0, file_bytes=1, total_bytes=400)
    log = RequestLog(tmp_path, settings)
    log.start()
    for version in range(10):
        log.observe(record(version))
        wait_for(partial(has_file, tmp_path, version + 1))
    log.stop()
    versions = [values(each)["served_version"][0] for each in kept(tmp_path)]
    assert versions == list(range(10 - len(versions), 10)) and 1 <= len(versions) < 10
    assert sum(path.stat().st_size for path in tmp_path.glob(request_log.PATTERN)) <= 400


def test_old_files_and_leftovers_of_a_killed_server_are_removed(tmp_path: Path) -> None:
    old, left = tmp_path / "requests-20200101T000000-x-1-000001.tfrecord.gz", tmp_path / ".unfinished-requests-x"
    for path in (old, left):
        path.touch()
        os.utime(path, (1.0, 1.0))
    log = RequestLog(tmp_path, RequestLogSettings(share=1.0, file_bytes=1))
    log.start()
    log.observe(record(1))
    wait_for(lambda: not old.exists() and not left.exists())
    log.stop()
    assert len(kept(tmp_path)) == 1


def test_a_disk_that_fails_costs_queries_and_no_answer(
    serve: Serve, pushes: Pushes, caplog: pytest.LogCaptureFixture
) -> None:
    pushes.push("one")
    (pushes.root.parent / "requests").touch()  # a file where the folder belongs
    server = serve(pushes.root, request_log={"share": 1.0})
    with Client(f"127.0.0.1:{server.port}") as client:
        for _ in range(3):
            assert client.retrieve([example(0.6)], 1).item_ids.tolist() == [[b"one-1"]]
    wait_for(lambda: server._request_log.dropped == 3)
    assert caplog.text.count("queries are not kept") == 1


def test_a_query_that_cannot_be_written_costs_no_other(tmp_path: Path) -> None:
    odd = record(1)
    odd.inputs = {"examples": np.array([7], object)}
    log = RequestLog(tmp_path, RequestLogSettings(share=1.0, file_bytes=1))
    log.start()
    log.observe(odd)
    log.observe(record(2))
    wait_for(lambda: kept(tmp_path))
    log.stop()
    assert log.dropped == 1 and [values(each)["served_version"] for each in kept(tmp_path)] == [[2]]


def test_nothing_is_kept_where_nobody_asked_for_it(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root)
    with Client(f"127.0.0.1:{server.port}") as client:
        client.retrieve([example(0.6)], 1)
    assert not (pushes.root.parent / "requests").exists()


def test_the_access_log_has_a_line_of_json_for_each_request(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, access_log={"share": 1.0, "path": "access.log"})
    with Client(f"127.0.0.1:{server.port}") as client:
        client.predict("retriever", DEFAULT, retrieval())
        with pytest.raises(Exception, match="Servable not found"):
            client.predict("none\x1b[31m", DEFAULT, {})
    path = pushes.root.parent / "access.log"
    wait_for(lambda: len(path.read_text().splitlines()) == 2)
    answered, refused = map(json.loads, path.read_text().splitlines())
    assert {name: answered[name] for name in ("api", "method", "model", "version", "signature", "rows", "k", "code")} == {
        "api": "grpc", "method": "Predict", "model": "retriever", "version": VERSION, "signature": DEFAULT, "rows": 1, "k": 3,
        "code": "OK",
    }  # fmt: skip
    assert answered["bytes"] > 0 and answered["ms"] > 0
    assert (refused["code"], refused["model"]) == ("NOT_FOUND", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_access_log_is_rotated_into_files_that_are_nobody_elses(tmp_path: Path) -> None:
    settings = AccessLogSettings(share=1.0, path=Path("access.log"), file_bytes=1, files=3)
    log = AccessLog(settings, tmp_path)
    for version in range(5):
        log.observe(record(version))
    log.close()
    files = sorted(tmp_path.glob("access.log*"))
    assert [json.loads(path.read_text())["version"] for path in files] == [4, 3, 2]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
