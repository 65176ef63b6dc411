"""Settings of the steps on Kubeflow: image, machines, volumes, secrets, and retries."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from schemas.declaration import Declaration

Cpu = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+|m)?$")]
Memory = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|K|M|G|T)?$")]


class Toleration(Declaration):
    """A taint of nodes that the step tolerates; names and meaning are Kubernetes's.

    Attributes:
        key: the taint's.
        operator: whether the taint must have a value (`Equal`) or only exist.
        value: the taint's.
        effect: the taint's; None for all.
    """

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Accelerators(Declaration):
    """Accelerators, such as GPUs.

    Attributes:
        resource: the cluster's name for the kind, such as nvidia.com/gpu.
        count: the number of accelerators.
    """

    resource: str
    count: PositiveInt = 1


class Affinity(Declaration):
    """Nodes that a step runs on, by one of their labels; names and meaning are Kubernetes's.

    Attributes:
        key: the label.
        operator: how its value is compared with `values`.
        values: empty if the operator takes none.
        weight: 1 to 100 for preferred nodes; without it they are required.
    """

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = "In"
    values: tuple[str, ...] = ()
    weight: Annotated[int, Field(ge=1, le=100)] | None = None


class Machine(Declaration):
    """The resources of a step's pod.

    Attributes:
        cpu: cores, as request and limit.
        memory: as request and limit.
        accelerators: none by default.
        node_selector: labels that the node must have.
        node_affinity: required or preferred nodes.
        tolerations: taints that the node may have.
        timeout_minutes: after this time the pod is ended and retried; steps that share a pod have the sum of theirs.
    """

    cpu: Cpu = "1"
    memory: Memory = "4Gi"
    accelerators: Accelerators | None = None
    node_selector: Mapping[str, str] = {}
    node_affinity: tuple[Affinity, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    timeout_minutes: PositiveInt = 120


class Retries(Declaration):
    """How often a failed step is retried. Kubeflow does not ask why it failed: a fault of the data is retried, too.

    Argo's own cap on a wait cannot be set through Kubeflow Pipelines. So longer waits are refused here.

    Attributes:
        count: the number of retries.
        wait_seconds: the wait before the first retry.
        factor: multiplies each further wait; a whole number, because Argo reads no other.
        longest_wait_seconds: the upper limit of the last wait.
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
                f"and factor {self.factor} make the last of {self.count} {last} s long. Lower one of them, or raise the limit"
            )
        return self


class Volume(Declaration):
    """A volume for every step.

    Attributes:
        claim: the name of the PersistentVolumeClaim.
        at: the mount path.
    """

    claim: str
    at: str = Field(pattern="^/")


class EmptyDirectory(Declaration):
    """An empty directory of the pod, for example a larger /dev/shm, or space for Beam.

    Attributes:
        name: the volume's name.
        at: the mount path.
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
        env: by variable, the key with its value.
        at: a folder with a file for each key; instead of `env`.
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
    """The user of the steps. Needs Kubeflow Pipelines 2.16; an administrator's default overrides it.

    Attributes:
        user: not 0 (root).
        group: not 0 (root).
    """

    user: PositiveInt
    group: PositiveInt


class KubeflowSettings(Declaration):
    """How the pipeline runs on Kubeflow.

    Attributes:
        image: holds this code, the configuration and its dataset, at the paths given to `ndr kubeflow compile`.
        image_pull_policy: when the image is pulled; by default as Kubernetes does.
        image_pull_secrets: names of the Secrets for the pull.
        labels: of every step's pod.
        annotations: of every step's pod.
        env: environment variables of every step.
        volumes: one of them holds the root, which all steps write to.
        empty_directories: of each pod.
        secrets: such as the metadata server's password.
        config_maps: such as certificates.
        run_as: by default the image's user.
        retries: of every step.
        machine: of every step that `steps` does not name.
        steps: by the step's name; omitted values are those of `machine`. A step named here has a pod of its own.
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
        """Return the machine of a step: its own settings over the common ones."""
        of_step = self.steps.get(step, Machine())
        return self.machine.model_copy(update={name: getattr(of_step, name) for name in of_step.model_fields_set})
