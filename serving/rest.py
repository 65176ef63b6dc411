"""The REST server, with TF Serving's addresses and those for operators.

POST /v1/models/NAME[/versions/V|/labels/L]:predict     see `serving.json_tensors`. With histories also {"users": [ID, ...],
                                                    "k": N, "exclude_seen": true, "where": [CONDITION, ...]}
GET  /v1/models/NAME[/versions/V|/labels/L]             the states of its versions
GET  /v1/models/NAME[/versions/V|/labels/L]/metadata    its signatures
POST /v1/events                                         {"events": [{"user": ID, "item": ID}, ...]}, with histories
GET  /monitoring/prometheus/metrics                     see `serving.metrics`
GET  /livez                                             200 while the server answers at all
GET  /readyz, /healthz                                  200 once all models of a version are loaded, 503 before; names the live
                                                    version, and what is stale. A server that was asked to end answers none

Posts may be compressed by gzip or deflate.
"""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from aiohttp import web
from google.protobuf import json_format
from numpy.typing import NDArray
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2

from ndr_client.served import EXAMPLES, EXAMPLES_SIGNATURE, RETRIEVER, TENSORS_SIGNATURE, K, undivided
from serving import json_tensors, metrics
from serving.api import SIGNATURE_DEF, Api
from serving.errors import RequestError, invalid
from serving.front import Front
from serving.histories import Histories, events_of
from serving.predict import run
from serving.readiness import Readiness
from serving.record import REST, Record
from serving.servable import Servable, Signature
from serving.settings import Limits

MODEL = r"/v1/models/{model:[^/:]+}"
VERSION = r"/versions/{version:\d+}"
LABEL = r"/labels/{label:[^/:]+}"
MOST_DIGITS = 18  # of a version, which is an int64
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class _BodyError(RequestError):
    """A body that is refused with a status that has no gRPC code; the rest of it is not read."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, message)
        self.status = status


def application(
    api: Api, front: Front, readiness: Readiness, exposed: Callable[[], bytes], histories: Histories | None
) -> web.Application:
    """Make the routes.

    Args:
        api: answers the calls.
        front: admits requests.
        readiness: answers the probes.
        exposed: returns the metrics in Prometheus format.
        histories: of the users; None without.
    """
    app = web.Application()
    limits = front.limits

    def answered(
        method: str, work: Callable[[web.Request, Record], Awaitable[str]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            record = Record(REST, method, request.remote or "")
            try:
                with front.call(record):
                    front.authorize(request.headers.get("Authorization"))
                    text = await work(request, record)
            except RequestError as error:
                return _refused(error)
            return web.Response(text=text, content_type="application/json")

        return handler

    async def predict(request: web.Request, record: Record) -> str:
        spec = _spec(request)
        return await posted(request, record, lambda content: _predict(api, spec, content, record, limits, histories))

    async def events(request: web.Request, record: Record) -> str:
        return await posted(request, record, lambda content: _events(histories, content, limits))

    async def posted(request: web.Request, record: Record, work: Callable[[Any], str]) -> str:
        """Receive JSON, and process it in a worker, which also unpacks and parses it."""
        body = await _body(request, limits.request_bytes, limits.receive_seconds)
        record.received_bytes = len(body)
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        return await front.run(
            lambda: work(json_tensors.parse(_unpacked(body, encoding, limits.request_bytes), limits))
        )

    async def status(request: web.Request, record: Record) -> str:
        spec = _spec(request)
        return await front.run(lambda: _status(api, spec, record))

    async def metadata(request: web.Request, record: Record) -> str:
        spec = _spec(request)
        return await front.run(lambda: _metadata(api, spec, record))

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        is_ready, words = readiness()
        return web.Response(text=words, status=200 if is_ready else 503)

    async def monitoring(request: web.Request) -> web.Response:
        try:
            front.authorize(request.headers.get("Authorization"))
        except RequestError as error:
            return _refused(error)
        return web.Response(body=exposed(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def elsewhere(request: web.Request) -> web.Response:
        return _refused(invalid(f"Malformed request: {request.method} {request.path}"))

    for model in (MODEL, MODEL + VERSION, MODEL + LABEL):
        app.router.add_post(f"{model}:predict", answered("Predict", predict))
        app.router.add_get(model, answered("GetModelStatus", status))
        app.router.add_get(f"{model}/metadata", answered("GetModelMetadata", metadata))
    app.router.add_post("/v1/events", answered("Events", events))
    app.router.add_get("/livez", live)
    for path in ("/readyz", "/healthz"):
        app.router.add_get(path, ready)
    app.router.add_get("/monitoring/prometheus/metrics", monitoring)
    app.router.add_route("*", r"/{path:[\s\S]*}", elsewhere)
    return app


def _refused(error: RequestError) -> web.Response:
    status = error.status if isinstance(error, _BodyError) else _STATUS.get(error.code, 500)
    response = web.json_response({"error": str(error)}, status=status)
    if isinstance(error, _BodyError):
        response.force_close()
    return response


async def _body(request: web.Request, largest: int, seconds: float) -> bytes:
    """Read the body as it was sent.

    Raises:
        RequestError: it is too large, or takes too long.
    """
    too_large = _BodyError(413, f"expected a body of at most {largest} bytes")
    if (request.content_length or 0) > largest:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > largest:
                    raise too_large
    except TimeoutError as error:
        raise _BodyError(408, f"expected the body within {seconds:g} s of its headers") from error
    except web.HTTPException as error:
        raise invalid(f"expected a body, received something else: {error.reason}") from error
    except ConnectionError as error:  # the client is gone
        raise RequestError(grpc.StatusCode.CANCELLED, "expected a body, and its sender has gone") from error
    return bytes(body)


def _unpacked(body: bytes, encoding: str, largest: int) -> bytes:
    """Decompress the body up to the limit.

    Raises:
        RequestError: it is too large, or contradicts its headers.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW:
        raise _BodyError(415, f"expected a Content-Encoding of {', '.join(_WINDOW)}, received {encoding[:40]!r}")
    inflater = zlib.decompressobj(_WINDOW[encoding])
    try:
        content = inflater.decompress(body, largest + 1)
    except zlib.error as error:
        raise invalid(f"expected a body in {encoding}, received something else: {error}") from error
    if len(content) > largest:
        raise _BodyError(413, f"expected a body of at most {largest} bytes, unpacked")
    if not inflater.eof:
        raise invalid(f"expected a whole body in {encoding}, received one that was cut short")
    return content


def _events(histories: Histories | None, content: Any, limits: Limits) -> str:
    if histories is None:
        raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, "no histories are kept: ndr serve --histories")
    events = events_of(content, limits.rows)
    histories.add(events)
    return json.dumps({"taken": len(events)})


def _predict(
    api: Api, spec: model_pb2.ModelSpec, content: Any, record: Record, limits: Limits, histories: Histories | None
) -> str:
    servable = api.servable(spec, record)

    def signature_of(name: str) -> Signature:
        signature = servable.signature(name)
        if signature is None:
            raise invalid(f'Serving signature name: "{name or TENSORS_SIGNATURE}" not found in signature def')
        return signature

    if isinstance(content, dict) and "users" in content:
        outputs = run(servable, EXAMPLES_SIGNATURE, _of_users(content, servable, histories, limits), record)
        return json_tensors.write(outputs, by_rows=True)
    request = json_tensors.read(content, signature_of, limits)
    outputs = run(servable, request.signature or TENSORS_SIGNATURE, request.inputs, record)
    return json_tensors.write(outputs, request.by_rows)


def _of_users(content: Any, servable: Servable, histories: Histories | None, limits: Limits) -> dict[str, NDArray[Any]]:
    """Make the inputs for `{"users": [ID, ...], "k": N, "exclude_seen": true, "where": [CONDITION, ...]}`."""
    if histories is None or undivided(servable.name) != RETRIEVER:
        raise invalid(f"expected `users` only of the {RETRIEVER}, with histories: ndr serve --histories")
    if unknown := content.keys() - {"users", "k", "exclude_seen", "where"}:
        raise invalid(
            f"expected no more than `users`, `k`, `exclude_seen` and `where`, received {min(unknown)[:40]!r} too"
        )
    users, k, exclude_seen = content["users"], content.get("k", 10), content.get("exclude_seen", True)
    where = content.get("where", [])
    is_valid = isinstance(users, list) and users and all(isinstance(user, str) and user for user in users)
    is_valid = is_valid and isinstance(where, list) and all(isinstance(condition, str) for condition in where)
    if not is_valid or type(k) is not int or not 1 <= k <= limits.items or type(exclude_seen) is not bool:
        raise invalid(
            f"expected `users`, a list of texts, `k` from 1 to {limits.items}, `exclude_seen`, true or false, "
            "and `where`, a list of texts"
        )
    if len(users) > limits.rows:
        raise invalid(f"expected at most {limits.rows} users, received {len(users)}")
    try:
        ids, conditions = ([text.encode() for text in texts] for texts in (users, where))
    except UnicodeEncodeError as error:
        raise invalid("expected `users` and `where` of texts, received half of a surrogate pair") from error
    # Each user's Example repeats all conditions.
    if len(users) * len(where) > limits.values or len(users) * sum(map(len, conditions)) > limits.request_bytes:
        raise invalid(
            f"expected a `where` of at most {limits.values} conditions and {limits.request_bytes} bytes, both times the users"
        )
    examples = histories.queries(ids, exclude_seen, conditions)
    return {EXAMPLES: np.array(examples, object), K: np.full(len(users), k, np.int32)}


def _status(api: Api, spec: model_pb2.ModelSpec, record: Record) -> str:
    response = api.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec), record)
    return json_format.MessageToJson(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _metadata(api: Api, spec: model_pb2.ModelSpec, record: Record) -> str:
    request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_DEF])
    response = api.metadata(request, record)
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
