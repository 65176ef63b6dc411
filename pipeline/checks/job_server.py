"""Checks that a job server and its workers can run a step, before the step writes anything."""

import platform
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipeline import digests
from pipeline.beam_settings import JobServerSettings, RunnerSettings
from schemas.errors import PassingError, UserError

ANSWER_SECONDS = 10
WORKER_SECONDS = 300  # a worker imports Beam first, and an engine may have to make room
OTHER_CODE = "ndr: this worker has "
OTHER_KERAS = "ndr: this worker was started without TF_USE_LEGACY_KERAS"
NO_CODE = re.compile(r"No module named '(pipeline|components|schemas)\b|cannot import name 'job_server'")
# In Prism's words, in those that Flink and Spark have from Beam, and in Flink's own for a task manager.
LOST_WORKER = re.compile(
    r"SDK worker disconnected|StatusRuntimeException: CANCELLED|TaskManager with id \S+ (is no longer reachable|timed out)"
    r"|remote task manager|Lost connection to task manager"
)
NO_WORKER = re.compile(r"didn't get control connection|java\.net\.ConnectException|NoResourceAvailableException")
# In Flink's words.
NO_BUFFERS = re.compile(r"Insufficient number of network buffers: required \d+, but only \d+ available")

MESSAGES_THREAD = "wait_until_finish_read"
_report = threading.excepthook


def _report_all_but_messages(fault: threading.ExceptHookArgs) -> None:
    """Omit the traceback of the thread in which Beam reads a job's messages: the main thread raises the same error."""
    if fault.thread is None or fault.thread.name != MESSAGES_THREAD:
        _report(fault)


threading.excepthook = _report_all_but_messages


def own_code() -> str:
    """Describe what two machines must have in common to run the same step."""
    python = ".".join(platform.python_version_tuple()[:2])
    return f"Python {python}, Beam {beam.__version__}, code {digests.code()}"


def check(settings: RunnerSettings) -> str:
    """Have a worker of the job server compare its code with ours, in a pipeline of one element.

    Args:
        settings: the settings of a step, with a job server.

    Returns:
        A sentence about what answered.

    Raises:
        schemas.errors.PassingError: the job server or its workers cannot be reached; a later try may succeed.
        schemas.errors.UserError: another service answers, the job server fails at the pipeline, or its workers have other code.
    """
    server = settings.job_server
    assert server is not None
    _ask(server)
    try:
        pipeline = beam.Pipeline(options=PipelineOptions(settings.arguments))
        _ = pipeline | beam.Create([own_code()]) | beam.Map(_question())
        result = pipeline.run()
        if result.wait_until_finish(duration=WORKER_SECONDS * 1000) != "DONE":
            result.cancel()
            raise PassingError(
                f"beam.job_server: no worker of {server.endpoint} took up one element within {WORKER_SECONDS} seconds. "
                f"See whether the engine has room, and workers at {_workers(server)}."
            )
    except (RuntimeError, grpc.RpcError) as error:
        _explain(server, error)
    return f"{server.endpoint}: its workers ({_workers(server)}) have our code"


@contextmanager
def faults(engine: RunnerSettings | None) -> Iterator[None]:
    """Turn the errors of a job server that went away before or during a step into a PassingError.

    Args:
        engine: the step's settings, if they have a job server.

    Raises:
        schemas.errors.PassingError: the job server or one of its workers went away.
        schemas.errors.UserError: the engine is too small for the step's parallelism.
    """
    if engine is None or engine.job_server is None:
        yield
        return
    _ask(engine.job_server)
    try:
        yield
    except (grpc.RpcError, grpc.FutureTimeoutError, RuntimeError) as error:
        words = str(error)
        _refuse_too_small(engine.job_server, words, error)
        if isinstance(error, RuntimeError) and not (LOST_WORKER.search(words) or NO_WORKER.search(words)):
            raise
        what = "a worker of " if isinstance(error, RuntimeError) else ""
        raise PassingError(
            f"beam.job_server: {what}{engine.job_server.endpoint} went away in the middle of a step. "
            "Nothing of the step counts: run the same again."
        ) from error


def _ask(server: JobServerSettings) -> None:
    """Check that a job server answers."""
    with grpc.insecure_channel(server.endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise PassingError(
                f"beam.job_server: expected a job server at {server.endpoint}, nothing answered within {ANSWER_SECONDS} seconds. "
                "Start it, or give the right beam.job_server.endpoint."
            ) from error
        try:
            service = beam_job_api_pb2_grpc.JobServiceStub(channel)
            service.DescribePipelineOptions(beam_job_api_pb2.DescribePipelineOptionsRequest(), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise UserError(
                f"beam.job_server: expected Beam's job service at {server.endpoint}, received {error.code().name} "
                f"({error.details()}). Give the job server's own port in beam.job_server.endpoint."
            ) from error


def _question() -> Callable[[str], None]:
    """Make what fails in a worker whose code is another.

    A function made in another one travels whole. By its name alone, a worker without our code could not even load it, and Flink
    says no more of that than that it waited three minutes.
    """

    def refuse_other(expected: str) -> None:
        import os

        has_keras = "TF_USE_LEGACY_KERAS" in os.environ  # before our code sets it
        from pipeline.checks import job_server

        if (code := job_server.own_code()) != expected:
            raise RuntimeError(f"{job_server.OTHER_CODE}{code}.")
        if not has_keras:
            raise RuntimeError(job_server.OTHER_KERAS)

    return refuse_other


def _explain(server: JobServerSettings, error: Exception) -> NoReturn:
    words = str(error.details()) if isinstance(error, grpc.Call) else str(error)
    where = f"the workers of {server.endpoint} ({_workers(server)})"
    advice = "Give them the image, or the checkout, of the machine that starts the run."
    if match := re.search(OTHER_CODE + r"(Python \S+, Beam \S+, code \w+)", words):
        raise UserError(f"beam.job_server: expected {own_code()} of {where}, received {match[1]}. {advice}") from error
    if NO_CODE.search(words):
        raise UserError(
            f"beam.job_server: expected {own_code()} of {where}, which have no such code. {advice}"
        ) from error
    if OTHER_KERAS in words:
        raise UserError(
            f"beam.job_server: expected {where} to use Keras 2, received Keras 3: TensorFlow is imported before our code there. "
            "Start the pool by `python -m components.worker_pool`, or with TF_USE_LEGACY_KERAS=1 in its environment."
        ) from error
    _refuse_too_small(server, words, error)
    last = words.strip().splitlines()[-1] if words.strip() else "no reason"
    if isinstance(error, grpc.Call) or NO_WORKER.search(words):
        # Prism itself ends where no pool answers.
        raise PassingError(
            f"beam.job_server: {server.endpoint} got no worker from {_workers(server)}: {last}. "
            "Start the worker pool, with our packages, or give its address in beam.job_server.workers; "
            "if what did not answer is the engine behind the job server, start that."
        ) from error
    raise UserError(
        f"beam.job_server: {server.endpoint} failed at a pipeline of one element: {last}. "
        f"It should be of Beam {beam.__version__}, as the workers and we are."
    ) from error


def _refuse_too_small(server: JobServerSettings, words: str, error: Exception) -> None:
    if match := NO_BUFFERS.search(words):
        raise UserError(
            f"beam.job_server: the Flink of {server.endpoint} has not enough memory for what its task managers send each other "
            f"({match[0]}). Raise Flink's taskmanager.memory.network.max, or lower beam.job_server.parallelism."
        ) from error


def _workers(server: JobServerSettings) -> str:
    return server.workers.address if server.workers.type == "external" else "this process"
