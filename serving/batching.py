"""Requests that come at the same time go through the model as one.

There is no thread for it. The first request to come leads: it takes all that wait beside it, runs them as one batch, and
wakes their threads with their answers; whoever came meanwhile leads the next. So a busy model is given larger batches, and
an idle one keeps nobody waiting longer than `wait_seconds`.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Batching:
    """How requests are merged.

    Attributes:
        max_rows: of a batch. A request with more rows of its own is run by itself.
        wait_seconds: how long the first request of a batch waits for others.
    """

    max_rows: int = 64
    wait_seconds: float = 0.001


@dataclass
class _Request:
    inputs: Arrays
    outputs: Arrays | None = None
    error: Exception | None = None
    arrived: float = field(default_factory=time.monotonic)
    woken: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.rows = len(next(iter(self.inputs.values())))
        # Only rows of one size can be stacked; padding would change what a model is told.
        self.sizes = {name: array.shape[1:] for name, array in self.inputs.items()}

    @property
    def ended(self) -> bool:
        return self.outputs is not None or self.error is not None


class Batcher:
    """Runs requests, those that come together in one batch.

    Args:
        run: takes and gives named arrays, whose first dimension is the batch.
        settings: how requests are merged.
    """

    def __init__(self, run: Run, settings: Batching) -> None:
        self._run = run
        self._settings = settings
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []
        self._led = False

    def __call__(self, inputs: Arrays) -> Arrays:
        """What `run` gives for these inputs, or raises for them: the requests it is merged with change neither."""
        request = _Request(inputs)
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()
            leads, self._led = not self._led, True
        if not leads:
            request.woken.wait()  # to its answer, or to lead
        if not request.ended:
            self._lead(request)
        if request.error is not None:
            raise request.error
        return request.outputs or {}

    def _lead(self, first: _Request) -> None:
        batch = self._take(first)
        self._answer(batch)
        with self._changed:
            if self._waiting:
                self._waiting[0].woken.set()
            else:
                self._led = False
        for request in batch:
            request.woken.set()

    def _take(self, first: _Request) -> list[_Request]:
        """Takes the first request, and of those behind it the ones that fit."""
        until = first.arrived + self._settings.wait_seconds
        with self._changed:
            while (batch := self._fitting(first))[1] < self._settings.max_rows:
                if (left := until - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            taken = {id(request) for request in batch[0]}
            self._waiting = [request for request in self._waiting if id(request) not in taken]
        return batch[0]

    def _fitting(self, first: _Request) -> tuple[list[_Request], int]:
        batch, rows = [first], first.rows
        for request in self._waiting:
            if request is not first and request.sizes == first.sizes and rows + request.rows <= self._settings.max_rows:
                batch.append(request)
                rows += request.rows
        return batch, rows

    def _answer(self, batch: list[_Request]) -> None:
        try:
            outputs = self._run({name: np.concatenate([r.inputs[name] for r in batch]) for name in batch[0].inputs})
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
            for request in batch if len(batch) > 1 else []:  # one of them is at fault, and only that one may fail
                self._answer([request])
            return
        start = 0
        for request in batch:
            request.outputs = {name: array[start : start + request.rows] for name, array in outputs.items()}
            start += request.rows
