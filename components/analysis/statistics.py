"""Beam transforms over the window's examples: the count of each id, and the mean and deviation of each number."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx_bsl.coders import example_coder

from components.analysis.vocabulary import COUNT, LOOKUPS, weighed
from components.counts.files import factor
from components.example_gen.split_names import TRAIN_SPLIT
from components.utc import MICROSECONDS_A_DAY
from schemas.features import TIMESTAMP, FeatureSpec, NumberFeature

MOMENTS = "moments"
COMPACT_AT = 16
ROUNDING = 1e-12
MANTISSA_BITS = 53  # of a double


@dataclass(frozen=True)
class Moments:
    """The exact first two moments of a number: independent of how the values were grouped and ordered.

    The scale is part of the model. In floating point its last bit would depend on how the work was divided.

    Attributes:
        values: the number of values.
        total: their sum.
        squares: the sum of their squares.
    """

    values: int = 0
    total: Fraction = Fraction(0)
    squares: Fraction = Fraction(0)

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Moments":
        """Compute the exact moments of `values`, each below 1e150."""
        # Halves of 26 bits, whose products are exact (Dekker, 1971).
        shifted = values * (2.0**27 + 1)
        high = shifted - (shifted - values)
        low = values - high
        squares = exact_sum(high * high) + exact_sum(2 * high * low) + exact_sum(low * low)
        return cls(len(values), exact_sum(values), squares)

    def __add__(self, other: "Moments") -> "Moments":
        """Add the moments of two disjoint samples."""
        return Moments(self.values + other.values, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """The mean; 0 if empty."""
        return float(self.total / self.values) if self.values else 0.0

    @property
    def deviation(self) -> float:
        """The standard deviation; 1 if it is zero up to rounding."""
        if not self.values:
            return 1.0
        variance = float(self.squares / self.values - (self.total / self.values) ** 2)
        return math.sqrt(variance) if variance > (ROUNDING * self.mean) ** 2 else 1.0


def exact_sum(values: NDArray[np.float64]) -> Fraction:
    """Sum fewer than 2**36 values without rounding."""
    mantissas, exponents = np.frexp(values)
    whole = np.ldexp(mantissas, MANTISSA_BITS).astype(np.int64)
    total = Fraction(0)
    for exponent in np.unique(exponents).tolist():
        chosen = whole[exponents == exponent]
        # In two parts, whose sums fit 64 bits.
        of_exponent = (int((chosen >> 27).sum()) << 27) + int((chosen & ((1 << 27) - 1)).sum())
        total += of_exponent * Fraction(2) ** (exponent - MANTISSA_BITS)
    return total


class Measure(beam.DoFn):
    """Maps batches of serialised interactions to ((table, split), id counts), and in the output MOMENTS to (feature, `Moments`).

    Args:
        spec: says what to count and measure.
        day: the day of the run, in days since 1970-01-01.
        since: the first day to count; earlier ones are in the counts so far.
        split: `train` or `eval`; of held-out interactions only ids for vocabularies are counted.
    """

    def __init__(self, spec: FeatureSpec, day: int, since: int = 0, split: str = TRAIN_SPLIT) -> None:
        self._day = day
        self._since = since
        self._split = split
        tables = {name: table for name, table in spec.tables.items() if split == TRAIN_SPLIT or table.vocabulary}
        self._half_lives = {n: t.vocabulary.half_life_days if t.vocabulary else None for n, t in tables.items()}
        self._counted = {table: spec.counted_features(table) for table in tables}
        self._numbers = {
            name: feature
            for name, feature in spec.features.items()
            if split == TRAIN_SPLIT and isinstance(feature, NumberFeature) and feature.scale != "none"
        }

    def process(self, examples: list[bytes]) -> Iterator[Any]:
        """Override of Beam's method."""
        batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(examples)
        # A feature that no example of the batch has comes without a type.
        columns = {
            f.name: column for f, column in zip(batch.schema, batch, strict=True) if not pa.types.is_null(f.type)
        }
        days = columns[TIMESTAMP].flatten().to_numpy() // MICROSECONDS_A_DAY
        weights = {half_life: self._weights(days, half_life) for half_life in set(self._half_lives.values())}
        for table, features in self._counted.items():
            of_table = weights[self._half_lives[table]]
            occurrences = [_occurrences(columns[name], of_table) for name in features if name in columns]
            if occurrences:
                yield (table, self._split), count(occurrences)
        for name, feature in self._numbers.items():
            if name in columns:
                values = columns[name].flatten().to_numpy().astype(np.float64)
                if feature.scale == "log":
                    values = np.log1p(values)
                yield beam.pvalue.TaggedOutput(MOMENTS, (name, Moments.of(values)))

    def _weights(self, days: NDArray[np.int64], half_life_days: float | None) -> pa.Array:
        """Return [rows], the decayed weight of an interaction of each day."""
        different, positions = np.unique(days, return_inverse=True)
        factors = [factor(half_life_days, self._day - day) if day >= self._since else 0.0 for day in different.tolist()]
        return pa.array(weighed(np.array(factors), 1.0)[positions])


def count(tables: Iterable[pa.Table]) -> pa.Table:
    """Add up tables with `token`, `lookups` and `count`."""
    added = pa.concat_tables(tables).group_by("token").aggregate([(LOOKUPS, "sum"), (COUNT, "sum")])
    return added.select(["token", f"{LOOKUPS}_sum", f"{COUNT}_sum"]).rename_columns(["token", LOOKUPS, COUNT])


class Count(beam.CombineFn):
    """Adds up the counted ids of all batches."""

    def create_accumulator(self) -> list[pa.Table]:
        """Override of Beam's method."""
        return []

    def add_input(self, accumulator: list[pa.Table], element: pa.Table) -> list[pa.Table]:
        """Override of Beam's method."""
        accumulator.append(element)
        # Compact only once as many rows wait as are added up already: compacting after a fixed number of batches would process the
        # whole table again each time, and that grows with the data.
        waiting = (len(accumulator) - 1) * element.num_rows
        ready = len(accumulator) >= COMPACT_AT and waiting >= accumulator[0].num_rows
        return [count(accumulator)] if ready else accumulator

    def merge_accumulators(self, accumulators: Iterable[list[pa.Table]]) -> list[pa.Table]:
        """Override of Beam's method."""
        tables = [table for accumulator in accumulators for table in accumulator]
        return [count(tables)] if tables else []

    def extract_output(self, accumulator: list[pa.Table]) -> pa.Table:
        """Override of Beam's method."""
        return count(accumulator)


def add_moments(several: Iterable[Moments]) -> Moments:
    """Add up the moments of all batches."""
    return sum(several, Moments())


def _occurrences(column: pa.Array, weights: pa.Array) -> pa.Table:
    tokens = column.flatten().cast(pa.binary())
    return pa.table(
        {
            "token": tokens,
            LOOKUPS: pa.array(np.ones(len(tokens), np.int64)),
            COUNT: weights.take(pc.list_parent_indices(column)),
        }
    )
