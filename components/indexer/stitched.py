"""Searches the shards of a catalogue in one graph, and merges what each finds to what one index would find."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer.filters import Passing
from components.indexer.search import Found, Search, best
from ndr_client.served import NO_SCORE


class StitchedSearch(tf.Module):
    """The searches of all shards as one `Search`. Among equal scores, the lower id comes first, as in an `ExactSearch`.

    Its rows are those of the first shard's search, then those of the second's, and so on.

    Args:
        searches: of the shards.
        ids: the ids of each shard's items, ascending.

    Attributes:
        order: [items] int64, the place of each row's item among all ids, ascending.
    """

    def __init__(self, searches: Sequence[Search], ids: Sequence[Sequence[bytes]]) -> None:
        super().__init__()
        self.searches = list(searches)
        self._ends = np.cumsum([len(of_shard) for of_shard in ids]).tolist()
        by_id = np.argsort(np.array([item for of_shard in ids for item in of_shard], object), kind="stable")
        places = np.empty(len(by_id), np.int64)
        places[by_id] = np.arange(len(by_id))
        starts = [0, *self._ends[:-1]]
        self.order: NDArray[np.int64] = np.concatenate(
            [places[start + search.order] for start, search in zip(starts, searches, strict=True)]
        )
        self.places = tf.Variable(self.order.astype(np.int32), trainable=False, name="places")

    def __call__(self, queries: tf.Tensor, k: tf.Tensor, passing: Passing | None = None) -> Found:
        """Search; see `components.indexer.search`."""
        of_shards = [self._of_shard(number, queries, k, passing) for number in range(len(self.searches))]
        return first(Found(*(tf.concat(tensors, axis=1) for tensors in zip(*of_shards, strict=True))), self.places, k)

    def _of_shard(self, number: int, queries: tf.Tensor, k: tf.Tensor, passing: Passing | None) -> Found:
        start, end = self._bounds(number)
        if passing is not None:
            masks = passing.masks[:, start:end]
            passing = Passing(masks, tf.math.count_nonzero(masks, axis=1, dtype=tf.int32), passing.number)
        hits = self.searches[number](queries, k, passing)
        return Found(hits.scores, tf.where(hits.rows >= 0, hits.rows + start, hits.rows))

    def scores(self, queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Score rows; see `Search`."""
        scores = tf.fill(tf.shape(rows), NO_SCORE)
        for number, search in enumerate(self.searches):
            start, end = self._bounds(number)
            shard_scores = search.scores(queries, tf.clip_by_value(rows - start, 0, end - start - 1))
            scores = tf.where((rows >= start) & (rows < end), shard_scores, scores)
        return scores

    def _bounds(self, number: int) -> tuple[int, int]:
        return ([0, *self._ends])[number], self._ends[number]


def first(hits: Found, places: tf.Variable, k: tf.Tensor) -> Found:
    """Return the best k of [batch, n] found items, [batch, k]; among equal scores, those with the lower place.

    Args:
        hits: of the items.
        places: [items] int32, by row.
        k: the number of items.
    """
    of_hits = tf.gather(places.read_value(), tf.maximum(hits.rows, 0))
    by_place = tf.argsort(of_hits, axis=1)
    scores, rows = (tf.gather(tensor, by_place, batch_dims=1) for tensor in hits)
    at = best(scores, k)  # the first of equal scores
    chosen = tf.gather(rows, tf.maximum(at.rows, 0), batch_dims=1)
    return Found(at.scores, tf.where(at.rows >= 0, chosen, at.rows))
