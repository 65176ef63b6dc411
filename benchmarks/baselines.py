"""What needs no model: popularity, recent popularity, what a user took before, and co-occurrence, counted over all days so far.

They are counted here from the interactions themselves, so that what a benchmark compares a model with does not depend on what the
pipeline carries.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy import sparse

from components.evaluator import facts
from components.evaluator.cooccurrence import ONE, rank_by_cooccurrence
from components.evaluator.ranking import Ranks, rank_by_score

POPULARITY, RECENT, TAKEN, COOCCURRENCE = "popularity", "recent popularity", "taken before", "co-occurrence"
RECENT_DAYS = 7
MICROSECONDS_A_DAY = 86_400_000_000
NEWEST, FADES = 1 << 10, 0.9  # what the newest item of a history weighs, and each older one beside the next newer


class Known:
    """What is known of items, pairs of items and users by all interactions that were added.

    Args:
        ids: of all items that there are on any day.
    """

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids
        size = len(ids)
        self._taken = pd.DataFrame({"user": [], "item": [], "time": []})
        self._pairs = sparse.csr_array((size, size), dtype=np.int64)

    def add(
        self, users: NDArray[np.object_], items: NDArray[np.object_], times: NDArray[np.int64], histories: pa.ListArray
    ) -> None:
        """Adds interactions.

        Args:
            users: [interactions] bytes.
            items: [interactions] bytes.
            times: [interactions] microseconds since 1970-01-01.
            histories: the items of each one's history.
        """
        rows = self._rows(items)
        taken = pd.DataFrame({"user": users, "item": rows, "time": times})
        self._taken = pd.concat([self._taken, taken], ignore_index=True) if len(self._taken) else taken
        targets = sparse.csr_array(
            (np.ones(len(rows), np.int64), (np.arange(len(rows)), rows)), shape=(len(rows), len(self._ids))
        )
        self._pairs = self._pairs + self._seen(histories, by_age=False).T @ targets

    def ranks(
        self,
        users: NDArray[np.object_],
        items: NDArray[np.object_],
        histories: pa.ListArray,
        catalogue: pa.Array,
        start: int,
    ) -> dict[str, Ranks]:
        """Where each baseline ranks the items of interactions.

        Args:
            users: [interactions] bytes.
            items: [interactions] bytes.
            histories: the items of each one's history.
            catalogue: the ids of the items that are ranked.
            start: of the day that is ranked, in microseconds since 1970-01-01; the recent days end there.
        """
        size, columns = len(self._ids), self._rows(catalogue)
        true_rows = facts.positions(pa.array(items, pa.binary()), catalogue)
        taken = self._taken
        counts = np.bincount(taken["item"].astype(np.int64), minlength=size)
        recent = taken[taken["time"] >= start - RECENT_DAYS * MICROSECONDS_A_DAY]
        of_recent = np.bincount(recent["item"].astype(np.int64), minlength=size)
        popularity = counts[columns]
        totals = np.maximum(self._pairs.sum(axis=1), 1)
        weights = sparse.coo_array(self._pairs)
        weights.data = np.rint(ONE * (weights.data / totals[weights.coords[0]])).astype(np.int64)
        led_to = self._seen(histories, by_age=True) @ weights.tocsr()
        led_to.eliminate_zeros()
        return {
            POPULARITY: rank_by_score(popularity.astype(np.float64), true_rows),
            RECENT: rank_by_score((of_recent[columns] * (counts.sum() + 1) + popularity).astype(np.float64), true_rows),
            TAKEN: rank_by_cooccurrence(self._taken_by(users)[:, columns], popularity, true_rows),
            COOCCURRENCE: rank_by_cooccurrence(sparse.csr_array(led_to)[:, columns], popularity, true_rows),
        }

    def _taken_by(self, users: NDArray[np.object_]) -> sparse.csr_array:
        """[queries, items] int64: the greater the more often the query's user took the item, and the later, to a second."""
        grouped = self._taken.groupby(["user", "item"])["time"].agg(["size", "max"]).reset_index()
        known = pd.Index(grouped["user"].unique())
        seconds = (grouped["max"] - self._taken["time"].min()) // 1_000_000
        scores = (grouped["size"].to_numpy(np.int64) << 32) + seconds.to_numpy(np.int64) + 1
        at = known.get_indexer(grouped["user"]), grouped["item"].to_numpy(np.int64)
        # A row more, without anything, for users that are not known.
        table = sparse.csr_array((scores, at), shape=(len(known) + 1, len(self._ids)))
        return table[known.get_indexer(pd.Index(users)) % (len(known) + 1)]

    def _seen(self, histories: pa.ListArray, by_age: bool) -> sparse.csr_array:
        """[queries, items] int64: 1 for each time that an item is in the history, or a weight that is less the older it is."""
        offsets = histories.offsets.to_numpy().astype(np.int64)
        values = histories.values
        if len(offsets) and (offsets[0] or offsets[-1] != len(values)):  # a slice
            values = values.slice(offsets[0], offsets[-1] - offsets[0])
            offsets = offsets - offsets[0]
        rows = self._rows(values)
        queries = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        age = offsets[1:][queries] - 1 - np.arange(len(rows))  # 0 for the newest
        weight = np.rint(NEWEST * FADES**age).astype(np.int64) if by_age else np.ones(len(rows), np.int64)
        there = rows >= 0
        at = queries[there], rows[there]
        return sparse.csr_array((weight[there], at), shape=(len(offsets) - 1, len(self._ids)))

    def _rows(self, ids: "NDArray[np.object_] | pa.Array") -> NDArray[np.int64]:
        return facts.positions(pa.array(ids, pa.binary()) if isinstance(ids, np.ndarray) else ids, self._ids)
