"""What would be pushed is served and asked: what answers otherwise than it was trained is refused, by what differs."""

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2
from tfx import types
from tfx.types import standard_artifacts

from components.artifacts import ItemIndex, Retriever
from components.indexer.component import FILTERS, IndexerExecutor
from components.indexer.files import ItemEmbeddings
from components.indexer.settings import IndexerSettings
from components.infra_validator.component import InfraValidator
from components.infra_validator.parity import Parity
from components.trainer.export import load_tower
from components.trainer.model import TwoTowerModel
from components.trainer.repeats import Repeats
from components.transform.preprocessing import fingerprint
from ndr_client.served import EMBEDDING, EXAMPLES_SIGNATURE, QUERY_TOWER, TENSORS_SIGNATURE
from schemas.features import CANDIDATE_ID, FeatureSpec
from tests.components.exported import Adjust, export, trainer_settings

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item", "filters": {"land": {"kind": "ids"}, "price": {"kind": "number"}}},
        "tables": {"item": {"width": 8, "hash_buckets": 500}},
        "query": {
            "past": {"kind": "history", "table": "item", "last": 2, "repeats": True, "encoder": "attention"},
            "age": {"kind": "number", "scale": "none"},
        },
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
TOWERS = {"query": [6], "item": [6]}
ITEMS = [b"item %03d" % number for number in range(400)]


def write(folder: Path, split: str, features: list[dict[str, list[Any]]]) -> types.Artifact:
    target = folder / f"Split-{split}"
    target.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(target / "0.gz"), "GZIP") as writer:
        for each in features:
            example = tf.train.Example()
            for name, values in each.items():
                kind = example.features.feature[name]
                (kind.bytes_list if isinstance(values[0], bytes) else kind.float_list).value.extend(values)
            writer.write(example.SerializeToString(deterministic=True))
    made = standard_artifacts.Examples()
    made.uri, made.split_names = str(folder), json.dumps([split])
    return made


def described(item: bytes) -> dict[str, list[Any]]:
    """Of three items one is of two lands, and one of none and without a price; one item alone is of the moon."""
    number = int(item[-3:])
    lands = [[b"de"], [b"de", b"at"], []][number % 3] + [b"moon"] * (number == 7)
    values: dict[str, list[Any]] = {"land": lands, "price": [float(number)] if number % 3 < 2 else []}
    return {CANDIDATE_ID: [item], "item": [item], **{name: each for name, each in values.items() if each}}


Made = tuple[types.Artifact, types.Artifact]
"""An index and its retriever."""


class World:
    """What the step is given: the first of two models, and what was made of it."""

    def __init__(self, folder: Path, models: list[types.Artifact], kind: str) -> None:
        self.folder = folder
        self.models = models
        self.catalogue = write(folder / "catalogue", "catalogue", [*map(described, ITEMS)])
        seen: list[dict[str, list[Any]]] = [
            {"past": [ITEMS[n], ITEMS[2 * n]], "past_ages": [3.0 ** (n % 12), 5.0]} for n in range(150)
        ]
        self.training, self.held_out = write(folder / "t", "train", seen), write(folder / "e", "eval", seen)
        ivf = {"kind": "ivf", "lists": 8, "probes": 2, "recall_at": 200, "vectors": "int8"}
        self.settings = IndexerSettings.model_validate(ivf if kind == "ivf" else {"kind": kind})

    @cached_property
    def right(self) -> Made:
        """Of the first model."""
        return self.index("right", self.models[0], self.catalogue)

    @cached_property
    def of_another_model(self) -> Made:
        return self.index("of_another_model", self.models[1], self.catalogue)

    @cached_property
    def moved(self) -> Made:
        """Of the first model, and of a catalogue in which each item has what belongs to the one before."""
        described_as = zip(ITEMS, ITEMS[-1:] + ITEMS[:-1], strict=True)
        moved = [{**described(other), CANDIDATE_ID: [item], "item": [item]} for item, other in described_as]
        return self.index("moved", self.models[0], write(self.folder / "moved", "catalogue", moved))

    def index(self, name: str, model: types.Artifact, catalogue: types.Artifact, **changed: Any) -> Made:
        """Made by other settings where some have changed."""
        index, retriever = ItemIndex(), Retriever()
        index.uri, retriever.uri = str(self.folder / f"{name}_index"), str(self.folder / f"{name}_retriever")
        settings = self.settings.model_copy(update=changed)
        IndexerExecutor().Do(
            {"model": [model], "catalogue": [catalogue], "examples": [self.training]},
            {"index": [index], "retriever": [retriever]},
            {"settings": settings.model_dump_json(), "filters": FILTERS.dump_json(SPEC.catalogue.filters).decode()},
        )
        return index, retriever

    def validate(self, model: types.Artifact, made: Made, to: Path, least_recall: float | None = None) -> list[str]:
        """The sentences of a refusal; none where the version is blessed."""
        index, retriever = made
        transform, blessing = standard_artifacts.TransformGraph(), standard_artifacts.InfraBlessing()
        transform.uri, blessing.uri = f"{self.models[0].uri}/transform", str(to / "blessing")
        Path(blessing.uri).mkdir(parents=True)
        InfraValidator.EXECUTOR_SPEC.executor_class().Do(
            {
                "model": [model],
                "transform_graph": [transform],
                "index": [index],
                "retriever": [retriever],
                "examples": [self.held_out],
                "catalogue": [self.catalogue],
            },
            {"blessing": [blessing]},
            {
                "trainer": trainer_settings(TOWERS).model_dump_json(),
                "feature_spec": SPEC.model_dump_json(),
                "day": "2026-11-24",
                "tensorflow": "2.19",
                "least_recall": least_recall,
            },
        )
        refused = json.loads(blessing.get_string_custom_property("refused"))
        assert blessing.get_int_custom_property("blessed") == (0 if refused else 1)
        (mark,) = Path(blessing.uri).iterdir()
        assert mark.name == ("INFRA_NOT_BLESSED" if refused else "INFRA_BLESSED")
        return refused


def with_bonuses(level: float) -> Adjust:
    """The items of a history are scored so much higher, and the newest more; and they are weighed by their places and ages."""

    def adjust(model: TwoTowerModel, _: Any) -> None:
        assert model.repeat_bonus
        model.repeat_bonus.learned["past"]["level"].assign(level)
        model.repeat_bonus.learned["past"]["slope"].assign(0.2)
        for weight in model.query_tower.attentions["past"].learned.values():
            weight.assign(tf.random.stateless_normal(weight.shape, [3, 4]))

    return adjust


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[types.Artifact]:
    return [export(SPEC, TOWERS, tmp_path_factory.mktemp("model"), seed, with_bonuses(0.5)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def exact(models: list[types.Artifact], tmp_path_factory: pytest.TempPathFactory) -> World:
    """Of exact search. A test whose faults do not depend on the search has this one, as its version loads sooner."""
    return World(tmp_path_factory.mktemp("flat"), models, "flat")


@pytest.fixture(scope="module")
def in_lists(models: list[types.Artifact], tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two of eight lists are probed, as 100 are fewer than they are tuned for."""
    return World(tmp_path_factory.mktemp("ivf"), models, "ivf")


def test_a_version_of_one_model_answers_as_trained(exact: World, tmp_path: Path) -> None:
    """Exact search finds all of the exact first 100 of 400."""
    assert exact.validate(exact.models[0], exact.right, tmp_path, least_recall=0.999) == []


def test_a_retriever_that_finds_too_little_is_found_out_where_that_is_asked_for(
    in_lists: World, tmp_path: Path
) -> None:
    """Nothing else is refused: by lists, too, a version answers as trained. Of shards, below, nothing is asked for."""
    (words,) = in_lists.validate(in_lists.models[0], in_lists.right, tmp_path, least_recall=0.999)
    found = float(words.removeprefix("retriever: finds ").partition(" ")[0])
    assert 0.1 < found < 0.99
    assert words.endswith("of the exact first items, expected at least 0.999 (evaluator.minimum_index_recall)")


def test_a_request_has_an_age_for_each_item_of_a_history_or_none(models: list[types.Artifact]) -> None:
    tower = load_tower(f"{models[0].uri}/Format-Serving/{QUERY_TOWER}")
    items = [b"item 001", b"item 002"]

    def by_example(*ages: float) -> NDArray[np.float32]:
        example = tf.train.Example()
        example.features.feature["past"].bytes_list.value.extend(items)
        example.features.feature["past_ages"].float_list.value.extend(ages)
        found = tower.signatures[EXAMPLES_SIGNATURE](tf.constant([example.SerializeToString()]))
        return np.asarray(found[EMBEDDING])

    def by_tensors(*ages: float) -> NDArray[np.float32]:
        padded = {"past": [[b"", *items]], "past_ages": [[float("nan"), *ages]], "age": [float("nan")]}
        found = tower.signatures[TENSORS_SIGNATURE](**{name: tf.constant(each) for name, each in padded.items()})
        return np.asarray(found[EMBEDDING])

    nan = float("nan")
    for ages, alike in (
        ((3, 900), (2, 1000)),
        ((0, 900), (-5, 900)),
        ((nan, 900), (nan, 600)),
        ((nan, nan), (nan, nan)),
    ):
        np.testing.assert_allclose(by_example(*ages), by_tensors(*alike), atol=1e-6)
    np.testing.assert_allclose(by_example(), by_example(nan, nan), atol=1e-6)
    for others in ((900, 3), (nan, 900), ()):
        assert np.abs(by_example(*others) - by_example(3, 900)).max() > 0.01
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="past_ages: expected as many numbers as past has items, or none"
    ):
        by_example(3)


def test_an_index_and_a_retriever_of_another_model_are_found_out(exact: World, tmp_path: Path) -> None:
    refused = exact.validate(exact.models[0], exact.of_another_model, tmp_path)
    assert [words.partition(":")[0] for words in refused][:2] == ["index", "retriever"]
    assert "embeddings in the index and of the trained item tower differ for 400 of 400" in refused[0]
    assert "scores and inner products of its items differ for 150 of 150" in refused[1]


def test_items_that_fail_the_condition_are_detected(in_lists: World, tmp_path: Path) -> None:
    """Of 400 items 267 are of de, 133 of them also of at; one is of the moon; the prices are 0, 1, 3, 4, ... 399."""
    refused = in_lists.validate(in_lists.models[0], (in_lists.right[0], in_lists.moved[1]), tmp_path)
    asked = [words.partition(", asked with ")[2] for words in refused if "too few items" in words]
    assert asked == [
        "land=de of the 267 items that meet it",
        "land=moon of the 1 items that meet it",
        "land!=de of the 133 items that meet it",
        "price>=199 of the 134 items that meet it",
        "price<=0 of the 1 items that meet it",
    ]


def test_a_tower_that_differs_from_the_trained_one_is_detected(exact: World, tmp_path: Path) -> None:
    mixed = standard_artifacts.Model()
    mixed.uri = str(tmp_path / "mixed")
    shutil.copytree(exact.models[0].uri, mixed.uri)
    for tower in ("query_tower", "item_tower"):
        shutil.rmtree(f"{mixed.uri}/Format-Serving/{tower}")
        shutil.copytree(f"{exact.models[1].uri}/Format-Serving/{tower}", f"{mixed.uri}/Format-Serving/{tower}")
    refused = exact.validate(mixed, exact.right, tmp_path)
    assert [words.partition(" differ")[0] for words in refused] == [
        "query_tower: embeddings of the served and the trained tower",
        "item_tower: embeddings of the served and the trained tower",
    ]


def test_bonuses_that_are_not_those_that_were_learned_are_found_out(exact: World, tmp_path: Path) -> None:
    other = export(SPEC, TOWERS, tmp_path / "other", 0, with_bonuses(0.4))
    served = standard_artifacts.Model()
    served.uri = str(tmp_path / "served")
    shutil.copytree(other.uri, served.uri)
    shutil.rmtree(f"{served.uri}/Format-Serving")
    shutil.copytree(f"{exact.models[0].uri}/Format-Serving", f"{served.uri}/Format-Serving")
    alike = [words for words in exact.validate(served, exact.right, tmp_path) if "inner products" in words]
    assert ", by up to 0.1" in alike[0]
    assert [", asked with " in words for words in alike] == [False] + [True] * (len(alike) - 1) and len(alike) > 1


def test_each_shard_is_served_and_compared_by_itself(in_lists: World, tmp_path: Path) -> None:
    shards = in_lists.index("shards", in_lists.models[0], in_lists.catalogue, shards=2, stitched=False)
    retriever = Path(shards[1].uri)
    assert in_lists.validate(in_lists.models[0], shards, tmp_path / "right") == []
    shutil.rmtree(retriever / "retriever-1-of-2")
    shutil.copytree(retriever / "retriever-0-of-2", retriever / "retriever-1-of-2")
    refused = in_lists.validate(in_lists.models[0], shards, tmp_path / "wrong")
    assert "retriever: 150 answers have too few items, a repeated item, or one missing from the index" in refused


def test_operations_missing_in_the_serving_tensorflow_are_refused(exact: World, tmp_path: Path) -> None:
    newer = standard_artifacts.Model()
    newer.uri = str(tmp_path / "newer")
    shutil.copytree(exact.models[0].uri, newer.uri)
    graph = Path(newer.uri) / "Format-Serving/item_tower/saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(graph.read_bytes())
    model.meta_graphs[0].graph_def.node.add(name="picture", op="DecodeWebP", input=["not_asked"])
    model.meta_graphs[0].graph_def.node.add(name="not_asked", op="Placeholder").attr[
        "dtype"
    ].type = tf.string.as_datatype_enum
    graph.write_bytes(model.SerializeToString())
    (words,) = exact.validate(newer, exact.right, tmp_path)
    assert words == "item_tower: TensorFlow 2.19, which serves (server.tensorflow), has no operation DecodeWebP."


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index"])
def test_a_version_that_cannot_be_loaded_is_refused(exact: World, tmp_path: Path, file: str) -> None:
    broken = standard_artifacts.Model()
    broken.uri = str(tmp_path / "broken")
    shutil.copytree(exact.models[0].uri, broken.uri)
    (Path(broken.uri) / "Format-Serving/item_tower" / file).write_bytes(b"nonsense")
    (words,) = exact.validate(broken, exact.right, tmp_path)
    assert "cannot be loaded" in words


# Four items at 0, 90, 180 and 270 degrees, and a query at 10.
SQUARE = ItemEmbeddings([b"e", b"n", b"w", b"s"], np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32))
QUERY = np.array([[np.cos(np.radians(10)), np.sin(np.radians(10))]], np.float32)
NEAR, FAR = float(QUERY[0, 0]), float(QUERY[0, 1])  # the products with `e` and with `n`


def retrieved(
    ids: list[bytes], scores: list[float], is_exact: bool = True, bonuses: dict[bytes, float] | None = None
) -> list[str]:
    parity = Parity(SQUARE, is_exact, "float32")
    repeats = None
    if bonuses:
        of_items = fingerprint(tf.constant([list(bonuses)])).numpy()
        repeats = Repeats(of_items, np.array([list(bonuses.values())], np.float32))
    parity.retrieved(np.array([ids], object), np.array([scores], np.float32), QUERY, 2, repeats)
    return parity.faults()


def test_the_two_nearest_are_right_and_nothing_else_is() -> None:
    assert retrieved([b"e", b"n"], [NEAR, FAR]) == []
    assert "of exact search" in retrieved([b"e", b"s"], [NEAR, -FAR])[0]
    assert "inner products" in retrieved([b"e", b"n"], [NEAR, FAR + 0.01])[0]
    assert any("a repeated item" in words for words in retrieved([b"e", b"e"], [NEAR, NEAR]))
    assert any("missing from the index" in words for words in retrieved([b"e", b"?"], [NEAR, FAR]))
    assert any("too few items" in words for words in retrieved([b"e", b""], [NEAR, -2.0]))


def test_lists_may_find_others_or_fewer_but_not_score_them_otherwise() -> None:
    assert retrieved([b"e", b"s"], [NEAR, -FAR], is_exact=False) == []
    assert retrieved([b"e", b""], [NEAR, -2.0], is_exact=False) == []
    assert "inner products" in retrieved([b"e", b"s"], [NEAR, 0.0], is_exact=False)[0]


@pytest.mark.parametrize("is_exact", [True, False])
def test_items_of_histories_are_found_with_their_bonuses_whatever_lists_they_are_in(is_exact: bool) -> None:
    # West is the farthest, and with 2.5 more the first; north has less than nothing; what the index lacks has no place.
    bonuses = {b"w": 2.5, b"n": -0.9, b"gone": 5.0}
    assert retrieved([b"w", b"e"], [2.5 - NEAR, NEAR], is_exact, bonuses) == []
    assert "inner products" in retrieved([b"w", b"e"], [2.4 - NEAR, NEAR], is_exact, bonuses)[0]
    forgotten = retrieved([b"e", b"s"], [NEAR, -FAR], is_exact, bonuses)
    assert any("the expected items of histories" in words for words in forgotten)


def test_nan_and_other_shapes_differ() -> None:
    def queries(served: NDArray[np.float32]) -> list[str]:
        parity = Parity(SQUARE, True, "float32")
        parity.queries(served, QUERY)
        return parity.faults()

    assert queries(QUERY + np.float32(1e-6)) == []
    for served in (QUERY + np.float32(1e-3), np.full_like(QUERY, np.nan), np.ones((1, 3), np.float32)):
        assert "query_tower: embeddings of the served and the trained tower differ for 1 of 1" in queries(served)[0]


def test_an_item_that_the_index_lacks_differs() -> None:
    parity = Parity(SQUARE, True, "float32")
    parity.items([b"e", b"?"], SQUARE.embeddings[:2], SQUARE.embeddings[:2])
    (words,) = parity.faults()
    assert words.startswith("index: embeddings in the index and of the trained item tower differ for 1 of 2")
