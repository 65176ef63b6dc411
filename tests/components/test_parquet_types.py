"""Nothing is left out before it is counted: the types of Parquet."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from schemas.errors import UserError
from tests.components.cleaned import DAY, catalogue_of, dropped, log_of, texts, written


@pytest.mark.parametrize(
    ("ids", "read", "faults"),
    [
        (pa.array([13.0, None, 1e16, 13.5, float("nan")]), ["13"], 2),  # what is past 2^53 may be another's
        (pa.array([Decimal("13.00"), None, Decimal("14.50"), None, None], pa.decimal128(10, 2)), ["13"], 1),
        (pa.array([Decimal(10**20), None, None, None, None], pa.decimal128(38, 0)), [str(10**20)], 0),
        (pa.array([13, None, None, None, None], pa.uint64()), ["13"], 0),
        (pa.array(["13", None, None, None, None]).dictionary_encode(), ["13"], 0),
    ],
)
def test_whole_numbers_are_ids_whatever_their_type(tmp_path: Path, ids: pa.Array, read: list[str], faults: int) -> None:
    """Regression: pandas makes floats of whole numbers where one is missing, and those were refused."""
    path = tmp_path / "part.parquet"
    parquet.write_table(pa.table({"sku": ids, "name": ["a"] * 5, "tags": pa.array([[1.0, 2.0]] * 5)}), path)
    rows, accounting = catalogue_of(path, form="parquet")
    assert texts(rows, "candidate_id") == read and rows.column("tags").to_pylist() == [[b"1", b"2"]]
    assert dropped(accounting).get("sku: not a whole number", 0) == faults
    assert dropped(accounting)["sku: missing"] == 4 - faults


def test_lists_of_a_fixed_size_are_lists(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    tags = pa.array([["x", "y"], ["", None], ["z", None]], pa.list_(pa.string(), 2))
    parquet.write_table(pa.table({"sku": ["A", "B", "C"], "name": ["a"] * 3, "tags": tags}), path)
    rows, accounting = catalogue_of(path, form="parquet")
    assert not accounting.dropped and rows.column("tags").to_pylist() == [[b"x", b"y"], [], [b"z"]]


@pytest.mark.parametrize(
    ("column", "values", "way_out"),
    [
        (
            "user",
            pa.array([b"0123456789abcdef"], pa.binary(16)),
            r"found fixed_size_binary\[16\]; write it as text, a UUID",
        ),
        ("at", pa.array(["2026-11-24T09:00:00Z"]), "found string; say `time_unit: iso`"),
        ("at", pa.array([DAY]), r"found date32\[day\]; write a timestamp"),
        ("user", pa.array([["u"]]), "found list.*; a feature of kind `ids` has several values"),
    ],
)
def test_a_type_that_is_not_read_names_the_way_out(tmp_path: Path, column: str, values: pa.Array, way_out: str) -> None:
    table = {
        "user": pa.array(["u"]),
        "sku": pa.array(["A"]),
        "at": pa.array([1.0]),
        "liked": [1.0],
        "dev": ["p"],
        column: values,
    }
    path = tmp_path / "part.parquet"
    parquet.write_table(pa.table(table), path)
    with pytest.raises(UserError, match=f"in column {column}, {way_out}"):
        log_of(path, time_unit="s", form="parquet")


@pytest.mark.parametrize("title", ["x" * 1025, "Cr\udce8me br\udcfbl\udce9e", "é" * 600])
def test_a_title_never_costs_its_item(tmp_path: Path, title: str) -> None:
    """Regression: a title of 1,025 bytes, or one in cp1252, took its item out of the catalogue."""
    path = written(tmp_path, f"sku,name,tags\nA,{title},x\nB,Bee,\n".encode("utf-8", "surrogateescape"))
    rows, accounting = catalogue_of(path)
    assert not accounting.dropped and texts(rows, "candidate_id") == ["A", "B"]
    shown = texts(rows, "title")[0]
    assert 0 < len(shown.encode()) <= 1024 and shown[0] == title[0] and texts(rows, "title")[1] == "Bee"


def test_a_title_may_be_a_number(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    parquet.write_table(pa.table({"sku": ["A", "B"], "name": [1984, None], "tags": ["x", "y"]}), path)
    assert texts(catalogue_of(path, form="parquet")[0], "title") == ["1984", None]
