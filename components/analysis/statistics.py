"""Passes over the window's examples: how often each id occurs, and the mean and deviation of each number."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tfx_bsl.coders import example_coder

from components.example_gen.sources import MICROSECONDS_A_DAY
from schemas.features import TIMESTAMP, FeatureSpec, NumberFeature

MOMENTS = "moments"
COMPACT_AT = 16
ROUNDING = 1e-12


@dataclass(frozen=True)
class Moments:
    """The first two moments of a number.

    Attributes:
        values: how many.
        mean: of them.
        squares: the sum of squared differences from the mean.
    """

    values: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Moments") -> "Moments":
        """Of both (Chan, Golub and LeVeque, 1983): no difference of large sums, so nothing cancels."""
        values = self.values + other.values
        if not values:
            return self
        apart = other.mean - self.mean
        return Moments(
            values,
            self.mean + apart * other.values / values,
            self.squares + other.squares + apart**2 * self.values * other.values / values,
        )

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 where there is none to divide by, but what rounding left."""
        if self.squares <= self.values * (ROUNDING * self.mean) ** 2:
            return 1.0
        return math.sqrt(self.squares / self.values)


class Measure(beam.DoFn):
    """Batches of serialised interactions to (table, ids counted), and (feature, `Moments`) in the output MOMENTS."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._counted = {table: spec.counted_features(table) for table in spec.tables}
        self._numbers = {n: f for n, f in spec.features.items() if isinstance(f, NumberFeature) and f.scale != "none"}

    def process(self, examples: list[bytes]) -> Iterator[Any]:
        """Called by Beam."""
        batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(examples)
        # A feature that no example of the batch has comes without a type.
        columns = {
            f.name: column for f, column in zip(batch.schema, batch, strict=True) if not pa.types.is_null(f.type)
        }
        days = pc.divide(columns[TIMESTAMP].flatten(), MICROSECONDS_A_DAY)
        for table, features in self._counted.items():
            parts = [_occurrences(columns[name], days) for name in features if name in columns]
            if parts:
                yield table, count(parts)
        for name, feature in self._numbers.items():
            if name in columns:
                values = columns[name].flatten().to_numpy().astype(np.float64)
                if feature.scale == "log":
                    values = np.log1p(values)
                mean = float(values.mean())
                yield beam.pvalue.TaggedOutput(
                    MOMENTS, (name, Moments(len(values), mean, float(((values - mean) ** 2).sum())))
                )


def count(parts: Iterable[pa.Table]) -> pa.Table:
    """Adds up tables with `token`, `count` and `last_seen`."""
    added = pa.concat_tables(parts).group_by("token").aggregate([("count", "sum"), ("last_seen", "max")])
    return added.select(["token", "count_sum", "last_seen_max"]).rename_columns(["token", "count", "last_seen"])


class Count(beam.CombineFn):
    """Adds up the counted ids of all batches."""

    def create_accumulator(self) -> list[pa.Table]:
        """Called by Beam."""
        return []

    def add_input(self, accumulator: list[pa.Table], element: pa.Table) -> list[pa.Table]:
        """Called by Beam."""
        accumulator.append(element)
        return [count(accumulator)] if len(accumulator) >= COMPACT_AT else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[pa.Table]]) -> list[pa.Table]:
        """Called by Beam."""
        parts = [part for accumulator in accumulators for part in accumulator]
        return [count(parts)] if parts else []

    def extract_output(self, accumulator: list[pa.Table]) -> pa.Table:
        """Called by Beam."""
        return count(accumulator)


class AddMoments(beam.CombineFn):
    """Adds up the moments of all batches."""

    def create_accumulator(self) -> Moments:
        """Called by Beam."""
        return Moments()

    def add_input(self, accumulator: Moments, element: Moments) -> Moments:
        """Called by Beam."""
        return accumulator + element

    def merge_accumulators(self, accumulators: Iterable[Moments]) -> Moments:
        """Called by Beam."""
        return sum(accumulators, Moments())

    def extract_output(self, accumulator: Moments) -> Moments:
        """Called by Beam."""
        return accumulator


def _occurrences(column: pa.Array, days: pa.Array) -> pa.Table:
    tokens = column.flatten().cast(pa.binary())
    return pa.table(
        {
            "token": tokens,
            "count": pa.array(np.ones(len(tokens), np.int64)),
            "last_seen": days.take(pc.list_parent_indices(column)),
        }
    )
