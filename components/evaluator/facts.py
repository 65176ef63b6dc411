"""Facts needed before any interaction is ranked: the number of interactions, and their most frequent values."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import apache_beam as beam
import pandas as pd
from tfx.utils import io_utils

from components.decoded import lists
from components.evaluator.interactions import Window, read_interactions
from components.indexer.embedding import matching_paths
from components.whole_files import write_whole
from schemas.features import CANDIDATE_ID

Counted: TypeAlias = "dict[str, pd.Series[int]]"
"""By feature, the number of interactions with each value."""


@dataclass(frozen=True)
class Facts:
    """Facts about the interactions to rank.

    Attributes:
        interactions: the number with a reward above 0.
        kept_values: the values of each declared slice of ids that get a slice of their own.
    """

    interactions: int
    kept_values: Mapping[str, Sequence[bytes]]


class GatherFacts(beam.PTransform):
    """Writes the `Facts` of interactions to a file.

    Args:
        interactions: patterns of gzipped TFRecords of tf.Examples.
        window: selects the interactions.
        most_values: by declared feature, the number of values with a slice of their own.
        path: the file.
    """

    def __init__(self, interactions: Sequence[str], window: Window, most_values: Mapping[str, int], path: str) -> None:
        super().__init__()
        self._interactions = interactions
        self._window = window
        self._most_values = most_values
        self._path = path

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Override of Beam's method."""
        features = list(self._most_values)
        return (
            pipeline
            | "Files" >> beam.Create(matching_paths(self._interactions))
            | "Spread" >> beam.Reshuffle()
            | "Take" >> beam.FlatMap(_take, self._window, features)
            | "Add" >> beam.CombineGlobally(_add)
            | "Write" >> beam.Map(_write, self._most_values, self._path)
        )


def read(path: str) -> Facts:
    """Read the file that `GatherFacts` wrote."""
    content = json.loads(io_utils.read_string_file(path))
    values = {name: [bytes.fromhex(value) for value in encoded] for name, encoded in content["kept_values"].items()}
    return Facts(content["interactions"], values)


def _take(path: str, window: Window, features: list[str]) -> Iterator[Counted]:
    for batch in read_interactions(path, window, [CANDIDATE_ID, *features]):
        # The number of interactions is counted under the item's feature, which each has exactly once.
        counts = {CANDIDATE_ID: pd.Series({b"": batch.rows.num_rows})}
        for name in features:
            counts[name] = pd.Series(lists(batch.rows, name).values.to_pylist(), dtype=object).value_counts()
        yield counts


def _add(several: Iterable[Counted]) -> Counted:
    together: dict[str, list[Any]] = {}
    for counted in several:
        for name, counts in counted.items():
            together.setdefault(name, []).append(counts)
    return {name: pd.concat(counts).groupby(level=0).sum() for name, counts in together.items()}


def _write(counted: Counted, most_values: Mapping[str, int], path: str) -> None:
    kept_values = {}
    for name, most in most_values.items():
        counts = counted.get(name, pd.Series(dtype=int))
        # Ties are broken by the order of bytes.
        commonest = sorted(zip(counts.index, counts, strict=True), key=lambda pair: (-pair[1], pair[0]))[:most]
        kept_values[name] = [value.hex() for value, _ in commonest]
    interactions = int(counted[CANDIDATE_ID].sum()) if CANDIDATE_ID in counted else 0
    text = json.dumps({"interactions": interactions, "kept_values": kept_values})
    write_whole(path, text.encode())
