import contextlib
import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndr_client import json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\', max_size=3), inner, max_size=3),
    max_leaves=20,
)


def levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


@given(VALUES)
def test_nesting_is_that_of_the_values(value: Any) -> None:
    assert json_text.nesting(json.dumps(value).encode()) == levels(value)


def test_signs_in_texts_are_no_nesting() -> None:
    # ["]]]]", [[]], "a\"[[["]: the outer list, one in it, one in that.
    assert json_text.nesting(rb'["]]]]", [[]], "a\"[[["]') == 3
    assert json_text.nesting(rb'["\\", [[]]]') == 3


def test_what_is_parsed_is_what_python_parses() -> None:
    assert json_text.parse('{"a": [1, NaN, "é"]}'.encode())["a"][2] == "é"
    assert len(json_text.parse(b"[" * 64 + b"]" * 64)) == 1


@pytest.mark.parametrize(
    "text", [b"[" * 65 + b"]" * 65, b"[" * 1_000_000, b'{"a":' * 65, b"[\xff]", "[]".encode("utf-16")]
)
def test_a_text_that_is_nested_too_deeply_or_no_utf8_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        json_text.parse(text)


def test_the_garbage_collector_has_room_while_a_deep_text_is_parsed() -> None:
    """Regression: what a version held stayed held, if the garbage collector ran at the depth where Python gives up."""
    ended = []

    class Held:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            self.end(20)

        def end(self, calls: int) -> None:
            self.end(calls - 1) if calls else ended.append(1)

    threshold = gc.get_threshold()
    rounds = range(800, 1000, 5)  # after so many lists the collector runs; Python gives up at about the thousandth
    gc.collect()
    gc.freeze()  # or each collection would look at all that is imported
    try:
        for after in rounds:
            gc.collect()
            gc.disable()
            Held()
            gc.set_threshold(gc.get_count()[0] + after, 1000, 1000)
            gc.enable()
            with contextlib.suppress(ValueError, RecursionError):
                json_text.parse(b"[" * 100_000)
            gc.collect()
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
        gc.enable()
    assert len(ended) == len(rounds)
