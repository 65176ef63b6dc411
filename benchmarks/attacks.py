"""What a hostile or broken client, disk or push does to a server; each was once answered by a gigabyte, a minute, or for ever."""

import gzip
import http.client
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import grpc

METHOD = "/tensorflow.serving.PredictionService/Predict"
PREDICT = "/v1/models/retriever:predict"
HELD = 20  # connections that are left half open


def requests(port: int, rest_port: int, push_folder: Path) -> list[Callable[[], None]]:
    """Each does its harm once, and returns.

    Args:
        port: of gRPC.
        rest_port: of REST.
        push_folder: that the server watches.
    """
    bomb = gzip.compress(b" " * (1 << 28), 9)
    lists = b'{"instances": [' + b"[]," * 1_300_000 + b"[]]}"
    halves: list[socket.socket] = []

    def half_open() -> None:
        while halves:
            halves.pop().close()
        for number in range(HELD):
            connection = socket.create_connection(("127.0.0.1", rest_port if number % 2 else port), timeout=10)
            connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n".encode())
            halves.append(connection)

    return [
        lambda: _post(rest_port, bomb, "gzip"),
        lambda: _post(rest_port, b"no gzip", "gzip"),
        lambda: _post(rest_port, lists, "identity"),
        lambda: _post(rest_port, b"[" * 1_000_000, "identity"),
        lambda: _ask(port, _filled("user", 60_000_000)),
        lambda: _ask(port, _filled("user", 1, dimensions=65)),
        lambda: _ask(port, b"\xff" * 1000),
        half_open,
        lambda: _odd_manifests(push_folder),
    ]


def damaged_push(source: Path, push_folder: Path, version: int) -> None:
    """Push a version whose manifest has the checksums of other files."""
    push(source, push_folder, version)
    manifest = push_folder / "manifests" / f"{version}.json"
    content = json.loads(manifest.read_text())
    for files in content["files"].values():
        for digest in files.values():
            digest["sha256"] = "0" * 64
    aside = push_folder / "aside.json"
    aside.write_text(json.dumps(content))
    aside.rename(manifest)


def push(source: Path, push_folder: Path, version: int) -> None:
    """Make a copy of a version visible.

    Args:
        source: the version's parts, and `files.json` with the digests of each.
        push_folder: where to.
        version: its number.
    """
    digests = json.loads((source / "files.json").read_text())
    for part in digests:
        shutil.copytree(source / part, push_folder / part / str(version))
    aside = push_folder / "aside.json"
    parts = {part: f"{part}/{version}" for part in digests}
    aside.write_text(json.dumps({"version": version, "parts": parts, "files": digests}))
    (push_folder / "manifests").mkdir(exist_ok=True)
    aside.rename(push_folder / "manifests" / f"{version}.json")


def remove(push_folder: Path, version: int) -> None:
    """Remove a version, its manifest first."""
    manifest = push_folder / "manifests" / f"{version}.json"
    if manifest.exists():
        parts = json.loads(manifest.read_text())["parts"]
        manifest.unlink()
        for place in parts.values():
            shutil.rmtree(push_folder / place)


def _odd_manifests(push_folder: Path) -> None:
    for name, text in (("infinity", '{"version": Infinity}'), ("nested", "[" * 100_000), (str(10**30), "{}")):
        (push_folder / "manifests" / f"{name}.json").write_text(text)
    (push_folder / "manifests" / "folder.json").mkdir(exist_ok=True)


def _post(rest_port: int, body: bytes, encoding: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", rest_port, timeout=60)
    connection.request("POST", PREDICT, body, {"Content-Encoding": encoding})
    if connection.getresponse().status < 400:
        raise AssertionError(f"expected a refusal of {len(body)} bytes in {encoding}")
    connection.close()


def _ask(port: int, content: bytes) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(METHOD)(content, timeout=60)
        except grpc.RpcError:
            return
    raise AssertionError(f"expected a refusal of {len(content)} bytes")


def _filled(name: str, size: int, dimensions: int = 1) -> bytes:
    """Return a few bytes that claim a shape, whose values all repeat the last one."""
    from tensorflow.core.framework import tensor_pb2
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "retriever"
    shape = {"dim": [{"size": size} for _ in range(dimensions)]}
    for each in (name, "past", "k", "exclude"):
        request.inputs[each].CopyFrom(tensor_pb2.TensorProto(dtype=7, tensor_shape=shape, string_val=[b"x"]))
    return request.SerializeToString()
