"""The items that users are known to have taken: a baseline, and the items that some services do not show again."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from components.counts import files as counts_files
from components.evaluator.positions import positions
from components.evaluator.query_items import Excluded

PLACES = 1 << 13  # the maximum number of a user's items whose order in time is distinguished


class Taken:
    """The items that the users of a partition took, by catalogue rows.

    Args:
        folders: of `components.counts.files`.
        partition: that of the users; below `components.counts.files.USER_PARTITIONS`.
        users: binary, the users to read, each once.
        ids: the catalogue's ids, binary, in the order of the rows.
    """

    def __init__(self, folders: Sequence[str], partition: int, users: pa.Array, ids: pa.Array) -> None:
        frame = counts_files.read_users(folders, partition, users)
        of_users = pc.index_in(pa.array(frame["user"], pa.binary()), value_set=users).to_numpy().astype(np.int64)
        rows = positions(pa.array(frame["item"], pa.binary()), ids)
        self._last_of_any, self._number = frame["last"].to_numpy(np.int64), len(users)
        self._user_of_any = of_users
        # In the order of `users`; each user's newest items come first.
        order = np.flatnonzero(rows >= 0)
        order = order[np.argsort(of_users[order], kind="stable")]
        self._users, self._rows = of_users[order], rows[order]
        self._counts, self._last = (frame[name].to_numpy(np.int64)[order] for name in ("count", "last"))
        self._offsets = np.searchsorted(self._users, np.arange(len(users) + 1))

    def before(self, time: int) -> NDArray[np.bool_]:
        """Return [users], whether anything is known of the user from before a time."""
        is_known = np.zeros(self._number, bool)
        is_known[self._user_of_any[self._last_of_any < time]] = True
        return is_known

    def since(self, time: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return users and rows of items last taken at a time or later."""
        newer = self._last >= time
        return self._users[newer], self._rows[newer]

    def items(self, users: NDArray[np.int64], times: NDArray[np.int64], histories: Excluded) -> Excluded:
        """Return all items that each query's user is known to have had by then: the carried ones and the history.

        Args:
            users: [queries], numbers of `users`.
            times: [queries], microseconds; items last taken then or later are not known.
            histories: the rows of each query's history.
        """
        queries, entries = self._entries(users, times)
        queries = np.concatenate([queries, histories.queries])
        rows = np.concatenate([self._rows[entries], histories.rows])
        order = np.argsort(queries, kind="stable")
        return Excluded(np.searchsorted(queries[order], np.arange(len(users) + 1)), rows[order])

    def scores(
        self, users: NDArray[np.int64], times: NDArray[np.int64], histories: Excluded, size: int
    ) -> sparse.csr_array:
        """Score [queries, size] int64: the items that each query's user took before, the most frequent highest, ties by the newest.

        An item of the history counts at least as often as it occurs there, and is newer than other items.

        Args:
            users: [queries], numbers of `users`.
            times: [queries], microseconds; items last taken then or later are not known.
            histories: the rows of each query's history, oldest first.
            size: the size of the catalogue.
        """
        queries, entries = self._entries(users, times)
        place = entries - self._offsets[users][queries]  # the newest is 0
        carried = queries * size + self._rows[entries]
        of_history = histories.queries * size + histories.rows
        position = np.arange(len(histories.rows)) - histories.offsets[histories.queries]
        keys, inverse = np.unique(np.concatenate([carried, of_history]), return_inverse=True)
        in_history = inverse[len(carried) :]
        counts, newest = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        np.add.at(counts, in_history, counts_files.ONE)
        np.maximum.at(counts, inverse[: len(carried)], self._counts[entries])
        newest[inverse[: len(carried)]] = np.maximum(1, PLACES // 2 - place)
        np.maximum.at(newest, in_history, PLACES // 2 + 1 + np.minimum(position, PLACES // 2 - 2))
        offsets = np.searchsorted(keys, np.arange(len(users) + 1) * size)
        return sparse.csr_array((counts * PLACES + newest, keys % size, offsets), shape=(len(users), size))

    def _entries(
        self, users: NDArray[np.int64], times: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return query and entry of the carried items that each query's user took before."""
        lengths = np.diff(self._offsets)[users]
        queries = np.repeat(np.arange(len(users)), lengths)
        start = np.repeat(self._offsets[:-1][users] - (np.cumsum(lengths) - lengths), lengths)
        entries = start + np.arange(len(queries))
        earlier = self._last[entries] < times[queries]
        return queries[earlier], entries[earlier]
