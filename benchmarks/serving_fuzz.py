"""Requests that nobody would send, by gRPC and REST: every answer is an answer or a refusal, and the server is as well afterwards.

Half of the requests are a good one with bytes changed, the others are well-formed with fields, dtypes, shapes, sizes and values
drawn at random. Every fiftieth is followed by a control: a good request, whose answer must be the same to the last bit. A fault is
a control that fails, an INTERNAL or UNKNOWN, a 5xx other than 503, a REST answer that is no JSON, or a request without an answer
within the timeout.
"""

import http.client
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from benchmarks import common, serving
from benchmarks.attacks import METHOD

TIMEOUT = 60.0  # seconds
EVERY = 50
FAULTS = {"INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED", "DATA_LOSS"}
METHODS = (
    METHOD,
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
)
NAMES = ("retriever", "query_tower", "item_tower", "index", "", "\x1b[31m", "x" * 300)
SIGNATURES = ("serving_examples", "serving_default", "serving_embeddings", "", "none")
INPUTS = ("examples", "k", "exclude", "user", "past", "embedding", "other", "")
SIZES = (0, 1, 1, 2, 2, 3, 32, 63, 4097, 1 << 20, 1 << 31, 1 << 62, -1, -(1 << 63))
ODD_JSON: tuple[Any, ...] = (
    None, True, False, 0, -1, 1 << 31, 1 << 63, 10**400, 0.5, 1e308, float("nan"), float("-inf"), "", "a", "\0", "\ud800", "é" * 50,
    [], {}, [[]], {"b64": "?"}, {"b64": "AAAA"}, {"b64": 1}, {"": ""},
)  # fmt: skip


class Generator:
    """Draws requests.

    Args:
        seed: of the draw.
        good: serialised requests that are answered.
    """

    def __init__(self, seed: int, good: list[bytes]) -> None:
        self._random = random.Random(seed)
        self._good = good

    def grpc(self) -> tuple[str, bytes]:
        """Return a method and a message."""
        method = METHODS[0] if self._random.random() < 0.9 else self._random.choice(METHODS)
        return method, self._changed(
            self._random.choice(self._good)
        ) if self._random.random() < 0.5 else self._predict()

    def rest(self) -> tuple[str, str, bytes, dict[str, str]]:
        """Return a verb, a path, a body and headers."""
        draw = self._random
        model = draw.choice((*NAMES[:3], "none", "%00", "a" * 300))
        place = draw.choice(("", "", "", "/versions/1", f"/versions/{10**30}", "/labels/stable", "/versions/x"))
        path = f"/v1/models/{model}{place}" + draw.choice((":predict",) * 8 + ("", "/metadata", ":classify"))
        body = json.dumps(self._json_request()).encode(errors="surrogatepass")
        if draw.random() < 0.5:
            body = self._changed(body)
        headers = (
            {} if draw.random() < 0.8 else {"Content-Encoding": draw.choice(("gzip", "deflate", "br", "identity"))}
        )
        return ("POST" if draw.random() < 0.9 else draw.choice(("GET", "PUT", "HEAD", "OPTIONS"))), path, body, headers

    def _changed(self, content: bytes) -> bytes:
        draw, changed = self._random, bytearray(content)
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(len(changed) + 1)
            match draw.randrange(4):
                case 0:
                    changed[at : at + 1] = bytes([draw.randrange(256)])
                case 1:
                    del changed[at : at + draw.randint(1, 16)]
                case 2:
                    changed[at:at] = draw.randbytes(draw.randint(1, 16))
                case _:
                    changed[at:at] = changed[at : at + draw.randint(1, 64)] * draw.randint(1, 8)
        return bytes(changed)

    def _predict(self) -> bytes:
        from tensorflow.core.framework import tensor_pb2
        from tensorflow_serving.apis import predict_pb2

        draw, request = self._random, predict_pb2.PredictRequest()
        request.model_spec.name = draw.choice(NAMES[:1] * 5 + NAMES)
        request.model_spec.signature_name = draw.choice(SIGNATURES[:2] * 3 + SIGNATURES)
        if draw.random() < 0.1:
            request.model_spec.version.value = draw.choice((1, 0, -1, 1 << 62))
        for name in draw.sample(INPUTS, draw.randint(0, 5)) if draw.random() < 0.4 else ("examples", "k"):
            tensor = tensor_pb2.TensorProto(dtype=draw.choice((7, 7, 3, 3, 1, 9, 10, 2, 19, 21, 99, 0)))
            for _ in range(draw.choice((0, 1, 1, 1, 2, 2, 3, 65, 255))):
                tensor.tensor_shape.dim.add(size=draw.choice(SIZES))
            tensor.tensor_shape.unknown_rank = draw.random() < 0.05
            count = draw.choice((0, 1, 1, 2, 3, 100))
            tensor.string_val.extend(draw.randbytes(draw.choice((0, 1, 20, 1000))) for _ in range(count))
            tensor.int_val.extend(draw.choice((0, 1, 10, -1, 10_000, 10_001, 2**31 - 1)) for _ in range(count))
            tensor.float_val.extend(draw.choice((0.0, float("nan"), float("inf"), 1e38)) for _ in range(count))
            if draw.random() < 0.1:
                tensor.tensor_content = draw.randbytes(draw.choice((1, 4, 8, 128)))
            request.inputs[name].CopyFrom(tensor)
        request.output_filter.extend(draw.sample(("item_ids", "scores", "none"), draw.choice((0, 0, 0, 1, 2))))
        return request.SerializeToString()

    def _json_request(self) -> Any:
        draw = self._random
        if draw.random() < 0.1:
            return draw.choice(ODD_JSON)
        row = {name: self._json_value(3) for name in draw.sample(INPUTS, draw.randint(0, 4))}
        rows = [row] * draw.choice((0, 1, 2, 5)) if draw.random() < 0.7 else self._json_value(4)
        content = {draw.choice(("instances", "instances", "inputs", "rows")): rows}
        if draw.random() < 0.7:
            content["signature_name"] = draw.choice((*SIGNATURES, 1))
        return content

    def _json_value(self, depth: int) -> Any:
        draw = self._random
        if depth == 0 or draw.random() < 0.5:
            return draw.choice(ODD_JSON)
        return [self._json_value(depth - 1) for _ in range(draw.randint(0, 3))]


def ask_grpc(channel: grpc.Channel, method: str, message: bytes) -> tuple[str, bytes]:
    """Return the code and the answer."""
    try:
        return "OK", channel.unary_unary(method)(message, timeout=TIMEOUT)
    except grpc.RpcError as error:
        return error.code().name, (error.details() or "").encode()


def ask_rest(port: int, verb: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[str, bytes]:
    """Return the status, or what is wrong with the answer, and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request(verb, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        if verb != "HEAD":
            json.loads(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"INTERNAL: {type(error).__name__}", str(error).encode()
    finally:
        connection.close()
    return ("UNKNOWN" if response.status >= 500 and response.status != 503 else str(response.status)), content


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--requests", type=int, default=10_000)
    arguments.add_argument("--items", type=int, default=1000)
    arguments.add_argument("--push-folder", type=Path, help="serves its newest version instead of a random catalogue")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = serving.prepare(folder, options, context)
        ours, theirs = context.Pipe()
        server = context.Process(target=serving.serve, args=(folder, True, theirs))
        server.start()
        port, rest_port = ours.recv()
        figures = _fuzz(port, rest_port, good, options.requests, options.seed, lambda: _resident_mb(server.pid or 0))
        ours.send("end")
        server.join()
    for fault in figures["faults"][:10]:
        common.show("fault", ["", ""], [[key, str(value)[:200]] for key, value in fault.items()])
    common.show("answers", ["", "n"], [[code, str(count)] for code, count in sorted(figures["codes"].items())])
    headline = {
        "requests": float(options.requests), "faults": float(len(figures["faults"])), "controls": float(figures["controls"]),
        "longest_s": figures["longest_s"], "rss_growth_mb": figures["rss_growth_mb"],
    }  # fmt: skip
    common.conclude(options.json, {"seed": options.seed, "items": options.items}, figures, headline)
    if figures["faults"]:
        raise SystemExit(1)


def _fuzz(
    port: int, rest_port: int, good: list[bytes], count: int, seed: int, resident_mb: Callable[[], float]
) -> dict[str, Any]:
    draw = Generator(seed, good)
    codes: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    longest, controls, first = 0.0, 0, resident_mb()
    slowest: dict[str, Any] = {}
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        expected = ask_grpc(channel, METHOD, good[0])
        for number in range(1, count + 1):
            over_grpc = number % 2 == 1
            asked: tuple[Any, ...] = draw.grpc() if over_grpc else draw.rest()
            begun = time.perf_counter()
            code, answer = ask_grpc(channel, *asked) if over_grpc else ask_rest(rest_port, *asked)
            if (took := time.perf_counter() - begun) > longest:
                longest, slowest = took, {"number": number, "asked": str(asked)[:1000], "code": code}
            codes[("gRPC " if over_grpc else "REST ") + code] += 1
            if code.partition(":")[0] in FAULTS:
                faults.append({"number": number, "code": code, "answer": answer[:300], "asked": str(asked)[:1000]})
            if number % EVERY == 0:
                controls += 1
                if ask_grpc(channel, METHOD, good[0]) != expected:
                    faults.append({"number": number, "code": "control", "answer": b"", "asked": str(asked)[:1000]})
    shown = [{key: str(value) for key, value in fault.items()} for fault in faults]
    return {
        "codes": dict(codes), "faults": shown, "controls": controls, "longest_s": longest, "slowest": slowest,
        "rss_growth_mb": resident_mb() - first,
    }  # fmt: skip


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
