"""A catalogue that is made from the log: the newest values of all items so far, carried from day to day."""

import itertools
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from tfx.types import standard_artifacts

from components.example_gen.columns import Column
from components.example_gen.day_driver import Request
from components.example_gen.log_catalogue import LogCatalogueExecutor, carried_rows, known_of_items
from components.example_gen.lookups import CatalogueTable
from components.example_gen.point_in_time import Versions, divide
from components.example_gen.settings import ExampleGenSettings
from components.resolver.earlier import BASE_CATALOGUE_KEY, CatalogueBefore
from components.utc import MICROSECONDS_A_DAY
from pipeline import config
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, FeatureSpec
from tests.components.test_example_gen import DAY, SPEC

declared = SPEC.model_dump()
declared["catalogue"] = {"item": "sku", "title": "name", "blocked": "gone"}
declared["item"]["price"] = {"kind": "number"}
OF_LOG = FeatureSpec.model_validate(declared)
HEADER = "user,sku,at,liked,name,tags,tag_weights,price,gone"
YESTERDAY, BEFORE = DAY - timedelta(days=1), DAY - timedelta(days=2)


def row(user: str, sku: str, day: date, hour: int, rest: str) -> str:
    return f"{user},{sku},{day}T{hour:02}:00:00Z,1,{rest}"


def log(folder: Path, day: date, rows: list[str]) -> None:
    (folder / "log").mkdir(exist_ok=True)
    (folder / "log" / f"{day}.csv").write_text("\n".join([HEADER, *rows, ""]))


def catalogue(folder: Path, day: date, base: Any = None, spec: FeatureSpec = OF_LOG, **settings: Any) -> Any:
    """The catalogue of a day; `items` reads it."""
    given = ExampleGenSettings.model_validate(
        {
            "interactions": {"path": f"{folder}/log/{{YYYY}}-{{MM}}-{{DD}}.csv", "format": "csv"},
            "catalogue": "from_log",
            "catch_up_days": 2,
            "max_dropped_share": 0.3,
            **settings,
        }
    )
    made = standard_artifacts.Examples()
    made.uri, made.span = f"{folder}/out/{day}-{len(list((folder / 'out').glob('*')))}", (day - date(1970, 1, 1)).days
    inputs = {BASE_CATALOGUE_KEY: [base]} if base else {}
    LogCatalogueExecutor().Do(inputs, {"examples": [made]}, Request.parameters(given, spec, day))
    return made


def items(made: Any, split: str = "catalogue") -> dict[str, tuple[Any, ...]]:
    """By item: title, tags, their weights and the price."""
    found = {}
    for record in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{made.uri}/Split-{split}/*"), compression_type="GZIP"):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        values = [features[name] for name in ("title", "tags", "tags_weights", "price")]
        lists = [
            list(getattr(each, each.WhichOneof("kind")).value) if each.WhichOneof("kind") else [] for each in values
        ]
        found[features["candidate_id"].bytes_list.value[0].decode()] = tuple(lists)
    return found


def three_days(folder: Path) -> None:
    # Out of order within the file: of A the row of 9 o'clock is the newest, and it has no tags.
    rows = [row("u", "A", BEFORE, 9, "Ant,,,2.5,"), row("v", "A", BEFORE, 7, "Aunt,x|y,1|2,1.5,")]
    log(folder, BEFORE, [*rows, row("u", "B", BEFORE, 8, "Bee,z,3,,1")])
    log(folder, YESTERDAY, [row("u", "C", YESTERDAY, 1, ",,,9,"), row("v", "B", YESTERDAY, 1, "Bee!,,,,")])
    # Of equal times the row that stands later counts.
    rows = [row("u", "C", DAY, 1, "Cat,,,,"), row("v", "C", DAY, 1, "Kat,,,,"), row("u", "A", DAY, 2, ",q,7,,")]
    log(folder, DAY, [*rows, row("v", "B", DAY, 1, ",,,4,0")])


FIRST = {"A": ([b"Ant"], [b"x", b"y"], [1.0, 2.0], [2.5])}
SECOND = {**FIRST, "C": ([], [], [], [9.0])}
THIRD = {
    "A": ([b"Ant"], [b"q"], [7.0], [2.5]),
    "B": ([b"Bee!"], [b"z"], [3.0], [4.0]),
    "C": ([b"Kat"], [], [], [9.0]),
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    three_days(folder)
    return folder


@pytest.fixture(scope="module")
def first(shop: Path) -> Any:
    return catalogue(shop, BEFORE)


def test_each_column_keeps_its_newest_value_from_day_to_day(shop: Path, first: Any) -> None:
    assert (items(first), items(first, "blocked")) == (FIRST, {"B": ([b"Bee"], [b"z"], [3.0], [])})
    # Nothing says yesterday that B is there again, so it stays blocked; today does.
    second = catalogue(shop, YESTERDAY, base=first)
    assert (items(second), items(second, "blocked")) == (SECOND, {"B": ([b"Bee!"], [b"z"], [3.0], [])})
    third = catalogue(shop, DAY, base=second)
    assert (items(third), items(third, "blocked")) == (THIRD, {})
    assert json.loads(third.get_string_custom_property("rows"))["rows"] == 4  # today's alone were read
    # A day that was passed over is made up for, to the same items in the same order.
    passed_over = catalogue(shop, DAY, base=first)
    assert list(items(passed_over).items()) == list(items(third).items())
    # A first run knows its window, and the days that are read for histories. Without these, the last two days: of A today's row
    # alone.
    assert items(catalogue(shop, DAY)) == THIRD
    assert items(catalogue(shop, DAY, history_days=0)) == {
        "A": ([], [b"q"], [7.0], []),
        "B": ([b"Bee!"], [], [], [4.0]),
        "C": ([b"Kat"], [], [], [9.0]),
    }


# Interactions of the last day see what was known before it: A's earlier tags, and no price of B. B was taken the day before as
# well, which changed no feature; C came that day, and its row of today changes none. Titles are no features: they are the newest's.
SEEN_ON_THE_DAY = {"A": ([b"Ant"], [b"x", b"y"], [1.0, 2.0], [2.5]), "B": ([b"Bee!"], [b"z"], [3.0], [])}


def test_interactions_see_items_as_they_were_before_their_day(shop: Path, first: Any) -> None:
    second = catalogue(shop, YESTERDAY, base=first)
    assert (items(first, "earlier"), items(second, "earlier")) == ({}, {})
    for base in (second, None):  # carried from day to day, or from the log at once
        made = catalogue(shop, DAY, base=base)
        assert items(made, "earlier") == SEEN_ON_THE_DAY
        assert items(made, "judged") == {**SEEN_ON_THE_DAY, "C": THIRD["C"]}
        table = CatalogueTable.load(made.uri, OF_LOG)
        places = table.positions(pa.array([b"A", b"A", b"B", b"C"]))
        spans = np.array([made.span, made.span + 1, made.span, made.span - 5])
        features = table.features(places, spans)
        prices, tags = features.column("price"), features.column("tags")
        assert tags.to_pylist() == [[b"x", b"y"], [b"q"], [b"z"], None]
        assert prices.to_pylist() == [[2.5], [2.5], None, [9.0]]


def test_a_kept_object_lives_as_long_as_its_users(shop: Path, first: Any) -> None:
    made = catalogue(shop, DAY, base=catalogue(shop, YESTERDAY, base=first))
    for later, seen in ((1, SEEN_ON_THE_DAY), (2, {})):  # a window has two days if training starts from scratch
        day = DAY + timedelta(days=later)
        log(shop, day, [row("u", "D", day, 1, "Dog,,,1,")])
        made = catalogue(shop, day, base=made)
        assert items(made, "earlier") == seen


ROWS = st.lists(st.tuples(st.sampled_from([b"A", b"B"]), st.integers(1, 5), st.sampled_from([None, 1.0, 2.0])))


@given(ROWS.filter(bool))
def test_an_interaction_sees_the_newest_values_that_do_not_know_its_day(rows: list[Any]) -> None:
    ids, days, prices = zip(*rows, strict=True)
    times = np.array(days) * MICROSECONDS_A_DAY
    columns = {CANDIDATE_ID: pa.array(ids), "timestamp": times, "price": pa.array(prices, pa.float64())}
    known = known_of_items(pa.table(columns), np.array(days))
    divided = divide(known.rows, known.days, known.is_newest, CANDIDATE_ID, ["price"], None)
    both = pa.concat_tables([divided.newest, divided.earlier.drop_columns(["seen_through"])])
    newest = divided.newest.column(CANDIDATE_ID).to_pylist()
    of_earlier = np.array([newest.index(each) for each in divided.earlier.column(CANDIDATE_ID).to_pylist()], np.int64)
    through = divided.earlier.column("seen_through").to_numpy()
    versions = Versions(len(newest), of_earlier, through)
    for item, day in itertools.product(newest, range(7)):
        own = sorted((row for row in rows if row[0] == item), key=lambda row: row[1])
        end = max(day - 1, own[0][1])  # the last day that it may know, or the item's first
        expected = [price for _, of, price in own if of <= end and price is not None]
        place = versions.places(np.array([newest.index(item)]), np.array([day]))[0]
        assert both.column("price")[place].as_py() == (expected[-1] if expected else None)


def test_a_log_of_many_days_gives_the_same(shop: Path, first: Any) -> None:
    days = [(shop / "log" / f"{day}.csv").read_text().splitlines()[1:] for day in (BEFORE, YESTERDAY, DAY)]
    (shop / "all.csv").write_text("\n".join([HEADER, *(line for day in days for line in day), ""]))
    third = catalogue(shop, DAY, base=first, interactions={"path": f"{shop}/all.csv", "format": "csv"})
    assert items(third) == THIRD
    rows = json.loads(third.get_string_custom_property("rows"))
    assert (rows["rows"], rows["other_days"]) == (6, 3)  # the first day's three rows are another day's


def test_a_feature_with_a_changed_declaration_starts_from_scratch(first: Any) -> None:
    columns = [Column(CANDIDATE_ID, "sku", "id"), Column("price", "price", "id"), Column("new", "new", "vector")]
    rows = carried_rows(first.uri, columns)
    assert (rows.column("price").to_pylist(), rows.column("new").to_pylist()) == ([None, None], [None, None])
    assert sorted(rows.column(CANDIDATE_ID).to_pylist()) == [b"A", b"B"]


def test_faults_are_counted_and_a_missing_day_is_named(tmp_path: Path) -> None:
    rows = [row("u", sku, DAY, 1, rest) for sku, rest in (("A", ",,,1,"), ("B", ",,,dear,"), ("C", ",,,2,"))]
    log(tmp_path, DAY, rows)
    # A third is at fault, more than three tenths.
    sentence = r"1 of 3 rows of the catalogue are at fault(.|\n)*price: not a number .*line 3: 'dear'"
    with pytest.raises(UserError, match=sentence):
        catalogue(tmp_path, DAY)
    with pytest.raises(UserError, match="2026-11-25: expected at least one csv file at"):
        catalogue(tmp_path, DAY + timedelta(days=1))


def test_the_catalogue_before_is_of_the_newest_earlier_day() -> None:
    made = []
    for number, span in enumerate((20_780, 20_781, 20_781, 20_782, 20_783)):
        examples = standard_artifacts.Examples()
        examples.id, examples.span = number, span
        made.append(examples)
    found = CatalogueBefore(20_782).resolve_artifacts(None, {BASE_CATALOGUE_KEY: made})
    assert [each.id for each in found[BASE_CATALOGUE_KEY]] == [2]  # of a day that was delivered again the last
    assert CatalogueBefore(20_780).resolve_artifacts(None, {BASE_CATALOGUE_KEY: made}) == {BASE_CATALOGUE_KEY: []}


def test_the_item_s_column_has_to_be_the_log_s(tmp_path: Path) -> None:
    (tmp_path / "features.yaml").write_text(OF_LOG_TEXT.replace("{item: sku}", "{item: id}"))
    (tmp_path / "shop.yaml").write_text(CONFIG_TEXT)
    with pytest.raises(
        UserError, match=r"catalogue.item: expected sku, the log's item column, .* is from_log; received id"
    ):
        config.load(tmp_path / "shop.yaml").feature_spec()
    (tmp_path / "features.yaml").write_text(OF_LOG_TEXT)
    assert config.load(tmp_path / "shop.yaml").feature_spec().catalogue.item == "sku"
    (tmp_path / "shop.yaml").write_text(CONFIG_TEXT.replace("from_log", "from_logs"))
    with pytest.raises(
        UserError, match=r"shop.yaml:5: data.catalogue: input should be 'from_log', received 'from_logs'"
    ):
        config.load(tmp_path / "shop.yaml")


OF_LOG_TEXT = """
interactions: {user: user, item: sku, time: at}
catalogue: {item: sku}
tables: {sku: {width: 4, hash_buckets: 8}}
query: {past: {kind: history, table: sku, last: 2}}
item: {sku: {kind: id, table: sku}}
"""
CONFIG_TEXT = """name: shop
dataset: .
data:
  interactions: {path: log.csv, format: csv}
  catalogue: from_log
trainer: {towers: {query: [4], item: [4]}}
"""
