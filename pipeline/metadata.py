"""What ML Metadata knows of the runs; TensorFlow and TFX are not imported."""

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.evaluator.names import BASELINE, CANDIDATE
from pipeline import executions
from pipeline.executions import RUN_CONTEXT
from pipeline.origin import Origin
from pipeline.store import Store
from schemas.errors import UserError

LAST_NODE = "Pusher"
GIVEN_PREFIX = "given_"
ORIGIN = "origin"
FAULT = "fault"
PASSED_OVER = "passed over"
PASSED_OVER_FOR = "passed_over_for"


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        node: the step's id.
        state: `complete`, `cached` (its outputs are those of an earlier run with the same input), `failed`, `canceled`
            or `unfinished`.
        started: when, ISO 8601 in UTC.
        seconds: how long it took, from its first attempt on; None where it did not end.
    """

    node: str
    state: str
    started: str
    seconds: float | None


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
        sources: for each of these, what the examples were read from: the `fingerprint` of all files, and the `files` as
            `components.example_gen.sources.summary` has them.
        turnover: for each embedding table, what the day did to its vocabulary.
        given: what it was given; unknown of runs of older code that did not end.
        origin: the code and the configuration that it was made from; unknown of runs of older code.
        passed_over_for: the run that did its day before with the same input, or empty.
        fault: what a step found fault with, where one did; it may have been mended since.
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
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    turnover: dict[str, dict[str, float]] = field(default_factory=dict)
    given: Given | None = None
    origin: Origin | None = None
    passed_over_for: str = ""
    fault: str = ""
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

    def runs(self, last: int | None = None) -> list[Run]:
        """Every run, oldest first.

        Args:
            last: only the newest so many, at least 1.
        """
        contexts = sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
        return self._read(contexts[-last:] if last else contexts)

    def run_ids(self) -> list[str]:
        """The id of every run, oldest first."""
        contexts = self._store.get_contexts_by_type(RUN_CONTEXT)
        return [context.name for context in sorted(contexts, key=lambda context: context.id)]

    def run(self, run_id: str) -> Run:
        """One run by its id.

        Raises:
            UserError: there is none.
        """
        return self._read([self._context(run_id)])[0]

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

    def note_origin(self, run_id: str, origin: Origin) -> None:
        """Leaves on a run the code and the configuration that it is made from. No step's cache looks at it."""
        self._note_text(run_id, ORIGIN, json.dumps(asdict(origin)))

    def note_fault(self, run_id: str, words: str) -> None:
        """Leaves on a run what a step found fault with."""
        self._note_text(run_id, FAULT, words)

    def note_passed_over(self, run_id: str, done_by: str) -> None:
        """Leaves on a run that its day was done with the same input, and by which run."""
        context = self._context(run_id)
        context.custom_properties[PASSED_OVER_FOR].string_value = done_by
        self._store.put_contexts([context])

    def _note_text(self, run_id: str, name: str, text: str) -> None:
        context = self._context(run_id)
        # Not as a string: PostgreSQL's index of these refuses long ones.
        context.custom_properties[name].proto_value.Pack(StringValue(value=text))
        self._store.put_contexts([context])

    def attempts(self, run_id: str, node: str) -> list[mlmd.Execution]:
        """The executions of a node in a run, oldest first."""
        found = self._store.get_executions_by_context(self._context(run_id).id)
        nodes = executions.nodes_of(self._store, [each.id for each in found])
        return sorted((each for each in found if nodes[each.id] == node), key=lambda each: each.id)

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
        found = {}
        for _, artifact in self._made_by_run(run_id):
            rows = _properties(artifact).get("rows")
            if rows:
                found[json.loads(rows)["kind"]] = artifact.uri
        return found

    def artifact_uris(self, run_id: str, artifact_type: str) -> list[str]:
        """Where the artifacts of a type are that a run made."""
        return [artifact.uri for kind, artifact in self._made_by_run(run_id) if kind == artifact_type]

    def _context(self, run_id: str) -> mlmd.Context:
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        if context is None:
            raise UserError(f"ML Metadata knows no run {run_id}. `ndr runs` lists those that it knows.")
        return context

    def _made_by_run(self, run_id: str) -> list[tuple[str, mlmd.Artifact]]:
        attempts = self._store.get_executions_by_context(self._context(run_id).id)
        return [each for made in self._made([attempt.id for attempt in attempts]).values() for each in made]

    def _made(self, ids: Collection[int]) -> dict[int, list[tuple[str, mlmd.Artifact]]]:
        """By execution, what it made, or the cache served, with the name of each one's type; not what a resolver found."""
        events = self._store.get_events_by_execution_ids(ids) if ids else []
        outputs = sorted((event.artifact_id, event.execution_id) for event in events if event.type == mlmd.Event.OUTPUT)
        found = self._store.get_artifacts_by_id(sorted({artifact for artifact, _ in outputs})) if outputs else []
        artifacts = {artifact.id: artifact for artifact in found}
        names = {kind.id: kind.name for kind in self._store.get_artifact_types()}
        made: dict[int, list[tuple[str, mlmd.Artifact]]] = {execution: [] for execution in ids}
        for artifact, execution in outputs:
            made[execution].append((names[artifacts[artifact].type_id], artifacts[artifact]))
        return made

    def _read(self, contexts: Sequence[mlmd.Context]) -> list[Run]:
        """The runs of contexts: all of one sort is asked for at once."""
        attempts = {context.id: self._store.get_executions_by_context(context.id) for context in contexts}
        ids = [each.id for found in attempts.values() for each in found]
        nodes = executions.nodes_of(self._store, ids)
        made = self._made(ids)
        return [
            _run(
                context,
                sorted(attempts[context.id], key=lambda execution: execution.id),
                nodes,
                sorted(
                    (each for attempt in attempts[context.id] for each in made[attempt.id]), key=lambda each: each[1].id
                ),
            )
            for context in contexts
        ]


def _run(
    context: mlmd.Context,
    attempts: Sequence[mlmd.Execution],
    nodes: dict[int, str],
    made: Sequence[tuple[str, mlmd.Artifact]],
) -> Run:
    """A run.

    Args:
        context: of the run.
        attempts: at its steps, oldest first.
        nodes: of each attempt.
        made: its artifacts with the names of their types, oldest first.
    """
    last = {nodes[attempt.id]: attempt for attempt in attempts}
    steps = tuple(
        Step(node, executions.state(each), executions.instant(each.create_time_since_epoch), executions.seconds(each))
        for node, each in last.items()
    )
    artifacts = dict(made)
    pushed = _properties(artifacts.get("PushedModel"))
    version = int(pushed["pushed_version"]) if pushed.get("pushed") else None
    blessing = _properties(artifacts.get("ModelBlessing"))
    blessed = blessing.get("blessed")
    evaluation = _properties(artifacts.get("ModelEvaluation"))
    infra = _properties(artifacts.get("InfraBlessing"))
    examples = {
        json.loads(found["rows"])["kind"]: found
        for kind, artifact in made
        if kind == "Examples" and "rows" in (found := _properties(artifact))
    }
    done_by = (
        context.custom_properties[PASSED_OVER_FOR].string_value if PASSED_OVER_FOR in context.custom_properties else ""
    )
    return Run(
        run=context.name,
        date=context.name.partition(".")[0],
        state=PASSED_OVER if done_by else _state(steps),
        version=version,
        blessed=None if blessed is None else bool(blessed),
        withdrawn=bool(blessing.get("withdrawn")),
        metrics=json.loads(evaluation.get("metrics", "{}")),
        pushed=json.loads(pushed.get("parts", "{}")) if version else {},
        refused=(*json.loads(evaluation.get("refused", "[]")), *json.loads(infra.get("refused", "[]"))),
        servable=None if infra.get("blessed") is None else bool(infra["blessed"]),
        not_judged=tuple(json.loads(evaluation.get("not_judged", "[]"))),
        index=json.loads(_properties(artifacts.get("ItemIndex")).get("index", "{}")),
        rows={kind: json.loads(found["rows"]) for kind, found in examples.items()},
        sources={
            kind: {
                "fingerprint": found.get("input_fingerprint", ""),
                "files": json.loads(found.get("input_files", "{}")),
            }
            for kind, found in examples.items()
        },
        turnover=json.loads(_properties(artifacts.get("Analysis")).get("turnover", "{}")),
        given=_given(context),
        origin=_origin(context),
        passed_over_for=done_by,
        fault=_text(context, FAULT),
        steps=steps,
    )


def _given(context: mlmd.Context) -> Given | None:
    values = {
        name.removeprefix(GIVEN_PREFIX): getattr(value, value.WhichOneof("value"))
        for name, value in context.custom_properties.items()
        if name.startswith(GIVEN_PREFIX)
    }
    return Given(**values) if values else None


def _origin(context: mlmd.Context) -> Origin | None:
    kept = _text(context, ORIGIN)
    return Origin(**json.loads(kept)) if kept else None


def _text(context: mlmd.Context, name: str) -> str:
    kept = StringValue()
    if name in context.custom_properties:
        context.custom_properties[name].proto_value.Unpack(kept)
    return str(kept.value)


def _state(steps: tuple[Step, ...]) -> str:
    if any(step.state == "failed" for step in steps):
        return "failed"
    done = {step.node for step in steps if step.state in ("complete", "cached")}
    return "complete" if LAST_NODE in done else "unfinished"


def _properties(artifact: mlmd.Artifact | None) -> dict[str, Any]:
    if artifact is None:
        return {}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in artifact.custom_properties.items()}
