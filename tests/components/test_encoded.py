"""Arrow rows to tf.Examples: each feature has protobuf's bytes, and features are in the order of their names."""

from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from google.protobuf.internal import encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from components.encoded import encode

KINDS = {"bytes": pa.binary(), "float": pa.float32(), "int64": pa.int64()}


def by_protobuf(row: dict[str, list[Any] | None], kinds: dict[str, str]) -> bytes:
    """What protobuf writes of each feature, by name. By itself it may write a name before a shorter one that it begins with."""
    written = b""
    for name, values in sorted(row.items()):
        features = tf.train.Features()
        feature = features.feature[name]
        if values is not None:
            listed = getattr(feature, f"{kinds[name]}_list")
            listed.SetInParent()
            listed.value.extend(values)
        written += features.SerializeToString()
    return b"\x0a" + encoder._VarintBytes(len(written)) + written


def test_names_that_begin_with_others() -> None:
    """Regression: protobuf 6.33 writes `past_weights` before `past`; we write what is first by name."""
    row = {"past_weights": [1], "past": [2]}
    batch = pa.RecordBatch.from_pydict({name: pa.array([values]) for name, values in row.items()})
    (encoded,) = encode(batch).to_pylist()
    assert encoded.index(b"past\x12") < encoded.index(b"past_weights\x12")
    assert {
        name: list(each.int64_list.value)
        for name, each in tf.train.Example.FromString(encoded).features.feature.items()
    } == row


def test_the_bytes_written_by_hand() -> None:
    # Features {"a": bytes [b"xy"], "b": int64 [-1, 300], "c": none}. From inside: the value `xy` is 0a 02 78 79, its list, field
    # 1 of the Feature, 0a 04 ..., and the entry of the map 0a 01 61 12 06 .... -1 is nine times ff and 01, 300 is ac 02: packed
    # twelve bytes.
    rows = pa.RecordBatch.from_pydict(
        {
            "b": pa.array([[-1, 300]], pa.list_(pa.int64())),
            "c": pa.array([None], pa.list_(pa.float32())),
            "a": pa.array([b"xy"], pa.binary()),
        }
    )
    a = "0a0b" + "0a0161" + "1206" + "0a04" + "0a027879"
    b = "0a15" + "0a0162" + "1210" + "1a0e" + "0a0c" + "ff" * 9 + "01" + "ac02"
    c = "0a05" + "0a0163" + "1200"
    features = bytes.fromhex(a + b + c)
    assert encode(rows).to_pylist() == [b"\x0a" + bytes([len(features)]) + features]


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-2, 300), st.sampled_from([2**20 - 1, 2**20, 2**63 - 1, -(2**63)])
)
VALUES = {
    "bytes": st.one_of(st.binary(max_size=5), st.sampled_from([b"a" * 127, b"b" * 128, b"c" * 16384])),
    "float": st.floats(width=32, allow_nan=False),
    "int64": NUMBERS,
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.RecordBatch, list[dict[str, Any]], dict[str, str]]:
    names = draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=3), unique=True, max_size=4))
    kinds = {name: draw(st.sampled_from(sorted(VALUES))) for name in names}
    count = draw(st.integers(0, 4))
    columns = {
        name: draw(st.lists(st.none() | st.lists(VALUES[kind], max_size=3), min_size=count, max_size=count), label=name)
        for name, kind in kinds.items()
    }
    arrays = [pa.array(columns[name], pa.list_(KINDS[kinds[name]])) for name in names]
    rows = [{name: columns[name][number] for name in names} for number in range(count)]
    return pa.RecordBatch.from_arrays(arrays, names), rows, kinds


@settings(deadline=None)
@given(tables())
def test_lists_are_as_protobuf_writes_them(table: tuple[pa.RecordBatch, list[dict[str, Any]], dict[str, str]]) -> None:
    batch, rows, kinds = table
    if batch.num_columns:
        assert encode(batch).to_pylist() == [by_protobuf(row, kinds) for row in rows]
        # A slice, whose offsets do not begin at 0.
        assert encode(batch.slice(1)).to_pylist() == [by_protobuf(row, kinds) for row in rows[1:]]


def test_single_values_and_other_types_of_text() -> None:
    batch = pa.RecordBatch.from_pydict(
        {
            "number": pa.array([1.5, None, float("nan")], pa.float32()),
            "text": pa.array(["ä", "", None]),
            "large": pa.array([[b"x"], [], None], pa.large_list(pa.large_binary())),
            "row": pa.array(np.array([-1, 2**20, 3])),
        }
    )
    kinds = {"number": "float", "text": "bytes", "large": "bytes", "row": "int64"}
    rows: list[dict[str, Any]] = [
        {"number": [1.5], "text": ["ä".encode()], "large": [b"x"], "row": [-1]},
        {"number": None, "text": [b""], "large": [], "row": [2**20]},
        {"number": [float("nan")], "text": None, "large": None, "row": [3]},
    ]
    assert encode(batch).to_pylist() == [by_protobuf(row, kinds) for row in rows]
