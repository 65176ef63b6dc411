"""Selects the interactions that are held out of training for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from components.example_gen.cleaning import id_hashes
from components.example_gen.settings import HashSplit, TimeSplit, UserSplit
from components.utc import MICROSECONDS_AN_HOUR
from schemas.features import CANDIDATE_ID, QUERY_ID, TIMESTAMP

NEWEST_SHARE = 0.3


@dataclass(frozen=True)
class HeldOut:
    """A split of a day.

    Attributes:
        split: the configured split.
        span: the day, in days since 1970-01-01.
        end: the first microsecond after it.
        only: on a day with so few users that the split by users leaves one side empty, the hash of the one held-out user.
        newest: on a day with a single user, whether the newest interactions are held out.
    """

    split: UserSplit | TimeSplit | HashSplit
    span: int
    end: int
    only: int | None = None
    newest: bool = False

    def of(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Return [rows], whether an interaction is held out; `rows` holds all rows of a user, in the order of time."""
        held_out = self.in_hours(rows)
        if isinstance(self.split, HashSplit):
            return held_out & _below(interaction_hashes(rows), self.split.share)
        if isinstance(self.split, TimeSplit) or not held_out.any():
            return held_out
        if self.newest:
            times = rows.column(TIMESTAMP).to_numpy()
            return held_out & (times > np.quantile(times[held_out], 1 - NEWEST_SHARE, method="lower"))
        hashes = user_hashes(rows, self.span)
        return held_out & (_below(hashes, self.split.share) if self.only is None else hashes == np.uint64(self.only))

    def in_hours(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Return [rows], whether an interaction is within the hours that some are held out of."""
        in_hours: NDArray[np.bool_] = (
            rows.column(TIMESTAMP).to_numpy() >= self.end - self.split.hours * MICROSECONDS_AN_HOUR
        )
        return in_hours


def interaction_hashes(rows: pa.Table) -> NDArray[np.uint64]:
    """Return [rows] uint64, uniform, the same for the same user, item and time on every machine and every day."""
    columns = (QUERY_ID, CANDIDATE_ID, TIMESTAMP)
    return _mixed([_hashes(rows.column(name).combine_chunks()) for name in columns])


def user_hashes(rows: pa.Table, span: int) -> NDArray[np.uint64]:
    """Return [rows] uint64, uniform over users, the same for the same user and day on every machine, different each day."""
    return _mixed([_hashes(rows.column(QUERY_ID).combine_chunks()), np.full(rows.num_rows, span, np.uint64)])


def _mixed(columns: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = pd.util.hash_array(mixed * np.uint64(31) + column)
    return mixed


def _below(hashes: NDArray[np.uint64], share: float) -> NDArray[np.bool_]:
    below: NDArray[np.bool_] = hashes < np.uint64(share * 2**63) * np.uint64(2)
    return below


def _hashes(column: pa.Array) -> NDArray[np.uint64]:
    return pd.util.hash_array(column.to_numpy()) if pa.types.is_integer(column.type) else id_hashes(column)
