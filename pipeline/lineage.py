"""Which artifact came from which, by which step: ML Metadata as a graph. TensorFlow and TFX are not imported."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from google.protobuf.json_format import MessageToDict
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.executions import RUN_CONTEXT, instant, nodes_of, runs_of, seconds, state
from pipeline.store import Store
from schemas.errors import UserError

# Only these say what came from what: a resolver's are INTERNAL_OUTPUT, and what it found is an input of the step that asked.
KINDS: dict[int, Literal["input", "output"]] = {mlmd.Event.INPUT: "input", mlmd.Event.OUTPUT: "output"}


@dataclass(frozen=True)
class Artifact:
    """Something that a step made, or was to make.

    Attributes:
        id: its number among the artifacts of ML Metadata.
        type: such as `Model`.
        uri: where it is, or was.
        state: `live`; `deleted` once retention removed it; `pending` or `abandoned` where its step did not end.
        run: the id of the run that made it; empty where ML Metadata does not say.
        node: the id of the node that made it.
        made: when, ISO 8601 in UTC.
        properties: what the step left on it.
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
        state: as `pipeline.metadata.Step` has it.
        started: when, ISO 8601 in UTC.
        seconds: how long it took, from its first attempt on; None where it did not end.
        properties: what it was told.
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
    """That an execution used or made an artifact.

    Attributes:
        artifact: its id.
        execution: its id.
        kind: `input` where it was used, `output` where it was made, or served from the cache.
        name: as what: the name of the step's input or output.
    """

    artifact: int
    execution: int
    kind: Literal["input", "output"]
    name: str


@dataclass(frozen=True)
class Graph:
    """Artifacts, executions, and what joins them; by id each, oldest first."""

    artifacts: dict[int, Artifact]
    executions: dict[int, Execution]
    edges: tuple[Edge, ...]

    def inputs(self, execution: int) -> list[Edge]:
        """What an execution used."""
        return [edge for edge in self.edges if (edge.execution, edge.kind) == (execution, "input")]

    def outputs(self, execution: int) -> list[Edge]:
        """What an execution made, or the cache served in its place."""
        return [edge for edge in self.edges if (edge.execution, edge.kind) == (execution, "output")]

    def makers(self, artifact: int) -> list[Edge]:
        """What made an artifact, then those that the cache served it to."""
        return [edge for edge in self.edges if (edge.artifact, edge.kind) == (artifact, "output")]

    def users(self, artifact: int) -> list[Edge]:
        """What used an artifact."""
        return [edge for edge in self.edges if (edge.artifact, edge.kind) == (artifact, "input")]


class Lineage:
    """Reads graphs.

    Args:
        config: where ML Metadata is.

    Raises:
        UserError: ML Metadata cannot be reached, or what is there is not it.
    """

    def __init__(self, config: mlmd.ConnectionConfig) -> None:
        self._store = Store(config)
        self._types = {kind.id: kind.name for kind in self._store.get_artifact_types()}

    def of_run(self, run_id: str) -> Graph:
        """All that a run did; what it used of other runs is among the artifacts, who made that is not among the executions.

        Raises:
            UserError: there is no such run.
        """
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        if context is None:
            raise UserError(f"ML Metadata knows no run {run_id}. `ndr runs` lists those that it knows.")
        return self._graph(self._store.get_executions_by_context(context.id))

    def of_artifact(self, artifact: int, depth: int | None = None) -> Graph:
        """What an artifact came from, and what came of it.

        Args:
            artifact: its id.
            depth: so many steps up and down, of whatever run. Without it all steps of the artifact's own day; the nearest of other
                days are there too, but not what lies behind them: days go on from each other without end.

        Raises:
            UserError: there is no such artifact.
        """
        if not self._store.get_artifacts_by_id([artifact]):
            raise UserError(f"ML Metadata knows no artifact {artifact}. `ndr artifacts` lists those that it knows.")
        made_by = self._maker(artifact)
        day = self._days(made_by).get(made_by[0], "") if made_by else ""
        up = self._walk([artifact], "output", day, depth)
        down = self._walk([artifact], "input", day, depth)
        return self._graph(self._store.get_executions_by_id(sorted(up | down)), also=[artifact])

    def artifacts(self, kind: str | None = None, last: int | None = None) -> list[Artifact]:
        """Every artifact, oldest first.

        Args:
            kind: only those of this type.
            last: only the newest so many.

        Raises:
            UserError: there is no such type.
        """
        if kind is not None and kind not in self._types.values():
            raise UserError(f"expected one of the types of artifacts {self.types()}, received {kind!r}.")
        found = self._store.get_artifacts_by_type(kind) if kind else self._store.get_artifacts()
        newest = sorted(found, key=lambda artifact: artifact.id)[-last if last else None :]
        return list(self._described(newest).values())

    def types(self) -> str:
        """The types of artifacts, in words."""
        return ", ".join(sorted(self._types.values())) or "(none yet)"

    def _walk(self, start: Sequence[int], towards: Literal["input", "output"], day: str, depth: int | None) -> set[int]:
        """The executions that artifacts came from (`output`), or that they went into (`input`)."""
        found: set[int] = set()
        artifacts, seen = list(start), set(start)
        while artifacts and depth != 0:
            events = self._events(self._store.get_events_by_artifact_ids(artifacts), towards)
            if towards == "output":  # of those that made it and those that the cache served it to, the former
                first: dict[int, int] = {}
                for event in events:
                    first[event.artifact_id] = min(event.execution_id, first.get(event.artifact_id, event.execution_id))
                reached = set(first.values()) - found
            else:
                reached = {event.execution_id for event in events} - found
            found |= reached
            if depth is None:
                reached = {execution for execution, its in self._days(reached).items() if its == day}
            else:
                depth -= 1
            behind = self._events(
                self._store.get_events_by_execution_ids(sorted(reached)) if reached else [],
                "input" if towards == "output" else "output",
            )
            artifacts = sorted({event.artifact_id for event in behind} - seen)
            seen.update(artifacts)
        return found

    def _graph(self, executions: Iterable[mlmd.Execution], also: Iterable[int] = ()) -> Graph:
        by_id = {execution.id: execution for execution in sorted(executions, key=lambda each: each.id)}
        events = self._store.get_events_by_execution_ids(list(by_id)) if by_id else []
        edges = sorted(
            (
                Edge(event.artifact_id, event.execution_id, KINDS[event.type], event.path.steps[0].key)
                for event in events
                if event.type in KINDS
            ),
            key=lambda edge: (edge.execution, edge.kind, edge.name, edge.artifact),
        )
        touched = sorted({edge.artifact for edge in edges} | set(also))
        artifacts = self._store.get_artifacts_by_id(touched) if touched else []
        runs, nodes = runs_of(self._store, by_id), nodes_of(self._store, by_id)
        return Graph(
            self._described(sorted(artifacts, key=lambda artifact: artifact.id)),
            {
                id: Execution(
                    id=id,
                    node=nodes.get(id, ""),
                    run=runs.get(id, ""),
                    state=state(each),
                    started=instant(each.create_time_since_epoch),
                    seconds=seconds(each),
                    properties=properties(each.custom_properties),
                )
                for id, each in by_id.items()
            },
            tuple(edges),
        )

    def _described(self, artifacts: Sequence[mlmd.Artifact]) -> dict[int, Artifact]:
        ids = [artifact.id for artifact in artifacts]
        events = self._store.get_events_by_artifact_ids(ids) if ids else []
        makers: dict[int, int] = {}
        for event in self._events(events, "output"):
            # The cache serves what is there: the first execution is the one that made it.
            makers[event.artifact_id] = min(event.execution_id, makers.get(event.artifact_id, event.execution_id))
        executions = sorted(set(makers.values()))
        runs, nodes = runs_of(self._store, executions), nodes_of(self._store, executions)
        return {
            each.id: Artifact(
                id=each.id,
                type=self._types[each.type_id],
                uri=each.uri,
                state=mlmd.Artifact.State.Name(each.state).lower(),
                run=runs.get(makers.get(each.id, 0), ""),
                node=nodes.get(makers.get(each.id, 0), ""),
                made=instant(each.create_time_since_epoch),
                properties={**properties(each.properties), **properties(each.custom_properties)},
            )
            for each in artifacts
        }

    def _maker(self, artifact: int) -> list[int]:
        events = self._events(self._store.get_events_by_artifact_ids([artifact]), "output")
        return sorted(event.execution_id for event in events)[:1]

    def _days(self, executions: Iterable[int]) -> dict[int, str]:
        return {execution: run.partition(".")[0] for execution, run in runs_of(self._store, list(executions)).items()}

    @staticmethod
    def _events(events: Iterable[mlmd.Event], kind: Literal["input", "output"]) -> list[mlmd.Event]:
        return [event for event in events if KINDS.get(event.type) == kind]


def properties(values: Any) -> dict[str, Any]:
    """ML Metadata's properties as Python's values."""
    found = {}
    for name, value in values.items():
        kind = value.WhichOneof("value")
        if kind:
            held = getattr(value, kind)
            found[name] = MessageToDict(held) if kind in ("struct_value", "proto_value") else held
    return dict(sorted(found.items()))
