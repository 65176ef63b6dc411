"""What a store must be able to do to hold exported versions; see `pipeline.export.stores` for those there are.

To add one: subclass `Store`, name it in `pipeline.export.stores`, and add it to the contract in
tests/pipeline/export/test_stores.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.declaration import Declaration
from schemas.features import CANDIDATE_ID

EMBEDDING = "embedding"
VERSION = "version"
OWN_COLUMNS = (VERSION, CANDIDATE_ID, EMBEDDING)


@dataclass(frozen=True)
class Items:
    """The items of a pushed version.

    Attributes:
        key: names this content in a store, whatever version it is pushed as: a rollback has the key of what it restores.
        version: the pushed version.
        day: the UTC day of its content, ISO 8601.
        ids: [items] string, ascending by bytes.
        embeddings: [items, width] float32 unit vectors, by the item tower.
        columns: a row for each item: the filter columns, list<string> for ids and float for numbers.
    """

    key: str
    version: int
    day: str
    ids: pa.Array
    embeddings: NDArray[np.float32]
    columns: pa.Table


class Described(Declaration):
    """What a version in a store is.

    Attributes:
        key: see `Items`.
        version: the version that it was last exported as.
        day: the UTC day of its content, ISO 8601.
        items: the number of items.
        width: the width of the embeddings.
        exported_at: when it was written, in UTC.
    """

    key: str
    version: int
    day: str
    items: int
    width: int
    exported_at: datetime


class Exported(Described):
    """A version in a store.

    Attributes:
        is_live: whether readers of the store see it.
    """

    is_live: bool


Answers = Sequence[tuple[list[str], list[float]]]
"""Ids and scores of each query's items, the best first."""


class Store(ABC):
    """A store, opened by one export at a time.

    What is `put` is seen by no reader until `flip`, which replaces the live version at once, as a whole. A process that is killed
    at any point leaves the live version as it was before or after the flip; whatever else it left is removed when the store is
    opened again.
    """

    @property
    @abstractmethod
    def place(self) -> str:
        """The store in words, for messages; without secrets."""

    @abstractmethod
    def exported(self) -> list[Exported]:
        """Return the complete versions, the oldest export first."""

    @abstractmethod
    def put(self, items: Items) -> None:
        """Write a version that is not in the store."""

    @abstractmethod
    def search(self, key: str, queries: NDArray[np.float32], k: int) -> Answers:
        """Find the items with the largest inner products, as readers of the store do.

        Args:
            key: of a version that was put or exported.
            queries: [queries, width].
            k: the number of items, at most those of the version.
        """

    @abstractmethod
    def minimum_recall(self, key: str) -> float:
        """Return the share of the exact first items that `search` must find: 1 for an exact search."""

    @abstractmethod
    def advice(self, key: str) -> str:
        """Say what to do if a version's answers are not those of exact search."""

    @abstractmethod
    def flip(self, key: str, version: int) -> None:
        """Make a version the live one.

        Args:
            key: of a version that was put or exported.
            version: the version to record for it.
        """

    @abstractmethod
    def remove(self, key: str) -> bool:
        """Remove a version that is not live; return False if a reader still holds it, and leave it for the next time."""
