"""How Apache Beam runs the steps that it runs: on this machine, in one process or several, or elsewhere."""

from typing import Self

from pydantic import Field, PositiveInt, model_validator

from schemas.features import Declaration
from schemas.located_yaml import FaultsError

LOCAL_RUNNER = "FnApiRunner"


class RunnerSettings(Declaration):
    """A runner and what it is told.

    Attributes:
        runner: a name that Beam knows. `FnApiRunner` is this machine. It is not Beam's own default, `DirectRunner`: that one first
            fetches a program from GitHub in each step, and takes another runner where it gets it.
        workers: of `FnApiRunner`, how many processes; 1 is the step's own. Each further one imports TensorFlow first, and has the
            models that it applies to itself. Other runners have options for it.
        options: further pipeline options of Beam, such as `--setup_file=./setup.py`.
    """

    runner: str = Field(default=LOCAL_RUNNER, min_length=1)
    workers: PositiveInt = 1
    options: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _counts_workers_where_they_are(self) -> Self:
        if self.workers > 1 and self.runner != LOCAL_RUNNER:
            reason = f"counts the processes of {LOCAL_RUNNER}; give {self.runner}'s own option, such as --parallelism"
            raise FaultsError([(("workers",), reason)])
        return self

    @property
    def arguments(self) -> list[str]:
        """Beam's pipeline options; of one that is given twice the last counts."""
        made = [f"--runner={self.runner}"]
        if self.runner == LOCAL_RUNNER:
            mode = "in_memory" if self.workers == 1 else "multi_processing"
            # In every step TFX packs its own sources for workers elsewhere, unless an option says what these have. They have all.
            made += [
                f"--direct_num_workers={self.workers}",
                f"--direct_running_mode={mode}",
                "--sdk_container_image=none",
            ]
        return [*made, *self.options]


class BeamSettings(RunnerSettings):
    """The runner of every step that Beam runs.

    Attributes:
        steps: by the step's name, such as `Transform`, what holds for it instead; it takes nothing from the rest.
    """

    steps: dict[str, RunnerSettings] = {}

    def of(self, step: str) -> RunnerSettings:
        """What holds for a step."""
        return self.steps.get(step, self)
