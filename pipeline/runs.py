"""A run of the pipeline, as ML Metadata's contexts, executions and artifacts tell it; TensorFlow and TFX are not imported."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.evaluator.names import ALL, AS_NEW, BASELINE, BASELINES, CANDIDATE, CONTENT_NEIGHBOURS
from components.example_validator.lengths import HISTORIES_PROPERTY
from components.next_day.record import JUDGEMENT_PROPERTY, Judgement
from pipeline import executions
from pipeline.origin import Origin

LAST_NODE = "Pusher"
EARLIER_MODEL = "earlier_model"
PASSED_OVER = "passed over"
# The properties of a run's context.
GIVEN_PREFIX = "given_"
ORIGIN = "origin"
FAULT = "fault"
PASSED_OVER_FOR = "passed_over_for"
CLOSED = "closed"  # there, in place of a run: the day does not exist
AT_WORK = "at work"
LEAST_REDELIVERED = 0.95  # of the rows that a day had before


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
        base_counts: the id of the counts of an earlier day that were carried on; 0 where counting began anew.
        base_catalogue: the id of the catalogue of an earlier day that was carried on; 0 where it began anew, or lies in files.
        seen: of `pipeline.glance.seen`; empty of runs of older code. Two that differ in nothing else are equal.
    """

    digest: str
    base_model: int
    base_day: str
    baseline_model: int
    base_counts: int = 0
    base_catalogue: int = 0
    seen: str = field(default="", compare=False)


@dataclass(frozen=True)
class Run:
    """One run of the pipeline for one day.

    Attributes:
        run: the run's id.
        date: its UTC day, ISO 8601.
        state: `complete` when its last step is, `failed` when a step has, `passed over` when its day was done with the same
            input or does not exist, else `unfinished`; of these the newest is `at work` while a command holds the root.
        version: the pushed version, or None.
        blessed: whether the model reached its limits, or None where it was not judged.
        withdrawn: whether a rollback took the model back since.
        metrics: by slice, the metrics of every scorer with their 95 % intervals; see `components.evaluator.evaluator.read_metrics`.
        judgement: which model that was blessed before it the day judged; unknown of runs that did not come so far.
        next_day_metrics: the same of all interactions of the day, ranked by the model that was blessed before it (`candidate`), the
            one before that (`baseline`), and the baselines as they were known the evening before.
        pushed: the folder of each pushed part.
        servable: whether it answered, served, as it was trained, or None where it was not tried.
        refused: why nothing was pushed, a sentence a limit or a difference.
        not_judged: the slices that have limits and no interactions.
        index: what the index over the catalogue is.
        rows: the accounting of rows read and dropped.
        sources: for each of these, what the examples were read from: the `fingerprint` of all files, by name, size and time, the
            digest of the examples' `content`, and the `files` as
            `components.example_gen.sources.summary` has them.
        histories: how long histories are, as `components.example_validator.lengths` has it; empty where there are none.
        turnover: for each embedding table, what the day did to its vocabulary.
        given: what it was given; unknown of runs of older code that did not end.
        origin: the code and the configuration that it was made from; unknown of runs of older code.
        passed_over_for: the run that did its day before with the same input, CLOSED where the day does not exist, or empty.
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
    judgement: Judgement | None = None
    next_day_metrics: dict[str, Any] = field(default_factory=dict)
    pushed: dict[str, str] = field(default_factory=dict)
    servable: bool | None = None
    refused: tuple[str, ...] = ()
    not_judged: tuple[str, ...] = ()
    index: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    histories: dict[str, Any] = field(default_factory=dict)
    turnover: dict[str, dict[str, float]] = field(default_factory=dict)
    given: Given | None = None
    origin: Origin | None = None
    passed_over_for: str = ""
    fault: str = ""
    steps: tuple[Step, ...] = ()

    @property
    def recall(self) -> dict[int, float]:
        """The model's recall@K by K, over all held-out interactions."""
        return recalls(self.metrics, CANDIDATE)

    @property
    def waived(self) -> tuple[str, ...]:
        """A sentence for each K of a blessed model at which a baseline is ahead: `below_popularity: bless` waives that limit."""
        settings = self.origin.configuration.get("evaluator", {}) if self.origin else {}
        if not self.blessed or settings.get("below_popularity") != "bless":
            return ()
        found = []
        for k, own in self.recall.items():
            strongest = max(settings["beat"], key=lambda name: recalls(self.metrics, name).get(k, -1.0))
            value = recalls(self.metrics, strongest).get(k, -1.0)
            if value > own:
                name = strongest.replace("_", " ")
                found.append(
                    f"recall@{k} is {own:.4f}, that of {name} {value:.4f}: evaluator.below_popularity waived this limit."
                )
        return tuple(found)

    @property
    def baseline_recall(self) -> dict[int, float]:
        """By K, recall@K of the last blessed model before the day, on the same interactions and catalogue; empty without one."""
        return recalls(self.metrics, BASELINE)

    @property
    def next_day(self) -> dict[str, Any] | None:
        """How the model that was blessed before the day ranked it: each metric's value, and those of the other scorers by name.

        `model_day` is the day that it was last trained on, `intervals` the ends of the 95 % intervals. None where there was no
        model to judge; `next_day_reason` says why.
        """
        whole = self.next_day_metrics.get(ALL, {})
        if self.judgement is None or CANDIDATE not in whole:
            return None
        others = (BASELINE, *BASELINES, AS_NEW, CONTENT_NEIGHBOURS)
        return {
            "model": self.judgement.model,
            "model_day": _day(self.judgement.model_span),
            "interactions": self.judgement.interactions,
            "ranked": self.judgement.ranked,
            "not_in_catalogue": self.judgement.not_in_catalogue,
            **_values(whole[CANDIDATE]),
            "intervals": {name: [low, high] for name, (_, low, high) in whole[CANDIDATE].items()},
            **{EARLIER_MODEL if name == BASELINE else name: _values(whole[name]) for name in others if name in whole},
        }

    @property
    def next_day_reason(self) -> str:
        """Why there is no `next_day`; empty where there is."""
        if self.next_day is not None:
            return ""
        return self.judgement.reason if self.judgement else "the run did not come so far as to judge a model"

    @property
    def as_new(self) -> dict[str, Any] | None:
        """How the run's own model ranks items whose ids it is not shown, with content-only nearest neighbours beside it.

        None where the run's model was not judged by such items; `as_new_reason` says why.
        """
        whole = self.metrics.get(ALL, {})
        if AS_NEW not in whole:
            return None
        return {
            **_values(whole[AS_NEW]),
            "intervals": {name: [low, high] for name, (_, low, high) in whole[AS_NEW].items()},
            **{CONTENT_NEIGHBOURS: _values(whole.get(CONTENT_NEIGHBOURS, {}))},
        }

    @property
    def as_new_reason(self) -> str:
        """Why there is no `as_new`; empty where there is."""
        if self.as_new is not None:
            return ""
        if not self.metrics:
            return "the run did not come so far as to judge its model"
        return "no held-out interaction is with an item that was drawn as new"

    @property
    def next_day_recall(self) -> dict[int, float]:
        """By K, recall@K of all of the day by the model that was blessed before it; empty without one."""
        return recalls(self.next_day_metrics, CANDIDATE)


def recalls(metrics: Mapping[str, Any], scorer: str) -> dict[int, float]:
    """A scorer's recall@K by K, over all interactions; empty where it ranked none."""
    found = metrics.get(ALL, {}).get(scorer, {})
    cutoffs = {name.removeprefix("recall_at_"): value for name, (value, *_) in found.items()}
    return {int(k): value for k, value in cutoffs.items() if k.isdecimal()}


def at_work(runs: Sequence[Run], is_held: bool) -> list[Run]:
    """The same runs, oldest first; the newest, where it has not ended, is at work while the root is held."""
    if is_held and runs and runs[-1].state == "unfinished":
        return [*runs[:-1], replace(runs[-1], state=AT_WORK)]
    return list(runs)


def lost_rows(run: Run, before: Run | None) -> str:
    """A sentence where a day that was delivered again has markedly fewer rows than a run of it before read; else nothing."""
    if before is None or "interactions" not in run.rows or "interactions" not in before.rows:
        return ""
    now, then = (each.rows["interactions"]["rows_of_day"] for each in (run, before))
    if now >= LEAST_REDELIVERED * then:
        return ""
    return f"{run.date} has {now:,} rows now, and had {then:,} when run {before.run} read it: {1 - now / then:.0%} are gone."


def run_json(run: Run) -> dict[str, Any]:
    """A run as JSON takes it."""
    return {
        **asdict(run),
        "next_day": run.next_day,
        "next_day_reason": run.next_day_reason,
        "as_new": run.as_new,
        "as_new_reason": run.as_new_reason,
    }


def _values(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, (value, *_) in metrics.items()}


def _day(span: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=span)).isoformat()


def new_run_id(day: date) -> str:
    """An id for a run that starts now: the day, and when it was started."""
    return f"{day.isoformat()}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def read_run(
    context: mlmd.Context,
    attempts: Sequence[mlmd.Execution],
    nodes: dict[int, str],
    made: Sequence[tuple[str, mlmd.Artifact]],
) -> Run:
    """A run of what ML Metadata has of it.

    Args:
        context: the run's.
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
    pushed = properties(artifacts.get("PushedModel"))
    version = int(pushed["pushed_version"]) if pushed.get("pushed") else None
    blessing = properties(artifacts.get("ModelBlessing"))
    blessed = blessing.get("blessed")
    evaluation = properties(artifacts.get("ModelEvaluation"))
    infra = properties(artifacts.get("InfraBlessing"))
    next_day = properties(artifacts.get("NextDayJudgement"))
    examples = {
        json.loads(found["rows"])["kind"]: found
        for kind, artifact in made
        if kind == "Examples" and "rows" in (found := properties(artifact))
    }
    histories = [
        found[HISTORIES_PROPERTY] for _, artifact in made if HISTORIES_PROPERTY in (found := properties(artifact))
    ]
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
        judgement=Judgement.from_json(next_day[JUDGEMENT_PROPERTY]) if JUDGEMENT_PROPERTY in next_day else None,
        next_day_metrics=json.loads(next_day.get("metrics", "{}")),
        pushed=json.loads(pushed.get("parts", "{}")) if version else {},
        refused=(*json.loads(evaluation.get("refused", "[]")), *json.loads(infra.get("refused", "[]"))),
        servable=None if infra.get("blessed") is None else bool(infra["blessed"]),
        not_judged=tuple(json.loads(evaluation.get("not_judged", "[]"))),
        index=json.loads(properties(artifacts.get("ItemIndex")).get("index", "{}")),
        rows={kind: json.loads(found["rows"]) for kind, found in examples.items()},
        sources={
            kind: {
                "fingerprint": found.get("input_fingerprint", ""),
                "content": found.get("content", ""),
                "files": json.loads(found.get("input_files", "{}")),
            }
            for kind, found in examples.items()
        },
        histories=json.loads(histories[-1]) if histories else {},
        turnover=json.loads(properties(artifacts.get("Analysis")).get("turnover", "{}")),
        given=_given(context),
        origin=origin_of(context),
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


def origin_of(context: mlmd.Context) -> Origin | None:
    """The code and the configuration that a run was made from, where that was noted."""
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


def properties(artifact: mlmd.Artifact | None) -> dict[str, Any]:
    """The custom properties of an artifact, by name; none where there is no artifact."""
    if artifact is None:
        return {}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in artifact.custom_properties.items()}
