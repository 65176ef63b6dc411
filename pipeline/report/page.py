"""Renders the facts as one self-contained HTML file: no network, no other file."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.evaluator.names import ALL, CANDIDATE
from pipeline.config import Config
from pipeline.monitoring.skew_file import Skew
from pipeline.records import Artifact, Run
from pipeline.report import lineage_graph, trends
from pipeline.report.facts import Distance, Facts, Missing
from pipeline.report.outcome import outcome, reasons, verdict
from pipeline.tuning.file import Tuning
from pipeline.words import (
    SCORERS,
    chosen_cutoff,
    metric_words,
    oov_share,
    slice_order,
    strongest_baseline,
    with_interval,
)
from schemas.features import Embedded, FeatureSpec

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A figure of the newest day: its name, its value, and what to compare it with."""

    name: str
    value: str
    beside: str


@dataclass(frozen=True)
class Rows:
    """A table: the headings, and the cells of each row, of which the first names the row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render(facts: Facts, config: Config) -> str:
    """Render the page.

    The template escapes everything that came from data. Besides, the page's own policy lets no script run but ours, and lets
    nothing be fetched.
    """
    days, newest = facts.days, facts.days[-1]
    script, style = ((HERE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["missing"] = lambda value: isinstance(value, Missing)
    environment.globals.update(outcome=outcome, reasons=reasons, address=address, is_there=is_there)
    k = chosen_cutoff(trends.recall_cutoffs(days))
    judged = next((run for run in reversed(days) if run.recall), None)
    live = None if isinstance(facts.live, Missing) else facts.live
    return environment.get_template("page.html.jinja").render(
        style=Markup(style),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        facts=facts,
        verdict=verdict(newest, live),
        newest=newest,
        figures=figures(newest, facts, k),
        k=k,
        cutoffs=trends.recall_cutoffs(days),
        recalls={cutoff: trends.recall_chart(days, cutoff, config) for cutoff in trends.recall_cutoffs(days)},
        next_day={cutoff: trends.next_day_chart(days, cutoff) for cutoff in trends.recall_cutoffs(days)},
        aside=trends.aside_chart(days, k),
        statuses=trends.statuses(days),
        not_good=[run for run in days if not outcome(run).is_good],
        runs=runs_table(facts.runs, trends.recall_cutoffs(days)),
        slices=trends.slice_charts(days, k),
        judged=judged,
        slice_table=slice_table(judged, k) if judged else None,
        metric_table=metric_table(judged) if judged else None,
        volume=trends.volume_chart(days),
        dropped=trends.dropped_chart(days),
        admitted=trends.admitted_chart(days),
        oov=trends.oov_chart(days),
        tables=tables(config.feature_spec()),
        drift=trends.drift_chart(days, facts.drift),
        skew=facts.skew if isinstance(facts.skew, Missing) else skew_table(facts.skew),
        losses=trends.loss_chart(days, facts.losses),
        tuning=facts.tuning if isinstance(facts.tuning, Missing) else trends.tuning_chart(facts.tuning),
        tuning_table=None if isinstance(facts.tuning, Missing) else tuning_table(facts.tuning),
        frequencies={
            day: estimates if isinstance(estimates, Missing) else trends.frequency_chart(estimates)
            for day, estimates in facts.frequencies.items()
        },
        lineage=lineage_graph.draw(facts.graphs[newest.run]),
    )


def figures(run: Run, facts: Facts, k: int) -> list[Figure]:
    """Choose the key figures of the newest day; unknown ones are left out."""
    shown = []
    if k in run.next_day_recall:
        strongest = strongest_baseline(run, k)
        beside = _interval_words(run.next_day_metrics, k)
        beside += "" if strongest is None else f"; the strongest baseline {strongest:.3f}"
        shown.append(Figure(f"the next day's recall@{k}", f"{run.next_day_recall[k]:.3f}", beside.removeprefix("; ")))
    if k in run.recall:
        shown.append(Figure(f"held-out recall@{k}", f"{run.recall[k]:.3f}", _interval_words(run.metrics, k)))
    if k in run.recall and k in run.baseline_recall:
        change = run.recall[k] - run.baseline_recall[k]
        shown.append(Figure("against the last blessed", f"{change:+.3f}", f"which is at {run.baseline_recall[k]:.3f}"))
    if "interactions" in run.rows:
        rows = run.rows["interactions"]
        lost = sum(reason["rows"] for reason in rows["dropped"].values())
        filtered = sum(rows.get("filtered", {}).values())
        words = f"{rows['rows']:,} read, {f'{filtered:,} filtered, ' if filtered else ''}{lost:,} dropped"
        shown.append(Figure("rows of the day", f"{rows['rows_of_day']:,}", words))
    if run.histories:
        words = "; ".join(
            [f"of {run.histories['feature']}, at most {run.histories['last']}", *run.histories["cautions"]]
        )
        shown.append(Figure("items in a history", f"{run.histories['train']:.1f}", words))
    if run.turnover:
        admitted = sum(int(of_table["admitted"]) for of_table in run.turnover.values())
        shown.append(Figure("OOV share", f"{oov_share(run):.1%}", f"{admitted:,} ids admitted"))
    if furthest := _furthest(facts.drift.get(run.run)):
        feature, distance = furthest
        shown.append(Figure("furthest drift", f"{distance.value:.3f}", f"{feature}; {distance.limit:g} is allowed"))
    if run.index:
        shown.append(Figure("items in the index", f"{run.index['items']:,}", f"{run.index['kind']} search"))
    return shown


def _interval_words(metrics: Mapping[str, Any], k: int) -> str:
    _, low, high = metrics[ALL][CANDIDATE][f"recall_at_{k}"]
    return "" if low is None or high is None else f"95 % interval {low:.3f} to {high:.3f}"


def skew_table(skew: Skew) -> Rows:
    """Make a row for each query feature, the furthest first."""
    rows = tuple(
        (
            name,
            "" if feature.distance is None else f"{feature.distance:.4f}",
            "" if feature.limit is None else f"{feature.limit:g}{', beyond it' if feature.is_beyond else ''}",
            f"{feature.trained:.1%}",
            f"{feature.served:.1%}",
            feature.items_words,
        )
        for name, feature in skew.furthest_first()
    )
    return Rows(
        (
            "feature",
            "distance",
            "limit",
            "present in training",
            "present when served",
            "items in training, when served",
        ),
        rows,
    )


def tuning_table(tuning: Tuning) -> Rows:
    """Make a row for each trial, the best first."""
    rows = tuple(
        (
            str(trial.number),
            "" if trial.best is None else f"{trial.best:.4f}",
            str(len(trial.curve)),
            trial.state,
            trial.words,
        )
        for trial in tuning.best_first(trends.TRIALS_DRAWN)
    )
    return Rows(("trial", f"recall@{tuning.k}", "epochs", "outcome", "settings"), rows)


def _furthest(drift: dict[str, Distance] | Missing | None) -> tuple[str, Distance] | None:
    """Return the feature nearest to its limit, or furthest beyond it."""
    if not isinstance(drift, dict) or not drift:
        return None
    return max(drift.items(), key=lambda item: item[1].value / item[1].limit)


def runs_table(runs: Sequence[Run], cutoffs: Sequence[int]) -> list[tuple[Run, tuple[str, ...]]]:
    """Return each run with its cells, the newest first; recall beside that of the last blessed model."""

    def recall(run: Run, k: int) -> str:
        if k not in run.recall:
            return ""
        return (
            f"{run.recall[k]:.3f} ({run.baseline_recall[k]:.3f})"
            if k in run.baseline_recall
            else f"{run.recall[k]:.3f}"
        )

    return [
        (
            run,
            (
                str(run.version or ""),
                f"{run.rows['interactions']['rows_of_day']:,}" if "interactions" in run.rows else "",
                *(recall(run, k) for k in cutoffs),
                f"{sum(step.seconds or 0.0 for step in run.steps):,.0f}",
            ),
        )
        for run in reversed(runs)
    ]


def slice_table(run: Run, k: int) -> Rows:
    """Make a table of the recall@K of every scorer by slice."""
    scorers = {key: words for key, words in SCORERS.items() if key in run.metrics["all"]}
    rows = [
        (
            name,
            f"{run.metrics[name]['interactions']:,}",
            *(with_interval(run.metrics[name].get(key, {}).get(f"recall_at_{k}"), key) for key in scorers),
        )
        for name in ["all", *sorted(run.metrics.keys() - {"all"}, key=slice_order)]
    ]
    return Rows(("slice", "interactions", *scorers.values()), tuple(rows))


def metric_table(run: Run) -> Rows:
    """Make a table of every metric of every scorer over all held-out interactions."""
    whole = run.metrics["all"]
    scorers = {key: words for key, words in SCORERS.items() if key in whole}
    names = [name for name in whole[CANDIDATE] if "_over_" not in name]
    rows = [(metric_words(name), *(with_interval(whole[key].get(name), key) for key in scorers)) for name in names]
    return Rows(("metric", *scorers.values()), tuple(rows))


def tables(spec: FeatureSpec) -> dict[str, list[str]]:
    """Map each embedding table with a vocabulary to the features that share it."""
    return {
        table: [
            name
            for name, feature in {**spec.query_inputs, **spec.item}.items()
            if isinstance(feature, Embedded) and feature.table == table
        ]
        for table, settings in spec.tables.items()
        if settings.vocabulary
    }


def address(uri: str) -> str:
    """Return a link to an artifact; empty if a browser cannot follow it: one to an object store, or a script."""
    if uri.startswith("/"):
        return Path(uri).as_uri()
    return uri if uri.startswith(("http://", "https://")) else ""


def is_there(artifact: Artifact) -> bool:
    """Return whether an artifact exists; for one in an object store, only ML Metadata is asked."""
    return artifact.state == "live" and (not artifact.uri.startswith("/") or Path(artifact.uri).exists())
