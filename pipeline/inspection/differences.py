"""Compares two runs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from components.evaluator.names import CANDIDATE
from pipeline.inspection.show import seconds_words
from pipeline.records import Run
from pipeline.words import metric_words

# Two equal runs never take exactly the same time: a step's time differs only if it exceeds both limits.
LEAST_SECONDS, LEAST_SHARE = 1.0, 0.1

SEPARATOR = " "  # between a slice and a metric

Pairs = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Differences:
    """Two runs side by side: by key, the first run's value and the second's, None where a run has none.

    Attributes:
        outcome: day, state, version, blessing, and why nothing was pushed.
        code: version, commit and digest.
        configuration: by the path of its keys.
        data: the files read, the rows of the examples, and the vocabularies.
        metrics: the model's, by metric, and by slice and metric; each value with its 95 % interval.
        steps: state and seconds by step.
    """

    outcome: Pairs
    code: Pairs
    configuration: Pairs
    data: Pairs
    metrics: Pairs
    steps: Pairs


def differences(first_run: Run, second_run: Run, everything: bool = False) -> Differences:
    """Compare two runs.

    Args:
        first_run: the first.
        second_run: the second.
        everything: also what is the same.
    """

    def pairs(values: Callable[[Run], Mapping[str, Any]], same: Callable[[Any, Any], bool] = _equal) -> Pairs:
        first, second = values(first_run), values(second_run)
        both = {key: (first.get(key), second.get(key)) for key in [*first, *(k for k in second if k not in first)]}
        return {key: pair for key, pair in both.items() if everything or not same(*pair)}

    return Differences(
        outcome=pairs(_outcome),
        code=pairs(_code),
        configuration=pairs(_configuration),
        data=pairs(_data),
        metrics=pairs(_metrics),
        steps=pairs(_steps, _as_long),
    )


def differences_json(first_run: Run, second_run: Run, changes: Differences) -> dict[str, Any]:
    """Convert to JSON types."""
    return {"runs": [first_run.run, second_run.run], **asdict(changes)}


def difference_tables(first_run: Run, second_run: Run, changes: Differences, everything: bool = False) -> list[Table]:
    """Make a table for each section with differences. Metrics of slices show only clear differences, unless `everything`."""
    metrics = {
        name: pair for name, pair in changes.metrics.items() if everything or apart(*pair) or SEPARATOR not in name
    }
    sections: list[tuple[str, Pairs, Callable[[Any], str]]] = [
        ("Outcome", changes.outcome, _words),
        ("Code", changes.code, _words),
        ("Configuration", changes.configuration, _words),
        ("Data", changes.data, _words),
        ("Metrics of the model; in brackets 95 % intervals", metrics, _metric),
        ("Steps", changes.steps, _step),
    ]
    return [_table(title, first_run, second_run, pairs, words) for title, pairs, words in sections if pairs]


def apart(first: Any, second: Any) -> bool:
    """Return whether two metrics' 95 % intervals do not overlap, so that the difference is hardly chance."""
    if not first or not second or None in (*first, *second):
        return False
    return bool(first[2] < second[1] or second[2] < first[1])


def _table(title: str, first_run: Run, second_run: Run, pairs: Pairs, words: Callable[[Any], str]) -> Table:
    has_intervals = words is _metric
    table = Table(
        "", first_run.run, second_run.run, *(["apart"] if has_intervals else []), title=title, title_justify="left"
    )
    for column in table.columns:
        column.overflow = "fold"
    for key, (first, second) in pairs.items():
        table.add_row(
            metric_words(key) if has_intervals else key,
            words(first),
            words(second),
            *([("yes" if apart(first, second) else "no")] if has_intervals else []),
        )
    return table


def _equal(first: Any, second: Any) -> bool:
    return bool(first == second)


def _as_long(first: Any, second: Any) -> bool:
    """Return whether two steps ended in the same state, in about the same time."""
    if first is None or second is None or first["state"] != second["state"]:
        return False
    if None in (first["seconds"], second["seconds"]):
        return bool(first["seconds"] == second["seconds"])
    off, longer = abs(first["seconds"] - second["seconds"]), max(first["seconds"], second["seconds"])
    return bool(off < LEAST_SECONDS or off < LEAST_SHARE * longer)


def _outcome(run: Run) -> dict[str, Any]:
    return {
        "day": run.date,
        "state": run.state,
        "version": run.version,
        "blessed": run.blessed,
        "withdrawn": run.withdrawn,
        "servable": run.servable,
        "refused": list(run.refused),
        "not judged": list(run.not_judged),
        **flat(run.index, "index"),
    }


def _code(run: Run) -> dict[str, Any]:
    if run.origin is None:
        return {}
    return {name: value for name, value in asdict(run.origin).items() if name != "configuration"}


def _configuration(run: Run) -> dict[str, Any]:
    return flat(run.origin.configuration) if run.origin else {}


def _data(run: Run) -> dict[str, Any]:
    # Leaves out the input's digest: it covers code and configuration, which have sections of their own.
    trained_from = {"trained from": run.given.base_day} if run.given else {}
    rows = {
        kind: {name: value for name, value in counts.items() if name != "kind"} for kind, counts in run.rows.items()
    }
    sources = {kind: _source(source) for kind, source in run.sources.items()}
    return {**trained_from, **flat(sources), **flat(rows), **flat({"ids": run.turnover})}


def _source(source: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the files; the fingerprint covers their times too, and is used only if older code recorded nothing else."""
    shown = "content" if source.get("content") else "fingerprint"
    return {shown: source[shown][:16], "files": source["files"]}


def _metrics(run: Run) -> dict[str, Any]:
    overall_first = sorted(run.metrics, key=lambda name: (name != "all", name))
    return {
        name if place == "all" else f"{place}{SEPARATOR}{name}": value
        for place in overall_first
        for name, value in run.metrics[place].get(CANDIDATE, {}).items()
    }


def _steps(run: Run) -> dict[str, Any]:
    return {step.node: {"state": step.state, "seconds": step.seconds} for step in run.steps}


def flat(values: Any, path: str = "") -> dict[str, Any]:
    """Flatten nested mappings, keyed by their path; lists are values."""
    if not isinstance(values, Mapping) or not values:
        return {path: values} if path else {}
    flattened = {}
    for key, value in values.items():
        flattened.update(flat(value, f"{path}.{key}" if path else str(key)))
    return flattened


def _words(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _metric(value: Any) -> str:
    if not value or value[0] is None:
        return ""
    middle, low, high = value
    return f"{middle:.4f}" if None in (low, high) else f"{middle:.4f} [{low:.3f}, {high:.3f}]"


def _step(value: Any) -> str:
    return "" if value is None else f"{value['state']} {seconds_words(value['seconds'])}".rstrip()
