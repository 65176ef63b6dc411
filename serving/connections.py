"""The connections of the REST side: how many there are, and how long one may take to send its first headers."""

import asyncio
from collections.abc import Callable
from typing import Any

OVERLOADED = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_END_OF_HEADERS = b"\r\n\r\n"


class Connections:
    """Bounds a server's connections; gives the protocol of each.

    Args:
        protocol: makes the protocol that serves a connection.
        most: connections at a time; one more is answered with 503 and closed.
        header_seconds: after which a connection that has not sent whole headers is closed. Later ones of the same connection are
            bounded by the time that it may be idle.
    """

    def __init__(self, protocol: Callable[[], asyncio.Protocol], most: int, header_seconds: float) -> None:
        self.protocol = protocol
        self.most = most
        self.header_seconds = header_seconds
        self.open = 0

    def __call__(self) -> asyncio.Protocol:
        """Called by asyncio for each connection."""
        return _Bounded(self)


class _Bounded(asyncio.Protocol):
    """Passes on to the protocol that serves the connection."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._served: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._connections.open += 1
        if self._connections.open > self._connections.most and isinstance(transport, asyncio.WriteTransport):
            transport.write(OVERLOADED)
            transport.close()
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._connections.header_seconds, transport.close)
        self._served = self._connections.protocol()
        self._served.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._connections.open -= 1
        self._cancel_timer()
        if self._served is not None:
            self._served.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if self._served is None:
            return
        if self._timer is not None:
            seen = self._tail + data
            if _END_OF_HEADERS in seen:
                self._cancel_timer()
            self._tail = seen[-3:]
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        """Called by asyncio."""
        return self._served.eof_received() if self._served is not None else None

    def pause_writing(self) -> None:
        """Called by asyncio."""
        if self._served is not None:
            self._served.pause_writing()

    def resume_writing(self) -> None:
        """Called by asyncio."""
        if self._served is not None:
            self._served.resume_writing()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
