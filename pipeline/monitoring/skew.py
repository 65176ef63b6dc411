"""Measures with TFDV how far served queries are from the training data of the served model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import tensorflow_data_validation as tfdv
from rich.table import Table
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx_bsl.coders import example_coder

from components.example_gen.split_names import TRAIN_SPLIT
from components.example_validator.lengths import mean_length
from components.pusher.versions import PushFolder
from components.whole_files import write_aside
from pipeline.config import Config
from pipeline.monitoring.requests import Query
from pipeline.monitoring.skew_file import FILE, FeatureSkew, Skew
from pipeline.records import Lineage, connection, has_begun
from pipeline.report.facts import place
from schemas.errors import UserError
from schemas.features import Feature, FeatureSpec, HistoryFeature, Numeric

STATISTICS_NODE = "InteractionStatistics"
STATISTICS_FILE = "FeatureStats.pb"
SMALLEST = 1e-9  # TFDV does not measure below this limit


def measure(config: Config, queries: Sequence[Query]) -> Skew:
    """Compare served queries with the statistics of the training split of the live version's run.

    Args:
        config: the pipeline's configuration; `validation.skew` holds the limits.
        queries: not empty.

    Raises:
        UserError: nothing was pushed, or the statistics of its run are gone.
    """
    spec = config.feature_spec()
    manifests = PushFolder(config.serving).manifests()
    if not manifests or not has_begun(config):
        raise UserError(f"Nothing was pushed to {config.serving} yet. First: ndr run --config ... --date ...")
    live = manifests[-1]
    graph = Lineage(connection(config)).of_run(live.trained_by)
    path = place(graph, "ExampleStatistics", STATISTICS_NODE) / f"Split-{TRAIN_SPLIT}" / STATISTICS_FILE
    training = tfdv.load_stats_binary(str(path))
    served = statistics(queries, spec)
    distances = _distances(training, served, spec.raw_query)
    return Skew(
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        version=live.version,
        queries=len(queries),
        features={
            name: FeatureSkew(
                distance=distances.get(name),
                limit=config.validation.skew.get(name),
                trained=_present(training, name),
                served=_present(served, name),
                trained_items=_items(training, name, feature),
                served_items=_items(served, name, feature),
            )
            for name, feature in spec.raw_query.items()
        },
        least_history=config.validation.least_history,
    )


def statistics(queries: Sequence[Query], spec: FeatureSpec) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Compute TFDV's statistics of the query features of served queries."""
    batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch([query.example for query in queries])
    names = [name for name in spec.raw_query if name in batch.schema.names]
    return stats_impl.generate_statistics_in_memory(
        pa.RecordBatch.from_arrays([batch.column(batch.schema.names.index(name)) for name in names], names)
    )


def write(config: Config, skew: Skew) -> Path:
    """Store the measurement for the report; the file gets its name once it is complete."""
    path = config.root / FILE
    write_aside(path, json.dumps(asdict(skew), indent=2) + "\n")
    return path


def table(skew: Skew) -> Table:
    """Make a table with a row for each feature, the furthest first."""
    shown = Table("feature", "distance", "limit", "present in training", "present when served", "items in training, when served",
                  title=f"{skew.queries:,} served queries against the training data of version {skew.version}",
                  title_justify="left")  # fmt: skip
    for name, feature in skew.furthest_first():
        shown.add_row(
            name,
            "" if feature.distance is None else f"{feature.distance:.4f}",
            "" if feature.limit is None else f"{feature.limit:g}",
            f"{feature.trained:.1%}",
            f"{feature.served:.1%}",
            feature.items_words,
        )
    return shown


def _distances(
    training: statistics_pb2.DatasetFeatureStatisticsList,
    served: statistics_pb2.DatasetFeatureStatisticsList,
    features: Mapping[str, Feature],
) -> dict[str, float]:
    """Map features that both have to TFDV's distance: Jensen-Shannon divergence for numbers, L-infinity norm for the rest."""
    schema = schema_pb2.Schema()
    for name, feature in features.items():
        if not (_present(training, name) and _present(served, name)):
            continue
        is_number = isinstance(feature, Numeric)
        added = schema.feature.add(name=name, type=schema_pb2.FLOAT if is_number else schema_pb2.BYTES)
        comparator = added.skew_comparator
        (comparator.jensen_shannon_divergence if is_number else comparator.infinity_norm).threshold = SMALLEST
    anomalies = tfdv.validate_statistics(training, schema, serving_statistics=served)
    return {
        ".".join(info.path.step): measured.value
        for info in anomalies.drift_skew_info
        for measured in info.skew_measurements
    }


def _items(statistics: statistics_pb2.DatasetFeatureStatisticsList, name: str, feature: Feature) -> float | None:
    return mean_length(statistics.datasets[0], name) if isinstance(feature, HistoryFeature) else None


def _present(statistics: statistics_pb2.DatasetFeatureStatisticsList, name: str) -> float:
    """Return the share of examples with a value of a feature."""
    (dataset,) = statistics.datasets
    for feature in dataset.features:
        if list(feature.path.step) == [name] and dataset.num_examples:
            common = getattr(feature, feature.WhichOneof("stats")).common_stats
            return float(common.num_non_missing / dataset.num_examples)
    return 0.0
