import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.example_gen.histories import flat_positions, history_spans


def test_histories_are_strictly_earlier_newest_last_and_at_most_k() -> None:
    users = np.array([7, 7, 7, 7, 9])
    times = np.array([1, 2, 2, 5, 9])
    spans = history_spans(users, times, last=2)
    # user 7: nothing before 1; the item of time 1 before both of time 2; of three before 5 the last two; 9: nothing.
    assert spans.start.tolist() == [0, 0, 0, 1, 4]
    assert spans.end.tolist() == [0, 1, 1, 3, 4]
    offsets, positions = flat_positions(spans)
    assert offsets.tolist() == [0, 0, 1, 2, 4, 4]
    assert positions.tolist() == [0, 0, 1, 2]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=40),
    st.integers(1, 6),
)
def test_no_history_holds_a_later_interaction(rows: list[tuple[int, int]], last: int) -> None:
    rows.sort()
    users, times = (np.array(column) for column in zip(*rows, strict=True))
    spans = history_spans(users, times, last)
    for row, (user, moment) in enumerate(rows):
        earlier = [p for p, (u, t) in enumerate(rows) if u == user and t < moment][-last:]
        assert list(range(spans.start[row], spans.end[row])) == earlier


def test_nothing_has_no_history() -> None:
    spans = history_spans(np.array([], np.int64), np.array([], np.int64), 3)
    assert flat_positions(spans)[1].tolist() == []
