"""A tunnel to a database server over authenticated TLS, for ml-metadata's drivers.

Its MySQL driver accepts any certificate, and its PostgreSQL driver is built without TLS. So they connect unencrypted to a
loopback port, and a small process behind that port connects to the server: it requests TLS in the database's protocol, verifies
the server's certificate, and only then forwards the driver's bytes. If it cannot, it answers the driver with an error of that
protocol. The process runs this file alone, with only the standard library, and ends with the process that started it. Whoever
can connect to the loopback port still needs the database's user and password.
"""

import asyncio
import errno
import json
import os
import ssl
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

SECONDS = 10.0  # to reach the server and negotiate TLS
LOOPBACK = "127.0.0.1"
MAX_START = 1 << 16  # bytes of a packet before forwarding begins

# Error numbers of each protocol: the server cannot be reached, and the server is not trusted.
MYSQL_UNREACHABLE, MYSQL_TLS_REFUSED = 2003, 2026
POSTGRESQL_UNREACHABLE, POSTGRESQL_TLS_REFUSED = "08001", "08004"

MYSQL_TLS = 0x0800  # CLIENT_SSL among a connection's capabilities
MYSQL_TLS_REQUEST = 32  # bytes: a login's capabilities, packet size and character set, without user and password
MYSQL_OK, MYSQL_MORE, MYSQL_ERROR = 0x00, 0x01, 0xFF
MYSQL_MORE_NONE_ASKED = b"\x01\x03"  # the server has the password cached; its OK follows
POSTGRESQL_TLS_REQUEST, POSTGRESQL_GSS_REQUEST = ((number).to_bytes(4, "big") for number in (80877103, 80877104))
POSTGRESQL_LOGIN, POSTGRESQL_ERROR = b"R", b"E"  # kinds of the server's messages
POSTGRESQL_BOUND_LOGIN = b"SCRAM-SHA-256-PLUS\0"
POSTGRESQL_ENCRYPTIONS = {POSTGRESQL_TLS_REQUEST, POSTGRESQL_GSS_REQUEST}


class Way(NamedTuple):
    """The destination of a tunnel.

    Attributes:
        store: `mysql` or `postgresql`.
        host: the server's name or address, as in its certificate.
        port: the server's port.
        ca: PEM file of trusted certificate authorities; None for those of the system.
        checks_host: whether the certificate must name `host`.
        certificate: PEM file of the client's certificate, with its key unless `key` has it; None if the server asks for none.
        key: PEM file of its key.
    """

    store: str
    host: str
    port: int
    ca: str | None = None
    checks_host: bool = True
    certificate: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """Create the TLS context.

        Raises:
            OSError: a file cannot be read, or is not PEM (includes `ssl.SSLError`).
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.check_hostname = self.checks_host
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context


_opened: dict[Way, tuple[int, subprocess.Popen[bytes]]] = {}


def opened(way: Way) -> int:
    """Return the loopback port of a tunnel; a process has at most one for each destination.

    Args:
        way: the destination; the certificate files must be readable.

    Raises:
        OSError: the process could not be started.
    """
    port, process = _opened.get(way, (0, None))
    if process is None or process.poll() is not None:
        command = [sys.executable, "-I", __file__, json.dumps(way)]
        # In its own session: Ctrl-C is for the run, which still has to record its state.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise OSError(f"the tunnel to {way.host}:{way.port} ended with status {process.wait()} before it listened")
        port = int(line)
        _opened[way] = port, process
    return port


def behind(host: str, port: int) -> str:
    """Return the server's address for messages, even if the given one is a tunnel of this process."""
    for way, (listens, _) in _opened.items():
        if (host, port) == (LOOPBACK, listens):
            return f"{way.host}:{way.port} (by TLS)"
    return f"{host}:{port}"


class _TlsError(Exception):
    """The server does not offer TLS."""


async def _serve(way: Way) -> None:
    """Listen until standard input closes, which happens when the tunnel's owner has ended."""
    server = await asyncio.start_server(partial(_connected, way, way.context()), LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


async def _connected(way: Way, context: ssl.SSLContext, reader: StreamReader, writer: StreamWriter) -> None:
    """Handle a driver's connection: forward it to the server, or tell it why not."""
    protocol = _MySQL(reader, writer) if way.store == "mysql" else _PostgreSQL(reader, writer)
    server: StreamWriter | None = None
    try:
        async with asyncio.timeout(SECONDS):
            await protocol.listen()
            answers, server = await asyncio.open_connection(way.host, way.port)
            await protocol.begin(answers, server, partial(server.start_tls, context, server_hostname=way.host))
        with suppress(OSError):  # the server or the driver closed the connection
            await asyncio.gather(_pass_on(reader, server), _pass_on(answers, writer))
    except (ssl.SSLError, _TlsError) as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
        await protocol.refuse(f"its TLS is rejected: {reason}", is_tls=True)
    except OSError as error:  # includes TimeoutError
        code = error.errno or errno.ETIMEDOUT  # an unknown name has a negative number, and its own message
        await protocol.refuse(str(error.strerror) if code < 0 else os.strerror(code), is_tls=False)
    except EOFError:
        await protocol.refuse("it closed the connection during the start", is_tls=False)
    finally:
        for stream in (writer, server):
            if stream is not None:
                stream.close()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(MAX_START):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():  # TLS cannot half-close, so it is closed
        writer.write_eof()
    else:
        writer.close()


class _MySQL:
    """The start of a connection to MySQL or MariaDB. Packets: three bytes of length, a sequence number, and the content.

    The server speaks first. Its greeting is forwarded as if it had no TLS. The driver's login begins with the content of a TLS
    request; that extra packet shifts the numbers of the login and all later packets by one between the two sides.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0

    async def listen(self) -> None:
        """Do nothing: in this protocol the server speaks first."""

    async def begin(self, reader: StreamReader, writer: StreamWriter, start_tls: Callable[[], Awaitable[None]]) -> None:
        """Let the driver log in, with TLS on the server's side."""
        greeting = await self._packet(reader)
        if greeting[0] == MYSQL_ERROR:
            self._send(self._writer, 0, greeting)
            return
        # A byte of protocol, the version up to a NUL, four bytes of thread, eight of challenge and one of filler.
        at = greeting.index(0, 1) + 1 + 4 + 8 + 1
        offered = int.from_bytes(greeting[at : at + 2], "little")
        if not offered & MYSQL_TLS:
            raise _TlsError("the server has no TLS")
        clear = (offered & ~MYSQL_TLS).to_bytes(2, "little")
        self._send(self._writer, 0, greeting[:at] + clear + greeting[at + 2 :])
        login = await self._packet(self._reader)
        self._number = 2
        wanted = int.from_bytes(login[:4], "little") | MYSQL_TLS
        login = wanted.to_bytes(4, "little") + login[4:]
        self._send(writer, 1, login[:MYSQL_TLS_REQUEST])
        await start_tls()
        self._send(writer, 2, login)
        while True:
            data = await self._packet(reader)
            self._send(self._writer, self._number, data)
            if data[0] in (MYSQL_OK, MYSQL_ERROR):
                return
            self._number += 1
            if data != MYSQL_MORE_NONE_ASKED:
                self._send(writer, self._number + 1, await self._packet(self._reader))
                self._number += 1

    async def refuse(self, reason: str, is_tls: bool) -> None:
        """Tell the driver why it is refused."""
        code = MYSQL_TLS_REFUSED if is_tls else MYSQL_UNREACHABLE
        self._send(self._writer, self._number, b"\xff" + code.to_bytes(2, "little") + b"#HY000" + reason.encode())
        await _heard(self._reader, self._writer)

    @staticmethod
    async def _packet(reader: StreamReader) -> bytes:
        head = await reader.readexactly(4)
        size = int.from_bytes(head[:3], "little")
        if not 0 < size <= MAX_START:
            raise _TlsError(f"expected a MySQL packet, found one of {size} bytes")
        return await reader.readexactly(size)

    @staticmethod
    def _send(writer: StreamWriter, number: int, content: bytes) -> None:
        writer.write(len(content).to_bytes(3, "little") + bytes([number]) + content)


class _PostgreSQL:
    """The start of a connection to PostgreSQL: a client asks for TLS first, and the server answers S or N.

    Messages at the start: four bytes of length, including themselves, and the content.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._startup = b""

    async def listen(self) -> None:
        """Answer a driver that prefers encryption that this side has none; then it starts."""
        while (data := await self._message())[4:] in POSTGRESQL_ENCRYPTIONS:
            self._writer.write(b"N")
        self._startup = data

    async def begin(self, reader: StreamReader, writer: StreamWriter, start_tls: Callable[[], Awaitable[None]]) -> None:
        """Ask the server for TLS, and forward the driver's start message."""
        writer.write((8).to_bytes(4, "big") + POSTGRESQL_TLS_REQUEST)
        if await reader.readexactly(1) != b"S":
            raise _TlsError("the server has no TLS")
        await start_tls()
        writer.write(self._startup)
        kind = b""
        while kind not in (POSTGRESQL_LOGIN, POSTGRESQL_ERROR):
            kind, size = await reader.readexactly(1), int.from_bytes(await reader.readexactly(4), "big")
            if not 4 <= size <= MAX_START:
                raise _TlsError("expected a PostgreSQL server, found something else")
            data = await reader.readexactly(size - 4)
            if kind == POSTGRESQL_LOGIN:  # an unencrypted driver cannot use a login that is bound to TLS
                data = data.replace(POSTGRESQL_BOUND_LOGIN, b"")
            self._writer.write(kind + (len(data) + 4).to_bytes(4, "big") + data)

    async def _message(self) -> bytes:
        size = await self._reader.readexactly(4)
        if not 8 <= int.from_bytes(size, "big") <= MAX_START:
            raise _TlsError("expected a PostgreSQL driver, found something else")
        return size + await self._reader.readexactly(int.from_bytes(size, "big") - 4)

    async def refuse(self, reason: str, is_tls: bool) -> None:
        """Tell the driver why it is refused."""
        code = POSTGRESQL_TLS_REFUSED if is_tls else POSTGRESQL_UNREACHABLE
        fields = "".join(
            f"{name}{text}\0" for name, text in (("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", reason))
        )
        content = fields.encode() + b"\0"
        self._writer.write(b"E" + (len(content) + 4).to_bytes(4, "big") + content)
        await _heard(self._reader, self._writer)


async def _heard(reader: StreamReader, writer: StreamWriter) -> None:
    """Let the driver read a refusal: closing with unread bytes would discard the refusal."""
    with suppress(OSError):  # the driver is gone, or stays too long (includes TimeoutError)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(SECONDS):
            while await reader.read(MAX_START):
                pass


if __name__ == "__main__":
    asyncio.run(_serve(Way(*json.loads(sys.argv[1]))))
