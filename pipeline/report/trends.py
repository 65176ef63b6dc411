"""Turns runs into charts over days: the content of each plot of the page."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

from components.evaluator.names import CANDIDATE, SLICES
from pipeline.config import Config
from pipeline.records import Run
from pipeline.report.charts import Chart, Value, bar_chart, column_place, line_chart, log_scatter
from pipeline.report.facts import Distance, Frequencies, Missing
from pipeline.report.outcome import Outcome, outcome, reasons
from pipeline.tuning.file import Tuning
from pipeline.words import ASIDE, NEXT_DAY_SCORERS, SCORERS

MOST_EMPTY_DAYS = 62
MOST_LINES = 6
TRIALS_DRAWN = 5
ALL = "all"


@dataclass(frozen=True)
class Status:
    """A day in the strip below a chart: `place` is that of its column, `outcome` is None for a day without a run."""

    place: float
    day: str
    run: str
    outcome: Outcome | None
    tip: str


def columns(days: Sequence[Run]) -> list[str]:
    """Return every day from the first to the last; only those with runs if too many days have none."""
    dates = [date.fromisoformat(run.date) for run in days]
    span = (dates[-1] - dates[0]).days + 1
    if span - len(dates) > MOST_EMPTY_DAYS:
        return [day.isoformat() for day in dates]
    return [(dates[0] + timedelta(days=number)).isoformat() for number in range(span)]


def statuses(days: Sequence[Run]) -> list[Status]:
    """Return the outcome of each day."""
    runs = {run.date: run for run in days}
    every = columns(days)
    marks = []
    for number, day in enumerate(every):
        run = runs.get(day)
        became = outcome(run) if run else None
        words = [f"{day}: {became.value if became else 'no run'}", *(reasons(run) if run else [])]
        marks.append(Status(column_place(number, len(every)), day, run.run if run else "", became, "\n".join(words)))
    return marks


def recall_cutoffs(days: Sequence[Run]) -> list[int]:
    """Return the K that recall was measured at."""
    return sorted({k for run in days for k in (*run.recall, *run.next_day_recall)})


def recall_chart(days: Sequence[Run], k: int, config: Config) -> Chart:
    """Draw recall@K of every scorer by day, with the 95 % intervals of the model and its lower limit."""
    metric = f"recall_at_{k}"
    series = {words: _by_day(days, partial(_recall, ALL, scorer, metric, words)) for scorer, words in SCORERS.items()}
    floors = [
        limit.at_least
        for limit in config.evaluator.limits
        if limit.metric == metric and not limit.slice and limit.at_least is not None
    ]
    limits = {f"at least {floor:g}": floor for floor in floors}
    label = f"recall@{k} by day: {', '.join(SCORERS.values())}"
    return line_chart(label, _short(days), _some(series), _recall_words, limits, most=1.0)


def next_day_chart(days: Sequence[Run], k: int) -> Chart | Missing:
    """Draw recall@K of all of each day by the model blessed before it, beside the baselines of the evening before."""
    metric = f"recall_at_{k}"
    series = _some(
        {
            words: _by_day(days, partial(_recall, ALL, scorer, metric, words, metrics=lambda run: run.next_day_metrics))
            for scorer, words in NEXT_DAY_SCORERS.items()
        }
    )
    if not series:
        return Missing("No model of an earlier day could be evaluated on these days.")
    label = f"recall@{k} of the next day, by day: {', '.join(series)}"
    return line_chart(label, _short(days), series, _recall_words, most=1.0)


def aside_chart(days: Sequence[Run], k: int) -> Chart | Missing:
    """Draw recall@K of items as if new, of similar items, and of towers of different versions, by day."""
    series = _some(
        {
            words: _by_day(days, partial(_recall, ALL, scorer, f"recall_at_{k}", words))
            for scorer, words in ASIDE.items()
        }
    )
    if not series:
        return Missing(
            "Neither items as if new, nor similar items, nor towers of different versions were ranked on these days."
        )
    return line_chart(f"recall@{k} by day: {', '.join(series)}", _short(days), series, _recall_words, most=1.0)


def slice_charts(days: Sequence[Run], k: int) -> dict[str, Chart]:
    """Draw the model's recall@K by day, a chart for each slicing, a line for each of its largest slices."""
    sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for run in days:
        for name, metrics in run.metrics.items():
            if name != ALL:
                of, _, value = name.partition("=")
                sizes[of][value] += metrics["interactions"]
    by_slice = {}
    for of in sorted(
        sizes, key=lambda feature: (list(SLICES).index(feature) if feature in SLICES else len(SLICES), feature)
    ):
        largest = sorted(sizes[of], key=lambda value: -sizes[of][value])[:MOST_LINES]
        order = [value for value in SLICES.get(of, sorted(largest)) if value in largest]
        series = {
            value: _by_day(days, partial(_recall, f"{of}={value}", CANDIDATE, f"recall_at_{k}", value))
            for value in order
        }
        by_slice[of] = line_chart(
            f"recall@{k} by day, by {of}: {', '.join(order)}", _short(days), series, _recall_words, most=1.0
        )
    return by_slice


def volume_chart(days: Sequence[Run]) -> Chart:
    """Draw the number of rows of each day."""

    def rows(run: Run) -> Value | None:
        if "interactions" not in run.rows:
            return None
        counts = run.rows["interactions"]
        return Value(
            counts["rows_of_day"], f"{run.date}: {counts['rows_of_day']:,} rows of the day; {counts['rows']:,} read"
        )

    return bar_chart("Interactions by day", _short(days), {"rows of the day": _by_day(days, rows)}, _count_words)


def dropped_chart(days: Sequence[Run]) -> Chart | Missing:
    """Draw the number of dropped or filtered rows, by reason."""
    why = sorted({reason for run in days for rows in run.rows.values() for reason in _left_out(rows)})
    if not why:
        return Missing("No row was dropped.")

    def dropped(reason: str, run: Run) -> Value | None:
        count = sum(_left_out(rows).get(reason, 0) for rows in run.rows.values())
        return Value(count, f"{run.date}: {count:,} rows left out: {reason}") if run.rows else None

    parts = {reason: _by_day(days, partial(dropped, reason)) for reason in why}
    return bar_chart("Dropped rows by day", _short(days), parts, _count_words)


def _left_out(rows: Mapping[str, Any]) -> dict[str, int]:
    filtered = {f"filtered, {reason}": count for reason, count in rows.get("filtered", {}).items()}
    return filtered | {reason: lost["rows"] for reason, lost in rows["dropped"].items()}


def oov_chart(days: Sequence[Run]) -> Chart | Missing:
    """Draw the share of the examples' ids that are outside the vocabulary, by embedding table."""

    def share(table: str, run: Run) -> Value | None:
        of_table = run.turnover.get(table)
        if not of_table or of_table["oov_share"] is None:
            return None
        share = of_table["oov_share"]
        return Value(share, f"{run.date}: {share:.2%} of the ids of {table} are out of its vocabulary")

    tables = sorted({table for run in days for table in run.turnover})
    series = _some({table: _by_day(days, partial(share, table)) for table in tables})
    if not series:
        return Missing("No embedding table has a vocabulary, or no run got that far.")
    return line_chart(f"OOV share by day: {', '.join(series)}", _short(days), series, _share_words, most=1.0)


def admitted_chart(days: Sequence[Run]) -> Chart:
    """Draw the number of ids that entered a vocabulary each day."""

    def admitted(run: Run) -> Value | None:
        if not run.turnover:
            return None
        count = sum(int(of_table["admitted"]) for of_table in run.turnover.values())
        expired = sum(int(of_table["expired"]) for of_table in run.turnover.values())
        return Value(count, f"{run.date}: {count:,} ids admitted, {expired:,} expired")

    return bar_chart("Ids admitted by day", _short(days), {"ids admitted": _by_day(days, admitted)}, _count_words)


def drift_chart(days: Sequence[Run], drift: Mapping[str, dict[str, Distance] | Missing]) -> Chart | Missing:
    """Draw how far each day's features are from the previous day's, for features with a limit."""
    measured = {run: distances for run, distances in drift.items() if isinstance(distances, dict)}

    def distance(feature: str, run: Run) -> Value | None:
        measure = measured.get(run.run, {}).get(feature)
        if measure is None:
            return None
        tip = f"{run.date}: {feature} is {measure.value:.3f} from the day before; {measure.limit:g} is allowed"
        return Value(measure.value, tip, symbol="dot" if measure.value <= measure.limit else "cross")

    features = sorted({feature for distances in measured.values() for feature in distances})
    if not features:
        why = sorted({missing.why for missing in drift.values() if isinstance(missing, Missing)})
        return Missing(why[0] if len(why) == 1 else "Nothing was measured: validation.drift has no limit.")
    series = {feature: _by_day(days, partial(distance, feature)) for feature in features}
    newest = list(measured.values())[-1]
    limits = {f"limit of {feature}": measure.limit for feature, measure in newest.items() if measure.limit < 1}
    return line_chart(f"Drift by day: {', '.join(features)}", _short(days), series, _short_words, limits)


def loss_chart(days: Sequence[Run], losses: Mapping[str, list[float] | Missing]) -> Chart | Missing:
    """Draw the mean loss by epoch, a line for each day, oldest first."""
    curves = {run.date: curve for run in days if isinstance(curve := losses[run.run], list)}
    if not curves:
        return Missing("No run stored a loss curve.")
    epochs = max(map(len, curves.values()))
    series: dict[str, list[Value | None]] = {
        day: [
            *(Value(loss, f"{day}, epoch {number}: loss {loss:.4f}") for number, loss in enumerate(curve, 1)),
            *[None] * (epochs - len(curve)),
        ]
        for day, curve in curves.items()
    }
    names = [f"epoch {number}" for number in range(1, epochs + 1)]
    return line_chart("Loss by epoch, a line a day", names, series, _short_words, from_zero=False)


def tuning_chart(tuning: Tuning) -> Chart:
    """Draw recall@K after each epoch, for the current settings and for the best trials."""
    drawn = [trial for trial in tuning.best_first(TRIALS_DRAWN) if trial.curve]
    chosen = sorted(drawn, key=lambda trial: trial.number != 0)
    epochs = max(len(trial.curve) for trial in chosen)
    series: dict[str, list[Value | None]] = {
        f"trial {trial.number}" if trial.number else "current settings": [
            *(
                Value(value, f"trial {trial.number}, epoch {n}: {value:.4f}\n{trial.words}")
                for n, value in enumerate(trial.curve, 1)
            ),
            *[None] * (epochs - len(trial.curve)),
        ]
        for trial in chosen
    }
    names = [f"epoch {number}" for number in range(1, epochs + 1)]
    return line_chart(f"Recall@{tuning.k} after each epoch, by trial", names, series, _short_words, from_zero=False)


def frequency_chart(frequencies: Frequencies) -> Chart:
    """Draw the estimator's frequency of each item against its counted frequency."""
    points = (
        (counted, estimated, f"counted {counted:.3g} a batch, estimated {estimated:.3g}")
        for counted, estimated in zip(frequencies.counted, frequencies.estimated, strict=True)
    )
    return log_scatter("Estimated against counted items a batch, both logarithmic", points)


def _recall(
    slice_name: str,
    scorer: str,
    metric: str,
    words: str,
    run: Run,
    metrics: Callable[[Run], Mapping[str, Any]] = lambda run: run.metrics,
) -> Value | None:
    figures = metrics(run).get(slice_name, {})
    if metric not in figures.get(scorer, {}):
        return None
    value, low, high = figures[scorer][metric]
    if value is None:
        return None
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    tip = f"{run.date}, {words}: {value:.4f}{interval}, {figures.get('interactions', 0):,} interactions"
    if scorer != CANDIDATE or slice_name != ALL:  # five more intervals a day would hide the decisive one
        return Value(value, tip)
    return Value(value, tip, low, high, symbol=_symbol(run))


def _symbol(run: Run) -> str:
    match outcome(run):
        case Outcome.PUSHED:
            return "dot"
        case Outcome.NOT_JUDGED:
            return "ring"
        case _:
            return "cross"


def _by_day(days: Sequence[Run], read: Callable[[Run], Value | None]) -> list[Value | None]:
    """Read a value of each day's run; None for days without one."""
    runs = {run.date: run for run in days}
    return [read(runs[day]) if day in runs else None for day in columns(days)]


def _some(series: Mapping[str, Sequence[Value | None]]) -> dict[str, Sequence[Value | None]]:
    """Leave out series without any value."""
    return {name: values for name, values in series.items() if any(values)}


def _short(days: Sequence[Run]) -> list[str]:
    """Return the columns without their year."""
    return [day[5:] for day in columns(days)]


def _recall_words(value: float) -> str:
    return f"{value:.2f}"


def _short_words(value: float) -> str:
    return f"{value:g}"


def _share_words(value: float) -> str:
    return f"{100 * value:g} %"


def _count_words(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
