"""Asks a server for embeddings and items, over gRPC; TF Serving and the embedded server answer alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndr_client import connection, served, tensors
from ndr_client import protocol_pb2 as protocol
from ndr_client.connection import Tls
from ndr_client.merging import merged

Rows = Sequence[bytes] | Mapping[str, ArrayLike]
"""The queries or items of a request: serialised tf.Examples (see `example`), or values for each raw feature, a row per query. A
server merges any Examples into a batch; features only with those of equal row lengths."""
Texts = Sequence[Sequence[str | bytes]]
"""For each query a list of texts: ids, or conditions."""
Version = int | str | None
"""The version to ask: a number, a label such as "canary", or None for the default one."""


@dataclass(frozen=True)
class Answer:
    """A model's answer.

    Attributes:
        outputs: an array for each output; text as bytes objects.
        version: the version that answered.
        label: the label that was asked for; None for a number or the default.
    """

    outputs: dict[str, NDArray[Any]]
    version: int
    label: str | None


@dataclass(frozen=True)
class Found:
    """Items for each query, best first.

    Attributes:
        item_ids: [batch, k] bytes objects; b"" for no item.
        scores: [batch, k] float32, inner products of unit vectors plus the bonuses of histories; -2 for no item.
        version: the version that answered.
        label: the label that was asked for; None for a number or the default.
    """

    item_ids: NDArray[Any]
    scores: NDArray[np.float32]
    version: int
    label: str | None


class Client:
    """Asks the models of a server. Thread-safe.

    Every method raises grpc.RpcError if the server cannot answer; its `code()` and `details()` say why.

    Example:
        with Client("localhost:8500") as client:
            found = client.retrieve([example({"user_id": "13"})], k=10)

    Args:
        address: HOST:PORT of the gRPC server, or any target that gRPC resolves; several addresses of a host take turns.
        shards: the addresses of the servers of each shard, in their order, if the version has a retriever for each shard
            (`indexer.stitched: false`); may be equal. Their answers are merged to the one that an undivided retriever gives.
        timeout: the time limit of an answer in seconds, over all attempts.
        attempts: the maximum number of attempts of a call, 1 to 5, while the server is UNAVAILABLE.
        tls: for an encrypted connection.
        token: the token that the server requires; only with `tls`.

    Raises:
        ValueError: `attempts` is out of range, or a token would be sent without encryption.
        OSError: a file of `tls` cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        shards: Sequence[str] = (),
        timeout: float = 10.0,
        attempts: int = 4,
        tls: Tls | None = None,
        token: str | None = None,
    ) -> None:
        self._channels = {
            server: connection.connect(server, attempts, tls, token) for server in dict.fromkeys([address, *shards])
        }
        self._timeout = timeout
        predict = {
            server: channel.unary_unary(
                f"/{connection.PREDICTION}/Predict",
                protocol.PredictRequest.SerializeToString,
                protocol.PredictResponse.FromString,
            )
            for server, channel in self._channels.items()
        }
        self._predict = predict[address]
        retrievers = served.shard_names(served.RETRIEVER, max(1, len(shards)))
        self._retrievers = {name: predict[server] for name, server in zip(retrievers, shards or [address], strict=True)}
        self._status = self._channels[address].unary_unary(
            f"/{connection.MODEL}/GetModelStatus",
            protocol.StatusRequest.SerializeToString,
            protocol.StatusResponse.FromString,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        for channel in self._channels.values():
            channel.close()

    def embed(self, tower: str, rows: Rows, version: Version = None) -> Answer:
        """Embed queries or items.

        Args:
            tower: `query_tower` or `item_tower`.
            rows: the queries or items.
            version: the version to ask.

        Returns:
            `embedding`, float32 [batch, width], L2-normalised.
        """
        return self.predict(tower, *_inputs(rows), version)

    def retrieve(
        self,
        queries: Rows,
        k: int | Sequence[int],
        *,
        exclude: Texts | None = None,
        where: Texts | None = None,
        version: Version = None,
    ) -> Found:
        """Find the best items for queries, with the retriever.

        Example:
            found = client.retrieve({"user_id": ["13"], ...}, k=10, where=[["country=de", "country=at", "price<=20"]])

        Args:
            queries: the queries.
            k: the number of items, for all queries or for each.
            exclude: the items to exclude for each query; only for queries given by features. Examples have a feature
                `exclude` for them.
            where: the conditions that the items of each query must meet, such as "country=de" (README.md describes them); only for
                queries given by features. Examples have a feature `where` for them.
            version: the version to ask.

        Raises:
            ValueError: `exclude` or `where` was given with Examples.
        """
        signature, inputs = _inputs(queries)
        batch = len(next(iter(inputs.values()), ()))
        texts = {served.EXCLUDE: exclude, served.WHERE: where}
        if signature == served.TENSORS_SIGNATURE:
            inputs[served.EXCLUDE] = _padded(exclude or [[]] * batch)
            if where is not None:
                inputs[served.WHERE] = _padded(where)
        elif passed := [name for name, values in texts.items() if values is not None]:
            raise ValueError(f"{passed[0]}: expected None beside Examples, which have a feature {passed[0]} for it")
        return self._retrieved(signature, inputs, k, batch, version)

    def similar(
        self,
        items: Rows,
        ids: Sequence[str | bytes],
        k: int | Sequence[int],
        *,
        exclude: Texts | None = None,
        where: Texts | None = None,
        version: Version = None,
    ) -> Found:
        """Find the items most similar to given items, with the item tower and the retriever of one version.

        Args:
            items: their features, as in the catalogue; they need not be in the index.
            ids: their ids, which are excluded from their own answers.
            k: the number of items, for all or for each.
            exclude: further items to exclude for each.
            where: the conditions that the answers of each must meet, as in `retrieve`.
            version: the version to ask.

        Raises:
            ValueError: the number of ids, or of lists in `exclude` or `where`, differs from that of items.
        """
        answer = self.embed(served.ITEM_TOWER, items, version)
        embedding = answer.outputs[served.EMBEDDING]
        for name, values in (("ids", ids), (served.EXCLUDE, exclude), (served.WHERE, where)):
            if values is not None and len(values) != len(embedding):
                raise ValueError(f"{name}: expected one for each of {len(embedding)} items, received {len(values)}")
        left_out = [[id_, *excluded] for id_, excluded in zip(ids, exclude or [[]] * len(ids), strict=True)]
        inputs = {served.EMBEDDING: embedding, served.EXCLUDE: _padded(left_out)}
        if where is not None:
            inputs[served.WHERE] = _padded(where)
        nearest = self._retrieved(served.EMBEDDINGS_SIGNATURE, inputs, k, len(embedding), answer.version)
        return replace(nearest, label=answer.label)

    def _retrieved(
        self, signature: str, inputs: Mapping[str, ArrayLike], k: int | Sequence[int], batch: int, version: Version
    ) -> Found:
        wanted = np.broadcast_to(np.asarray(k, np.int32), batch)
        width = max(wanted, default=0)  # TF Serving's answers are as wide as its batch needed
        answers = self._answers(signature, {**inputs, served.K: wanted}, version)
        shard_answers = [(a.outputs[served.ITEM_IDS][:, :width], a.outputs[served.SCORES][:, :width]) for a in answers]
        ids, scores = shard_answers[0] if len(shard_answers) == 1 else merged(shard_answers, wanted)
        return Found(ids, scores, answers[0].version, answers[0].label)

    def _answers(self, signature: str, inputs: Mapping[str, ArrayLike], version: Version) -> list[Answer]:
        """Ask all retrievers at once; all answers are of one version."""
        if len(self._retrievers) == 1:
            return [self.predict(served.RETRIEVER, signature, inputs, version)]

        def ask(name: str, version: Version) -> Any:
            return self._retrievers[name].future(
                predict_request(name, signature, inputs, version), timeout=self._timeout
            )

        asked = {name: ask(name, version) for name in self._retrievers}
        answers = {name: _answer(call.result(), version) for name, call in asked.items()}
        # A version becomes live on one server after the other: the older one is still on all of them.
        oldest = min(answer.version for answer in answers.values())
        again = {name: ask(name, oldest) for name, answer in answers.items() if answer.version != oldest}
        answers |= {name: _answer(call.result(), version) for name, call in again.items()}
        return list(answers.values())

    def predict(self, model: str, signature: str, inputs: Mapping[str, ArrayLike], version: Version = None) -> Answer:
        """Run a signature of a model.

        Args:
            model: its name.
            signature: its name.
            inputs: an array for each input; text as str or bytes objects.
            version: the version to ask.

        Raises:
            ValueError: an input has a dtype that models do not take, or the answer one that the client does not know.
        """
        request = predict_request(model, signature, inputs, version)
        return _answer(self._predict(request, timeout=self._timeout), version)

    def available(self, model: str, version: Version = None) -> list[int]:
        """Return the versions of a model that answer, the newest first; empty if there are none.

        Args:
            model: its name.
            version: only this one, if it answers.
        """
        request = protocol.StatusRequest(model_spec=_spec(model, version))
        try:
            response = self._status(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return []
            raise
        available = protocol.StatusResponse.AVAILABLE
        return sorted((status.version for status in response.versions if status.state == available), reverse=True)


def predict_request(
    model: str, signature: str, inputs: Mapping[str, ArrayLike], version: Version = None
) -> protocol.PredictRequest:
    """Build the message that `Client.predict` sends.

    Raises:
        ValueError: an input has a dtype that models do not take.
    """
    return protocol.PredictRequest(
        model_spec=_spec(model, version, signature),
        inputs={name: tensors.to_message(values) for name, values in inputs.items()},
    )


def _answer(response: protocol.PredictResponse, version: Version) -> Answer:
    outputs = {name: tensors.to_values(message, name) for name, message in response.outputs.items()}
    return Answer(outputs, response.model_spec.version.value, version if isinstance(version, str) else None)


def _spec(model: str, version: Version, signature: str = "") -> protocol.ModelSpec:
    spec = protocol.ModelSpec(name=model, signature_name=signature)
    if isinstance(version, str):
        spec.version_label = version
    elif version is not None:
        spec.version.value = version
    return spec


def _inputs(rows: Rows) -> tuple[str, dict[str, Any]]:
    """Return the signature for such rows, and its inputs."""
    if isinstance(rows, Mapping):
        return served.TENSORS_SIGNATURE, dict(rows)
    return served.EXAMPLES_SIGNATURE, {served.EXAMPLES: np.array(rows, object)}


def _padded(lists: Texts) -> NDArray[Any]:
    width = max(map(len, lists), default=0)
    rows = [[*values, *[served.NO_ITEM] * (width - len(values))] for values in lists]
    return np.array(rows, object).reshape(len(rows), width)
