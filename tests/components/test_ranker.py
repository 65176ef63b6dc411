"""Held-out interactions through the Ranker by Beam, against what each of its numbers is by definition, worked out one at a time."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import standard_artifacts

from components.analysis import files as analysis_files
from components.analysis.vocabulary import Known, entries
from components.artifacts import Counts, ItemIndex, Retriever, warm_start_folder
from components.counts.files import THROUGH, TRAINING
from components.digests import is_drawn
from components.evaluator import block_search, catalogue, ranked, slices
from components.evaluator.as_new import AsNew
from components.evaluator.block_search import TIE
from components.evaluator.cooccurrence import FADES, NEWEST
from components.evaluator.expectation import hit_probability, reciprocal_rank
from components.evaluator.interactions import Window
from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    CANDIDATE,
    CONTENT_NEIGHBOURS,
    COOCCURRENCE,
    FILTERED_QUERIES,
    INTERACTIONS,
    NEW_QUERIES_OLD_ITEMS,
    OLD_QUERIES_NEW_ITEMS,
    POPULARITY,
    QUERIES,
    RECENT_POPULARITY,
    SCORERS,
    SEARCHED_QUERIES,
    SIMILAR_ITEMS,
    TAKEN_BEFORE,
)
from components.evaluator.next_day import NextDay, judge_next_day
from components.evaluator.ranker import RankerExecutor
from components.evaluator.settings import EvaluatorSettings
from components.indexer.component import IndexerExecutor
from components.indexer.embedding import LoadedTower
from components.indexer.settings import IndexerSettings
from components.trainer.model import TwoTowerModel
from components.utc import MICROSECONDS_A_DAY
from ndr_client.served import ITEM_TOWER, QUERY_TOWER
from schemas.features import CANDIDATE_ID, EVENT_KIND, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec
from tests.components.counted import Taken, write_counts
from tests.components.exported import export
from tests.components.test_evaluator import evaluate

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {
            "user": "user",
            "item": "item",
            "time": "at",
            "event": {"column": "kind", "weights": {"view": 0.1, "purchase": 1}},
        },
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 8, "hash_buckets": 500}, "any": {"width": 4, "hash_buckets": 50}},
        "query": {
            "past": {"kind": "history", "table": "item", "last": 3, "repeats": True},
            "device": {"kind": "id", "table": "any"},
            "age": {"kind": "number", "scale": "none"},
        },
        "item": {"item": {"kind": "id", "table": "item"}, "tags": {"kind": "ids", "table": "any", "max_values": 2}},
    }
)
ITEMS = [b"i%02d" % number for number in range(40)]
DAY = 20_000
LEVEL, SLOPE = 0.3, 0.2
START = DAY * MICROSECONDS_A_DAY
SETTINGS: dict[str, Any] = {
    "retrieved_at": 5,
    "filtered_at": [1.0, 0.05],
    "slices": {"age": {"edges": [30]}, "tags": {"most": 1}, "device": {}, "event_kind": {"most": 2}},
}


@dataclass(frozen=True)
class Row:
    """An interaction."""

    user: bytes
    item: bytes
    time: int
    past: tuple[bytes, ...]
    device: bytes = b"phone"
    age: float = 20.0
    reward: float = 1.0

    @property
    def event(self) -> bytes:
        return b"purchase" if self.age >= 40 else b"view"

    def serialized(self) -> bytes:
        features = (
            {EVENT_KIND: [self.event]}
            | item_features(self.item)
            | {"past": list(self.past), "device": [self.device], "age": [self.age]}
        )
        features |= {QUERY_ID: [self.user], TIMESTAMP: [self.time], REWARD: [self.reward]}
        return example(features)


def item_features(item: bytes) -> dict[str, list[Any]]:
    tags = {0: [], 1: [b"odd"], 2: [b"even"], 3: [b"odd", b"rare%d" % (int(item[1:]) % 5)]}
    return {CANDIDATE_ID: [item], "item": [item], "tags": tags[int(item[1:]) % 4]}


def example(features: dict[str, list[Any]]) -> bytes:
    made = tf.train.Example()
    for name, values in features.items():
        kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
        kind = kinds[type(values[0])] if values else "bytes_list"
        getattr(made.features.feature[name], kind).value.extend(values)
    return made.SerializeToString(deterministic=True)


def log() -> tuple[list[Row], list[Row]]:
    """Interactions in training and held out: two days, users who come back, an item and a user of the day, a query of three."""
    random = np.random.default_rng(5)
    training: list[Row] = []
    held_out: list[Row] = []
    for number in range(500):
        user = b"u%d" % random.integers(25)
        time = int(START - MICROSECONDS_A_DAY + number * MICROSECONDS_A_DAY // 250)
        past = tuple(ITEMS[n] for n in random.integers(0, 38, random.integers(1, 4)))
        item = ITEMS[int(38 * random.random() ** 2)]
        row = Row(user, item, time, past, age=float(random.integers(18, 60)), reward=float(random.random() < 0.9))
        (held_out if time >= START and random.random() < 0.3 else training).append(row)
    for item in (ITEMS[1], ITEMS[2], ITEMS[2], ITEMS[39]):
        held_out.append(Row(b"newcomer", item, START + 7, (), device=b"tv"))
    training.append(Row(b"u0", ITEMS[39], START + 5, (ITEMS[0], b"gone")))
    return training, held_out


def write(folder: Path, split: str, examples: list[bytes], files: int = 2) -> types.Artifact:
    (folder / f"Split-{split}").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        with tf.io.TFRecordWriter(str(folder / f"Split-{split}" / f"{number}.gz"), "GZIP") as writer:
            for each in examples[number::files]:
                writer.write(each)
    made = standard_artifacts.Examples()
    made.uri, made.split_names = str(folder), '["train", "eval"]' if split != "catalogue" else '["catalogue"]'
    return made


@dataclass
class World:
    """What the Ranker is given."""

    folder: Path
    examples: types.Artifact
    catalogue: types.Artifact
    model: types.Artifact
    baseline: types.Artifact
    index: types.Artifact
    retriever: types.Artifact
    counts: types.Artifact
    base_counts: types.Artifact

    def rank(self, name: str, workers: int = 1, has_baseline: bool = True, **settings: Any) -> dict[str, bytes]:
        """The files that it leaves."""
        made = standard_artifacts.Examples()
        made.uri = str(self.folder / name)
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=[
                f"--direct_num_workers={workers}",
                "--direct_running_mode=multi_threading",
                "--sdk_container_image=none",
            ],
            tmp_dir=str(self.folder / "tmp"),
            unique_id="1",
        )
        RankerExecutor(context).Do(
            {
                "examples": [self.examples],
                "catalogue": [self.catalogue],
                "model": [self.model],
                "index": [self.index],
                "retriever": [self.retriever],
                "baseline_model": [self.baseline] if has_baseline else [],
                "counts": [self.counts],
                "base_counts": [self.base_counts] if has_baseline else [],
            },
            {"ranked_examples": [made]},
            {
                "settings": EvaluatorSettings.model_validate({**SETTINGS, **settings}).model_dump_json(),
                "feature_spec": SPEC.model_dump_json(),
                "day": DAY,
            },
        )
        splits = sorted((self.folder / name).iterdir())
        assert [path.name for path in splits] == ["Split-eval", "Split-sums"]  # nothing else is left
        return {f"{split.name}/{path.name}": path.read_bytes() for split in splits for path in split.iterdir()}

    def read(self, name: str) -> dict[tuple[bytes, bytes, int], dict[str, list[Any]]]:
        """Every ranked example by user, item and time."""
        found = examples_of(self.folder / name / "Split-eval")
        return {(each[QUERY_ID][0], each[CANDIDATE_ID][0], each[TIMESTAMP][0]): each for each in found}

    def sums(self, name: str, scorer: str) -> tuple[dict[str, float], set[int]]:
        """What a scorer's columns add up to, and all that it retrieves."""
        columns = EvaluatorSettings.model_validate(SETTINGS).statistics.columns
        found = examples_of(self.folder / name / "Split-sums")
        values = [np.frombuffer(value, "<f8") for each in found for value in each.get(ranked.sums_feature(scorer), [])]
        retrieved = {row for each in found for row in each.get(ranked.retrieved_feature(scorer), [])}
        return dict(zip(columns, np.sum(values, axis=0).tolist(), strict=True)), retrieved


def examples_of(folder: Path) -> list[dict[str, list[Any]]]:
    """The features of the examples in a folder, of those that have a value."""
    found = []
    files = tf.io.gfile.glob(str(folder / "*"))
    for serialized in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        lists = {n: getattr(f, f.WhichOneof("kind")).value for n, f in features.items() if f.WhichOneof("kind")}
        found.append({name: list(values) for name, values in lists.items() if len(values)})
    return found


def learned(model: TwoTowerModel, _: Any) -> None:
    """Of the items of a history, the newest is scored LEVEL higher, what is n items further back LEVEL - SLOPE * log(n + 1)."""
    assert model.repeat_bonus
    for name, value in (("level", LEVEL), ("slope", SLOPE), ("decay", 1.0)):
        model.repeat_bonus.learned["past"][name].assign(value)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("ranker")
    training, held_out = log()
    examples = write(folder / "examples", "train", [row.serialized() for row in training])
    write(folder / "examples", "eval", [row.serialized() for row in held_out])
    catalogue = write(folder / "catalogue", "catalogue", [example(item_features(item)) for item in ITEMS])
    towers = {"query": [16, 6], "item": [16, 6]}
    models = [export(SPEC, towers, folder / f"model{seed}", seed, learned) for seed in (0, 1)]
    model, baseline = models
    # The last blessed model knows the item that only the day's training has.
    for each in models:
        analysis_files.write(warm_start_folder(each.uri), {"item": Known(entries([ITEMS[39]], [1.0]))}, {}, 0)
    index, retriever = ItemIndex(), Retriever()
    index.uri, retriever.uri = str(folder / "index"), str(folder / "retriever")
    settings = IndexerSettings(kind="ivf", lists=8, probes=1).model_dump_json()
    IndexerExecutor().Do(
        {"model": [models[0]], "catalogue": [catalogue], "examples": [examples]},
        {"index": [index], "retriever": [retriever]},
        {"settings": settings, "filters": '{"tags": {"kind": "ids"}}'},
    )
    # Of the training interactions those of the day before are carried, the others the day's own.
    rewarded = [Taken(row.user, row.item, row.time, row.past) for row in training if row.reward]
    counts, base_counts = Counts(), Counts()
    counts.uri, base_counts.uri = str(folder / "counts"), str(folder / "base_counts")
    write_counts(folder / "base_counts" / THROUGH, [each for each in rewarded if each.time < START], DAY - 1)
    write_counts(folder / "counts" / TRAINING, [each for each in rewarded if each.time >= START], DAY)
    return World(folder, examples, catalogue, model, baseline, index, retriever, counts, base_counts)


def indexed(world: World, folder: Path, **settings: Any) -> tuple[types.Artifact, types.Artifact]:
    """Another index of the world's catalogue, and its retriever."""
    index, retriever = ItemIndex(), Retriever()
    index.uri, retriever.uri = str(folder / "index"), str(folder / "retriever")
    IndexerExecutor().Do(
        {"model": [world.model], "catalogue": [world.catalogue], "examples": [world.examples]},
        {"index": [index], "retriever": [retriever]},
        {
            "settings": IndexerSettings.model_validate(settings).model_dump_json(),
            "filters": '{"tags": {"kind": "ids"}}',
        },
    )
    return index, retriever


@pytest.fixture(scope="module")
def exact(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world with one index of exact search, and what the Ranker leaves of it, in the folder `exact`."""
    index, retriever = indexed(world, tmp_path_factory.mktemp("exact"), kind="flat")
    made = replace(world, index=index, retriever=retriever)
    made.rank("exact")
    return made


@cache
def embedded(model: str) -> tuple[np.ndarray, dict[Row, np.ndarray]]:
    """[items, width] embeddings of the catalogue, and that of each query."""
    items, query = (LoadedTower(f"{model}/Format-Serving/{tower}") for tower in (ITEM_TOWER, QUERY_TOWER))
    rows = [*log()[0], *log()[1]]
    queries = dict(zip(rows, query.embed([row.serialized() for row in rows]), strict=True))
    return items.embed([example(item_features(item)) for item in ITEMS]), queries


def added(row: Row, are_new: bool = False) -> np.ndarray:
    """[items] bonuses of a query; where items are ranked as new, of none that has just arrived."""
    places: dict[bytes, list[int]] = {}
    for place, item in enumerate(reversed(row.past), 1):
        places.setdefault(item, []).append(place)
    found = np.zeros(len(ITEMS), np.float32)
    for item, at in places.items():
        if item in ITEMS and not (are_new and is_drawn(item, DAY, 0.2)):
            found[ITEMS.index(item)] = LEVEL + SLOPE * np.log(sum(1 / each for each in at))
    return found


def scores_of(model: types.Artifact, row: Row) -> np.ndarray:
    """[items] scores of a query."""
    items, queries = embedded(model.uri)
    return items @ queries[row] + added(row)


@cache
def as_new(model: str) -> np.ndarray:
    """[items, width] embeddings, those of the drawn items with an id that nobody has seen."""
    items = embedded(model)[0].copy()
    tower = LoadedTower(f"{model}/Format-Serving/{ITEM_TOWER}")
    for number, item in enumerate(ITEMS):
        for _, unseen in AsNew(SPEC, DAY, 0.2)(example(item_features(item))):
            features = tf.train.Example.FromString(unseen).features.feature
            assert features["item"].bytes_list.value[0] not in ITEMS
            assert list(features["tags"].bytes_list.value) == item_features(item)["tags"]
            items[number] = tower.embed([unseen])[0]
    return items


@cache
def content() -> np.ndarray:
    """[items, tags] of length 1: an item's tags, each weighing log(40 / items that have it)."""
    tags = sorted({tag for item in ITEMS for tag in item_features(item)["tags"]})
    has = np.array([[tag in item_features(item)["tags"] for tag in tags] for item in ITEMS], float)
    weighed = has * np.log(len(ITEMS) / has.sum(axis=0))
    length = np.linalg.norm(weighed, axis=1, keepdims=True)
    return np.divide(weighed, length, out=np.zeros_like(weighed), where=length > 0)


def place(scores: Any, item: bytes, left_out: tuple[bytes, ...] = (), tie: float = 0.0) -> list[int]:
    own = scores[ITEMS.index(item)]
    others = [scores[n] for n, other in enumerate(ITEMS) if other != item and other not in left_out]
    if not tie:
        return [sum(s > own for s in others), sum(s == own for s in others)]
    return [sum(s > own + tie for s in others), sum(abs(s - own) <= tie for s in others)]


def taken_before(row: Row, training: list[Row]) -> dict[bytes, int]:
    """What the user is known to have taken by then, with the last time."""
    last = {each.item: 0 for each in training if each.user == row.user}
    for each in training:
        if each.user == row.user:
            last[each.item] = max(last[each.item], each.time)
    return {item: time for item, time in last.items() if time < row.time}


def expected_places(
    world: World, row: Row, left_out: tuple[bytes, ...] = (), before: int = START + MICROSECONDS_A_DAY
) -> dict[str, list[int]]:
    """By scorer, where what is known is the training interactions before some time."""
    training = [each for each in log()[0] if each.reward and each.time < before]
    popularity = Counter(each.item for each in training)
    pairs = Counter((source, each.item) for each in training for source in each.past)
    totals = Counter(source for each in training for source in each.past)
    weights = [round(NEWEST * FADES**age) for age in reversed(range(len(row.past)))]
    led_to = [
        sum(
            w * round(2**20 * pairs[h, item] / (totals[h] * popularity[item]) ** 0.5)
            for w, h in zip(weights, row.past, strict=True)
            if pairs[h, item]
        )
        for item in ITEMS
    ]
    last = taken_before(row, training)
    times = Counter(each.item for each in training if each.user == row.user and each.item in last)
    taken = [
        # How often, whether in the history, how new; then popularity.
        (max(times[item], row.past.count(item)), item in row.past, row.past[::-1].index(item) * -1)
        if item in row.past
        else (times[item], False, last.get(item, 0))
        for item in ITEMS
    ]
    items, queries = embedded(world.model.uri)
    old_items, old_queries = embedded(world.baseline.uri)
    found = {
        CANDIDATE: place(items @ queries[row] + added(row), row.item, left_out, TIE),
        BASELINE: place(old_items @ old_queries[row] + added(row), row.item, left_out, TIE),
        POPULARITY: place([popularity[item] for item in ITEMS], row.item, left_out),
        RECENT_POPULARITY: place([popularity[item] for item in ITEMS], row.item, left_out),
        TAKEN_BEFORE: place([(*t, popularity[i]) for t, i in zip(taken, ITEMS, strict=True)], row.item, left_out),
        COOCCURRENCE: place([(s, popularity[i]) for s, i in zip(led_to, ITEMS, strict=True)], row.item, left_out),
        NEW_QUERIES_OLD_ITEMS: place(old_items @ queries[row] + added(row), row.item, left_out, TIE),
        OLD_QUERIES_NEW_ITEMS: place(items @ old_queries[row] + added(row), row.item, left_out, TIE),
    }
    if known := [item for item in row.past if item in ITEMS]:
        alike = items @ items[ITEMS.index(known[-1])]
        found[SIMILAR_ITEMS] = place(alike, row.item, left_out or (known[-1],), TIE)
    if is_drawn(row.item, DAY, 0.2):
        found[AS_NEW] = place(
            as_new(world.model.uri) @ queries[row] + added(row, are_new=True), row.item, left_out, TIE
        )
        liked = sum(
            (w * content()[ITEMS.index(h)] for w, h in zip(weights, row.past, strict=True) if h in ITEMS), np.zeros(1)
        ) / max(1, sum(w for w, h in zip(weights, row.past, strict=True) if h in ITEMS))
        found[CONTENT_NEIGHBOURS] = place(
            content() @ np.broadcast_to(liked, content()[0].shape), row.item, left_out, TIE
        )
    return found


@pytest.mark.parametrize("exclude_history", [False, True, "all"])
def test_places_are_those_by_definition(world: World, exclude_history: bool | str) -> None:
    name = f"places{exclude_history}"
    world.rank(name, exclude_history=exclude_history)
    found = world.read(name)
    training = [each for each in log()[0] if each.reward]
    rewarded = [row for row in log()[1] if row.reward]
    assert {(row.user, row.item, row.time) for row in rewarded} == found.keys()
    for row in rewarded:
        each = found[row.user, row.item, row.time]
        left_out = row.past if exclude_history else ()
        if exclude_history == "all":
            left_out += tuple(taken_before(row, training))
        expected = expected_places(world, row, left_out)
        assert {scorer for scorer in SCORERS if ranked.rank_feature(scorer) in each} == expected.keys()
        for scorer, of_scorer in expected.items():
            assert each[ranked.rank_feature(scorer)] == of_scorer, (row, scorer)
    assert sum(ranked.rank_feature(AS_NEW) in each for each in found.values()) > 5
    assert sum(ranked.rank_feature(SIMILAR_ITEMS) in each for each in found.values()) > 50


def test_sets_and_slices(world: World) -> None:
    world.rank("slices")
    found = world.read("slices")
    training = [row for row in log()[0] if row.reward]
    counts = np.array([sum(row.item == item for row in training) for item in ITEMS])
    parts = slices.popularity_parts(counts)
    before = {row.item for row in training if row.time < START}
    tags = Counter(t for row in log()[1] if row.reward for t in item_features(row.item)["tags"])
    commonest = tags.most_common(1)[0][0]
    for (user, item, time), each in found.items():
        row = next(row for row in log()[1] if (row.user, row.item, row.time) == (user, item, time))
        assert each[slices.feature("item_popularity")] == [str(parts[ITEMS.index(item)]).encode()]
        # Item 39 has no interaction before the day, but a row of its own in the last blessed model.
        is_known = item in before or item == ITEMS[39]
        assert each[slices.feature("item_age")] == [b"known" if is_known else b"fresh"]
        assert each[slices.feature("user")] == [b"new" if user == b"newcomer" else b"known"]
        assert each[slices.feature("history_length")] == [b"1-4" if row.past else b"0"]
        assert each[slices.feature("age")] == [b">=30" if row.age >= 30 else b"<30"]
        assert each[slices.feature("device")] == [row.device]
        assert each[slices.feature("event_kind")] == [row.event]
        of_item = {tag if tag == commonest else b"(other)" for tag in item_features(item)["tags"]} or {b"(none)"}
        assert set(each[slices.feature("tags")]) == of_item
        # The newcomer's one query has items 1, 2 (twice, which is one example here) and 39.
        sets = {ITEMS[2]: [3, 2]}.get(item, [3, 1]) if user == b"newcomer" else each[ranked.TRUE_ITEMS]
        assert each[ranked.TRUE_ITEMS] == sets


def test_sums_cover_the_retrieved_items(world: World) -> None:
    world.rank("sums")
    training = [row for row in log()[0] if row.reward]
    counts = np.array([sum(row.item == item for row in training) for item in ITEMS])
    share, bits = counts / counts.sum(), -np.log2((counts + 1) / (counts.sum() + len(ITEMS)))
    rewarded = [row for row in log()[1] if row.reward]
    of_queries: dict[tuple[Any, ...], list[Row]] = {}
    for row in rewarded:
        of_queries.setdefault((row.user, row.past, row.device, row.age), []).append(row)
    sums, retrieved = world.sums("sums", CANDIDATE)
    top = {key: np.argsort(-scores_of(world.model, rows[0]))[:5] for key, rows in of_queries.items()}
    assert sums[INTERACTIONS] == len(rewarded) and sums[QUERIES] == pytest.approx(len(of_queries))
    assert retrieved == {row for rows in top.values() for row in rows.tolist()}
    assert sums["popularity_at_5"] == pytest.approx(sum(share[rows].mean() for rows in top.values()))
    assert sums["novelty_at_5"] == pytest.approx(sum(bits[rows].mean() for rows in top.values()))
    assert sums[SEARCHED_QUERIES] == pytest.approx(sums[QUERIES])
    assert 0.0 < sums["index_recall_at_5"] / sums[QUERIES] < 1.0  # one of eight lists
    # A twentieth are three items, which are all looked at; where all pass, one of the lists has enough, and is all that is.
    assert 0 < sums[FILTERED_QUERIES] <= sums[QUERIES]
    assert sums["filtered_recall_5_percent_at_5"] == sums[FILTERED_QUERIES]
    assert 0.0 < sums["filtered_recall_100_percent_at_5"] < sums[FILTERED_QUERIES]
    places = [expected_places(world, row, ())[CANDIDATE] for row in rewarded]
    assert sums["recall_at_10"] == sum(above < 10 for above, _ in places)
    of_popularity, retrieved = world.sums("sums", POPULARITY)
    assert retrieved == set(np.argsort(-counts, kind="stable")[:5].tolist())
    assert of_popularity["index_recall_at_5"] == of_popularity[FILTERED_QUERIES] == 0.0
    drawn = [row for row in rewarded if is_drawn(row.item, DAY, 0.2)]
    assert world.sums("sums", AS_NEW)[0][INTERACTIONS] == len(drawn)
    after_another = [expected_places(world, row)[SIMILAR_ITEMS] for row in rewarded if row.past]
    alike, retrieved = world.sums("sums", SIMILAR_ITEMS)
    assert alike[INTERACTIONS] == len(after_another) < len(rewarded) and not retrieved
    assert alike["recall_at_10"] == sum(above < 10 for above, _ in after_another)


def test_what_needs_another_search_is_measured_on_whole_users(world: World) -> None:
    rewarded = [row for row in log()[1] if row.reward]
    world.rank("sampled", sampled_interactions=40)  # some groups have users of both kinds
    is_sampled = {row.user: is_drawn(row.user, DAY, 40 / len(rewarded)) for row in rewarded}
    assert 0 < sum(is_sampled.values()) < len(is_sampled)
    for (user, item, time), each in world.read("sampled").items():
        row = next(row for row in rewarded if (row.user, row.item, row.time) == (user, item, time))
        expected = expected_places(world, row)
        for scorer in (SIMILAR_ITEMS, NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS):
            if not is_sampled[user]:
                expected.pop(scorer, None)
        assert {scorer: each[name] for scorer in SCORERS if (name := ranked.rank_feature(scorer)) in each} == expected
    sums, _ = world.sums("sampled", CANDIDATE)
    of_queries = {(row.user, row.past, row.device, row.age) for row in rewarded if is_sampled[row.user]}
    assert sums[SEARCHED_QUERIES] == pytest.approx(len(of_queries))
    assert 0.0 < sums["index_recall_at_5"] < sums[SEARCHED_QUERIES]
    assert sums[INTERACTIONS] == len(rewarded) and sums[FILTERED_QUERIES] > 0


def test_a_day_of_which_no_user_is_sampled(world: World) -> None:
    world.rank("nobody", sampled_interactions=1)
    found = world.read("nobody").values()
    assert all(ranked.rank_feature(CANDIDATE) in each for each in found)
    aside = (SIMILAR_ITEMS, NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS)
    assert not any(ranked.rank_feature(scorer) in each for each in found for scorer in aside)
    sums, _ = world.sums("nobody", CANDIDATE)
    assert sums[SEARCHED_QUERIES] == sums["index_recall_at_5"] == 0.0


def test_several_workers_leave_the_same_files_to_the_byte(world: World) -> None:
    assert world.rank("one") == world.rank("three", workers=3)


def test_four_shards_of_the_catalogue_leave_the_same_files_to_the_byte(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_search, "BLOCK_ITEMS", len(ITEMS) // 4)
    whole = world.rank("whole")
    monkeypatch.setattr(block_search, "SHARD_BYTES", 1)
    assert world.rank("shards") == whole


@pytest.mark.parametrize("stitched", [True, False])
def test_an_index_in_shards_is_judged_as_one(
    world: World, exact: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stitched: bool
) -> None:
    """Exact search in four shards, one of which is in memory at a time: the same metrics as of one index, to the last digit."""
    monkeypatch.setattr(catalogue, "RETRIEVER_BYTES", 1)
    index, retriever = indexed(world, tmp_path, kind="flat", shards=4, stitched=stitched)
    shards = replace(world, index=index, retriever=retriever)
    name = f"shards-{stitched}"
    shards.rank(name)
    (whole, all_of_one), (found, retrieved) = exact.sums("exact", CANDIDATE), shards.sums(name, CANDIDATE)
    assert found == whole and retrieved == all_of_one
    assert found["index_recall_at_5"] == found[QUERIES]
    assert found["filtered_recall_5_percent_at_5"] == found[FILTERED_QUERIES] > 0
    assert shards.read(name) == exact.read("exact")


def test_a_first_run_has_no_baseline_and_uses_trainings_counts(world: World) -> None:
    world.rank("first", has_baseline=False)
    found = world.read("first")
    others = (BASELINE, NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS)
    assert all(ranked.rank_feature(scorer) not in each for each in found.values() for scorer in others)
    # Nothing was carried, and of the day's own interactions none is from before it.
    assert {each[slices.feature("item_age")][0] for each in found.values()} == {b"fresh"}


def day() -> list[Row]:
    """The day's interactions with a reward, training and held out, each once."""
    rows = [row for row in (*log()[0], *log()[1]) if row.time >= START and row.reward]
    return rows


def judge(world: World, folder: Path, **arguments: Any) -> NextDay:
    """What the day says of the first model, and of the second as the one before."""
    given: dict[str, Any] = {
        "interactions": [f"{world.examples.uri}/Split-{split}/*" for split in ("train", "eval")],
        "catalogue": [f"{world.catalogue.uri}/Split-catalogue/*"],
        "model": world.model.uri,
        "earlier_model": world.baseline.uri,
        "counts": [f"{world.base_counts.uri}/{THROUGH}"],
        "settings": EvaluatorSettings.model_validate(SETTINGS),
    }
    given |= arguments
    return judge_next_day(
        **given, spec=SPEC, span=DAY, make_pipeline=lambda: beam.Pipeline("FnApiRunner"), working=str(folder)
    )


def test_the_next_day_uses_counts_of_the_evening_before(world: World, tmp_path: Path) -> None:
    found = judge(world, tmp_path)
    places = [expected_places(world, row, before=START) for row in day()]
    assert (found.interactions, found.ranked, found.not_in_catalogue) == (len(places), len(places), 0)
    whole = found.metrics["all"]
    assert whole["interactions"] == len(places)
    for scorer in (CANDIDATE, BASELINE, POPULARITY, RECENT_POPULARITY, TAKEN_BEFORE, COOCCURRENCE):
        above, tied = np.array([each[scorer] for each in places]).T
        assert whole[scorer]["recall_at_10"][0] == pytest.approx(hit_probability(above, tied, 10).mean()), scorer
        assert whole[scorer]["mrr"][0] == pytest.approx(reciprocal_rank(above, tied).mean()), scorer
    new = [each for each in places if AS_NEW in each]
    for scorer in (AS_NEW, CONTENT_NEIGHBOURS):
        above, tied = np.array([each[scorer] for each in new]).T
        assert whole[scorer]["recall_at_10"][0] == pytest.approx(hit_probability(above, tied, 10).mean()), scorer
        assert whole[scorer]["interactions"][0] == len(new)
    strongest = max(whole[scorer]["recall_at_10"][0] for scorer in (POPULARITY, RECENT_POPULARITY))
    assert whole[CANDIDATE]["recall_at_10_over_strongest"][0] == pytest.approx(
        whole[CANDIDATE]["recall_at_10"][0] - strongest
    )
    assert NEW_QUERIES_OLD_ITEMS not in whole and "coverage_at_5" not in whole[CANDIDATE]
    assert judge(world, tmp_path) == found  # to the bit
    fresh = (
        {row.item for row in day()} - {row.item for row in log()[0] if row.reward and row.time < START} - {ITEMS[39]}
    )
    assert found.metrics.get("item_age=fresh", {"interactions": 0})["interactions"] == sum(
        row.item in fresh for row in day()
    )


def test_a_large_day_is_judged_by_whole_users(world: World, tmp_path: Path) -> None:
    rows = day()
    settings = EvaluatorSettings.model_validate({**SETTINGS, "next_day_interactions": 100})
    found = judge(world, tmp_path, settings=settings)
    drawn = [row for row in rows if Window(DAY, share=100 / len(rows)).has(row.user)]
    assert 0 < len(drawn) < len(rows)
    assert (found.interactions, found.ranked) == (len(rows), len(drawn))
    assert found.metrics["all"]["interactions"] == len(drawn)


def test_a_catalogue_that_lost_items_and_no_counts(world: World, tmp_path: Path) -> None:
    write(tmp_path, "catalogue", [example(item_features(item)) for item in ITEMS[:5]])
    found = judge(world, tmp_path, catalogue=[f"{tmp_path}/Split-catalogue/*"], counts=[], earlier_model=None)
    kept = [row for row in day() if row.item in ITEMS[:5]]
    assert (found.ranked, found.not_in_catalogue) == (len(kept), len(day()) - len(kept))
    assert found.metrics["all"][POPULARITY]["recall_at_10"][0] == 1.0  # of five items
    assert BASELINE not in found.metrics["all"] and "change" not in found.metrics["all"]


def test_a_day_of_one_user_has_no_interval(world: World, tmp_path: Path) -> None:
    own = [row for row in day() if row.user == b"newcomer"]
    write(tmp_path, "eval", [row.serialized() for row in own])
    found = judge(world, tmp_path, interactions=[f"{tmp_path}/Split-eval/*"])
    assert found.metrics["all"]["interactions"] == len(own)
    value, *ends = found.metrics["all"][CANDIDATE]["recall_at_10"]
    assert 0.0 <= value <= 1.0 and ends == [None, None]
    write(tmp_path / "nobody", "eval", [])
    nobody = judge(world, tmp_path, interactions=[f"{tmp_path}/nobody/Split-eval/*"])
    assert (nobody.metrics, nobody.interactions, nobody.ranked) == ({}, 0, 0)


def test_models_of_another_width_are_compared_but_not_mixed(world: World, tmp_path: Path) -> None:
    other = export(SPEC, {"query": [4], "item": [4]}, tmp_path / "other")
    found = judge(world, tmp_path, earlier_model=other.uri)
    assert set(found.metrics["all"]["change"]) >= {"recall_at_10", "mrr"}
    replace(world, baseline=other).rank("other")
    ranked_examples = world.read("other").values()
    assert all(ranked.rank_feature(BASELINE) in each for each in ranked_examples)
    assert not any(ranked.rank_feature(NEW_QUERIES_OLD_ITEMS) in each for each in ranked_examples)


def test_tfma_says_the_same_of_the_same_rows(world: World, tmp_path: Path) -> None:
    """The candidate's evaluation and the next day's judgement add up by one code; TFMA slices the one, NumPy the other."""
    examples = write(tmp_path, "eval", [row.serialized() for row in day()])
    nothing = Counts()
    nothing.uri = str(tmp_path / "counts")
    write_counts(tmp_path / "counts" / TRAINING, [], DAY - 1)
    replace(world, examples=examples, counts=nothing).rank("tfma")
    of_tfma = evaluate(
        tmp_path / "evaluation",
        f"{world.folder}/tfma",
        {"model": [world.model], "baseline_model": [world.baseline]},
        SETTINGS | {"below_popularity": "bless"},
        has_history=True,
    ).full
    of_numpy = judge(world, tmp_path).metrics
    assert of_numpy.keys() == of_tfma.keys() and len(of_numpy) > 10
    # Each kind of event has its metrics, in the evaluation and in the judgement by the next day.
    kinds = [of_numpy[f"event_kind={kind}"]["interactions"] for kind in ("view", "purchase")]
    assert all(kinds) and sum(kinds) == of_numpy["all"]["interactions"]
    compared = 0
    for name, of_slice in of_numpy.items():
        for scorer, expected in of_slice.items():
            found = of_tfma[name][scorer]
            if not isinstance(expected, dict):
                assert found == expected, (name, scorer)
                continue
            for metric, (value, *ends) in expected.items():
                assert found[metric][0] == pytest.approx(value, abs=1e-12), (name, scorer, metric)
                if found[metric][1] is not None:
                    assert found[metric][1:] == pytest.approx(ends, abs=1e-9), (name, scorer, metric)
                compared += 1
    assert compared > 1000
