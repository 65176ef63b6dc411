"""Settings of Apache Beam: steps run on this machine, in one process or several, or on an engine behind a job server."""

import re
from typing import Literal, Self

from pydantic import PositiveInt, field_validator, model_validator

from schemas.declaration import Declaration
from schemas.located_yaml import FaultsError

LOCAL_RUNNER = "FnApiRunner"
JOB_SERVER_RUNNER = "PortableRunner"
JOB_SECONDS = 7 * 86_400


def _checked_address(address: str) -> str:
    if not re.fullmatch(r"[^\s/:]+:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}", address):
        raise ValueError(f"expected HOST:PORT, received {address!r}")
    return address


class WorkerSettings(Declaration):
    """The source of an engine's workers, the processes that run the code of the steps.

    Attributes:
        type: with `external`, a worker pool starts them; each machine of the engine has a pool. With `loopback`, the step's own
            process does the work: to try an engine on this machine.
        address: HOST:PORT of the `external` pool, as the engine's machines see it.
    """

    type: Literal["external", "loopback"] = "external"
    address: str = "localhost:50000"

    _address = field_validator("address")(_checked_address)


class JobServerSettings(Declaration):
    """An engine that speaks Beam's job API: Flink, Spark or Prism, behind its job server.

    Attributes:
        endpoint: HOST:PORT of the job server.
        artifact_endpoint: HOST:PORT that receives the packages that workers install; by default, the job server gives it.
        workers: the source of the engine's workers.
        parallelism: the number of tasks that share a transform's work on Flink; by default, Flink's own configuration decides.
    """

    endpoint: str
    artifact_endpoint: str | None = None
    workers: WorkerSettings = WorkerSettings()
    parallelism: PositiveInt | None = None

    @field_validator("endpoint", "artifact_endpoint")
    @classmethod
    def _addresses(cls, address: str | None) -> str | None:
        return address and _checked_address(address)

    @property
    def arguments(self) -> list[str]:
        """The pipeline options of Beam."""
        # Beam's default of five minutes also limits how long it watches a job, at least on Prism.
        arguments = [
            f"--runner={JOB_SERVER_RUNNER}",
            f"--job_endpoint={self.endpoint}",
            f"--job_server_timeout={JOB_SECONDS}",
        ]
        if self.artifact_endpoint:
            arguments.append(f"--artifact_endpoint={self.artifact_endpoint}")
        arguments.append(f"--environment_type={self.workers.type.upper()}")
        if self.workers.type == "external":
            arguments.append(f"--environment_config={self.workers.address}")
        if self.parallelism:
            arguments.append(f"--parallelism={self.parallelism}")
        # For workers that Beam's own image starts: it chooses the Keras that TFRS needs before what they unpickle uses TensorFlow.
        return [*arguments, "--beam_plugins=components"]


class RunnerSettings(Declaration):
    """What runs a step.

    Attributes:
        job_server: an engine; by default, steps run on this machine.
        workers: the number of processes on this machine; 1 is the step's own. Each further process imports TensorFlow first, and
            loads the models that it applies for itself.
        options: further pipeline options of Beam, such as `--setup_file=./setup.py`. They override the options made from the above.
    """

    job_server: JobServerSettings | None = None
    workers: PositiveInt = 1
    options: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _counts_workers_where_they_are(self) -> Self:
        if self.workers > 1 and self.job_server:
            raise FaultsError(
                [(("workers",), "counts the processes of this machine; an engine is given job_server.parallelism")]
            )
        return self

    @property
    def arguments(self) -> list[str]:
        """The pipeline options of Beam; the last of an option counts."""
        if self.job_server:
            arguments = self.job_server.arguments
        else:
            # Not Beam's own default, `DirectRunner`: it first fetches a program from GitHub in each step.
            mode = "in_memory" if self.workers == 1 else "multi_processing"
            arguments = [
                f"--runner={LOCAL_RUNNER}",
                f"--direct_num_workers={self.workers}",
                f"--direct_running_mode={mode}",
            ]
        # Without an option that names an image, TFX packs its own sources for the workers in every step. They have them.
        return [*arguments, "--sdk_container_image=none", *self.options]


class BeamSettings(RunnerSettings):
    """What runs every step that Beam runs.

    Attributes:
        steps: settings of single steps by their names, such as `Transform`. They replace all others: none is inherited.
    """

    steps: dict[str, RunnerSettings] = {}

    def of(self, step: str) -> RunnerSettings:
        """Return the settings of a step."""
        return self.steps.get(step, self)

    @property
    def engines(self) -> list[RunnerSettings]:
        """The distinct settings that have a job server."""
        engines = {
            tuple(settings.arguments): settings for settings in (self, *self.steps.values()) if settings.job_server
        }
        return list(engines.values())
