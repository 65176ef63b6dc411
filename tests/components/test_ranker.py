"""Held-out interactions through the Ranker by Beam, against what each of its numbers is by definition, worked out one at a time."""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from exported import export
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import standard_artifacts

from components.analysis import files as analysis_files
from components.analysis.vocabulary import entries
from components.artifacts import ItemIndex, Retriever, warm_start_folder
from components.evaluator import ranked, slices
from components.evaluator.names import BASELINE, CANDIDATE, COOCCURRENCE, POPULARITY
from components.evaluator.ranker import RankerExecutor
from components.evaluator.ranking import TIE
from components.evaluator.settings import EvaluatorSettings
from components.example_gen.sources import MICROSECONDS_A_DAY
from components.indexer.component import IndexerExecutor
from components.indexer.embedding import LoadedTower
from components.indexer.settings import IndexerSettings
from ndr_client.served import ITEM_TOWER, QUERY_TOWER
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 8, "hash_buckets": 500}, "any": {"width": 4, "hash_buckets": 50}},
        "query": {
            "past": {"kind": "history", "table": "item", "last": 3},
            "device": {"kind": "id", "table": "any"},
            "age": {"kind": "number", "scale": "none"},
        },
        "item": {"item": {"kind": "id", "table": "item"}, "tags": {"kind": "ids", "table": "any", "max_values": 2}},
    }
)
ITEMS = [b"i%02d" % number for number in range(40)]
DAY = 20_000
SETTINGS: dict[str, Any] = {
    "retrieved_at": 5,
    "slices": {"age": {"edges": [30]}, "tags": {"most": 1}, "device": {}},
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

    def serialized(self) -> bytes:
        features = item_features(self.item) | {"past": list(self.past), "device": [self.device], "age": [self.age]}
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
    start = DAY * MICROSECONDS_A_DAY
    training, held_out = [], []
    for number in range(500):
        user = b"u%d" % random.integers(25)
        time = int(start - MICROSECONDS_A_DAY + number * MICROSECONDS_A_DAY // 250)
        past = tuple(ITEMS[n] for n in random.integers(0, 38, random.integers(1, 4)))
        item = ITEMS[int(38 * random.random() ** 2)]
        row = Row(user, item, time, past, age=float(random.integers(18, 60)), reward=float(random.random() < 0.9))
        (held_out if time >= start and random.random() < 0.3 else training).append(row)
    for item in (ITEMS[1], ITEMS[2], ITEMS[2], ITEMS[39]):
        held_out.append(Row(b"newcomer", item, start + 7, (), device=b"tv"))
    training.append(Row(b"u0", ITEMS[39], start + 5, (ITEMS[0], b"gone")))
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

    def rank(self, name: str, workers: int = 1, has_baseline: bool = True, **settings: Any) -> dict[str, bytes]:
        """The files that it leaves."""
        made = standard_artifacts.Examples()
        made.uri = str(self.folder / name)
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=[f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading"],
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
            },
            {"ranked_examples": [made]},
            {
                "settings": EvaluatorSettings.model_validate({**SETTINGS, **settings}).model_dump_json(),
                "feature_spec": SPEC.model_dump_json(),
                "day": DAY,
            },
        )
        assert [path.name for path in (self.folder / name).iterdir()] == ["Split-eval"]  # nothing else is left
        return {path.name: path.read_bytes() for path in (self.folder / name / "Split-eval").iterdir()}

    def read(self, name: str) -> dict[tuple[bytes, bytes, int], dict[str, list[Any]]]:
        """Every ranked example by user, item and time."""
        files = tf.io.gfile.glob(str(self.folder / name / "Split-eval" / "*"))
        found = {}
        for serialized in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator():
            features = tf.train.Example.FromString(serialized).features.feature
            each = {
                n: list(getattr(f, f.WhichOneof("kind")).value) for n, f in features.items() if f.WhichOneof("kind")
            }
            found[each[QUERY_ID][0], each[CANDIDATE_ID][0], each[TIMESTAMP][0]] = each
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("ranker")
    training, held_out = log()
    examples = write(folder / "examples", "train", [row.serialized() for row in training])
    write(folder / "examples", "eval", [row.serialized() for row in held_out])
    catalogue = write(folder / "catalogue", "catalogue", [example(item_features(item)) for item in ITEMS])
    towers = {"query": [16, 6], "item": [16, 6]}
    models = [export(SPEC, towers, folder / f"model{seed}", seed) for seed in (0, 1)]
    # The last blessed model knows the item that only the day's training has.
    analysis_files.write(warm_start_folder(models[1].uri), {"item": entries([ITEMS[39]], [1], [1])}, {})
    index, retriever = ItemIndex(), Retriever()
    index.uri, retriever.uri = str(folder / "index"), str(folder / "retriever")
    settings = IndexerSettings(kind="ivf", lists=8, probes=1).model_dump_json()
    IndexerExecutor().Do(
        {"model": [models[0]], "catalogue": [catalogue], "examples": [examples]},
        {"index": [index], "retriever": [retriever]},
        {"settings": settings},
    )
    return World(folder, examples, catalogue, *models, index, retriever)


@cache
def embedded(model: str) -> tuple[np.ndarray, dict[Row, np.ndarray]]:
    """[items, width] embeddings of the catalogue, and that of each held-out query, embedded by itself."""
    items, query = (LoadedTower(f"{model}/Format-Serving/{tower}") for tower in (ITEM_TOWER, QUERY_TOWER))
    queries = {row: query.embed([row.serialized()])[0] for row in log()[1]}
    return items.embed([example(item_features(item)) for item in ITEMS]), queries


def scores_of(model: types.Artifact, row: Row) -> np.ndarray:
    """[items] scores of a query."""
    items, queries = embedded(model.uri)
    return items @ queries[row]


def place(scores: Any, item: bytes, left_out: tuple[bytes, ...] = (), tie: float = 0.0) -> list[int]:
    own = scores[ITEMS.index(item)]
    others = [scores[n] for n, other in enumerate(ITEMS) if other != item and other not in left_out]
    return [sum(s > own + tie for s in others), sum(abs(s - own) <= tie for s in others)]


def expected_places(world: World, row: Row, left_out: tuple[bytes, ...]) -> dict[str, list[int]]:
    training = [each for each in log()[0] if each.reward]
    popularity = Counter(each.item for each in training)
    pairs = Counter((source, each.item) for each in training for source in each.past if source in ITEMS)
    totals = Counter(source for each in training for source in each.past if source in ITEMS)
    led_to = [sum(round(2**20 * pairs[h, item] / totals[h]) for h in row.past if totals[h]) for item in ITEMS]
    both = [score * 1000 + popularity[item] for score, item in zip(led_to, ITEMS, strict=True)]
    return {
        CANDIDATE: place(scores_of(world.model, row), row.item, left_out, TIE),
        BASELINE: place(scores_of(world.baseline, row), row.item, left_out, TIE),
        POPULARITY: place([popularity[item] for item in ITEMS], row.item, left_out),
        COOCCURRENCE: place(both, row.item, left_out),
    }


@pytest.mark.parametrize("exclude_history", [False, True])
def test_places_are_those_by_definition(world: World, exclude_history: bool) -> None:
    name = f"places{exclude_history}"
    world.rank(name, exclude_history=exclude_history)
    found = world.read(name)
    rewarded = [row for row in log()[1] if row.reward]
    assert {(row.user, row.item, row.time) for row in rewarded} == found.keys()
    for row in rewarded:
        each = found[row.user, row.item, row.time]
        left_out = row.past if exclude_history else ()
        for scorer, expected in expected_places(world, row, left_out).items():
            assert each[ranked.rank_feature(scorer)] == expected, (row, scorer)
        # What is retrieved is what is first: the true item is there exactly where it stands before place 5 with none tied.
        rows = each[ranked.retrieved_feature(CANDIDATE)]
        above, tied = each[ranked.rank_feature(CANDIDATE)]
        assert len(rows) == 5 and not {ITEMS[n] for n in rows} & set(left_out) - {row.item}
        if not tied and row.item not in left_out:
            assert (ITEMS.index(row.item) in rows) == (above < 5)


def test_sets_slices_and_what_is_retrieved(world: World) -> None:
    world.rank("slices")
    found = world.read("slices")
    training = [row for row in log()[0] if row.reward]
    counts = np.array([sum(row.item == item for row in training) for item in ITEMS])
    parts = slices.popularity_parts(counts)
    start = DAY * MICROSECONDS_A_DAY
    before = {row.item for row in training if row.time < start}
    commonest = Counter(t for row in log()[1] if row.reward for t in item_features(row.item)["tags"]).most_common(1)[0][
        0
    ]
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
        tags = {tag if tag == commonest else b"(other)" for tag in item_features(item)["tags"]} or {b"(none)"}
        assert set(each[slices.feature("tags")]) == tags
        # The newcomer's one query has items 1, 2 (twice, which is one example here) and 39.
        sets = {ITEMS[2]: [3, 2]}.get(item, [3, 1]) if user == b"newcomer" else each[ranked.TRUE_ITEMS]
        assert each[ranked.TRUE_ITEMS] == sets
        rows = each[ranked.retrieved_feature(CANDIDATE)]
        popularity, novelty, index_recall = each[ranked.retrieval_feature(CANDIDATE)]
        assert popularity == pytest.approx(np.mean(counts[rows] / counts.sum()), rel=1e-5)
        assert novelty == pytest.approx(np.mean(-np.log2((counts[rows] + 1) / (counts.sum() + 40))), rel=1e-5)
        assert 0.0 <= index_recall <= 1.0
        assert each[ranked.CATALOGUE_SIZE] == [40]
    recalls = [each[ranked.retrieval_feature(CANDIDATE)][2] for each in found.values()]
    assert 0.0 < np.mean(recalls) < 1.0  # one of eight lists


def test_several_workers_leave_the_same_files_to_the_byte(world: World) -> None:
    assert world.rank("one") == world.rank("three", workers=3)


def test_a_first_run_has_no_baseline_and_knows_what_training_knows(world: World) -> None:
    world.rank("first", has_baseline=False)
    found = world.read("first")
    assert all(ranked.rank_feature(BASELINE) not in each for each in found.values())
    fresh = {item for (_, item, _), each in found.items() if each[slices.feature("item_age")] == [b"fresh"]}
    assert ITEMS[39] in fresh
