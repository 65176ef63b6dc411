"""A tunnel to a database server over TLS that is verified, for ml-metadata's drivers.

Its driver of MySQL takes any certificate, and its driver of PostgreSQL is built without TLS. So they talk to a loopback port in
the clear, and a small process behind that port talks to the server: it asks for TLS in the database's own protocol, verifies the
server's certificate, and only then passes on what the driver says. Where it cannot, it answers the driver with an error of that
protocol. The process is this file, run by itself with nothing but the standard library, and it ends with the process that opened
it. Whoever may connect to the loopback port still needs the database's user and password.
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

SECONDS = 10.0  # to reach the server and agree on TLS
LOOPBACK = "127.0.0.1"
MAX_START = 1 << 16  # bytes of a packet before the driver is let through

# Errors, as each protocol numbers them: the server cannot be reached, and it is not one that may be talked to.
MYSQL_UNREACHABLE, MYSQL_TLS_REFUSED = 2003, 2026
POSTGRESQL_UNREACHABLE, POSTGRESQL_TLS_REFUSED = "08001", "08004"

MYSQL_TLS = 0x0800  # CLIENT_SSL among a connection's capabilities
MYSQL_TLS_REQUEST = 32  # bytes: a login's capabilities, packet size and character set, without user and password
MYSQL_OK, MYSQL_MORE, MYSQL_ERROR = 0x00, 0x01, 0xFF
MYSQL_MORE_NONE_ASKED = b"\x01\x03"  # the server knows the password already; its OK follows
POSTGRESQL_TLS_REQUEST, POSTGRESQL_GSS_REQUEST = ((number).to_bytes(4, "big") for number in (80877103, 80877104))
POSTGRESQL_LOGIN, POSTGRESQL_ERROR = b"R", b"E"  # kinds of the server's messages
POSTGRESQL_BOUND_LOGIN = b"SCRAM-SHA-256-PLUS\0"
POSTGRESQL_ENCRYPTIONS = {POSTGRESQL_TLS_REQUEST, POSTGRESQL_GSS_REQUEST}


class Way(NamedTuple):
    """Where a tunnel leads.

    Attributes:
        store: `mysql` or `postgresql`.
        host: the server's name or address, as its certificate has it.
        port: the server's.
        ca: PEM file of who signed its certificate; None for those whom the system trusts.
        checks_host: whether the certificate has to be one of `host`.
        certificate: PEM file that shows who we are, with its key unless `key` has it; None where the server does not ask.
        key: PEM file.
    """

    store: str
    host: str
    port: int
    ca: str | None = None
    checks_host: bool = True
    certificate: str | None = None
    key: str | None = None

    def context(self) -> ssl.SSLContext:
        """What TLS is made by.

        Raises:
            OSError: a file cannot be read, or holds no PEM (`ssl.SSLError` is one).
        """
        made = ssl.create_default_context(cafile=self.ca)
        made.check_hostname = self.checks_host
        if self.certificate:
            made.load_cert_chain(self.certificate, self.key)
        return made


_opened: dict[Way, tuple[int, subprocess.Popen[bytes]]] = {}


def opened(way: Way) -> int:
    """The loopback port of a tunnel; there is one of each way in a process.

    Args:
        way: where it leads; the certificates' files can be read.

    Raises:
        OSError: the process could not be started.
    """
    port, process = _opened.get(way, (0, None))
    if process is None or process.poll() is not None:
        command = [sys.executable, "-I", __file__, json.dumps(way)]
        # In a session of its own: Ctrl-C is for the run, which has its last words to record.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout
        line = process.stdout.readline()
        if not line:
            raise OSError(f"the tunnel to {way.host}:{way.port} ended with status {process.wait()} before it listened")
        port = int(line)
        _opened[way] = port, process
    return port


def behind(host: str, port: int) -> str:
    """The server's address in words, where the given one may be a tunnel of this process."""
    for way, (listens, _) in _opened.items():
        if (host, port) == (LOOPBACK, listens):
            return f"{way.host}:{way.port} (by TLS)"
    return f"{host}:{port}"


class _TlsError(Exception):
    """The server does not offer it."""


async def _serve(way: Way) -> None:
    """Listens until standard input ends, which is when whoever opened the tunnel is gone."""
    server = await asyncio.start_server(partial(_connected, way, way.context()), LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


async def _connected(way: Way, context: ssl.SSLContext, reader: StreamReader, writer: StreamWriter) -> None:
    """A driver has connected: lets it through to the server, or tells it why not."""
    protocol = _MySQL(reader, writer) if way.store == "mysql" else _PostgreSQL(reader, writer)
    server: StreamWriter | None = None
    try:
        async with asyncio.timeout(SECONDS):
            await protocol.listen()
            answers, server = await asyncio.open_connection(way.host, way.port)
            await protocol.begin(answers, server, partial(server.start_tls, context, server_hostname=way.host))
        with suppress(OSError):  # a server that goes away, or a driver
            await asyncio.gather(_pass_on(reader, server), _pass_on(answers, writer))
    except (ssl.SSLError, _TlsError) as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
        await protocol.refuse(f"its TLS is refused: {reason}", is_tls=True)
    except OSError as error:  # TimeoutError is one
        code = error.errno or errno.ETIMEDOUT  # a name that is not known has a number below 0, and its own words
        await protocol.refuse(str(error.strerror) if code < 0 else os.strerror(code), is_tls=False)
    except EOFError:
        await protocol.refuse("it ended the connection before it had begun", is_tls=False)
    finally:
        for each in (writer, server):
            if each is not None:
                each.close()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    while said := await reader.read(MAX_START):
        writer.write(said)
        await writer.drain()
    if writer.can_write_eof():  # what TLS cannot say is said by closing
        writer.write_eof()
    else:
        writer.close()


class _MySQL:
    """The start of a connection to MySQL or MariaDB. Packets: three bytes of length, one that numbers them, and the content.

    The server speaks first. Its greeting is passed on as if it had no TLS. The driver's login begins with what the request for TLS
    consists of; with that packet between, the login's number and all that follow it differ by one on the two sides.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._number = 0

    async def listen(self) -> None:
        """What the driver says first: nothing."""

    async def begin(self, reader: StreamReader, writer: StreamWriter, start_tls: Callable[[], Awaitable[None]]) -> None:
        """Lets the driver log in, by TLS on the server's side."""
        greeting = await self._packet(reader)
        if greeting[0] == MYSQL_ERROR:
            self._send(self._writer, 0, greeting)
            return
        # A byte of protocol, the version up to a NUL, four bytes of thread, eight of challenge and one of filling.
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
            said = await self._packet(reader)
            self._send(self._writer, self._number, said)
            if said[0] in (MYSQL_OK, MYSQL_ERROR):
                return
            self._number += 1
            if said != MYSQL_MORE_NONE_ASKED:
                self._send(writer, self._number + 1, await self._packet(self._reader))
                self._number += 1

    async def refuse(self, reason: str, is_tls: bool) -> None:
        """Tells the driver why not."""
        code = MYSQL_TLS_REFUSED if is_tls else MYSQL_UNREACHABLE
        self._send(self._writer, self._number, b"\xff" + code.to_bytes(2, "little") + b"#HY000" + reason.encode())
        await _heard(self._reader, self._writer)

    @staticmethod
    async def _packet(reader: StreamReader) -> bytes:
        head = await reader.readexactly(4)
        size = int.from_bytes(head[:3], "little")
        if not 0 < size <= MAX_START:
            raise _TlsError(f"expected a packet of MySQL's, found one of {size} bytes")
        return await reader.readexactly(size)

    @staticmethod
    def _send(writer: StreamWriter, number: int, content: bytes) -> None:
        writer.write(len(content).to_bytes(3, "little") + bytes([number]) + content)


class _PostgreSQL:
    """The start of a connection to PostgreSQL: who wants TLS asks for it first, and the server says S or N.

    Messages at the start: four bytes of length, which they count, and the content.
    """

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._startup = b""

    async def listen(self) -> None:
        """A driver that would rather have encryption is told that there is none, as far as it can see; then it starts."""
        while (said := await self._message())[4:] in POSTGRESQL_ENCRYPTIONS:
            self._writer.write(b"N")
        self._startup = said

    async def begin(self, reader: StreamReader, writer: StreamWriter, start_tls: Callable[[], Awaitable[None]]) -> None:
        """Asks the server for TLS, and passes on what the driver started with."""
        writer.write((8).to_bytes(4, "big") + POSTGRESQL_TLS_REQUEST)
        if await reader.readexactly(1) != b"S":
            raise _TlsError("the server has no TLS")
        await start_tls()
        writer.write(self._startup)
        kind = b""
        while kind not in (POSTGRESQL_LOGIN, POSTGRESQL_ERROR):
            kind, size = await reader.readexactly(1), int.from_bytes(await reader.readexactly(4), "big")
            if not 4 <= size <= MAX_START:
                raise _TlsError("expected a server of PostgreSQL, found something else")
            said = await reader.readexactly(size - 4)
            if kind == POSTGRESQL_LOGIN:  # to a driver in the clear, a login that is bound to TLS is no sane offer
                said = said.replace(POSTGRESQL_BOUND_LOGIN, b"")
            self._writer.write(kind + (len(said) + 4).to_bytes(4, "big") + said)

    async def _message(self) -> bytes:
        size = await self._reader.readexactly(4)
        if not 8 <= int.from_bytes(size, "big") <= MAX_START:
            raise _TlsError("expected a driver of PostgreSQL, found something else")
        return size + await self._reader.readexactly(int.from_bytes(size, "big") - 4)

    async def refuse(self, reason: str, is_tls: bool) -> None:
        """Tells the driver why not."""
        code = POSTGRESQL_TLS_REFUSED if is_tls else POSTGRESQL_UNREACHABLE
        fields = "".join(
            f"{name}{text}\0" for name, text in (("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", reason))
        )
        content = fields.encode() + b"\0"
        self._writer.write(b"E" + (len(content) + 4).to_bytes(4, "big") + content)
        await _heard(self._reader, self._writer)


async def _heard(reader: StreamReader, writer: StreamWriter) -> None:
    """Lets the driver read a refusal: closed with anything of it unread, the connection would take the refusal with it."""
    with suppress(OSError):  # the driver is gone, or does not go (TimeoutError is one)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(SECONDS):
            while await reader.read(MAX_START):
                pass


if __name__ == "__main__":
    asyncio.run(_serve(Way(*json.loads(sys.argv[1]))))
