"""Exact ranks among a million items: how much of a plain product's speed is left, and how much memory it takes.

The plain product multiplies the same queries by the same items in blocks of the same shape and throws the scores away. FAISS's
exact search for the first 100 is the peer that a person would use instead; it says who is first, not where the true item stands.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks import common
from components.evaluator.block_search import BLOCK_QUERIES
from components.evaluator.query_items import Excluded
from components.evaluator.ranking import rank_by_embedding, top_rows

WIDTH = 64
SEEN = 20
TOP = 100
PLAIN_ITEMS = 8192  # the block at which NumPy's product is fastest with all its threads


def unit(count: int, seed: int) -> NDArray[np.float32]:
    """[count, WIDTH] random unit vectors."""
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain_product(queries: NDArray[np.float32], items: NDArray[np.float32]) -> None:
    """All scores, a block at a time."""
    scores = np.empty((PLAIN_ITEMS, BLOCK_QUERIES), np.float32)
    for first in range(0, len(queries), BLOCK_QUERIES):
        columns = np.ascontiguousarray(queries[first : first + BLOCK_QUERIES].T)
        for start in range(0, len(items), PLAIN_ITEMS):
            block = items[start : start + PLAIN_ITEMS]
            np.matmul(block, columns, out=scores[: len(block), : columns.shape[1]])


def excluded(queries: int, items: int) -> Excluded:
    """As many items as a history has, for each query."""
    rows = np.random.default_rng(3).integers(0, items, queries * SEEN)
    return Excluded(np.arange(queries + 1) * SEEN, rows)


def ranking_alone(queries: int, items: int, answer: Any) -> None:
    """Measure a process that only ranks."""
    rows = np.random.default_rng(2).integers(0, items, queries)
    rank_by_embedding(unit(queries, 0), unit(items, 1), rows, excluded(queries, items))
    answer.put(common.peak_gib())


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--items", type=int, default=1_000_000)
    arguments.add_argument("--queries", type=int, default=10_000)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    count = options.queries, options.items
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    child = context.Process(target=ranking_alone, args=(*count, answer))
    child.start()
    peak = answer.get()
    child.join()

    queries, items = unit(options.queries, 0), unit(options.items, 1)
    true_rows = np.random.default_rng(2).integers(0, options.items, options.queries)
    seen = excluded(*count)
    calls: dict[str, Callable[[], Any]] = {
        "plain product": lambda: plain_product(queries, items),
        "ranks": lambda: rank_by_embedding(queries, items, true_rows),
        "ranks, history excluded": lambda: rank_by_embedding(queries, items, true_rows, seen),
        f"FAISS, exact first {TOP}": lambda: faiss.knn(queries, items, TOP, metric=faiss.METRIC_INNER_PRODUCT),
        f"first {TOP}, history excluded": lambda: top_rows(queries, items, TOP, seen),
    }
    seconds = common.interleaved(calls, options.rounds, warm_up=1)
    work = 2.0 * options.queries * options.items * WIDTH / 1e9
    figures = {name: {"seconds": each, "gflops": work / common.median(each)} for name, each in seconds.items()}
    plain = seconds["plain product"]
    shares = {name: common.median([p / s for p, s in zip(plain, each, strict=True)]) for name, each in seconds.items()}
    common.show(
        f"{options.queries:,} queries x {options.items:,} items x {WIDTH}",
        ["", "seconds", "GFLOP/s", "of the plain product's"],
        [
            [name, f"{common.median(each):.2f}", f"{figures[name]['gflops']:.0f}", f"{shares[name]:.0%}"]
            for name, each in seconds.items()
        ],
    )
    common.conclude(
        options.json,
        {
            "items": options.items,
            "queries": options.queries,
            "width": WIDTH,
            "excluded": SEEN,
            "rounds": options.rounds,
        },
        {**figures, "shares": shares},
        {"gflops_share": shares["ranks"], "peak_gib": peak},
    )


if __name__ == "__main__":
    main()
