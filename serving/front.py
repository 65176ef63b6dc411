"""The common part of gRPC and REST: authentication, admission, worker threads, and the record of each request."""

import asyncio
import hmac
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import grpc

from serving.errors import RequestError, unauthenticated, unavailable
from serving.record import Record
from serving.settings import Limits

Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class Front:
    """Admits requests, or refuses them at once.

    Worker threads read a request, run the model and write the answer: the event loop, which serves all
    connections, only moves bytes.

    Args:
        limits: the limits of admission.
        token: the token that each request must carry; None for none.
        observe: called with each request once it is answered or refused.
    """

    def __init__(self, limits: Limits, token: str | None, observe: Callable[[Record], None]) -> None:
        self.limits = limits
        self._token = token
        self._observe = observe
        self._workers = ThreadPoolExecutor(limits.running, "worker")
        self._running = 0
        self._lock = threading.Lock()
        self._calls: dict[str, int] = {}

    @property
    def running(self) -> int:
        """The number of requests that wait for a model or run."""
        return self._running

    def authorize(self, header: str | None) -> None:
        """Compare the header `authorization` with the token.

        Raises:
            RequestError: UNAUTHENTICATED.
        """
        if self._token is not None and not hmac.compare_digest(
            (header or "").encode(errors="replace"), f"Bearer {self._token}".encode()
        ):
            raise unauthenticated()

    @contextmanager
    def call(self, record: Record) -> Iterator[None]:
        """Wrap a request, from its headers to its answer: limit their number, and record it.

        Raises:
            RequestError: UNAVAILABLE, there are too many; INTERNAL for a bug, which is logged.
        """
        open_calls = self._calls.get(record.api, 0)
        self._calls[record.api] = open_calls + 1
        code = grpc.StatusCode.CANCELLED  # remains if the client disconnects
        try:
            if open_calls >= self.limits.calls:
                raise unavailable(f"overloaded: expected at most {self.limits.calls} calls at a time. Try again later.")
            yield
            code = grpc.StatusCode.OK
        except RequestError as error:
            code = error.code
            raise
        except Exception as error:
            code = grpc.StatusCode.INTERNAL
            _log.exception("a request failed")
            raise RequestError(code, f"{type(error).__name__}: {error}") from error
        finally:
            self._calls[record.api] -= 1
            record.end(code)
            self._observe(record)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run work in a thread.

        Raises:
            RequestError: UNAVAILABLE, too many requests wait or run; or the work's own error.
        """
        with self._lock:
            if self._running >= self.limits.running:
                raise unavailable(f"overloaded: {self._running} requests wait or run. Try again later.")
            self._running += 1
        job = self._workers.submit(work)
        job.add_done_callback(self._done)
        return await asyncio.wrap_future(job)

    def stop(self) -> None:
        """Admit no more requests, without waiting for running ones."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: Future[Result]) -> None:
        with self._lock:
            self._running -= 1
