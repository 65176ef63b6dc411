"""Which table an interaction sees: never one that knows its own day, where there is another."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx.types import artifact_utils, standard_artifacts

from components import recorded, utc
from components.example_gen import sources
from components.example_gen.catalogue import CatalogueExecutor, judged_split
from components.example_gen.day_driver import Request
from components.example_gen.interactions import InteractionExecutor
from components.example_gen.point_in_time import Tables
from components.example_gen.settings import ExampleGenSettings
from components.example_gen.users import UserExecutor
from components.trainer.inputs import as_known_on, looked_up, lookup_for_queries, lookup_for_training
from schemas import features
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, SEEN_THROUGH, TIMESTAMP, FeatureSpec
from tests.components.test_example_gen import read

DAY = date(2026, 11, 24)
SPEC: dict[str, Any] = {
    "interactions": {"user": "user", "item": "sku", "time": "at", "time_unit": "iso"},
    "catalogue": {"item": "sku", "title": "name"},
    "users": {"user": "user", "features": ["visits", "since"]},
    "tables": {"sku": {"width": 2, "hash_buckets": 4}, "tag": {"width": 2, "hash_buckets": 4}},
    "query": {
        "seed": {"kind": "id", "table": "sku", "derive": "last_in_history"},
        "past": {"kind": "history", "table": "sku", "last": 3},
        "seed_looks": {"kind": "looked_up", "of": "seed", "feature": "looks"},
        "visits": {"kind": "number", "scale": "none"},
        "since": {"kind": "number", "scale": "none", "changes": False},
    },
    "item": {
        "sku": {"kind": "id", "table": "sku"},
        "views": {"kind": "number", "scale": "none"},
        "tags": {"kind": "ids", "table": "tag", "max_values": 2},
        "looks": {"kind": "vector", "size": 2},
        "maker": {"kind": "id", "table": "tag", "changes": False},
    },
}
OF = FeatureSpec.model_validate(SPEC)
HEADER = "sku,name,views,tags,looks,maker\n"


class Shop:
    """A folder with catalogues and users' tables of days, and the steps that read them."""

    def __init__(self, folder: Path, spec: FeatureSpec = OF, **settings: Any) -> None:
        self.folder, self.spec = folder, spec
        self.settings = ExampleGenSettings.model_validate(
            {
                "interactions": {"path": f"{folder}/log/{{YYYY}}-{{MM}}-{{DD}}.csv", "format": "csv"},
                "catalogue": {"path": f"{folder}/items/{{YYYY}}-{{MM}}-{{DD}}.csv", "format": "csv"},
                "users": {"path": f"{folder}/users/{{YYYY}}-{{MM}}-{{DD}}.csv", "format": "csv"},
                "split": {"by": "time", "hours": 1},
                "max_dropped_share": 0,
                **settings,
            }
        )
        for back in range(3):
            day = DAY - timedelta(days=back)
            self.write("log", day, "user,sku,at\n", f"u,A,{day}T01:00:00Z\nu,B,{day}T02:00:00Z\nv,A,{day}T23:30:00Z\n")

    def write(self, kind: str, day: date, header: str, rows: str) -> None:
        (self.folder / kind).mkdir(parents=True, exist_ok=True)
        (self.folder / kind / f"{day}.csv").write_text(header + rows)

    def tables(self, **rows: str) -> None:
        """Catalogues by the day of November, and a users' table of each of these days whose visits are the day's number."""
        for day, content in rows.items():
            when = DAY.replace(day=int(day.removeprefix("day")))
            self.write("items", when, HEADER, content)
            self.write("users", when, "user,visits,since\n", f"u,{when.day},{when.day}\n")

    def ingest(self) -> dict[str, Any]:
        made = {name: standard_artifacts.Examples() for name in ("catalogue", "users", "interactions")}
        for name, each in made.items():
            each.uri = f"{self.folder}/out/{name}"
        parameters = Request.parameters(self.settings, self.spec, DAY)
        CatalogueExecutor().Do({}, {"examples": [made["catalogue"]]}, parameters)
        UserExecutor().Do({}, {"examples": [made["users"]]}, parameters)
        inputs = {name: [made[name]] for name in ("catalogue", "users")}
        InteractionExecutor().Do(inputs, {"examples": [made["interactions"]]}, parameters)
        return made


def entries(examples: Any, split: str) -> list[dict[str, list[Any]]]:
    rows = []
    for record in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{examples.uri}/Split-{split}/*"), compression_type="GZIP"):
        found = tf.train.Example.FromString(record.numpy()).features.feature
        rows.append(
            {n: list(getattr(f, f.WhichOneof("kind")).value) if f.WhichOneof("kind") else [] for n, f in found.items()}
        )
    return sorted(rows, key=lambda each: (each[CANDIDATE_ID], each.get(SEEN_THROUGH, [])))


def seen(examples: Any, *names: str) -> dict[tuple[int, str], list[Any]]:
    """By the day of November, and the user and the item, what interactions have."""
    found = {}
    for split in ("train", "eval"):
        for each in read(f"{examples.uri}/Split-{split}"):
            day = (utc.EPOCH + timedelta(days=each["timestamp"][0] // utc.MICROSECONDS_A_DAY)).day
            key = (each["query_id"][0] + each[CANDIDATE_ID][0]).decode()
            found[day, key] = [value for name in names for value in each[name]]
    return found


def test_a_count_of_the_interactions_own_day_is_not_seen(tmp_path: Path) -> None:
    # The views of each day's catalogue know that day: a model that sees them is told what was taken.
    shop = Shop(tmp_path, window_days=2)
    shop.tables(
        day22="A,Ant,22,x,1|0,m\n",
        day23="A,Ant,23,x,1|0,m\nB,Bee,230,,,\n",
        day24="A,Ant,24,x|y,0|1,n\nB,Bee,240,,,\n",
    )
    made = shop.ingest()
    # A of the 23rd has the catalogue of the 22nd, of the 24th that of the 23rd; v's of the 24th is held out. B came on the 23rd:
    # its first day has its first catalogue. What is declared never to change is the newest's.
    assert seen(made["interactions"], "views", "tags", "maker") == {
        (23, "uA"): [22.0, b"x", b"n"],
        (23, "vA"): [22.0, b"x", b"n"],
        (23, "uB"): [230.0],
        (24, "uA"): [23.0, b"x", b"n"],
        (24, "vA"): [23.0, b"x", b"n"],
        (24, "uB"): [230.0],
    }
    of_users = seen(made["interactions"], "visits", "since")
    assert (of_users[23, "uA"], of_users[24, "uB"], of_users[24, "vA"]) == ([22.0, 24.0], [23.0, 24.0], [])
    # Served is the newest catalogue; what is held out is ranked among the items as they were the evening before.
    assert [each["views"] for each in entries(made["catalogue"], "catalogue")] == [[24.0], [240.0]]
    assert [each["views"] for each in entries(made["catalogue"], judged_split(made["catalogue"]))] == [[23.0], [230.0]]
    assert made["catalogue"].get_int_custom_property(recorded.JUDGED_DAY) == utc.span(DAY)
    rows = json.loads(made["catalogue"].get_string_custom_property("rows"))
    assert (rows["rows"], rows["before"], rows["splits"]) == (5, 3, {"catalogue": 2, "earlier": 3})


def test_only_differing_rows_of_earlier_catalogues_are_kept(tmp_path: Path) -> None:
    shop = Shop(tmp_path, window_days=3)
    shop.tables(
        day20="A,Ant,1,x,1|0,m\nB,Bee,1,,,m\n",
        day22="A,Ant,1,x,1|0,m\nB,Bee,1,,,m\nC,Cat,1,x,,m\n",
        day23="A,Anton,1,x,1|0,n\nB,Bee,2,,,m\n",
        day24="A,Ant,1,y,1|0,m\nB,Bee,2,,0|1,m\nC,Cat,1,x,,m\n",
    )
    made = shop.ingest()
    # A differs on the 24th alone: the row of the 23rd stands for those before it. Its title and maker are the newest's. B differs
    # on the 23rd and, by looks that it did not have, on the 24th. C was gone on the 23rd, and is what it was.
    kept = [
        (each[CANDIDATE_ID][0], each[SEEN_THROUGH][0], each["views"]) for each in entries(made["catalogue"], "earlier")
    ]
    last = utc.span(DAY)
    assert kept == [(b"A", last, [1.0]), (b"B", last - 1, [1.0]), (b"B", last, [2.0])]
    assert entries(made["catalogue"], "earlier")[0]["maker"] == [b"m"]
    # The window's first day is the 22nd: the table before it is that of the 20th, and older ones are not read.
    shop.write("items", DAY.replace(day=19), "broken\n", "1\n")
    files = sources.catalogue_files(shop.settings, DAY, DAY.replace(day=22)).files
    assert [file.day.day for file in files if file.day] == [24, 23, 22, 20]


def test_where_nothing_changes_no_earlier_table_is_read(tmp_path: Path) -> None:
    spec = json.loads(json.dumps(SPEC))
    for name in ("views", "tags", "looks"):
        spec["item"][name]["changes"] = False
    spec["query"]["visits"]["changes"] = False
    shop = Shop(tmp_path, FeatureSpec.model_validate(spec))
    shop.tables(day23="broken\n", day24="A,Ant,24,x,1|0,m\nB,Bee,1,,,\n")
    shop.write("items", DAY - timedelta(days=1), "broken\n", "1\n")
    made = shop.ingest()
    assert seen(made["interactions"], "views")[24, "uA"] == [24.0]
    assert artifact_utils.decode_split_names(made["catalogue"].split_names) == ["catalogue"]
    assert judged_split(made["catalogue"]) == "catalogue"


def test_a_table_that_is_not_there_to_its_end_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.tables(day22="A,Ant,22,x,1|0,m\nB,Bee,1,,,\n", day24="A,Ant,24,x,1|0,m\nB,Bee,1,,,\n")
    shop.write("items", DAY - timedelta(days=1), HEADER, "")
    (tmp_path / "items" / "2026-11-23.csv").rename(tmp_path / "items" / "2026-11-23.csv.tmp")
    made = shop.ingest()
    assert seen(made["interactions"], "views")[24, "uA"] == [22.0]


def test_faults_of_earlier_tables_count_towards_no_limit_and_an_empty_one_of_the_day_is_an_error(
    tmp_path: Path,
) -> None:
    shop = Shop(tmp_path)
    shop.tables(day23="A,Ant,23,x,1|0,m\n,None,1,,,\nA,Twice,1,,,\n", day24="A,Ant,24,x,1|0,m\nB,Bee,1,,,\n")
    rows = json.loads(shop.ingest()["catalogue"].get_string_custom_property("rows"))
    assert (rows["rows"], rows["before"]) == (5, 3)
    assert {reason: each["rows"] for reason, each in rows["dropped"].items()} == {
        "sku: missing": 1,
        "sku: an id that an earlier row has": 1,
    }
    shop.tables(day24="")
    with pytest.raises(UserError, match="No row of the catalogue is left to work with"):
        shop.ingest()


def test_two_held_out_days_are_judged_by_the_items_as_they_were_before_the_first(tmp_path: Path) -> None:
    shop = Shop(tmp_path, window_days=3, split={"by": "time", "hours": 25})
    shop.tables(**{f"day{day}": f"A,Ant,{day},x,1|0,m\nB,Bee,1,,,\n" for day in (21, 22, 23, 24)})
    made = shop.ingest()
    assert [each["views"] for each in entries(made["catalogue"], "judged")] == [[22.0], [1.0]]


def test_training_looks_up_values_known_before_each_interaction() -> None:
    # Item 5 looked like 1 through day 10, like 2 through day 12, and does like 3 now; item 7 never changed.
    items = {
        CANDIDATE_ID: tf.constant([7, 5, 5, 5], tf.int64),
        SEEN_THROUGH: tf.constant([2**21 - 1, 2**21 - 1, 12, 10], tf.int64),
        "looks": tf.constant([[9, 9, 1], [3, 3, 1], [2, 2, 1], [1, 1, 1]], tf.float32),
    }
    days = np.array([9, 10, 11, 12, 13, 11])
    interactions = {
        CANDIDATE_ID: tf.constant([5, 5, 5, 5, 5, 7], tf.int64),
        "seed_fingerprint": tf.constant([5, 7, 5, -1, 5, 5], tf.int64),
        TIMESTAMP: tf.constant(days * utc.MICROSECONDS_A_DAY + 5, tf.int64),
    }
    batches = tf.data.Dataset.from_tensors(interactions)
    (batch,) = looked_up(OF, batches, lookup_for_training(OF, items)).as_numpy_iterator()
    assert batch["looks"][:, 0].tolist() == [1, 1, 2, 2, 3, 9]
    assert batch["seed_looks"][:, 0].tolist() == [1, 9, 2, 0, 3, 2]
    # What is exported has one row an item: the newest, or for what is held out on day 12 that of the day before.
    query = {"seed_fingerprint": tf.constant([5, 7], tf.int64)}
    for day, looks in ((None, 3), (12, 2)):
        lookup = lookup_for_queries(OF, as_known_on(OF, items, day))
        assert lookup is not None and not lookup.has_versions
        assert lookup.of_query(OF, query)["seed_looks"].numpy()[:, 0].tolist() == [looks, 9]


def test_one_table_has_no_earlier_ones() -> None:
    assert Tables().splits == [] and Tables([3, 3]).splits == []
    assert Tables([3, 2]).splits == ["earlier"] and Tables([3, 2], judged=3).splits == ["earlier", "judged"]


def test_only_features_of_tables_can_be_declared_constant(tmp_path: Path) -> None:
    text = (Path(features.__file__).parents[1] / "movielens" / "features.yaml").read_text()
    (tmp_path / "features.yaml").write_text(
        text.replace("  age: {kind: number", "  age: {kind: number, changes: false")
    )
    with pytest.raises(UserError, match=r"query\.age.*`changes: false` is only for features of the catalogue"):
        features.load(tmp_path)
