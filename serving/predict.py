"""A Predict request to a servable, in protos."""

import grpc
from tensorflow_serving.apis import predict_pb2

from ndr_client.served import TENSORS_SIGNATURE
from serving import tensors
from serving.errors import RequestError, invalid
from serving.servable import Servable, Signature


def predict(servable: Servable, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    """Answers with the outputs that the request asks for, all where it names none, and the version that gave them.

    Raises:
        RequestError: in TF Serving's codes; FAILED_PRECONDITION for an unknown signature.
    """
    name = request.model_spec.signature_name or TENSORS_SIGNATURE
    signature = servable.signature(name)
    if signature is None:
        raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    wanted = _wanted(signature, list(request.output_filter))
    outputs = signature({key: tensors.from_proto(proto, key) for key, proto in request.inputs.items()})
    response = predict_pb2.PredictResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.model_spec.signature_name = name
    for key in wanted:
        response.outputs[key].CopyFrom(tensors.to_proto(outputs[key]))
    return response


def _wanted(signature: Signature, names: list[str]) -> list[str]:
    for name in names:
        if name not in signature.outputs:
            known = ",".join(sorted(signature.outputs))
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set {{{known}}}."
            )
    if len(set(names)) < len(names):
        raise invalid(f"duplicate output tensor alias: {next(name for name in names if names.count(name) > 1)}")
    return names or list(signature.outputs)
