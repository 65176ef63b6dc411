"""Reads ML Metadata as a graph: which artifact was made from which, by which step. Does not import TensorFlow or TFX."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Literal

from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.records.executions import RUN_CONTEXT, instant, nodes_of, runs_of, seconds, state
from pipeline.records.store import Store
from pipeline.records.values import values, values_of
from schemas.errors import UserError

Kind = Literal["input", "output"]

PUSHED = "PushedModel"
# Only these record lineage: a resolver's are INTERNAL_OUTPUT, and what it found is an input of the step that uses it.
KINDS: dict[int, Kind] = {mlmd.Event.INPUT: "input", mlmd.Event.OUTPUT: "output"}
OTHER: dict[Kind, Kind] = {"input": "output", "output": "input"}


@dataclass(frozen=True)
class Artifact:
    """Something that a step made, or was about to make.

    Attributes:
        id: its number among the artifacts of ML Metadata.
        type: such as `Model`.
        uri: where it is, or was.
        state: `live`; `deleted` once retention removed it; `pending` or `abandoned` if its step did not end.
        run: the id of the run that made it; empty if ML Metadata does not say.
        node: the id of the node that made it.
        made: its creation time, ISO 8601 in UTC.
        properties: the properties that the step set on it.
    """

    id: int
    type: str
    uri: str
    state: str
    run: str
    node: str
    made: str
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Execution:
    """One attempt at a step of a run.

    Attributes:
        id: its number among the executions of ML Metadata.
        node: the step's id.
        run: the run's id.
        state: as in `pipeline.records.runs.Step`.
        started: its start time, ISO 8601 in UTC.
        seconds: its duration from its first attempt on; None if it did not end.
        properties: the parameters it was given.
    """

    id: int
    node: str
    run: str
    state: str
    started: str
    seconds: float | None
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Edge:
    """Records that an execution used or made an artifact.

    Attributes:
        artifact: its id.
        execution: its id.
        kind: `input` if the artifact was used, `output` if it was made, or returned from the cache.
        name: the name of the step's input or output.
    """

    artifact: int
    execution: int
    kind: Kind
    name: str


@dataclass(frozen=True)
class Graph:
    """Artifacts and executions by id, oldest first, and the edges between them."""

    artifacts: dict[int, Artifact]
    executions: dict[int, Execution]
    edges: tuple[Edge, ...]

    def runs(self) -> set[str]:
        """Return the runs of the executions; a trial of `ndr tune` has none."""
        return {execution.run for execution in self.executions.values() if execution.run}

    def inputs(self, execution: int) -> list[Edge]:
        """Return the edges to the artifacts that an execution used."""
        return [edge for edge in self.edges if (edge.execution, edge.kind) == (execution, "input")]

    def outputs(self, execution: int) -> list[Edge]:
        """Return the edges to the artifacts that an execution made, or the cache returned instead."""
        return [edge for edge in self.edges if (edge.execution, edge.kind) == (execution, "output")]

    def makers(self, artifact: int) -> list[Edge]:
        """Return the edge of an artifact's maker, then those of executions that got it from the cache."""
        return [edge for edge in self.edges if (edge.artifact, edge.kind) == (artifact, "output")]

    def users(self, artifact: int) -> list[Edge]:
        """Return the edges of the executions that used an artifact."""
        return [edge for edge in self.edges if (edge.artifact, edge.kind) == (artifact, "input")]


class Lineage:
    """Reads lineage graphs.

    Args:
        config: the connection to ML Metadata.

    Raises:
        UserError: ML Metadata cannot be reached, or the place holds something else.
    """

    def __init__(self, config: mlmd.ConnectionConfig) -> None:
        self._store = Store(config)
        self._types = {kind.id: kind.name for kind in self._store.get_artifact_types()}

    def of_run(self, run_id: str) -> Graph:
        """Return everything that a run did. Includes the artifacts it used of other runs, but not their makers.

        Raises:
            UserError: there is no such run.
        """
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        if context is None:
            raise UserError(f"ML Metadata has no run {run_id}. `ndr runs` lists all runs.")
        return self._graph({execution.id for execution in self._store.get_executions_by_context(context.id)})

    def of_artifact(self, artifact: int, depth: int | None = None) -> Graph:
        """Return what an artifact was made from, and what was made from it.

        Args:
            artifact: its id.
            depth: the number of steps to follow up and down, across days. By default all steps of the artifact's own day, because
            days continue from each other without end; of other days, the artifacts that this day used and the executions that used
            this day's artifacts, but neither the makers of the former nor other inputs and outputs of the latter.

        Raises:
            UserError: there is no such artifact.
        """
        if not self.existing([artifact]):
            raise UserError(f"ML Metadata has no artifact {artifact}. `ndr artifacts` lists all artifacts.")
        made_by = self._maker(artifact)
        day = self._days(made_by).get(made_by[0], "") if made_by else ""
        up = self._walk(artifact, "output", day, depth)
        down = self._walk(artifact, "input", day, depth)
        return self._graph(up.followed | down.followed, down.elsewhere - up.followed, up.artifacts | down.artifacts)

    def artifacts(self, kind: str | None = None, last: int | None = None) -> list[Artifact]:
        """Return every artifact, oldest first.

        Args:
            kind: return only this type.
            last: return only the newest `last`.

        Raises:
            UserError: there is no such type.
        """
        if kind is not None and kind not in self._types.values():
            types = ", ".join(sorted(self._types.values())) or "there are none yet"
            raise UserError(f"expected a type of artifacts ({types}), received {kind!r}.")
        artifacts = self._store.get_artifacts_by_type(kind) if kind else self._store.get_artifacts()
        return self._describe(sorted(artifacts, key=lambda artifact: artifact.id)[-last if last else None :])

    def described(self, artifacts: Sequence[int]) -> list[Artifact]:
        """Return artifacts by their ids."""
        return self._describe(self._store.get_artifacts_by_id(artifacts)) if artifacts else []

    def existing(self, artifacts: Sequence[int]) -> list[int]:
        """Return those ids that are artifacts'."""
        largest = (1 << 63) - 1
        ids = [id_ for id_ in artifacts if id_ <= largest]
        return [artifact.id for artifact in self._store.get_artifacts_by_id(ids)] if ids else []

    def at(self, uri: str) -> list[int]:
        """Return the ids of the artifacts at a URI, oldest first."""
        return sorted(artifact.id for artifact in self._store.get_artifacts_by_uri(uri))

    def below(self, places: AbstractSet[str]) -> list[int]:
        """Return the ids of the artifacts in any of some folders, oldest first."""
        folders = tuple(f"{place.rstrip('/')}/" for place in places)
        return sorted(artifact.id for artifact in self._store.get_artifacts() if artifact.uri.startswith(folders))

    def pushes(self) -> dict[int, dict[str, Any]]:
        """Map the ids of the Pushers' artifacts, oldest first, to their properties."""
        pushes = self._store.get_artifacts_by_type(PUSHED) if PUSHED in self._types.values() else []
        return {push.id: values_of(push) for push in sorted(pushes, key=lambda artifact: artifact.id)}

    def _walk(self, artifact: int, towards: Kind, day: str, depth: int | None) -> "_Walked":
        """Follow the steps that an artifact was made by (`output`), or used by (`input`)."""
        walked = _Walked({artifact})
        artifacts = {artifact}
        while artifacts and depth != 0:
            events = _of_kind(self._store.get_events_by_artifact_ids(sorted(artifacts)), towards)
            reached = (
                set(_makers(events).values()) if towards == "output" else {e.execution_id for e in events}
            ) - walked.followed
            if depth is None:
                days = self._days(reached)
                walked.elsewhere |= {execution for execution in reached if days.get(execution, "") != day}
                reached -= walked.elsewhere
            else:
                depth -= 1
            walked.followed |= reached
            behind = self._store.get_events_by_execution_ids(sorted(reached)) if reached else []
            artifacts = {e.artifact_id for e in _of_kind(behind, OTHER[towards])} - walked.artifacts
            walked.artifacts |= artifacts
        return walked

    def _graph(
        self,
        followed: AbstractSet[int],
        elsewhere: AbstractSet[int] = frozenset(),
        artifacts: AbstractSet[int] = frozenset(),
    ) -> Graph:
        """Build a graph.

        Args:
            followed: executions, included with all their inputs and outputs.
            elsewhere: executions, included only with their inputs among `artifacts`.
            artifacts: artifacts included even if no execution used or made them.
        """
        ids = sorted(followed | elsewhere)
        events = self._store.get_events_by_execution_ids(ids) if ids else []
        edges = sorted(
            (
                Edge(
                    event.artifact_id,
                    event.execution_id,
                    KINDS[event.type],
                    event.path.steps[0].key if event.path.steps else "",
                )
                for event in events
                if event.type in KINDS
                and (
                    event.execution_id in followed
                    or (event.type == mlmd.Event.INPUT and event.artifact_id in artifacts)
                )
            ),
            key=lambda edge: (edge.execution, edge.kind, edge.name, edge.artifact),
        )
        touched = sorted({edge.artifact for edge in edges} | artifacts)
        executions = self._store.get_executions_by_id(ids) if ids else []
        runs, nodes = runs_of(self._store, ids), nodes_of(self._store, ids)
        return Graph(
            {artifact.id: artifact for artifact in self.described(touched)},
            {
                execution.id: Execution(
                    id=execution.id,
                    node=nodes.get(execution.id, ""),
                    run=runs.get(execution.id, ""),
                    state=state(execution),
                    started=instant(execution.create_time_since_epoch),
                    seconds=seconds(execution),
                    properties=values(execution.custom_properties),
                )
                for execution in sorted(executions, key=lambda execution: execution.id)
            },
            tuple(edges),
        )

    def _describe(self, artifacts: Iterable[mlmd.Artifact]) -> list[Artifact]:
        ordered = sorted(artifacts, key=lambda artifact: artifact.id)
        events = self._store.get_events_by_artifact_ids([artifact.id for artifact in ordered]) if ordered else []
        makers = _makers(_of_kind(events, "output"))
        executions = sorted(set(makers.values()))
        runs, nodes = runs_of(self._store, executions), nodes_of(self._store, executions)
        return [
            Artifact(
                id=artifact.id,
                type=self._types[artifact.type_id],
                uri=artifact.uri,
                state=mlmd.Artifact.State.Name(artifact.state).lower(),
                run=runs.get(makers.get(artifact.id, 0), ""),
                node=nodes.get(makers.get(artifact.id, 0), ""),
                made=instant(artifact.create_time_since_epoch),
                properties=values_of(artifact),
            )
            for artifact in ordered
        ]

    def _maker(self, artifact: int) -> list[int]:
        return list(_makers(_of_kind(self._store.get_events_by_artifact_ids([artifact]), "output")).values())

    def _days(self, executions: Iterable[int]) -> dict[int, str]:
        return {execution: run.partition(".")[0] for execution, run in runs_of(self._store, list(executions)).items()}


@dataclass
class _Walked:
    """The nodes that a walk visited.

    Attributes:
        artifacts: the artifacts visited.
        followed: executions that the walk continued through.
        elsewhere: executions where it stopped.
    """

    artifacts: set[int]
    followed: set[int] = field(default_factory=set)
    elsewhere: set[int] = field(default_factory=set)


def _of_kind(events: Iterable[mlmd.Event], kind: Kind) -> list[mlmd.Event]:
    return [event for event in events if KINDS.get(event.type) == kind]


def _makers(outputs: Iterable[mlmd.Event]) -> dict[int, int]:
    """Map each artifact to its maker: the first execution, because the cache returns only existing artifacts."""
    makers: dict[int, int] = {}
    for event in outputs:
        makers[event.artifact_id] = min(event.execution_id, makers.get(event.artifact_id, event.execution_id))
    return makers
