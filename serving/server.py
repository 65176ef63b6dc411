"""The embedded server: TF Serving's interfaces over a push folder, for machines without TF Serving."""

import asyncio
import gc
import logging
import random
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import grpc
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from components.pusher.tf_serving import MAX_BATCH_ROWS
from ndr_client.served import undivided
from schemas.errors import UserError
from serving import grpc_service, rest
from serving.access_log import AccessLog
from serving.api import Api
from serving.batching import Arrays
from serving.connections import Connections
from serving.front import Front
from serving.histories import Histories
from serving.metrics import Metrics
from serving.ports import port_taken
from serving.precedence import requests_first
from serving.readiness import Readiness
from serving.record import Record
from serving.request_log import QUERIED, RequestLog
from serving.servable import Servable
from serving.settings import ServerConfig, TlsSettings
from serving.versions import Versions, Watcher
from serving.vocabularies import Counts, Vocabularies
from serving.warmup import replay

LOOPBACK = "127.0.0.1"
SWITCH_SECONDS = 0.001  # how long a thread may hold Python's lock: loading a model holds it for seconds otherwise
LINGERING_SECONDS = 2.0  # how long the rest of a refused body is read, so that its sender can read the reason
AT_ONCE = 0.001  # seconds
ENDED_SECONDS = 1.0  # between the end of the drain and the end of the process
_log = logging.getLogger(__name__)
_connection_log = logging.getLogger(f"{__name__}.connections")
# aiohttp logs a traceback for bytes that are not HTTP, which is a client's mistake.
_connection_log.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))


@dataclass(frozen=True)
class ServerSettings:
    """Where the embedded server listens, and how it runs.

    Attributes:
        host: the address to listen on.
        port: the gRPC port; 0 for any free one.
        rest_port: the REST port; 0 for any free one.
        poll_seconds: the pause between two reads of the push folder.
        max_batch_rows: of a batch of concurrent requests; None to run each alone.
        tables: the embedding table of each id feature of a query, for the metric of unknown ids.
        histories: the users' histories, for requests with a user's id only; None to leave these incomplete.
        root: the folder that log paths are relative to.
        config: limits, authentication, and logs.
        shard: the shard whose retriever is served; None for all retrievers of a version.
    """

    host: str = LOOPBACK
    port: int = 8500
    rest_port: int = 8501
    poll_seconds: float = 0.25
    max_batch_rows: int | None = MAX_BATCH_ROWS
    tables: Mapping[str, str] = field(default_factory=dict)
    histories: Histories | None = None
    root: Path = Path()
    config: ServerConfig = field(default_factory=ServerConfig)
    shard: int | None = None


class EmbeddedServer:
    """Serves the versions in a push folder, within a `with` statement.

    gRPC and REST share an event loop with its own thread; see `serving.front` for the threads that run models.

    Attributes:
        port: the gRPC port.
        rest_port: the REST port.
        versions: the served versions.
        metrics: the server's metrics.

    Args:
        push_folder: see `components.pusher.versions`; it may be empty, or not exist yet.
        settings: the server's settings.

    Raises:
        UserError: a port is not available, or the certificate or the token cannot be read.
    """

    def __init__(self, push_folder: Path, settings: ServerSettings) -> None:
        self._settings = settings
        config = settings.config
        self.versions = Versions(push_folder, self._load, shard=settings.shard)
        if settings.histories:
            self.versions.observe_live = self._load_histories
        self._watcher = Watcher(self.versions, settings.poll_seconds)
        self._access_log = AccessLog(config.access_log, settings.root)
        self._request_log = RequestLog(settings.root / config.request_log.path, config.request_log)
        self._front = Front(config.limits, config.read_token(), self._observe)
        self.metrics = Metrics(self.versions, lambda: self._front.running)
        self.versions.observe_load = self.metrics.observe_load
        api = Api(self.versions)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="connections", daemon=True)
        readiness = Readiness(self.versions, config.stale_seconds)
        app = rest.application(api, self._front, readiness, self.metrics.exposed, settings.histories)
        try:
            self.port = self._loop.run_until_complete(self._bind_grpc(api))
            self.rest_port = self._loop.run_until_complete(self._bind_rest(app))
        except BaseException:
            self._front.stop()
            raise

    def __enter__(self) -> Self:
        self._request_log.start()
        self._thread.start()
        self._in_loop(self._grpc.start())
        self._in_loop(self._rest.start_serving())
        self._watcher.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        """Stop accepting requests, and wait for running ones, at most the limits' `drain_seconds`."""
        self._in_loop(self._drain())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._front.stop()
        self._watcher.stop(ENDED_SECONDS)
        self._request_log.stop()
        self._access_log.close()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Only for the main thread, which gets the signals.

        A model that still runs after the drain is not waited for: the process ends without it.
        """
        prefer_requests()
        asked = threading.Event()

        def ask(number: int, _: FrameType | None) -> None:
            _log.info("asked to end by %s", signal.Signals(number).name)
            asked.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with self:
                asked.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def has_ended(self) -> bool:
        """Whether nothing runs that would delay the exit of the process."""
        return self._front.running == 0 and not self._watcher.is_alive()

    def _load(self, name: str, version: int, folder: Path) -> Servable:
        share, histories = self._settings.config.unknown_ids_share, self._settings.histories
        vocabularies = Vocabularies(folder, self._settings.tables if share and undivided(name) in QUERIED else {})

        def count_ids(inputs: Arrays) -> Counts:
            return vocabularies.count(inputs) if random.random() < share else {}

        with requests_first(lambda: self._front.running):
            servable = Servable(
                name,
                version,
                folder,
                self._settings.config.limits,
                self._settings.max_batch_rows,
                self.metrics.observe_batch,
                count_ids,
                histories.complete if histories and undivided(name) in QUERIED else lambda inputs: inputs,
            )
            replay(servable, folder)
        return servable

    def _load_histories(self, version: int) -> None:
        histories = self._settings.histories

        def load() -> None:
            try:
                if histories:
                    histories.load(version)
            except Exception:  # then the answers use older histories
                _log.exception("the histories of version %d's log cannot be read", version)

        threading.Thread(target=load, name="histories", daemon=True).start()

    def _observe(self, record: Record) -> None:
        self.metrics.observe(record)
        self._access_log.observe(record)
        self._request_log.observe(record)

    async def _bind_grpc(self, api: Api) -> int:
        settings, limits = self._settings, self._settings.config.limits
        options = [
            ("grpc.so_reuseport", 0),  # otherwise a second server would take half of the first one's requests
            ("grpc.max_receive_message_length", limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.max_concurrent_streams", limits.calls),
            ("grpc.server_handshake_timeout_ms", int(1000 * limits.receive_seconds)),
            # Detects clients that disappeared, and ends their calls.
            ("grpc.keepalive_time_ms", int(1000 * limits.idle_seconds)),
            ("grpc.keepalive_timeout_ms", int(1000 * limits.receive_seconds)),
        ]
        self._grpc = grpc.aio.server(handlers=grpc_service.handlers(api, self._front), options=options)
        address = f"{_bracketed(settings.host)}:{settings.port}"
        try:
            if settings.config.tls is None:
                return self._grpc.add_insecure_port(address)
            return self._grpc.add_secure_port(address, _grpc_credentials(settings.config.tls))
        except RuntimeError as error:
            raise port_taken(settings.port, "--port") from error

    async def _bind_rest(self, app: web.Application) -> int:
        settings, limits = self._settings, self._settings.config.limits
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_connection_log,
            auto_decompress=False,
            keepalive_timeout=limits.idle_seconds,
            lingering_time=LINGERING_SECONDS,
            shutdown_timeout=limits.drain_seconds,
        )
        await self._runner.setup()
        serve: Callable[[], asyncio.Protocol] = self._runner.server  # type: ignore[assignment]
        self._connections = Connections(serve, limits.connections, limits.receive_seconds, limits.idle_seconds)
        context = _rest_context(settings.config.tls) if settings.config.tls else None
        try:
            self._rest = await self._loop.create_server(
                self._connections,
                settings.host,
                settings.rest_port,
                ssl=context,
                ssl_handshake_timeout=limits.receive_seconds if context else None,
                reuse_port=False,
                start_serving=False,
            )
        except OSError as error:
            raise port_taken(settings.rest_port, "--rest-port") from error
        port: int = self._rest.sockets[0].getsockname()[1]
        return port

    async def _drain(self) -> None:
        seconds = self._settings.config.limits.drain_seconds
        self._rest.close()
        await asyncio.gather(self._grpc.stop(seconds), self._drain_rest(seconds))

    async def _drain_rest(self, seconds: float) -> None:
        """Keep to the limit: aiohttp alone would wait up to twice as long, and without an end for 0 seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._runner.cleanup()
        except TimeoutError:
            if server := self._runner.server:
                await server.shutdown(AT_ONCE)

    def _in_loop(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


def prefer_requests() -> None:
    """Configure this process so that answers wait neither for loading a version nor for the garbage collector.

    A collection scans 370,000 objects of TensorFlow and similar libraries, which stay until the process ends, and holds all threads
    for 150 ms. From here on they are excluded, so that it scans only objects of versions and requests.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()


def _bracketed(host: str) -> str:
    """Format a host for use before a port."""
    return f"[{host}]" if ":" in host else host


def _grpc_credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    _rest_context(tls)  # reports a faulty file; gRPC would only log it
    client_ca = tls.read("client_ca") if tls.client_ca else None
    return grpc.ssl_server_credentials(
        [(tls.read("key"), tls.read("certificate"))], client_ca, require_client_auth=client_ca is not None
    )


def _rest_context(tls: TlsSettings) -> ssl.SSLContext:
    for name in ("certificate", "key", *(["client_ca"] if tls.client_ca else [])):
        tls.read(name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (ssl.SSLError, OSError) as error:
        raise UserError(
            f"server.tls: expected a certificate and its private key without a passphrase, as PEM, found something else: {error}."
        ) from error
    return context
