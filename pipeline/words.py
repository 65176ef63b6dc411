"""The words and figures of a run that the tables, the report and the commands share."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    BASELINES,
    CANDIDATE,
    CONTENT_NEIGHBOURS,
    COOCCURRENCE,
    NEW_QUERIES_OLD_ITEMS,
    OLD_QUERIES_NEW_ITEMS,
    POPULARITY,
    RECENT_POPULARITY,
    SIMILAR_ITEMS,
    SLICES,
    TAKEN_BEFORE,
)
from pipeline.records import Run, recalls

SCORERS = {
    CANDIDATE: "model",
    BASELINE: "last blessed",
    POPULARITY: "popularity",
    RECENT_POPULARITY: "recent popularity",
    TAKEN_BEFORE: "taken before",
    COOCCURRENCE: "co-occurrence",
}
NEXT_DAY_SCORERS = {**SCORERS, BASELINE: "model before"}
"""Scorers of the next day's evaluation, whose model is the last blessed one."""
ASIDE = {
    AS_NEW: "items as if new: by the model, their ids unseen",
    CONTENT_NEIGHBOURS: "items as if new: by their content alone",
    SIMILAR_ITEMS: "items like the last of the history, by the item tower",
    NEW_QUERIES_OLD_ITEMS: "today's query tower, the last blessed items",
    OLD_QUERIES_NEW_ITEMS: "the last blessed query tower, today's items",
}
"""Scorers of separate questions, with recall only."""


def chosen_cutoff(cutoffs: Sequence[int]) -> int:
    """Choose the second K: the first is often too small for a slice of few interactions. 0 if nothing was measured."""
    return cutoffs[min(1, len(cutoffs) - 1)] if cutoffs else 0


def strongest_baseline(run: Run, k: int) -> float | None:
    """Return the greatest recall@K of a baseline on the next day; None if nothing was evaluated."""
    values = (recalls(run.next_day_metrics, scorer).get(k) for scorer in BASELINES)
    return max((value for value in values if value is not None), default=None)


def oov_share(run: Run) -> float:
    """Return the share of out-of-vocabulary ids among all ids that the examples look up in tables with a vocabulary."""
    tables = [table for table in run.turnover.values() if table["oov_share"] is not None]
    lookups = sum(table["lookups"] for table in tables)
    return sum(table["oov_share"] * table["lookups"] for table in tables) / lookups if lookups else 0.0


def slice_order(name: str) -> tuple[int, str]:
    """Order slices: the pipeline's own as declared, then those of features."""
    order = [f"{feature}={value}" for feature, values in SLICES.items() for value in values]
    return (order.index(name), "") if name in order else (len(order), name)


def blessing_words(run: Run) -> str:
    """Say whether a run's model was blessed, and still is."""
    if run.withdrawn:
        return "withdrawn"
    if run.waived:
        return "yes, below a baseline"
    return {None: "", True: "yes", False: "no"}[run.blessed]


def history_words(histories: Mapping[str, Any]) -> str:
    """Format the lengths of histories; see `components.example_validator.lengths`."""
    return f"{histories['train']:.1f} of {histories['last']} items on average in training, {histories['eval']:.1f} held out"


def metric_words(name: str) -> str:
    """Format a metric's name: `recall_at_50` becomes recall@50."""
    return name.replace("_at_", "@").replace("_", " ")


def with_interval(figures: list[float | None] | None, scorer: str) -> str:
    """Format a value, with the interval for learnt models only."""
    if figures is None or figures[0] is None:
        return ""
    value, low, high = figures
    if low is None or high is None or scorer in (*BASELINES, CONTENT_NEIGHBOURS):
        return f"{value:.4f}"
    return f"{value:.4f} [{low:.3f}, {high:.3f}]"


def from_here(place: str) -> str:
    """Return a path below the current folder relative to it."""
    path = Path(os.path.normpath(place))
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
