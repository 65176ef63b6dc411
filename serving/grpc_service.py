"""The gRPC server: TF Serving's services; gRPC answers their other methods with UNIMPLEMENTED.

TF Serving's generated servicer would parse a message on the event loop, before any of our limits applies to it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.api import Api
from serving.errors import RequestError, invalid
from serving.front import Front
from serving.record import GRPC, Record
from serving.wire import check_entries


def handlers(api: Api, front: Front) -> list[grpc.GenericRpcHandler]:
    """Return the handlers for a gRPC server."""
    prediction = {
        "Predict": _unary(front, "Predict", api.predict, predict_pb2.PredictRequest),
        "GetModelMetadata": _unary(
            front, "GetModelMetadata", api.metadata, get_model_metadata_pb2.GetModelMetadataRequest
        ),
    }
    status = _unary(front, "GetModelStatus", api.status, get_model_status_pb2.GetModelStatusRequest)
    return [
        grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", prediction),
        grpc.method_handlers_generic_handler("tensorflow.serving.ModelService", {"GetModelStatus": status}),
    ]


def _unary(front: Front, method: str, call: Callable[[Any, Record], Any], request: Any) -> grpc.RpcMethodHandler:
    """Make a method with one request and one answer.

    gRPC sees a request stream of one message, so that we limit the wait for a message that never comes. A worker reads
    the message and writes the answer.
    """

    async def answer(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
        record = Record(GRPC, method, context.peer())
        try:
            with front.call(record):
                front.authorize(_header(context, "authorization"))
                content = await _message(messages, front.limits.receive_seconds)
                record.received_bytes = len(content)
                return await front.run(lambda: _answer(call, request, content, record))
        except RequestError as error:
            await context.abort(error.code, str(error))
        raise AssertionError("abort raises")

    return grpc.stream_unary_rpc_method_handler(answer)


async def _message(messages: AsyncIterator[bytes], seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            async for content in messages:
                return content
    except TimeoutError as error:
        raise RequestError(
            grpc.StatusCode.DEADLINE_EXCEEDED, f"expected a message within {seconds:g} s of its call, received none"
        ) from error
    raise invalid("expected a message, received none")


def _answer(call: Callable[[Any, Record], Any], request: Any, content: bytes, record: Record) -> bytes:
    if request is predict_pb2.PredictRequest:
        check_entries("inputs", content, predict_pb2.PredictRequest.INPUTS_FIELD_NUMBER)
    try:
        received = request.FromString(content)
    except DecodeError as error:
        raise invalid(f"expected a {request.DESCRIPTOR.full_name}, received something else: {error}") from error
    answered: bytes = call(received, record).SerializeToString()
    return answered


def _header(context: grpc.aio.ServicerContext, name: str) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, str) else None
    return None
