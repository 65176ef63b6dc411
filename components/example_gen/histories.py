"""Each interaction's history, from the same user's interactions that are strictly earlier."""

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


def flat_positions(spans: Spans) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The offsets of a list column with a list a span, and the positions that its values come from."""
    lengths = spans.end - spans.start
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(offsets[-1]) + np.repeat(spans.start - offsets[:-1], lengths)
    return offsets.astype(np.int32), positions
