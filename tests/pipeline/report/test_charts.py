"""Where numbers are drawn, worked out by hand."""

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.report.charts import Value, bar_chart, column_ticks, line_chart, log_scatter


def words(value: float) -> str:
    return f"{value:g}"


def test_a_line_has_a_place_for_each_value_and_a_gap_where_there_is_none() -> None:
    values = [Value(0.0, "a"), Value(5.0, "b", 4.0, 6.0), None, Value(9.0, "d", symbol="cross"), Value(1.0, "e")]
    chart = line_chart("it", ["1", "2", "3", "4", "5"], {"x": values}, words)
    # Five columns of 20 %; up to 9.45 with some room, so the axis goes to 10: 9 is at a tenth from the top, 5 in the middle.
    assert [text for _, text in chart.y_ticks] == ["0", "2", "4", "6", "8", "10"]
    (line,) = chart.lines
    assert [(mark.x, mark.y) for mark in line.marks] == [(10, 100), (30, 50), (70, 10), (90, 90)]
    assert line.path == "M10 100L30 50M70 10L90 90"
    assert (line.marks[1].low, line.marks[1].high) == (60, 40) and line.marks[2].symbol == "cross"


def test_non_finite_values_are_not_drawn() -> None:
    chart = line_chart("it", ["1", "2"], {"x": [Value(float("nan"), ""), Value(1.0, "")]}, words)
    assert [mark.x for mark in chart.lines[0].marks] == [75]
    assert log_scatter("it", [(float("inf"), 1.0, ""), (1.0, float("nan"), "")]).lines[0].marks == ()


def test_a_share_has_no_room_above_one() -> None:
    chart = line_chart("it", ["1"], {"x": [Value(1.0, "")]}, words, most=1.0)
    assert chart.y_ticks[-1] == (0.0, "1")


def test_a_limit_that_is_out_of_sight_is_not_drawn() -> None:
    chart = line_chart("it", ["1"], {"x": [Value(9.0, "")]}, words, {"near": 5.0, "far": 50.0})
    assert chart.rules == ((50.0, "near"),)


def test_an_axis_need_not_begin_at_zero() -> None:
    chart = line_chart("it", ["1", "2"], {"x": [Value(3.0, ""), Value(4.0, "")]}, words, from_zero=False)
    assert float(chart.y_ticks[0][1]) == 3.0


def test_ticks_are_round_numbers_at_most_five_steps_apart() -> None:
    def ticks(low: float, high: float) -> list[str]:
        chart = line_chart("it", ["1", "2"], {"x": [Value(low, ""), Value(high, "")]}, words, from_zero=False)
        return [text for _, text in chart.y_ticks]

    # With room the axes go to .3575, to .72 and to 1.07e6; steps of .025, .05 and 1e5 would be more than five.
    assert ticks(0.2, 0.35) == ["0.2", "0.25", "0.3", "0.35", "0.4"]
    assert ticks(0.3, 0.7) == ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8"]  # though .3 / .1 is less than 3 in binary
    assert ticks(4e5, 1.04e6) == ["400000", "600000", "800000", "1e+06", "1.2e+06"]


def test_parts_of_a_column_stand_upon_each_other() -> None:
    chart = bar_chart(
        "it", ["1", "2"], {"a": [Value(2.0, "two"), None], "b": [Value(6.0, "six"), Value(0.0, "none")]}, words
    )
    # The axis goes to 10, columns are 35 % wide around 25 % and 75 %: 2 is the lowest fifth, 6 the three fifths above it.
    assert chart.y_ticks[-1] == (0.0, "10")
    assert [(bar.x, bar.y, bar.width, bar.height, bar.part, bar.tip) for bar in chart.bars] == [
        (7.5, 80, 35, 20, 0, "two"),
        (7.5, 20, 35, 60, 1, "six"),
    ]


def test_logarithmic_axes_are_of_the_same_decades() -> None:
    chart = log_scatter("it", [(0.01, 0.1, "rare"), (1.0, 10.0, "frequent"), (0.0, 1.0, "never")])
    # From 0.01 to 10 are three decades: 0.1 is one up.
    assert [text for _, text in chart.x_ticks] == ["0.01", "0.1", "1", "10"] and chart.x_ticks[-1][0] == 100
    assert [(mark.x, mark.y, mark.tip) for mark in chart.lines[0].marks] == [(0, 66.67, "rare"), (66.67, 0, "frequent")]


def test_no_more_ticks_than_have_room_and_the_last_among_them() -> None:
    ticks = column_ticks([str(number) for number in range(1, 15)])
    assert [text for _, text in ticks] == ["2", "4", "6", "8", "10", "12", "14"]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e9)), min_size=1, max_size=40), st.booleans())
@example([5e-324], False)  # regression: a difference too small to be divided
@example([1e17], False)  # regression: a number that adding 1 does not change
def test_every_value_is_within_the_plot(numbers: list[float | None], from_zero: bool) -> None:
    values = [None if number is None else Value(number, "", number / 2, number) for number in numbers]
    columns = [str(number) for number in range(len(numbers))]
    chart = line_chart("it", columns, {"x": values}, words, from_zero=from_zero)
    for mark in chart.lines[0].marks:
        assert 0 <= mark.x <= 100 and -0.01 <= mark.y <= 100.01 and mark.low is not None and -0.01 <= mark.low <= 100.01
    bars = bar_chart("it", columns, {"x": values}, words).bars
    assert all(bar.y >= -0.01 and bar.y + bar.height <= 100.01 for bar in bars)
