"""Checks ports, with readable errors."""

import socket

from schemas.errors import UserError


def port_taken(port: int, option: str) -> UserError:
    """Make the error for a port that is in use or not allowed."""
    return UserError(f"Port {port} cannot be listened on: it is in use, or not allowed. Name another: {option} PORT.")


def check_free(host: str, port: int, option: str) -> None:
    """Listen on a port for a moment.

    Raises:
        UserError: it is not available; the message names the option that chooses another.
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
