"""Entries of a map are counted before it is parsed, as the parser counts them."""

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import RequestError
from serving.wire import MOST_ENTRIES, check_entries

FEATURES = (1, 1)  # an Example's features, and feature in them


def example(names: int) -> bytes:
    made = tf.train.Example()
    for number in range(names):
        made.features.feature[f"{number:x}"].int64_list.value.append(number)
    return made.SerializeToString()


def test_an_example_has_no_more_features_than_may_be() -> None:
    check_entries("features", example(MOST_ENTRIES), *FEATURES)
    with pytest.raises(RequestError, match=f"expected at most {MOST_ENTRIES} features, received more"):
        check_entries("features", example(MOST_ENTRIES + 1), *FEATURES)


def test_those_of_a_message_that_comes_in_parts_are_counted_together() -> None:
    """Two serialised messages behind each other are one, as protocol buffers merge them."""
    half = example(MOST_ENTRIES // 2 + 1)
    check_entries("features", half, *FEATURES)
    with pytest.raises(RequestError):
        check_entries("features", half + half, *FEATURES)


def test_values_are_not_taken_for_features() -> None:
    made = tf.train.Example()
    made.features.feature["a"].bytes_list.value.extend([b"\n\n\n"] * 20_000)
    made.features.feature["b"].float_list.value.extend([0.5] * 20_000)
    check_entries("features", made.SerializeToString(), *FEATURES)


@given(st.binary(max_size=40), st.integers(0, 40))
def test_invalid_messages_are_left_to_the_parser(odd: bytes, cut: int) -> None:
    content = example(MOST_ENTRIES // 100) * 2
    check_entries("features", odd * (MOST_ENTRIES // 10), *FEATURES)
    check_entries("features", content[: len(content) - cut] + odd, *FEATURES)
