"""The benchmark of new items: what is kept from training, and what is said of ranks that are known."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from benchmarks.cold_items import (
    AS_IF_NEW,
    COLD,
    CONTENT,
    EVERYTHING,
    REMOVED,
    WARM,
    figures,
    headline,
    is_cold,
    without_cold,
)
from benchmarks.days import Ranked
from components.evaluator.ranking import Ranks


def test_a_tenth_of_the_items_is_cold() -> None:
    share = np.mean([is_cold(b"%d" % item) for item in range(1, 1683)])
    assert share == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 1682))


def test_nobody_has_taken_a_cold_item_before_the_day_from_which_it_is_judged(tmp_path: Path) -> None:
    source, target = tmp_path / "logs", tmp_path / "removed"
    items = list(range(1, 301))
    for day in ("1998-04-08", "1998-04-09"):
        (source / day).mkdir(parents=True)
        parquet.write_table(pa.table({"movie_id": items, "user_id": [7] * 300}), source / day / "part-0.parquet")
        (source / day / "_SUCCESS").touch()
    (target / "stale").mkdir(parents=True)
    cold = [item for item in items if is_cold(str(item).encode())]
    assert without_cold(source, target, until=date(1998, 4, 9)) == len(cold) > 0
    before, after = (parquet.read_table(target / day / "part-0.parquet") for day in ("1998-04-08", "1998-04-09"))
    assert before.column("movie_id").to_pylist() == [item for item in items if item not in cold]
    assert after.column("movie_id").to_pylist() == items
    assert (target / "1998-04-08" / "_SUCCESS").exists()
    assert not (target / "stale").exists()
    assert parquet.read_table(source / "1998-04-08" / "part-0.parquet").num_rows == 300


def test_each_figure_is_of_its_run_and_of_its_items() -> None:
    # Four interactions with cold films, four with others; the cold ones are on place 1 where the model knows them, on 61 where they
    # are new to it, on 31 as the evaluator ranks them as new and on 11 by content; the others on place 6 before and 7 after.
    films = [str(film).encode() for film in range(1, 200)]
    cold, warm = ([film for film in films if is_cold(film) == kind][:4] for kind in (True, False))
    users = np.array([b"u%d" % user for user in range(8)], object)
    items = np.array([*cold, *warm], object)

    def places(of_cold: int, of_warm: int) -> Ranks:
        return Ranks(np.array([of_cold] * 4 + [of_warm] * 4), np.zeros(8, np.int64))

    everything = Ranked(users, items, {"candidate": places(0, 5), "as_new": places(30, -1)})
    removed = Ranked(users, items, {"candidate": places(60, 6), "content_neighbours": places(10, -1)})
    found = figures(everything, removed)
    assert [(each.items, each.scorer, each.interactions, each.median_place) for each in found] == [
        (COLD, REMOVED, 4, 61), (COLD, AS_IF_NEW, 4, 31), (COLD, CONTENT, 4, 11), (COLD, EVERYTHING, 4, 1),
        (WARM, REMOVED, 4, 7), (WARM, EVERYTHING, 4, 6),
    ]  # fmt: skip
    assert headline(found) == {
        "cold_recall_at_50": 0.0,
        "as_new_recall_at_50": 1.0,
        "cold_content_neighbours": 1.0,
        "cold_recall_at_50_before": 1.0,
        "warm_recall_at_50": 1.0,
        "warm_recall_at_50_before": 1.0,
    }
    assert found[1].recall[10][0] == 0.0 and found[2].recall[10][0] == 0.0
