"""The metrics of an evaluation, in a form that is read without TFMA."""

import json
import math
from collections.abc import Mapping
from typing import Any

import tensorflow_model_analysis as tfma
import tfx.components  # noqa: F401  # adds `EvalConfig` and others to `tfma`, which lacks them

from components.evaluator import slices
from components.evaluator.names import (
    ALL,
    CANDIDATE,
    INTERACTIONS,
    QUERIES,
    Statistics,
    gain_name,
)
from components.evaluator.sums import within_a_share

METRICS_FILE = "metrics.json"


def read_metrics(folder: str, config: tfma.EvalConfig) -> dict[str, Any]:
    """Read an evaluation's metrics.

    Args:
        folder: the evaluation's folder.
        config: the `eval_config` that it was made with.

    Returns:
        By slice (`all`, or `name=value`): the number of `interactions` and of `queries`; and by scorer, and for the `change`
        against the baseline, each statistic's `[value, lower, upper]`, with the ends of its 95 % interval, or null without one.
        `all` also names the ranked `candidates`.
    """
    described = described_metrics(config)
    report: dict[str, Any] = {}
    by_slice = {slice_name(metrics.slice_key): metrics for metrics in tfma.load_metrics(folder)}
    # Beam's runners bring the slices in orders of their own.
    for name, metrics in sorted(by_slice.items(), key=lambda entry: (entry[0] != ALL, entry[0])):
        of_slice: dict[str, Any] = report.setdefault(name, {})
        order = list(described)
        for metric in sorted(metrics.metric_keys_and_values, key=lambda measured: order.index(measured.key.name)):
            arguments, value = described[metric.key.name], metric.value.double_value.value
            statistic = arguments["statistic"]
            if statistic in (INTERACTIONS, QUERIES) and not arguments["scorer"]:
                of_slice[statistic] = round(value)
                continue
            if math.isnan(value):  # the scorer ranked none of the slice's interactions
                continue
            measures = Statistics(**arguments["statistics"])
            report.setdefault(ALL, {})["candidates"] = measures.candidates
            ends: list[float | None] = [None, None]
            if metric.HasField("confidence_interval"):
                lower, upper = (
                    getattr(metric.confidence_interval, end).double_value.value
                    for end in ("lower_bound", "upper_bound")
                )
                if not (metric.key.is_diff or arguments["over"] or statistic == measures.novelty):
                    _, lower, upper = within_a_share([value, lower, upper])  # TFMA's are symmetric
                ends = [lower, upper]
            scorer = "change" if metric.key.is_diff else arguments["scorer"] or metric.key.model_name or CANDIDATE
            shown = gain_name(statistic, arguments["over"]) if arguments["over"] else statistic
            of_slice.setdefault(scorer, {})[shown] = [value, *ends]
    return report


def in_short(metrics: dict[str, Any]) -> dict[str, Any]:
    """Select all metrics of the whole, and recall@K of slices."""
    return {
        name: of_slice
        if name == ALL
        else {
            key: {n: v for n, v in value.items() if n.startswith("recall_at_") and "_over_" not in n}
            if isinstance(value, dict)
            else value
            for key, value in of_slice.items()
            if key != "change"
        }
        for name, of_slice in metrics.items()
    }


def slice_name(key: Any) -> str:
    """Return the name of a slice of TFMA's."""
    values = {pair.column: getattr(pair, pair.WhichOneof("kind")) for pair in key.single_slice_keys}
    return slice_words({n: v.decode() if isinstance(v, bytes) else str(v) for n, v in values.items()})


def slice_words(values: Mapping[str, str]) -> str:
    """Return the name of a slice: `all`, or `name=value` of each of its features."""
    prefix = slices.feature("")
    return ", ".join(f"{name.removeprefix(prefix)}={value}" for name, value in sorted(values.items())) or ALL


def described_metrics(config: tfma.EvalConfig) -> dict[str, Any]:
    """Map each metric's name in TFMA to its arguments."""
    metrics = (json.loads(metric.config) for spec in config.metrics_specs for metric in spec.metrics)
    return {arguments["name"]: arguments for arguments in metrics}
