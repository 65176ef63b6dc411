"""Exact ranks of true items among a whole catalogue, and its exact first items, by blocked matrix products."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.evaluator.block_search import BlockSearch, blocks_of, scan, shard_rows
from components.evaluator.query_items import Bonuses, Excluded, not_counted


class Ranks(NamedTuple):
    """Ranks of true items, with ties left open.

    Attributes:
        above: [queries] int64, the number of items with a higher score than the true one.
        tied: [queries] int64, the number of other items with the same score.
    """

    above: NDArray[np.int64]
    tied: NDArray[np.int64]


def rank_by_embedding(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    true_rows: NDArray[np.int64],
    excluded: Excluded | None = None,
    bonuses: Bonuses | None = None,
) -> Ranks:
    """Rank each query's true item by inner product plus bonus.

    NaN never helps: an item with a NaN score ranks above the true item; a true item with one ranks last.

    Args:
        queries: [queries, width].
        items: [items, width], the whole catalogue.
        true_rows: [queries], the row of each query's true item in `items`.
        excluded: items that are not ranked.
        bonuses: added to the scores; None for none.

    Raises:
        ValueError: shapes do not fit, or the catalogue lacks a row.
    """
    return rank_and_retrieve(queries, items, true_rows, 0, excluded, bonuses)[0]


def rank_and_retrieve(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    true_rows: NDArray[np.int64],
    k: int,
    excluded: Excluded | None = None,
    bonuses: Bonuses | None = None,
) -> tuple[Ranks, NDArray[np.int64]]:
    """Compute `rank_by_embedding` and `top_rows` with one product.

    Args:
        queries: see `rank_by_embedding`.
        items: see `rank_by_embedding`.
        true_rows: see `rank_by_embedding`.
        k: the number of first items; 0 for none.
        excluded: items that are neither ranked nor retrieved.
        bonuses: see `rank_by_embedding`.

    Raises:
        ValueError: shapes do not fit, or the catalogue lacks a row.
    """
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(f"expected queries and items of one width, received {queries.shape} and {items.shape}")
    left_out = not_counted(true_rows, len(items), excluded)
    true_scores = np.einsum("qw,qw->q", queries, items[true_rows])
    if bonuses is not None:
        true_scores += bonuses.of_items(true_rows)
    blocks = []
    for chosen in blocks_of(len(queries)):
        true_items = (true_rows[chosen], true_scores[chosen])
        of_block = left_out.of(chosen[0], chosen[-1] + 1)
        blocks.append(
            BlockSearch(
                queries[chosen],
                items,
                excluded and excluded.of(chosen),
                bonuses and bonuses.of(chosen),
                true_items,
                k,
                of_block,
            )
        )
    scan(blocks, items)
    counts = np.concatenate([np.zeros((2, 0), np.int64), *(block.counts for block in blocks)], axis=1)
    retrieved = np.concatenate([np.zeros((0, k), np.int64), *(block.first() for block in blocks)])
    not_above, below = counts
    ranked = len(items) - left_out.number
    nowhere = ~np.isfinite(true_scores)
    # Items that are not counted have the lowest score, so they are below.
    above = np.where(nowhere, ranked, len(items) - not_above)
    return Ranks(above, np.where(nowhere, 0, not_above - below)), retrieved


def rank_by_score(scores: NDArray[np.float64], true_rows: NDArray[np.int64], excluded: Excluded | None = None) -> Ranks:
    """Rank each query's true item by a score that is the same for every query, such as popularity.

    Args:
        scores: [items], the whole catalogue.
        true_rows: [queries], the row of each query's true item in `scores`.
        excluded: items that are not ranked.

    Raises:
        ValueError: the catalogue lacks a row.
    """
    left_out = not_counted(true_rows, len(scores), excluded)
    true_scores = scores[true_rows]
    ascending = np.sort(scores)
    first = np.searchsorted(ascending, true_scores, side="left")
    after = np.searchsorted(ascending, true_scores, side="right")
    theirs, of_true = scores[left_out.rows], true_scores[left_out.queries]
    above = len(scores) - after - left_out.sums(theirs > of_true)
    tied = after - first - left_out.sums(theirs == of_true)
    return Ranks(above.astype(np.int64), tied.astype(np.int64))


def top_rows(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    k: int,
    excluded: Excluded | None = None,
    bonuses: Bonuses | None = None,
) -> NDArray[np.int64]:
    """Return the exact first k items of each query by inner product plus bonus.

    Among items with equal scores, lower rows come first. An item with a NaN score is not retrieved.

    Args:
        queries: [queries, width].
        items: [items, width].
        k: the number of items.
        excluded: items that are not retrieved.
        bonuses: added to the scores; None for none.

    Returns:
        [queries, k] int64 rows of `items`, the best first; -1 for none.
    """
    if not k or not len(items):
        return np.full((len(queries), k), -1, np.int64)
    blocks = []
    for chosen in blocks_of(len(queries)):
        left_out = excluded and excluded.of(chosen)
        pairs = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        if left_out:
            order = np.argsort(left_out.rows, kind="stable")
            pairs = (left_out.rows[order], left_out.queries[order])
        blocks.append(BlockSearch(queries[chosen], items, left_out, bonuses and bonuses.of(chosen), None, k, pairs))
    scan(blocks, items)
    return np.concatenate([np.zeros((0, k), np.int64), *(block.first() for block in blocks)])


def top_among(
    queries: NDArray[np.float32], items: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """Return the exact first items of each query among some, at most one shard of them in memory.

    Args:
        queries: [queries, width].
        items: [items, width], finite.
        rows: of the items, ascending.
        k: the number of items.

    Returns:
        [queries, k] int64 rows of `items`, the best first; fewer columns if there are fewer rows.
    """
    best = np.zeros((len(queries), 0), np.int64)
    step = shard_rows(items)
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        top = some[top_rows(queries, items[some], min(k, len(some)))]
        best = np.concatenate([best, top], axis=1)
        scores = np.einsum("qw,qkw->qk", queries, items[best])
        best = np.take_along_axis(best, np.argsort(-scores, axis=1, kind="stable")[:, :k], axis=1)
    return best
