"""Assigns held-out interactions to slices (`components.evaluator.names`)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import ragged
from components.evaluator.names import HISTORY_LENGTH, SLICES

HISTORY_EDGES = (1, 5, 20)
OTHER = "(other)"
NONE = "(none)"
HEAD, TORSO = 0.5, 0.9


def feature(name: str) -> str:
    """Return the feature of a ranked example that holds its slice; the pipeline's own features begin with an underscore."""
    return f"_by_{name}"


def popularity_parts(counts: NDArray[np.int64]) -> NDArray[np.str_]:
    """Map [items] interactions of each item to head, torso or tail, [items] names; an item on a border is in the upper part."""
    order = np.argsort(-counts, kind="stable")
    before = np.empty(len(order))
    before[order] = np.cumsum(counts[order]) - counts[order]
    share = before / max(1, counts.sum())
    return np.where(counts == 0, "tail", np.where(share < HEAD, "head", np.where(share < TORSO, "torso", "tail")))


def history_lengths(lengths: NDArray[np.int64]) -> NDArray[np.str_]:
    """Map [queries] lengths of histories to [queries] names."""
    return np.array(SLICES[HISTORY_LENGTH])[np.searchsorted(HISTORY_EDGES, lengths, side="right")]


def of_numbers(numbers: pa.ListArray, edges: Sequence[float]) -> pa.ListArray:
    """Map numbers, each a list of one or none, to names of the intervals between edges."""
    written = [f"{edge:g}" for edge in edges]
    names = [
        f"<{written[0]}",
        *(f"{low}-{high}" for low, high in pairwise(written)),
        f">={written[-1]}",
    ]
    values = pc.list_flatten(numbers).to_numpy(zero_copy_only=False)
    intervals = pa.array(np.array(names, object)[np.searchsorted(edges, values, side="right")], pa.binary())
    return _or_none(ragged.from_lengths(ragged.lengths(numbers), intervals))


def of_ids(ids: pa.ListArray, kept_ids: Sequence[bytes]) -> pa.ListArray:
    """Replace ids that are not kept, in lists of any length, by one common name."""
    values = pc.list_flatten(ids).cast(pa.binary())
    replaced = pc.if_else(
        pc.is_in(values, value_set=pa.array(kept_ids, pa.binary())), values, pa.scalar(OTHER.encode())
    )
    return _or_none(ragged.from_lengths(ragged.lengths(ids), replaced))


def _or_none(names: pa.ListArray) -> pa.ListArray:
    """Keep each slice's name once; an interaction without a value has a slice of its own."""
    return pa.array([sorted(set(values)) or [NONE.encode()] for values in names.to_pylist()], pa.list_(pa.binary()))
