"""Merges what the shards of a catalogue answer to the answer that one index would give."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndr_client import served

Answer = tuple[NDArray[Any], NDArray[np.float32]]
"""Found items: [batch, n] ids as bytes objects, b"" for no item, and as many scores."""


def merged(answers: Sequence[Answer], k: NDArray[np.int32]) -> Answer:
    """Return the best of the items that several shards found, the best first; of equal scores, the lower id.

    Args:
        answers: of each shard.
        k: [batch], the number of items of each query.

    Returns:
        [batch, largest k] ids and scores; fewer columns if the shards found fewer items together.
    """
    all_ids, all_scores = (np.concatenate(arrays, axis=1) for arrays in zip(*answers, strict=True))
    order = np.argsort(-all_scores, axis=1, kind="stable")
    all_ids, all_scores = (np.take_along_axis(array, order, axis=1) for array in (all_ids, all_scores))
    has_ties = ((np.diff(all_scores, axis=1) == 0) & (all_scores[:, 1:] > served.NO_SCORE)).any(axis=1)
    for row in np.flatnonzero(has_ties).tolist():
        items, values = all_ids[row], all_scores[row]
        places = sorted(range(len(items)), key=lambda place: (-values[place], items[place]))
        all_ids[row], all_scores[row] = items[places], values[places]
    width = min(int(k.max(initial=0)), all_ids.shape[1])
    beyond = np.arange(width) >= k[:, np.newaxis]
    all_ids, all_scores = all_ids[:, :width], all_scores[:, :width]
    return np.where(beyond, served.NO_ITEM.encode(), all_ids), np.where(beyond, np.float32(served.NO_SCORE), all_scores)
