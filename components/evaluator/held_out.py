"""Ranks held-out interactions among the whole catalogue with every scorer, and writes them as tf.Examples."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam import pvalue
from numpy.typing import NDArray

from components import ragged
from components.encoded import encode
from components.evaluator import slices
from components.evaluator.catalogue import Places
from components.evaluator.cells import Scored, add_up
from components.evaluator.ranked import (
    CATALOGUE_SIZE,
    SUMS_SPLIT,
    TRUE_ITEMS,
    USER_GROUP,
    rank_feature,
    retrieved_feature,
    sums_feature,
)
from components.evaluator.scoring import Group, ScoreGroup
from components.evaluator.settings import EvaluatorSettings
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec


class RankHeldOut(beam.DoFn):
    """Maps (group of users, lists of serialised interactions) to arrays of examples as described in `components.evaluator.ranked`.

    The main output holds the ranked interactions, the output `SUMS_SPLIT` their sums.

    Args:
        places: where the inputs lie.
        settings: the evaluator's settings.
        spec: the dataset's features.
        span: the day, in days since 1970-01-01.
    """

    def __init__(self, places: Places, settings: EvaluatorSettings, spec: FeatureSpec, span: int) -> None:
        self._settings = settings
        self._score = ScoreGroup(places, settings, spec, span)

    def process(self, element: tuple[int, Iterable[list[bytes]]]) -> Iterator[Any]:
        """Override of Beam's method."""
        number, several = element
        group = self._score(number, [example for examples in several for example in examples])
        if not group.rows.num_rows:
            return
        yield _serialized(_ranked(group, number))
        yield pvalue.TaggedOutput(SUMS_SPLIT, _serialized(self._sums(group, number)))

    def _sums(self, group: Group, number: int) -> dict[str, pa.Array]:
        cells = add_up(self._settings.statistics, group.scored, group.sets, group.slices)
        count = len(next(iter(cells.sums.values())))
        columns = {slices.feature(name): values for name, values in cells.slices.items()}
        columns |= {
            USER_GROUP: _lists(np.full((count, 1), number)),
            CATALOGUE_SIZE: _lists(np.full((count, 1), self._score.size)),
        }
        for scorer, sums in cells.sums.items():
            # A scorer that ranked nothing of a cell has no values there.
            values = [[of_cell.astype("<f8").tobytes()] if of_cell[0] else [] for of_cell in sums]
            columns[sums_feature(scorer)] = pa.array(values, pa.list_(pa.binary()))
            columns[retrieved_feature(scorer)] = cells.retrieved[scorer]
        return columns


def _ranked(group: Group, number: int) -> dict[str, pa.Array]:
    count = group.rows.num_rows
    columns = {name: group.rows.column(name) for name in (CANDIDATE_ID, QUERY_ID, TIMESTAMP, REWARD)}
    columns |= {slices.feature(name): values for name, values in group.slices.items()}
    columns |= {rank_feature(scorer): _ranks(scored, count) for scorer, scored in group.scored.items()}
    return columns | {TRUE_ITEMS: _lists(group.sets), USER_GROUP: _lists(np.full((count, 1), number))}


def _ranks(scored: Scored, count: int) -> pa.ListArray:
    """Return [interactions] lists of above and tied; empty if the interaction was not ranked."""
    lengths = np.zeros(count, np.int64)
    lengths[scored.rows] = 2
    return ragged.from_lengths(lengths, pa.array(np.stack(scored.ranks, axis=1).reshape(-1)))


def _lists(values: NDArray[np.int64]) -> pa.ListArray:
    """Convert [rows, width] to a list for each row."""
    return ragged.of_width(pa.array(values.reshape(-1)), values.shape[1])


def _serialized(columns: dict[str, pa.Array]) -> pa.Array:
    return encode(pa.RecordBatch.from_arrays(list(columns.values()), list(columns)))
