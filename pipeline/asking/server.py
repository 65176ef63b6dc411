"""The command line as a client of a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from ndr_client import Client, Tls
from ndr_client.client import Version
from pipeline.config import Config
from schemas.errors import PassingError, UserError

TIMEOUT_SECONDS = 60.0


@contextmanager
def client(config: Config, address: str, authorities: Path | None, shards: int = 1) -> Iterator[Client]:
    """Connect to a server, with the token of the configuration if it has one.

    Args:
        config: the pipeline's configuration.
        address: HOST:PORT of the gRPC server, or of the server of each shard, separated by commas.
        authorities: a PEM file of trusted certificates; None for a connection without TLS.
        shards: the number of retrievers; a single server has all of them.

    Raises:
        PassingError: the server cannot be reached, or does not answer in time.
        UserError: the server refuses a call, or a token would be sent without encryption.
    """
    token = config.server.read_token()
    if token is not None and authorities is None:
        raise UserError("server.token: expected --ca as well, because the token would be sent without encryption.")
    tls = Tls(authorities) if authorities else None
    addresses = address.split(",")
    if len(addresses) not in (1, shards):
        raise UserError(
            f"--server: expected one address, or one for each of {shards} shards, received {len(addresses)}."
        )
    of_shards = (addresses if len(addresses) > 1 else addresses * shards) if shards > 1 else []
    connected_to = Client(addresses[0], shards=of_shards, timeout=TIMEOUT_SECONDS, tls=tls, token=token)
    with _told(address), connected_to as connected:
        yield connected


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turn gRPC errors into sentences."""
    try:
        yield
    except grpc.RpcError as error:
        words = f"{address}: {error.code().name}: {error.details()}"
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise PassingError(
                f"{words}. Check that a server runs there (ndr serve), or name another with --server."
            ) from error
        raise UserError(words) from error


def version(text: str) -> Version:
    """Parse a version's number or label from the command line."""
    return int(text) if text.isdecimal() else text
