"""What TF Serving is given: read back by its own protos, where it ships them, and by their published fields where not."""

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

from components.pusher import tf_serving
from components.trainer.warmup import REQUESTS_FILE, write_warmup


@pytest.mark.parametrize("folder", ["/models", '/a "quoted" folder\\with\nall'])
def test_the_model_configuration_names_each_model_and_keeps_two_versions(folder: str) -> None:
    text = tf_serving.model_config(folder, ["query_tower", "item_tower", "retriever"])
    read = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = read.model_config_list.config
    assert [model.name for model in models] == ["query_tower", "item_tower", "retriever"]
    assert [model.base_path for model in models] == [f"{folder}/{model.name}" for model in models]
    assert {model.model_platform for model in models} == {"tensorflow"}
    assert {model.model_version_policy.latest.num_versions for model in models} == {2}


def batching_parameters() -> Any:
    """BatchingParameters as session_bundle_config.proto has it; its Python form is not published."""
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", package="test", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    message = file.message_type.add(name="BatchingParameters")
    wrapped = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    for number, name in enumerate(wrapped, 1):
        message.field.add(name=name, number=number, type=11, label=1, type_name=".google.protobuf.Int64Value")
    message.field.add(name="pad_variable_length_inputs", number=7, type=8, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.BatchingParameters"))()


def test_the_batching_parameters_pad_nothing() -> None:
    read = text_format.Parse(tf_serving.batching_parameters(), batching_parameters())
    assert (read.max_batch_size.value, read.batch_timeout_micros.value, read.max_enqueued_batches.value) == (
        64,
        1000,
        100,
    )
    assert not read.pad_variable_length_inputs


def test_a_small_and_a_full_batch_of_each_signature_warm_a_model_up(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def by_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"length": tf.strings.length(examples)}

    features = {
        "angle": tf.TensorSpec([None], tf.float32, name="angle"),
        "past": tf.TensorSpec([None, None], tf.string, name="past"),
        "embedding": tf.TensorSpec([None, 5], tf.float32, name="embedding"),
        "k": tf.TensorSpec([None], tf.int32, name="k"),
    }

    @tf.function(input_signature=[features])
    def by_tensors(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"k": tensors["k"]}

    functions = {"serving_examples": by_examples, "serving_default": by_tensors}
    signatures = {name: each.get_concrete_function() for name, each in functions.items()}
    write_warmup(str(tmp_path), "query_tower", signatures)
    records = tf.data.TFRecordDataset(str(tmp_path / REQUESTS_FILE)).as_numpy_iterator()
    requests = [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]
    assert {request.model_spec.name for request in requests} == {"query_tower"}
    shapes = [
        (r.model_spec.signature_name, {name: tf.make_ndarray(proto).shape for name, proto in r.inputs.items()})
        for r in requests
    ]
    assert shapes == [
        ("serving_examples", {"examples": (1,)}),
        ("serving_examples", {"examples": (64,)}),
        ("serving_default", {"angle": (1,), "past": (1, 1), "embedding": (1, 5), "k": (1,)}),
        ("serving_default", {"angle": (64,), "past": (64, 1), "embedding": (64, 5), "k": (64,)}),
    ]
    assert set(tf.make_ndarray(requests[-1].inputs["k"])) == {10}
    assert tf.make_ndarray(requests[0].inputs["examples"]).tolist() == [b""]
