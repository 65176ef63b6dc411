"""What the steps are given on Kubeflow: an image, machines, volumes, secrets, and another try."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from schemas.features import Declaration

Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+|m)?$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|K|M|G|T)?$")]


class Toleration(Declaration):
    """A taint of nodes that does not keep the step away; names and meaning are Kubernetes's."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Accelerators(Declaration):
    """Such as GPUs.

    Attributes:
        resource: what the cluster calls the kind, such as nvidia.com/gpu.
        count: how many.
    """

    resource: str
    count: PositiveInt = 1


class Machine(Declaration):
    """What one step is given.

    Attributes:
        cpu: cores, requested and the limit.
        memory: requested and the limit.
        accelerators: none by default.
        node_selector: labels that the node must have.
        tolerations: taints that the node may have.
        timeout_minutes: after these the step is ended, and tried again.
    """

    cpu: Cpu = "1"
    memory: Memory = "4Gi"
    accelerators: Accelerators | None = None
    node_selector: Mapping[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    timeout_minutes: PositiveInt = 120


class Retries(Declaration):
    """What is done where a step fails. Kubeflow does not ask why it did: a fault of the data is tried again, too.

    Attributes:
        count: so many times it is tried again.
        wait_seconds: before the first of them.
        factor: each wait is so many times the one before.
        longest_wait_seconds: at most.
    """

    count: NonNegativeInt = 3
    wait_seconds: PositiveInt = 30
    factor: float = Field(default=2.0, ge=1)
    longest_wait_seconds: PositiveInt = 600


class Volume(Declaration):
    """A volume for every step.

    Attributes:
        claim: the name of the PersistentVolumeClaim.
        at: the folder where the steps find it.
    """

    claim: str
    at: str = Field(pattern="^/")


class Secret(Declaration):
    """A secret for every step, as environment variables or as files.

    Attributes:
        name: the Secret's.
        env: by variable, the key whose value it gets.
        at: the folder in which there is a file for each key; instead of `env`.
    """

    name: str
    env: Mapping[str, str] = {}
    at: str | None = Field(default=None, pattern="^/")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.env) == bool(self.at):
            raise ValueError("expected one of env, a key for each variable, and at, a folder")
        return self


class KubeflowSettings(Declaration):
    """How the pipeline runs on Kubeflow.

    Attributes:
        image: holds this code, the configuration and its dataset, at the paths that `ndr kubeflow compile` is given.
        env: environment variables of every step.
        volumes: one of them holds the root, which all steps write to.
        secrets: such as the metadata server's password.
        retries: of every step.
        machine: of every step that `steps` does not name.
        steps: by the step's name; what one leaves out is as in `machine`.
    """

    image: str = Field(min_length=1)
    env: Mapping[str, str] = {}
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    retries: Retries = Retries()
    machine: Machine = Machine()
    steps: Mapping[str, Machine] = {}

    def machine_of(self, step: str) -> Machine:
        """What a step is given, its own settings over those of all."""
        own = self.steps.get(step, Machine())
        return self.machine.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
