"""Places numbers on plots: everything that the page draws, without HTML.

Positions are percentages of the plot's width, from the left, and height, from the top, so that a plot can have any size.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

MOST_X_TICKS = 7
MOST_Y_STEPS = 5
ROUND = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)  # steps between ticks, times a power of ten
TOLERANCE = 1e-9  # of a step; 0.3 / 0.1 is a little less than 3
ROOM_ABOVE = 1.05  # times the greatest value
# Smaller differences count as equal: by themselves, and as a share of the greater number.
SMALLEST, RELATIVE = 1e-300, 1e-12

Words = Callable[[float], str]


@dataclass(frozen=True)
class Value:
    """A value of a series.

    Attributes:
        value: the number.
        tip: its tooltip.
        low: the lower end of its interval, if it has one.
        high: the upper end.
        symbol: its marker, a name of the page's style sheet.
    """

    value: float
    tip: str
    low: float | None = None
    high: float | None = None
    symbol: str = "dot"


@dataclass(frozen=True)
class Mark:
    """A value at its position; `low` and `high` are the positions of its interval's ends."""

    x: float
    y: float
    tip: str
    low: float | None
    high: float | None
    symbol: str


@dataclass(frozen=True)
class Line:
    """A series at its position; `path` is SVG's, in a box of 100 by 100, with gaps at missing values."""

    name: str
    path: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Bar:
    """A part of a stacked column: `part` is the number of its series."""

    x: float
    y: float
    width: float
    height: float
    part: int
    tip: str


Ticks = tuple[tuple[float, str], ...]
"""Positions and their labels."""


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        label: its description, for those who do not see it.
        x_ticks: of the horizontal axis.
        y_ticks: of the vertical axis.
        lines: the series.
        bars: the parts of stacked columns.
        names: of the parts.
        rules: horizontal lines at limits.
        diagonal: whether both axes are equal, and their bisector is drawn.
    """

    label: str
    x_ticks: Ticks
    y_ticks: Ticks
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    names: tuple[str, ...] = ()
    rules: Ticks = ()
    diagonal: bool = False


def line_chart(
    label: str,
    columns: Sequence[str],
    series: Mapping[str, Sequence[Value | None]],
    words: Words,
    limits: Mapping[str, float] | None = None,
    from_zero: bool = True,
    most: float = math.inf,
) -> Chart:
    """Draw lines over equally spaced columns.

    Args:
        label: see `Chart`.
        columns: their names.
        series: by name, a value for each column; None or a non-finite value leaves a gap.
        words: formats a number of the vertical axis.
        limits: by label, the value of a limit; one above all values is not drawn.
        from_zero: whether the vertical axis begins at 0, else below the least value.
        most: upper bound of the vertical axis, if no value can exceed it.
    """
    series = {name: _finite(values) for name, values in series.items()}
    ends = [
        end for values in series.values() for value in values if value for end in (value.value, value.low, value.high)
    ]
    bounds = [end for end in ends if end is not None]
    ticks = _ticks(0.0 if from_zero else min(bounds, default=0.0), max(bounds, default=1.0), most)
    y = _place(ticks[0], ticks[-1], upwards=True)
    lines = []
    for name, values in series.items():
        marks = [
            None if value is None else _mark(value, column_place(number, len(columns)), y)
            for number, value in enumerate(values)
        ]
        lines.append(Line(name, _path(marks), tuple(mark for mark in marks if mark)))
    rules = [(y(limit), name) for name, limit in (limits or {}).items() if limit <= ticks[-1]]
    return Chart(label, column_ticks(columns), _named(ticks, y, words), tuple(lines), rules=tuple(rules))


def bar_chart(label: str, columns: Sequence[str], parts: Mapping[str, Sequence[Value | None]], words: Words) -> Chart:
    """Draw stacked columns; see `line_chart`."""
    sums = [sum(value.value for value in column if value) for column in zip(*parts.values(), strict=True)]
    ticks = _ticks(0.0, max(sums, default=1.0))
    y = _place(0.0, ticks[-1], upwards=True)
    width = 70 / max(1, len(columns))
    bars = []
    below = [0.0] * len(columns)
    for part, values in enumerate(parts.values()):
        for number, value in enumerate(values):
            if value and value.value:
                top, bottom = y(below[number] + value.value), y(below[number])
                left = column_place(number, len(columns)) - width / 2
                bars.append(Bar(left, top, width, bottom - top, part, value.tip))
                below[number] += value.value
    return Chart(
        label, column_ticks(columns), _named(ticks, y, words), bars=tuple(bars), names=tuple(parts)
    )  # fmt: skip


def log_scatter(label: str, points: Iterable[tuple[float, float, str]]) -> Chart:
    """Draw points on two logarithmic axes of the same range, with their bisector.

    Points that are not positive and finite are left out.

    Args:
        label: see `Chart`.
        points: x, y and tooltip.
    """
    shown = [
        (math.log10(x), math.log10(y), tip)
        for x, y, tip in points
        if all(value > 0 and math.isfinite(value) for value in (x, y))
    ]
    exponents = [value for point in shown for value in point[:2]]
    low = math.floor(min(exponents, default=0.0))
    high = max(low + 1, math.ceil(max(exponents, default=1.0)))
    x, y = _place(low, high), _place(low, high, upwards=True)
    marks = tuple(Mark(x(across), y(up), tip, None, None, "dot") for across, up, tip in shown)
    decades = range(low, high + 1)
    return Chart(
        label,
        tuple((x(decade), f"{10.0**decade:g}") for decade in decades),
        tuple((y(decade), f"{10.0**decade:g}") for decade in decades),
        (Line("", "", marks),),
        diagonal=True,
    )


def column_place(number: int, count: int) -> float:
    """Return the middle of a column, as a percentage of the width."""
    return _rounded((number + 0.5) / count * 100)


def column_ticks(columns: Sequence[str]) -> Ticks:
    """Label every n-th column, as many as fit, including the last."""
    step = -(-len(columns) // MOST_X_TICKS)
    return tuple(
        (column_place(number, len(columns)), name)
        for number, name in enumerate(columns)
        if (len(columns) - 1 - number) % step == 0
    )


def _ticks(low: float, high: float, most: float = math.inf) -> list[float]:
    """Return round numbers from at or below `low` to at or above `high`, with some margin unless `most` forbids it."""
    size = max(abs(low), abs(high))
    is_flat = high - low <= max(SMALLEST, size * RELATIVE)  # nothing that numbers could divide
    top = low + max(1.0, size * RELATIVE) if is_flat else min(low + (high - low) * ROOM_ABOVE, most)
    power = 10.0 ** math.floor(math.log10((top - low) / MOST_Y_STEPS))
    spans = (
        (step, math.floor(low / step + TOLERANCE), math.ceil(top / step - TOLERANCE))
        for step in (power * factor for factor in ROUND)
    )
    step, first, last = next(span for span in spans if span[2] - span[1] <= MOST_Y_STEPS)
    return [number * step for number in range(first, last + 1)]


def _named(ticks: Sequence[float], place: Callable[[float], float], words: Words) -> Ticks:
    return tuple((place(tick), words(tick)) for tick in ticks)


def _place(low: float, high: float, upwards: bool = False) -> Callable[[float], float]:
    def place(value: float) -> float:
        share = (value - low) / (high - low)
        return _rounded(100 * (1 - share if upwards else share))

    return place


def _finite(values: Sequence[Value | None]) -> list[Value | None]:
    return [value if value and math.isfinite(value.value) else None for value in values]


def _mark(value: Value, x: float, y: Callable[[float], float]) -> Mark:
    low, high = (None if end is None else y(end) for end in (value.low, value.high))
    return Mark(x, y(value.value), value.tip, low, high, value.symbol)


def _path(marks: Sequence[Mark | None]) -> str:
    """Connect neighbouring marks with straight lines, except across gaps."""
    words = []
    pen_is_down = False
    for mark in marks:
        if mark:
            words.append(f"{'L' if pen_is_down else 'M'}{mark.x:g} {mark.y:g}")
        pen_is_down = mark is not None
    return "".join(words)


def _rounded(place: float) -> float:
    return round(place, 2)
