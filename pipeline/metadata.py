"""What ML Metadata knows of the runs. All reads of it are here; TensorFlow and TFX are not imported."""

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from schemas.errors import UserError

RUN_CONTEXT = "pipeline_run"
NODE_CONTEXT = "node"
LAST_NODE = "Pusher"
STATES = {
    mlmd.Execution.COMPLETE: "complete",
    mlmd.Execution.CACHED: "cached",
    mlmd.Execution.FAILED: "failed",
    mlmd.Execution.CANCELED: "canceled",
}


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        node: the step's id.
        state: `complete`, `cached` (its outputs are those of an earlier run with the same input), `failed`, `canceled`
            or `unfinished`.
    """

    node: str
    state: str


@dataclass(frozen=True)
class Run:
    """One run of the pipeline for one day.

    Attributes:
        run: the run's id.
        date: its UTC day, ISO 8601.
        state: `complete` when its last step is, `failed` when a step has, else `unfinished`.
        version: the pushed version, or None.
        blessed: whether the model reached its limits, or None where it was not judged.
        metrics: the model's and the baselines' metrics over all held-out interactions.
        pushed: the folder of each pushed part.
        rows: the accounting of rows read and dropped.
        steps: its steps, in the order in which they ran.
    """

    run: str
    date: str
    state: str
    version: int | None = None
    blessed: bool | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    pushed: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()

    @property
    def recall(self) -> dict[int, float]:
        """The model's recall@K by K."""
        prefix = "recall_at_"
        return {int(n.removeprefix(prefix)): v for n, v in self.metrics.items() if n.startswith(prefix)}


def new_run_id(day: date) -> str:
    """An id for a run that starts now: the day, and when it was started."""
    return f"{day.isoformat()}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def connection(path: Path) -> mlmd.ConnectionConfig:
    """How ML Metadata in an SQLite file is reached; the file is made by the first to connect."""
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


class Records:
    """Reads the runs.

    Args:
        config: where ML Metadata is.

    Raises:
        UserError: what is there is not ML Metadata.
    """

    def __init__(self, config: mlmd.ConnectionConfig) -> None:
        try:
            self._store = metadata_store.MetadataStore(config)
        except (errors.StatusError, RuntimeError) as error:
            reason = str(error).removeprefix("Error when executing query: ").partition(" query: ")[0]
            raise UserError(
                f"{config.sqlite.filename_uri}: expected ML Metadata's SQLite file, found something else: {reason}. "
                "Move it away, or name another root: --set root=DIR."
            ) from error

    def runs(self) -> list[Run]:
        """Every run, oldest first."""
        contexts = self._store.get_contexts_by_type(RUN_CONTEXT)
        return [self._run(context) for context in sorted(contexts, key=lambda context: context.id)]

    def run(self, run_id: str) -> Run:
        """One run by its id."""
        return self._run(self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id))

    def example_uris(self, run_id: str) -> dict[str, str]:
        """Where the examples of a run are: `interactions` and `catalogue`."""
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        found = {}
        for artifact in self._store.get_artifacts_by_context(context.id):
            rows = _properties(artifact).get("rows")
            if rows:
                found[json.loads(rows)["kind"]] = artifact.uri
        return found

    def artifact_uris(self, run_id: str, artifact_type: str) -> list[str]:
        """Where the artifacts of a type are that a run made or used."""
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        return [artifact.uri for kind, artifact in self._artifacts(context) if kind == artifact_type]

    def _artifacts(self, context: mlmd.Context) -> list[tuple[str, mlmd.Artifact]]:
        """What a run made or used, with the name of each one's type."""
        names = {kind.id: kind.name for kind in self._store.get_artifact_types()}
        return [(names[artifact.type_id], artifact) for artifact in self._store.get_artifacts_by_context(context.id)]

    def _run(self, context: mlmd.Context) -> Run:
        executions = sorted(self._store.get_executions_by_context(context.id), key=lambda execution: execution.id)
        steps = tuple(
            Step(self._node(execution.id), STATES.get(execution.last_known_state, "unfinished"))
            for execution in executions
        )
        artifacts = dict(self._artifacts(context))
        pushed = _properties(artifacts.get("PushedModel"))
        version = int(pushed["pushed_version"]) if pushed.get("pushed") else None
        blessed = _properties(artifacts.get("ModelBlessing")).get("blessed")
        return Run(
            run=context.name,
            date=context.name.partition(".")[0],
            state=_state(steps),
            version=version,
            blessed=None if blessed is None else bool(blessed),
            metrics=json.loads(_properties(artifacts.get("ModelEvaluation")).get("metrics", "{}")),
            pushed=json.loads(pushed.get("parts", "{}")) if version else {},
            rows=self._rows(context),
            steps=steps,
        )

    def _rows(self, context: mlmd.Context) -> dict[str, Any]:
        """The row accounting of each kind of examples."""
        found = {}
        for artifact in self._store.get_artifacts_by_context(context.id):
            rows = _properties(artifact).get("rows")
            if rows:
                accounting = json.loads(rows)
                found[accounting["kind"]] = accounting
        return found

    def _node(self, execution: int) -> str:
        contexts = self._store.get_contexts_by_execution(execution)
        types = {context.type: context.name for context in contexts}
        return types[NODE_CONTEXT].rpartition(".")[2]


def _state(steps: tuple[Step, ...]) -> str:
    if any(step.state == "failed" for step in steps):
        return "failed"
    done = {step.node for step in steps if step.state in ("complete", "cached")}
    return "complete" if LAST_NODE in done else "unfinished"


def _properties(artifact: mlmd.Artifact | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in artifact.custom_properties.items()}
