"""The gRPC side: TF Serving's services; the methods of theirs that are not here are UNIMPLEMENTED, as gRPC itself says."""

import logging
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.api import Api
from serving.errors import RequestError

_log = logging.getLogger(__name__)


def handlers(api: Api) -> list[grpc.GenericRpcHandler]:
    """What a gRPC server is given to answer by."""
    prediction = {
        "Predict": _unary(api.predict, predict_pb2.PredictRequest),
        "GetModelMetadata": _unary(api.metadata, get_model_metadata_pb2.GetModelMetadataRequest),
    }
    model = {"GetModelStatus": _unary(api.status, get_model_status_pb2.GetModelStatusRequest)}
    return [
        grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
        grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", model),
    ]


def _unary(call: Callable[[Any], Any], request: Any) -> grpc.RpcMethodHandler:
    def answer(received: Any, context: grpc.ServicerContext) -> Any:
        try:
            return call(received)
        except RequestError as error:
            context.abort(error.code, str(error))
        except Exception as error:  # a fault of ours, which must not end the server
            _log.exception("a request failed")
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"[:1000])

    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=lambda message: message.SerializeToString()
    )
