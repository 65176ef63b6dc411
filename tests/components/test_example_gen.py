"""Daily logs to examples, good and bad, through the steps' own executors."""

import bz2
import gzip
import json
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet
from tfx.types import standard_artifacts

from components.example_gen import columns, conversion, scalars
from components.example_gen.catalogue import CatalogueExecutor
from components.example_gen.day_driver import Request
from components.example_gen.held_out import user_hashes
from components.example_gen.interactions import InteractionExecutor
from components.example_gen.settings import ExampleGenSettings
from schemas.errors import UserError
from schemas.features import CatalogueColumns, FeatureSpec, NumberFeature

DAY = date(2026, 11, 24)  # a Tuesday
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "sku", "time": "at", "time_unit": "iso", "reward": "liked"},
        "catalogue": {"item": "sku", "title": "name"},
        "tables": {"sku": {"width": 4, "hash_buckets": 8}, "other": {"width": 2, "hash_buckets": 4}},
        "query": {
            "past": {"kind": "history", "table": "sku", "last": 2},
            "seed": {"kind": "id", "table": "sku", "derive": "last_in_history"},
            "hour": {"kind": "id", "table": "other", "derive": "hour_of_day"},
            "weekday": {"kind": "id", "table": "other", "derive": "day_of_week"},
            "age": {"kind": "number"},
        },
        "item": {
            "sku": {"kind": "id", "table": "sku"},
            "tags": {"kind": "ids", "table": "other", "max_values": 3, "weights": "tag_weights"},
        },
    }
)
CATALOGUE = "sku,name,tags,tag_weights\nA,Ant,x|y,1|0.5\nB,Bee,,\nC,Cat,z,2\n"
HEADER = "user,sku,at,liked,age"
GOOD = [
    "u,A,2026-11-24T01:00:00Z,1,30",
    "u,B,2026-11-24T02:00:00Z,0.5,30",
    "v,A,2026-11-24 03:00:00,1,",
    "u,C,2026-11-24T23:30:00+00:00,1,30",
]


class Shop:
    """A folder of data and the steps that read it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.settings = ExampleGenSettings.model_validate(
            {
                "interactions": {"path": f"{folder}/log/{{YYYY}}-{{MM}}-{{DD}}", "format": "csv"},
                "catalogue": {"path": f"{folder}/catalogue.csv", "format": "csv"},
                "split": {"by": "time", "hours": 1},
                "max_dropped_share": 1.0,
                **settings,
            }
        )
        folder.mkdir(exist_ok=True)
        (folder / "catalogue.csv").write_text(CATALOGUE)

    def log(self, rows: list[str], name: str = "part.csv", day: date = DAY, header: str = HEADER) -> Path:
        path = self.folder / "log" / day.isoformat() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "\n".join([header, *rows, ""]).encode("utf-8", "surrogateescape")
        packs: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress}
        path.write_bytes(packs.get(path.suffix, bytes)(content))
        return path

    def ingest(self, spec: FeatureSpec | None = None) -> tuple[dict[str, list[dict[str, list[Any]]]], dict[str, Any]]:
        """The examples of each split by time and user, and the accounting; by default of `SPEC` as it is when this is called."""
        parameters = Request.parameters(self.settings, spec or SPEC, DAY)
        catalogue, interactions = standard_artifacts.Examples(), standard_artifacts.Examples()
        catalogue.uri, interactions.uri = f"{self.folder}/out/catalogue", f"{self.folder}/out/interactions"
        CatalogueExecutor().Do({}, {"examples": [catalogue]}, parameters)
        InteractionExecutor().Do({"catalogue": [catalogue]}, {"examples": [interactions]}, parameters)
        splits = {split: read(f"{interactions.uri}/Split-{split}") for split in ("train", "eval")}
        return splits, json.loads(interactions.get_string_custom_property("rows"))


def read(folder: str) -> list[dict[str, list[Any]]]:
    examples = []
    for record in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{folder}/*"), compression_type="GZIP"):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        examples.append(
            {
                n: list(getattr(f, f.WhichOneof("kind")).value) if f.WhichOneof("kind") else []
                for n, f in features.items()
            }
        )
    return sorted(examples, key=lambda e: (e["timestamp"], e["query_id"]))


def test_an_example_has_its_items_features_and_its_users_past(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log(GOOD)
    splits, rows = shop.ingest()
    assert (rows["rows"], rows["dropped"], rows["splits"]) == (4, {}, {"train": 3, "eval": 1})
    first, second, other = splits["train"]
    assert first["past"] == [] and first["seed"] == []
    assert second["past"] == [b"A"] and second["seed"] == [b"A"] and second["reward"] == [0.5]
    assert other["past"] == [] and other["age"] == []
    assert first["tags"] == [b"x", b"y"] and first["tags_weights"] == [1.0, 0.5]
    held_out = splits["eval"][0]
    assert held_out["past"] == [b"A", b"B"] and held_out["seed"] == [b"B"]
    assert held_out["hour"] == [b"23"] and held_out["weekday"] == [b"1"]
    assert held_out["timestamp"] == [1795563000 * 1_000_000]  # 2026-11-24T23:30:00Z


def test_a_history_of_a_kind_of_event_has_only_that_kind(tmp_path: Path) -> None:
    declared = SPEC.model_dump()
    declared["interactions"]["event"] = {"column": "kind", "weights": {"view": 0, "buy": 1}, "zero_in_history": True}
    declared["query"] |= {
        "bought": {"kind": "history", "table": "sku", "last": 5, "events": ["buy"]},
        "seen": {"kind": "history", "table": "sku", "last": 5, "events": ["view"]},
    }
    shop = Shop(tmp_path)
    hours = [(1, "A", "view"), (2, "B", "buy"), (3, "C", "view"), (4, "A", "buy"), (23, "B", "buy")]
    shop.log([f"u,{sku},2026-11-24T{hour:02}:30:00Z,1,30,{kind}" for hour, sku, kind in hours], header=f"{HEADER},kind")
    splits, _ = shop.ingest(FeatureSpec.model_validate(declared))
    *_, fourth = splits["train"]
    assert (fourth["bought"], fourth["seen"], fourth["past"]) == ([b"B"], [b"A", b"C"], [b"B", b"C"])
    (last,) = splits["eval"]
    assert (last["bought"], last["seen"], last["past"]) == ([b"B", b"A"], [b"A", b"C"], [b"C", b"A"])
    assert last["event_kind"] == [b"buy"] and last["seed"] == [b"A"]


def test_a_blocked_item_is_known_but_neither_retrieved_nor_judged_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = CatalogueColumns(item="sku", title="name", blocked="hidden")
    monkeypatch.setattr(sys.modules[__name__], "SPEC", SPEC.model_copy(update={"catalogue": columns}))
    shop = Shop(tmp_path)
    (tmp_path / "catalogue.csv").write_text(
        "sku,name,tags,tag_weights,hidden\nA,Ant,x|y,1|0.5,0\nB,Bee,w,1,1\nC,Cat,z,2,\n"
    )
    shop.log([*GOOD, "v,B,2026-11-24T23:40:00Z,1,"])
    splits, rows = shop.ingest()
    items = {split: [(e["query_id"], e["candidate_id"], e["past"]) for e in splits[split]] for split in splits}
    assert items["eval"] == [([b"u"], [b"C"], [b"A", b"B"])]
    # B was taken in the hour that is held out: it is not trained on either, and counted.
    assert rows["splits"] == {"eval": 1, "held out, but blocked": 1, "train": 3} and rows["dropped"] == {}
    bee = next(e for e in splits["train"] if e["candidate_id"] == [b"B"])
    assert bee["tags"] == [b"w"]
    retrievable, blocked = (catalogue_ids(f"{tmp_path}/out/catalogue/Split-{s}") for s in ("catalogue", "blocked"))
    assert (retrievable, blocked) == ([b"A", b"C"], [b"B"])


def test_filter_columns_are_only_in_the_catalogue(tmp_path: Path) -> None:
    declared = SPEC.model_dump()
    filters = {"lands": {"kind": "ids", "separator": " "}, "stock": {"kind": "number", "column": "left"}}
    declared["catalogue"]["filters"] = filters | {"tags": {"kind": "ids"}}
    shop = Shop(tmp_path)
    (tmp_path / "catalogue.csv").write_text(
        "sku,name,tags,tag_weights,lands,left\nA,Ant,x|y,1|0.5,de fr,3\nB,Bee,w,1,,true\nC,Cat,z,2,at,\n"
    )
    shop.log(GOOD)
    splits, _ = shop.ingest(FeatureSpec.model_validate(declared))
    assert all({"lands", "stock"}.isdisjoint(each) for each in splits["train"])
    items = {}
    for record in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{tmp_path}/out/catalogue/Split-catalogue/*"), "GZIP"):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        values = feature["lands"].bytes_list.value, feature["stock"].float_list.value, feature["tags"].bytes_list.value
        items[feature["candidate_id"].bytes_list.value[0]] = tuple(map(list, values))
    assert items == {
        b"A": ([b"de", b"fr"], [3.0], [b"x", b"y"]), b"B": ([], [1.0], [b"w"]), b"C": ([b"at"], [], [b"z"]),
    }  # fmt: skip


def catalogue_ids(folder: str) -> list[bytes]:
    records = tf.data.TFRecordDataset(tf.io.gfile.glob(f"{folder}/*"), compression_type="GZIP").as_numpy_iterator()
    return sorted(
        tf.train.Example.FromString(record).features.feature["candidate_id"].bytes_list.value[0] for record in records
    )


@pytest.mark.parametrize("name", ["part.csv.gz", "part.csv.bz2", "part.parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    plain = Shop(tmp_path / "plain")
    plain_file = plain.log(GOOD)
    is_parquet = name.endswith("parquet")
    path = f"{tmp_path}/other/log/{{YYYY}}-{{MM}}-{{DD}}"
    other = Shop(tmp_path / "other", interactions={"path": path, "format": "parquet" if is_parquet else "csv"})
    if is_parquet:
        folder = tmp_path / "other" / "log" / DAY.isoformat()
        folder.mkdir(parents=True)
        table = pd.read_csv(plain_file)
        table["at"] = pd.to_datetime(table["at"], format="ISO8601", utc=True)
        table.to_parquet(folder / name)
    else:
        other.log(GOOD, name)
    assert plain.ingest()[0] == other.ingest()[0]


@pytest.mark.parametrize(
    ("row", "reason", "shown"),
    [
        ("u,A,2026-11-24T04:00:00Z,1.5,30", "liked: outside [0, 1]", ": '1.5'"),
        ("u,A,2026-11-24T04:00:00Z,much,30", "liked: not a number", ": 'much'"),
        ("u,A,2026-11-24T04:00:00Z,,30", "liked: missing", ""),
        ("u,A,yesterday,1,30", "at: not a time in iso", ": 'yesterday'"),
        ("u,A,2026-11-23T04:00:00Z,1,30", "at: not within its folder's day", ": '2026-11-23T04:00:00Z'"),
        ("u,A,2026-11-24T04:00:00Z,1,old", "age: not a number", ": 'old'"),
        (",A,2026-11-24T04:00:00Z,1,30", "user: missing", ""),
        ("u,Z,2026-11-24T04:00:00Z,1,30", "sku: an item that the catalogue lacks", ""),
        (GOOD[0], "rows with the user, item and time of another", ""),
        ("u,A,2026-11-24T04:00:00Z,1", "rows with 4 columns instead of 5", ""),
        ("\udcff,A,2026-11-24T04:00:00Z,1,30", "user: not UTF-8", r": '\\xff'"),
        ("u" * 10_240 + ",A,2026-11-24T04:00:00Z,1,30", "user: longer than 1024 bytes", f": '{'u' * 40}...'"),
    ],
)
def test_a_bad_row_is_dropped_counted_and_named(tmp_path: Path, row: str, reason: str, shown: str) -> None:
    shop = Shop(tmp_path)
    path = shop.log([*GOOD, row, "w,A,2026-11-24T05:00:00Z,1,30"])
    _splits, rows = shop.ingest()
    # The header is line 1, the good rows are lines 2 to 5.
    assert rows["dropped"] == {reason: {"rows": 1, "first": [f"{path} line 6{shown}"]}}
    assert rows["rows"] == 6
    assert sum(rows["splits"].values()) == 5


@pytest.mark.parametrize(
    ("repeated", "rewards", "dropped", "filtered"),
    [
        ("drop", [0.5], {"rows with the user, item and time of another": 2}, {}),  # the greatest stays
        ("add_up", [1.0], {}, {"added to another of the same user, item and time": 2}),  # .25 + .5 + .375, at most 1
        ("keep", [0.5, 0.375, 0.25], {}, {}),
    ],
)
def test_the_same_item_twice_in_a_basket(
    tmp_path: Path, repeated: str, rewards: list[float], dropped: dict[str, int], filtered: dict[str, int]
) -> None:
    shop = Shop(tmp_path, repeated=repeated)
    shop.log([*(f"w,A,2026-11-24T05:00:00Z,{reward},30" for reward in (0.25, 0.5, 0.375)), *GOOD])
    splits, rows = shop.ingest()
    basket = [example for example in splits["train"] if example["query_id"] == [b"w"]]
    assert sorted(example["reward"][0] for example in basket) == sorted(rewards) and all(
        e["past"] == [] for e in basket
    )
    assert {reason: found["rows"] for reason, found in rows["dropped"].items()} == dropped
    assert rows["filtered"] == filtered


def test_strange_ids_are_ids(tmp_path: Path) -> None:
    path = f"{tmp_path}/log/{{YYYY}}-{{MM}}-{{DD}}"
    shop = Shop(tmp_path, interactions={"path": path, "format": "csv", "quoted_newlines": True})
    strange = ["with space", '"two\nlines"', "🐜"]
    shop.log([*GOOD, *(f"{user},A,2026-11-24T06:00:00Z,1,30" for user in strange)])
    splits, rows = shop.ingest()
    assert not rows["dropped"]
    assert {b"with space", b"two\nlines", "🐜".encode()} < {e["query_id"][0] for e in splits["train"]}


@pytest.mark.parametrize("stray_rows", [[0], [0, 2]])
def test_a_stray_quote_is_an_error_that_names_its_line(tmp_path: Path, stray_rows: list[int]) -> None:
    """Regression: it took the rows up to the next quote into its value, and one dropped row was counted."""
    shop = Shop(tmp_path)
    path = shop.log([('"' if number in stray_rows else "") + row for number, row in enumerate(GOOD)])
    with pytest.raises(UserError, match=rf"{path}: has a quote in line 2 that this line does not close"):
        shop.ingest()


def test_quotes_that_their_line_closes_are_no_fault(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log([*GOOD, '"w ""the"" one, and only",A,2026-11-24T05:00:00Z,1,30'])
    splits, rows = shop.ingest()
    assert not rows["dropped"]
    assert b'w "the" one, and only' in {e["query_id"][0] for e in splits["train"]}


def test_a_number_below_zero_has_no_logarithm() -> None:
    """Regression: it became 0 without a word."""
    column = columns.Column("price", "price", "number", minimum=0.0)
    converted = conversion.convert(column, pa.array([-5.0, 0.0, None, 3.0]), scalars.Form(10))
    assert {reason: mask.tolist() for reason, mask in converted.faults.items()} == {
        "not a number": [False] * 4,
        "below 0": [True, False, False, False],
        "beyond 9.22e+18": [False] * 4,
    }
    spec = SPEC.model_copy(update={"item": {"price": NumberFeature(kind="number", scale="log")}})
    assert columns.catalogue_columns(spec)[-1].minimum == 0.0


def test_whole_numbers_too_long_for_a_float_are_rounded() -> None:
    converted = conversion.convert(columns.Column("n", "n", "number"), pa.array([20_000_001]), scalars.Form(10))
    assert converted.values.to_pylist() == [20_000_000.0]


def test_a_feature_that_no_item_has_is_missing_everywhere(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log(GOOD)
    (tmp_path / "catalogue.csv").write_text("sku,name,tags,tag_weights\nA,,,\nB,,,\nC,,,\n")
    splits, rows = shop.ingest()
    assert rows["splits"] == {"train": 3, "eval": 1}
    assert not splits["train"][0].get("tags")


def test_too_many_bad_rows_stop_the_run(tmp_path: Path) -> None:
    shop = Shop(tmp_path, max_dropped_share=0.1)
    shop.log([*GOOD, "u,Z,2026-11-24T04:00:00Z,1,30"])
    with pytest.raises(UserError, match=r"1 of 5 rows .* data.max_dropped_share allows \(0.1\)(.|\n)*line 6"):
        shop.ingest()


def test_of_entries_with_one_id_the_first_stays(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log(GOOD)
    (tmp_path / "catalogue.csv").write_text(CATALOGUE + "A,Again,q,1\n")
    splits, _ = shop.ingest()
    assert splits["train"][0]["tags"] == [b"x", b"y"]


def test_a_missing_day_is_an_error_that_names_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with pytest.raises(UserError, match=r"2026-11-24: expected at least one csv file"):
        shop.ingest()


def test_an_empty_day_is_an_error(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    path = shop.log([])
    with pytest.raises(UserError, match=f"No row of the interactions is left to work with; 0 came from {path}"):
        shop.ingest()


def test_a_day_that_is_empty_beside_full_ones_is_an_error(tmp_path: Path) -> None:
    shop = Shop(tmp_path, window_days=2)
    shop.log([row.replace("11-24", "11-23") for row in GOOD], day=date(2026, 11, 23))
    shop.log([])
    with pytest.raises(UserError, match="2026-11-24 is empty"):
        shop.ingest()


def days_before(days: int, rows: list[str]) -> list[str]:
    """Rows of the day as they would have been logged a number of days before."""
    return [row.replace("2026-11-24", str(DAY - timedelta(days=days))) for row in rows]


def test_a_week_before_the_day_is_read_for_histories(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log(["u,A,2026-11-24T01:00:00Z,1,", "u,B,2026-11-24T23:30:00Z,1,"])
    for days, item in ((1, "C"), (7, "B"), (8, "A")):  # eight days before is a day too far
        shop.log(days_before(days, [f"u,{item},2026-11-24T05:00:00Z,1,"]), day=DAY - timedelta(days=days))
    splits, rows = shop.ingest()
    assert [example["past"] for example in splits["train"]] == [[b"B", b"C"]]
    assert (rows["rows"], rows["before"], rows["rows_of_day"], rows["splits"]) == (4, 2, 2, {"train": 1, "eval": 1})
    # Of the days that nobody asked for, five are not there, which is said and stops nothing.
    assert rows["absent"] == [f"2026-11-{day}" for day in (18, 19, 20, 21, 22)]
    none = Shop(tmp_path / "none", history_days=0)
    none.log(["u,A,2026-11-24T01:00:00Z,1,", "u,B,2026-11-24T23:30:00Z,1,"])
    none.log(days_before(1, ["u,C,2026-11-24T05:00:00Z,1,"]), day=DAY - timedelta(days=1))
    splits, rows = none.ingest()
    assert [example["past"] for example in splits["train"]] == [[]]
    assert (rows["rows"], rows["before"], rows["absent"]) == (2, 0, [])


def test_an_incomplete_day_of_histories_is_skipped_and_an_unreadable_one_is_an_error(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path)
    shop.log(GOOD)
    before = DAY - timedelta(days=1)
    half = shop.log(days_before(1, GOOD), name="part.csv.tmp", day=before)
    assert str(before) in shop.ingest()[1]["absent"]
    half.rename(half.with_name("part.csv"))
    assert str(before) not in shop.ingest()[1]["absent"]
    half.with_name("part.csv").write_text("user,item\n")
    with pytest.raises(UserError, match="expected a column sku"):
        shop.ingest()
    # What is asked for by a number has to be there.
    asked = Shop(tmp_path / "asked", history_days=2)
    asked.log(GOOD)
    with pytest.raises(UserError, match=r"(?s)of 2 day\(s\) are missing .*data\.history_days"):
        asked.ingest()


def test_rows_read_only_for_histories_count_towards_no_limit(tmp_path: Path) -> None:
    # A bad row of two is a half. Neither do the twenty good rows of the day before hide it, nor do their bad ones add to it.
    good = [f"w{n},A,2026-11-24T0{n % 9}:30:00Z,1," for n in range(20)]
    shop = Shop(tmp_path, max_dropped_share=0.3)
    shop.log([GOOD[0], "u,nothing,2026-11-24T02:00:00Z,1,"])
    shop.log(days_before(1, good), day=DAY - timedelta(days=1))
    with pytest.raises(UserError, match="1 of 2 rows of the interactions are at fault"):
        shop.ingest()
    other = Shop(tmp_path / "other", max_dropped_share=0.3)
    other.log(GOOD)
    bad = [
        "x,nothing,2026-11-24T02:00:00Z,1,",
        ",A,2026-11-24T02:00:00Z,1,",
        "x,A,2026-11-24T02:00:00Z,1,,,",
        GOOD[0],
        GOOD[0],
    ]
    other.log(days_before(1, bad), day=DAY - timedelta(days=1))
    _, rows = other.ingest()
    assert (rows["rows"], rows["before"], sum(each["rows"] for each in rows["dropped"].values())) == (9, 5, 4)


def test_a_day_that_is_empty_behind_days_of_histories_is_an_error(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log([])
    shop.log(days_before(1, GOOD), day=DAY - timedelta(days=1))
    with pytest.raises(
        UserError, match="2026-11-24 is empty: 4 rows were read from 2026-11-17 on, none of them of that day"
    ):
        shop.ingest()


def test_a_folder_or_an_unreadable_name_among_the_files_is_an_error(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.log(GOOD)
    shop.log(GOOD, name="more/part.csv")
    with pytest.raises(UserError, match=r"expected files, found a folder .*/more/part.csv"):
        shop.ingest()
    (tmp_path / "log" / DAY.isoformat() / "more").rename(tmp_path / "moved")
    shop.log(GOOD, name="\udce9.csv")  # a Latin-1 e with an acute accent
    with pytest.raises(UserError, match=r"expected names in UTF-8, found '.*udce9.csv'"):
        shop.ingest()


def test_a_day_without_its_marker_is_not_read(tmp_path: Path) -> None:
    path = f"{tmp_path}/log/{{YYYY}}-{{MM}}-{{DD}}"
    shop = Shop(tmp_path, interactions={"path": path, "format": "csv", "success_marker": "_SUCCESS"})
    shop.log(GOOD)
    with pytest.raises(UserError, match="expected the success marker _SUCCESS"):
        shop.ingest()


def test_a_misspelt_column_is_named_with_a_suggestion(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    path = shop.log(GOOD, header=HEADER.replace("liked", "likd"))
    with pytest.raises(UserError, match=rf"{path}: expected a column liked \(did you mean likd\?\)"):
        shop.ingest()


def test_a_wrong_type_is_an_error(tmp_path: Path) -> None:
    path = f"{tmp_path}/log/{{YYYY}}-{{MM}}-{{DD}}"
    shop = Shop(tmp_path, interactions={"path": path, "format": "parquet"})
    table = pd.DataFrame([row.split(",") for row in GOOD], columns=HEADER.split(","))
    (tmp_path / "log" / DAY.isoformat()).mkdir(parents=True)
    table.to_parquet(tmp_path / "log" / DAY.isoformat() / "part.parquet")
    with pytest.raises(UserError, match="expected numbers in column liked, found string"):
        shop.ingest()


@pytest.mark.parametrize("name", ["part.csv.gz", "part.parquet"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    path = f"{tmp_path}/log/{{YYYY}}-{{MM}}-{{DD}}"
    kind = "parquet" if name.endswith("parquet") else "csv"
    shop = Shop(tmp_path, interactions={"path": path, "format": kind})
    file = shop.log(GOOD * 50, name)
    if kind == "parquet":
        pd.DataFrame({"user": ["u"] * 500}).to_parquet(file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{name}: cannot be read to its end as {kind}"):
        shop.ingest()


def test_a_hash_split_is_the_same_on_every_run(tmp_path: Path) -> None:
    shop = Shop(tmp_path, split={"by": "hash", "share": 0.3})
    shop.log([f"u{n},A,2026-11-24T05:00:{n % 60:02d}Z,1,30" for n in range(400)])
    first, _rows = shop.ingest()
    held_out = [e["query_id"] for e in first["eval"]]
    assert 80 < len(held_out) < 160  # 120 expected, standard deviation 9
    (tmp_path / "out").rename(tmp_path / "before")
    assert [e["query_id"] for e in shop.ingest()[0]["eval"]] == held_out


def test_a_split_by_user_holds_out_whole_users_and_others_each_day(tmp_path: Path) -> None:
    shop = Shop(tmp_path, split={"by": "user", "share": 0.3})
    shop.log([f"u{n},{item},2026-11-24T0{hour}:00:00Z,1,30" for n in range(20) for hour, item in enumerate("ABC")])
    splits, accounting = shop.ingest()
    held_out, trained = ({e["query_id"][0] for e in splits[split]} for split in ("eval", "train"))
    assert held_out and trained and not held_out & trained and len(held_out | trained) == 20
    assert accounting["splits"] == {"eval": 3 * len(held_out), "train": 3 * len(trained)}
    assert splits["eval"][-1]["past"] == [b"A", b"B"]  # what a held-out user did before is what it is asked with
    table = pa.table({"query_id": pa.array([f"u{n}".encode() for n in range(1000)])})
    today, tomorrow = (user_hashes(table, span) < 0.3 * 2.0**64 for span in (20_000, 20_001))
    assert 70 < np.count_nonzero(today & tomorrow) < 110  # .09 of 1,000


def test_a_day_of_few_users_is_split_all_the_same(tmp_path: Path) -> None:
    """One in a hundred of two users is no user, so the first of them is held out."""
    shop = Shop(tmp_path, split={"by": "user", "share": 0.01})
    shop.log(GOOD)
    splits, _ = shop.ingest()
    held_out, trained = ({e["query_id"][0] for e in splits[split]} for split in ("eval", "train"))
    assert len(held_out) == 1 and len(trained) == 1 and held_out != trained


def test_of_a_single_user_the_newest_interactions_are_held_out(tmp_path: Path) -> None:
    shop = Shop(tmp_path, split={"by": "user"})
    shop.log([f"u,{item},2026-11-24T0{hour}:00:00Z,1,30" for hour, item in enumerate("ABCABC")])
    splits, _ = shop.ingest()
    # The .7 quantile of six times is that of the fourth: two are newer.
    assert [e["candidate_id"][0] for e in splits["eval"]] == [b"B", b"C"]
    assert [e["past"] for e in splits["train"]] == [[], [b"A"], [b"A", b"B"], [b"B", b"C"]]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_split_without_a_reward_is_an_error(tmp_path: Path, split: str) -> None:
    shop = Shop(tmp_path)
    last = GOOD[-1].replace(",1,30", ",0,30") if split == "eval" else GOOD[-1]
    first = GOOD[:-1] if split == "eval" else ["u,A,2026-11-24T01:00:00Z,0,30"]
    shop.log([*first, last])
    with pytest.raises(UserError, match=f"The {split} split has no reward above 0 in"):
        shop.ingest()


def test_the_first_places_are_the_first(tmp_path: Path) -> None:
    """Regression: they were sorted as text, line 10 before line 9."""
    shop = Shop(tmp_path)
    items = "AAAAZZZZ"  # behind the header and the four good rows: the unknown item is in lines 10 to 13
    path = shop.log([*GOOD, *(f"w,{item},2026-11-24T05:00:{second:02d}Z,1,30" for second, item in enumerate(items))])
    first = shop.ingest()[1]["dropped"]["sku: an item that the catalogue lacks"]["first"]
    assert first == [f"{path} line {line}" for line in (10, 11, 12)]


def test_a_parquet_file_with_two_columns_of_one_name_is_an_error(tmp_path: Path) -> None:
    path = f"{tmp_path}/log/{{YYYY}}-{{MM}}-{{DD}}"
    shop = Shop(tmp_path, interactions={"path": path, "format": "parquet"})
    folder = tmp_path / "log" / DAY.isoformat()
    folder.mkdir(parents=True)
    parquet.write_table(pa.Table.from_arrays([pa.array(["u"])] * 2, ["user", "user"]), folder / "part.parquet")
    with pytest.raises(UserError, match=r"part\.parquet: has more than one column named user"):
        shop.ingest()
