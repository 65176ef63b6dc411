"""The metrics are in Prometheus' form: its client library reads them, promtool finds no fault, and they count what was asked."""

import http.client
import json
import re
import shutil
import subprocess

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import ndr_client
from ndr_client import Client
from serving.server import EmbeddedServer
from tests.serving.test_requests_grpc import DEFAULT, EXAMPLES, retrieval
from tests.serving.tiny import DAY, Pushes, Serve, example
from tests.waiting import wait_for

VERSION = int(f"{DAY:%Y%m%d}001")
PATH = "/monitoring/prometheus/metrics"


def exposed(server: EmbeddedServer) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900)
    connection.request("GET", PATH)
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type", "").partition(";")[0]) == (200, "text/plain")
    return response.read().decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """By name and the values of the labels, in alphabetical order."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def asked(serve: Serve, pushes: Pushes) -> EmbeddedServer:
    """A server that answered two requests of a client, and refused one."""
    pushes.push("one")
    server = serve(pushes.root)
    with Client(f"127.0.0.1:{server.port}") as client:
        # The catalogue has 5 items: the second row finds all 5 of 9, the third finds none as all are excluded.
        client.retrieve([ndr_client.example({"angle": 0.6, "where": ["a", "b"]})], 3)
        everything = [b"one-%d" % n for n in range(5)]
        client.predict("retriever", DEFAULT, retrieval(
            (0.6, 2.1), (9, 2), exclude=[[b""] * 5, everything], past=[["a"], [""]],
        ))  # fmt: skip
        with pytest.raises(grpc.RpcError):
            client.predict("retriever", EXAMPLES, {"examples": [example(0.6)], "k": np.array([0], np.int32)})
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900)
    connection.request("POST", "/v1/models/item_tower:predict", json.dumps({"instances": [1.0]}))
    assert connection.getresponse().status == 200
    wait_for(lambda: ("ndr_serving_requests_total", "OK", "Predict", "REST", "item_tower") in samples(exposed(server)))
    return server


def test_questions_and_answers_are_counted(asked: EmbeddedServer) -> None:
    text = exposed(asked)
    assert ':tensorflow:serving:request_count{model_name="retriever",status="OK"} 2.0' in text  # as TF Serving has it
    found = samples(text)
    expected = {
        # The library gives every counter this end when it reads it.
        (":tensorflow:serving:request_count_total", "retriever", "OK"): 2,
        (":tensorflow:serving:request_count_total", "retriever", "INVALID_ARGUMENT"): 1,
        (":tensorflow:serving:request_latency_count", "retriever", "grpc", "Predict"): 3,
        ("ndr_serving_requests_total", "retriever", "grpc", "Predict", "INVALID_ARGUMENT"): 1,
        ("ndr_serving_requests_total", "item_tower", "REST", "Predict", "OK"): 1,
        ("ndr_serving_rows_total", "retriever"): 3,
        ("ndr_serving_empty_answers_total",): 1,
        ("ndr_serving_short_answers_total",): 2,
        ("ndr_serving_items_asked_count",): 2,
        ("ndr_serving_items_asked_sum",): 3 + 9,
        ("ndr_serving_items_excluded_sum",): 0 + 5,
        ("ndr_serving_conditions_sum",): 2 + 0,
        ("ndr_serving_loads_total", "ok"): 1,
        ("ndr_serving_loads_total", "failed"): 0,
        ("ndr_serving_live_version",): VERSION,
        ("ndr_serving_newest_version",): VERSION,
        ("ndr_serving_stale_seconds",): 0,
        ("ndr_serving_running_requests",): 0,
        ("ndr_serving_waiting_requests", "retriever", EXAMPLES): 0,
    }
    expected = {(name, *sorted(labels)): value for (name, *labels), value in expected.items()}
    assert {name: found.get(name) for name in expected} == expected
    assert 0 < found["ndr_serving_live_version_age_seconds",] < 3600
    # Warm-up requests are batches too.
    assert found["ndr_serving_batch_rows_count", *sorted(("item_tower", DEFAULT))] >= 1


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_finds_nothing_wrong_but_the_names_that_tf_serving_chose(asked: EmbeddedServer) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposed(asked), capture_output=True, text=True, timeout=900, check=False
    )
    assert "error while linting" not in done.stderr
    said = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert [line for line in said if not line.startswith(":tensorflow:serving:")] == []


def test_a_version_that_cannot_be_loaded_is_visible_in_the_metrics(serve: Serve, pushes: Pushes) -> None:
    first = pushes.push("one")
    server = serve(pushes.root)
    (pushes.model("two") / "retriever" / "assets" / "label.txt").unlink()
    second = pushes.push("two")
    wait_for(lambda: samples(exposed(server))["ndr_serving_loads_total", "failed"] >= 1)
    found = samples(exposed(server))
    assert (found["ndr_serving_live_version",], found["ndr_serving_newest_version",]) == (first, second)
    wait_for(lambda: samples(exposed(server))["ndr_serving_stale_seconds",] > 0)
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    words = answer.read().decode()
    assert answer.status == 200  # an old version is better than none
    assert re.match(f"stale: version {first} is live, and version {second} is not, for \\d+ s: ", words)


def test_a_server_that_is_stale_for_too_long_is_not_ready_but_alive(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, stale_seconds=0.2)
    (pushes.model("two") / "retriever" / "assets" / "label.txt").unlink()
    pushes.push("two")

    def status(path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900)
        connection.request("GET", path)
        return connection.getresponse().status

    wait_for(lambda: status("/readyz") == 503)
    assert status("/livez") == 200
