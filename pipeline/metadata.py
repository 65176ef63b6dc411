"""What ML Metadata knows of the runs; TensorFlow and TFX are not imported."""

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.evaluator.names import BASELINE, CANDIDATE
from pipeline.store import Store
from schemas.errors import UserError

RUN_CONTEXT = "pipeline_run"
NODE_CONTEXT = "node"
LAST_NODE = "Pusher"
GIVEN_PREFIX = "given_"
PASSED_OVER = "passed over"
PASSED_OVER_FOR = "passed_over_for"
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
class Given:
    """What a run was given.

    Attributes:
        digest: of all that the steps are told, of their code, and of the data files' names, sizes and times.
        base_model: the id of the model that training went on from; 0 where it started anew.
        base_day: the UTC day of that model, ISO 8601; empty where training started anew.
        baseline_model: the id of the model that was to be beaten; 0 where there was none.
    """

    digest: str
    base_model: int
    base_day: str
    baseline_model: int


@dataclass(frozen=True)
class Run:
    """One run of the pipeline for one day.

    Attributes:
        run: the run's id.
        date: its UTC day, ISO 8601.
        state: `complete` when its last step is, `failed` when a step has, `passed over` when its day was done with the same
            input, else `unfinished`.
        version: the pushed version, or None.
        blessed: whether the model reached its limits, or None where it was not judged.
        withdrawn: whether a rollback took the model back since.
        metrics: by slice, the metrics of every scorer with their 95 % intervals; see `components.evaluator.evaluator.read_metrics`.
        pushed: the folder of each pushed part.
        servable: whether it answered, served, as it was trained, or None where it was not tried.
        refused: why nothing was pushed, a sentence a limit or a difference.
        not_judged: the slices that have limits and no interactions.
        index: what the index over the catalogue is.
        rows: the accounting of rows read and dropped.
        turnover: for each embedding table, what the day did to its vocabulary.
        given: what it was given; unknown of runs of older code that did not end.
        steps: its steps, in the order in which they ran; of several attempts at one the last.
    """

    run: str
    date: str
    state: str
    version: int | None = None
    blessed: bool | None = None
    withdrawn: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)
    pushed: dict[str, str] = field(default_factory=dict)
    servable: bool | None = None
    refused: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    index: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    turnover: dict[str, dict[str, float]] = field(default_factory=dict)
    given: Given | None = None
    steps: tuple[Step, ...] = ()

    @property
    def recall(self) -> dict[int, float]:
        """The model's recall@K by K, over all held-out interactions."""
        return self._recall(CANDIDATE)

    @property
    def baseline_recall(self) -> dict[int, float]:
        """By K, recall@K of the last blessed model before the day, on the same interactions and catalogue; empty without one."""
        return self._recall(BASELINE)

    def _recall(self, scorer: str) -> dict[int, float]:
        found = self.metrics.get("all", {}).get(scorer, {})
        cutoffs = {name.removeprefix("recall_at_"): value for name, (value, *_) in found.items()}
        return {int(k): value for k, value in cutoffs.items() if k.isdecimal()}


def new_run_id(day: date) -> str:
    """An id for a run that starts now: the day, and when it was started."""
    return f"{day.isoformat()}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


class Records:
    """Reads the runs.

    Args:
        config: where ML Metadata is.

    Raises:
        UserError: ML Metadata cannot be reached, or what is there is not it.
    """

    def __init__(self, config: mlmd.ConnectionConfig) -> None:
        self._store = Store(config)

    def runs(self) -> list[Run]:
        """Every run, oldest first."""
        contexts = self._store.get_contexts_by_type(RUN_CONTEXT)
        return [self._run(context) for context in sorted(contexts, key=lambda context: context.id)]

    def run(self, run_id: str) -> Run:
        """One run by its id.

        Raises:
            UserError: there is none.
        """
        return self._run(self._context(run_id))

    def last_complete(self, pipeline: str, day: date) -> Run | None:
        """The last run of a pipeline and day that is complete."""
        names = [
            context.name
            for context in sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
            if context.name.startswith(f"{day.isoformat()}.")
            and pipeline in {parent.name for parent in self._store.get_parent_contexts_by_context(context.id)}
        ]
        for name in reversed(names):
            run = self.run(name)
            if run.state == "complete":
                return run
        return None

    def is_removed(self, artifact: int) -> bool:
        """Whether retention has removed an artifact; 0 is none."""
        return any(found.state == mlmd.Artifact.DELETED for found in self._store.get_artifacts_by_id([artifact]))

    def note_given(self, run_id: str, given: Given) -> None:
        """Leaves on a run what it was given."""
        context = self._context(run_id)
        for name, value in asdict(given).items():
            kept = context.custom_properties[f"{GIVEN_PREFIX}{name}"]
            if isinstance(value, int):
                kept.int_value = value
            else:
                kept.string_value = value
        self._store.put_contexts([context])

    def note_passed_over(self, run_id: str, done_by: str) -> None:
        """Leaves on a run that its day was done with the same input, and by which run."""
        context = self._context(run_id)
        context.custom_properties[PASSED_OVER_FOR].string_value = done_by
        self._store.put_contexts([context])

    def attempts(self, run_id: str, node: str) -> list[mlmd.Execution]:
        """The executions of a node in a run, oldest first."""
        executions = self._store.get_executions_by_context(self._context(run_id).id)
        return sorted((each for each in executions if self._node(each.id) == node), key=lambda each: each.id)

    def mark(self, execution: mlmd.Execution, state: "mlmd.Execution.State") -> None:
        """Leaves on an execution what became of it."""
        execution.last_known_state = state
        self._store.put_executions([execution])

    def note_withdrawn(self, model: str, withdrawn: bool) -> bool:
        """Leaves on the blessings of a model whether a rollback took it back; none of them makes it one to go on from then.

        Only the Pusher is given a blessing, so no step's cache notices.

        Args:
            model: a folder of the Model artifact.
            withdrawn: False where it was brought back.

        Returns:
            Whether ML Metadata knows a blessing of it.
        """
        of_model = {
            artifact.id
            for artifact in self._store.get_artifacts_by_type("Model")
            if artifact.uri and Path(os.path.realpath(model)).is_relative_to(os.path.realpath(artifact.uri))
        }
        blessings = [
            blessing
            for blessing in self._store.get_artifacts_by_type("ModelBlessing")
            if _properties(blessing).get("current_model_id") in of_model
        ]
        for blessing in blessings:
            blessing.custom_properties["withdrawn"].int_value = int(withdrawn)
        if blessings:
            self._store.put_artifacts(blessings)
        return bool(blessings)

    def example_uris(self, run_id: str) -> dict[str, str]:
        """Where the examples of a run are: `interactions` and `catalogue`."""
        context = self._context(run_id)
        found = {}
        for _, artifact in self._artifacts(context):
            rows = _properties(artifact).get("rows")
            if rows:
                found[json.loads(rows)["kind"]] = artifact.uri
        return found

    def artifact_uris(self, run_id: str, artifact_type: str) -> list[str]:
        """Where the artifacts of a type are that a run made."""
        context = self._context(run_id)
        return [artifact.uri for kind, artifact in self._artifacts(context) if kind == artifact_type]

    def _context(self, run_id: str) -> mlmd.Context:
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        if context is None:
            raise UserError(f"ML Metadata knows no run {run_id}. `ndr runs` lists those that it knows.")
        return context

    def _artifacts(self, context: mlmd.Context) -> list[tuple[str, mlmd.Artifact]]:
        """What a run's steps made, or the cache served, with the name of each one's type; not what its resolvers found."""
        executions = [execution.id for execution in self._store.get_executions_by_context(context.id)]
        events = self._store.get_events_by_execution_ids(executions) if executions else []
        made = [event.artifact_id for event in events if event.type == mlmd.Event.OUTPUT]
        names = {kind.id: kind.name for kind in self._store.get_artifact_types()}
        return [(names[a.type_id], a) for a in self._store.get_artifacts_by_id(sorted(made))] if made else []

    def _run(self, context: mlmd.Context) -> Run:
        executions = sorted(self._store.get_executions_by_context(context.id), key=lambda execution: execution.id)
        last = {
            self._node(execution.id): STATES.get(execution.last_known_state, "unfinished") for execution in executions
        }
        steps = tuple(Step(node, state) for node, state in last.items())
        made = self._artifacts(context)
        artifacts = dict(made)
        pushed = _properties(artifacts.get("PushedModel"))
        version = int(pushed["pushed_version"]) if pushed.get("pushed") else None
        blessing = _properties(artifacts.get("ModelBlessing"))
        blessed = blessing.get("blessed")
        evaluation = _properties(artifacts.get("ModelEvaluation"))
        infra = _properties(artifacts.get("InfraBlessing"))
        accounting = [json.loads(p["rows"]) for p in (_properties(artifact) for _, artifact in made) if "rows" in p]
        return Run(
            run=context.name,
            date=context.name.partition(".")[0],
            state=PASSED_OVER if PASSED_OVER_FOR in context.custom_properties else _state(steps),
            version=version,
            blessed=None if blessed is None else bool(blessed),
            withdrawn=bool(blessing.get("withdrawn")),
            metrics=json.loads(evaluation.get("metrics", "{}")),
            pushed=json.loads(pushed.get("parts", "{}")) if version else {},
            refused=(*json.loads(evaluation.get("refused", "[]")), *json.loads(infra.get("refused", "[]"))),
            servable=None if infra.get("blessed") is None else bool(infra["blessed"]),
            not_judged=tuple(json.loads(evaluation.get("not_judged", "[]"))),
            index=json.loads(_properties(artifacts.get("ItemIndex")).get("index", "{}")),
            rows={each["kind"]: each for each in accounting},
            turnover=json.loads(_properties(artifacts.get("Analysis")).get("turnover", "{}")),
            given=_given(context),
            steps=steps,
        )

    def _node(self, execution: int) -> str:
        contexts = self._store.get_contexts_by_execution(execution)
        types = {context.type: context.name for context in contexts}
        return types[NODE_CONTEXT].rpartition(".")[2]


def _given(context: mlmd.Context) -> Given | None:
    values = {
        name.removeprefix(GIVEN_PREFIX): getattr(value, value.WhichOneof("value"))
        for name, value in context.custom_properties.items()
        if name.startswith(GIVEN_PREFIX)
    }
    return Given(**values) if values else None


def _state(steps: tuple[Step, ...]) -> str:
    if any(step.state == "failed" for step in steps):
        return "failed"
    done = {step.node for step in steps if step.state in ("complete", "cached")}
    return "complete" if LAST_NODE in done else "unfinished"


def _properties(artifact: mlmd.Artifact | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in artifact.custom_properties.items()}
