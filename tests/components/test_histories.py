import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.example_gen.histories import histories


def test_histories_are_strictly_earlier_newest_last_and_at_most_k() -> None:
    users = np.array([7, 7, 7, 7, 9])
    times = np.array([1, 2, 2, 5, 9])
    found = histories(users, times, np.zeros(5, bool), last=2)
    # user 7: nothing before 1; the item of time 1 before both of time 2; of three before 5 the last two; 9: nothing.
    assert found.offsets.tolist() == [0, 0, 1, 2, 4, 4]
    assert found.positions.tolist() == [0, 0, 1, 2]
    assert found.lengths.tolist() == [0, 1, 1, 2, 0]
    assert found.newest[1:4].tolist() == [0, 0, 2]


def test_held_out_interactions_are_in_no_history_of_training() -> None:
    users = np.array([7, 7, 7, 7, 9])
    times = np.array([1, 2, 3, 4, 5])
    held_out = np.array([False, True, False, True, True])
    found = histories(users, times, held_out, last=3)
    # Row 2 is of training: row 1 is held out, so row 0 is left. Row 3 is held out: it has all three before it.
    assert found.offsets.tolist() == [0, 0, 1, 2, 5, 5]
    assert found.positions.tolist() == [0, 0, 0, 1, 2]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 6),
)
def test_no_history_holds_a_later_interaction(rows: list[tuple[int, int, bool]], last: int) -> None:
    rows.sort()
    users, times, held_out = (np.array(column) for column in zip(*rows, strict=True))
    found = histories(users, times, held_out, last)
    for row, (user, moment, is_held_out) in enumerate(rows):
        earlier = [p for p, (u, t, h) in enumerate(rows) if u == user and t < moment and (is_held_out or not h)][-last:]
        assert found.positions[found.offsets[row] : found.offsets[row + 1]].tolist() == earlier


def test_ages_are_seconds_before_the_row() -> None:
    users, times = np.array([7, 7, 7, 7, 9]), np.array([1_000_000, 3_000_000, 3_000_000, 8_500_000, 9_000_000])
    found = histories(users, times, np.zeros(5, bool), last=2)
    # Rows 1 and 2 have row 0, two seconds before; row 3 has rows 1 and 2.
    assert found.ages(times).tolist() == [2.0, 2.0, 5.5, 5.5]


def test_nothing_has_no_history() -> None:
    nothing = np.array([], np.int64)
    found = histories(nothing, nothing, np.array([], bool), 3)
    assert found.positions.tolist() == found.ages(nothing).tolist() == [] and found.newest.tolist() == []


def test_a_history_of_a_kind_of_event_holds_only_that_kind() -> None:
    users = np.array([7, 7, 7, 7, 7, 9])
    times = np.array([1, 2, 3, 4, 5, 6])
    held_out = np.array([False, False, True, False, False, True])
    bought = np.array([True, False, True, True, False, True])
    found = histories(users, times, held_out, 2, bought)
    # Rows 1, 3 of training: row 0, as 2 is held out; row 4: 0 and 3. Row 2 is held out: row 0. User 9 has nothing before.
    assert found.offsets.tolist() == [0, 0, 1, 2, 3, 5, 5]
    assert found.positions.tolist() == [0, 0, 0, 0, 3]
