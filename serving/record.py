"""The record of an answered request, for the metrics, the access log and the request log."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from numpy.typing import NDArray

from serving.extent import Extent

GRPC, REST = "grpc", "REST"


@dataclass(frozen=True)
class Found:
    """The retriever's results for the rows of a request.

    Attributes:
        empty: rows without an item.
        short: rows with fewer items than they asked for.
    """

    empty: int
    short: int


@dataclass
class Record:
    """A request's record, filled in while it is answered.

    Attributes:
        api: `grpc` or `REST`.
        method: the method called, as TF Serving's metrics name it.
        peer: the client's address.
        begun: monotonic seconds when it was received.
        received_bytes: the size of the message or body.
        model: the model asked; empty if the request names none that is served.
        version: the version that answered.
        signature: the signature asked.
        extent: the size of the inputs.
        inputs: of the model.
        outputs: of the model.
        found: the retriever's results; None for other models.
        ids: by feature, the number of ids in the queries and of unknown ones; for a sample of requests.
        code: of the answer.
        seconds: the time until the answer was ready.
    """

    api: str
    method: str
    peer: str = ""
    begun: float = field(default_factory=time.monotonic)
    received_bytes: int = 0
    model: str = ""
    version: int | None = None
    signature: str = ""
    extent: Extent | None = None
    inputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    found: Found | None = None
    ids: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    code: grpc.StatusCode = grpc.StatusCode.OK
    seconds: float = 0.0

    def end(self, code: grpc.StatusCode) -> None:
        """Record the answer's code, and the time it took."""
        self.code = code
        self.seconds = time.monotonic() - self.begun
