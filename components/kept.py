"""What the workers of a Beam step load once a process, and keep."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from apache_beam.utils import shared

from components import beam_memory  # noqa: F401  # which makes small pipelines cheap

T = TypeVar("T")


class Kept(Generic[T]):
    """A large object, loaded when it is first asked for; the workers of a process have it together.

    Beam's `Shared` alone lets go of it once a step asks for another: two models that take turns would be loaded anew each time.
    Here each user holds on to it, and it goes when they go. Sent to a worker, it goes without its object.

    Args:
        load: makes it.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._shared = shared.Shared()
        self._kept: T | None = None

    def get(self) -> T:
        """The object."""
        if self._kept is None:
            self._kept = self._shared.acquire(self._load)
        assert self._kept is not None
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}
