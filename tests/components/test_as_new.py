"""Items as new, by models that are made by hand: one that knows items by what they are, one that has only learnt their ids."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from components.digests import is_drawn
from components.evaluator.content import Content
from components.evaluator.names import AS_NEW, CANDIDATE, CONTENT_NEIGHBOURS
from components.evaluator.next_day import judge_next_day
from components.evaluator.ranking import Ranks
from components.evaluator.settings import AsNewSettings, EvaluatorSettings
from components.trainer.model import TwoTowerModel
from components.utc import MICROSECONDS_A_DAY
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec
from tests.components.counted import write_counts
from tests.components.exported import export
from tests.components.ranked_world import example, write
from tests.components.test_ranking import excluded_of, same

KINDS, OF_A_KIND, WIDTH, DAY = 20, 10, 8, 20_000
ITEMS = [b"item %d" % number for number in range(KINDS * OF_A_KIND)]
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": WIDTH, "hash_buckets": 4096}, "kind": {"width": WIDTH, "hash_buckets": 4096}},
        "query": {"likes": {"kind": "id", "table": "kind"}, "past": {"kind": "history", "table": "item", "last": 1}},
        "item": {"item": {"kind": "id", "table": "item"}, "kind": {"kind": "id", "table": "kind"}},
    }
)


def kind(item: bytes) -> bytes:
    return b"kind %d" % (ITEMS.index(item) % KINDS)


def by_content(model: TwoTowerModel, transform: Callable[..., Any]) -> None:
    """A query is where its kind is, and so is an item."""
    nothing, same = np.zeros((WIDTH, WIDTH)), np.eye(WIDTH)
    model.query_tower.dense_layers[0].set_weights([np.concatenate([same, nothing]), np.zeros(WIDTH)])
    model.item_tower.dense_layers[0].set_weights([np.concatenate([nothing, same]), np.zeros(WIDTH)])


def by_id(model: TwoTowerModel, transform: Callable[..., Any]) -> None:
    """The same, but that an item's own row says where its kind is, and its kind says nothing."""
    by_content(model, transform)
    nothing, same = np.zeros((WIDTH, WIDTH)), np.eye(WIDTH)
    model.item_tower.dense_layers[0].set_weights([np.concatenate([same, nothing]), np.zeros(WIDTH)])
    names = ("likes", "past", "item", "kind")
    parsed = {name: tf.io.VarLenFeature(tf.string) for name in names}
    examples = [example({"item": [item], "kind": [kind(item)]}) for item in ITEMS]
    fixed = {CANDIDATE_ID: tf.string, QUERY_ID: tf.string, TIMESTAMP: tf.int64, REWARD: tf.float32}
    parsed |= {name: tf.io.VarLenFeature(dtype) for name, dtype in fixed.items()}
    rows = transform(tf.io.parse_example(examples, parsed))
    tables = model.item_tower.tables
    learnt = tables["item"].parts[0].numpy()
    learnt[rows["item"].numpy()] = tables["kind"].parts[0].numpy()[rows["kind"].numpy()]
    tables["item"].parts[0].assign(learnt)


@pytest.mark.parametrize("knows", [by_content, by_id])
def test_only_a_model_with_content_features_finds_new_items(tmp_path: Path, knows: Any) -> None:
    model = export(SPEC, {"query": [WIDTH], "item": [WIDTH]}, tmp_path / "model", adjust=knows)
    random = np.random.default_rng(0)
    rows = []
    for number in range(600):
        item = ITEMS[random.integers(len(ITEMS))]
        other = random.choice([each for each in ITEMS if kind(each) == kind(item) and each != item])
        time = DAY * MICROSECONDS_A_DAY + number
        own = {"likes": [kind(item)], "past": [bytes(other)], QUERY_ID: [b"%d" % (number % 50)]}
        rows.append(example({CANDIDATE_ID: [item], TIMESTAMP: [time], REWARD: [1.0], **own}))
    write(tmp_path, "eval", rows)
    write(tmp_path, "catalogue", [example({CANDIDATE_ID: [i], "item": [i], "kind": [kind(i)]}) for i in ITEMS])
    found = judge_next_day(
        interactions=[f"{tmp_path}/Split-eval/*"],
        catalogue=[f"{tmp_path}/Split-catalogue/*"],
        model=model.uri,
        earlier_model=None,
        counts=[write_counts(tmp_path / "counts", [], DAY - 1)],
        settings=EvaluatorSettings(recall_at=(10, 100)),
        spec=SPEC,
        span=DAY,
        make_pipeline=lambda: beam.Pipeline("FnApiRunner"),
        working=str(tmp_path / "working"),
    ).metrics["all"]
    # An item's kind has ten items, which are the first ten. A fifth of the catalogue is as new.
    # A few ids share a bucket.
    assert found[CANDIDATE]["recall_at_10"][0] > 0.9
    assert found[CONTENT_NEIGHBOURS]["recall_at_10"][0] == pytest.approx(1.0)
    assert 80 < found[AS_NEW]["interactions"][0] < 160
    value, (_, lower, upper) = found[AS_NEW]["recall_at_10"][0], found[AS_NEW]["recall_at_100"]
    if knows is by_content:
        assert value == pytest.approx(1.0)
    else:
        # The eight of the kind that are not as new are first; the new one is anywhere behind them.
        assert value < 0.1 and lower < (100 - 8) / (len(ITEMS) - 8) < upper


def test_the_share_is_drawn_by_id_and_day() -> None:
    items = [b"%d" % number for number in range(20_000)]
    drawn, next_day = ({item for item in items if is_drawn(item, span, 0.1)} for span in (DAY, DAY + 1))
    assert len(drawn) == pytest.approx(2000, rel=0.1)
    assert len(drawn & next_day) == pytest.approx(200, rel=0.3)  # independent
    assert {item for item in items if is_drawn(item, DAY, 0.05)} < drawn
    settings = AsNewSettings(interactions=1000, least=0.02, most=0.2)
    assert [settings.share(number) for number in (0, 100, 10_000, 1_000_000)] == [0.2, 0.2, 0.1, 0.02]


CONTENT = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {name: {"width": 2, "hash_buckets": 4} for name in ("item", "tag")},
        "query": {"past": {"kind": "history", "table": "item", "last": 3}},
        "item": {
            "item": {"kind": "id", "table": "item"},
            "tags": {"kind": "ids", "table": "tag", "max_values": 2},
            "size": {"kind": "number"},
        },
    }
)


def test_content_worked_out_by_hand(tmp_path: Path) -> None:
    features: list[dict[str, list[Any]]] = [
        {"tags": [b"x"], "size": [1.0]},
        {"tags": [b"x", b"y"], "size": [3.0]},
        {"tags": [b"y"], "size": []},
        {"tags": [], "size": []},
    ]
    ids = [b"a", b"b", b"c", b"d"]
    catalogue = [
        example({CANDIDATE_ID: [i], "item": [i]} | {name: values for name, values in each.items() if values})
        for i, each in zip(ids, features, strict=True)
    ]
    write(tmp_path, "catalogue", catalogue)
    content = Content.read([f"{tmp_path}/Split-catalogue/*"], pa.array(ids, pa.binary()), CONTENT)
    # x and y weigh log(4 / 2) = .693; the sizes 1 and 3 have mean 2 and deviation 1, so they are -1 and 1; a missing one is 0.
    log = np.log(2)
    expected = [[log, 0, -1], [log, log, 1], [0, log, 0], [0, 0, 0]]
    unit = [[value / (np.linalg.norm(row) or 1) for value in row] for row in expected]
    assert content.vectors.toarray() == pytest.approx(np.array(unit), abs=1e-6)
    # Like a: itself 1; b has (.48 - 1) / (1.217 * 1.4) = -.305; c and d have 0, so c is as good as d. Nobody is like nothing.
    ranks = content.rank(excluded_of([[0], [0], [0], []]), np.array([1, 2, 0, 2]), None)
    same(ranks, Ranks(np.array([3, 1, 0, 0]), np.array([0, 1, 0, 3])))
    seen = excluded_of([[0, 3], [0, 3], [0, 3], [0, 3]])
    ranks = content.rank(excluded_of([[0], [0], [0], []]), np.array([1, 2, 0, 2]), seen)
    same(ranks, Ranks(np.array([1, 0, 0, 0]), np.array([0, 0, 0, 1])))
    # The newest of a history weighs most: of a, then c, the first is c.
    same(content.rank(excluded_of([[0, 2]]), np.array([2]), None), Ranks(np.array([0]), np.array([0])))


def test_content_of_vectors_and_texts_worked_out_by_hand(tmp_path: Path) -> None:
    declared = CONTENT.model_dump()
    declared["item"] = {
        "sound": {"kind": "vector", "size": 2},
        "name": {"kind": "text", "table": "tag"},
    }
    features: list[dict[str, list[Any]]] = [
        {"sound": [3.0, 4.0], "name": [b"Red Bus"]},
        {"sound": [0.0, 0.0], "name": [b"red car, CAR"]},
        {"name": [b""]},
    ]
    ids = [b"a", b"b", b"c"]
    catalogue = [example({CANDIDATE_ID: [i], **each}) for i, each in zip(ids, features, strict=True)]
    write(tmp_path, "catalogue", catalogue)
    paths, spec = [f"{tmp_path}/Split-catalogue/*"], FeatureSpec.model_validate(declared)
    content = Content.read(paths, pa.array(ids, pa.binary()), spec)
    # Of three items two have red, which weighs log(3 / 2); bus, car and a vector, whatever its length, weigh log(3).
    red, one = np.log(1.5), np.log(3)
    length = (red**2 + 2 * one**2) ** 0.5, (red**2 + one**2) ** 0.5
    assert content.dense == pytest.approx(np.array([[0.6, 0.8], [0, 0], [0, 0]]) * one / length[0], abs=1e-6)
    words = np.sort(content.vectors.toarray(), axis=1)
    expected = [[0, red / length[0], one / length[0]], [0, red / length[1], one / length[1]], [0, 0, 0]]
    assert words == pytest.approx(np.array(expected), abs=1e-6)
    # Like a is b, by red, before c, which is like nothing.
    same(content.rank(excluded_of([[0]]), np.array([1]), excluded_of([[0]])), Ranks(np.array([0]), np.array([0])))


def test_without_a_feature_but_the_id_all_items_are_alike(tmp_path: Path) -> None:
    own = CONTENT.model_copy(update={"item": {"item": CONTENT.item["item"]}})
    write(tmp_path, "catalogue", [example({CANDIDATE_ID: [i], "item": [i]}) for i in ITEMS])
    content = Content.read([f"{tmp_path}/Split-catalogue/*"], pa.array(ITEMS, pa.binary()), own)
    same(content.rank(excluded_of([[0]]), np.array([5]), None), Ranks(np.array([0]), np.array([len(ITEMS) - 1])))
