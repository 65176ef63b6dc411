"""Decides which steps share a pod. A pod for one step starts two pods: its own, and before it that of Kubeflow's driver.

Two rules, for any pipeline:

1. A step that reads no examples runs in the pod of the first step that needs it: resolvers, schemas, validators.
2. Consecutive steps with nothing beside them and the same machine share a pod.

A step named in `kubeflow.steps` counts as one that reads examples, so that it gets its own machine.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pod:
    """Steps that run one after the other in one process.

    Attributes:
        steps: in their order of execution.
        reading: the steps that the pod exists for; the others read no examples.
        behind: for each pod that must end before this one, the first of its `reading`; without pods implied by others.
    """

    steps: tuple[str, ...]
    reading: tuple[str, ...]
    behind: tuple[str, ...]


def share_pods(
    upstream: Mapping[str, Sequence[str]],
    reading: Collection[str],
    alone: Collection[str],
    machine_of: Callable[[str], object],
) -> list[Pod]:
    """Divide the steps of a pipeline among pods.

    Args:
        upstream: by step, the steps before it; in an order in which they can run. The last step comes after all others.
        reading: steps that read examples, including the last step.
        alone: steps that share their pod only with steps that read nothing.
        machine_of: returns the machine of a step in `reading`; steps with equal machines can share one.

    Returns:
        Pods in an order in which they can run. Each step is in exactly one.
    """
    position = {name: number for number, name in enumerate(upstream)}
    home: dict[str, str] = {}
    for name in reversed(list(upstream)):
        needed_by = [home[consumer] for consumer, behind in upstream.items() if name in behind]
        home[name] = name if name in reading else min(needed_by, key=position.__getitem__)
    behind = {
        owner: {home[predecessor] for name in upstream if home[name] == owner for predecessor in upstream[name]}
        - {owner}
        for owner in upstream
        if owner in reading
    }
    behind = _reduced(behind)
    merged: dict[str, str] = {}
    for name, before in behind.items():
        merged[name] = name
        if len(before) == 1:
            (last,) = before
            is_only = sum(last in others for others in behind.values()) == 1
            if is_only and not {name, last} & set(alone) and machine_of(name) == machine_of(last):
                merged[name] = merged[last]
    return [
        Pod(
            tuple(name for name in upstream if merged[home[name]] == first),
            tuple(name for name in behind if merged[name] == first),
            tuple(sorted({merged[predecessor] for predecessor in behind[first]})),
        )
        for first in behind
        if merged[first] == first
    ]


def _reduced(behind: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Reduce to the fewest edges with the same order: drop those that another predecessor implies."""
    before: dict[str, set[str]] = {}  # all predecessors
    for name, direct in behind.items():
        before[name] = direct.union(*(before[predecessor] for predecessor in direct))
    return {
        name: {predecessor for predecessor in direct if not any(predecessor in before[sibling] for sibling in direct)}
        for name, direct in behind.items()
    }
