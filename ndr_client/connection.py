"""The connection to a server: encryption, load balancing, and retries."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

PREDICTION = "tensorflow.serving.PredictionService"
MODEL = "tensorflow.serving.ModelService"
LARGEST_MESSAGE = 64 << 20  # bytes
MOST_ATTEMPTS = 5  # gRPC's maximum


@dataclass(frozen=True)
class Tls:
    """The files of an encrypted connection, each PEM.

    Attributes:
        authorities: the trusted certificates; None for those that gRPC ships.
        certificate: the client's certificate with its chain, if the server asks for one.
        key: the certificate's key.
        server_name: the name in the server's certificate, if it is not the host of the address.
    """

    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("expected a certificate and its key, received one of them")


def connect(address: str, attempts: int, tls: Tls | None, token: str | None) -> grpc.Channel:
    """Open a channel; nothing is sent before the first call.

    Args:
        address: HOST:PORT, or any target that gRPC resolves. Where a host has several addresses, such as a headless Service of
            Kubernetes, they take turns.
        attempts: of a call in all, with growing waits between them, while the server is UNAVAILABLE.
        tls: None for a connection in the clear.
        token: sent as `authorization: Bearer TOKEN`.

    Raises:
        ValueError: `attempts` is outside of 1 to 5, or a token would be sent in the clear.
        OSError: a file of `tls` cannot be read.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", LARGEST_MESSAGE),
        ("grpc.max_receive_message_length", LARGEST_MESSAGE),
        ("grpc.service_config", json.dumps(service_config(attempts))),
    ]
    if tls is None:
        if token is not None:
            raise ValueError("token: expected TLS beside it, as it would be sent in the clear")
        return grpc.insecure_channel(address, options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(*(_read(path) for path in (tls.authorities, tls.key, tls.certificate)))
    if token is not None:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.secure_channel(address, credentials, options)


def service_config(attempts: int) -> dict[str, Any]:
    """Return gRPC's service config: load balancing and retries.

    Raises:
        ValueError: `attempts` is outside of 1 to 5.
    """
    if not 1 <= attempts <= MOST_ATTEMPTS:
        raise ValueError(f"attempts: expected 1 to {MOST_ATTEMPTS}, received {attempts}")
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if attempts > 1:
        policy = {
            "maxAttempts": attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": [{"service": PREDICTION}, {"service": MODEL}], "retryPolicy": policy}]
        # When most calls fail, retries stop until enough succeed, so that clients do not keep an overloaded server down.
        config["retryThrottling"] = {"maxTokens": 100, "tokenRatio": 0.1}
    return config


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
