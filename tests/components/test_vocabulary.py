"""Which ids have rows of their own from day to day: worked examples, and what holds for any sequence of days."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from components.analysis.vocabulary import Turnover, admit, entries, hash_rows
from schemas.features import Vocabulary

DAY = 20_000
BUCKETS = 3  # of 3 buckets, TensorFlow hashes f to 0, e and h to 1
NOTHING = entries([], [], [])


def seen(day: int = DAY, **counts: int) -> pd.DataFrame:
    """Ids by how often they occurred, last on that day."""
    return entries([name.encode() for name in counts], list(counts.values()), [day] * len(counts))


def vocabulary(previous: pd.DataFrame, counted: pd.DataFrame, **rules: Any) -> pd.DataFrame:
    return admit(previous, counted, Vocabulary(**rules), BUCKETS, DAY)[0]


def names(vocabulary: pd.DataFrame) -> list[str]:
    return [token.decode() for token in vocabulary.index]


def test_a_new_id_has_to_be_frequent_enough() -> None:
    assert names(vocabulary(NOTHING, seen(a=3, b=2, c=1), min_count=2)) == ["a", "b"]


def test_a_known_id_stays_however_rare_it_has_become() -> None:
    assert_frame_equal(vocabulary(seen(DAY - 1, a=5), seen(a=1, b=1), min_count=2), seen(a=1))


def test_an_id_unseen_for_90_days_goes_back_to_its_bucket() -> None:
    assert_frame_equal(vocabulary(seen(DAY - 89, a=5), NOTHING, expire_after_days=90), seen(DAY - 89, a=5))
    assert vocabulary(seen(DAY - 90, a=5), NOTHING, expire_after_days=90).empty


def test_an_id_that_comes_on_the_day_it_would_expire_stays() -> None:
    assert_frame_equal(vocabulary(seen(DAY - 90, a=5), seen(a=1), expire_after_days=90, min_count=2), seen(a=1))


def test_an_expired_id_is_a_new_one_when_it_comes_again() -> None:
    forgotten = vocabulary(seen(DAY - 90, a=5), NOTHING)
    assert vocabulary(forgotten, seen(a=1), min_count=2).empty
    assert names(vocabulary(forgotten, seen(a=2), min_count=2)) == ["a"]


def test_an_id_does_not_come_and_go_in_a_window_longer_than_ids_may_be_unseen() -> None:
    window = seen(DAY - 95, a=5)
    once = vocabulary(NOTHING, window, expire_after_days=90)
    assert_frame_equal(vocabulary(once, window, expire_after_days=90), once)


def test_the_most_frequent_come_first_and_equally_frequent_ones_by_their_bytes() -> None:
    # Bytes have capitals before small letters, and the shorter of two that begin alike first; known or new does not count.
    known = seen(DAY - 1, b=2, z=9)
    assert names(vocabulary(known, seen(ab=2, a=2, Z=2, c=5))) == ["z", "c", "Z", "a", "ab", "b"]


def test_beyond_the_size_the_rarest_have_no_row() -> None:
    # a, unseen today, counts as it did when it was last seen; b, which is known, makes way for c.
    assert names(vocabulary(seen(DAY - 1, a=4, b=9), seen(b=1, c=5, d=2), max_size=2)) == ["c", "a"]


@pytest.mark.parametrize("token", [b"", b"two\nlines", b"two\rlines", b"\n"])
def test_an_id_that_is_no_line_of_a_file_stays_in_its_bucket(token: bytes) -> None:
    kept, turnover = admit(NOTHING, entries([token, b"a"], [9, 1], [DAY, DAY]), Vocabulary(), BUCKETS, DAY)
    assert names(kept) == ["a"]
    assert turnover.oov_share == 0.9


def test_without_rules_no_id_has_a_row_of_its_own() -> None:
    kept, turnover = admit(NOTHING, seen(e=1, f=2, h=3), None, BUCKETS, DAY)
    assert kept.empty
    # f alone in bucket 0, e and h in bucket 1, none in bucket 2.
    assert turnover == Turnover(
        ids=0, admitted=0, expired=0, lookups=6, oov_share=None, bucket_ids=1.0, fullest_bucket_ids=2
    )


def test_what_changed() -> None:
    # Known: a, b and c, of which b expires. New: d is frequent enough; e and h, both of bucket 1, are not.
    previous = pd.concat([seen(DAY - 1, a=5, c=2), seen(DAY - 90, b=3)])
    kept, turnover = admit(previous, seen(a=4, d=2, e=1, h=1), Vocabulary(min_count=2), BUCKETS, DAY)
    assert names(kept) == ["a", "c", "d"]
    # Of 4 + 2 + 1 + 1 lookups two go to buckets. Two ids are in three buckets.
    assert turnover == Turnover(
        ids=3, admitted=1, expired=1, lookups=8, oov_share=2 / 8, bucket_ids=2 / 3, fullest_bucket_ids=2
    )


def test_a_day_without_ids_changes_nothing() -> None:
    kept, turnover = admit(NOTHING, NOTHING, Vocabulary(), BUCKETS, DAY)
    assert kept.empty
    assert turnover == Turnover(
        ids=0, admitted=0, expired=0, lookups=0, oov_share=0.0, bucket_ids=0.0, fullest_bucket_ids=0
    )


@settings(max_examples=60, deadline=None)
@given(
    days=st.lists(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 5)), min_size=1, max_size=12),
    rules=st.builds(
        Vocabulary, min_count=st.integers(1, 4), max_size=st.integers(1, 8), expire_after_days=st.integers(1, 4)
    ),
)
def test_what_holds_on_any_day(days: list[dict[str, int]], rules: Vocabulary) -> None:
    previous = NOTHING
    for day, counts in enumerate(days):
        kept, turnover = admit(previous, seen(day, **counts), rules, BUCKETS, day)
        assert kept.index.is_unique and len(kept) <= rules.max_size
        assert list(kept.index) == sorted(kept.index, key=lambda token: (-kept["count"][token], token))
        known = {token for token, last in previous["last_seen"].items() if day - last < rules.expire_after_days}
        known |= {token for token in previous.index if token.decode() in counts}
        frequent = {name.encode() for name, count in counts.items() if count >= rules.min_count}
        assert set(kept.index) <= known | frequent
        assert len(kept) == min(len(known | frequent), rules.max_size)
        assert turnover.ids == len(previous) + turnover.admitted - turnover.expired
        # The same day once more, when there is nothing to count.
        again, unchanged = admit(kept, NOTHING, rules, BUCKETS, day)
        assert_frame_equal(again, kept)
        assert (unchanged.admitted, unchanged.expired) == (0, 0)
        previous = kept


@settings(max_examples=60, deadline=None)
@given(tokens=st.lists(st.binary(max_size=12), unique=True), buckets=st.integers(1, 50))
def test_an_ids_bucket_is_the_one_that_tensorflows_lookup_has(tokens: list[bytes], buckets: int) -> None:
    known = tf.lookup.KeyValueTensorInitializer(["known to it alone", "and this"], tf.constant([0, 1], tf.int64))
    found = tf.lookup.StaticVocabularyTable(known, buckets).lookup(tf.constant(tokens, tf.string)).numpy() - 2
    assert np.array_equal(hash_rows(tokens, buckets), found)
