"""How many lists a search must look at to find what exact search finds."""

from collections.abc import Callable
from functools import cache

import faiss
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer.search import ListSearch, Search

BATCH = 256
LOWER_END = 1.96  # standard errors below the mean
TIE = 1e-6  # as `components.evaluator.ranking` counts scores as equal


def tune(
    search: ListSearch,
    embeddings: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    target: float,
    most: int,
) -> float:
    """Has a search look at the fewest lists that reach a recall, as measured with itself.

    They reach it on these queries and, at the lower end of a 95 % interval, on others of their kind.

    Args:
        search: over the embeddings; its `probes` are set.
        embeddings: [items, width].
        queries: [queries, width], at least one.
        k: the exact first so many items are to be found.
        target: the share of them.
        most: lists that may be looked at, where they do not reach the target.

    Returns:
        The recall that was reached.
    """
    exact = exact_scores(embeddings, queries, k)

    @cache
    def found_with(probes: int) -> NDArray[np.float64]:
        search.probes = probes
        return recalls(search, embeddings, queries, exact)

    def reaches(probes: int) -> bool:
        found = found_with(probes)
        return bool(found.mean() - LOWER_END * found.std() / np.sqrt(len(found)) >= target)

    search.probes = fewest(reaches, most)
    return float(found_with(search.probes).mean())


def fewest(enough: Callable[[int], bool], most: int) -> int:
    """The smallest number from 1 to `most` that is enough, if more is never worse; `most` where none is."""
    high = 1
    while high < most and not enough(high):
        high = min(most, 2 * high)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def exact_scores(embeddings: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """[queries, k] scores of the exact first items, the best first; fewer where there are not so many items."""
    scores: NDArray[np.float32] = faiss.knn(
        queries, embeddings, min(k, len(embeddings)), metric=faiss.METRIC_INNER_PRODUCT
    )[0]
    return scores


def recalls(
    search: Search, embeddings: NDArray[np.float32], queries: NDArray[np.float32], exact: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[queries] shares of the exact first items that a search finds.

    What it found counts by its true score: of items that score alike on the last place either will do.

    Args:
        search: of the embeddings.
        embeddings: [items, width].
        queries: [queries, width].
        exact: see `exact_scores`.
    """
    k = exact.shape[1]
    found = tf.function(
        lambda batch: search(batch, tf.constant(k)).rows,
        autograph=False,
        input_signature=[tf.TensorSpec([None, queries.shape[1]], tf.float32)],
    )
    batches = (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))
    rows = np.concatenate([found(tf.constant(batch)).numpy() for batch in batches])
    scores = np.einsum("qw,qkw->qk", queries, embeddings[search.order[rows]])
    right = (rows >= 0) & (scores >= exact[:, -1:] - TIE)
    shares: NDArray[np.float64] = right.mean(axis=1)
    return shares
