"""Vectors and texts: from the forms that data has them in, past interactions, to what training and serving are given."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow as tf

from components.example_gen.columns import Column, type_faults
from components.example_gen.conversion import convert
from components.example_gen.scalars import Form
from components.example_gen.ways_out import way_out
from schemas.features import CANDIDATE_ID, FeatureSpec
from tests.components import test_example_gen
from tests.components.test_example_gen import GOOD, SPEC, Shop

PAIR = Column("sound", "sound", "vector", separator=" ", size=2)


def converted(raw: pa.Array, column: Column = PAIR) -> tuple[list[Any], dict[str, list[bool]]]:
    """The values, and the rows at fault by reason, of those that have any."""
    found = convert(column, raw, Form(max_id_bytes=10))
    found.values.validate(full=True)
    return found.values.to_pylist(), {name: mask.tolist() for name, mask in found.faults.items() if mask.any()}


@pytest.mark.parametrize(
    "raw",
    [
        pa.array([b"1 2.5", b"", None, b"[ 3  -4e0 ]"]),
        pa.array([[1.0, 2.5], [], None, [3.0, -4.0]]),
        pa.array([[1.0, 2.5], None, None, [3.0, -4.0]], pa.list_(pa.float32(), 2)),
        pa.array([[1.0, 2.5], None, None, [3.0, -4.0]], pa.list_(pa.float64(), 2)),
        pa.array([[1.0, 2.5], [], None, [3.0, -4.0]], pa.large_list(pa.float32())),
    ],
    ids=["text", "list", "fixed size of floats", "fixed size of doubles", "large list"],
)
def test_a_vector_comes_in_many_forms(raw: pa.Array) -> None:
    assert type_faults([PAIR], {"sound": raw.type}, as_text=False) == []
    assert converted(raw) == ([[1.0, 2.5], None, None, [3.0, -4.0]], {})
    assert converted(raw.slice(3)) == ([[3.0, -4.0]], {})  # regression: pyarrow's if_else breaks a slice of texts


def test_json_lists_are_vectors_too() -> None:
    column = Column("sound", "sound", "vector", separator=",", size=3)
    assert converted(pa.array([b"[0.1, 0.2, 3]"]), column)[0] == [pytest.approx([0.1, 0.2, 3.0])]


def test_integers_are_numbers() -> None:
    assert converted(pa.array([[1, 2]], pa.list_(pa.int8()))) == ([[1.0, 2.0]], {})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"1", "another length than 2"),
        (b"1 2 3", "another length than 2"),
        (b"1 x", "not a number"),
        (b"1 nan", "a number is missing"),
        (b"1 inf", "not a number"),
        (b"\xff 2", "not UTF-8"),
        (b"1 3e19", "beyond 1.3e+19"),  # whose square no float32 holds
        ([1.0, None], "a number is missing"),
        ([float("nan"), 1.0], "a number is missing"),
        ([1.0], "another length than 2"),
        ([1e300, 1.0], "not a number"),  # no float32 holds it
    ],
)
def test_an_invalid_vector_is_a_fault_of_its_row_only(raw: Any, reason: str) -> None:
    good: Any = b"1 2" if isinstance(raw, bytes) else [1.0, 2.0]
    _, faults = converted(pa.array([good, raw, good, None]))
    assert faults == {reason: [False, True, False, False]}


@pytest.mark.parametrize(
    ("reason", "values", "expected"),
    [
        ("another length than 2", ["1 2 3", "[4 5 6]"], "These have 3 numbers; say `size: 3` where all have."),
        # Of Parquet.
        (
            "another length than 2",
            ["[1.0, 2.0, 3.0]"],
            "These have 3 numbers; say `size: 3` where all have.",
        ),
        ("another length than 2", ["1 2 3", "4 5 6 7"], ""),
        ("not a number", ["[0.1, 0.2]"], 'Say `separator: ","` where numbers are divided so.'),
        ("not a number", ["one 2"], ""),
    ],
)
def test_a_vector_in_another_form_names_the_way_out(reason: str, values: list[str], expected: str) -> None:
    assert way_out(PAIR, reason, values) == expected


def test_a_column_of_another_type_is_a_fault_of_the_file() -> None:
    (fault,) = type_faults([PAIR], {"sound": pa.float32()}, as_text=False)
    assert fault == "expected lists of numbers, or text in column sound, found float"


def test_a_text_may_be_long_and_must_be_utf8() -> None:
    column = Column("words", "words", "text")
    long = "längst".encode() * 1000
    assert converted(pa.array([long, b"", b"\xff"]), column) == (
        [long, None, None],
        {"not UTF-8": [False, False, True]},
    )


def test_interactions_have_the_querys_own_and_leave_the_items_in_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = SPEC.model_dump()
    declared["query"]["mood"] = {"kind": "vector", "size": 2, "separator": ";"}
    declared["query"]["asked"] = {"kind": "text", "table": "other"}
    declared["item"]["sound"] = {"kind": "vector", "size": 2, "separator": ";"}
    declared["item"]["called"] = {"kind": "text", "table": "other", "column": "name"}
    monkeypatch.setattr(test_example_gen, "SPEC", FeatureSpec.model_validate(declared))
    shop = Shop(tmp_path)
    (tmp_path / "catalogue.csv").write_text(
        "sku,name,tags,tag_weights,sound\nA,Ant,x|y,1|0.5,1;2\nB,Bee,,,\nC,Cat,z,2,3;4\nD,Dog,,,3;4;5\n"
    )
    path = shop.log(
        [
            *(f"{row},0.5;1,a song" for row in GOOD),
            "v,B,2026-11-24T05:00:00Z,1,30,0.5,",
            "w,A,2026-11-24T05:00:00Z,1,30,,",
        ],
        header="user,sku,at,liked,age,mood,asked",
    )
    splits, rows = shop.ingest()
    assert rows["dropped"] == {"mood: another length than 2": {"rows": 1, "first": [f"{path} line 6: '0.5'"]}}
    first, *_, last = splits["train"]
    assert (first["mood"], first["asked"], last["mood"], last["asked"]) == ([0.5, 1.0], [b"a song"], [], [])
    assert not {"sound", "called"} & {name for example in splits["train"] for name in example}
    catalogue = read_catalogue(tmp_path)
    assert catalogue[b"A"]["sound"] == [1.0, 2.0] and catalogue[b"A"]["called"] == [b"Ant"]
    assert catalogue[b"B"]["sound"] == [] and b"D" not in catalogue


def read_catalogue(folder: Path) -> dict[bytes, dict[str, list[Any]]]:
    records = tf.data.TFRecordDataset(
        tf.io.gfile.glob(f"{folder}/out/catalogue/Split-catalogue/*"), compression_type="GZIP"
    )
    found = {}
    for record in records.as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        values = {
            n: list(getattr(f, f.WhichOneof("kind")).value) if f.WhichOneof("kind") else [] for n, f in features.items()
        }
        found[values[CANDIDATE_ID][0]] = values
    return found
