"""Sends a Predict request to a servable, in protos."""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tensorflow_serving.apis import predict_pb2

from ndr_client import served
from serving import extent, tensors
from serving.errors import RequestError, invalid
from serving.record import GRPC, Found, Record
from serving.servable import Servable, Signature


def predict(
    servable: Servable, request: predict_pb2.PredictRequest, record: Record | None = None
) -> predict_pb2.PredictResponse:
    """Return the outputs that the request names, or all, and the version that computed them.

    Args:
        servable: the model.
        request: the request.
        record: gets facts about the request.

    Raises:
        RequestError: in TF Serving's codes; FAILED_PRECONDITION for an unknown signature.
    """
    name = request.model_spec.signature_name or served.TENSORS_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    wanted = _wanted(signature, list(request.output_filter))
    signature.check_names(request.inputs)
    outputs = run(servable, name, signature.read(request.inputs), record or Record(GRPC, "Predict"))
    response = predict_pb2.PredictResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = name
    for key in wanted:
        response.outputs[key].CopyFrom(tensors.to_proto(outputs[key]))
    return response


def run(
    servable: Servable, name: str, inputs: Mapping[str, NDArray[Any]], record: Record
) -> Mapping[str, NDArray[Any]]:
    """Run a signature, and record question and answer.

    Args:
        servable: the model.
        name: an existing signature.
        inputs: an array for each input, as declared.
        record: gets facts about the request.

    Raises:
        RequestError: the inputs are more than the limits allow, or the model refuses them.
    """
    signature = servable.signature(name)
    if signature is None:
        raise ValueError(f"expected a signature of {servable.name}, received {name}")
    record.version, record.signature = servable.version, name
    inputs = servable.complete(inputs)
    record.inputs, record.extent = inputs, extent.of(inputs)
    record.outputs = signature(inputs, record.extent)
    if served.K in inputs and served.ITEM_IDS in record.outputs:
        # The batch was as wide as its largest k, which may be another request's.
        widest = int(inputs[served.K].max(initial=0))
        record.outputs = {name: array[:, :widest] for name, array in record.outputs.items()}
        items = np.count_nonzero(record.outputs[served.ITEM_IDS] != served.NO_ITEM.encode(), axis=1)
        short = np.count_nonzero(items < inputs[served.K])
        record.found = Found(int(np.count_nonzero(items == 0)), int(short))
    record.ids = servable.count_ids(inputs)
    return record.outputs


def _wanted(signature: Signature, names: list[str]) -> list[str]:
    for name in names:
        if name not in signature.outputs:
            expected = ",".join(sorted(signature.outputs))
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{{expected}}}."
            )
    if len(set(names)) < len(names):
        raise invalid(f"duplicate output tensor alias: {next(name for name in names if names.count(name) > 1)}")
    return names or list(signature.outputs)
