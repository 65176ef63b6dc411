"""Conditions on items: what they let through, in TensorFlow's operations and in NumPy, against what is told item by item."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from components.indexer.filters import MOST_FILTERS, SAMPLE, Filters
from ndr_client import conditions
from ndr_client.faiss_client import columns_of
from tests.memory import peak_during

# By item: what it has of each column; None and [] are nothing.
Catalogue = dict[str, list[Any]]
SHOP: Catalogue = {
    "country": [[b"de", b"fr"], [b"de"], [b"us"], []],
    "price": [5.0, 19.99, None, 20.0],
    "in_stock": [1.0, 0.0, 1.0, 1.0],
}
KINDS = {"country": pa.list_(pa.binary()), "price": pa.float32(), "in_stock": pa.float32()}


def table(catalogue: Catalogue) -> pa.Table:
    return pa.table({name: pa.array(values, KINDS[name]) for name, values in catalogue.items()})


def by_tensorflow(catalogue: Catalogue, *where: Sequence[str]) -> list[list[bool]]:
    """What each list of conditions lets through; asked in an order of rows that is not the catalogue's."""
    items = len(catalogue["country"])
    order = np.arange(items)[::-1]
    made = Filters(table(catalogue), [b"%d" % number for number in range(items)], order)
    width = max(map(len, where))
    rows = [[*each, *[""] * (width - len(each))] for each in where]
    passing = made(tf.reshape(tf.constant(rows, tf.string), [len(rows), width]))
    masks = tf.gather(passing.masks, passing.number).numpy()[:, ::-1]
    assert tf.gather(passing.left, passing.number).numpy().tolist() == masks.sum(axis=1).tolist()
    found: list[list[bool]] = masks.tolist()
    return found


def by_numpy(catalogue: Catalogue, *where: Sequence[str]) -> list[list[bool]]:
    columns = columns_of(table(catalogue))
    return [columns.passing(each).tolist() for each in where]


ways = pytest.mark.parametrize("way", [by_tensorflow, by_numpy])
Way = Callable[..., list[list[bool]]]


@ways
@pytest.mark.parametrize(
    ("where", "passes"),
    [
        (["country=de"], [1, 1, 0, 0]),
        (["country=de", "country=us"], [1, 1, 1, 0]),  # any of them
        (["country!=fr"], [0, 1, 1, 1]),  # one that matches is too much; an item without a country passes
        (["country=de", "country!=fr"], [0, 1, 0, 0]),
        (["country=nowhere"], [0, 0, 0, 0]),
        (["country!=nowhere"], [1, 1, 1, 1]),
        (["price>=5", "price<=19.99"], [1, 1, 0, 0]),  # both ends are in; what has no price is in no range
        (["price<=1e2"], [1, 1, 0, 1]),
        (["price>=6", "price>=20"], [0, 0, 0, 1]),  # all of them
        (["price>=20", "price<=6"], [0, 0, 0, 0]),
        (["price=5", "price=20"], [1, 0, 0, 1]),
        (["price!=5"], [0, 1, 1, 1]),
        (["in_stock=1", "country=de", "price<=10"], [1, 0, 0, 0]),
        (["", "in_stock=0", ""], [0, 1, 0, 0]),
        ([""], [1, 1, 1, 1]),
    ],
)
def test_conditions_select_items(way: Way, where: list[str], passes: list[int]) -> None:
    assert way(SHOP, where) == [[bool(each) for each in passes]]


def test_each_row_of_a_batch_has_its_own_filter() -> None:
    found = by_tensorflow(SHOP, ["country=us"], [], ["price<=5"], ["country=us"])
    assert found == [[False, False, True, False], [True] * 4, [True, False, False, False], [False, False, True, False]]


def test_lists_of_conditions_that_look_alike_when_joined_are_two() -> None:
    # 9:country=d1:e and 10:country=de: without the lengths both would be the same text.
    catalogue: Catalogue = {"country": [[b"a10:country=b"], [b"a"], [b"b"]]}
    assert by_tensorflow(catalogue, ["country=a10:country=b", ""], ["country=a", "country=b"]) == [
        [True, False, False],
        [False, True, True],
    ]


@ways
@pytest.mark.parametrize("value", ["a|b", "a=b", "x>=5", " de ", "2 lines\nof it", "Köln", "!=", "\\1", "(", "'\""])
def test_a_value_is_taken_as_it_is(way: Way, value: str) -> None:
    catalogue: Catalogue = {"country": [[value.encode()], [b"other"]]}
    assert way(catalogue, [f"country={value}"], [f"country!={value}"]) == [[True, False], [False, True]]


@ways
@pytest.mark.parametrize(
    "condition",
    ["contry=de", "country", "country=", "country>=de", "price=cheap", "price>=", "price>5", "=de", "price<=1e999",
     "country =de", "xcountry=de", "price<=5 ", "nan", "price>=nan", "price<=inf"],
)  # fmt: skip
def test_invalid_conditions_are_named(way: Way, condition: str) -> None:
    words = "where: expected country with = or != and a value; price or in_stock with =, !=, >= or <= and a number; "
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as raised:
        way(SHOP, ["country=de", condition])
    assert f"{words}received {condition}" in str(raised.value) and SAMPLE not in str(raised.value)


def test_more_different_filters_than_a_batch_may_have_are_refused() -> None:
    many = [[f"price>={number}"] for number in range(MOST_FILTERS + 1)]
    assert len(by_tensorflow(SHOP, *many[1:], *many[1:])) == 2 * MOST_FILTERS
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"where: expected at most {MOST_FILTERS} different lists"):
        by_tensorflow(SHOP, *many)


@pytest.mark.parametrize("condition", ["country=de", "country!=de", "price=5", "price!=5"])
def test_a_condition_that_is_repeated_takes_no_memory_for_each_item(condition: str) -> None:
    """Regression: a request of 2 MB compared each of its conditions with every item at once, which took 2 GB or more here."""
    catalogue: Catalogue = {"country": [[b"de"]] * 10_000, "price": [5.0] * 10_000}
    found = list[list[bool]]()
    assert peak_during(lambda: found.extend(by_tensorflow(catalogue, [condition] * 200_000))) < 500 << 20
    assert found == [["!" not in condition] * 10_000]


@ways
def test_columns_that_no_item_has_a_value_of(way: Way) -> None:
    catalogue: Catalogue = {"country": [[], []], "price": [None, None]}
    assert way(catalogue, ["country=de"], ["country!=de"], ["price<=5"], ["price!=5"]) == [
        [False] * 2, [True] * 2, [False] * 2, [True] * 2,
    ]  # fmt: skip


def test_a_share_of_the_sample_is_that_share_of_the_items() -> None:
    items: Catalogue = {"country": [[]] * 1000}
    for share, count in ((1.0, 1000), (0.5, 501), (0.1, 101), (0.001, 2), (0.0005, 1)):  # those at 0/1000, 1/1000, ...
        assert sum(by_tensorflow(items, [f"{SAMPLE}<={share}"])[0]) == count


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {">=": operator.ge, "<=": operator.le}


def told(catalogue: Catalogue, where: Sequence[str]) -> list[bool]:
    """Item by item and condition by condition."""
    passes = []
    for item in range(len(catalogue["country"])):
        asked: dict[tuple[str, str], list[Any]] = {}
        for each in where:
            sign = next(sign for sign in (">=", "<=", "!=", "=") if sign in each)
            name, value = each.split(sign, 1)
            asked.setdefault((name, sign), []).append(value.encode() if name == "country" else np.float32(value))
        meets = True
        for (name, sign), values in asked.items():
            own = catalogue[name][item]
            own = own if isinstance(own, list) else [] if own is None else [np.float32(own)]
            if sign == "=":
                meets &= any(value in values for value in own)
            elif sign == "!=":
                meets &= not any(value in values for value in own)
            else:
                meets &= bool(own) and all(OPERATORS[sign](own[0], value) for value in values)
        passes.append(meets)
    return passes


some_ids = st.sampled_from(["a", "b", "c", "d", "ä", "a b"])
some_numbers = st.sampled_from([-3.5, 0.0, 0.1, 1.0, 19.99, 1e20])
some_conditions = st.one_of(
    st.tuples(st.just("country"), st.sampled_from(["=", "!="]), some_ids),
    st.tuples(st.sampled_from(["price", "in_stock"]), st.sampled_from(["=", "!=", ">=", "<="]), some_numbers),
).map(lambda parts: "".join(map(str, parts)))
some_items = st.lists(
    st.tuples(st.lists(some_ids.map(str.encode), max_size=3), st.none() | some_numbers, st.none() | some_numbers),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(items=some_items, where=st.lists(st.lists(some_conditions, max_size=4), min_size=1, max_size=3))
def test_items_pass_that_meet_each_condition(items: list[tuple[Any, ...]], where: list[list[str]]) -> None:
    catalogue = dict(zip(KINDS, map(list, zip(*items, strict=True)), strict=True))
    expected = [told(catalogue, each) for each in where]
    assert by_tensorflow(catalogue, *where) == expected
    assert by_numpy(catalogue, *where) == expected


def test_the_grammar_gives_the_parts_of_a_condition() -> None:
    known = conditions.grammar({"country": False, "price": True, "price_eur": True})
    assert conditions.parse("price_eur>=-1.5e2", known) == ("price_eur", ">=", "-1.5e2")
    assert conditions.parse("country!==", known) == ("country", "!=", "=")
