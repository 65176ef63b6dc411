"""Asks a server for embeddings and items, over gRPC; TF Serving and the embedded server answer alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import ArrayLike, NDArray
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from schemas import served
from serving import tensors

# What is asked about: serialised tf.Examples, or for each raw feature its values, a row a query. A server merges Examples
# of whatever length; features only with those whose rows are as long.
Rows = Sequence[bytes] | Mapping[str, ArrayLike]
LARGEST_MESSAGE = 64 << 20  # bytes


@dataclass(frozen=True)
class Answer:
    """What a model gave.

    Attributes:
        outputs: an array for each; text as bytes objects.
        version: that gave it.
    """

    outputs: dict[str, NDArray[Any]]
    version: int


@dataclass(frozen=True)
class Found:
    """Items for each query, best first.

    Attributes:
        item_ids: [batch, k] bytes objects; b"" where a row has no more.
        scores: [batch, k] float32, inner products of unit vectors; -2 where a row has no more.
        version: of everything that this came from.
    """

    item_ids: NDArray[Any]
    scores: NDArray[np.float32]
    version: int


class Client:
    """Asks the models of a server. Safe to be used by many threads.

    Every method raises grpc.RpcError where the server cannot answer; its `code()` and `details()` say why.

    Args:
        address: HOST:PORT of the server's gRPC side.
        timeout: seconds that an answer may take.
    """

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        limits = [(f"grpc.max_{way}_message_length", LARGEST_MESSAGE) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(address, limits)
        self._timeout = timeout
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def embed(self, tower: str, rows: Rows, version: int | None = None) -> Answer:
        """Embeds queries or items.

        Args:
            tower: `query_tower` or `item_tower`.
            rows: what is embedded.
            version: that is asked; None for the live one.

        Returns:
            `embedding`, float32 [batch, width], L2-normalised.
        """
        return self.predict(tower, *_asked(rows), version)

    def retrieve(
        self,
        rows: Rows,
        k: int | Sequence[int],
        exclude: Sequence[Sequence[bytes]] | None = None,
        version: int | None = None,
    ) -> Found:
        """Finds the best items for queries, by the retriever.

        Args:
            rows: the queries. Examples name what they exclude themselves, by their feature `exclude`.
            k: how many items, for all queries or for each.
            exclude: the items that each query must not be given; only for queries by features.
            version: that is asked; None for the live one.

        Raises:
            ValueError: `exclude` was given beside Examples.
        """
        signature, inputs = _asked(rows)
        batch = len(next(iter(inputs.values()), ()))
        inputs[served.K] = np.broadcast_to(np.asarray(k, np.int32), batch)
        if signature == served.TENSORS_SIGNATURE:
            inputs[served.EXCLUDE] = _padded(exclude or [[]] * batch)
        elif exclude is not None:
            raise ValueError(f"exclude: expected none beside Examples, which have a feature {served.EXCLUDE} for it")
        answer = self.predict(served.RETRIEVER, signature, inputs, version)
        width = max(inputs[served.K], default=0)  # an answer is as wide as the batch that the server made of it needed
        ids, scores = (answer.outputs[name][:, :width] for name in (served.ITEM_IDS, served.SCORES))
        return Found(ids, scores, answer.version)

    def predict(
        self, model: str, signature: str, inputs: Mapping[str, ArrayLike], version: int | None = None
    ) -> Answer:
        """Runs a signature of a model.

        Args:
            model: its name.
            signature: its name.
            inputs: an array for each; text as bytes objects.
            version: that is asked; None for the live one.
        """
        request = predict_pb2.PredictRequest(model_spec=_spec(model, version, signature))
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(tensors.to_proto(_array(values)))
        response = self._prediction.Predict(request, timeout=self._timeout)
        outputs = {name: tensors.from_proto(proto, name) for name, proto in response.outputs.items()}
        return Answer(outputs, response.model_spec.version.value)

    def available(self, model: str) -> list[int]:
        """The versions of a model that answer, the newest first; empty where there is none."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(model, None))
        try:
            response = self._model.GetModelStatus(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return []
            raise
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        return sorted((each.version for each in response.model_version_status if each.state == available), reverse=True)


def _spec(model: str, version: int | None, signature: str = "") -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=model, signature_name=signature)
    if version is not None:
        spec.version.value = version
    return spec


def _asked(rows: Rows) -> tuple[str, dict[str, Any]]:
    if isinstance(rows, Mapping):
        return served.TENSORS_SIGNATURE, dict(rows)
    return served.EXAMPLES_SIGNATURE, {served.EXAMPLES: np.array(rows, object)}


def _array(values: ArrayLike) -> NDArray[Any]:
    """An array of a dtype that models take: text as bytes objects, and Python's own floats as float32."""
    if isinstance(values, np.ndarray) and values.dtype.kind not in "US":
        return values
    array = np.array(values, object)  # NumPy's own bytes would lose the zeros at their end
    if any(isinstance(value, str | bytes) for value in array.flat):
        encoded = [value.encode() if isinstance(value, str) else value for value in array.flat]
        return np.array(encoded, object).reshape(array.shape)
    plain = np.asarray(values)
    return plain.astype(np.float32) if plain.dtype == np.float64 else plain


def _padded(lists: Sequence[Sequence[bytes]]) -> NDArray[Any]:
    width = max(map(len, lists), default=0)
    rows = [[*each, *[served.NO_ITEM.encode()] * (width - len(each))] for each in lists]
    return np.array(rows, object).reshape(len(rows), width)
