"""A SavedModel in memory: its signatures, what they take, and how they are run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving import tensors
from serving.batching import Arrays, Batcher, Batching
from serving.errors import RequestError, invalid

_CODES = {code.value[0]: code for code in grpc.StatusCode}  # TensorFlow numbers them alike
_NO_TRACE = "<stack traces unavailable>\n"  # where TensorFlow's own words begin, in an error of a graph that was loaded


class Signature:
    """One way to ask a model.

    Args:
        definition: what it takes and gives, by the SavedModel's own word.
        function: what TensorFlow loaded.
        batching: how concurrent requests are merged; None runs each by itself.
    """

    def __init__(self, definition: meta_graph_pb2.SignatureDef, function: Any, batching: Batching | None) -> None:
        self.inputs: dict[str, meta_graph_pb2.TensorInfo] = dict(definition.inputs)
        self.outputs: dict[str, meta_graph_pb2.TensorInfo] = dict(definition.outputs)
        self._function = function
        self._shapes = {name: _shape(info) for name, info in self.inputs.items()}
        self._dtypes = {name: tensors.dtype_of(info.dtype) for name, info in self.inputs.items()}
        shapes = [_shape(info) for info in (*self.inputs.values(), *self.outputs.values())]
        by_rows = bool(self.inputs) and all(shape and shape[0] == -1 for shape in shapes)
        self._batcher = Batcher(self._run, batching) if batching and by_rows else None

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Runs the model.

        Args:
            inputs: an array for each input, of its dtype and shape; text as bytes objects.

        Returns:
            An array for each output.

        Raises:
            RequestError: INVALID_ARGUMENT where the inputs are not as declared, or the model refuses them; another code
                where the model fails otherwise.
        """
        self._check(inputs)
        if self._batcher is None:
            return self._run(inputs)
        rows = {name: len(inputs[name]) for name in sorted(inputs)}
        if len(set(rows.values())) > 1:
            raise invalid(f"expected as many rows in each input, received {rows}")
        # What is said to no rows is the model's matter, and would be lost in a batch.
        return self._batcher(inputs) if any(rows.values()) else self._run(inputs)

    def _check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        if inputs.keys() != self.inputs.keys():
            extra, missing = inputs.keys() - self.inputs.keys(), self.inputs.keys() - inputs.keys()
            raise invalid(
                f"input size does not match signature: {len(inputs)}!={len(self.inputs)} "
                f"len({_set(inputs)}) != len({_set(self.inputs)}). Sent extra: {_set(extra)}. "
                f"Missing but required: {_set(missing)}."
            )
        for name, array in inputs.items():
            expected, shape = self._dtypes[name], self._shapes[name]
            if array.dtype != expected:
                raise invalid(f"{name}: expected the dtype {_named(expected)}, received {_named(array.dtype)}")
            if shape is not None and not _fits(array.shape, shape):
                wanted = ", ".join("?" if size < 0 else str(size) for size in shape)
                raise invalid(f"{name}: expected the shape [{wanted}], received {list(array.shape)}")

    def _run(self, inputs: Arrays) -> Arrays:
        try:
            outputs = self._function(**{name: tf.constant(array) for name, array in inputs.items()})
            return {name: output.numpy() for name, output in outputs.items()}
        except tf.errors.OpError as error:
            raise RequestError(_CODES[error.error_code], error.message.rpartition(_NO_TRACE)[2].strip()) from error
        except UnicodeDecodeError as error:  # of an error's own words, where they quote an input that is not UTF-8
            raise invalid(error.object.decode(errors="backslashreplace")) from error


class Servable:
    """A version of a model. Whoever holds one keeps it in memory, so a request that has begun ends with what it began with.

    Args:
        name: the model's.
        version: the push's.
        folder: its SavedModel.
        batching: how concurrent requests are merged; None runs each by itself.

    Raises:
        OSError, ValueError, tf.errors.OpError: the SavedModel is not whole.
    """

    def __init__(self, name: str, version: int, folder: Path, batching: Batching | None) -> None:
        self.name = name
        self.version = version
        content = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self.definitions: dict[str, meta_graph_pb2.SignatureDef] = {
            key: definition
            for graph in content.meta_graphs
            if tf.saved_model.SERVING in graph.meta_info_def.tags
            for key, definition in graph.signature_def.items()
        }
        self._loaded = tf.saved_model.load(str(folder), tags=[tf.saved_model.SERVING])
        self._signatures = {
            key: Signature(self.definitions[key], function, batching)
            for key, function in self._loaded.signatures.items()
        }

    def signature(self, name: str) -> Signature | None:
        """The signature of a name, `serving_default` where that is empty; None where there is none."""
        return self._signatures.get(name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY)


def _shape(info: meta_graph_pb2.TensorInfo) -> tuple[int, ...] | None:
    """What is declared, -1 for any size; None for any rank."""
    return None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)


def _fits(shape: tuple[int, ...], declared: tuple[int, ...]) -> bool:
    return len(shape) == len(declared) and all(d in (-1, size) for size, d in zip(shape, declared, strict=True))


def _set(names: Any) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _named(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.hasobject else dtype.name
