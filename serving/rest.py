"""The REST side, at TF Serving's addresses, and /healthz.

POST /v1/models/NAME[/versions/V|/labels/L]:predict     see `serving.json_tensors`
GET  /v1/models/NAME[/versions/V|/labels/L]             how far its versions have come
GET  /v1/models/NAME[/versions/V|/labels/L]/metadata    its signatures
GET  /healthz                                 200 once all models of a version are loaded, 503 before
"""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import grpc
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from ndr_client.served import TENSORS_SIGNATURE
from serving import json_tensors
from serving.api import SIGNATURE_DEF, Api
from serving.errors import RequestError, invalid
from serving.servable import Signature

MODEL = r"/v1/models/{model:[^/:]+}"
VERSION = r"/versions/{version:\d+}"
LABEL = r"/labels/{label:[^/:]+}"
MOST_DIGITS = 18  # of a version, which is an int64
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
_log = logging.getLogger(__name__)


def application(api: Api, is_ready: Callable[[], bool], workers: Executor, largest_body: int) -> web.Application:
    """The routes.

    Args:
        api: what answers.
        is_ready: what /healthz tells.
        workers: the threads that models run in, as they would hold up all others in the event loop's.
        largest_body: bytes; a larger one is answered with 413.
    """
    app = web.Application(client_max_size=largest_body, middlewares=[_errors_as_json])

    async def in_worker(call: Callable[..., str], *arguments: Any) -> web.Response:
        text = await asyncio.get_running_loop().run_in_executor(workers, call, *arguments)
        return web.Response(text=text, content_type="application/json")

    async def predict(request: web.Request) -> web.Response:
        return await in_worker(_predict, api, _spec(request), await request.read())

    async def status(request: web.Request) -> web.Response:
        return await in_worker(_status, api, _spec(request))

    async def metadata(request: web.Request) -> web.Response:
        return await in_worker(_metadata, api, _spec(request))

    async def healthz(_: web.Request) -> web.Response:
        ready = is_ready()
        return web.Response(text="ok" if ready else "no version is loaded yet", status=200 if ready else 503)

    for model in (MODEL, MODEL + VERSION, MODEL + LABEL):
        app.router.add_post(f"{model}:predict", predict)
        app.router.add_get(model, status)
        app.router.add_get(f"{model}/metadata", metadata)
    app.router.add_get("/healthz", healthz)
    return app


def _predict(api: Api, spec: model_pb2.ModelSpec, body: bytes) -> str:
    servable = api.servable(spec)

    def signature_of(name: str) -> Signature:
        signature = servable.signature(name)
        if signature is None:
            raise invalid(f'Serving signature name: "{name or TENSORS_SIGNATURE}" not found in signature def')
        return signature

    request = json_tensors.read(body, signature_of)
    return json_tensors.write(request.signature(request.inputs), request.by_rows)


def _status(api: Api, spec: model_pb2.ModelSpec) -> str:
    response = api.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
    return json_format.MessageToJson(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _metadata(api: Api, spec: model_pb2.ModelSpec) -> str:
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_DEF])
    response = api.metadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_DEF].Unpack(signatures)
    content = {
        "model_spec": json_format.MessageToDict(response.model_spec, preserving_proto_field_name=True),
        "metadata": {SIGNATURE_DEF: json_format.MessageToDict(signatures, preserving_proto_field_name=True)},
    }
    return json.dumps(content, indent=1)


def _spec(request: web.Request) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=request.match_info["model"])
    if "version" in request.match_info:
        digits = request.match_info["version"]
        if len(digits) > MOST_DIGITS:
            raise invalid(f"Failed to convert version: {digits} to numeric.")
        spec.version.value = int(digits)
    if "label" in request.match_info:
        spec.version_label = request.match_info["label"]
    return spec


@web.middleware
async def _errors_as_json(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        status, message = _STATUS.get(error.code, 500), str(error)
    except web.HTTPRequestEntityTooLarge as error:
        status, message = error.status, f"expected a body of at most {request.client_max_size} bytes"
    except web.HTTPException:
        status, message = 400, f"Malformed request: {request.method} {request.path}"
    except Exception as error:  # a fault of ours, which must not end the server
        _log.exception("a request failed")
        status, message = 500, f"{type(error).__name__}: {error}"
    return web.json_response({"error": message}, status=status)
