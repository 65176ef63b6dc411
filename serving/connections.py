"""Limits REST connections: their number, and the time to send the first headers or to read an answer."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

OVERLOADED = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_END_OF_HEADERS = b"\r\n\r\n"


class Connections:
    """Limits a server's connections; makes the protocol of each.

    Args:
        protocol: makes the protocol that serves a connection.
        most: the maximum number of connections; a further one is answered with 503 and closed.
        header_seconds: the time after which a connection without complete headers is closed. Later headers of the same connection
            are limited by the idle time.
        unread_seconds: the time after which a connection that does not read its answer is closed.
    """

    def __init__(
        self, protocol: Callable[[], asyncio.Protocol], most: int, header_seconds: float, unread_seconds: float
    ) -> None:
        self.protocol = protocol
        self.most = most
        self.header_seconds = header_seconds
        self.unread_seconds = unread_seconds
        self.open = 0

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of a connection; asyncio calls this."""
        return _Bounded(self)


class _Bounded(asyncio.Protocol):
    """Forwards to the protocol that serves the connection."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._served: Any = None
        self._abort: Callable[[], None] = lambda: None
        self._timer: asyncio.TimerHandle | None = None  # for the headers, and then for each answer
        self._has_headers = False
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Override of asyncio's method."""
        self._connections.open += 1
        written = cast(asyncio.Transport, transport)
        if self._connections.open > self._connections.most:
            written.write(OVERLOADED)
            written.close()
            return
        self._abort = written.abort
        self._set_timer(self._connections.header_seconds, written.close)
        self._served = self._connections.protocol()
        self._served.connection_made(written)

    def connection_lost(self, error: Exception | None) -> None:
        """Override of asyncio's method."""
        self._connections.open -= 1
        self._cancel_timer()
        if self._served is not None:
            self._served.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Override of asyncio's method."""
        if self._served is None:
            return
        if not self._has_headers:
            seen = self._tail + data
            if _END_OF_HEADERS in seen:
                self._has_headers = True
                self._cancel_timer()
            self._tail = seen[-3:]
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        """Override of asyncio's method."""
        return self._served.eof_received() if self._served is not None else None

    def pause_writing(self) -> None:
        """Override of asyncio's method, called when so much is unread that writing pauses."""
        if self._served is not None:
            self._set_timer(self._connections.unread_seconds, self._abort)
            self._served.pause_writing()

    def resume_writing(self) -> None:
        """Override of asyncio's method."""
        if self._served is not None:
            self._cancel_timer()
            self._served.resume_writing()

    def _set_timer(self, seconds: float, ends: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, ends)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
