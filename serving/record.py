"""What is known of a request once it is answered, for the metrics, the access log and the request log."""

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
    """What the retriever found for the rows of a request.

    Attributes:
        empty: rows without an item.
        short: rows with fewer items than they asked for.
    """

    empty: int
    short: int


@dataclass
class Record:
    """A request; what answers it fills in what it learns.

    Attributes:
        api: `grpc` or `REST`.
        method: that was called, as TF Serving's metrics name it.
        peer: the address of the client.
        begun: monotonic seconds when it was received.
        received_bytes: of the message or body.
        model: that was asked; empty where the request names none that is served.
        version: that answered.
        signature: that was asked.
        extent: of the inputs.
        inputs: of the model.
        outputs: of the model.
        found: by the retriever; None of other models.
        ids: by feature, how many ids the queries have and how many of them are unknown; of a sample of requests.
        code: of the answer.
        seconds: until the answer was ready.
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
        """Notes the answer's code, and how long it took."""
        self.code = code
        self.seconds = time.monotonic() - self.begun
