"""Builds each interaction's history from the same user's strictly earlier interactions.

Held-out interactions are in no history of training, or the model would be trained on what it is evaluated on.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components import ragged

MICROSECONDS = 1_000_000  # in a second


class Histories(NamedTuple):
    """The history of every interaction, oldest item first.

    Attributes:
        offsets: [rows + 1] int32; the n-th row's history is `positions[offsets[n]:offsets[n + 1]]`.
        positions: int64, the rows of the items.
    """

    offsets: NDArray[np.int32]
    positions: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """[rows] the number of items in each history."""
        return np.diff(self.offsets)

    @property
    def newest(self) -> NDArray[np.int64]:
        """[rows] the row of the newest item; 0 if the history is empty."""
        filled = np.append(self.positions, 0)
        newest: NDArray[np.int64] = np.where(self.lengths > 0, filled[self.offsets[1:] - 1], 0)
        return newest

    def ages(self, times: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the age of each of `positions` at its row: [rows] times in microseconds to float32 seconds."""
        seconds = (np.repeat(times, self.lengths) - times[self.positions]) / MICROSECONDS
        return seconds.astype(np.float32)


def histories(
    users: NDArray[np.int64],
    times: NDArray[np.int64],
    held_out: NDArray[np.bool_],
    last: int,
    enters: NDArray[np.bool_] | None = None,
) -> Histories:
    """Build the history of every interaction.

    The history of a held-out interaction has all earlier interactions of its user, as in serving; the others have only those that
    are not held out. Interactions at the same microsecond are not earlier: a history never holds the interaction's own item, nor
    one logged together with it.

    Args:
        users: [rows], a number for each user; rows are sorted by user, then time.
        times: [rows], microseconds.
        held_out: [rows].
        last: the maximum number of items.
        enters: [rows], the interactions to include in histories, such as those of a kind of event; None for all.
    """
    position = np.arange(len(users))
    new_user = np.diff(users, prepend=users[:1] - 1) != 0
    new_moment = new_user | (np.diff(times, prepend=times[:1] - 1) != 0)
    user_start = np.maximum.accumulate(np.where(new_user, position, 0))
    end = np.maximum.accumulate(np.where(new_moment, position, 0))
    enters = np.ones(len(users), bool) if enters is None else enters
    # The number of included interactions before each: of all of them, and of those that are not held out.
    included = [ragged.offsets(mask) for mask in (enters, enters & ~held_out)]
    starts, ends = (np.where(held_out, included[0][at], included[1][at]) for at in (user_start, end))
    starts = np.maximum(starts, ends - last)
    lengths = ends - starts
    offsets = ragged.offsets(lengths)
    # Those of training are numbered after all others.
    behind = np.where(held_out, 0, included[0][-1])
    flat = np.arange(offsets[-1]) + np.repeat(starts + behind - offsets[:-1], lengths)
    sources = np.concatenate([np.flatnonzero(enters), np.flatnonzero(enters & ~held_out)])
    return Histories(offsets.astype(np.int32), sources[flat])
