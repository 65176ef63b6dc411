"""Errors of requests, with gRPC's codes, which REST translates."""

import grpc

LONGEST = 1000  # characters: gRPC sends an error as a header, and peers reject headers above 8 KiB


class RequestError(Exception):
    """A request that cannot be answered.

    Codes are those of TF Serving, so that clients cannot tell the two servers apart.

    Args:
        code: a gRPC code.
        message: what was expected and what came; truncated to LONGEST.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}...")
        self.code = code


def invalid(message: str) -> RequestError:
    """Make the error of an invalid request."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> RequestError:
    """Make the error of a request for something that is not served."""
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


def unavailable(message: str) -> RequestError:
    """Make the error of a request that the overloaded server refuses."""
    return RequestError(grpc.StatusCode.UNAVAILABLE, message)


def unauthenticated() -> RequestError:
    """Make the error of a request without the token."""
    return RequestError(grpc.StatusCode.UNAUTHENTICATED, "expected the header authorization: Bearer TOKEN")
