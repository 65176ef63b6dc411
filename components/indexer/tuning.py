"""How many lists a search must look at to find what exact search finds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import faiss
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer.faiss_index import InvertedLists
from components.indexer.search import ListSearch, Search

BATCH = 256
TIE = 1e-6  # as `components.evaluator.ranking` counts scores as equal


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        probes: lists that are looked at.
        recall: the share of the exact first items that is found with them.
        queries: how many it was measured on.
    """

    probes: int
    recall: float
    queries: int


def tune(
    embeddings: NDArray[np.float32],
    lists: InvertedLists,
    queries: NDArray[np.float32],
    k: int,
    target: float,
    vectors: str,
    most: int,
) -> Tuned:
    """The fewest probes that reach a recall, measured with the search that is served.

    Args:
        embeddings: [items, width].
        lists: how they are divided.
        queries: [queries, width], at least one.
        k: the exact first so many items are to be found.
        target: the share of them.
        vectors: see `ListSearch`.
        most: probes that may be taken. Where they do not reach the target, these are what is returned.
    """
    exact = exact_scores(embeddings, queries, k)

    @cache
    def recall_with(probes: int) -> float:
        return recall(ListSearch(embeddings, lists, probes, vectors), embeddings, queries, exact)

    probes = fewest(lambda probes: recall_with(probes) >= target, most)
    return Tuned(probes, recall_with(probes), len(queries))


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


def recall(
    search: Search, embeddings: NDArray[np.float32], queries: NDArray[np.float32], exact: NDArray[np.float32]
) -> float:
    """The mean share of the exact first items that a search finds.

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
        input_signature=[tf.TensorSpec([None, queries.shape[1]], tf.float32)],
    )
    batches = (queries[start : start + BATCH] for start in range(0, len(queries), BATCH))
    rows = np.concatenate([found(tf.constant(batch)).numpy() for batch in batches])
    scores = np.einsum("qw,qkw->qk", queries, embeddings[search.order[rows]])
    right = (rows >= 0) & (scores >= exact[:, -1:] - TIE)
    return float(right.mean())
