"""What the steps are given on Kubeflow: an image, machines, volumes, secrets, and retries."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from schemas.features import Declaration

Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+|m)?$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|K|M|G|T)?$")]


class Toleration(Declaration):
    """A taint of nodes that does not keep the step away; names and meaning are Kubernetes's.

    Attributes:
        key: the taint's.
        operator: whether the taint has to have a value (`Equal`) or only to be there.
        value: the taint's.
        effect: the taint's; None for all.
    """

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


class Affinity(Declaration):
    """Which nodes a step goes to, by one of their labels; names and meaning are Kubernetes's.

    Attributes:
        key: the label.
        operator: how its value is compared with `values`.
        values: none where the operator takes none.
        weight: 1 to 100 for nodes that are preferred; without it they are required.
    """

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: tuple[str, ...] = ()
    weight: Annotated[int, Field(ge=1, le=100)] | None = None


class Machine(Declaration):
    """What the pod of a step is given.

    Attributes:
        cpu: cores, requested and the limit.
        memory: requested and the limit.
        accelerators: none by default.
        node_selector: labels that the node must have.
        node_affinity: nodes that are required or preferred.
        tolerations: taints that the node may have.
        timeout_minutes: after these the pod is ended, and tried again; steps that share a pod have the sum of theirs.
    """

    cpu: Cpu = "1"
    memory: Memory = "4Gi"
    accelerators: Accelerators | None = None
    node_selector: Mapping[str, str] = {}
    node_affinity: tuple[Affinity, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    timeout_minutes: PositiveInt = 120


class Retries(Declaration):
    """What is done where a step fails. Kubeflow does not ask why it did: a fault of the data is tried again, too.

    Argo's own cap on a wait cannot be set through Kubeflow Pipelines. So waits that would grow beyond the longest are refused.

    Attributes:
        count: the number of retries.
        wait_seconds: before the first retry.
        factor: each wait is the one before times this; whole, as Argo reads no other number.
        longest_wait_seconds: the last wait may not be longer.
    """

    count: NonNegativeInt = 3
    wait_seconds: PositiveInt = 30
    factor: PositiveInt = 2
    longest_wait_seconds: PositiveInt = 600

    @model_validator(mode="after")
    def _capped(self) -> Self:
        last = self.wait_seconds * self.factor ** max(self.count - 1, 0)
        if last > self.longest_wait_seconds:
            raise ValueError(
                f"expected waits of at most longest_wait_seconds ({self.longest_wait_seconds}); wait_seconds {self.wait_seconds} "
                f"and factor {self.factor} make the last of {self.count} {last} s long. Lower one of them, or raise it"
            )
        return self


class Volume(Declaration):
    """A volume for every step.

    Attributes:
        claim: the name of the PersistentVolumeClaim.
        at: the folder where the steps find it.
    """

    claim: str
    at: str = Field(pattern="^/")


class EmptyDirectory(Declaration):
    """A directory of the pod's own, empty at its start: such as a larger /dev/shm, or room for Beam.

    Attributes:
        name: of the volume.
        at: the folder where the steps find it.
        medium: Memory for one that counts as the pod's memory; by default it is on the node's disk.
        size: its limit.
    """

    name: str
    at: str = Field(pattern="^/")
    medium: Literal["Memory"] | None = None
    size: Memory | None = None


class Keys(Declaration):
    """A Secret or a ConfigMap for every step, as environment variables or as files.

    Attributes:
        name: its name.
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


class User(Declaration):
    """Who the steps run as. Needs Kubeflow Pipelines 2.16; a default of the administrator's takes its place.

    Attributes:
        user: not root.
        group: not root's.
    """

    user: PositiveInt
    group: PositiveInt


class KubeflowSettings(Declaration):
    """How the pipeline runs on Kubeflow.

    Attributes:
        image: holds this code, the configuration and its dataset, at the paths that `ndr kubeflow compile` is given.
        image_pull_policy: when it is pulled; by default as Kubernetes does.
        image_pull_secrets: names of Secrets with which it is pulled.
        labels: of every step's pod.
        annotations: of every step's pod.
        env: environment variables of every step.
        volumes: one of them holds the root, which all steps write to.
        empty_directories: each pod's own.
        secrets: such as the metadata server's password.
        config_maps: such as certificates.
        run_as: by default the image's user.
        retries: of every step.
        machine: of every step that `steps` does not name.
        steps: by the step's name; what one leaves out is as in `machine`. A step that is named here has a pod of its own.
    """

    image: str = Field(min_length=1)
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    env: Mapping[str, str] = {}
    volumes: tuple[Volume, ...] = ()
    empty_directories: tuple[EmptyDirectory, ...] = ()
    secrets: tuple[Keys, ...] = ()
    config_maps: tuple[Keys, ...] = ()
    run_as: User | None = None
    retries: Retries = Retries()
    machine: Machine = Machine()
    steps: Mapping[str, Machine] = {}

    def machine_of(self, step: str) -> Machine:
        """What a step is given, its own settings over those of all."""
        own = self.steps.get(step, Machine())
        return self.machine.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
