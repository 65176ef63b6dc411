"""The pool of workers, asked as an engine asks it."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from tests.engines import worker_pool
from tests.waiting import PATIENCE, wait_for


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def address(log: Path) -> Iterator[str]:
    with worker_pool(log) as address:
        yield address


class Machine:
    """Of an engine: asks for workers by a connection of its own, and never says a word to them."""

    def __init__(self, pool: str, log: Path) -> None:
        self._channel = grpc.insecure_channel(pool, [("grpc.use_local_subchannel_pool", 1)])
        self._pool = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(self._channel)
        self._log = log
        self._engine = socket.create_server(("localhost", 0))

    def start(self, number: str) -> psutil.Process:
        """Gives the worker's process."""
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id=number)
        request.control_endpoint.url = f"localhost:{self._engine.getsockname()[1]}"
        assert not self._pool.StartWorker(request).error
        return psutil.Process(int(re.findall(r"is process (\d+)", self._log.read_text())[-1]))

    def stop(self, number: str) -> None:
        self._pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id=number))

    def close(self) -> None:
        self._channel.close()
        self._engine.close()


@pytest.fixture
def machines(address: str, log: Path) -> Iterator[list[Machine]]:
    machines = [Machine(address, log) for _ in range(2)]
    yield machines
    for machine in machines:
        machine.close()


def runs(worker: psutil.Process) -> bool:
    try:
        return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended in between
        return False


def test_a_worker_ends_when_its_engine_asks_for_it(machines: list[Machine]) -> None:
    machine, _ = machines
    one, other = machine.start("1-1"), machine.start("2-1")
    machine.stop("1-1")
    assert not runs(one) and runs(other)
    machine.stop("1-1")  # once more
    machine.stop("3-1")  # nobody's
    assert runs(other)


def test_the_end_of_a_worker_is_not_that_of_another_machines_of_the_same_number(machines: list[Machine]) -> None:
    # Regression: two task managers of Flink both call their worker 1-1. When one had done its part, Beam's pool ended the other's
    # worker, and Flink waited three minutes for it.
    first, second = (machine.start("1-1") for machine in machines)
    machines[0].stop("1-1")
    assert not runs(first) and runs(second)
    machines[0].stop("1-1")
    assert runs(second)
    machines[1].stop("1-1")
    assert not runs(second)


def test_workers_that_are_asked_for_at_once_are_all_ended(machines: list[Machine], log: Path) -> None:
    machine, _ = machines
    numbers = [f"{number}-1" for number in range(6)]
    with ThreadPoolExecutor(len(numbers)) as threads:
        list(threads.map(machine.start, numbers))
        workers = [psutil.Process(int(number)) for number in re.findall(r"is process (\d+)", log.read_text())]
        assert len(workers) == len(numbers) and all(map(runs, workers))
        list(threads.map(machine.stop, numbers))
    assert not any(map(runs, workers))


def test_a_port_that_is_taken_is_one_line(machines: list[Machine], address: str) -> None:
    command = [sys.executable, "-m", "components.worker_pool", f"--service_port={address.rpartition(':')[2]}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert told.returncode == 1 and told.stderr.splitlines()[-1].startswith(
        "--service_port: expected a port that nothing"
    )
    assert "Traceback" not in told.stderr


def test_workers_end_with_their_pool(machines: list[Machine]) -> None:
    worker = machines[0].start("1-1")
    parents = [parent for parent in worker.parents() if "components.worker_pool" in parent.cmdline()]
    parents[-1].terminate()
    wait_for(lambda: not runs(worker), "the end of a worker")
