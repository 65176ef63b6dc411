"""Nothing is left out before it is counted: words for what is missing, numbers, truth values, ids and their weights."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.components.cleaned import catalogue_of, dropped, log_of, spec, texts, written


# Words for what is missing
def test_usual_spellings_of_a_missing_value_are_no_ids_but_where_that_is_declared(tmp_path: Path) -> None:
    """Regression: everyone whom Hive or pandas did not know was one user, NULL or nan, with a common history."""
    words = ["NULL", "None", r"\N", "NaN", "<NA>", "nan"]
    lines = [f"{word},A,2026-11-24T0{hour}:00:00Z,1,p" for hour, word in enumerate(words)]
    others = ["v,A,2026-11-24T09:00:00Z,1,NULL", "w,A,2026-11-24T09:00:00Z,1,"]
    path = written(tmp_path, "\n".join(["user,sku,at,liked,dev", *lines, *others]))
    rows, accounting = log_of(path)
    assert texts(rows, "query_id") == ["w"]
    assert dropped(accounting) == {
        "user: a usual spelling of a missing value": 6,
        "dev: a usual spelling of a missing value": 1,
    }
    assert accounting.ways_out["dev: a usual spelling of a missing value"] == (
        "Say `null_values: ['NULL']` where these stand for a missing value, `null_values: []` where they are ids."
    )
    rows, accounting = log_of(path, null_values=words)
    assert dropped(accounting) == {"user: missing": 6}
    assert texts(rows, "query_id") == ["v", "w"] and texts(rows, "dev") == [None, None]
    rows, accounting = log_of(path, null_values=[])
    assert not accounting.dropped and texts(rows, "query_id")[:2] == ["NULL", "None"]


def test_a_spelling_of_a_missing_number_names_the_way_out(tmp_path: Path) -> None:
    path = written(tmp_path, "user,sku,at,liked,dev\nv,A,2026-11-24T09:00:00Z,NULL,p\nv,A,2026-11-24T09:00:00Z,nan,p\n")
    _, accounting = log_of(path)
    assert dropped(accounting) == {"liked: not a number": 1, "liked: missing": 1}
    assert accounting.ways_out == {
        "liked: not a number": "Say `null_values: ['NULL']` where these stand for a missing value.",
        "liked: missing": "Where this is no fault, say `where: [{column: liked, missing: false}]`: such rows are then not asked "
        "for.",
    }


def test_a_missing_value_in_a_list_is_no_value(tmp_path: Path) -> None:
    path = written(tmp_path, "sku,name,tags\nA,a,x|NULL|y\nB,b,NULL\n")
    rows, accounting = catalogue_of(path, null_values=["NULL"])
    assert not accounting.dropped and rows.column("tags").to_pylist() == [[b"x", b"y"], None]
    assert dropped(catalogue_of(path)[1]) == {"tags: a usual spelling of a missing value": 2}


# Numbers and truth values
def test_truth_values_of_csv_are_numbers(tmp_path: Path) -> None:
    """Regression: the items of a catalogue whose column said true were dropped, those that said 1 were blocked."""
    words = ["false", "true", "False", "TRUE", "t", "f", "1", "0", "", "yes"]
    path = written(tmp_path, "sku,name,tags,hidden\n" + "".join(f"{n},n,,{word}\n" for n, word in enumerate(words)))
    rows, accounting = catalogue_of(path, spec(catalogue={"blocked": "hidden"}))
    assert rows.column("_blocked").to_pylist() == [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, None]
    assert accounting.dropped == {"hidden: not a number": (1, [f"{path} line 11: 'yes'"])}


@pytest.mark.parametrize(("scale", "most"), [("none", 1e14), ("zscore", 1e18), ("log", 1e18)])
def test_sentinel_numbers_are_faults(tmp_path: Path, scale: str, most: float) -> None:
    """Regression: an item whose price was FLT_MAX had the zero vector, and scored 0 for every query."""
    numbers = [
        "3.4e38",
        "1.7976931348623157e308",
        "9223372036854775807",
        "-9223372036854775808",
        "1e30",
        f"{most:g}",
        "0.5",
    ]
    path = written(
        tmp_path, "sku,name,tags,price\n" + "".join(f"{n},n,,{number}\n" for n, number in enumerate(numbers))
    )
    rows, accounting = catalogue_of(path, spec(item={"price": {"kind": "number", "scale": scale}}))
    assert rows.column("price").to_pylist() == pytest.approx([most, 0.5])
    assert sum(dropped(accounting).values()) == 5
    assert all("empty value or NaN" in words for words in accounting.ways_out.values())


def test_a_decimal_comma_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, 'user,sku,at,liked,dev\nv,A,2026-11-24T09:00:00Z,"0,5",p\n')
    assert log_of(path)[1].ways_out == {"liked: not a number": "Write a decimal point, not a comma."}


# Ids and weights
WEIGHTED = {"tags": {"kind": "ids", "table": "other", "max_values": 3, "weights": "w"}}


def test_an_id_keeps_its_weight_where_one_beside_it_is_missing(tmp_path: Path) -> None:
    """Regression: what was missing was taken out of both lists, and the weight of one id became another's."""
    table = pa.table(
        {
            "sku": ["A", "B", "C", "D"],
            "name": ["a", "b", "c", "d"],
            "tags": [["x", None, "z"], ["x", "y"], ["x", "y"], None],
            "w": pa.array([[1.0, 2.0, 3.0], [None, 2.0], [1.0], None], pa.list_(pa.float64())),
        }
    )
    path = tmp_path / "part.parquet"
    parquet.write_table(table, path)
    rows, accounting = catalogue_of(path, spec(item=WEIGHTED), form="parquet")
    assert rows.column("tags").to_pylist() == [[b"x", b"z"], None]
    assert rows.column("tags_weights").to_pylist() == [[1.0, 3.0], None]
    # B has an id without a weight, C two ids and one weight.
    assert accounting.dropped == {"tags_weights: another number than of tags": (2, [f"{path} row 2", f"{path} row 3"])}


def test_ids_in_a_text_keep_their_weights_too(tmp_path: Path) -> None:
    path = written(tmp_path, "sku,name,tags,w\nA,a,x||z,1|2|3\nB,b,x|y,1|2\nC,c,x||z,1|2|\nD,d,x||z,1|3\n")
    rows, accounting = catalogue_of(path, spec(item=WEIGHTED))
    assert rows.column("tags").to_pylist() == [[b"x", b"z"], [b"x", b"y"]]
    assert rows.column("tags_weights").to_pylist() == [[1.0, 3.0], [1.0, 2.0]]
    assert dropped(accounting) == {"tags_weights: another number than of tags": 2}
