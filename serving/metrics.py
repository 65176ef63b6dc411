"""Metrics in Prometheus format: TF Serving's under its own names, and ours under `ndr_serving_`.

Each server has its own registry, so that two in a process do not add up.
"""

import time
from collections.abc import Callable, Iterable

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from serving.record import Record
from serving.versions import Versions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TF_REQUEST_COUNT = ":tensorflow:serving:request_count"
_MICROSECONDS = tuple(10 * 1.8**step for step in range(33))  # as TF Serving's
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_LOAD_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """Counts what a server does.

    Args:
        versions: the served versions.
        running: returns the number of requests that wait for a model or run.
    """

    def __init__(self, versions: Versions, running: Callable[[], int]) -> None:
        registry = self._registry = CollectorRegistry()
        self._tf_requests = Counter(
            TF_REQUEST_COUNT, "Requests by model and status.", ("model_name", "status"), registry=registry
        )
        self._tf_latency = Histogram(
            ":tensorflow:serving:request_latency", "Microseconds until the answer was ready.",
            ("model_name", "API", "entrypoint"), buckets=_MICROSECONDS, registry=registry,
        )  # fmt: skip
        self._requests = Counter(
            "ndr_serving_requests", "Requests by model, API, method and gRPC code.", ("model", "api", "method", "code"),
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "ndr_serving_request_seconds", "Seconds from a request's arrival until its answer was ready.", ("model", "api"),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._batch_rows = Histogram(
            "ndr_serving_batch_rows", "Rows of a batch that a model ran.", ("model", "signature"), buckets=_COUNTS,
            registry=registry,
        )  # fmt: skip
        self._items = Histogram(
            "ndr_serving_items_asked",
            "The largest k of a request to the retriever.",
            buckets=_COUNTS,
            registry=registry,
        )
        self._excluded = Histogram(
            "ndr_serving_items_excluded", "The most items that a row of a request excludes.", buckets=(0, *_COUNTS),
            registry=registry,
        )  # fmt: skip
        self._conditions = Histogram(
            "ndr_serving_conditions", "The most conditions that the items of a row must meet.", buckets=(0, *_COUNTS),
            registry=registry,
        )  # fmt: skip
        self._rows = Counter("ndr_serving_rows", "Rows of answered requests, by model.", ("model",), registry=registry)
        self._empty = Counter(
            "ndr_serving_empty_answers", "Rows for which the retriever found no item.", registry=registry
        )
        self._short = Counter(
            "ndr_serving_short_answers", "Rows for which the retriever found fewer items than k.", registry=registry
        )
        self._ids = Counter(
            "ndr_serving_ids",
            "Ids of queries whose share of unknown ones is measured.",
            ("feature",),
            registry=registry,
        )
        self._unknown = Counter(
            "ndr_serving_unknown_ids",
            "Ids of those that the vocabulary does not have.",
            ("feature",),
            registry=registry,
        )
        self._loads = Counter(
            "ndr_serving_loads", "Attempts to load a version, by their result.", ("result",), registry=registry
        )
        for result in ("ok", "failed"):
            self._loads.labels(result)
        self._load_seconds = Histogram(
            "ndr_serving_load_seconds", "Seconds to verify, load and warm up a version.", buckets=_LOAD_SECONDS,
            registry=registry,
        )  # fmt: skip
        started = Gauge("ndr_serving_start_time_seconds", "When the server started, since 1970.", registry=registry)
        started.set(time.time())
        ProcessCollector(registry=registry)
        registry.register(_State(versions, running))

    def observe(self, record: Record) -> None:
        """Count a request that was answered or refused."""
        code = record.code.name
        self._tf_requests.labels(record.model, "OK" if record.code == grpc.StatusCode.OK else code).inc()
        self._tf_latency.labels(record.model, record.api, record.method).observe(record.seconds * 1e6)
        self._requests.labels(record.model, record.api, record.method, code).inc()
        self._seconds.labels(record.model, record.api).observe(record.seconds)
        if record.code != grpc.StatusCode.OK or record.extent is None:
            return
        self._rows.labels(record.model).inc(record.extent.rows)
        for feature, (ids, unknown) in record.ids.items():
            self._ids.labels(feature).inc(ids)
            self._unknown.labels(feature).inc(unknown)
        if record.found is not None:
            self._items.observe(record.extent.items)
            self._excluded.observe(record.extent.excluded)
            self._conditions.observe(record.extent.conditions)
            self._empty.inc(record.found.empty)
            self._short.inc(record.found.short)

    def observe_batch(self, model: str, signature: str, rows: int) -> None:
        """Count a batch that a model runs."""
        self._batch_rows.labels(model, signature).observe(rows)

    def observe_load(self, succeeded: bool, seconds: float) -> None:
        """Count an attempt to load a version."""
        self._loads.labels("ok" if succeeded else "failed").inc()
        if succeeded:
            self._load_seconds.observe(seconds)

    def exposed(self) -> bytes:
        """Format all metrics for Prometheus."""
        content = generate_latest(self._registry)
        # prometheus_client appends OpenMetrics' suffix to each counter; TF Serving's have none.
        name = TF_REQUEST_COUNT.encode()
        return content.replace(name + b"_total", name)


class _State:
    """Reads the server's state when Prometheus asks."""

    def __init__(self, versions: Versions, running: Callable[[], int]) -> None:
        self._versions = versions
        self._running = running

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics; prometheus_client calls this."""
        versions = self._versions
        live, newest, pushed_at = versions.live, versions.newest, versions.live_pushed_at
        yield _gauge("live_version", "The version that answers; 0 before the first.", live or 0)
        yield _gauge("newest_version", "The highest version in the push folder; 0 before the first.", newest or 0)
        age = max(0.0, time.time() - pushed_at) if pushed_at else 0.0
        yield _gauge("live_version_age_seconds", "Seconds since the live version was pushed; 0 without one.", age)
        stale = versions.stale_seconds
        yield _gauge("stale_seconds", "For how long a newer version than the live one could not be loaded.", stale)
        yield _gauge("running_requests", "Requests that wait for a model or run.", self._running())
        waiting = GaugeMetricFamily(
            "ndr_serving_waiting_requests", "Requests that wait for a model to be free.", labels=("model", "signature")
        )
        for model, signatures in versions.waiting().items():
            for signature, count in signatures.items():
                waiting.add_metric((model, signature), count)
        yield waiting


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ndr_serving_{name}", words, value=value)
