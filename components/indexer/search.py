"""Searches by inner product in plain TensorFlow operations, which stock TF Serving has: over all items, or by inverted lists (IVF).

Both kinds are called with queries, [batch, width] float32, `k`, a scalar int32 of at least 1, and optionally the items that pass
the queries' filters; they return `Found`.
"""

import os
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer.faiss_index import InvertedLists
from components.indexer.filters import Passing
from ndr_client.served import NO_SCORE

BLOCK = 16  # rows: larger blocks copy more of other lists, smaller ones are more to gather
NOTHING = -1  # the row of no item


class Found(NamedTuple):
    """The best items of each query.

    Attributes:
        scores: [batch, k] float32, descending; `NO_SCORE` for no item.
        rows: [batch, k] int32; `NOTHING` for no item.
    """

    scores: tf.Tensor
    rows: tf.Tensor


class Search(Protocol):
    """A search, and the order of its rows."""

    order: NDArray[np.int64]

    def __call__(self, queries: tf.Tensor, k: tf.Tensor, passing: Passing | None = None) -> Found:
        """Return the best k items of each query, among those that pass."""

    def scores(self, queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Map [queries, n] int32 rows to [queries, n] float32, the inner products of each query with its rows' items."""


class ExactSearch(tf.Module):
    """Compares a query with every item. Among equal scores, the lower row comes first.

    Args:
        embeddings: [items, width].

    Attributes:
        order: [items] int64, the row in `embeddings` of each of the search's rows: the identity.
    """

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        super().__init__()
        self.order = np.arange(len(embeddings))
        self.vectors = tf.Variable(embeddings, trainable=False, name="vectors")

    def __call__(self, queries: tf.Tensor, k: tf.Tensor, passing: Passing | None = None) -> Found:
        """Search; see the module."""
        scores = tf.matmul(queries, self.vectors, transpose_b=True)
        if passing is not None:
            scores = tf.where(tf.gather(passing.masks, passing.number), scores, NO_SCORE)
        return best(scores, k)

    def scores(self, queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Score rows; see `Search`."""
        return _products_of_rows(self.vectors.read_value(), queries, rows)


class ListSearch(tf.Module):
    """Compares a query with the items of the lists whose centroids have the largest inner products with it.

    A list is a slice of consecutive rows. One operation gathers the lists of a query in blocks of rows, and one product scores
    them; the rows of other lists in the first and the last block of a list are masked. Queries are processed one by one, so
    that only the lists of a few are in memory.

    A query with a selective filter is compared with all passing items: if that is less work than the lists; if the first k
    passing items would be deeper than the first `deepest` of all (k / s for a passing share s); and if the probed lists
    have fewer than k passing items, although there are more.

    Args:
        embeddings: [items, width].
        lists: the division into lists.
        probes: the number of lists to probe.
        deepest: for more items than this a query is compared with all: the probed lists would not hold enough of the best.
        vectors: `float32`, `bfloat16` or `int8`: the format of the embeddings. int8 counts in steps of a 127th of the item's
            largest value, which is stored with it.

    Attributes:
        order: [items] int64, the row in `embeddings` of each of the search's rows.
        probes: as given; may be changed until the search is first called in a graph.
    """

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        lists: InvertedLists,
        probes: int,
        deepest: int,
        vectors: str = "float32",
    ) -> None:
        super().__init__()
        self.order = lists.order
        self.probes = probes
        self._deepest = deepest
        self._parallel = len(os.sched_getaffinity(0))
        ends = np.cumsum(lists.sizes)
        self.centroids = tf.Variable(lists.centroids, trainable=False, name="centroids")
        self.bounds = tf.Variable(np.stack([ends - lists.sizes, ends]).astype(np.int32), trainable=False, name="bounds")
        kept = embeddings[lists.order]
        self.steps = None
        if vectors == "int8":
            steps = np.maximum(np.abs(kept).max(axis=1), np.finfo(np.float32).tiny) / 127
            kept = np.rint(kept / steps[:, np.newaxis]).astype(np.int8)
            self.steps = tf.Variable(steps, trainable=False, name="steps")
        blocks = np.pad(kept, [(0, -len(kept) % BLOCK), (0, 0)]).reshape(-1, BLOCK, kept.shape[1])
        self.vectors = tf.Variable(tf.cast(blocks, vectors), trainable=False, name="vectors")

    def __call__(self, queries: tf.Tensor, k: tf.Tensor, passing: Passing | None = None) -> Found:
        """Search; see the module."""
        # Read once, as a whole: a gather from the variable would turn every later read of it into a copy.
        blocks, bounds = self.vectors.read_value(), self.bounds.read_value()
        vectors = self._rows(blocks)
        steps = None if self.steps is None else self.steps.read_value()
        nearest = tf.matmul(queries, self.centroids, transpose_b=True)
        # Pads the results of the lists, which may be fewer than k.
        no_scores, nothing = tf.fill([k], NO_SCORE), tf.fill([k], NOTHING)

        def in_all(query: tf.Tensor) -> Found:
            products = _products(vectors, query)
            return best(products if steps is None else products * steps, k)

        def in_lists(query: tf.Tensor, probes: tf.Tensor, mask: tf.Tensor | None = None) -> Found:
            starts, ends = tf.unstack(tf.gather(bounds, probes, axis=1))
            numbers = tf.ragged.range(starts // BLOCK, (ends + BLOCK - 1) // BLOCK)  # of blocks, by list
            of_lists, numbers = numbers.value_rowids(), numbers.flat_values
            rows = numbers[:, tf.newaxis] * BLOCK + tf.range(BLOCK)
            starts, ends = (tf.gather(each, of_lists)[:, tf.newaxis] for each in (starts, ends))
            is_theirs = tf.reshape((rows >= starts) & (rows < ends), [-1])
            rows = tf.minimum(tf.reshape(rows, [-1]), len(self.order) - 1)  # the last block is padded
            products = _products(tf.reshape(tf.gather(blocks, numbers), [-1, blocks.shape[2]]), query)
            scores = products if steps is None else products * tf.gather(steps, rows)
            passes = is_theirs if mask is None else is_theirs & tf.gather(mask, rows)
            scores = tf.where(passes, scores, NO_SCORE)
            found = tf.math.top_k(tf.concat([scores, no_scores], axis=0), k)
            found_rows = tf.gather(tf.concat([rows, nothing], axis=0), found.indices)
            return Found(found.values, tf.where(found.values > NO_SCORE, found_rows, NOTHING))

        def of_passing(query: tf.Tensor, probes: tf.Tensor, mask: tf.Tensor, left: tf.Tensor) -> Found:
            def in_all_that_pass() -> Found:
                rows = tf.cast(tf.where(mask)[:, 0], tf.int32)
                products = _products(tf.gather(vectors, rows), query)
                found = best(products if steps is None else products * tf.gather(steps, rows), k)
                places = tf.minimum(tf.maximum(found.rows, 0), tf.maximum(left - 1, 0))
                padded = tf.concat([rows, nothing[:1]], axis=0)  # so that there is one row if nothing passes
                return Found(found.scores, tf.where(found.rows >= 0, tf.gather(padded, places), NOTHING))

            def in_lists_first() -> Found:
                found = in_lists(query, probes, mask)
                is_short = tf.math.count_nonzero(found.rows >= 0, dtype=tf.int32) < tf.minimum(k, left)
                return tf.cond(is_short, in_all_that_pass, lambda: found)

            share = tf.cast(left, tf.float32) / len(self.order)
            is_little = share <= self.probes / self.bounds.shape[1]
            is_deep = tf.cast(k, tf.float32) > share * self._deepest
            return tf.cond(is_little | is_deep, in_all_that_pass, in_lists_first)

        shape = Found(tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.int32))
        # The nearest list first: after it few scores are among the best so far, and top_k skips the others at once.
        nearest_lists = tf.math.top_k(nearest, self.probes).indices

        if passing is not None:
            masks, left, number = passing
            return tf.map_fn(
                lambda each: of_passing(each[0], each[1], masks[each[2]], left[each[2]]),
                (queries, nearest_lists, number),
                fn_output_signature=shape,
                parallel_iterations=self._parallel,
            )

        def alone() -> Found:
            found = in_lists(queries[0], nearest_lists[0])
            return Found(found.scores[tf.newaxis], found.rows[tf.newaxis])

        def side_by_side() -> Found:
            return tf.map_fn(
                lambda each: in_lists(*each),
                (queries, nearest_lists),
                fn_output_signature=shape,
                parallel_iterations=self._parallel,
            )

        return tf.cond(
            k > self._deepest,
            lambda: tf.map_fn(in_all, queries, fn_output_signature=shape, parallel_iterations=1),
            lambda: tf.cond(
                tf.shape(queries)[0] == 1, alone, side_by_side
            ),  # a loop over one query costs a tenth of the search
        )

    def _rows(self, blocks: tf.Tensor) -> tf.Tensor:
        """Return [blocks, BLOCK, width] as [items, width]."""
        return tf.reshape(blocks, [-1, blocks.shape[2]])[: len(self.order)]

    def scores(self, queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Score rows; see `Search`. Works whatever lists the items are in."""
        products = _products_of_rows(self._rows(self.vectors.read_value()), queries, rows)
        return products if self.steps is None else products * tf.gather(self.steps.read_value(), rows)


def best(scores: tf.Tensor, k: tf.Tensor) -> Found:
    """Return the best k of [..., rows] scores, [..., k]."""
    found = tf.math.top_k(scores, tf.minimum(k, tf.shape(scores)[-1]))
    rows = tf.where(found.values > NO_SCORE, found.indices, NOTHING)
    missing = k - tf.shape(found.values)[-1]
    padding = [[0, 0]] * (scores.shape.rank - 1) + [[0, missing]]
    return Found(
        tf.pad(found.values, padding, constant_values=NO_SCORE), tf.pad(rows, padding, constant_values=NOTHING)
    )


def _products_of_rows(vectors: tf.Tensor, queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(tf.cast(tf.gather(vectors, rows), tf.float32), queries)


def _products(vectors: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
    """Multiply [rows, width] and [width] to [rows] float32."""
    return tf.matmul(tf.cast(vectors, tf.float32), query[:, tf.newaxis])[:, 0]
