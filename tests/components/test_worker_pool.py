"""The pool of workers, asked as an engine asks it."""

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from tests.engines import worker_pool
from tests.waiting import wait_for

Start = Callable[[str], psutil.Process]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def pool(log: Path) -> Iterator[beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub]:
    with worker_pool(log) as address, grpc.insecure_channel(address) as channel:
        yield beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)


@pytest.fixture
def start(pool: beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub, log: Path) -> Iterator[Start]:
    """Starts a worker by its number, for an engine that never says a word; gives its process."""
    with socket.create_server(("localhost", 0)) as engine:

        def started(number: str) -> psutil.Process:
            request = beam_fn_api_pb2.StartWorkerRequest(worker_id=number)
            request.control_endpoint.url = f"localhost:{engine.getsockname()[1]}"
            assert not pool.StartWorker(request).error
            return psutil.Process(int(re.findall(r"is process (\d+)", log.read_text())[-1]))

        yield started


def stop(pool: beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub, number: str) -> None:
    pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id=number))


def runs(worker: psutil.Process) -> bool:
    return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE


def test_a_worker_ends_when_its_engine_asks_for_it(
    pool: beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub, start: Start
) -> None:
    one, other = start("1-1"), start("2-1")
    stop(pool, "1-1")
    assert not runs(one) and runs(other)
    stop(pool, "1-1")  # once more
    stop(pool, "3-1")  # nobody's
    assert runs(other)


def test_the_end_of_a_worker_is_not_that_of_another_engines_of_the_same_number(
    pool: beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub, start: Start
) -> None:
    # Regression: two task managers of Flink both call their worker 1-1. When one had done its part, Beam's pool ended the other's
    # worker, and Flink waited three minutes for it.
    first, second = start("1-1"), start("1-1")
    stop(pool, "1-1")
    assert runs(first) and runs(second)
    os.kill(first.pid, signal.SIGTERM)  # as one ends whose engine closes the connection
    wait_for(lambda: not runs(first), "the end of a worker")
    stop(pool, "1-1")
    assert not runs(second)


def test_workers_end_with_their_pool(start: Start, log: Path) -> None:
    worker = start("1-1")
    parents = [parent for parent in worker.parents() if "components.worker_pool" in parent.cmdline()]
    parents[-1].terminate()
    wait_for(lambda: not runs(worker), "the end of a worker")
