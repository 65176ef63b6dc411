"""A worker pool of Beam's: the process that starts an engine's workers on a machine.

Beam's own pool differs in three points:

- It starts each worker as a new Python, which takes five processor seconds for its imports, in each pipeline of each step.
  Here workers are forks of a process that has imported what is not our code. Ours each worker imports itself, as it is on disk.
- Its workers take Keras 3 where what they unpickle first imports TensorFlow. Here they inherit the choice of this package.
- It knows workers by the numbers that their engine gives them. Two machines of an engine that share a pool, as two task managers
  of Flink on one machine may, give the same ones, and the end of one's worker is that of the other's. Here each ends its own:
  an engine asks for the start and the end of a worker by one connection.
"""

import argparse
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerProcess
from threading import Lock
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

IMPORTED = (
    "apache_beam.runners.worker.sdk_worker",
    "tensorflow",
    "tensorflow_data_validation",
    "tensorflow_model_analysis",
    "tensorflow_transform",
    "tfx.types",
    "faiss",
    "pandas",
    "pydantic",
)
PATIENCE_SECONDS = 10  # before a worker that was asked to end is killed
REQUESTS_AT_ONCE = 32
# The first two as in Beam's pool: an engine may ask whether the connection lives as often as it likes.
OPTIONS = [("grpc.http2.max_pings_without_data", 0), ("grpc.http2.max_ping_strikes", 0), ("grpc.so_reuseport", 0)]


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Starts and ends workers as an engine asks."""

    def __init__(self) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(list(IMPORTED))
        forkserver.ensure_running()  # so that the first worker need not wait for the imports
        self._lock = Lock()
        self._workers: dict[tuple[str, str], ForkServerProcess] = {}  # by the connection and the number

    def StartWorker(
        self, request: beam_fn_api_pb2.StartWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        """Start a worker, which calls the engine back."""
        engine, number = request.control_endpoint.url, request.worker_id
        worker = self._context.Process(target=work, args=(engine, number), daemon=True)
        try:
            worker.start()
        except (OSError, EOFError) as error:  # the latter where the process that forks has ended
            return beam_fn_api_pb2.StartWorkerResponse(error=f"no process could be started: {error}")
        logging.info("worker %s of %s is process %s", number, engine, worker.pid)
        with self._lock:
            running = {key: other for key, other in self._workers.items() if other.is_alive()}
            self._workers = {**running, (context.peer(), number): worker}
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(
        self, request: beam_fn_api_pb2.StopWorkerRequest, context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        """End a worker that was started by the same connection; one of another ends when its engine closes that to it."""
        with self._lock:
            worker = self._workers.pop((context.peer(), request.worker_id), None)
        if worker and worker.is_alive():
            worker.terminate()
            worker.join(PATIENCE_SECONDS)
            if worker.is_alive():
                logging.warning("process %s did not end when it was asked to, and is killed", worker.pid)
                worker.kill()
        return beam_fn_api_pb2.StopWorkerResponse()


def work(engine: str, number: str) -> None:
    """Do what an engine asks for, until it closes the connection; in a worker."""
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    SdkHarness(engine, worker_id=number, state_cache_size=0, data_buffer_time_limit_ms=-1).run()


def main() -> None:
    """Run the command line."""
    arguments = argparse.ArgumentParser(
        prog="python -m components.worker_pool",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--service_port", type=int, required=True, help="the port to listen at")
    port = arguments.parse_args().service_port
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    server = grpc.server(ThreadPoolExecutor(REQUESTS_AT_ONCE), options=OPTIONS)
    try:
        server.add_insecure_port(f"[::]:{port}")
    except RuntimeError:
        sys.exit(f"--service_port: expected a port that nothing listens at, received {port}.")
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(WorkerPool(), server)
    server.start()
    logging.info("listens at port %s", port)
    server.wait_for_termination()


def _end(*_: Any) -> None:
    """Leave, which ends the workers too."""
    sys.exit(0)


if __name__ == "__main__":
    main()
