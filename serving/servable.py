"""A SavedModel in memory: its signatures, their inputs, and how they run."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

from ndr_client import served
from serving import tensors
from serving.batching import Arrays, Batcher
from serving.errors import RequestError, invalid
from serving.extent import Extent
from serving.settings import Limits
from serving.tensors import Spec
from serving.vocabularies import Counts

OPTIONAL = {served.EXCLUDE, served.WHERE}
"""Inputs that a request may omit, as clients that do not know them do; TF Serving does not allow that."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}  # TensorFlow uses the same numbers
_load = tf.compat.v1.saved_model.load.__wrapped__  # without its deprecation warning


class Signature:
    """A signature of a model.

    Args:
        definition: its inputs and outputs, as the SavedModel declares them.
        session: of the loaded graph.
        limits: of a request and of a batch.
        max_batch_rows: of a batch of concurrent requests; None to run each alone.
        observe_batch: called with the rows of each batch.

    Attributes:
        inputs: the declaration of each input.
        outputs: the names of the outputs.
    """

    def __init__(
        self,
        definition: meta_graph_pb2.SignatureDef,
        session: tf.compat.v1.Session,
        limits: Limits,
        max_batch_rows: int | None,
        observe_batch: Callable[[int], None],
    ) -> None:
        self.inputs = {
            name: Spec(tensors.dtype_of(info.dtype), _shape(info)) for name, info in definition.inputs.items()
        }
        self.outputs = list(definition.outputs)
        options = config_pb2.CallableOptions(
            feed=[info.name for info in definition.inputs.values()],
            fetch=[info.name for info in definition.outputs.values()],
        )
        self._compute = session._make_callable_from_options(options)
        self._limits = limits
        self._observe_batch = observe_batch
        shapes = [_shape(info) for info in (*definition.inputs.values(), *definition.outputs.values())]
        by_rows = bool(self.inputs) and all(shape and shape[0] == -1 for shape in shapes)
        self._batcher = Batcher(self._run, max_batch_rows, limits) if max_batch_rows and by_rows else None

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the model."""
        return self._batcher.waiting if self._batcher else 0

    def __call__(self, inputs: Mapping[str, NDArray[Any]], extent: Extent) -> Arrays:
        """Run the model.

        Args:
            inputs: an array for each input, of its dtype and shape; text as bytes objects.
            extent: of the inputs.

        Returns:
            An array for each output.

        Raises:
            RequestError: INVALID_ARGUMENT if the inputs exceed the limits, or the model rejects them; another code
                if the model fails otherwise.
        """
        if excess := extent.excess(self._limits):
            raise invalid(excess)
        if self._batcher is None:
            return self._run(inputs)
        rows = {name: len(inputs[name]) for name in sorted(inputs)}
        if len(set(rows.values())) > 1:
            raise invalid(f"expected as many rows in each input, received {rows}")
        return self._batcher(inputs, extent)

    def read(self, protos: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
        """Unpack a request's tensors.

        Raises:
            RequestError: INVALID_ARGUMENT if they differ from their declarations.
        """
        self.check_names(protos)
        read = {
            name: tensors.from_proto(proto, name, self.inputs[name], self._limits) for name, proto in protos.items()
        }
        rows = max((len(array) for array in read.values() if array.ndim), default=0)
        nothing = {name: np.full((rows, 0), b"", object) for name in self.inputs.keys() - read.keys()}
        return {**read, **nothing}

    def check_names(self, names: Iterable[str]) -> None:
        """Compare names with the declared inputs, of which `OPTIONAL` ones may be missing.

        Raises:
            RequestError: INVALID_ARGUMENT, they differ.
        """
        received = set(names)
        extra, missing = received - self.inputs.keys(), self.inputs.keys() - received
        if extra or missing - OPTIONAL:
            raise invalid(
                f"input size does not match signature: {len(received)}!={len(self.inputs)} "
                f"len({_set(received)}) != len({_set(self.inputs)}). Sent extra: {_set(extra)}. "
                f"Missing but required: {_set(missing)}."
            )

    def _run(self, inputs: Arrays) -> Arrays:
        self._observe_batch(len(next(iter(inputs.values()), ())))
        try:
            return dict(zip(self.outputs, self._compute(*(inputs[name] for name in self.inputs)), strict=True))
        except tf.errors.OpError as error:
            raise RequestError(_CODES[error.error_code], error.message) from error
        except UnicodeDecodeError as error:  # of the error message, if it quotes an input that is not UTF-8
            raise invalid(error.object.decode(errors="backslashreplace")) from error


class Servable:
    """A version of a model. A reference keeps it in memory, so a request finishes with the version it started with.

    Args:
        name: the model's name.
        version: the pushed version.
        folder: its SavedModel.
        limits: of a request and of a batch.
        max_batch_rows: of a batch of concurrent requests; None to run each alone.
        observe_batch: called with the model, the signature and the rows of each batch.
        count_ids: counts the ids of a request, and the unknown ones.
        complete: completes a request.

    Raises:
        OSError, RuntimeError, ValueError, tf.errors.OpError: the SavedModel is incomplete.
    """

    def __init__(
        self,
        name: str,
        version: int,
        folder: Path,
        limits: Limits,
        max_batch_rows: int | None,
        observe_batch: Callable[[str, str, int], None],
        count_ids: Callable[[Arrays], Counts],
        complete: Callable[[Arrays], Arrays],
    ) -> None:
        self.count_ids = count_ids
        self.complete = complete
        self.name = name
        self.version = version
        # As TF Serving does: a request takes Python's lock for a sixth of the time that a loaded `tf.function` takes it, and a
        # load for two thirds.
        with tf.Graph().as_default() as graph:
            session = tf.compat.v1.Session(graph=graph)
            self.definitions = dict(_load(session, [tf.saved_model.SERVING], str(folder)).signature_def)
        self._signatures = {
            key: Signature(definition, session, limits, max_batch_rows, partial(observe_batch, name, key))
            for key, definition in self.definitions.items()
            if definition.method_name == tf.saved_model.PREDICT_METHOD_NAME  # others initialise, which is done
        }

    @property
    def waiting(self) -> dict[str, int]:
        """By signature, the number of requests that wait for the model."""
        return {key: signature.waiting for key, signature in self._signatures.items()}

    def signature(self, name: str) -> Signature | None:
        """Return the signature of a name, `serving_default` for an empty one; None if there is none."""
        return self._signatures.get(name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY)


def _shape(info: meta_graph_pb2.TensorInfo) -> tuple[int, ...] | None:
    """Return the declared shape, -1 for any size; None for any rank."""
    return None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)


def _set(names: Any) -> str:
    return "{" + ",".join(sorted(names)) + "}"
