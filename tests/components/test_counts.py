"""Counts that are carried from day to day, against those of the raw logs of all days."""

import json
import shutil
from collections import Counter as Tally
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts

from components.artifacts import Counts
from components.counts import files
from components.counts.component import Counter
from components.counts.files import ONE, THROUGH, TRAINING, USER_PARTITIONS
from components.counts.settings import CountsSettings
from components.digests import partition_of
from components.utc import MICROSECONDS_A_DAY
from schemas.errors import UserError
from schemas.features import FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at", "time_unit": "us"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 4, "hash_buckets": 8}},
        "query": {"past": {"kind": "history", "table": "item", "last": 3}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
FOREVER = CountsSettings(half_life_days=None)

Row = tuple[int, str, str]
"""Day, user, item; the rows of a user are in the order of time."""


def log(seed: int, days: Sequence[int]) -> list[Row]:
    draw = np.random.default_rng(seed)
    return [(day, f"u{draw.integers(5)}", f"i{draw.integers(9)}") for day in days for _ in range(30)]


def count(
    folder: Path, day: int, rows: Sequence[Row], base: Path | None = None, settings: CountsSettings = FOREVER
) -> Path:
    """Runs the step for a day on rows, of which those of user u0 on the day are held out; every row has its user's last three."""
    if folder.exists():
        shutil.rmtree(folder)
    past: dict[str, list[str]] = {}
    examples: dict[str, list[bytes]] = {"train": [], "eval": []}
    for number, (span, user, item) in enumerate(sorted(rows, key=lambda row: row[0])):
        features = {
            "candidate_id": [item.encode()],
            "query_id": [user.encode()],
            "past": [each.encode() for each in past.get(user, [])[-3:]],
        }
        example = tf.train.Example()
        for name, values in features.items():
            example.features.feature[name].bytes_list.value.extend(values)
        example.features.feature["timestamp"].int64_list.value.append(span * MICROSECONDS_A_DAY + number)
        example.features.feature["reward"].float_list.value.append(1.0)
        examples["eval" if (span, user) == (day, "u0") else "train"].append(example.SerializeToString())
        past.setdefault(user, []).append(item)
    ingested = standard_artifacts.Examples()
    ingested.uri, ingested.split_names = f"{folder}/examples", '["train", "eval"]'
    for split, serialized in examples.items():
        tf.io.gfile.makedirs(f"{ingested.uri}/Split-{split}")
        with tf.io.TFRecordWriter(f"{ingested.uri}/Split-{split}/examples.gz", options="GZIP") as writer:
            for each in serialized:
                writer.write(each)
    inputs: dict[str, list[Any]] = {"examples": [ingested]}
    if base:
        carried = Counts()
        carried.uri = str(base)
        inputs["base_counts"] = [carried]
    counts = Counts()
    counts.uri = f"{folder}/counts"
    parameters = {"settings": settings.model_dump_json(), "feature_spec": SPEC.model_dump_json(), "day": day}
    Counter.EXECUTOR_SPEC.executor_class().Do(inputs, {"counts": [counts]}, parameters)
    return Path(counts.uri)


def items_of(counts: files.Counts) -> dict[str, float]:
    return {item.decode(): n / ONE for item, n in zip(counts.items["item"], counts.items["count"], strict=True)}


def raw_items(rows: Sequence[Row]) -> dict[str, float]:
    return dict(Tally(item for _, _, item in rows))


def raw_pairs(rows: Sequence[Row]) -> dict[tuple[str, str], int]:
    """Each of a user's last three items with what the user took next."""
    by_user: dict[str, list[str]] = {}
    found: Tally[tuple[str, str]] = Tally()
    for _, user, item in sorted(rows, key=lambda row: row[0]):
        past = by_user.setdefault(user, [])
        found.update((source, item) for source in past[-3:])
        past.append(item)
    return dict(found)


def pairs_of(counts: files.Counts) -> dict[tuple[str, str], float]:
    pairs = counts.pairs
    keys = zip(pairs["source"], pairs["target"], strict=True)
    return {(s.decode(), t.decode()): n / ONE for (s, t), n in zip(keys, pairs["count"], strict=True)}


def test_counts_of_a_day_by_hand(tmp_path: Path) -> None:
    rows: list[Row] = [(9, "v", "a"), (10, "v", "b"), (10, "v", "a"), (10, "u0", "c")]
    counts = count(tmp_path, 10, rows)
    through = files.read([f"{counts}/{THROUGH}"], 10)
    assert items_of(through) == {"a": 2, "b": 1, "c": 1}
    assert through.items["first"].tolist() == [
        9 * MICROSECONDS_A_DAY,
        10 * MICROSECONDS_A_DAY + 1,
        10 * MICROSECONDS_A_DAY + 3,
    ]
    # v took b after a, then a after a and b. Two things were taken behind a besides, so three in all; one behind b.
    assert pairs_of(through) == {("a", "a"): 1, ("a", "b"): 1, ("b", "a"): 1}
    assert dict(zip(through.pairs["source"], through.pairs["total"] / ONE, strict=True)) == {b"a": 2, b"b": 1}
    training = files.read([f"{counts}/{TRAINING}"], 10)
    assert items_of(training) == {"a": 2, "b": 1}  # what u0 did is held out: no baseline may know it today
    users = files.read_users([f"{counts}/{THROUGH}"], partition_of(b"v", USER_PARTITIONS))
    of_v = users[users["user"] == b"v"]
    assert list(zip(of_v["item"], of_v["count"] / ONE, strict=True)) == [(b"a", 2), (b"b", 1)]


def test_carried_counts_are_those_of_the_raw_logs_of_all_days(tmp_path: Path) -> None:
    """Whatever the window is: here every day's examples reach back one day further than what is new."""
    rows = log(1, range(100, 106))
    base = None
    for day in range(101, 106):
        window = [row for row in rows if (100 if day == 101 else day - 1) <= row[0] <= day]
        base = count(tmp_path / str(day), day, window, base)
    found = files.read([f"{base}/{THROUGH}"], 105)
    assert items_of(found) == raw_items(rows)
    recent = zip(found.recent["item"], found.recent["count"] / ONE, strict=True)
    assert {item.decode(): n for item, n in recent} == raw_items([row for row in rows if row[0] > 98])


def test_pairs_over_days_are_those_of_the_raw_logs(tmp_path: Path) -> None:
    rows = log(2, range(100, 104))
    base = None
    for day in range(100, 104):
        # The examples of one day, with histories of all days: those of a run with a window of all days, cut by the base.
        base = count(tmp_path / str(day), day, [row for row in rows if row[0] <= day], base)
    assert pairs_of(files.read([f"{base}/{THROUGH}"], 103)) == raw_pairs(rows)


def test_late_and_redelivered_days_count_once(tmp_path: Path) -> None:
    """Day 101 came late, and day 102 twice: what is run again on the new base has all of it, once."""
    rows = log(3, range(100, 104))
    by_day = {day: [row for row in rows if row[0] == day] for day in range(100, 104)}
    first = count(tmp_path / "100", 100, by_day[100])
    count(tmp_path / "102", 102, by_day[102][:10], first)
    late = count(tmp_path / "101", 101, by_day[101], first)
    again = count(tmp_path / "102", 102, by_day[102], late)
    last = count(tmp_path / "103", 103, by_day[103], again)
    assert items_of(files.read([f"{last}/{THROUGH}"], 103)) == raw_items(rows)


def test_counts_decay_by_day_however_they_are_carried(tmp_path: Path) -> None:
    settings = CountsSettings(half_life_days=2)
    rows: list[Row] = [(100, "v", "a"), (102, "v", "a"), (104, "w", "b")]
    at_once = count(tmp_path / "once", 104, rows, settings=settings)
    base = None
    for day in (100, 102, 104):
        base = count(tmp_path / str(day), day, [row for row in rows if row[0] == day], base, settings)
    # Four days are two half-lives, two days one: a has 1/4 + 1/2, b 1. Two days later all is half of it.
    for counts in (at_once, base):
        assert items_of(files.read([f"{counts}/{THROUGH}"], 104)) == {"a": 0.75, "b": 1.0}
        assert items_of(files.read([f"{counts}/{THROUGH}"], 106)) == {"a": 0.375, "b": 0.5}


def test_kept_counts_are_bounded(tmp_path: Path) -> None:
    settings = CountsSettings(half_life_days=None, pairs_per_item=2, items_per_user=2, user_days=3)
    rows: list[Row] = [(100, "old", "a"), *((104, "v", item) for item in ("a", "b", "a", "c", "a", "c"))]
    counts = count(tmp_path, 104, rows, settings=settings)
    found = files.read([f"{counts}/{THROUGH}"], 104)
    of_a = found.pairs[found.pairs["source"] == b"a"]
    # Behind a: b, then a, c, a, a, c, c (an item that stands twice in the last three counts twice): c 3, a 3, b 1, which goes.
    assert set(of_a["target"]) == {b"a", b"c"} and of_a["total"].unique().tolist() == [7 * ONE]
    users = pd.concat([files.read_users([f"{counts}/{THROUGH}"], part) for part in range(USER_PARTITIONS)])
    assert list(zip(users["user"], users["item"], strict=True)) == [(b"v", b"c"), (b"v", b"a")]  # the newest two


def test_the_same_counts_give_the_same_bytes(tmp_path: Path) -> None:
    rows = log(4, range(100, 102))
    folders = [count(tmp_path / name, 101, some) / THROUGH for name, some in (("x", rows), ("y", rows))]
    for name in json.loads((folders[0] / files.DESCRIPTION).read_text())["files"]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


@pytest.mark.parametrize("harm", ["missing", "cut", "changed", "no description", "half a description"])
def test_a_base_that_is_not_whole_stops_the_day_with_the_files_name(tmp_path: Path, harm: str) -> None:
    base = count(tmp_path / "100", 100, log(5, [100]))
    path = base / THROUGH / ("counts.json" if "description" in harm else "items-00000.parquet")
    content = path.read_bytes()
    match harm:
        case "missing" | "no description":
            path.unlink()
        case "cut" | "half a description":
            path.write_bytes(content[: len(content) // 2])
        case _:
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{path}: expected the counts that a day wrote, found .*run .* again"):
        count(tmp_path / "101", 101, log(5, [101]), base)
    assert not (tmp_path / "101" / "counts" / THROUGH).exists()


def test_a_day_without_news_of_an_item_keeps_it(tmp_path: Path) -> None:
    base = count(tmp_path / "100", 100, [(100, "v", "a"), (100, "v", "b")])
    counts = count(tmp_path / "101", 101, [(101, "w", "c")], base)
    found = files.read([f"{counts}/{THROUGH}"], 101)
    assert items_of(found) == {"a": 1, "b": 1, "c": 1} and pairs_of(found) == {("a", "b"): 1}
