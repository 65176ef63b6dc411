"""A small world to rank, and what the numbers of a ranking are by definition, worked out one at a time."""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import standard_artifacts

from components.analysis import files as analysis_files
from components.analysis.vocabulary import Known, entries
from components.artifacts import Counts, ItemIndex, Retriever, warm_start_folder
from components.counts.files import THROUGH, TRAINING
from components.digests import is_drawn
from components.evaluator import ranked
from components.evaluator.as_new import AsNew
from components.evaluator.block_search import TIE
from components.evaluator.cooccurrence import FADES, NEWEST
from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    CANDIDATE,
    CONTENT_NEIGHBOURS,
    COOCCURRENCE,
    NEW_QUERIES_OLD_ITEMS,
    OLD_QUERIES_NEW_ITEMS,
    POPULARITY,
    RECENT_POPULARITY,
    SIMILAR_ITEMS,
    TAKEN_BEFORE,
)
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


def make_world(folder: Path) -> World:
    """A log, a catalogue, two models of them, the index of one, and what is known of the evening before."""
    training, held_out = log()
    examples = write(folder / "examples", "train", [row.serialized() for row in training])
    write(folder / "examples", "eval", [row.serialized() for row in held_out])
    items = write(folder / "catalogue", "catalogue", [example(item_features(item)) for item in ITEMS])
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
        {"model": [models[0]], "catalogue": [items], "examples": [examples]},
        {"index": [index], "retriever": [retriever]},
        {"settings": settings, "filters": '{"tags": {"kind": "ids"}}'},
    )
    # Of the training interactions those of the day before are carried, the others the day's own.
    rewarded = [Taken(row.user, row.item, row.time, row.past) for row in training if row.reward]
    counts, base_counts = Counts(), Counts()
    counts.uri, base_counts.uri = str(folder / "counts"), str(folder / "base_counts")
    write_counts(folder / "base_counts" / THROUGH, [each for each in rewarded if each.time < START], DAY - 1)
    write_counts(folder / "counts" / TRAINING, [each for each in rewarded if each.time >= START], DAY)
    return World(folder, examples, items, model, baseline, index, retriever, counts, base_counts)


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
