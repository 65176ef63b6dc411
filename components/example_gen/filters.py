"""Selects the rows of a source that meet the conditions of `where`."""

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.example_gen.columns import Column
from components.example_gen.scalars import TRUTHS
from components.example_gen.settings import Condition, Scalar

PREFIX = "_where_"
COMPARISONS = {"above": "greater", "at_least": "greater_equal", "below": "less", "at_most": "less_equal"}


def filter_columns(where: Sequence[Condition]) -> list[Column]:
    """List the columns of conditions, one for each; their values are not part of an example."""
    return [
        Column(
            f"{PREFIX}{number}",
            condition.column,
            "compared" if condition.operator in COMPARISONS else "title",
        )
        for number, condition in enumerate(where)
    ]


def is_met(condition: Condition, values: pa.Array) -> NDArray[np.bool_]:
    """Return [rows], whether a condition is met. A missing value meets only `missing: true`, `not_equals` and `none_of`.

    Args:
        condition: a condition of `where`.
        values: [rows] of its column: for a comparison structs of `whole` (int64) and `real` (float64), else binary.
    """
    wanted = condition.value
    if condition.operator in COMPARISONS:
        whole, real = values.flatten()
        return _compare_whole(condition.operator, whole, wanted) | _compare_real(condition.operator, real, wanted)
    match condition.operator:
        case "missing":
            return _mask(pc.equal(pc.is_null(values), wanted))
        case "starts_with":
            return _mask(pc.starts_with(values, str(wanted)))
        case "equals" | "not_equals":
            matches = _is_one_of(values, [wanted])
        case _:
            matches = _is_one_of(values, wanted)
    return ~matches if condition.operator in ("not_equals", "none_of") else matches


def _compare_whole(operator: str, values: pa.Array, bound: float) -> NDArray[np.bool_]:
    """Compare int64 with a bound of any kind, exactly: above 1.5 is above 1, at least 1.5 is at least 2."""
    if math.isinf(bound) or abs(bound) >= 2**63:
        is_met = (bound < 0) == (operator in ("above", "at_least"))
        return np.full(len(values), is_met) & values.is_valid().to_numpy(zero_copy_only=False)
    edge = math.floor(bound) if operator in ("above", "at_most") else math.ceil(bound)
    return _mask(getattr(pc, COMPARISONS[operator])(values, pa.scalar(edge, pa.int64())))


def _compare_real(operator: str, values: pa.Array, bound: float) -> NDArray[np.bool_]:
    """Compare float64 with a bound, exactly: a whole bound between two floats is replaced by the float on the right side."""
    nearest = float(bound)
    if nearest > bound and operator == "above":
        operator = "at_least"
    elif nearest > bound and operator == "at_most":
        operator = "below"
    elif nearest < bound and operator == "at_least":
        operator = "above"
    elif nearest < bound and operator == "below":
        operator = "at_most"
    return _mask(getattr(pc, COMPARISONS[operator])(values, pa.scalar(nearest, pa.float64())))


def _is_one_of(values: pa.Array, wanted: Sequence[Scalar]) -> NDArray[np.bool_]:
    spellings = [text.encode() for value in wanted for text in _spellings(value)]
    return _mask(pc.is_in(values, pa.array(spellings, pa.binary())))


def _spellings(value: Scalar) -> list[str]:
    """Return the texts that stand for a value of YAML in data."""
    if isinstance(value, bool):
        return [text for text, number in TRUTHS.items() if number == str(int(value))] + [str(int(value))]
    if isinstance(value, float) and value.is_integer():
        return [str(value), str(int(value))]
    return [str(value), f"{value}.0"] if isinstance(value, int) else [str(value)]


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask
