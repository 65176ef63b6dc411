"""What a request can do wrong, in gRPC's codes, which REST translates."""

import grpc

LONGEST = 1000  # characters: gRPC sends an error as a header, and peers refuse headers of more than 8 KiB


class RequestError(Exception):
    """A request that cannot be answered.

    Codes are those of TF Serving, so that a client cannot tell the two apart by them.

    Args:
        code: gRPC's.
        message: what was expected and what came; cut at LONGEST.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}...")
        self.code = code


def invalid(message: str) -> RequestError:
    """A request that is at fault whatever is served."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> RequestError:
    """A request for what is not served."""
    return RequestError(grpc.StatusCode.NOT_FOUND, message)


def unavailable(message: str) -> RequestError:
    """A request that the server has no room for now."""
    return RequestError(grpc.StatusCode.UNAVAILABLE, message)


def unauthenticated() -> RequestError:
    """A request without the token."""
    return RequestError(grpc.StatusCode.UNAUTHENTICATED, "expected the header authorization: Bearer TOKEN")
