"""Conditions on the items of an answer, such as `country=de` and `price<=20`: their syntax, and the items that meet them.

The retriever parses them with the same grammar, in TensorFlow's operations; `FaissClient` uses this module. README.md defines their
meaning.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ANY_OF, NONE_OF, AT_LEAST, AT_MOST = "=", "!=", ">=", "<="
NUMBER = r"[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,2})?"


class Grammar(NamedTuple):
    """The syntax of conditions on certain columns.

    Attributes:
        pattern: matches a whole condition, in RE2 and Python.
        groups: the replacements that give its name, its operator and its value, for RE2.
        words: a description for people.
    """

    pattern: str
    groups: tuple[str, str, str]
    words: str


def grammar(numbers: Mapping[str, bool]) -> Grammar:
    """Build the grammar of conditions.

    Args:
        numbers: the columns by name, and whether each has numbers rather than ids. Names that begin with an underscore are the
            pipeline's own, and not shown.
    """
    of_ids, of_numbers = (
        [name for name, is_number in numbers.items() if is_number == wanted] for wanted in (False, True)
    )
    alternatives: list[str] = []
    groups: list[int] = []
    words: list[str] = []
    for names, operators, value, described in (
        (of_ids, (ANY_OF, NONE_OF), r"(?:.|\n)+", "a value"),
        (of_numbers, (ANY_OF, NONE_OF, AT_LEAST, AT_MOST), NUMBER, "a number"),
    ):
        if names:
            alternatives.append(f"({'|'.join(names)})({'|'.join(operators)})({value})")
            groups.append(len(groups) * 3)
        if shown := [name for name in names if not name.startswith("_")]:
            words.append(f"{' or '.join(shown)} with {', '.join(operators[:-1])} or {operators[-1]} and {described}")
    name, operator, value = ("".join(rf"\{start + offset}" for start in groups) for offset in (1, 2, 3))
    return Grammar(f"^(?:{'|'.join(alternatives)})$", (name, operator, value), "; ".join(words))


class Condition(NamedTuple):
    """A parsed condition.

    Attributes:
        name: the column's name.
        operator: one of the four operators.
        value: the value to compare with.
    """

    name: str
    operator: str
    value: str


def parse(written: str | bytes, accepted: Grammar) -> Condition:
    """Parse a condition.

    Raises:
        ValueError: it is invalid.
    """
    text = written.decode(errors="backslashreplace") if isinstance(written, bytes) else written
    match = re.fullmatch(accepted.pattern, text)
    if match is None:
        raise ValueError(f"where: expected {accepted.words}; received {text[:200]}")
    name, operator, value = (group for group in match.groups() if group is not None)
    return Condition(name, operator, value)


class IdColumn:
    """Items by their ids in a column.

    Args:
        values: [values] bytes objects.
        items: [values] int64, the item of each value.
        size: the number of items.
    """

    def __init__(self, values: NDArray[np.object_], items: NDArray[np.int64], size: int) -> None:
        self._known, self._codes = np.unique(values, return_inverse=True) if len(values) else (values, items)
        self._items = items
        self._size = size

    def passing(self, conditions: Sequence[Condition]) -> NDArray[np.bool_]:
        """Return [items], whether they meet all of some conditions on this column."""
        any_of, none_of = (
            [condition.value.encode() for condition in conditions if condition.operator == operator]
            for operator in (ANY_OF, NONE_OF)
        )
        passing = ~self._have(none_of)
        return passing & self._have(any_of) if any_of else passing

    def _have(self, values: list[bytes]) -> NDArray[np.bool_]:
        places = [(bisect_left(self._known, value), value) for value in values]
        codes = [place for place, value in places if place < len(self._known) and self._known[place] == value]
        have = np.zeros(self._size, bool)
        have[self._items[np.isin(self._codes, codes)]] = True
        return have


class NumberColumn:
    """Items by their number in a column.

    Args:
        numbers: [items] float32; NaN if missing.
    """

    def __init__(self, numbers: NDArray[np.float32]) -> None:
        self._numbers = numbers

    def passing(self, conditions: Sequence[Condition]) -> NDArray[np.bool_]:
        """Return [items], whether they meet all of some conditions on this column."""
        by = {
            operator: np.array(
                [float(condition.value) for condition in conditions if condition.operator == operator]
            ).astype(np.float32)
            for operator in (ANY_OF, NONE_OF, AT_LEAST, AT_MOST)
        }
        passing = ~np.isin(self._numbers, by[NONE_OF])
        for bound in by[AT_LEAST]:
            passing &= self._numbers >= bound
        for bound in by[AT_MOST]:
            passing &= self._numbers <= bound
        return passing & np.isin(self._numbers, by[ANY_OF]) if len(by[ANY_OF]) else passing


class Columns:
    """All columns that items are filtered by.

    Args:
        columns: by name.
    """

    def __init__(self, columns: Mapping[str, IdColumn | NumberColumn]) -> None:
        self._columns = columns
        self._grammar = grammar({name: isinstance(column, NumberColumn) for name, column in columns.items()})

    def passing(self, where: Sequence[str | bytes]) -> NDArray[np.bool_]:
        """Return [items], whether they meet all of some conditions; empty texts are ignored.

        Raises:
            ValueError: a condition is invalid, or there are no columns to filter by.
        """
        if not self._columns:
            raise ValueError("where: expected no conditions, as features.yaml declares no catalogue.filters")
        asked = [parse(text, self._grammar) for text in where if text]
        of_columns = [
            column.passing([condition for condition in asked if condition.name == name])
            for name, column in self._columns.items()
        ]
        return np.logical_and.reduce(of_columns)
