"""The pipeline's metrics in Prometheus format: for an alert when no new version arrives, and for graphs of the days.

They are gauges of the pipeline's state, computed and written as a whole each time; docs/monitoring.md describes each.
"""

import logging
import math
from collections.abc import Mapping
from datetime import date
from importlib import metadata

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

from pipeline import origin
from pipeline.config import Config
from pipeline.monitoring import standing
from pipeline.monitoring.standing import Standing
from pipeline.records import Run
from pipeline.report.outcome import Outcome, outcome
from pipeline.words import oov_share

JOB = "ndr"
PUSH_SECONDS = 10.0
_log = logging.getLogger(__name__)


def export(config: Config) -> list[str]:
    """Write the metrics where the configuration says. Failures are logged and do not fail a run.

    Returns:
        A sentence for each destination that could not be written to.
    """
    settings, faults = config.monitoring, []
    if settings.textfile is None and settings.pushgateway is None:
        return []
    try:
        metrics = registry(config, standing.read(config))
        if settings.textfile is not None:
            path = config.root / settings.textfile
            path.parent.mkdir(parents=True, exist_ok=True)
            write_to_textfile(str(path), metrics)
    except Exception as error:
        faults.append(f"The metrics were not written: {error}")
        _log.warning("metrics were not written", exc_info=True)
    if settings.pushgateway is not None and not faults:
        try:
            grouping = {"pipeline": config.name}
            push_to_gateway(settings.pushgateway, JOB, metrics, grouping, PUSH_SECONDS)
        except Exception as error:
            faults.append(f"The metrics were not pushed to {settings.pushgateway}: {error}")
            _log.warning("metrics were not pushed", exc_info=True)
    return faults


def registry(config: Config, now: Standing) -> CollectorRegistry:
    """Compute all metrics.

    Args:
        config: the pipeline's configuration; its name is the label `pipeline` of each metric.
        now: the pipeline's state.
    """
    gauges = _Gauges(config.name)
    build = {"version": metadata.version(origin.PACKAGE), "commit": origin.commit()[0]}
    gauges.add("ndr_build_info", "1; the code that wrote these metrics.", 1, build)
    live = now.live
    gauges.add(
        "ndr_newest_version",
        "The version that is served by default; 0 before the first push.",
        live.version if live else 0,
    )
    gauges.add(
        "ndr_newest_day_timestamp_seconds",
        "When the UTC day of that version's data began; 0 before the first push.",
        standing.day_start(live.day).timestamp() if live else 0,
    )
    for label, version in (live.labels if live else {}).items():
        gauges.add("ndr_labelled_version", "The version that has a label.", version, {"label": label})
    gauges.add(
        "ndr_last_success_timestamp_seconds",
        "When the last run ended whose version was pushed and not rolled back; 0 without one.",
        now.succeeded.timestamp() if now.succeeded else 0,
    )
    gauges.add(
        "ndr_last_step_timestamp_seconds",
        "When a step of any run last ended or began; 0 before the first.",
        now.attempted.timestamp() if now.attempted else 0,
    )
    for possible in Outcome:
        gauges.add(
            "ndr_day_outcome",
            "1 for the outcome of the newest day, 0 for all others.",
            int(now.newest is not None and outcome(now.newest) is possible),
            {"outcome": possible.value},
        )
    if now.newest is not None:
        _add_day(gauges, now.newest)
    return gauges.registry


class _Gauges:
    def __init__(self, pipeline: str) -> None:
        self.registry = CollectorRegistry()
        self._pipeline = pipeline
        self._known: dict[str, Gauge] = {}

    def add(self, name: str, description: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """Set a gauge, unless the value is NaN or infinite."""
        if not math.isfinite(value):
            return
        all_labels = {"pipeline": self._pipeline, **(labels or {})}
        if name not in self._known:
            self._known[name] = Gauge(name, description, list(all_labels), registry=self.registry)
        self._known[name].labels(**all_labels).set(value)


def _add_day(gauges: _Gauges, run: Run) -> None:
    start = standing.day_start(date.fromisoformat(run.date))
    gauges.add("ndr_day_timestamp_seconds", "When the newest UTC day with a run began.", start.timestamp())
    duration = standing.seconds(run)
    if duration is not None:
        gauges.add("ndr_day_duration_seconds", "From the first step's start to the last one's end.", duration)
    for step in run.steps:
        if step.seconds is not None:
            gauges.add("ndr_step_duration_seconds", "The duration of a step.", step.seconds, {"step": step.node})
    for kind, rows in run.rows.items():
        dropped = sum(lost["rows"] for lost in rows["dropped"].values())
        gauges.add("ndr_day_rows", "Rows that were read.", rows["rows"], {"kind": kind})
        filtered = sum(rows.get("filtered", {}).values())
        gauges.add("ndr_day_filtered_rows", "Rows that were read but filtered out.", filtered, {"kind": kind})
        gauges.add("ndr_day_dropped_rows", "Rows that were read and dropped.", dropped, {"kind": kind})
    if run.turnover:
        gauges.add("ndr_day_oov_ratio", "The share of ids that are outside the vocabularies.", oov_share(run))
    for scorer, figures in run.metrics.get("all", {}).items():
        for name, value in figures.items() if isinstance(figures, dict) else ():
            if value[0] is not None:
                labels = {"metric": name, "scorer": scorer}
                gauges.add("ndr_day_metric", "What was measured on all held-out interactions.", value[0], labels)
