"""A port that cannot be had, in words."""

import socket

from schemas.errors import UserError


def port_taken(port: int, option: str) -> UserError:
    """Another program listens there, or this one may not."""
    return UserError(f"Port {port} cannot be listened on: it is in use, or not allowed. Name another: {option} PORT.")


def check_free(host: str, port: int, option: str) -> None:
    """Tries to listen, and stops again.

    Raises:
        UserError: it cannot be had; names the option that chooses another.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UserError(
            f"{host} cannot be listened on: {error.strerror}. Name another address: --host HOST."
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise port_taken(port, option) from error
