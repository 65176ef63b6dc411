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
from ndr_client.served import DEEPEST_SHARE, NO_SCORE, PROBE_GROWTH

BLOCK = 32  # rows: larger blocks are padded with more, smaller ones are more to gather
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

    A list is a slice of consecutive rows, kept in blocks of its own, of which the last is padded. One operation gathers the blocks
    of a query's lists, and one product scores them. Queries are processed one by one, so that only the lists of a few are in
    memory.

    The depth of a query is k or, if a share s of the items passes its filter, k / s: so deep among all items are the first k that
    pass. A query that is deeper than `tuned_at` probes more lists, by its depth to the power of `PROBE_GROWTH`, and one that is
    also deeper than a share of `DEEPEST_SHARE` of all items is compared with all that pass. So is a query with a filter if that is
    less work than the lists, and if the probed lists have fewer than k items that pass, although there are more.

    Args:
        embeddings: [items, width].
        lists: the division into lists.
        probes: the number of lists to probe.
        tuned_at: the number of best items of which the probed lists hold enough.
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
        tuned_at: int,
        vectors: str = "float32",
    ) -> None:
        super().__init__()
        self.order = lists.order
        self.probes = probes
        self._tuned_at = tuned_at
        self._parallel = len(os.sched_getaffinity(0))
        blocks = -(-lists.sizes // BLOCK)
        ends = np.cumsum(blocks)
        self.centroids = tf.Variable(lists.centroids, trainable=False, name="centroids")
        self.bounds = tf.Variable(np.stack([ends - blocks, ends]).astype(np.int32), trainable=False, name="bounds")
        # The last block is padding, so that there is one to gather if the probed lists are empty.
        rows = np.full((int(ends[-1]) + 1) * BLOCK, NOTHING, np.int32)
        starts = np.cumsum(lists.sizes) - lists.sizes
        slots = np.arange(len(lists.order)) + np.repeat((ends - blocks) * BLOCK - starts, lists.sizes)
        rows[slots] = np.arange(len(slots))
        self.rows = tf.Variable(rows.reshape(-1, BLOCK), trainable=False, name="rows")
        self.slots = tf.Variable(slots.astype(np.int32), trainable=False, name="slots")
        padded = np.zeros((len(rows), embeddings.shape[1]), np.float32)
        padded[slots] = embeddings[lists.order]
        self.steps = None
        if vectors == "int8":
            steps = np.maximum(np.abs(padded).max(axis=1), np.finfo(np.float32).tiny) / 127
            padded = np.rint(padded / steps[:, np.newaxis]).astype(np.int8)
            self.steps = tf.Variable(steps.reshape(-1, BLOCK), trainable=False, name="steps")
        blocks_of_vectors = padded.reshape(-1, BLOCK, padded.shape[1])
        self.vectors = tf.Variable(tf.cast(blocks_of_vectors, vectors), trainable=False, name="vectors")

    def __call__(self, queries: tf.Tensor, k: tf.Tensor, passing: Passing | None = None) -> Found:
        """Search; see the module."""
        # Read once, as a whole: a gather from the variable would turn every later read of it into a copy.
        blocks, bounds, rows, slots = (
            variable.read_value() for variable in (self.vectors, self.bounds, self.rows, self.slots)
        )
        steps = None if self.steps is None else self.steps.read_value()
        nearest = tf.matmul(queries, self.centroids, transpose_b=True)

        def in_blocks(query: tf.Tensor, numbers: tf.Tensor | None, mask: tf.Tensor | None = None) -> Found:
            """Search blocks, at least one; None for all."""
            vectors, of_blocks, of_steps = (
                tensor if tensor is None or numbers is None else tf.gather(tensor, numbers)
                for tensor in (blocks, rows, steps)
            )
            of_blocks = tf.reshape(of_blocks, [-1])
            scores = _products(tf.reshape(vectors, [-1, blocks.shape[2]]), query)
            if of_steps is not None:
                scores *= tf.reshape(of_steps, [-1])
            passes = of_blocks >= 0
            if mask is not None:
                passes &= tf.gather(mask, tf.maximum(of_blocks, 0))
            hits = best(tf.where(passes, scores, NO_SCORE), k)
            found_rows = tf.gather(of_blocks, tf.maximum(hits.rows, 0))
            return Found(hits.scores, tf.where(hits.rows >= 0, found_rows, NOTHING))

        def in_lists(query: tf.Tensor, probes: tf.Tensor, mask: tf.Tensor | None = None) -> Found:
            starts, ends = tf.unstack(tf.gather(bounds, probes, axis=1))
            numbers = tf.ragged.range(starts, ends).flat_values
            return in_blocks(query, tf.concat([numbers, [blocks.shape[0] - 1]], axis=0), mask)

        def of_passing(query: tf.Tensor, probes: tf.Tensor, mask: tf.Tensor, left: tf.Tensor) -> Found:
            def in_all_that_pass() -> Found:
                passing_rows = tf.cast(tf.where(mask)[:, 0], tf.int32)
                places = tf.gather(slots, passing_rows)
                scores = _products(tf.gather(tf.reshape(blocks, [-1, blocks.shape[2]]), places), query)
                hits = best(scores if steps is None else scores * tf.gather(tf.reshape(steps, [-1]), places), k)
                padded = tf.concat([passing_rows, [NOTHING]], axis=0)  # so that there is one row if nothing passes
                return Found(hits.scores, tf.gather(padded, tf.where(hits.rows >= 0, hits.rows, left)))

            def in_lists_first() -> Found:
                hits = in_lists(query, probes, mask)
                is_short = tf.math.count_nonzero(hits.rows >= 0, dtype=tf.int32) < tf.minimum(k, left)
                return tf.cond(is_short, in_all_that_pass, lambda: hits)

            share = tf.cast(left, tf.float32) / len(self.order)
            is_little = share * self.bounds.shape[1] <= tf.cast(tf.size(probes), tf.float32)
            return tf.cond(is_little | self._is_deep(self._depth(k, left)), in_all_that_pass, in_lists_first)

        shape = Found(tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.int32))
        # The nearest list first: after it few scores are among the best so far, and top_k skips the others at once.
        if passing is not None:
            masks, left, number = passing
            probes = self._probes_at(self._depth(k, left))
            nearest_lists = tf.math.top_k(nearest, tf.reduce_max(probes)).indices
            return tf.map_fn(
                lambda entry: of_passing(entry[0], entry[1][: probes[entry[2]]], masks[entry[2]], left[entry[2]]),
                (queries, nearest_lists, number),
                fn_output_signature=shape,
                parallel_iterations=self._parallel,
            )

        nearest_lists = tf.math.top_k(nearest, self._probes_at(tf.cast(k, tf.float32))).indices

        def alone() -> Found:
            hits = in_lists(queries[0], nearest_lists[0])
            return Found(hits.scores[tf.newaxis], hits.rows[tf.newaxis])

        def side_by_side() -> Found:
            return tf.map_fn(
                lambda entry: in_lists(*entry),
                (queries, nearest_lists),
                fn_output_signature=shape,
                parallel_iterations=self._parallel,
            )

        return tf.cond(
            self._is_deep(tf.cast(k, tf.float32)),
            lambda: tf.map_fn(
                lambda query: in_blocks(query, None), queries, fn_output_signature=shape, parallel_iterations=1
            ),
            # A loop over one query costs a tenth of the search.
            lambda: tf.cond(tf.shape(queries)[0] == 1, alone, side_by_side),
        )

    def _depth(self, k: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
        """Return how deep among all items the first k of those that are left may be, float32."""
        return tf.cast(k, tf.float32) * len(self.order) / tf.maximum(tf.cast(left, tf.float32), 1.0)

    def _is_deep(self, depth: tf.Tensor) -> tf.Tensor:
        """Return whether queries of float32 depths are compared with all items."""
        return depth > max(DEEPEST_SHARE * len(self.order), self._tuned_at)

    def _probes_at(self, depth: tf.Tensor) -> tf.Tensor:
        """Map float32 depths of queries to int32 numbers of lists."""
        times = tf.maximum(depth / self._tuned_at, 1.0) ** PROBE_GROWTH
        return tf.cast(tf.minimum(tf.math.ceil(self.probes * times), float(self.bounds.shape[1])), tf.int32)

    def scores(self, queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Score rows; see `Search`. Works whatever lists the items are in."""
        places = tf.gather(self.slots.read_value(), rows)
        blocks = self.vectors.read_value()
        products = _products_of_rows(tf.reshape(blocks, [-1, blocks.shape[2]]), queries, places)
        if self.steps is None:
            return products
        return products * tf.gather(tf.reshape(self.steps.read_value(), [-1]), places)


def best(scores: tf.Tensor, k: tf.Tensor) -> Found:
    """Return the best k of [..., rows] scores, [..., k]."""
    top = tf.math.top_k(scores, tf.minimum(k, tf.shape(scores)[-1]))
    rows = tf.where(top.values > NO_SCORE, top.indices, NOTHING)
    missing = k - tf.shape(top.values)[-1]
    padding = [[0, 0]] * (scores.shape.rank - 1) + [[0, missing]]
    return Found(tf.pad(top.values, padding, constant_values=NO_SCORE), tf.pad(rows, padding, constant_values=NOTHING))


def _products_of_rows(vectors: tf.Tensor, queries: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(tf.cast(tf.gather(vectors, rows), tf.float32), queries)


def _products(vectors: tf.Tensor, query: tf.Tensor) -> tf.Tensor:
    """Multiply [rows, width] and [width] to [rows] float32; the query comes first, as the other order takes four times as long."""
    return tf.matmul(query[tf.newaxis], tf.cast(vectors, tf.float32), transpose_b=True)[0]
