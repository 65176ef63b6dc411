"""What one request, or many, may take from all others: nothing is unpacked before it is held against the limits."""

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from serving.batching import Arrays
from serving.server import EmbeddedServer
from tests.memory import peak_during
from tests.serving.test_requests_grpc import DEFAULT, EXAMPLES, packed, refused, request, retrieval
from tests.serving.tiny import Pushes, Serve, example
from tests.waiting import wait_for

PATH = "/v1/models/item_tower:predict"
METHOD = "/tensorflow.serving.PredictionService/Predict"
STRING, FLOAT = 7, 1
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> PredictionServiceStub:
    return PredictionServiceStub(channel)


def texts(shape: list[int], *values: bytes) -> tensor_pb2.TensorProto:
    return packed(STRING, shape, string_val=values)


def many_features(count: int) -> bytes:
    made = tf.train.Example()
    for number in range(count):
        made.features.feature[str(number)].SetInParent()
    return made.SerializeToString()


def many_examples(count: int, exclude: int) -> NDArray[Any]:
    return np.array([example(0.6, tuple(b"x" for _ in range(exclude)))] + [example(0.6)] * (count - 1), object)


NUMBER = np.array([1.0], np.float32)
ANGLE = np.array([0.6], np.float32)
TOO_MUCH = {
    "a few bytes that claim 60 million texts": (
        request("query_tower", DEFAULT, angle=ANGLE, past=texts([1, 60_000_000], b"a")),
        "past: expected a shape of at most 1048576 values",
    ),
    "a text that is repeated": (
        request("query_tower", DEFAULT, angle=ANGLE, past=texts([1, 1000], b"a" * 100_000)),
        "past: expected texts of at most 4194304 bytes, each repetition counted",
    ),
    "a dtype that is not declared, of a size that is not looked at": (
        request("item_tower", DEFAULT, number=texts([60_000_000], b"a")),
        "number: expected the dtype float32, received string",
    ),
    "65 dimensions": (
        request("item_tower", DEFAULT, number=packed(FLOAT, [1] * 65, float_val=[1.0])),
        "number: expected the shape [?], received 65 dimensions",
    ),
    "dimensions whose product is beyond 64 bits": (
        request("query_tower", DEFAULT, angle=ANGLE, past=texts([1 << 62, 1 << 62], b"a")),
        "past: expected a shape of at most 1048576 values",
    ),
    "negative dimensions whose product is positive": (
        request("query_tower", DEFAULT, angle=ANGLE, past=texts([-1, -1], b"a")),
        "past: expected a shape of known sizes, received [-1, -1]",
    ),
    "more rows than are taken": (
        request("item_tower", DEFAULT, number=np.zeros([4097], np.float32)),
        "expected at most 4096 rows, received 4097",
    ),
    "more items than are taken": (
        request("retriever", DEFAULT, **retrieval(k=(10_001,))),
        "expected at most 10000 for k, received 10001",
    ),
    "a small request with a large answer": (
        request("retriever", EXAMPLES, examples=many_examples(4096, 0), k=np.full([4096], 10_000, np.int32)),
        "expected at most 1048576 values of an answer, rows x k, received 40960000",
    ),
    "one long row that would lengthen all others": (
        request("retriever", EXAMPLES, examples=many_examples(2048, 600), k=np.ones([2048], np.int32)),
        "expected at most 1048576 values, each row having as many as the longest, received 1228800",
    ),
    "features that take seconds to parse": (
        request("retriever", EXAMPLES, examples=np.array([many_features(10_001)], object), k=np.ones([1], np.int32)),
        "expected at most 10000 features in an Example, received more",
    ),
    "inputs that take seconds to parse": (
        request("item_tower", DEFAULT, **{str(number): texts([]) for number in range(10_001)}),
        "expected at most 10000 inputs, received more",
    ),
    "exclusions that are compared with every item": (
        request("retriever", DEFAULT, **retrieval(k=(10_000,), exclude=[["x"] * 20_000])),
        "expected at most 268435456 comparisons",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_MUCH)
def test_a_request_that_asks_for_too_much_is_refused_before_it_takes_memory(
    stub: PredictionServiceStub, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    asked, words = TOO_MUCH[case]
    found = list[tuple[grpc.StatusCode, str]]()
    assert peak_during(lambda: found.append(refused(stub.Predict, asked))) < 200 * MEGABYTE
    ((code, said),) = found
    assert code == grpc.StatusCode.INVALID_ARGUMENT and words in said
    assert not caplog.records  # no traceback in the log for a client's mistake


def post(port: int, body: bytes, path: str = PATH, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=900)
    connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text)["error"] if response.status != 200 else text


def alive(port: int, seconds: float = 10.0) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    connection.request("GET", "/healthz")
    return connection.getresponse().status


ROWS = b'{"instances": [1.0, 2.0]}'


def test_a_body_that_is_compressed_is_unpacked(served: EmbeddedServer) -> None:
    import zlib

    for encoding, packed_body in (("gzip", gzip.compress(ROWS)), ("deflate", zlib.compress(ROWS))):
        status, text = post(served.rest_port, packed_body, Content_Encoding=encoding)
        assert status == 200 and len(json.loads(text)["predictions"]) == 2


BAD_BODIES: dict[str, tuple[Callable[[], bytes], str, int, str]] = {
    "a gigabyte in a megabyte": (
        lambda: gzip.compress(b" " * (1 << 30), 1)[: 4 * MEGABYTE], "gzip", 413,
        "expected a body of at most 4194304 bytes, unpacked",
    ),
    "no gzip": (lambda: ROWS, "gzip", 400, "expected a body in gzip, received something else"),
    "gzip that was cut short": (lambda: gzip.compress(ROWS)[:-9], "gzip", 400, "received one that was cut short"),
    "an encoding that nobody has": (lambda: ROWS, "x" * 100, 415, "expected a Content-Encoding of gzip, deflate"),
    "many small lists": (
        lambda: b'{"instances": [' + b"[]," * 1_300_000 + b"[]]}", "identity", 400,
        "expected a body with at most 1048576 of the signs , [ and {, received 2600003",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_body_that_would_hold_everyone_up_is_refused_while_others_are_answered(
    served: EmbeddedServer, case: str
) -> None:
    make, encoding, status, words = BAD_BODIES[case]
    body = make()
    threads = [threading.Thread(target=post, args=(served.rest_port, body), kwargs={"Content_Encoding": encoding})]
    threads[0].start()
    found, text = post(served.rest_port, body, Content_Encoding=encoding)
    assert (found, words in text) == (status, True), text
    assert alive(served.rest_port) == 200
    threads[0].join()


def test_a_long_list_is_not_repeated_for_each_row_that_has_none(served: EmbeddedServer) -> None:
    rows = [{"angle": 0.6, "k": 1}] * 4000 + [{"angle": 0.6, "k": 1, "exclude": [""] * 20_000}]
    body, found = json.dumps({"instances": rows}).encode(), list[tuple[int, str]]()
    path = "/v1/models/retriever:predict"
    assert peak_during(lambda: found.append(post(served.rest_port, body, path))) < 200 * MEGABYTE
    assert found == [(400, "exclude: expected at most 1048576 values, received 4001 rows of 20000")]


@pytest.fixture
def impatient(serve: Serve, pushes: Pushes) -> EmbeddedServer:
    """A server that waits a moment for headers and bodies, and takes on next to nothing."""
    pushes.push("one")
    return serve(
        pushes.root, limits={"receive_seconds": 0.5, "idle_seconds": 600.0, "connections": 3, "calls": 2, "running": 1}
    )


def read_all(connection: socket.socket) -> bytes:
    connection.settimeout(60)
    content = b""
    while chunk := connection.recv(4096):
        content += chunk
    return content


def test_headers_and_bodies_that_do_not_come_end_their_connection(impatient: EmbeddedServer) -> None:
    with socket.create_connection(("127.0.0.1", impatient.rest_port)) as silent:
        assert read_all(silent) == b""
    with socket.create_connection(("127.0.0.1", impatient.rest_port)) as slow:
        slow.sendall(b"POST /v1/models/item_tower:predict HTTP/1.1\r\nHost: x\r\nContent-")
        assert read_all(slow) == b""
    with socket.create_connection(("127.0.0.1", impatient.rest_port)) as bodiless:
        bodiless.sendall(b"POST /v1/models/item_tower:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        answer = read_all(bodiless)
    assert b" 408 " in answer and b"expected the body within 0.5 s" in answer


def test_a_client_that_goes_away_in_the_middle_of_a_body_is_no_fault_of_ours(
    served: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", served.rest_port)) as gone:
        gone.sendall(b"POST /v1/models/item_tower:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        wait_for(lambda: served._front._calls.get("REST") == 1)
    wait_for(lambda: served._front._calls["REST"] == 0)
    assert b'{api="REST",code="CANCELLED",method="Predict",model=""} 1.0' in served.metrics.exposed()
    assert b'code="INTERNAL"' not in served.metrics.exposed() and not caplog.records


@pytest.mark.parametrize("sent", [b"\0\0\r\n\r\n", b"GET /livez HTTP/1.1\r\nContent-Length: -1\r\n\r\n"])
def test_bytes_that_are_not_http_are_refused_without_a_log_entry(
    served: EmbeddedServer, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", served.rest_port)) as odd:
        odd.sendall(sent)
        assert b" 400 Bad Request" in read_all(odd)
    assert not caplog.records


def test_who_does_not_read_its_answers_is_let_go(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, limits={"idle_seconds": 0.5})
    with socket.create_connection(("127.0.0.1", server.rest_port)) as deaf:
        # More than the system's own buffers take.
        deaf.sendall(b"GET /monitoring/prometheus/metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        wait_for(lambda: server._connections.open == 1)
        wait_for(lambda: server._connections.open == 0)
    assert alive(server.rest_port) == 200


class Half:
    """gRPC calls whose message never comes."""

    def __init__(self, port: int, count: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self._end = threading.Event()
        self.calls = [self._channel.stream_unary(METHOD).future(self._messages()) for _ in range(count)]

    def _messages(self) -> Iterator[bytes]:
        self._end.wait(900)
        yield from ()

    def close(self) -> None:
        self._end.set()
        self._channel.close()


def test_a_grpc_call_whose_message_does_not_come_is_ended(impatient: EmbeddedServer) -> None:
    half = Half(impatient.port, 1)
    assert half.calls[0].exception(timeout=900).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "expected a message within 0.5 s" in half.calls[0].details()
    half.close()


def test_connections_are_bounded(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, limits={"connections": 3})
    held = [socket.create_connection(("127.0.0.1", server.rest_port)) for _ in range(3)]
    with socket.create_connection(("127.0.0.1", server.rest_port)) as refused_one:
        assert read_all(refused_one).startswith(b"HTTP/1.1 503 ")
    for connection in held:
        connection.close()

    def answers() -> bool:
        try:
            return alive(server.rest_port, 60) == 200
        except (OSError, http.client.HTTPException):
            return False

    wait_for(answers)


class Held:
    """A model that does not end before it is told to."""

    def __init__(self, server: EmbeddedServer, model: str = "item_tower", signature: str = DEFAULT) -> None:
        found = server.versions.get(model, None).signature(signature)
        assert found is not None and found._batcher is not None
        self.begun, self.go, run = threading.Event(), threading.Event(), found._batcher._run

        def slow(inputs: Arrays) -> Arrays:
            self.begun.set()
            self.go.wait(900)
            return run(inputs)

        found._batcher._run = slow


def test_requests_beyond_the_limits_are_refused_at_once(impatient: EmbeddedServer) -> None:
    held = Held(impatient)
    first = threading.Thread(target=post, args=(impatient.rest_port, ROWS))
    first.start()
    held.begun.wait(900)
    begun = time.monotonic()
    status, words = post(impatient.rest_port, ROWS)
    assert status == 503 and "overloaded: 1 requests wait or run" in words
    with grpc.insecure_channel(f"127.0.0.1:{impatient.port}") as channel:
        stub = PredictionServiceStub(channel)
        code, words = refused(stub.Predict, request("item_tower", DEFAULT, number=NUMBER))
        assert code == grpc.StatusCode.UNAVAILABLE and "overloaded" in words
        assert first.is_alive() and time.monotonic() - begun < 800  # nobody waited for the model
        held.go.set()
        first.join()
        wait_for(lambda: impatient._front.running == 0)
        assert stub.Predict(request("item_tower", DEFAULT, number=NUMBER), timeout=900)


def test_calls_that_are_received_are_bounded(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    server = serve(pushes.root, limits={"calls": 2})
    half = [Half(server.port, 1) for _ in range(2)]  # a connection each, as one has no more streams than that
    wait_for(lambda: server._front._calls.get("grpc") == 2)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = PredictionServiceStub(channel)
        code, words = refused(stub.Predict, request("item_tower", DEFAULT, number=NUMBER))
    assert code == grpc.StatusCode.UNAVAILABLE and "expected at most 2 calls at a time" in words
    for each in half:
        each.close()
