"""The client's messages against those of TensorFlow and TF Serving, in one process: on the wire they are the same."""

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow_serving.apis import get_model_status_pb2, model_pb2, predict_pb2

from ndr_client import example, tensors
from ndr_client import protocol_pb2 as protocol
from ndr_client.client import predict_request

PAIRS = [
    (protocol.Shape, tensor_shape_pb2.TensorShapeProto),
    (protocol.Shape.Dimension, tensor_shape_pb2.TensorShapeProto.Dim),
    (protocol.Tensor, tensor_pb2.TensorProto),
    (protocol.ModelSpec, model_pb2.ModelSpec),
    (protocol.PredictRequest, predict_pb2.PredictRequest),
    (protocol.PredictResponse, predict_pb2.PredictResponse),
    (protocol.StatusRequest, get_model_status_pb2.GetModelStatusRequest),
    (protocol.StatusResponse, get_model_status_pb2.GetModelStatusResponse),
    (protocol.StatusResponse.Version, get_model_status_pb2.ModelVersionStatus),
    (protocol.Example, tf.train.Example),
    (protocol.Example.Features, tf.train.Features),
    (protocol.Example.Feature, tf.train.Feature),
    (protocol.Example.Texts, tf.train.BytesList),
    (protocol.Example.Floats, tf.train.FloatList),
]


def on_the_wire(field: FieldDescriptor) -> tuple[int, bool, str | None]:
    """What a field's bytes depend on, besides its number; a map's entries are compared by the messages that they hold."""
    oneof = field.containing_oneof.fields[0].number if field.containing_oneof else None
    return field.type, field.is_repeated, oneof


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda message: message.DESCRIPTOR.full_name)
def test_every_field_has_the_number_and_the_type_of_theirs(ours: Any, theirs: Any) -> None:
    expected = {field.number: on_the_wire(field) for field in theirs.DESCRIPTOR.fields}
    assert ours.DESCRIPTOR.fields
    for field in ours.DESCRIPTOR.fields:
        assert on_the_wire(field) == expected[field.number], field.name


def test_the_numbers_of_dtypes_and_states_are_theirs() -> None:
    for name, number in protocol.DataType.items():
        assert types_pb2.DataType.Value(f"DT_{name}") == number
    states = get_model_status_pb2.ModelVersionStatus.State
    assert protocol.StatusResponse.State.items() == states.items()


@pytest.mark.parametrize(
    "values",
    [
        [[0.5, -1.0]],
        np.array([[1, 2], [3, 4]], np.int64),
        np.array([1 << 31], np.float64),
        np.array([-(1 << 31)], np.int32),
        [["a", "b\0"], ["", "ü"]],
        [b"\xff\0"],
        np.array([True, False]),
        np.array(2.5, np.float32),
        np.zeros((0, 3), np.float32),
        [[], []],
    ],
)
def test_tensors_round_trip_through_tensorflow(values: Any) -> None:
    array = tensors.to_array(values)
    sent = tensor_pb2.TensorProto.FromString(tensors.to_message(values).SerializeToString())
    read = tf.make_ndarray(sent)
    assert read.dtype == array.dtype and read.shape == array.shape
    assert read.tolist() == array.tolist()
    for answer in (tf.make_tensor_proto(array), sent):
        received = tensors.to_values(protocol.Tensor.FromString(answer.SerializeToString()), "x")
        assert received.dtype == array.dtype and received.shape == array.shape
        assert received.tolist() == array.tolist()


@given(st.dictionaries(st.text(min_size=1), st.lists(st.binary()) | st.lists(st.floats(width=32, allow_nan=False))))
def test_tensorflow_reads_the_examples(features: dict[str, list[Any]]) -> None:
    read = tf.train.Example.FromString(example(features)).features.feature
    assert {name for name, values in features.items() if values} == set(read)
    for name, values in features.items():
        if values:
            kind = "bytes_list" if isinstance(values[0], bytes) else "float_list"
            assert read[name].WhichOneof("kind") == kind
            assert list(getattr(read[name], kind).value) == values


def test_an_embedding_is_taken_as_numpy_has_it() -> None:
    embedding = np.array([0.5, -2.0], np.float32)
    assert example({"sound": embedding.tolist()}) == example({"sound": list(embedding)})


def test_an_example_takes_single_values_and_refuses_a_mixture() -> None:
    read = tf.train.Example.FromString(example({"user": "ü", "age": 25, "past": []})).features.feature
    assert read["user"].bytes_list.value == ["ü".encode()]
    assert read["age"].float_list.value == [25.0]
    assert "past" not in read
    with pytest.raises(TypeError, match="past: expected values that are all text or all numbers, received int, str"):
        example({"past": ["a", 1]})


def test_a_request_names_a_version_by_its_number_or_its_label() -> None:
    def spec(version: int | str | None) -> Any:
        sent = predict_request("retriever", "serving_default", {}, version).SerializeToString()
        return predict_pb2.PredictRequest.FromString(sent).model_spec

    assert spec(None).WhichOneof("version_choice") is None
    assert spec(7).version.value == 7 and spec(0).HasField("version")
    assert spec("canary").version_label == "canary"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (protocol.Tensor(dtype="FLOAT", content=b"\0" * 3), "expected the 1 values of the shape [], received 0.75"),
        (protocol.Tensor(dtype="STRING", content=b"abc"), "expected the 1 values"),
        (
            protocol.Tensor(dtype="FLOAT", floats=[1], shape={"dim": [{"size": 1 << 40}]}),
            f"expected the {1 << 40} values of the shape [{1 << 40}], received 1",
        ),
        (protocol.Tensor(dtype="FLOAT", shape={"dim": [{"size": -1}, {"size": 0}]}), "the shape [-1, 0]"),
        (protocol.Tensor(dtype="INVALID"), "expected a dtype of STRING"),
    ],
)
def test_an_answer_that_disagrees_with_itself_is_refused(message: protocol.Tensor, expected: str) -> None:
    with pytest.raises(ValueError) as refused:
        tensors.to_values(message, "scores")
    assert str(refused.value).startswith("scores: ") and expected in str(refused.value)


def test_a_dtype_that_no_model_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="received complex64"):
        tensors.to_message(np.array([1j], np.complex64))


def test_nan_round_trips() -> None:
    assert math.isnan(tensors.to_values(tensors.to_message([math.nan]), "x")[0])
