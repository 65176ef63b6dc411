"""Large objects that the workers of a Beam step load once per process, and keep."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from apache_beam.utils import shared

from components import beam_memory  # noqa: F401  # which makes small pipelines cheap

T = TypeVar("T")


class Kept(Generic[T]):
    """A large object, loaded on first use and shared by the workers of a process.

    Beam's `Shared` alone releases an object once a step asks for another: two models in turn would be reloaded each time.
    Here each user keeps a reference, so the object lives as long as they do. Pickling for a worker leaves out the object.

    Args:
        load: creates it.
    """

    def __init__(self, load: Callable[[], T]) -> None:
        self._load = load
        self._shared = shared.Shared()
        self._kept: T | None = None

    def get(self) -> T:
        """Return the object, loading it if needed."""
        if self._kept is None:
            self._kept = self._shared.acquire(self._load)
        assert self._kept is not None
        return self._kept

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}
