"""Merges concurrent requests into batches.

There is no thread for it, and no request waits for others. A request that finds the model idle runs at once; those that arrive
meanwhile run together, in the thread of the first of them, and so on. So a busy model gets larger batches, which is when they
pay.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.extent import Extent
from serving.settings import Limits

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]


@dataclass
class _Request:
    inputs: Arrays
    extent: Extent
    outputs: Arrays | None = None
    error: Exception | None = None
    woken: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.rows = len(next(iter(self.inputs.values())))
        # Only rows of equal size can be stacked; padding would change the model's input.
        self.sizes = {name: array.shape[1:] for name, array in self.inputs.items()}

    @property
    def ended(self) -> bool:
        return self.outputs is not None or self.error is not None


class Batcher:
    """Runs requests, concurrent ones in one batch.

    Args:
        run: maps named arrays to named arrays, whose first dimension is the batch.
        max_rows: of a batch; a larger request runs alone.
        limits: of a batch, as of a request: a long row would lengthen all rows that it is merged with.
    """

    def __init__(self, run: Run, max_rows: int, limits: Limits) -> None:
        self._run = run
        self._max_rows = max_rows
        self._limits = limits
        self._lock = threading.Lock()
        self._waiting: list[_Request] = []
        self._led = False

    @property
    def waiting(self) -> int:
        """The number of requests that wait for the model."""
        return len(self._waiting)

    def __call__(self, inputs: Arrays, extent: Extent) -> Arrays:
        """Return or raise what `run` does for these inputs, unaffected by the requests that it is merged with."""
        request = _Request(inputs, extent)
        with self._lock:
            self._waiting.append(request)
            leads, self._led = not self._led, True
        if not leads:
            request.woken.wait()  # until it is answered, or has to lead
        if not request.ended:
            self._lead(request)
        if request.error is not None:
            raise request.error
        return request.outputs or {}

    def _lead(self, first: _Request) -> None:
        batch = self._take(first)
        self._answer(batch)
        with self._lock:
            if self._waiting:
                self._waiting[0].woken.set()
            else:
                self._led = False
        for request in batch:
            request.woken.set()

    def _take(self, first: _Request) -> list[_Request]:
        """Take the first waiting request, and those after it that fit."""
        batch, extent, others = [first], first.extent, []
        with self._lock:
            for request in self._waiting[1:]:
                merged = extent | request.extent
                fits = merged.rows <= self._max_rows and merged.excess(self._limits) is None
                if request.sizes == first.sizes and fits:
                    batch.append(request)
                    extent = merged
                else:
                    others.append(request)
            self._waiting = others
        return batch

    def _answer(self, batch: list[_Request]) -> None:
        try:
            if len(batch) == 1:
                batch[0].outputs = self._run(batch[0].inputs)
            else:
                merged = {name: np.concatenate([request.inputs[name] for request in batch]) for name in batch[0].inputs}
                _split(self._run(merged), batch)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for request in batch:  # one of them is faulty, and only that one may fail
                self._answer([request])


def _split(outputs: Arrays, batch: list[_Request]) -> None:
    rows = sum(request.rows for request in batch)
    for name, array in outputs.items():
        if len(array) != rows:
            raise ValueError(f"{name}: expected a row for each of {rows}, found {len(array)}")
    start = 0
    for request in batch:
        request.outputs = {name: array[start : start + request.rows] for name, array in outputs.items()}
        start += request.rows
