"""Measures the size of a request, to check it against the limits before anything is unpacked to arrays."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ndr_client import served
from serving.errors import invalid
from serving.settings import Limits
from serving.wire import check_entries

LISTS = (served.EXCLUDE, served.WHERE)
_SHOWN = 40  # bytes of an invalid Example, in an error


@dataclass(frozen=True)
class Extent:
    """The size of a request's computation.

    Attributes:
        rows: its rows.
        width: values of the longest feature of its rows.
        items: the largest k.
        excluded: the most exclusions in a row.
        conditions: the most conditions in a row.
    """

    rows: int
    width: int = 0
    items: int = 0
    excluded: int = 0
    conditions: int = 0

    def __or__(self, other: "Extent") -> "Extent":
        """Return the extent of both in one batch: every row is padded to the longest, and as wide as the largest k."""
        return Extent(
            self.rows + other.rows,
            max(self.width, other.width),
            max(self.items, other.items),
            max(self.excluded, other.excluded),
            max(self.conditions, other.conditions),
        )

    def excess(self, limits: Limits) -> str | None:
        """Describe the limit that is exceeded; None if there is none."""
        comparisons = self.rows * (self.items + self.excluded) * (self.excluded + 1)
        for what, asked, limit in (
            ("rows", self.rows, limits.rows),
            ("values, each row having as many as the longest", self.rows * self.width, limits.values),
            ("for k", self.items, limits.items),
            ("values of an answer, rows x k", self.rows * self.items, limits.values),
            ("comparisons, rows x (k + excluded) x (excluded + 1)", comparisons, limits.comparisons),
        ):
            if asked > limit:
                return f"expected at most {limit} {what}, received {asked}"
        return None


def of(inputs: Mapping[str, NDArray[Any]]) -> Extent:
    """Measure inputs whose first dimension is the batch.

    Raises:
        RequestError: INVALID_ARGUMENT, an Example is invalid.
    """
    rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
    items = int(inputs[served.K].max(initial=0)) if served.K in inputs else 0
    excluded, conditions = (inputs[name].shape[1] if name in inputs and inputs[name].ndim == 2 else 0 for name in LISTS)
    width = max((array[0].size for array in inputs.values() if array.ndim > 1 and len(array)), default=1)
    if served.EXAMPLES in inputs:
        lengths = [_lengths(example) for example in parse_examples(inputs[served.EXAMPLES].ravel())]
        width = max((max(of_example.values(), default=0) for of_example in lengths), default=0)
        excluded, conditions = (max((of_example.get(name, 0) for of_example in lengths), default=0) for name in LISTS)
    return Extent(rows, width, items, excluded, conditions)


def parse_examples(serialized: Iterable[bytes]) -> list[Any]:
    """Parse the tf.Examples of a request.

    Raises:
        RequestError: INVALID_ARGUMENT, one of them is invalid, or has too many features.
    """
    examples = []
    for content in serialized:
        check_entries("features in an Example", content, 1, 1)  # features, and feature in it
        try:
            examples.append(tf.train.Example.FromString(content))
        except DecodeError as error:
            raise invalid(f"examples: expected serialised tf.Examples, received {content[:_SHOWN]!r}") from error
    return examples


def values(feature: Any) -> Any:
    """Return the values of a feature of an Example, of any kind."""
    kind = feature.WhichOneof("kind")
    return getattr(feature, kind).value if kind else ()


def _lengths(example: Any) -> dict[str, int]:
    return {name: len(values(feature)) for name, feature in example.features.feature.items()}


def text(value: Any) -> bytes:
    """Convert a feature's value to bytes, the form of ids."""
    return value if isinstance(value, bytes) else str(value).encode()


def is_text(array: NDArray[Any]) -> bool:
    """Return whether an array has texts, as bytes objects."""
    return array.dtype == np.dtype(object)
