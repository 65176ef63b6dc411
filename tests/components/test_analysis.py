"""What is known of all the data: counted and measured in parts, kept in files, carried from day to day."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from tfx import types
from tfx.types import standard_artifacts

from components import recorded
from components.analysis import files, statistics
from components.analysis.component import Analyzer
from components.analysis.statistics import COMPACT_AT, MOMENTS, Count, Measure, Moments, add_moments, count
from components.analysis.vocabulary import Known, entries
from components.artifacts import Analysis, warm_start_folder
from schemas.features import TIMESTAMP, FeatureSpec

DAY = 20_000
MICROSECONDS = 24 * 60 * 60 * 1_000_000
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {
            "item": {"width": 2, "hash_buckets": 4, "vocabulary": {"min_count": 2, "half_life_days": 1}},
            "tag": {"width": 2, "hash_buckets": 1, "vocabulary": {}},
            "device": {"width": 2, "hash_buckets": 2},
        },
        "query": {
            "device": {"kind": "id", "table": "device"},
            "past": {"kind": "history", "table": "item", "last": 2},
            "age": {"kind": "number"},
            "visits": {"kind": "number", "scale": "log"},
            "score": {"kind": "number", "scale": "none"},
        },
        "item": {
            "item": {"kind": "id", "table": "item"},
            "tags": {"kind": "ids", "table": "tag", "max_values": 2},
            "more_tags": {"kind": "ids", "table": "tag", "max_values": 2},
        },
    }
)


def example(day: int, **features: Any) -> bytes:
    """An interaction a minute before the day ends; None is a number that is missing, as ExampleGen writes it."""
    made = tf.train.Example()
    made.features.feature[TIMESTAMP].int64_list.value.append((day + 1) * MICROSECONDS - 60_000_000)
    for name, values in features.items():
        feature = made.features.feature[name]
        if isinstance(values, bytes):
            feature.bytes_list.value.extend(values.split())
        elif values is not None:
            feature.float_list.value.append(values)
    return made.SerializeToString()


Counted = dict[bytes, tuple[int, float]]
"""The (lookups, count) of ids."""


def measured(*examples: bytes, **arguments: Any) -> tuple[dict[str, Counted], dict[str, Moments]]:
    """What is counted for each table; and the moments of each number."""
    elements = list(Measure(SPEC, DAY, **arguments).process(list(examples)))
    moments = dict(element.value for element in elements if getattr(element, "tag", None) == MOMENTS)
    tables: dict[tuple[str, str], pa.Table] = dict(element for element in elements if isinstance(element, tuple))
    assert {split for _, split in tables} <= {arguments.get("split", "train")}
    return {name: as_dict(table) for (name, _), table in tables.items()}, moments


def as_dict(table: pa.Table) -> Counted:
    return {row["token"]: (row["lookups"], row["count"]) for row in table.to_pylist()}


def part(**counted: tuple[int, float]) -> pa.Table:
    tokens = [name.encode() for name in counted]
    lookups, counts = zip(*counted.values(), strict=True)
    return pa.table({"token": pa.array(tokens, pa.binary()), "lookups": lookups, "count": counts})


def test_an_older_occurrence_counts_less_by_the_tables_half_life() -> None:
    # That of items is a day; that of tags 90, which takes a 2^(1/90)th off: 1 - 0.0076723, or 1040531 of 2^20.
    tables, _ = measured(
        example(DAY - 1, item=b"b", tags=b"x y"), example(DAY, item=b"a", tags=b"x"), example(DAY - 2, item=b"b")
    )
    yesterdays = 1040531 / 2**20
    assert tables == {
        "item": {b"a": (1, 1.0), b"b": (2, 0.5 + 0.25)},
        "tag": {b"x": (2, 1 + yesterdays), b"y": (1, yesterdays)},
    }


def test_earlier_days_are_looked_up_but_not_counted_again() -> None:
    tables, _ = measured(example(DAY - 1, item=b"b"), example(DAY, item=b"b"), example(DAY - 2, item=b"a"), since=DAY)
    assert tables == {"item": {b"a": (1, 0.0), b"b": (2, 1.0)}}


def test_only_vocabulary_ids_of_held_out_interactions_are_counted() -> None:
    held_out = example(DAY, item=b"a", device=b"phone", age=1.0)
    assert measured(held_out, split="eval") == ({"item": {b"a": (1, 1.0)}}, {})


def test_all_features_of_a_table_count_but_histories_which_repeat_others() -> None:
    tables, _ = measured(example(DAY, item=b"a", past=b"b c", tags=b"x", more_tags=b"x z", device=b"phone"))
    assert tables == {
        "item": {b"a": (1, 1.0)},
        "tag": {b"x": (2, 2.0), b"z": (1, 1.0)},
        "device": {b"phone": (1, 1.0)},
    }


def test_numbers_are_measured_as_they_will_be_scaled() -> None:
    # 20 and 30: their sum 50, of their squares 400 + 900. log(1 + x) of 0 and e^2 - 1: 0 and 2; mean and deviation 1. A score is
    # not scaled.
    _, moments = measured(
        example(DAY, age=20.0, visits=0.0, score=5.0), example(DAY, age=30.0, visits=np.e**2 - 1, score=7.0)
    )
    visits = moments.pop("visits")
    assert moments == {"age": Moments(2, Fraction(50), Fraction(1300))}
    assert (visits.mean, visits.deviation) == pytest.approx((1.0, 1.0))


def test_missing_values_do_not_count() -> None:
    tables, moments = measured(example(DAY, item=b"", age=None), example(DAY, item=b"a", age=20.0))
    assert (tables["item"], moments) == ({b"a": (1, 1.0)}, {"age": Moments(1, Fraction(20), Fraction(400))})
    assert measured(example(DAY, age=None)) == ({}, {})  # nor is there anything to count in a batch of none


def test_parts_are_added_up() -> None:
    added = count([part(a=(2, 2.0), b=(1, 0.5)), part(b=(3, 0.25), c=(1, 1.0))])
    assert added.column_names == ["token", "lookups", "count"]
    assert as_dict(added) == {b"a": (2, 2.0), b"b": (4, 0.75), b"c": (1, 1.0)}


@pytest.mark.parametrize("parts", [1, COMPACT_AT - 1, COMPACT_AT, 3 * COMPACT_AT])
def test_any_number_of_parts_is_added_up_by_any_number_of_workers(parts: int) -> None:
    combine = Count()
    workers = [combine.create_accumulator() for _ in range(3)]  # the third is given nothing
    for number in range(parts):
        workers[number % 2] = combine.add_input(workers[number % 2], part(a=(2, 0.5), b=(1, 1.0)))
    added = combine.extract_output(combine.merge_accumulators(workers))
    assert as_dict(added) == {b"a": (2 * parts, parts / 2), b"b": (parts, float(parts))}


def test_the_cost_of_counting_ids_is_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins: all that was counted was added up again with every 15 parts, by the square of the data where every part has new ids."""
    rows = 0

    def counted(parts: list[pa.Table]) -> pa.Table:
        nonlocal rows
        rows += sum(part.num_rows for part in parts)
        return count(parts)

    monkeypatch.setattr(statistics, "count", counted)
    combine, accumulator = Count(), Count().create_accumulator()
    for number in range(1000):
        accumulator = combine.add_input(accumulator, part(**{f"id_{number}": (1, 1.0), f"other_{number}": (1, 1.0)}))
    assert combine.extract_output(accumulator).num_rows == 2000
    # Sums of 32, 64, ... up to 1,024 rows or so, and of all in the end; by the square it is 67 sums of 1,000 on average.
    assert rows < 3 * 2000


@settings(max_examples=100, deadline=None)
@given(
    offset=st.sampled_from([0.0, -3.0, 1e9]),
    values=st.lists(st.floats(-100.0, 100.0).map(lambda value: float(np.float32(value))), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)
def test_moments_are_exact_whatever_the_parts(offset: float, values: list[float], cuts: list[int]) -> None:
    """Regression: sums of floats left the scale to the division of the work, in its last bit."""
    whole = offset + np.array(values)
    total = add_moments(Moments.of(part) for part in np.split(whole, sorted(cuts)))
    exact = [Fraction(value) for value in whole.tolist()]
    assert total == Moments(len(values), sum(exact, Fraction(0)), sum((each**2 for each in exact), Fraction(0)))
    # At 1e9 floats are a ten-millionth apart; their squares, of which the deviation is a difference, a hundred.
    if whole.std() > 1e-3:
        assert total.deviation == pytest.approx(whole.std(), rel=1e-4)


def test_the_deviation_is_that_of_the_whole_and_none_to_divide_by_is_one() -> None:
    assert Moments.of(np.array([20.0, 30.0])).deviation == 5.0
    assert Moments().deviation == Moments.of(np.array([5.0] * 3)).deviation == 1.0


def test_numbers_that_are_all_alike_have_no_deviation_whatever_rounding_makes_of_them() -> None:
    # The mean of ten times log(1 + 2), which no float is, is not quite it.
    _, moments = measured(*[example(DAY, age=2.0, visits=2.0)] * 10)
    assert (moments["age"].deviation, moments["visits"].deviation) == (1.0, 1.0)


def test_an_analysis_is_read_as_it_was_written(tmp_path: Path) -> None:
    ids = [b"\xff\xfe", b" spaced ", "ü🐜".encode(), b"nul\x00"]
    known = Known(entries(ids, [4.0, 3.0, 2.5, 2.5]), entries([b"\n", b""], [1.0, 2**-20]))
    scales = {"age": (1 / 3, 1e-300), "visits": (-2.5, 7.0)}
    files.write(str(tmp_path), {"item": known, "tag": Known()}, scales, DAY)
    (tmp_path / "vocabulary_tag").unlink()  # only the graph reads it
    assert_frame_equal(files.read_vocabulary(str(tmp_path), "item"), known.own)
    read = files.read_known(str(tmp_path), "item")
    assert_frame_equal(read.own, known.own)
    assert_frame_equal(read.waiting, known.waiting)
    assert files.read_span(str(tmp_path)) == DAY
    assert files.read_vocabulary(str(tmp_path), "tag").empty
    with pytest.raises(tf.errors.NotFoundError):  # or rows would be moved as if there had been no ids
        files.read_vocabulary(str(tmp_path), "device")
    assert files.read_scales(str(tmp_path)) == scales
    # And TensorFlow's lookup has the rows that the vocabulary has.
    lines = tf.lookup.TextFileInitializer(
        files.vocabulary_path(str(tmp_path), "item"),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    assert tf.lookup.StaticVocabularyTable(lines, 1).lookup(tf.constant(ids)).numpy().tolist() == [0, 1, 2, 3]


def analyse(
    folder: Path,
    day: int,
    examples: list[bytes],
    base: types.Artifact | None = None,
    held_out: Sequence[bytes] = (),
) -> types.Artifact:
    """A day's analysis by the step's executor; it becomes the day's model too, to continue from."""
    interactions, analysis = standard_artifacts.Examples(), Analysis()
    interactions.uri, interactions.split_names = f"{folder}/{day}/examples", '["train", "eval"]'
    analysis.uri = warm_start_folder(f"{folder}/{day}/model")
    for split, chosen in (("train", examples), ("eval", [example(day, item=b"held_out", age=1e6), *held_out])):
        path = Path(interactions.uri) / f"Split-{split}"
        path.mkdir(parents=True)
        for number, written in enumerate([chosen[::2], chosen[1::2]]):
            with tf.io.TFRecordWriter(f"{path}/{number}.gz", "GZIP") as writer:
                for each in written:
                    writer.write(each)
    Analyzer.EXECUTOR_SPEC.executor_class().Do(
        {"examples": [interactions], "base_model": [base] if base else []},
        {"analysis": [analysis]},
        {"feature_spec": SPEC.model_dump_json(), "day": day},
    )
    return analysis


def model_of(folder: Path, day: int) -> types.Artifact:
    model = standard_artifacts.Model()
    model.uri = f"{folder}/{day}/model"
    return model


def of_table(analysis: types.Artifact, table: str) -> tuple[dict[bytes, float], dict[bytes, float]]:
    """The ids with a row of their own, in order, and those that wait."""
    known = files.read_known(analysis.uri, table)
    return dict(known.own["count"]), dict(known.waiting["count"])


def test_the_second_day_continues_the_first_days_analysis(tmp_path: Path) -> None:
    # Items count half after a day. a, b and c are frequent enough, d is not; c is of the day before: 4 times 1/2.
    first = analyse(
        tmp_path,
        DAY,
        [example(DAY - 1, item=b"c")] * 4
        + [example(DAY, item=b"d")]
        + [example(DAY, item=item, age=age) for item, age in ((b"a", 20.0), (b"b", 30.0)) for _ in range(3)],
    )
    assert of_table(first, "item") == ({b"a": 3.0, b"b": 3.0, b"c": 2.0}, {b"d": 1.0, b"held_out": 1.0})
    assert list(of_table(first, "item")[0]) == [b"a", b"b", b"c"]
    assert files.read_scales(first.uri) == {"age": (25.0, 5.0)}

    # a comes once and b not at all, of 3/2 each; c has 1 left, which it lives by. d comes once more: 3/2 too, so it is admitted. e
    # is new. Yesterday's rows, which the window has again, are not counted again. Other ages, and for the first time visits.
    second = analyse(
        tmp_path,
        DAY + 1,
        [example(DAY + 1, item=b"a", age=70.0, visits=0.0), example(DAY + 1, item=b"f", tags=b"x")]
        + [example(DAY + 1, item=b"e")] * 4
        + [example(DAY + 1, item=b"d"), example(DAY, item=b"d")],
        model_of(tmp_path, DAY),
    )
    # The item that is held out counted 1 yesterday, and is held out again: 3/2, of which tomorrow knows.
    assert of_table(second, "item") == (
        {b"e": 4.0, b"a": 2.5, b"b": 1.5, b"d": 1.5, b"c": 1.0},
        {b"held_out": 1.5, b"f": 1.0},
    )
    assert of_table(second, "tag") == ({b"x": 1.0}, {})
    assert files.read_scales(second.uri) == {"age": (25.0, 5.0), "visits": (0.0, 1.0)}
    # Of eight items looked up, f alone goes to one of four buckets.
    nothing = {"ids": 0, "admitted": 0, "expired": 0, "lookups": 0, "oov_share": 0.0}
    assert json.loads(second.get_string_custom_property(recorded.TURNOVER)) == {
        "device": {**nothing, "oov_share": None, "bucket_ids": 0.0, "fullest_bucket_ids": 0},
        "item": {
            "ids": 5, "admitted": 2, "expired": 0, "lookups": 8,
            "oov_share": 1 / 8, "bucket_ids": 1 / 4, "fullest_bucket_ids": 1,
        },
        "tag": {**nothing, "ids": 1, "admitted": 1, "lookups": 1, "bucket_ids": 0.0, "fullest_bucket_ids": 0},
    }  # fmt: skip
    tables = ("device", "item", "tag")
    assert {path.name for path in Path(second.uri).iterdir()} == {
        "scales.json",
        "counted.json",
        *(f"vocabulary_{table}{ending}" for table in tables for ending in ("", ".parquet")),
        *(f"waiting_{table}.parquet" for table in tables),
    }

    # Two days later, as a day was closed, a quarter is left, of a 5/8: it goes, and waits for more. e has one of four.
    third = analyse(tmp_path, DAY + 3, [example(DAY + 3, item=b"g")] * 2, model_of(tmp_path, DAY + 1))
    assert of_table(third, "item") == ({b"g": 2.0, b"e": 1.0}, {b"held_out": 1.375, b"a": 0.625})
    # Nothing of it depends on when, or how often, it is done.
    again = analyse(tmp_path / "again", DAY + 3, [example(DAY + 3, item=b"g")] * 2, model_of(tmp_path, DAY + 1))
    for path in Path(third.uri).iterdir():
        assert path.read_bytes() == (Path(again.uri) / path.name).read_bytes(), path.name


def test_a_first_run_over_more_than_a_year_gives_rows_to_those_who_come_seldom(tmp_path: Path) -> None:
    """Regression: whoever had not come for 90 days had no row, so half of the lookups of a window of 400 went to buckets."""
    # As in a log of ratings, everybody comes on one day, ten times: user n on day n of 400. Tags count half after 90 days.
    people = [example(DAY - n, tags=b"user_%d" % n) for n in range(400) for _ in range(10)]
    known = of_table(analyse(tmp_path, DAY, people), "tag")
    # 10 / 2^(n/90) is 1/2 at n = 90 * log2(20) = 388.97: 11 of the 400 are forgotten. By the 90 days, 310 were.
    assert len(known[0]) == 389 and not known[1]


def test_analyses_of_older_code_are_read(tmp_path: Path) -> None:
    """It had whole numbers, of the newest window that had each id, and none that waits."""
    base = Path(warm_start_folder(f"{tmp_path}/{DAY}/model"))
    base.mkdir(parents=True)
    for table in ("item", "tag", "device"):
        ids = entries([b"a"], [8.0]).assign(count=[8], last_seen=[DAY])
        ids.reset_index().to_parquet(base / f"vocabulary_{table}.parquet", index=False)
    (base / "scales.json").write_text("{}")
    today = analyse(tmp_path, DAY + 1, [example(DAY + 1, item=b"a")], model_of(tmp_path, DAY))
    assert of_table(today, "item") == ({b"a": 5.0}, {b"held_out": 1.0})


def test_a_table_that_the_model_gone_on_from_lacks_starts_empty(tmp_path: Path) -> None:
    """Regression: it was looked for there, and the Trainer never came to name the change of shape."""
    analyse(tmp_path, DAY, [example(DAY, item=b"a", tags=b"x")])
    (Path(warm_start_folder(f"{tmp_path}/{DAY}/model")) / "vocabulary_tag.parquet").unlink()
    today = analyse(tmp_path, DAY + 1, [example(DAY + 1, item=b"a", tags=b"y")], model_of(tmp_path, DAY))
    assert of_table(today, "tag") == ({b"y": 1.0}, {})
