"""Engines and a worker pool, as a cluster has them: processes of their own.

Prism is Beam's engine in Go. Flink is in its job server's jar.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

PROJECT = Path(__file__).resolve().parents[1]
PRISM = PROJECT / "var" / "engines" / "prism"
FLINK = PROJECT / "var" / "engines" / "flink-job-server.jar"
needs_prism = pytest.mark.skipif(not PRISM.exists(), reason="Prism is not here: `make prism` builds it, where Go is")
needs_flink = pytest.mark.skipif(not FLINK.exists(), reason="Flink is not here: docs/engines.md says which jar of Beam")


@contextmanager
def prism(log: Path) -> Iterator[str]:
    """A job server; gives HOST:PORT."""
    port = free_port()
    with _running([str(PRISM), f"-job_port={port}", "-serve_http=false"], port, log):
        yield f"localhost:{port}"


@contextmanager
def flink(log: Path) -> Iterator[str]:
    """A job server, with a Flink of its own for each pipeline; gives HOST:PORT."""
    port = free_port()
    options = [f"--job-port={port}", "--artifact-port=0", "--expansion-port=-1", f"--artifacts-dir={log.parent}"]
    command = ["java", "-jar", str(FLINK), "--job-host=localhost", "--flink-master=[local]", *options]
    with _running(command, port, log):
        yield f"localhost:{port}"


@contextmanager
def worker_pool(log: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A pool that starts workers in this environment's Python; gives HOST:PORT."""
    port = free_port()
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    # The pool starts workers by the name `python`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with _running(command, port, log, {"PATH": path, **(environment or {})}):
        yield f"localhost:{port}"


Engine = Callable[[Path], AbstractContextManager[str]]
ENGINES = [pytest.param(prism, marks=needs_prism), pytest.param(flink, marks=needs_flink)]


def work_long(started: str) -> None:
    """As a step's work in a worker, that takes long; writes the worker's process to a file once it has begun."""
    aside = Path(f"{started}.aside")
    aside.write_text(str(os.getpid()))
    aside.rename(started)
    time.sleep(600)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], port: int, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A process that listens at a port, ended with all that it started."""
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=PROJECT, env={**os.environ, **(environment or {})}, start_new_session=True
        )  # fmt: skip
    try:
        until = time.monotonic() + PATIENCE
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("localhost", port)) == 0
