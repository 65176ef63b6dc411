"""What the tunnel says to a server that does not prove who it is: the request for TLS, and nothing after it.

The servers are sockets of this file, which play the first part of each protocol as MySQL's and PostgreSQL's documentation have it;
real servers are in test_store.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pg8000.native
import pymysql
import pytest

from pipeline import tls_tunnel
from tests.certificates import self_signed

TLS, NO_TLS = 0x0800, 0  # among the capabilities of a MySQL server
# Protocol 10, version 8, thread 1, eight bytes of challenge, a filler; capabilities 0x0200 (4.1) and 0x8000 (secure login),
# character set 33, status 2, more capabilities 0x0008 (login by plugin), 21 bytes of challenge, ten of reserve, twelve of
# challenge and a NUL, the plugin.
GREETING = b"\n8\0\1\0\0\0abcdefgh\0%b!\2\0\x08\0\x15" + bytes(10) + b"ijklmnopqrst\0mysql_native_password\0"


def greeting(tls: int) -> bytes:
    content = GREETING % (0x8200 | tls).to_bytes(2, "little")
    return len(content).to_bytes(3, "little") + b"\0" + content


class Pretender:
    """A server that answers one connection as it is told, and keeps what it heard in the clear and by TLS."""

    def __init__(self, says: bytes, hears: int, answers: bytes, certificate: Path | None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard, self.heard_by_tls, self.failed = b"", b"", ""
        self._thread = threading.Thread(target=self._answer, args=(says, hears, answers, certificate))
        self._thread.start()

    def _answer(self, says: bytes, hears: int, answers: bytes, certificate: Path | None) -> None:
        connection, _ = self._listening.accept()
        with connection:
            connection.sendall(says)
            while len(self.heard) < hears and (some := connection.recv(hears - len(self.heard))):
                self.heard += some
            connection.sendall(answers)
            if not certificate:
                self.heard += connection.recv(1000)
                return
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            try:
                with context.wrap_socket(connection, server_side=True) as secure:
                    self.heard_by_tls = secure.recv(1000)
            except OSError as error:
                self.failed = str(error)

    def close(self) -> None:
        self._thread.join()
        self._listening.close()


def way(store: str, server: Pretender, tmp_path: Path) -> tls_tunnel.Way:
    (tmp_path / "trusted").mkdir()
    return tls_tunnel.Way(store, "127.0.0.1", server.port, str(self_signed(tmp_path / "trusted")))


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    yield self_signed(tmp_path)


def test_mysql_hears_no_login_before_it_is_verified(foreign: Path, tmp_path: Path) -> None:
    server = Pretender(greeting(TLS), 36, b"", foreign)
    port = tls_tunnel.opened(way("mysql", server, tmp_path))
    with pytest.raises(pymysql.err.OperationalError, match="self-signed certificate") as refused:
        pymysql.connect(host="127.0.0.1", port=port, user="ndr", password="s3cret", ssl_disabled=True)
    server.close()
    assert refused.value.args[0] == 2026
    # 32 bytes, the second packet; CLIENT_SSL among the capabilities. No user, no password.
    assert server.heard[:4] == b"\x20\0\0\1" and int.from_bytes(server.heard[4:8], "little") & TLS
    assert server.failed and server.heard_by_tls == b"" and b"ndr" not in server.heard


def test_a_certificate_for_another_host_is_refused(foreign: Path) -> None:
    server = Pretender(greeting(TLS), 36, b"", foreign)
    port = tls_tunnel.opened(tls_tunnel.Way("mysql", "localhost", server.port, str(foreign)))
    with pytest.raises(
        pymysql.err.OperationalError, match="Hostname mismatch, certificate is not valid for 'localhost'"
    ):
        pymysql.connect(host="127.0.0.1", port=port, user="ndr", password="s3cret", ssl_disabled=True)
    server.close()
    assert server.heard_by_tls == b""


def test_postgresql_hears_no_login_before_it_is_verified(foreign: Path, tmp_path: Path) -> None:
    server = Pretender(b"", 8, b"S", foreign)
    port = tls_tunnel.opened(way("postgresql", server, tmp_path))
    with pytest.raises(pg8000.native.DatabaseError, match="self-signed certificate"):
        pg8000.native.Connection(host="127.0.0.1", port=port, user="ndr", password="s3cret")
    server.close()
    assert server.heard == b"\0\0\0\x08\x04\xd2\x16\x2f"  # length 8, and the code 80877103
    assert server.failed and server.heard_by_tls == b""


def test_a_server_without_tls_is_not_talked_to(tmp_path: Path) -> None:
    mysql = Pretender(greeting(NO_TLS), 0, b"", None)
    port = tls_tunnel.opened(way("mysql", mysql, tmp_path))
    with pytest.raises(pymysql.err.OperationalError, match="the server has no TLS"):
        pymysql.connect(host="127.0.0.1", port=port, user="ndr", password="s3cret", ssl_disabled=True)
    mysql.close()
    assert mysql.heard == b""
    (tmp_path / "other").mkdir()
    postgresql = Pretender(b"", 8, b"N", None)
    port = tls_tunnel.opened(way("postgresql", postgresql, tmp_path / "other"))
    with pytest.raises(pg8000.native.DatabaseError, match="the server has no TLS"):
        pg8000.native.Connection(host="127.0.0.1", port=port, user="ndr", password="s3cret")
    postgresql.close()
    assert len(postgresql.heard) == 8


def test_an_invalid_greeting_is_refused_with_a_message(tmp_path: Path) -> None:
    server = Pretender(b"\xff\xff\xff\0HTTP", 0, b"", None)
    port = tls_tunnel.opened(way("mysql", server, tmp_path))
    with pytest.raises(pymysql.err.OperationalError, match="16777215 bytes"):
        pymysql.connect(host="127.0.0.1", port=port, user="ndr", password="s3cret", ssl_disabled=True)
    server.close()


def test_a_tunnel_ends_with_the_process_that_opened_it(tmp_path: Path) -> None:
    here = tls_tunnel.Way("postgresql", "127.0.0.1", 1, str(self_signed(tmp_path)))
    port = tls_tunnel.opened(here)
    assert tls_tunnel.opened(here) == port
    _, process = tls_tunnel._opened[here]
    assert process.stdin
    process.stdin.close()  # as the end of this process would
    assert process.wait(900) == 0
    assert tls_tunnel.opened(here) != port  # another takes its place
