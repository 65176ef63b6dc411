"""Computes TFDV's statistics of large Arrow batches.

TFDV's Beam pipeline sends each distinct value of each batch through the runner to count it. Here a worker counts a batch's values
with Arrow, and emits one table for each feature. Everything but that count is TFDV's own, including the protos.
"""

from collections.abc import Iterable
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from tensorflow_data_validation import FeaturePath, StatsOptions
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_data_validation.statistics.generators.basic_stats_generator import BasicStatsGenerator
from tensorflow_data_validation.statistics.generators.stats_generator import CombinerStatsGenerator
from tensorflow_data_validation.utils.top_k_uniques_stats_util import (
    FeatureValueCount,
    make_feature_stats_proto_topk_uniques,
)
from tensorflow_metadata.proto.v0 import statistics_pb2

VALUE, COUNT = "value", "count"
WAITING_ROWS = 1 << 18  # of a feature's counted values, before they are added up

Counted = dict[str, list[pa.Table]]
"""For each feature, tables of values and their counts; the first is the sum of earlier ones."""


class TopKUniques(CombinerStatsGenerator):
    """Finds the most frequent values of each text feature, and counts the distinct ones: exactly, like TFDV's Beam transform.

    Args:
        options: the number of values.
    """

    def __init__(self, options: StatsOptions) -> None:
        super().__init__("TopKUniques")
        self._values = options.num_top_values
        self._ranks = options.num_rank_histogram_buckets

    def create_accumulator(self) -> Counted:
        """Override of TFDV's method."""
        return {}

    def add_input(self, accumulator: Counted, input_record_batch: pa.RecordBatch) -> Counted:
        """Override of TFDV's method."""
        for name, column in zip(input_record_batch.schema.names, input_record_batch.columns, strict=True):
            if not pa.types.is_null(column.type) and _is_text(column.type.value_type):
                counts = pc.value_counts(column.flatten())
                counted = pa.table({VALUE: counts.field("values"), COUNT: counts.field("counts")})
                _add(accumulator.setdefault(name, []), counted)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Counted]) -> Counted:
        """Override of TFDV's method."""
        merged: Counted = {}
        for accumulator in accumulators:
            for name, tables in accumulator.items():
                for table in tables:
                    _add(merged.setdefault(name, []), table)
        return merged

    def compact(self, accumulator: Counted) -> Counted:
        """Override of TFDV's method."""
        return {name: [_added_up(tables)] for name, tables in accumulator.items()}

    def extract_output(self, accumulator: Counted) -> statistics_pb2.DatasetFeatureStatistics:
        """Override of TFDV's method."""
        statistics = statistics_pb2.DatasetFeatureStatistics()
        for name, (counted,) in sorted(self.compact(accumulator).items()):
            if not counted.num_rows:
                continue
            most = max(self._values, self._ranks)
            keys = [(COUNT, "descending"), (VALUE, "descending")]
            first = counted.take(pc.select_k_unstable(counted, most, keys))
            counts = map(FeatureValueCount, first.column(VALUE).to_pylist(), first.column(COUNT).to_pylist())
            statistics.features.append(
                make_feature_stats_proto_topk_uniques(
                    FeaturePath([name]), self._values, self._ranks, counted.num_rows, list(counts)
                )
            )
        return statistics


class OfFile(NamedTuple):
    """What is known of one file of examples.

    Attributes:
        path: the file's.
        basic: TFDV's accumulator.
        counted: the values of its text features.
    """

    path: str
    basic: Any
    counted: Counted


Files = tuple[list[OfFile], Counted]
"""Files without their counted values, in any order, and the counted values of all of them."""


class Statistics(beam.CombineFn):
    """Combines what is known of files to TFDV's statistics.

    TFDV's quantiles depend on the order in which its accumulators are merged, and an engine merges in any order. So a file is added
    up as a whole, and files are merged last, in the order of their paths.

    Args:
        options: TFDV's options.
    """

    def __init__(self, options: StatsOptions) -> None:
        self._basic = BasicStatsGenerator(
            num_values_histogram_buckets=options.num_values_histogram_buckets,
            num_histogram_buckets=options.num_histogram_buckets,
            num_quantiles_histogram_buckets=options.num_quantiles_histogram_buckets,
            epsilon=options.epsilon,
        )
        self._uniques = TopKUniques(options)

    def of_file(self, path: str, batches: Iterable[pa.RecordBatch]) -> OfFile:
        """Add up a file's batches of examples."""
        basic, counted = self._basic.create_accumulator(), self._uniques.create_accumulator()
        for batch in batches:
            basic = self._basic.add_input(basic, batch)
            counted = self._uniques.add_input(counted, batch)
        return OfFile(path, self._basic.compact(basic), self._uniques.compact(counted))

    def create_accumulator(self) -> Files:
        """Override of Beam's method."""
        return [], self._uniques.create_accumulator()

    def add_input(self, accumulator: Files, element: OfFile) -> Files:
        """Override of Beam's method."""
        return self.merge_accumulators([accumulator, ([element._replace(counted={})], element.counted)])

    def merge_accumulators(self, accumulators: Iterable[Files]) -> Files:
        """Override of Beam's method."""
        of_files, counted = zip(*accumulators, strict=True)
        return list(chain.from_iterable(of_files)), self._uniques.merge_accumulators(counted)

    def compact(self, accumulator: Files) -> Files:
        """Override of Beam's method."""
        files, counted = accumulator
        return files, self._uniques.compact(counted)

    def extract_output(self, accumulator: Files) -> statistics_pb2.DatasetFeatureStatisticsList:
        """Override of Beam's method."""
        files, counted = accumulator
        in_order = [of_file.basic for of_file in sorted(files, key=attrgetter("path"))]
        basic = self._basic.merge_accumulators([self._basic.create_accumulator(), *in_order])
        return stats_impl.extract_statistics_output([basic, counted], [self._basic, self._uniques])


def _add(tables: list[pa.Table], table: pa.Table) -> None:
    """Add a table; once as many rows wait as the sum has, add them up."""
    tables.append(table)
    if sum(waiting.num_rows for waiting in tables[1:]) >= max(tables[0].num_rows, WAITING_ROWS):
        tables[:] = [_added_up(tables)]


def _added_up(tables: list[pa.Table]) -> pa.Table:
    added = pa.concat_tables(tables).group_by(VALUE).aggregate([(COUNT, "sum")])
    return added.rename_columns({f"{COUNT}_sum": COUNT})


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_binary(kind) or pa.types.is_binary(kind))
