"""Which ids get a row of their own today: yesterday's, less those unseen for long, and the new ones that are frequent enough."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray

from schemas.features import Vocabulary

COUNT = "count"
LAST_SEEN = "last_seen"


@dataclass(frozen=True)
class Turnover:
    """What a day did to a table's vocabulary.

    Attributes:
        ids: how many have a row of their own.
        admitted: how many of them had none the day before.
        expired: how many had one the day before.
        lookups: occurrences of ids in the window.
        oov_share: the share of those that went to a hash bucket; None where no id has a row of its own.
        bucket_ids: the mean number of distinct ids that share a hash bucket, of those that occurred.
        fullest_bucket_ids: the most of them in one.
    """

    ids: int
    admitted: int
    expired: int
    lookups: int
    oov_share: float | None
    bucket_ids: float
    fullest_bucket_ids: int


def entries(tokens: list[bytes], counts: list[int], last_seen: list[int]) -> pd.DataFrame:
    """A vocabulary's state: for each id, indexed by it, `count` and `last_seen`.

    Args:
        tokens: the ids.
        counts: occurrences in the newest window that had the id.
        last_seen: days since 1970-01-01.
    """
    index = pd.Index(np.array([*tokens, None], object)[:-1], name="token")
    return pd.DataFrame({COUNT: np.array(counts, np.int64), LAST_SEEN: np.array(last_seen, np.int64)}, index)


def admit(
    previous: pd.DataFrame, counted: pd.DataFrame, rules: Vocabulary | None, hash_buckets: int, day: int
) -> tuple[pd.DataFrame, Turnover]:
    """The vocabulary of a day.

    Args:
        previous: the vocabulary that the model knows which training goes on from; without rows where it starts anew. See `entries`.
        counted: the ids of the window that is trained on.
        rules: who is admitted and who expires; None gives no id a row of its own.
        hash_buckets: rows that all other ids share.
        day: the run's, in days since 1970-01-01.

    Returns:
        The new vocabulary, the most frequent id first, equally frequent ones by their bytes; a row is an id's row in its embedding
        table. And what changed.
    """
    known = previous[~previous.index.isin(counted.index)]
    both = pd.concat([counted, known])
    is_known = both.index.isin(previous.index)
    if rules is None:
        kept = both[:0]
    else:
        is_fresh = (day - both[LAST_SEEN] < rules.expire_after_days).to_numpy()
        comes = (both[COUNT] >= rules.min_count).to_numpy() & _fits_a_line(both.index)
        kept = both[is_fresh & (is_known | comes)]
        kept = kept.iloc[np.lexsort((kept.index.to_numpy(), -kept[COUNT].to_numpy()))][: rules.max_size]
    outside = counted[~counted.index.isin(kept.index)]
    loads = np.bincount(hash_rows(outside.index.tolist(), hash_buckets), minlength=hash_buckets)
    lookups = int(counted[COUNT].sum())
    oov_share = float(outside[COUNT].sum() / lookups) if lookups else 0.0
    return kept, Turnover(
        ids=len(kept),
        admitted=int((~kept.index.isin(previous.index)).sum()),
        expired=int((~previous.index.isin(kept.index)).sum()),
        lookups=lookups,
        oov_share=oov_share if rules else None,
        bucket_ids=float(loads.mean()),
        fullest_bucket_ids=int(loads.max()),
    )


def hash_rows(tokens: list[bytes], hash_buckets: int) -> NDArray[np.int64]:
    """The hash bucket of each id, as the lookup in Transform's graph has it: [ids] int64 in [0, hash_buckets)."""
    if not tokens:
        return np.zeros(0, np.int64)
    rows: NDArray[np.int64] = tf.strings.to_hash_bucket_fast(tf.constant(tokens), hash_buckets).numpy()
    return rows


def _fits_a_line(tokens: pd.Index) -> NDArray[np.bool_]:
    """Vocabularies are files of a line an id: an empty id, and one that spans lines, stay in their buckets."""
    return np.fromiter((bool(t) and b"\n" not in t and b"\r" not in t for t in tokens), bool, len(tokens))
