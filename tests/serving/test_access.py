"""Who may ask: TLS, certificates of clients, a token; and a server listens on this machine alone unless it is told otherwise."""

import http.client
import json
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from schemas.errors import UserError
from serving.server import EmbeddedServer, ServerSettings
from tests.certificates import self_signed
from tests.serving.test_requests_grpc import DEFAULT, refused, request
from tests.serving.tiny import Pushes, Serve

ROWS = json.dumps({"instances": [1.0]})
ASKED = request("item_tower", DEFAULT, number=[1.0])
TOKEN = "correct-horse"


def status(connection: http.client.HTTPConnection, path: str = "/v1/models/item_tower", **headers: str) -> int:
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    (tmp_path / "pem").mkdir()
    return self_signed(tmp_path / "pem")


def stub_of(server: EmbeddedServer, credentials: grpc.ChannelCredentials) -> PredictionServiceStub:
    return PredictionServiceStub(
        grpc.secure_channel(f"127.0.0.1:{server.port}", credentials, [("grpc.use_local_subchannel_pool", 1)])
    )


def test_both_sides_are_encrypted_and_nothing_answers_in_the_clear(serve: Serve, pushes: Pushes, pem: Path) -> None:
    pushes.push("one")
    server = serve(pushes.root, tls={"certificate": pem, "key": pem})
    trusted = grpc.ssl_channel_credentials(pem.read_bytes())
    assert stub_of(server, trusted).Predict(ASKED, timeout=900).model_spec.name == "item_tower"
    context = ssl.create_default_context(cafile=str(pem))
    assert status(http.client.HTTPSConnection("127.0.0.1", server.rest_port, context=context, timeout=900)) == 200
    with pytest.raises((http.client.HTTPException, OSError)):
        status(http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900))
    plain = PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
    assert refused(plain.Predict, ASKED)[0] == grpc.StatusCode.UNAVAILABLE


def test_a_handshake_that_does_not_come_to_its_end_ends_its_connection(serve: Serve, pushes: Pushes, pem: Path) -> None:
    server = serve(pushes.root, wait=False, tls={"certificate": pem, "key": pem}, limits={"receive_seconds": 0.5})
    for port in (server.port, server.rest_port):
        with socket.create_connection(("127.0.0.1", port), timeout=900) as half, suppress(ConnectionResetError):
            half.sendall(b"\x16\x03\x01")  # TLS's record of a handshake begins like this
            assert half.recv(1) == b""


def test_a_client_shows_a_certificate_where_one_is_asked_for(serve: Serve, pushes: Pushes, pem: Path) -> None:
    pushes.push("one")
    server = serve(pushes.root, tls={"certificate": pem, "key": pem, "client_ca": pem})
    content = pem.read_bytes()
    assert stub_of(server, grpc.ssl_channel_credentials(content, content, content)).Predict(ASKED, timeout=900)
    assert (
        refused(stub_of(server, grpc.ssl_channel_credentials(content)).Predict, ASKED)[0] == grpc.StatusCode.UNAVAILABLE
    )
    context = ssl.create_default_context(cafile=str(pem))
    with pytest.raises(OSError):
        status(http.client.HTTPSConnection("127.0.0.1", server.rest_port, context=context, timeout=900))
    context.load_cert_chain(pem)
    assert status(http.client.HTTPSConnection("127.0.0.1", server.rest_port, context=context, timeout=900)) == 200


def test_a_token_is_asked_for_everywhere_but_by_the_probes(serve: Serve, pushes: Pushes, tmp_path: Path) -> None:
    pushes.push("one")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    server = serve(pushes.root, token={"file": tmp_path / "token"})
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=900)
    for path in ("/v1/models/item_tower", "/monitoring/prometheus/metrics"):
        assert status(connection, path) == 401
        assert status(connection, path, Authorization="Bearer wrong") == 401
        assert status(connection, path, Authorization=f"Bearer {TOKEN}") == 200
    assert [status(connection, path) for path in ("/livez", "/readyz")] == [200, 200]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = PredictionServiceStub(channel)
        assert refused(stub.Predict, ASKED)[0] == grpc.StatusCode.UNAUTHENTICATED
        assert stub.Predict(ASKED, timeout=900, metadata=[("authorization", f"Bearer {TOKEN}")])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"tls": {"certificate": "none.pem", "key": "none.pem"}}, "server.tls.certificate: none.pem cannot be read"),
        ({"tls": {"certificate": __file__, "key": __file__}}, "expected a certificate and its private key"),
        ({"token": {"env": "hunter2"}}, "the environment variable that server.token.env names"),
        ({"token": {"file": "hunter2"}}, "the file that server.token.file names cannot be read"),
        ({"token": {"file": "spaced"}}, "server.token: expected printable ASCII without spaces"),
    ],
)
def test_an_unreadable_certificate_or_token_is_reported_without_its_content(
    serve: Serve, pushes: Pushes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spaced").write_text("of two hunter2\n")
    with pytest.raises(UserError, match=words) as refusal:
        serve(pushes.root, wait=False, **config)
    assert "hunter2" not in str(refusal.value)


def test_a_server_listens_on_this_machine_alone() -> None:
    assert ServerSettings().host == "127.0.0.1"
    with EmbeddedServer(Path("nothing"), ServerSettings(port=0, rest_port=0)) as server:
        tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        local = [fields[1].split(":") for table in tables for fields in map(str.split, table) if fields[3] == "0A"]
        for port in (server.port, server.rest_port):
            # 127.0.0.1 as the kernel writes it, or as an IPv6 address.
            assert {host[-8:] for host, number in local if int(number, 16) == port} == {"0100007F"}
