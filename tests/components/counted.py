"""A folder of counts, as the Counts step leaves it, from interactions that are listed."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from components.counts import files
from components.counts.files import ONE, PARTITIONS
from components.digests import partition_of
from components.utc import MICROSECONDS_A_DAY


class Taken(NamedTuple):
    """An interaction that counts."""

    user: bytes
    item: bytes
    time: int
    past: tuple[bytes, ...] = ()


def rows_of(kind: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    schema = files.SCHEMAS[kind]
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)], schema
    )


def write_counts(folder: Path, taken: Iterable[Taken], span: int, half_life_days: float | None = None) -> str:
    """Counts interactions, a pair with each item of their histories."""
    taken = list(taken)
    first: dict[bytes, int] = {}
    last: dict[tuple[bytes, bytes], int] = {}
    for each in taken:
        first[each.item] = min(each.time, first.get(each.item, each.time))
        last[each.user, each.item] = max(each.time, last.get((each.user, each.item), 0))
    pairs = Counter((source, each.item) for each in taken for source in each.past)
    totals = Counter(source for each in taken for source in each.past)
    days = Counter((each.time // MICROSECONDS_A_DAY, each.item) for each in taken)
    items = Counter(each.item for each in taken)
    users = Counter((each.user, each.item) for each in taken)
    tables: dict[str, list[tuple[Any, ...]]] = {
        files.ITEMS: [(item, n * ONE, first[item]) for item, n in items.items()],
        files.DAYS: [(day, item, n * ONE) for (day, item), n in days.items()],
        files.PAIRS: [(source, item, n * ONE, totals[source] * ONE) for (source, item), n in pairs.items()],
        files.USERS: [(user, item, n * ONE, last[user, item]) for (user, item), n in users.items()],
    }
    written = {}
    for kind, rows in tables.items():
        keyed = kind in (files.PAIRS, files.USERS)
        for part in range(PARTITIONS[kind]):
            own = [row for row in sorted(rows) if not keyed or partition_of(row[0], PARTITIONS[kind]) == part]
            if own:
                frame = files.merge(kind, [rows_of(kind, own)])
                name, size, digest = files.write_partition(str(folder), kind, part, frame)
                written[name] = size, digest
    files.write_description(str(folder), files.Description(span, half_life_days, written))
    return str(folder)
