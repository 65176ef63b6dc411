"""Retries, deadlines, load balancing and encryption, against real gRPC servers that answer by a script."""

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from ndr_client import Client, Tls
from ndr_client import protocol_pb2 as protocol
from ndr_client.connection import PREDICTION
from tests.waiting import wait_for

OK = grpc.StatusCode.OK


class Server:
    """Answers Predict with the codes of a list, one a call, then OK; keeps each call's metadata."""

    def __init__(self, codes: list[grpc.StatusCode], credentials: grpc.ServerCredentials | None) -> None:
        self.calls: list[dict[str, Any]] = []
        self._codes = codes

        def answer(_: Any, context: grpc.ServicerContext) -> Any:
            self.calls.append(dict(context.invocation_metadata()))
            code = self._codes.pop(0) if self._codes else OK
            if code is not OK:
                context.abort(code, "as the script says")
            return protocol.PredictResponse(model_spec={"version": {"value": 7}})

        handler = grpc.unary_unary_rpc_method_handler(
            answer,
            protocol.PredictRequest.FromString,
            protocol.PredictResponse.SerializeToString,
        )
        self.grpc = grpc.server(ThreadPoolExecutor(4))
        self.grpc.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(PREDICTION, {"Predict": handler})])
        host = "127.0.0.1:0"
        self.port = (
            self.grpc.add_insecure_port(host) if credentials is None else self.grpc.add_secure_port(host, credentials)
        )
        self.grpc.start()


Start = Callable[..., Server]


@pytest.fixture
def server() -> Iterator[Start]:
    with ExitStack() as stack:

        def start(*codes: grpc.StatusCode, credentials: grpc.ServerCredentials | None = None) -> Server:
            made = Server(list(codes), credentials)
            stack.callback(lambda: made.grpc.stop(None).wait())
            return made

        yield start


def ask(client: Client) -> int:
    return client.predict("retriever", "serving_default", {}).version


def test_a_server_that_is_unavailable_is_asked_again(server: Start) -> None:
    unavailable = grpc.StatusCode.UNAVAILABLE
    served = server(unavailable, unavailable)
    with Client(f"127.0.0.1:{served.port}", timeout=900.0) as client:
        assert ask(client) == 7
    assert len(served.calls) == 3

    served = server(*[unavailable] * 4)
    with Client(f"127.0.0.1:{served.port}", timeout=900.0, attempts=3) as client, pytest.raises(grpc.RpcError) as error:
        ask(client)
    assert error.value.code() == unavailable
    assert len(served.calls) == 3


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL])
def test_a_request_that_is_refused_is_not_repeated(server: Start, code: grpc.StatusCode) -> None:
    served = server(code)
    with Client(f"127.0.0.1:{served.port}", timeout=900.0) as client, pytest.raises(grpc.RpcError) as error:
        ask(client)
    assert error.value.code() == code
    assert len(served.calls) == 1


def test_one_attempt_is_one(server: Start) -> None:
    served = server(grpc.StatusCode.UNAVAILABLE)
    with Client(f"127.0.0.1:{served.port}", timeout=900.0, attempts=1) as client, pytest.raises(grpc.RpcError):
        ask(client)
    assert len(served.calls) == 1


def test_a_deadline_bounds_all_attempts_together(server: Start) -> None:
    # The waits between five attempts are 0.1, 0.2, 0.4 and 0.8 seconds, each shortened or lengthened by at most a fifth.
    served = server(*[grpc.StatusCode.UNAVAILABLE] * 5)
    begin = time.monotonic()
    with Client(f"127.0.0.1:{served.port}", timeout=0.3, attempts=5) as client, pytest.raises(grpc.RpcError) as error:
        ask(client)
    assert error.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert len(served.calls) < 5
    assert time.monotonic() - begin < 60


def test_the_addresses_of_a_target_take_turns(server: Start) -> None:
    one, two = server(), server()
    with Client(f"ipv4:127.0.0.1:{one.port},127.0.0.1:{two.port}", timeout=900.0) as client:

        def each_was_asked() -> bool:
            ask(client)
            return bool(one.calls and two.calls)

        wait_for(each_was_asked, "a call of each")  # at first perhaps only one is connected
        before = len(one.calls), len(two.calls)
        for _ in range(20):
            ask(client)
    assert (len(one.calls) - before[0], len(two.calls) - before[1]) == (10, 10)


def test_a_server_that_ends_leaves_its_calls_to_the_other(server: Start) -> None:
    one, two = server(), server()
    with Client(f"ipv4:127.0.0.1:{one.port},127.0.0.1:{two.port}", timeout=900.0) as client:
        ask(client)
        one.grpc.stop(None).wait()
        assert {ask(client) for _ in range(20)} == {7}


def certificate(folder: Path, name: str, issuer: str | None = None) -> None:
    """NAME.pem and NAME.key, by openssl; signed by an issuer, or by itself."""
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
        "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:serving.example", "-keyout", f"{name}.key", "-out", f"{name}.pem",
    ]  # fmt: skip
    if issuer is not None:
        command += ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder, "authority")
    for name in ("server", "client"):
        certificate(folder, name, "authority")
    certificate(folder, "stranger")
    return folder


def test_tls_with_certificates_on_both_sides_and_a_token(server: Start, certificates: Path) -> None:
    read = {path.name: path.read_bytes() for path in certificates.iterdir()}
    credentials = grpc.ssl_server_credentials([(read["server.key"], read["server.pem"])], read["authority.pem"], True)
    served = server(credentials=credentials)

    def connected(authority: str, own: str | None, name: str | None = "serving.example") -> Client:
        certificate = None if own is None else certificates / f"{own}.pem"
        key = None if own is None else certificates / f"{own}.key"
        tls = Tls(certificates / f"{authority}.pem", certificate, key, name)
        return Client(f"127.0.0.1:{served.port}", timeout=900.0, attempts=1, tls=tls, token="secret")

    with connected("authority", "client") as client:
        assert ask(client) == 7
    assert served.calls[0]["authorization"] == "Bearer secret"
    refused = [
        connected("authority", None),  # no certificate of its own
        connected("authority", "stranger"),  # one that the server does not know
        connected("stranger", "client"),  # a server that the client does not trust
        connected("authority", "client", None),  # a certificate for another name than 127.0.0.1
    ]
    for client in refused:
        with client, pytest.raises(grpc.RpcError) as error:
            ask(client)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len(served.calls) == 1


def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(ValueError, match="token: expected TLS beside it"):
        Client("127.0.0.1:1", token="secret")
    with pytest.raises(ValueError, match="attempts: expected 1 to 5, received 6"):
        Client("127.0.0.1:1", attempts=6)
    with pytest.raises(ValueError, match="expected a certificate and its key"):
        Tls(certificate=Path("client.pem"))
    with pytest.raises(FileNotFoundError):
        Client("127.0.0.1:1", tls=Tls(authorities=Path("nowhere.pem")))
