from pathlib import Path

import numpy as np
import pyarrow as pa

from components.counts.files import USER_PARTITIONS
from components.digests import partition_of
from components.evaluator.taken import Taken
from tests.components.counted import Taken as Row
from tests.components.counted import write_counts
from tests.components.test_ranking import excluded_of

IDS = pa.array([b"a", b"b", b"c", b"d"], pa.binary())


def taken(folder: Path, rows: list[Row], users: list[bytes]) -> Taken:
    return Taken(
        [write_counts(folder, rows, 0)], partition_of(users[0], USER_PARTITIONS), pa.array(users, pa.binary()), IDS
    )


def test_most_often_first_then_newest(tmp_path: Path) -> None:
    # Twice b; once d, the newest, c, which is older, and something that the catalogue no longer has.
    log = [("b", 1), ("b", 2), ("c", 3), ("gone", 4), ("d", 5)]
    of_user = taken(tmp_path, [Row(b"u", item.encode(), time) for item, time in log], [b"u"])
    users = np.zeros(3, np.int64)
    histories = excluded_of([[], [0, 2], [2, 2, 2]])
    scores = of_user.scores(users, np.full(3, 9), histories, 4).toarray()
    order = [[int(row) for row in np.argsort(-each, kind="stable") if each[row]] for each in scores]
    # Without a history b, d, c. A history of a, c: both once, but newer than d, and c newer than a. c three times is before b.
    assert order == [[1, 3, 2], [1, 2, 0, 3], [2, 1, 3]]


def test_items_taken_later_are_not_known(tmp_path: Path) -> None:
    of_user = taken(tmp_path, [Row(b"u", b"a", 1), Row(b"u", b"b", 5), Row(b"u", b"c", 9)], [b"u"])
    users, times = np.zeros(3, np.int64), np.array([5, 6, 1])
    assert (of_user.scores(users, times, excluded_of([[], [], []]), 4).toarray() > 0).tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [False] * 4,
    ]
    items = of_user.items(users, times, excluded_of([[3], [], [0]]))
    assert [
        sorted(items.rows[slice(*ends)].tolist()) for ends in zip(items.offsets, items.offsets[1:], strict=False)
    ] == [
        [0, 3],
        [0, 1],
        [0],
    ]
    assert of_user.before(1).tolist() == [False] and of_user.before(2).tolist() == [True]
    assert [each.tolist() for each in of_user.since(9)] == [[0], [2]]


def test_a_user_of_whom_nothing_is_known(tmp_path: Path) -> None:
    of_user = taken(tmp_path, [], [b"u"])
    assert of_user.scores(np.zeros(1, np.int64), np.array([5]), excluded_of([[]]), 4).nnz == 0
    assert of_user.before(9).tolist() == [False]
