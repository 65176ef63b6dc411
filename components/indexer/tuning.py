"""Finds the number of lists that a search must probe to find what exact search finds."""

from collections.abc import Callable
from functools import cache

import faiss
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer.search import ListSearch, Search

BATCH = 256
LOWER_END = 1.96  # standard errors below the mean
TIE = 1e-6  # scores this close count as equal, as in `components.evaluator.ranking`


def tune(
    search: ListSearch,
    embeddings: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    target: float,
    most: int,
) -> float:
    """Set a search's probes to the fewest lists that reach a recall, measured with the search itself.

    They reach it on these queries and, at the lower end of a 95 % interval, on other queries of the same kind.

    Args:
        search: over the embeddings; its `probes` are set.
        embeddings: [items, width].
        queries: [queries, width], at least one.
        k: the number of exact first items to find.
        target: the share of them.
        most: the maximum number of lists to probe, if none reaches the target.

    Returns:
        The recall that was reached.
    """
    exact = exact_scores(embeddings, queries, k)

    @cache
    def found_with(probes: int) -> NDArray[np.float64]:
        search.probes = probes
        return recalls(search, embeddings, queries, exact)

    def reaches(probes: int) -> bool:
        shares = found_with(probes)
        return bool(shares.mean() - LOWER_END * shares.std() / np.sqrt(len(shares)) >= target)

    search.probes = fewest(reaches, most)
    return float(found_with(search.probes).mean())


def fewest(enough: Callable[[int], bool], most: int) -> int:
    """Return the smallest number from 1 to `most` that is enough, if more is never worse; `most` if none is."""
    high = 1
    while high < most and not enough(high):
        high = min(most, 2 * high)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def exact_scores(embeddings: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Return [queries, k] scores of the exact first items, the best first; fewer if there are fewer items."""
    scores: NDArray[np.float32] = faiss.knn(
        queries, embeddings, min(k, len(embeddings)), metric=faiss.METRIC_INNER_PRODUCT
    )[0]
    return scores


def recalls(
    search: Search, embeddings: NDArray[np.float32], queries: NDArray[np.float32], exact: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return [queries] shares of the exact first items that a search finds.

    Found items count by their true score: among items tied for the last place any will do.

    Args:
        search: of the embeddings.
        embeddings: [items, width].
        queries: [queries, width].
        exact: see `exact_scores`.
    """
    k = exact.shape[1]
    # k is an argument, as it is served: of conditions on a constant TensorFlow leaves loops that its optimizer cannot sort.
    traced = tf.function(
        lambda batch, k: search(batch, k).rows,
        autograph=False,
        input_signature=[tf.TensorSpec([None, queries.shape[1]], tf.float32), tf.TensorSpec([], tf.int32)],
    )
    batches = (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))
    rows = np.concatenate([traced(tf.constant(batch), tf.constant(k)).numpy() for batch in batches])
    scores = np.einsum("qw,qkw->qk", queries, embeddings[search.order[rows]])
    right = (rows >= 0) & (scores >= exact[:, -1:] - TIE)
    shares: NDArray[np.float64] = right.mean(axis=1)
    return shares
