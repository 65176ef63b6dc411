"""What a job server and its workers are asked before a step is run there, and what comes of one that goes away."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import config as configuration
from pipeline.beam_settings import JobServerSettings, RunnerSettings, WorkerSettings
from pipeline.checks import doctor, job_server
from schemas.errors import PassingError, Status, UserError
from tests.engines import (
    ENGINES,
    MANAGERS,
    PROJECT,
    Engine,
    beams_own_pool,
    flink_cluster,
    free_port,
    needs_flink,
    work_long,
    worker_pool,
)

SHOP = PROJECT / "tests" / "end_to_end" / "shop" / "shop.yaml"


def engine(endpoint: str, pool: str = "") -> RunnerSettings:
    workers = WorkerSettings(address=pool) if pool else WorkerSettings(type="loopback")
    return RunnerSettings(job_server=JobServerSettings(endpoint=endpoint, workers=workers))


@pytest.fixture(scope="module", params=ENGINES)
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with request.param(tmp_path_factory.mktemp("engine") / "log") as found:
        yield found


def test_a_job_server_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_server, "ANSWER_SECONDS", 0.2)
    where = f"localhost:{free_port()}"
    with pytest.raises(PassingError, match=f"expected a job server at {where}, nothing answered"):
        job_server.check(engine(where))


def test_what_answers_must_be_a_job_server(tmp_path: Path) -> None:
    with (
        worker_pool(tmp_path / "log") as pool,
        pytest.raises(UserError, match=f"job service at {pool}, received UNIMPL"),
    ):
        job_server.check(engine(pool))


def test_words_of_flink_are_known_where_there_is_no_flink() -> None:
    # As Flink 1.19 gave them.
    assert job_server.LOST_WORKER.search("io.grpc.StatusRuntimeException: CANCELLED: client cancelled")
    assert job_server.LOST_WORKER.search(
        "JobMasterException: TaskManager with id localhost:46201-c9307a is no longer reachable."
    )
    assert job_server.NO_WORKER.search("java.net.ConnectException: finishConnect(..) failed: Connection refused")


def test_doctor_asks_the_job_server_and_its_workers(endpoint: str, tmp_path: Path) -> None:
    server = f"{{endpoint: '{endpoint}', workers: {{type: loopback}}}}"
    config = configuration.load(SHOP, [f"root={tmp_path}", f"beam.steps={{Transform: {{job_server: {server}}}}}"])
    (found,) = (finding for finding in doctor.examine(config) if finding.check == "job server")
    assert found.status == Status.DONE and found.found == f"{endpoint}: its workers (this process) have our code"


def test_workers_with_other_code_are_refused(endpoint: str, tmp_path: Path) -> None:
    for room in ("components", "ndr_client", "pipeline", "schemas", "serving"):
        shutil.copytree(PROJECT / room, tmp_path / "code" / room)
    (tmp_path / "code" / "components" / "kept.py").write_text("something = 'else'\n")
    environment = {"PYTHONPATH": str(tmp_path / "code"), "PYTHONSAFEPATH": "1"}
    with beams_own_pool(tmp_path / "log", environment) as pool, pytest.raises(UserError) as refused:
        job_server.check(engine(endpoint, pool))
    words = str(refused.value)
    ours, theirs = words.partition(" of the workers")[0], words.partition("received ")[2]
    assert ours == f"beam.job_server: expected {job_server.own_code()}"
    assert theirs.startswith(f"Python 3.{sys.version_info.minor}, Beam {beam.__version__}, code ")
    assert job_server.own_code() not in theirs


def test_workers_without_our_code_are_refused(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").touch()  # somebody else's
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    with (
        beams_own_pool(tmp_path / "log", environment) as pool,
        pytest.raises(UserError, match="which have no such code"),
    ):
        job_server.check(engine(endpoint, pool))


def test_workers_of_our_pool_use_the_keras_that_our_code_needs(endpoint: str, tmp_path: Path) -> None:
    # Regression: what TFMA sends imports TensorFlow first, which took Keras 3; and our code is refused with that.
    def keras(_: None) -> None:
        import tensorflow as tf

        if not (module := tf.keras.Model.__module__).startswith("tf_keras"):
            raise RuntimeError(module)

    with (
        worker_pool(tmp_path / "pool.log") as pool,
        beam.Pipeline(options=PipelineOptions(engine(endpoint, pool).arguments)) as pipeline,
    ):
        _ = pipeline | beam.Create([None]) | beam.Map(keras)


def test_workers_that_would_use_another_keras_are_refused(endpoint: str, tmp_path: Path) -> None:
    with beams_own_pool(tmp_path / "log") as pool, pytest.raises(UserError, match=r"python -m components\.worker_pool"):
        job_server.check(engine(endpoint, pool))


@pytest.mark.parametrize("server", ENGINES)
def test_a_pool_that_is_away_may_come_back(tmp_path: Path, server: Engine) -> None:
    pool = f"localhost:{free_port()}"
    with server(tmp_path / "log") as own, pytest.raises(PassingError, match=f"no worker from {pool}"):
        job_server.check(engine(own, pool))  # Prism 2.77 itself ends of it


def test_a_worker_that_is_killed_in_the_middle_may_be_tried_again(endpoint: str, tmp_path: Path) -> None:
    with worker_pool(tmp_path / "pool.log") as pool:
        _kill_in_the_middle(engine(endpoint, pool), tmp_path / "started", f"a worker of {endpoint} went away")


@pytest.mark.parametrize("server", ENGINES)
def test_a_job_server_that_is_killed_in_the_middle_may_be_tried_again(tmp_path: Path, server: Engine) -> None:
    with server(tmp_path / "log") as own:
        _kill_in_the_middle(engine(own), tmp_path / "started", f"{own} went away", _child(own.rpartition(":")[2]))


@needs_flink
def test_a_task_manager_that_is_killed_in_the_middle_may_be_tried_again(tmp_path: Path) -> None:
    with flink_cluster(tmp_path / "log") as own:
        server = JobServerSettings(endpoint=own, workers=WorkerSettings(type="loopback"), parallelism=MANAGERS)
        settings = RunnerSettings(job_server=server)
        _kill_in_the_middle(settings, tmp_path / "started", f"a worker of {own} went away", _child("TaskManagerRunner"))
        # What is left of the cluster does the same work.
        assert job_server.check(engine(own)) == f"{own}: its workers (this process) have our code"


def test_a_flink_that_is_too_small_is_told_what_to_change(endpoint: str) -> None:
    words = (
        "java.io.IOException: Insufficient number of network buffers: required 512, but only 508 available. The total"
    )
    with (
        pytest.raises(UserError, match=r"required 512, but only 508 available\)\. Raise Flink's taskmanager\.memory"),
        job_server.faults(engine(endpoint)),
    ):
        raise RuntimeError(f"Pipeline failed in state FAILED: {words}")  # as Flink 1.19 said it


def _child(word: str) -> int:
    """A process that this one started, and that has a word in its command."""
    return next(
        child.pid
        for child in psutil.Process().children()
        # A child of another test may have ended, and has no command any more.
        if child.status() != psutil.STATUS_ZOMBIE and word in " ".join(child.cmdline())
    )


def _kill_in_the_middle(settings: RunnerSettings, started: Path, words: str, process: int | None = None) -> None:
    killer = threading.Thread(target=_kill, args=(started, process))
    killer.start()
    with (
        pytest.raises(PassingError, match=words),
        job_server.faults(settings),
        beam.Pipeline(options=PipelineOptions(settings.arguments)) as pipeline,
    ):
        # So many that whoever is killed has some of them: an engine does not miss a machine that has done its part.
        _ = pipeline | beam.Create(range(30)) | beam.Reshuffle() | beam.Map(work_long, started)
    killer.join()


def _kill(started: Path, process: int | None) -> None:
    """Kills a process, by default the worker itself, once a worker is at work."""
    while not started.exists():
        time.sleep(0.05)
    os.kill(process or int(started.read_text()), signal.SIGKILL)
