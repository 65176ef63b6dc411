"""The files of the Counts step: how often items, pairs of items and users' items occurred, through the end of a day.

A folder holds

    items-00000.parquet   `item`, `count`, and `first`: microseconds since 1970-01-01 UTC of its earliest interaction
    days-00000.parquet    `span`, `item`, `count`: by day, of the last `RECENT_DAYS` days
    pairs-PART.parquet    `source`, `target`, `count`: how often the target was taken with the source in the history; and `total`:
                          how often any item was
    users-PART.parquet    `user`, `item`, `count` and `last`: microseconds of the last time that the user took the item
    counts.json           `span`, the half-life, and size and digest of each file; written last

A Counts artifact has two folders: `through` with every day so far, and `training` with the addition of the day's training split.

Counts are whole numbers, in units of 1 / ONE of an interaction: sums do not depend on the order of addition, so the files are
identical however the work was divided. Only interactions with a reward above 0 count.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray
from pyarrow import parquet
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.utc import day_of
from components.whole_files import write_whole
from schemas.errors import UserError

THROUGH, TRAINING = "through", "training"
ITEMS, DAYS, PAIRS, USERS = "items", "days", "pairs", "users"
ONE = 1 << 20
RECENT_DAYS = 7
USER_PARTITIONS = 32
PARTITIONS: Mapping[str, int] = {ITEMS: 1, DAYS: 1, PAIRS: 32, USERS: USER_PARTITIONS}
DESCRIPTION = "counts.json"

KEYS: Mapping[str, Sequence[str]] = {
    ITEMS: ["item"],
    DAYS: ["span", "item"],
    PAIRS: ["source", "target"],
    USERS: ["user", "item"],
}
ADDED: Mapping[str, Mapping[str, np.ufunc]] = {
    ITEMS: {"count": np.add, "first": np.minimum},
    DAYS: {"count": np.add},
    PAIRS: {"count": np.add},
    USERS: {"count": np.add, "last": np.maximum},
}
SCHEMAS: Mapping[str, pa.Schema] = {
    ITEMS: pa.schema([("item", pa.binary()), ("count", pa.int64()), ("first", pa.int64())]),
    DAYS: pa.schema([("span", pa.int64()), ("item", pa.binary()), ("count", pa.int64())]),
    PAIRS: pa.schema([("source", pa.binary()), ("target", pa.binary()), ("count", pa.int64()), ("total", pa.int64())]),
    USERS: pa.schema([("user", pa.binary()), ("item", pa.binary()), ("count", pa.int64()), ("last", pa.int64())]),
}


@dataclass(frozen=True)
class Counts:
    """Counts of items and pairs.

    Attributes:
        span: the last counted day, in days since 1970-01-01.
        items: `item` (bytes), `count` (in units of 1 / ONE interaction), `first`; each item once.
        recent: `item`, `count`: of the `RECENT_DAYS` days up to `span`, not decayed.
        pairs: `source`, `target`, `count`, `total`; each pair once.
    """

    span: int
    items: pd.DataFrame
    recent: pd.DataFrame
    pairs: pd.DataFrame


def read(folders: Sequence[str], as_of: int) -> Counts:
    """Add up the counts of several folders.

    Args:
        folders: for example the `through` of an earlier day and the `training` of this one; may be empty.
        as_of: the span that counts are decayed to, which is also the last of the recent days.

    Raises:
        UserError: a folder is incomplete.
    """
    descriptions = [describe(folder) for folder in folders]
    tables = {
        kind: [
            decay(kind, read_table(folder, kind, partition, description), description.factor(as_of))
            for folder, description in zip(folders, descriptions, strict=True)
            for partition in range(PARTITIONS[kind])
        ]
        for kind in (ITEMS, DAYS, PAIRS)
    }
    days, items, pairs = (merge(kind, tables[kind]).to_pandas() for kind in (DAYS, ITEMS, PAIRS))
    recent = days[(days["span"] > as_of - RECENT_DAYS) & (days["span"] <= as_of)]
    recent = recent.groupby("item", as_index=False).agg({"count": "sum"})
    return Counts(as_of, items, recent, pairs)


def read_users(folders: Sequence[str], partition: int, users: pa.Array | None = None) -> pd.DataFrame:
    """Read the items that the users of a partition took: `user`, `item`, `count`, `last`; each user's newest first.

    Args:
        folders: as in `read`.
        partition: below USER_PARTITIONS; see `components.digests.partition_of`.
        users: binary, the users to read; None for all.

    Raises:
        UserError: a folder is incomplete.
    """
    tables = [read_table(folder, USERS, partition, describe(folder)) for folder in folders]
    if users is not None:
        tables = [table.filter(pc.is_in(table.column("user"), value_set=users)) for table in tables]
    return merge(USERS, tables).to_pandas()


@dataclass(frozen=True)
class Description:
    """The description of a folder.

    Attributes:
        span: the last counted day, in days since 1970-01-01.
        half_life_days: after this many days an interaction counts half; None for no decay.
        files: size in bytes and SHA-256 of each file.
    """

    span: int
    half_life_days: float | None
    files: Mapping[str, tuple[int, str]]

    def factor(self, as_of: int) -> float:
        """Return the factor that decays the counts to a later span."""
        return factor(self.half_life_days, as_of - self.span)


def factor(half_life_days: float | None, days: int) -> float:
    """Return the weight left of an interaction after some days; 1 if they are not positive."""
    return 1.0 if half_life_days is None else 0.5 ** (max(0, days) / half_life_days)


def describe(folder: str) -> Description:
    """Read the description of a folder.

    Raises:
        UserError: it is missing or invalid.
    """
    path = os.path.join(folder, DESCRIPTION)
    try:
        content = json.loads(io_utils.read_string_file(path))
        files = {name: (int(size), str(digest)) for name, (size, digest) in content["files"].items()}
        return Description(int(content["span"]), content["half_life_days"], files)
    except (OSError, tf.errors.OpError) as error:
        raise _incomplete(path, "found no such file, which is written last") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _incomplete(path, f"found something else: {error!r}") from error


def check(folder: str) -> Description:
    """Read everything in a folder once, before Beam would wrap an error; return the description.

    Raises:
        UserError: the folder is incomplete.
    """
    description = describe(folder)
    for kind, count in PARTITIONS.items():
        for partition in range(count):
            read_table(folder, kind, partition, description)
    return description


def read_table(folder: str, kind: str, partition: int, description: Description) -> pa.Table:
    """Read the rows of a partition of a folder; none if nothing belongs to it.

    Raises:
        UserError: the file differs from what was written.
    """
    name = file_name(kind, partition)
    if name not in description.files:
        return SCHEMAS[kind].empty_table()
    path = os.path.join(folder, name)
    try:
        with fileio.open(path, "rb") as file:
            content = file.read()
    except (OSError, tf.errors.OpError) as error:
        raise _incomplete(path, "found no such file", description.span) from error
    size, digest = description.files[name]
    if (len(content), hashlib.sha256(content).hexdigest()) != (size, digest):
        raise _incomplete(path, f"found {len(content)} bytes that differ from the {size} written", description.span)
    return parquet.read_table(pa.BufferReader(content))


def write_partition(folder: str, kind: str, partition: int, rows: pa.Table) -> tuple[str, int, str]:
    """Write a partition, which gets its name once complete; return name, size and digest of the file."""
    content = io.BytesIO()
    parquet.write_table(rows, content)
    data = content.getvalue()
    name = file_name(kind, partition)
    write_whole(os.path.join(folder, name), data)
    return name, len(data), hashlib.sha256(data).hexdigest()


def write_description(folder: str, description: Description) -> None:
    """Write the description, which marks the folder as complete."""
    text = json.dumps(
        {
            "span": description.span,
            "half_life_days": description.half_life_days,
            "files": dict(sorted(description.files.items())),
        },
        indent=1,
    )
    write_whole(os.path.join(folder, DESCRIPTION), f"{text}\n".encode())


def file_name(kind: str, partition: int) -> str:
    """Return the name of a partition's file."""
    return f"{kind}-{partition:05d}.parquet"


def decay(kind: str, rows: pa.Table, by: float) -> pa.Table:
    """Multiply the counts of items and pairs, and drop rows whose count becomes 0.

    A user's items do not decay, because they are facts; nor do the recent days, which are limited anyway.
    """
    if by == 1.0 or kind in (USERS, DAYS) or not rows.num_rows:
        return rows
    for place, name in enumerate(rows.column_names):
        if name in ("count", "total"):
            rows = rows.set_column(place, name, pa.array(_times(rows.column(name).to_numpy(), by)))
    return rows.filter(pc.greater(rows.column("count"), 0))


def merge(kind: str, tables: Sequence[pa.Table]) -> pa.Table:
    """Add up the rows of a kind, sorted by its keys; a user's newest item comes first.

    Counts are added by sorted numbers in place of ids: a table repeats ids many times, and a day has millions of pairs.
    """
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return SCHEMAS[kind].empty_table()
    rows = pa.concat_tables(filled).combine_chunks()
    codes = [codes_of(rows.column(name)) for name in KEYS[kind]]
    together = codes[0] if len(codes) == 1 else codes[0] * (codes[1].max() + 1) + codes[1]
    order = np.argsort(together, kind="stable")
    starts = _starts(together[order])
    first = order[starts]
    merged = {name: rows.column(name).take(pa.array(first)) for name in KEYS[kind]}
    for name, add in ADDED[kind].items():
        merged[name] = pa.array(add.reduceat(rows.column(name).to_numpy()[order], starts))
    if kind == PAIRS:
        # Each table repeats a source's total for each of its pairs; it counts once per table.
        in_table = np.repeat(np.arange(len(filled)), [table.num_rows for table in filled])
        _, once = np.unique(codes[0] * len(filled) + in_table, return_index=True)
        totals = np.zeros(codes[0].max() + 1, np.int64)
        np.add.at(totals, codes[0][once], rows.column("total").to_numpy()[once])
        merged["total"] = pa.array(totals[codes[0][first]])
    if kind == USERS:
        newest_first = np.lexsort((-merged["last"].to_numpy(), codes[0][first]))  # stable, so by item if equally new
        return pa.table(merged).take(pa.array(newest_first)).select(SCHEMAS[kind].names).cast(SCHEMAS[kind])
    return pa.table(merged).select(SCHEMAS[kind].names).cast(SCHEMAS[kind])


def places_in_groups(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [rows] the position of each row in its group, from 0; rows of a group are adjacent."""
    starts = _starts(groups)
    lengths = np.diff(np.append(starts, len(groups)))
    return np.arange(len(groups)) - np.repeat(starts, lengths)


def _starts(grouped: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first position of each run of equal numbers."""
    return np.flatnonzero(np.diff(grouped, prepend=grouped[:1] - 1))


def codes_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return [rows] a number from 0 for each value, in the order of the values."""
    encoded = column.combine_chunks().dictionary_encode()
    different = encoded.dictionary
    ranks = np.empty(len(different), np.int64)
    ranks[pc.sort_indices(different).to_numpy()] = np.arange(len(different))
    return ranks[encoded.indices.to_numpy()]


def _times(counts: NDArray[np.int64], by: float) -> NDArray[np.int64]:
    return np.rint(counts * by).astype(np.int64)


def _incomplete(path: str, fault: str, span: int | None = None) -> UserError:
    day = f"{day_of(span)} again" if span is not None else "its day again"
    return UserError(f"{path}: expected the counts that a day wrote, {fault}. Restore the file, or run {day}.")
