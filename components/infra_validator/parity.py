"""Checks that a served model answers like the trained one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.evaluator.block_search import TIE
from components.evaluator.query_items import Bonuses
from components.evaluator.ranking import top_rows
from components.indexer.files import ItemEmbeddings
from components.trainer.repeats import Repeats
from components.transform.preprocessing import fingerprint
from ndr_client.served import ITEM_TOWER, NO_SCORE, QUERY_TOWER

EMBEDDING_ERROR = 1e-5
"""The allowed difference of two embeddings of the same example: the last bits of sums of products depend on the rest of the
batch."""
SCORE_ERRORS = {"float32": 1e-5, "bfloat16": 2e-2, "int8": 2e-2}
"""The allowed difference of a score from the inner product, by the retriever's vector format. Rounding to multiples of 1/127 gives
products of unit vectors a standard error of 1 / (127 * sqrt(12)) = 0.002: the bound finds wrong items, not rounded ones."""

Embeddings = NDArray[np.float32]


@dataclass
class Differences:
    """Counts differences, for a sentence at the end.

    Attributes:
        what: what is compared, for the sentence.
        asked: the number of comparisons.
        differing: the number of differences.
        largest: the largest difference.
    """

    what: str
    asked: int = 0
    differing: int = 0
    largest: float = 0.0

    def compare(self, left: Embeddings, right: Embeddings, allowed: float) -> None:
        """Compare [batch, values] of both sides. NaN differs from everything."""
        if left.shape != right.shape:
            distances = np.full(len(right), np.inf)
        else:
            distances = np.nan_to_num(np.abs(left - right).max(axis=1, initial=0.0), nan=np.inf)
        self.asked += len(distances)
        self.differing += int((distances > allowed).sum())
        self.largest = max(self.largest, float(distances.max(initial=0.0)))

    def sentences(self) -> Iterator[str]:
        """Yield a sentence if anything differs."""
        if self.differing:
            yield f"{self.what} differ for {self.differing:,} of {self.asked:,}, by up to {self.largest:.3g}"


class Parity:
    """Compares a server's answers with the expected ones, batch by batch.

    Args:
        items: the embeddings that the index was built from.
        is_exact: whether the retriever compares a query with every item.
        vectors: the retriever's vector format.
        finds_all: whether it finds k items wherever k exist, though perhaps not the best; by default, where it is exact.
        least_recall: the share of the exact first items that it must find, on average over the queries; None for any.
    """

    def __init__(
        self,
        items: ItemEmbeddings,
        is_exact: bool,
        vectors: str,
        finds_all: bool | None = None,
        least_recall: float | None = None,
    ) -> None:
        self._items = items
        self._finds_all = is_exact if finds_all is None else finds_all
        self._rows = {item: row for row, item in enumerate(items.ids)}
        self._is_exact = is_exact
        self._score_error = SCORE_ERRORS[vectors]
        self._served: Mapping[str, Differences] = {
            tower: Differences(f"{tower}: embeddings of the served and the trained tower")
            for tower in (QUERY_TOWER, ITEM_TOWER)
        }
        self._indexed = Differences("index: embeddings in the index and of the trained item tower")
        self._scores = Differences("retriever: scores and inner products of its items")
        self._repeated = Differences("retriever: the expected items of histories and the last retrieved item")
        self._exact = Differences("retriever: scores of its items and of exact search")
        self._strange = 0
        self._least_recall = least_recall
        self._asked, self._found = 0, 0.0

    def queries(self, served: Embeddings, trained: Embeddings) -> None:
        """Compare the [batch, width] embeddings of the same queries."""
        self._served[QUERY_TOWER].compare(served, trained, EMBEDDING_ERROR)

    def items(self, ids: list[bytes], served: Embeddings, trained: Embeddings) -> None:
        """Compare the [batch, width] embeddings of the same items."""
        self._served[ITEM_TOWER].compare(served, trained, EMBEDDING_ERROR)
        rows = np.array([self._rows.get(item, -1) for item in ids])
        indexed = np.where((rows >= 0)[:, np.newaxis], self._items.embeddings[rows], np.nan)
        self._indexed.compare(indexed, trained, EMBEDDING_ERROR)

    def retrieved(
        self,
        ids: NDArray[np.object_],
        scores: Embeddings,
        queries: Embeddings,
        k: int,
        repeats: Repeats | None = None,
    ) -> None:
        """Check the retrieved items of queries.

        Args:
            ids: [batch, k] bytes.
            scores: [batch, k].
            queries: [batch, width], as trained.
            k: the number of items asked for, at most the number of items.
            repeats: the trained model's bonuses for the histories' items, in NumPy; None without repeats.
        """
        rows = np.array([[self._rows.get(item, -1) for item in items] for items in ids.tolist()]).reshape(
            len(queries), -1
        )
        is_item = rows >= 0
        # Lists may hold fewer than k; exact search, and search among items that meet a condition, must find all that exist.
        strange = (ids != b"") & ~is_item
        twice = [len(set(of_query[mask])) < mask.sum() for of_query, mask in zip(rows, is_item, strict=True)]
        short = self._finds_all & (is_item.sum(axis=1) < k)
        self._strange += int((strange.any(axis=1) | twice | short).sum())
        bonuses = repeats and self._bonuses(repeats)
        products = np.einsum("qw,qkw->qk", queries, self._items.embeddings[rows])
        if bonuses:
            products += bonuses.of_items(rows)
            self._find_repeated(rows, products, queries, bonuses)
        products = np.where(is_item, products, 0.0)
        self._scores.compare(np.where(is_item, scores, 0.0), products, self._score_error)
        if not self._is_exact and self._least_recall is None:
            return
        exact = top_rows(queries, self._items.embeddings, k, bonuses=bonuses)
        best = np.einsum("qw,qkw->qk", queries, self._items.embeddings[exact])
        if bonuses:
            best += bonuses.of_items(exact)
        if self._is_exact:
            self._exact.compare(np.sort(products)[:, ::-1], best, 10 * TIE)
        self._asked += len(queries)
        self._found += float((is_item & (products >= best[:, -1:] - TIE)).mean(axis=1).sum())

    @cached_property
    def _ascending(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the fingerprints of the items' ids, ascending, and the row of each."""
        ids = fingerprint(tf.constant(self._items.ids)).numpy()
        order = np.argsort(ids)
        return ids[order], order

    def _bonuses(self, repeats: Repeats) -> Bonuses:
        return Bonuses.of_ids(np.asarray(repeats.ids), np.asarray(repeats.bonuses), *self._ascending)

    def _find_repeated(
        self, rows: NDArray[np.int64], products: Embeddings, queries: Embeddings, bonuses: Bonuses
    ) -> None:
        """Count items of histories that should have been retrieved, whatever lists they are in, and were not."""
        number = bonuses.queries
        scores = np.einsum("pw,pw->p", queries[number], self._items.embeddings[bonuses.rows]) + bonuses.values
        last = np.where((rows >= 0).all(axis=1), products.min(axis=1), NO_SCORE)
        size = len(self._rows)
        keys = (np.arange(len(rows))[:, np.newaxis] * size + rows)[rows >= 0]
        above = np.where(np.isin(number * size + bonuses.rows, keys), 0.0, scores - last[number]).astype(np.float32)
        self._repeated.compare(
            np.maximum(above, 0.0)[:, np.newaxis], np.zeros((len(above), 1), np.float32), 2 * self._score_error
        )

    def faults(self) -> list[str]:
        """List a sentence for each kind of difference."""
        strange = (
            f"retriever: {self._strange:,} answers have too few items, a repeated item, or one missing from the index"
        )
        kinds = (*self._served.values(), self._indexed, self._scores, self._repeated, self._exact)
        sentences = [
            *(sentence for kind in kinds for sentence in kind.sentences()),
            *([strange] if self._strange else []),
        ]
        recall = self._found / max(1, self._asked)
        if self._least_recall is not None and self._asked and recall < self._least_recall:
            least = f"{self._least_recall:g} (evaluator.minimum_index_recall)"
            sentences.append(f"retriever: finds {recall:.4f} of the exact first items, expected at least {least}")
        return sentences
