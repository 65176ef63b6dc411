"""Which steps share a pod. A pod of its own costs a step the start of two: its own, and that of Kubeflow's driver before it.

Two rules, which hold for any pipeline:

1. A step that reads no examples runs in the pod of the first step that needs it: resolvers, schemas, validators.
2. Steps that follow one another, with nothing beside them, and that are given the same machine, share a pod.

A step that `kubeflow.steps` names is taken for one that reads examples, so that it has the machine that it was given.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pod:
    """Steps that run one after the other in one process.

    Attributes:
        steps: in the order in which they run.
        reading: those of them that the pod is there for; the others read no examples.
        behind: the first of `reading` of each pod that this one comes behind; of pods that are behind one another, only the last.
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
    """Divides the steps of a pipeline among pods.

    Args:
        upstream: by step, those that it comes behind; in an order in which they can run. The last step comes behind all others.
        reading: steps that read examples; the last step is among them.
        alone: steps that share their pod only with steps that read nothing.
        machine_of: tells of a step in `reading` which machine it is given; steps of equal ones can share it.

    Returns:
        Pods in an order in which they can run. Each step is in one.
    """
    position = {name: number for number, name in enumerate(upstream)}
    home: dict[str, str] = {}
    for name in reversed(list(upstream)):
        needed_by = [home[other] for other, behind in upstream.items() if name in behind]
        home[name] = name if name in reading else min(needed_by, key=position.__getitem__)
    behind = {
        owner: {home[each] for name in upstream if home[name] == owner for each in upstream[name]} - {owner}
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
            tuple(sorted({merged[each] for each in behind[first]})),
        )
        for first in behind
        if merged[first] == first
    ]


def _reduced(behind: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same order with the fewest edges: what another predecessor comes behind already is left out."""
    before: dict[str, set[str]] = {}  # all that come before
    for name, direct in behind.items():
        before[name] = direct.union(*(before[each] for each in direct))
    return {
        name: {each for each in direct if not any(each in before[other] for other in direct)}
        for name, direct in behind.items()
    }
