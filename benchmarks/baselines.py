"""What needs no model: popularity, recent popularity, what a user took before, and co-occurrence, counted over all days so far.

They are counted here from the interactions themselves, so that what a benchmark compares a model with does not depend on what the
pipeline carries.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from components.evaluator.cooccurrence import Neighbours
from components.evaluator.positions import positions
from components.evaluator.query_items import Excluded
from components.evaluator.ranking import Ranks, rank_by_score
from components.evaluator.ranking_entries import rank_by_entries
from components.evaluator.settings import EvaluatorSettings

POPULARITY, RECENT, TAKEN, COOCCURRENCE = "popularity", "recent popularity", "taken before", "co-occurrence"
RECENT_DAYS = 7
MICROSECONDS_A_DAY = 86_400_000_000
NEIGHBOURS = EvaluatorSettings().neighbours  # of each item, as the pipeline keeps by default


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
        """Add interactions.

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
        seen = self._seen(histories, self._ids)
        sources = sparse.csr_array(
            (np.ones(len(seen.rows), np.int64), seen.rows, seen.offsets), shape=(len(rows), len(self._ids))
        )
        self._pairs = self._pairs + sources.T @ targets

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
        true_rows = positions(pa.array(items, pa.binary()), catalogue)
        taken = self._taken
        counts = np.bincount(taken["item"].astype(np.int64), minlength=size)
        recent = taken[taken["time"] >= start - RECENT_DAYS * MICROSECONDS_A_DAY]
        of_recent = np.bincount(recent["item"].astype(np.int64), minlength=size)
        popularity = counts[columns]
        pairs = self._pairs[columns][:, columns]
        neighbours = Neighbours.build(pairs, self._pairs.sum(axis=1)[columns], popularity, NEIGHBOURS)
        led_to = neighbours.scores(self._seen(histories, catalogue))
        return {
            POPULARITY: rank_by_score(popularity.astype(np.float64), true_rows),
            RECENT: rank_by_score((of_recent[columns] * (counts.sum() + 1) + popularity).astype(np.float64), true_rows),
            TAKEN: rank_by_entries(self._taken_by(users)[:, columns], popularity, true_rows),
            COOCCURRENCE: rank_by_entries(led_to, popularity, true_rows),
        }

    def _taken_by(self, users: NDArray[np.object_]) -> sparse.csr_array:
        """Score [queries, items] int64: higher the more often the query's user took the item, and the later, to a second."""
        grouped = self._taken.groupby(["user", "item"])["time"].agg(["size", "max"]).reset_index()
        known = pd.Index(grouped["user"].unique())
        seconds = (grouped["max"] - self._taken["time"].min()) // 1_000_000
        scores = (grouped["size"].to_numpy(np.int64) << 32) + seconds.to_numpy(np.int64) + 1
        at = known.get_indexer(grouped["user"]), grouped["item"].to_numpy(np.int64)
        # A row more, without anything, for users that are not known.
        table = sparse.csr_array((scores, at), shape=(len(known) + 1, len(self._ids)))
        return table[known.get_indexer(pd.Index(users)) % (len(known) + 1)]

    @staticmethod
    def _seen(histories: pa.ListArray, ids: pa.Array) -> Excluded:
        """Return the rows of the items of each history, oldest first, without unknown ones."""
        lengths = pc.list_value_length(histories).to_numpy()
        rows = positions(pc.list_flatten(histories), ids)
        queries = np.repeat(np.arange(len(lengths)), lengths)[rows >= 0]
        return Excluded(np.searchsorted(queries, np.arange(len(lengths) + 1)), rows[rows >= 0])

    def _rows(self, ids: "NDArray[np.object_] | pa.Array") -> NDArray[np.int64]:
        return positions(pa.array(ids, pa.binary()) if isinstance(ids, np.ndarray) else ids, self._ids)
