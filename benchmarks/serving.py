"""The embedded server under load: latency and requests a second by the number of clients, with batching and without.

Then an open loop at a fixed rate, while versions are pushed and the server is attacked (see `benchmarks.open_loop`).

Each client of the closed loop sends one query (`serving_examples` of the retriever) and waits for its answer before it sends
the next. Server and clients are a process each and share the machine's cores; the clients are coroutines, and neither build
their requests nor read the answers' content while the clock runs.
"""

import asyncio
import json
import multiprocessing
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, open_loop

WIDTH, K = 32, 100
QUERIES = 256
CHANNELS = 4
WARM_UP_SECONDS = 1.0
METHOD = "/tensorflow.serving.PredictionService/Predict"
SOURCE, PUSHED = "source", "pushed"
BATCHED, ALONE = "batched", "each alone"


def prepare(folder: Path, options: Any, context: SpawnContext) -> list[bytes]:
    """Make a push folder with a retriever, and requests for it; in a separate process, because it needs TensorFlow.

    Args:
        folder: an empty one.
        options: `push_folder`, whose newest version is taken, or None for one over a random catalogue of `items`.
        context: of the process.
    """
    with ProcessPoolExecutor(1, context) as pool:
        made = (
            pool.submit(take, folder, options.push_folder)
            if options.push_folder
            else pool.submit(push, folder, options.items)
        )
        return made.result()


def take(folder: Path, push_folder: Path) -> list[bytes]:
    """As `prepare`, in this process: asks for K items by the retriever's own warm-up requests of one query."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    from benchmarks import attacks
    from components.trainer.warmup import REQUESTS_FILE
    from ndr_client import served
    from ndr_client.manifests import Manifests

    newest = Manifests(push_folder).read()[-1]
    for part, place in newest.parts.items():
        shutil.copytree(place, folder / SOURCE / part)
    digests = {
        part: {name: {"size": size, "sha256": sha256} for name, (size, sha256) in files.items()}
        for part, files in newest.files.items()
    }
    (folder / SOURCE / "files.json").write_text(json.dumps(digests))
    attacks.push(folder / SOURCE, folder / PUSHED, 1)
    records = tf.data.TFRecordDataset(str(folder / SOURCE / served.RETRIEVER / REQUESTS_FILE)).as_numpy_iterator()
    requests = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    alone = [each for each in requests if each.inputs[served.K].tensor_shape.dim[0].size == 1]
    for request in alone:
        request.inputs[served.K].ClearField("tensor_content")
        request.inputs[served.K].int_val[:] = [K]
    return [each.SerializeToString() for each in alone if each.model_spec.signature_name == served.EXAMPLES_SIGNATURE]


def push(folder: Path, items: int) -> list[bytes]:
    """As `prepare`, in this process."""
    from benchmarks import attacks, served_model
    from components.pusher import files
    from components.pusher.files import Source
    from ndr_client import served
    from ndr_client.client import predict_request

    source = folder / SOURCE
    served_model.write(source, folder / "scratch", items, WIDTH)
    for tower in (served.QUERY_TOWER, served.ITEM_TOWER):  # nobody asks the item tower here
        shutil.copytree(folder / "scratch" / served.QUERY_TOWER, source / tower)
    digests = {part: files.digests(Source(str(source / part))) for part in served.MODELS}
    text = json.dumps({part: {name: each.model_dump() for name, each in of.items()} for part, of in digests.items()})
    (source / "files.json").write_text(text)
    attacks.push(source, folder / PUSHED, 1)
    generator = np.random.default_rng(0)
    made = []
    for user in range(QUERIES):
        history = generator.integers(0, items, served_model.HISTORY)
        example = served_model.example(user, history)
        inputs: dict[str, Any] = {served.EXAMPLES: [example], served.K: np.array([K], np.int32)}
        request = predict_request(served.RETRIEVER, served.EXAMPLES_SIGNATURE, inputs)
        made.append(request.SerializeToString())
    return made


def serve(folder: Path, batched: bool, control: Connection) -> None:
    """Run the server's process: send its ports, and end at any message."""
    from serving.server import EmbeddedServer, ServerSettings, prefer_requests

    settings = ServerSettings("127.0.0.1", 0, 0)
    prefer_requests()
    with EmbeddedServer(folder / PUSHED, settings if batched else replace(settings, max_batch_rows=None)) as server:
        while server.versions.live is None:
            time.sleep(0.05)
        control.send((server.port, server.rest_port))
        control.recv()


def load(port: int, requests: list[bytes], clients: int, seconds: float, control: Connection) -> None:
    """Run the clients' process: send the seconds of each answer, and the number of failures."""
    control.send(asyncio.run(_load(port, requests, clients, seconds)))


async def _load(port: int, requests: list[bytes], clients: int, seconds: float) -> tuple[list[float], int]:
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1)]  # or all channels would be one connection
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(min(clients, CHANNELS))]
    calls = [channel.unary_unary(METHOD) for channel in channels]
    latencies: list[float] = []
    failed = 0
    begin = time.perf_counter() + WARM_UP_SECONDS
    end = begin + seconds

    async def client(number: int) -> None:
        nonlocal failed
        sent = number
        while (now := time.perf_counter()) < end:
            try:
                answer = await calls[number % len(calls)](requests[sent % len(requests)], timeout=30)
                failed += not answer
            except grpc.RpcError:
                failed += 1
            if now >= begin:
                latencies.append(time.perf_counter() - now)
            sent += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    for channel in channels:
        await channel.close()
    return latencies, failed


def measure(folder: Path, requests: list[bytes], batched: bool, options: Any, context: SpawnContext) -> dict[int, Any]:
    """Measure each number of clients, all against one server."""
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(folder, batched, theirs))
    server.start()
    port, _ = ours.recv()
    figures = {}
    for clients in options.clients:
        told, tells = context.Pipe(duplex=False)
        process = context.Process(target=load, args=(port, requests, clients, options.seconds, tells))
        process.start()
        latencies, failed = told.recv()
        process.join()
        p50, p99, most = (1000 * float(np.quantile(latencies, share)) for share in (0.5, 0.99, 1.0))
        rate = len(latencies) / options.seconds
        figures[clients] = {"p50_ms": p50, "p99_ms": p99, "max_ms": most, "requests_per_second": rate, "failed": failed}
    ours.send("end")
    server.join()
    return figures


def measure_open(folder: Path, requests: list[bytes], options: Any, context: SpawnContext) -> dict[str, Any]:
    """Measure the open loop, against a separate server."""
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(folder, True, theirs))
    server.start()
    figures = open_loop.measure(folder / SOURCE, folder / PUSHED, server, ours.recv(), requests, options, context)
    ours.send("end")
    server.join()
    return figures


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--items", type=int, default=20_000)
    arguments.add_argument("--push-folder", type=Path, help="serves its newest version instead of a random catalogue")
    arguments.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    arguments.add_argument("--batched-only", action="store_true", help="leaves out the server without batching")
    arguments.add_argument("--rate", type=float, default=200.0, help="requests a second of the open loop")
    arguments.add_argument(
        "--open-seconds", type=float, default=60.0, help="of the open loop; 600 for the published figures"
    )
    arguments.add_argument("--pushes", type=int, default=20, help="during the open loop")
    arguments.add_argument("--no-attacks", dest="attacks", action="store_false", help="leaves the server in peace")
    options = arguments.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = prepare(folder, options, context)
        ways = (BATCHED,) if options.batched_only else (BATCHED, ALONE)
        figures = {way: measure(folder, requests, way == BATCHED, options, context) for way in ways}
        opened = measure_open(folder, requests, options, context)
    common.show(
        f"retriever over {options.items:,} items x {WIDTH}, first {K}",
        ["clients", "", "p50 ms", "p99 ms", "longest ms", "requests/s", "failed"],
        [
            [str(clients), way, *(f"{each[name]:.1f}" for name in ("p50_ms", "p99_ms", "max_ms")),
             f"{each['requests_per_second']:,.0f}", str(each["failed"])]
            for clients in options.clients
            for way in figures
            for each in [figures[way][clients]]
        ],
    )  # fmt: skip
    common.show(
        f"open loop, {options.rate:.0f} requests/s for {options.open_seconds:.0f} s, {options.pushes} pushes, "
        f"{opened['attacks']} attacks",
        ["", "value"],
        [
            [name, f"{opened[name]:.1f}"]
            for name in ("p50_ms", "p99_ms", "p999_ms", "max_ms", "failed", "rss_growth_mb")
        ],
    )
    most = max(options.clients)
    best = figures[BATCHED][most]
    headline = {
        f"p50_ms_{most}": best["p50_ms"],
        f"p99_ms_{most}": best["p99_ms"],
        f"requests_per_second_{most}": best["requests_per_second"],
        "failed": float(sum(each["failed"] for way in figures.values() for each in way.values()) + opened["failed"]),
        f"p99_ms_open_{options.rate:.0f}": opened["p99_ms"],
        "rss_growth_mb": opened["rss_growth_mb"],
    }
    settings = {
        "items": options.items, "width": WIDTH, "k": K, "seconds": options.seconds, "clients": options.clients,
        "rate": options.rate, "open_seconds": options.open_seconds, "pushes": options.pushes,
    }  # fmt: skip
    common.conclude(options.json, settings, {**figures, "open": opened}, headline)


if __name__ == "__main__":
    main()
