"""Conditions for the validation of a version: made from the catalogue's own values, so that some items meet each."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from ndr_client.served import WHERE


def conditions(columns: pa.Table) -> list[str]:
    """Return, for each column, one condition that many items meet, one that few meet and, for ids, one that excludes many.

    Args:
        columns: what items are filtered by, a row an item; see `components.indexer.filter_columns`.
    """
    return [
        condition for name in columns.column_names for condition in _of(name, columns.column(name).combine_chunks())
    ]


def _of(name: str, column: pa.Array) -> Iterator[str]:
    if pa.types.is_list(column.type):
        counts = pc.value_counts(pc.list_flatten(column))
        ids = [
            (entry["counts"], entry["values"].decode(errors="replace"))
            for entry in counts.to_pylist()
            if entry["values"]
        ]
        if ids:
            (_, fewest), (_, most) = min(ids), max(ids)
            yield from (f"{name}={most}", f"{name}={fewest}", f"{name}!={most}")
        return
    numbers = column.to_numpy(zero_copy_only=False)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers):
        yield from (f"{name}>={np.median(numbers):.9g}", f"{name}<={numbers.min():.9g}")


def with_condition(examples: list[bytes], condition: str) -> list[bytes]:
    """Return serialised Examples of the same queries that ask for items that meet a condition."""
    extended = []
    for serialized in examples:
        example = tf.train.Example.FromString(serialized)
        example.features.feature[WHERE].bytes_list.value[:] = [condition.encode()]
        extended.append(example.SerializeToString())
    return extended
