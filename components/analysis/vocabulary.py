"""Decides which ids get rows of their own, by counts over all days in which older days count less.

The length of the window has no effect: an id that comes twice a day is admitted like one that came as often in a single day, and a
first run over a year gives the same counts as the single days would.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from components.counts.files import ONE, factor
from schemas.features import Vocabulary

COUNT = "count"
LOOKUPS = "lookups"
LEAST = 0.5  # interactions; smaller counts are dropped


@dataclass(frozen=True)
class Turnover:
    """How a day changed a table's vocabulary.

    Attributes:
        ids: the number of ids with rows of their own.
        admitted: how many of them had none the day before.
        expired: how many ids lost theirs.
        lookups: occurrences of ids in the window.
        oov_share: the share of these outside the vocabulary; None if no id has a row of its own.
        bucket_ids: the mean number of distinct ids, of those that occurred, in a hash bucket.
        fullest_bucket_ids: the maximum in one bucket.
    """

    ids: int
    admitted: int
    expired: int
    lookups: int
    oov_share: float | None
    bucket_ids: float
    fullest_bucket_ids: int


@dataclass(frozen=True)
class Known:
    """The ids counted for a table; see `entries` for the columns.

    Attributes:
        own: ids with rows of their own, in the order of the embedding table's rows.
        waiting: ids without one, the most frequent first.
    """

    own: pd.DataFrame = field(default_factory=lambda: entries([], []))
    waiting: pd.DataFrame = field(default_factory=lambda: entries([], []))


def entries(tokens: list[bytes], counts: list[float]) -> pd.DataFrame:
    """Make a table of ids, with the decayed number of occurrences in the column `count`.

    Args:
        tokens: the ids, which become the index.
        counts: in interactions, float64; multiples of 1 / ONE, whose sums do not depend on the order of addition.
    """
    index = pd.Index(np.array([*tokens, None], object)[:-1], name="token")
    return pd.DataFrame({COUNT: np.array(counts, np.float64)}, index)


def admit(
    previous: Known,
    days: int,
    training: pd.DataFrame,
    held_out: pd.DataFrame,
    rules: Vocabulary | None,
    hash_buckets: int,
) -> tuple[Known, Turnover]:
    """Compute the vocabulary of a day.

    An id is admitted when its rounded count reaches `min_count`, and stays until its count falls below half of that.

    Args:
        previous: the ids of the model that training continues from; empty if it starts from scratch.
        days: the number of days since then.
        training: for each id of the training window, `lookups`, its occurrences, and `count`, the decayed number of those not
            counted before.
        held_out: `count` of today's held-out interactions. It counts from tomorrow on; today it only keeps ids.
        rules: the rules of the vocabulary; None gives no id a row of its own.
        hash_buckets: the number of rows that all other ids share.

    Returns:
        Today's ids, the most frequent first, equally frequent ones by their bytes; and the changes.
    """
    known = _counted(previous, days, training, held_out, rules) if rules else Known()
    outside = training[~training.index.isin(known.own.index)]
    loads = np.bincount(hash_rows(outside.index.tolist(), hash_buckets), minlength=hash_buckets)
    lookups = int(training[LOOKUPS].sum())
    oov_share = float(outside[LOOKUPS].sum() / lookups) if lookups else 0.0
    return known, Turnover(
        ids=len(known.own),
        admitted=int((~known.own.index.isin(previous.own.index)).sum()),
        expired=int((~previous.own.index.isin(known.own.index)).sum()),
        lookups=lookups,
        oov_share=oov_share if rules else None,
        bucket_ids=float(loads.mean()),
        fullest_bucket_ids=int(loads.max()),
    )


def _counted(previous: Known, days: int, training: pd.DataFrame, held_out: pd.DataFrame, rules: Vocabulary) -> Known:
    carried = pd.concat([previous.own[COUNT], previous.waiting[COUNT]])
    # Not a sum of indices, which would sort.
    ids = carried.index
    for more in (training.index, held_out.index):
        ids = ids.append(more[~more.isin(ids)])
    by_training = weighed(carried.reindex(ids, fill_value=0.0).to_numpy(), factor(rules.half_life_days, days))
    by_training += training[COUNT].reindex(ids, fill_value=0.0).to_numpy()
    counts = by_training + held_out[COUNT].reindex(ids, fill_value=0.0).to_numpy()
    had_row = np.arange(len(ids)) < len(previous.own)
    stays = had_row & (counts >= rules.min_count / 2)
    comes = ~had_row & (by_training >= rules.min_count - 0.5) & _fits_a_line(ids)
    order = np.lexsort((ids.to_numpy(), -counts))
    members = order[(stays | comes)[order]][: rules.max_size]
    others = np.ones(len(ids), bool)
    others[members] = False
    waiting = order[(others & (counts >= LEAST))[order]][: rules.max_size]
    both = pd.DataFrame({COUNT: counts}, ids.rename("token"))
    return Known(both.iloc[members], both.iloc[waiting])


def weighed(counts: NDArray[np.float64], by: float) -> NDArray[np.float64]:
    """Multiply counts by a factor, rounded to the nearest 1 / ONE."""
    return np.rint(counts * by * ONE) / ONE


def hash_rows(tokens: list[bytes], hash_buckets: int) -> NDArray[np.int64]:
    """Return each id's hash bucket, as Transform's graph computes it: [ids] int64 in [0, hash_buckets)."""
    if not tokens:
        return np.zeros(0, np.int64)
    return tf.strings.to_hash_bucket_fast(tf.constant(tokens), hash_buckets).numpy()


def _fits_a_line(tokens: pd.Index) -> NDArray[np.bool_]:
    """Return which ids fit a vocabulary file with an id a line; empty ids and ids with line breaks stay in their buckets."""
    return np.fromiter((bool(t) and b"\n" not in t and b"\r" not in t for t in tokens), bool, len(tokens))
