"""Engines and a worker pool, as a cluster has them: processes of their own.

Prism is Beam's engine in Go. Flink and Spark are in the folders of their job servers' jars.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.waiting import PATIENCE

PROJECT = Path(__file__).resolve().parents[1]
PRISM = PROJECT / "var" / "engines" / "prism"
FLINK, SPARK = PROJECT / "var" / "engines" / "flink", PROJECT / "var" / "engines" / "spark"
JAVA_OPTIONS = PROJECT / "tools" / "engines" / "java.options"
MANAGERS, SLOTS = 2, 1  # of the cluster, and of each of them
CONFIGURATION = """
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc}
jobmanager.bind-host: localhost
jobmanager.memory.process.size: 1g
rest.address: localhost
rest.bind-address: localhost
rest.port: {rest}
taskmanager.host: localhost
taskmanager.bind-host: localhost
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: 1.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: 384m
taskmanager.memory.task.off-heap.size: 64m
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
"""
needs_prism = pytest.mark.skipif(not PRISM.exists(), reason="Prism is not here: `make prism` builds it, where Go is")
needs_flink = pytest.mark.skipif(
    not FLINK.exists(), reason="Flink is not here: `make flink` fetches it, where Maven is"
)
needs_spark = pytest.mark.skipif(
    not SPARK.exists(), reason="Spark is not here: `make spark` fetches it, where Maven is"
)


@contextmanager
def prism(log: Path) -> Iterator[str]:
    """A job server; gives HOST:PORT."""
    port = free_port()
    with _running([str(PRISM), f"-job_port={port}", "-serve_http=false"], port, log):
        yield f"localhost:{port}"


@contextmanager
def flink(log: Path) -> Iterator[str]:
    """A job server, with a Flink of its own for each pipeline; gives HOST:PORT."""
    with _job_server(FLINK, "flink.FlinkJobServerDriver", log, "--flink-master=[local]") as endpoint:
        yield endpoint


@contextmanager
def flink_cluster(log: Path) -> Iterator[str]:
    """A standalone Flink of two task managers, and its job server; gives HOST:PORT."""
    rpc, rest = free_port(), free_port()
    settings = log.parent / "flink"
    settings.mkdir()
    (settings / "flink-conf.yaml").write_text(CONFIGURATION.format(rpc=rpc, rest=rest, slots=SLOTS))
    runtime, arguments = "org.apache.flink.runtime", ["--configDir", str(settings)]
    master = _java(FLINK, f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint", *arguments)
    manager = _java(FLINK, f"{runtime}.taskexecutor.TaskManagerRunner", *arguments)
    with ExitStack() as cluster:
        cluster.enter_context(_running(master, rest, log.with_suffix(".master")))
        for number in range(MANAGERS):
            cluster.enter_context(_started(manager, log.with_suffix(f".manager-{number}")))
        until = time.monotonic() + PATIENCE
        while _slots(rest) < MANAGERS * SLOTS:
            if time.monotonic() > until:
                raise RuntimeError(f"the task managers did not come: {log.with_suffix('.manager-0').read_text()}")
            time.sleep(0.1)
        options = [f"--flink-master=localhost:{rest}", f"--flink-conf-dir={settings}"]
        yield cluster.enter_context(_job_server(FLINK, "flink.FlinkJobServerDriver", log, *options))


def _slots(rest: int) -> int:
    """The free slots of a Flink."""
    try:
        with urlopen(f"http://localhost:{rest}/overview", timeout=PATIENCE) as answer:
            return int(json.load(answer).get("slots-available", 0))
    except OSError:  # it listens before it knows itself
        return 0


@contextmanager
def spark(log: Path) -> Iterator[str]:
    """A job server, with a Spark of two threads in it; gives HOST:PORT."""
    with _job_server(SPARK, "spark.SparkJobServerDriver", log, "--spark-master-url=local[2]") as endpoint:
        yield endpoint


@contextmanager
def _job_server(jars: Path, driver: str, log: Path, *options: str) -> Iterator[str]:
    port = free_port()
    places = [f"--job-port={port}", "--artifact-port=0", "--expansion-port=-1", f"--artifacts-dir={log.parent}"]
    command = _java(jars, f"org.apache.beam.runners.{driver}", "--job-host=localhost", *places, *options)
    with _running(command, port, log):
        yield f"localhost:{port}"


def _java(jars: Path, entry: str, *arguments: str) -> list[str]:
    # As the first compiler leaves it, code is slower, but starts in less time.
    options = ["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    return ["java", f"@{JAVA_OPTIONS}", *options, "-cp", f"{jars}/*", entry, *arguments]


@contextmanager
def worker_pool(log: Path) -> Iterator[str]:
    """A pool that starts workers in this environment's Python; gives HOST:PORT."""
    with _pool("components.worker_pool", log, {}) as address:
        yield address


@contextmanager
def beams_own_pool(log: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """A pool that Beam's own module starts, which does not know our code."""
    # It starts workers by the name `python`.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with _pool("apache_beam.runners.worker.worker_pool_main", log, {"PATH": path, **(environment or {})}) as address:
        yield address


@contextmanager
def _pool(module: str, log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    port = free_port()
    with _running([sys.executable, "-m", module, f"--service_port={port}"], port, log, environment):
        yield f"localhost:{port}"


Engine = Callable[[Path], AbstractContextManager[str]]
ENGINES = [
    pytest.param(prism, marks=needs_prism),
    pytest.param(flink, marks=needs_flink),
    pytest.param(spark, marks=needs_spark),
]


def work_long(number: int, started: Path) -> None:
    """As a step's work in a worker, that takes long; writes the worker's process to a file once it has begun."""
    aside = Path(f"{started}.{number}")
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
    with _started(command, log, environment) as process:
        until = time.monotonic() + PATIENCE
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text()}")
            time.sleep(0.1)
        yield


@contextmanager
def _started(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended with all that it started."""
    # `components` sets it for the process that it is in, and a pool is started by itself.
    own = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=PROJECT, env={**own, **(environment or {})}, start_new_session=True
        )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("localhost", port)) == 0
