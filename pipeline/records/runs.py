"""A run of the pipeline, read from ML Metadata's contexts, executions and artifacts. Does not import TensorFlow or TFX."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import recorded, utc
from components.evaluator.names import ALL, AS_NEW, BASELINE, BASELINES, CANDIDATE, CONTENT_NEIGHBOURS
from components.next_day.record import Judgement
from components.recorded import decoded
from pipeline.origin import Origin
from pipeline.records import executions
from pipeline.records.values import values, values_of

LAST_NODE = "Pusher"
EARLIER_MODEL = "earlier_model"
PASSED_OVER = "passed over"
# The properties of a run's context.
GIVEN_PREFIX = "given_"
ORIGIN = "origin"
FAULT = "fault"
PASSED_OVER_FOR = "passed_over_for"
CLOSED = "closed"  # in place of a run's id: the day has no data
UNCHANGED = "unchanged"  # the same: a refresh found the catalogue that is live
REFRESH = "refresh-"  # follows the day in the id of a refresh
AT_WORK = "at work"
LEAST_REDELIVERED = 0.95  # share of the rows that the day had before


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        node: the step's id.
        state: `complete`, `cached` (its outputs are those of an earlier run with the same input), `failed`, `canceled`
            or `unfinished`.
        started: its start time, ISO 8601 in UTC.
        seconds: its duration from its first attempt on; None if it did not end.
    """

    node: str
    state: str
    started: str
    seconds: float | None


@dataclass(frozen=True)
class Given:
    """The input of a run.

    Attributes:
        digest: a digest of all parameters of the steps, their code, and the data files' names, sizes and times.
        base_model: the id of the model that training continued from; 0 if it started from scratch.
        base_day: the UTC day of that model, ISO 8601; empty if training started from scratch.
        baseline_model: the id of the model to beat; 0 if there was none.
        base_counts: the id of an earlier day's counts that counting continued from; 0 if it started from zero.
        base_catalogue: the id of an earlier day's catalogue that this one continued from; 0 if it did not, or lies in files.
        refreshes: the version that a refresh works on, whose day is `base_day`; 0 for a day's run.
        seen: the digest of `pipeline.glance.seen`; empty for runs of older code. Not compared for equality.
    """

    digest: str
    base_model: int
    base_day: str
    baseline_model: int
    base_counts: int = 0
    base_catalogue: int = 0
    refreshes: int = 0
    seen: str = field(default="", compare=False)


@dataclass(frozen=True)
class Run:
    """One run of the pipeline for one day.

    Attributes:
        run: the run's id.
        date: its UTC day, ISO 8601.
        state: `complete` if its last step is, `failed` if a step failed, `passed over` if its day was done with the same input or
            is closed, else `unfinished`; the newest unfinished run is `at work` while a command holds the root.
        version: the pushed version, or None.
        blessed: whether the model met its limits; None if it was not evaluated.
        withdrawn: whether the model was rolled back since.
        metrics: by slice, the metrics of every scorer with 95 % intervals; see `components.evaluator.evaluation.read_metrics`.
        judgement: the model blessed before the day that the day evaluated; None if the run ended before that.
        next_day_metrics: as `metrics`, over all interactions of the day, ranked by the model blessed before it (`candidate`), the
            one blessed before that (`baseline`), and the baselines as they were on the evening before.
        pushed: the folder of each pushed component.
        servable: whether the served model answered like the trained one; None if this was not tried.
        refused: why nothing was pushed, a sentence for each limit or difference.
        not_judged: the slices that have limits but no interactions.
        index: the description of the index over the catalogue.
        changes: how a refresh's catalogue differs from that of the version that it works on, as in
            `components.refresh.changes.Changes`.
        rows: the accounting of rows read and dropped.
        sources: by kind of example, its source: the `fingerprint` of all files, by name, size and time, the digest of the examples'
            `content`, and the `files` as in
            `components.example_gen.sources.summary`.
        histories: the lengths of histories, as in `components.example_validator.lengths`; empty without histories.
        turnover: for each embedding table, how the day changed its vocabulary.
        given: the run's input; None for unfinished runs of older code.
        origin: the code and the configuration; None for runs of older code.
        passed_over_for: the run that did its day before with the same input, CLOSED if the day has no data, UNCHANGED for a
            refresh whose catalogue is the live one, or empty.
        fault: the fault that a step reported, if any; it may be fixed since.
        steps: its steps in order of execution; the last attempt of each.
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
    changes: dict[str, int] = field(default_factory=dict)
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
    def is_refresh(self) -> bool:
        """Whether it gave a version a newer catalogue; `date` is then the day whose catalogue that is."""
        return self.run.partition(".")[2].startswith(REFRESH)

    @property
    def recall(self) -> dict[int, float]:
        """The model's recall@K by K, over all held-out interactions."""
        return recalls(self.metrics, CANDIDATE)

    @property
    def waived(self) -> tuple[str, ...]:
        """A sentence for each K at which a baseline beats the blessed model: `below_popularity: bless` waives that limit."""
        settings = self.origin.configuration.get("evaluator", {}) if self.origin else {}
        if not self.blessed or settings.get("below_popularity") != "bless":
            return ()
        waivers = []
        for k, recall in self.recall.items():
            strongest = max(settings["beat"], key=lambda name: recalls(self.metrics, name).get(k, -1.0))
            value = recalls(self.metrics, strongest).get(k, -1.0)
            if value > recall:
                name = strongest.replace("_", " ")
                waivers.append(
                    f"recall@{k} is {recall:.4f}, that of {name} {value:.4f}: evaluator.below_popularity waived this limit."
                )
        return tuple(waivers)

    @property
    def baseline_recall(self) -> dict[int, float]:
        """recall@K by K of the last model blessed before the day, on the same interactions and catalogue; empty without one."""
        return recalls(self.metrics, BASELINE)

    @property
    def next_day(self) -> dict[str, Any] | None:
        """How the model blessed before the day ranked it: each metric's value, and those of the other scorers by name.

        `model_day` is the last day in its training data, `intervals` holds the ends of the 95 % intervals. None if there was no
        model to evaluate; `next_day_reason` says why.
        """
        whole = self.next_day_metrics.get(ALL, {})
        if self.judgement is None or CANDIDATE not in whole:
            return None
        others = (BASELINE, *BASELINES, AS_NEW, CONTENT_NEIGHBOURS)
        return {
            "model": self.judgement.model,
            "model_day": utc.day_of(self.judgement.model_span).isoformat(),
            "interactions": self.judgement.interactions,
            "ranked": self.judgement.ranked,
            "not_in_catalogue": self.judgement.not_in_catalogue,
            **_values(whole[CANDIDATE]),
            "intervals": {name: [low, high] for name, (_, low, high) in whole[CANDIDATE].items()},
            **{EARLIER_MODEL if name == BASELINE else name: _values(whole[name]) for name in others if name in whole},
        }

    @property
    def next_day_reason(self) -> str:
        """Why `next_day` is None; else empty."""
        if self.next_day is not None:
            return ""
        return self.judgement.reason if self.judgement else "the run ended before it evaluated a model"

    @property
    def as_new(self) -> dict[str, Any] | None:
        """How the run's own model ranks items with hidden ids, beside content-only nearest neighbours.

        None if this was not evaluated; `as_new_reason` says why.
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
        """Why `as_new` is None; else empty."""
        if self.as_new is not None:
            return ""
        if not self.metrics:
            return "the run ended before it evaluated its model"
        return "no held-out interaction has an item that was drawn as new"

    @property
    def next_day_recall(self) -> dict[int, float]:
        """recall@K by K of all of the day by the model blessed before it; empty without one."""
        return recalls(self.next_day_metrics, CANDIDATE)


def recalls(metrics: Mapping[str, Any], scorer: str) -> dict[int, float]:
    """Return a scorer's recall@K by K, over all interactions; empty if it ranked none."""
    figures = metrics.get(ALL, {}).get(scorer, {})
    cutoffs = {name.removeprefix("recall_at_"): value for name, (value, *_) in figures.items()}
    return {int(k): value for k, value in cutoffs.items() if k.isdecimal()}


def at_work(runs: Sequence[Run], is_held: bool) -> list[Run]:
    """Mark the newest of the runs, which are oldest first, as at work if it is unfinished and the root's lock is held."""
    if is_held and runs and runs[-1].state == "unfinished":
        return [*runs[:-1], replace(runs[-1], state=AT_WORK)]
    return list(runs)


def lost_rows(run: Run, before: Run | None) -> str:
    """Return a warning if a redelivered day has markedly fewer rows than an earlier run of it read; else an empty string."""
    if before is None or "interactions" not in run.rows or "interactions" not in before.rows:
        return ""
    now, then = (compared.rows["interactions"]["rows_of_day"] for compared in (run, before))
    if now >= LEAST_REDELIVERED * then:
        return ""
    return f"{run.date} has {now:,} rows now, but had {then:,} when run {before.run} read it: {1 - now / then:.0%} are gone."


def run_json(run: Run) -> dict[str, Any]:
    """Convert a run to JSON types."""
    return {
        **asdict(run),
        "next_day": run.next_day,
        "next_day_reason": run.next_day_reason,
        "as_new": run.as_new,
        "as_new_reason": run.as_new_reason,
    }


def _values(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, (value, *_) in metrics.items()}


def new_run_id(day: date, kind: str = "") -> str:
    """Make an id for a run that starts now: the day, and the start time.

    Args:
        day: the UTC day.
        kind: REFRESH, or empty for a day's run.
    """
    return f"{day.isoformat()}.{kind}{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def read_run(
    context: mlmd.Context,
    attempts: Sequence[mlmd.Execution],
    nodes: dict[int, str],
    outputs: Sequence[tuple[str, mlmd.Artifact]],
) -> Run:
    """Read a run from ML Metadata's objects.

    Args:
        context: the run's context.
        attempts: the executions of its steps, oldest first.
        nodes: the node of each attempt.
        outputs: its artifacts with the names of their types, oldest first.
    """
    last_attempts = {nodes[attempt.id]: attempt for attempt in attempts}
    steps = tuple(
        Step(node, executions.state(last), executions.instant(last.create_time_since_epoch), executions.seconds(last))
        for node, last in last_attempts.items()
    )
    last_made = {kind: values_of(artifact) for kind, artifact in outputs}
    pushed, blessing, evaluation, infra, next_day, index, changes, analysis = (
        last_made.get(kind, {})
        for kind in (
            "PushedModel", "ModelBlessing", "ModelEvaluation", "InfraBlessing", "NextDayJudgement", "ItemIndex", "CatalogueChanges",
            "Analysis",
        )
    )  # fmt: skip
    examples = {
        decoded(properties, recorded.ROWS)["kind"]: properties
        for kind, artifact in outputs
        if kind == "Examples" and recorded.ROWS in (properties := values_of(artifact))
    }
    histories = [properties for _, artifact in outputs if recorded.HISTORIES in (properties := values_of(artifact))]
    version = int(pushed[recorded.VERSION]) if pushed.get(recorded.PUSHED) else None
    judgement = decoded(next_day, recorded.JUDGEMENT)
    done_by = (
        context.custom_properties[PASSED_OVER_FOR].string_value if PASSED_OVER_FOR in context.custom_properties else ""
    )
    return Run(
        run=context.name,
        date=context.name.partition(".")[0],
        state=PASSED_OVER if done_by else _state(steps),
        version=version,
        blessed=_flag(blessing),
        withdrawn=bool(blessing.get(recorded.WITHDRAWN)),
        metrics=decoded(evaluation, recorded.METRICS),
        judgement=Judgement(**judgement) if judgement else None,
        next_day_metrics=decoded(next_day, recorded.METRICS),
        pushed=decoded(pushed, recorded.PARTS) if version else {},
        refused=(*decoded(evaluation, recorded.REFUSED), *decoded(infra, recorded.REFUSED)),
        servable=_flag(infra),
        not_judged=tuple(decoded(evaluation, recorded.NOT_JUDGED)),
        index=decoded(index, recorded.INDEX),
        changes=decoded(changes, recorded.CHANGES),
        rows={kind: decoded(properties, recorded.ROWS) for kind, properties in examples.items()},
        sources={
            kind: {
                "fingerprint": properties.get(recorded.FINGERPRINT, ""),
                "content": properties.get(recorded.CONTENT, ""),
                "files": decoded(properties, recorded.FILES),
            }
            for kind, properties in examples.items()
        },
        histories=decoded(histories[-1], recorded.HISTORIES) if histories else {},
        turnover=decoded(analysis, recorded.TURNOVER),
        given=_given(context),
        origin=origin_of(context),
        passed_over_for=done_by,
        fault=_text(context, FAULT),
        steps=steps,
    )


def _flag(blessing: Mapping[str, Any]) -> bool | None:
    """Return whether something was blessed; None if that was not decided."""
    value = blessing.get(recorded.BLESSED)
    return None if value is None else bool(value)


def _given(context: mlmd.Context) -> Given | None:
    fields: dict[str, Any] = {
        name.removeprefix(GIVEN_PREFIX): int(value) if isinstance(value, float) else value
        for name, value in values(context.custom_properties).items()
        if name.startswith(GIVEN_PREFIX)
    }
    return Given(**fields) if fields else None


def origin_of(context: mlmd.Context) -> Origin | None:
    """Return the code and the configuration of a run, if recorded."""
    text = _text(context, ORIGIN)
    return Origin(**json.loads(text)) if text else None


def _text(context: mlmd.Context, name: str) -> str:
    message = StringValue()
    if name in context.custom_properties:
        context.custom_properties[name].proto_value.Unpack(message)
    return str(message.value)


def _state(steps: tuple[Step, ...]) -> str:
    if any(step.state == "failed" for step in steps):
        return "failed"
    done = {step.node for step in steps if step.state in ("complete", "cached")}
    return "complete" if LAST_NODE in done else "unfinished"
