"""What a client is told over gRPC: the answer, or the code that TF Serving gives. The server outlives all of it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    regression_pb2,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from serving.server import EmbeddedServer
from tests.serving.tiny import DAY, ITEMS, example, nearest

VERSION = int(f"{DAY:%Y%m%d}001")
DEFAULT, EXAMPLES = "serving_default", "serving_examples"
MEGABYTE = b"x" * (1 << 20)


def request(
    model: str, signature: str, version: int | None = None, **inputs: ArrayLike | tensor_pb2.TensorProto
) -> predict_pb2.PredictRequest:
    made = predict_pb2.PredictRequest()
    made.model_spec.name = model
    made.model_spec.signature_name = signature
    if version is not None:
        made.model_spec.version.value = version
    for name, value in inputs.items():
        proto = value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value)
        made.inputs[name].CopyFrom(proto)
    return made


def retrieval(
    angles: Sequence[float] = (0.6,),
    k: Sequence[int] = (3,),
    exclude: Sequence[Sequence[str | bytes]] = (("",),),
    past: Sequence[Sequence[str | bytes]] = (("",),),
) -> dict[str, Any]:
    return {
        "angle": np.array(angles, np.float32),
        "k": np.array(k, np.int32),
        "exclude": np.array(exclude, object),
        "past": np.array(past, object),
    }


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> PredictionServiceStub:
    return PredictionServiceStub(channel)


def refused(call: Callable[..., Any], *arguments: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refusal:
        call(*arguments, timeout=900)
    return refusal.value.code(), refusal.value.details()


def array(response: predict_pb2.PredictResponse, name: str) -> NDArray[Any]:
    return tf.make_ndarray(response.outputs[name])


def test_the_answer_is_the_models_and_names_its_version(stub: PredictionServiceStub) -> None:
    response = stub.Predict(request("retriever", "", **retrieval()))
    assert array(response, "item_ids").tolist() == [[b"one-1", b"one-2", b"one-0"]]
    np.testing.assert_allclose(array(response, "scores")[0], [math.cos(0.1), math.cos(0.4), math.cos(0.6)], rtol=1e-6)
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("retriever", VERSION, DEFAULT)


def test_every_model_and_signature_answers(stub: PredictionServiceStub) -> None:
    for model, feature, scale in (("query_tower", "angle", 1.0), ("item_tower", "number", 0.5)):
        response = stub.Predict(request(model, EXAMPLES, examples=[example(2.0, feature=feature)]))
        np.testing.assert_allclose(
            array(response, "embedding"), [[math.cos(2.0 * scale), math.sin(2.0 * scale)]], rtol=1e-6
        )
    response = stub.Predict(
        request("retriever", EXAMPLES, examples=[example(0.6, (b"one-1",))], k=np.array([2], np.int32))
    )
    assert array(response, "item_ids").tolist() == [[b"one-2", b"one-0"]]


def test_only_the_outputs_that_are_asked_for_are_sent(stub: PredictionServiceStub) -> None:
    asked = request("retriever", DEFAULT, **retrieval())
    asked.output_filter.append("scores")
    assert list(stub.Predict(asked).outputs) == ["scores"]
    asked.output_filter.append("scores")
    assert refused(stub.Predict, asked) == (grpc.StatusCode.INVALID_ARGUMENT, "duplicate output tensor alias: scores")
    asked.output_filter[:] = ["ids"]
    code, words = refused(stub.Predict, asked)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and words.startswith(
        "output tensor alias not found in signature: ids"
    )


def test_a_k_beyond_the_catalogue_gives_all_of_it(stub: PredictionServiceStub) -> None:
    response = stub.Predict(request("retriever", DEFAULT, **retrieval(k=(10_000,))))
    assert array(response, "item_ids")[0].tolist() == [b"one-%d" % n for n, _ in nearest(0.6, ITEMS)]


def test_nan_and_a_megabyte_of_text_are_left_to_the_model(stub: PredictionServiceStub) -> None:
    response = stub.Predict(request("query_tower", DEFAULT, angle=np.array([np.nan], np.float32), past=[[MEGABYTE]]))
    assert np.isnan(array(response, "embedding")).all()  # of this model; the towers take it for a missing value
    response = stub.Predict(request("retriever", DEFAULT, **retrieval(exclude=[[MEGABYTE, b"one-1"]], k=(1,))))
    assert array(response, "item_ids").tolist() == [[b"one-2"]]


def test_no_rows_are_the_models_to_judge(stub: PredictionServiceStub) -> None:
    response = stub.Predict(request("query_tower", EXAMPLES, examples=np.empty([0], object)))
    assert array(response, "embedding").shape == (0, 2)


def packed(dtype: int, shape: Sequence[int], **values: Any) -> tensor_pb2.TensorProto:
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape={"dim": [{"size": size} for size in shape]}, **values)


BAD = {
    "no model": (request("", DEFAULT), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    "unknown model": (request("none", DEFAULT), "NOT_FOUND", "Servable not found for request: Latest(none)"),
    "a part that is no model": (request("index", DEFAULT), "NOT_FOUND", "Servable not found for request: Latest(index)"),
    "unknown version": (
        request("retriever", DEFAULT, 7), "NOT_FOUND", "Servable not found for request: Specific(retriever, 7)",
    ),
    "unknown signature": (
        request("retriever", "none"), "FAILED_PRECONDITION", 'Serving signature key "none" not found.',
    ),
    "missing input": (
        request("query_tower", DEFAULT, angle=[0.6]), "INVALID_ARGUMENT",
        "input size does not match signature: 1!=2 len({angle}) != len({angle,past}). Sent extra: {}. "
        "Missing but required: {past}.",
    ),
    "unknown input": (
        request("item_tower", DEFAULT, number=[1.0], price=[1.0]), "INVALID_ARGUMENT",
        "input size does not match signature: 2!=1 len({number,price}) != len({number}). Sent extra: {price}. "
        "Missing but required: {}.",
    ),
    "wrong dtype": (
        request("item_tower", DEFAULT, number=["1"]), "INVALID_ARGUMENT",
        "number: expected the dtype float32, received string",
    ),
    "a dtype that nobody has": (
        request("item_tower", DEFAULT, number=tf.constant([1.0], tf.float16).numpy()), "INVALID_ARGUMENT",
        "expected a dtype of DT_STRING, DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT64, DT_BOOL, received 19",
    ),
    "wrong shape": (
        request("item_tower", DEFAULT, number=[[1.0]]), "INVALID_ARGUMENT",
        "number: expected the shape [?], received [1, 1]",
    ),
    "rows that do not agree": (
        request("retriever", DEFAULT, **retrieval(k=(1, 2))), "INVALID_ARGUMENT",
        "expected as many rows in each input, received {'angle': 1, 'exclude': 1, 'k': 2, 'past': 1}",
    ),
    "k of 0": (request("retriever", DEFAULT, **retrieval(k=(0,))), "INVALID_ARGUMENT", "k: expected at least 1"),
    "k below 0": (request("retriever", DEFAULT, **retrieval(k=(-1,))), "INVALID_ARGUMENT", "k: expected at least 1"),
    "an example that is none": (
        request("item_tower", EXAMPLES, examples=[b"\xff\xff"]), "INVALID_ARGUMENT", r"\xff",
    ),
    "an example without the feature": (
        request("item_tower", EXAMPLES, examples=[example(1.0)]), "INVALID_ARGUMENT", "number (data type: float) is required",
    ),
    "bytes that are too few": (
        request("item_tower", DEFAULT, number=packed(1, [3], tensor_content=b"1234")), "INVALID_ARGUMENT",
        "tensor parsing error: number: expected what the shape [3] holds, received 4 bytes",
    ),
    "values that are too many": (
        request("item_tower", DEFAULT, number=packed(1, [1], float_val=[1.0, 2.0])), "INVALID_ARGUMENT",
        "tensor parsing error: number: expected what the shape [1] holds, received 2 values",
    ),
    "a shape that fills the memory": (
        request("item_tower", DEFAULT, number=packed(1, [1 << 40], float_val=[1.0])), "INVALID_ARGUMENT",
        "tensor parsing error: number: expected a shape of at most 1048576 values, received [1099511627776]",
    ),
    "a shape below 0": (
        request("item_tower", DEFAULT, number=packed(1, [-1, -1], float_val=[1.0])), "INVALID_ARGUMENT",
        "tensor parsing error: number: expected a shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_invalid_requests_get_tf_servings_code(stub: PredictionServiceStub, case: str) -> None:
    asked, code, words = BAD[case]
    found, told = refused(stub.Predict, asked)
    assert found.name == code and words in told
    assert "Traceback" not in told and len(told) <= 1000
    assert stub.Predict(request("item_tower", DEFAULT, number=[1.0]), timeout=900).model_spec.version.value == VERSION


def test_a_request_without_a_model_spec_is_refused(stub: PredictionServiceStub, channel: grpc.Channel) -> None:
    missing = (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    assert refused(stub.Predict, predict_pb2.PredictRequest()) == missing
    assert refused(stub.GetModelMetadata, get_model_metadata_pb2.GetModelMetadataRequest()) == missing
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
    assert refused(status, get_model_status_pb2.GetModelStatusRequest()) == missing


def test_fewer_values_than_the_shape_has_are_filled_with_the_last(stub: PredictionServiceStub) -> None:
    # As TensorFlow packs them: [1, 2, 2] is sent as [1, 2].
    number = packed(1, [3], float_val=[1.0, 2.0])
    response = stub.Predict(request("item_tower", DEFAULT, number=number))
    np.testing.assert_allclose(array(response, "embedding")[:, 0], np.cos([0.5, 1.0, 1.0]), rtol=1e-6)


def test_a_message_that_is_too_large_is_refused(served: EmbeddedServer) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{served.port}", options) as wide:
        stub = PredictionServiceStub(wide)
        code, words = refused(stub.Predict, request("item_tower", EXAMPLES, examples=[MEGABYTE * 5]))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in words
        assert stub.Predict(request("item_tower", DEFAULT, number=[1.0]), timeout=900)


def test_missing_methods_are_unimplemented(stub: PredictionServiceStub) -> None:
    assert refused(stub.Regress, regression_pb2.RegressionRequest())[0] == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_is_the_saved_models_own(stub: PredictionServiceStub) -> None:
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "retriever"
    response = stub.GetModelMetadata(asked)
    assert (response.model_spec.name, response.model_spec.version.value) == ("retriever", VERSION)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    inputs = signatures.signature_def[EXAMPLES].inputs
    assert {name: info.dtype for name, info in inputs.items()} == {"examples": tf.string, "k": tf.int32}
    asked.metadata_field.append("assets")
    assert refused(stub.GetModelMetadata, asked) == (
        grpc.StatusCode.INVALID_ARGUMENT, "Metadata field assets is not supported",
    )  # fmt: skip
    del asked.metadata_field[:]
    assert (
        refused(stub.GetModelMetadata, asked)[1] == "GetModelMetadataRequest must specify at least one metadata_field"
    )


def test_the_status_of_a_model_and_of_a_version(channel: grpc.Channel) -> None:
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "retriever"
    [state] = status(asked).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert (state.version, state.state, state.status.error_code) == (VERSION, available, 0)
    asked.model_spec.version.value = 7
    assert refused(status, asked) == (grpc.StatusCode.NOT_FOUND, "Could not find version 7 of model retriever")
    asked.model_spec.name = "none"
    assert refused(status, asked) == (grpc.StatusCode.NOT_FOUND, "Could not find any versions of model none")
    asked.model_spec.version_label = "stable"
    assert refused(status, asked)[0] == grpc.StatusCode.INVALID_ARGUMENT
