"""Each interaction's history, from the same user's interactions that are strictly earlier.

What is held out stands in no history of training, or the model would be shown what it is asked for.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Spans(NamedTuple):
    """For every interaction, which interactions are its history.

    Attributes:
        start: [rows] int64, the position of the oldest.
        end: [rows] int64, the position after the newest.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]


def history_spans(users: NDArray[np.int64], times: NDArray[np.int64], last: int) -> Spans:
    """The last interactions before each one.

    What happened in the same microsecond is not earlier: a history never holds the interaction's own item, nor one that
    was logged with it.

    Args:
        users: [rows], a number for each user; rows are sorted by user, then time.
        times: [rows], microseconds.
        last: how many at most.
    """
    position = np.arange(len(users))
    new_user = np.diff(users, prepend=users[:1] - 1) != 0
    new_moment = new_user | (np.diff(times, prepend=times[:1] - 1) != 0)
    user_start = np.maximum.accumulate(np.where(new_user, position, 0))
    end = np.maximum.accumulate(np.where(new_moment, position, 0))
    return Spans(np.maximum(user_start, end - last), end)


class Histories(NamedTuple):
    """The history of every interaction, oldest item first.

    Attributes:
        offsets: [rows + 1] int32; the n-th row's history is `positions[offsets[n]:offsets[n + 1]]`.
        positions: int64, the rows that the items are of.
    """

    offsets: NDArray[np.int32]
    positions: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """[rows] the number of items in each."""
        return np.diff(self.offsets)

    @property
    def newest(self) -> NDArray[np.int64]:
        """[rows] the row of the newest item; 0 where the history is empty."""
        filled = np.append(self.positions, 0)
        newest: NDArray[np.int64] = np.where(self.lengths > 0, filled[self.offsets[1:] - 1], 0)
        return newest


def histories(users: NDArray[np.int64], times: NDArray[np.int64], held_out: NDArray[np.bool_], last: int) -> Histories:
    """The history of every interaction.

    A held-out interaction has all that its user did before it, as it will be in serving; the others, only what is not held out.

    Args:
        users: [rows], a number for each user; rows are sorted by user, then time.
        times: [rows], microseconds.
        held_out: [rows].
        last: how many items at most.
    """
    training = np.flatnonzero(~held_out)
    spans = history_spans(users, times, last)
    of_training = history_spans(users[training], times[training], last)
    # Those of training are spans of the training rows, which are numbered behind all rows.
    spans.start[training], spans.end[training] = (ends + len(users) for ends in of_training)
    lengths = spans.end - spans.start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    flat = np.arange(offsets[-1]) + np.repeat(spans.start - offsets[:-1], lengths)
    return Histories(offsets.astype(np.int32), np.concatenate([np.arange(len(users)), training])[flat])
