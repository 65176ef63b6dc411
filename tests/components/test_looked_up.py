"""Features of the seed and of the history: what the catalogue says of the items, by their ids alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

from components.indexer.retriever import export_retriever
from components.indexer.search import ExactSearch
from components.trainer.export import load_tower
from components.trainer.inputs import looked_up, lookup_for_training
from components.transform import raw_features
from components.transform.catalogue_lookup import CatalogueLookup
from components.transform.graph import TransformGraph
from ndr_client.served import (
    EMBEDDING,
    EXAMPLES_SIGNATURE,
    ITEM_IDS,
    ITEM_TOWER,
    QUERY_TOWER,
    RETRIEVER,
    SCORES,
    TENSORS_SIGNATURE,
)
from schemas.features import CANDIDATE_ID, FeatureSpec
from tests.components.exported import export
from tests.components.test_retriever import PROTO_ALONE

ITEM: dict[str, dict[str, Any]] = {
    "item": {"kind": "id", "table": "item"},
    "label": {"kind": "id", "table": "tag"},
    "tags": {"kind": "ids", "table": "tag", "max_values": 2, "weights": "shares"},
    "sums": {"kind": "ids", "table": "tag", "max_values": 2, "pooling": "sum"},
    "price": {"kind": "number", "scale": "none"},
    "sound": {"kind": "vector", "size": 2},
    "called": {"kind": "text", "table": "word", "max_values": 4},
}
CONTENT = [name for name in ITEM if name != "item"]


def spec(query: dict[str, dict[str, Any]], last: int = 3) -> FeatureSpec:
    ids = {
        "seed": {"kind": "id", "table": "item"},
        "past": {"kind": "history", "table": "item", "last": last, "column": "seen"},
    }
    return FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "at"},
            "catalogue": {"item": "item"},
            "tables": {name: {"width": 4, "hash_buckets": 500} for name in ("item", "tag", "word")},
            "query": {**ids, **query},
            "item": ITEM,
        }
    )


def looked_up_of(of: str, prefix: str) -> dict[str, dict[str, Any]]:
    return {f"{prefix}_{name}": {"kind": "looked_up", "of": of, "feature": name} for name in CONTENT}


BY_ID = spec({**looked_up_of("seed", "seed"), **looked_up_of("past", "past")})
IN_FULL = spec({f"{prefix}_{name}": ITEM[name] for prefix in ("seed", "past") for name in CONTENT})
TOWERS = {"query": [8, 5], "item": [8, 5]}
CATALOGUE: list[dict[str, list[Any]]] = [
    {
        CANDIDATE_ID: [b"i%d" % n],
        "item": [b"i%d" % n],
        "label": [b"l%d" % (n % 3)],
        "tags": [b"t%d" % n, b"t%d" % (n + 1)],
        "tags_weights": [1.0, 0.5],
        "sums": [b"s%d" % n],
        "price": [n / 4],
        "sound": [float(n), 1.0],
        "called": [f"Sóng {n}".encode()],
    }
    for n in range(8)
]
CATALOGUE.append({CANDIDATE_ID: [b"bare"], "item": [b"bare"]})


def example(features: dict[str, list[Any]]) -> bytes:
    made = tf.train.Example()
    for name, values in features.items():
        kind = made.features.feature[name]
        (kind.bytes_list if isinstance(values[0], bytes) else kind.float_list).value.extend(values)
    return made.SerializeToString()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models with the same weights: of one the request has ids, of the other all that the catalogue says."""
    root = tmp_path_factory.mktemp("looked_up")
    with tf.io.TFRecordWriter(str(root / "items.gz"), "GZIP") as writer:
        for each in CATALOGUE:
            writer.write(example(each))
    for name, of in (("by_id", BY_ID), ("in_full", IN_FULL)):
        export(of, TOWERS, root / name, catalogue=str(root / "items.gz"))
    return {name: root / name / "Format-Serving" / QUERY_TOWER for name in ("by_id", "in_full")}


def embed(folder: Path, *queries: dict[str, list[Any]]) -> NDArray[np.float32]:
    signature = load_tower(str(folder)).signatures[EXAMPLES_SIGNATURE]
    found: NDArray[np.float32] = signature(tf.constant([example(each) for each in queries]))[EMBEDDING].numpy()
    return found


def in_full(seed: int, past: int) -> dict[str, list[Any]]:
    """A query with all that the catalogue says of its items; the mean over a history of one item is that item's."""
    said: dict[str, list[Any]] = {}
    for prefix, number in (("seed", seed), ("past", past)):
        said |= {
            f"{prefix}_{name}": values
            for name, values in CATALOGUE[number].items()
            if name not in ("item", CANDIDATE_ID)
        }
    return said


def test_a_tower_contains_only_its_part_of_transforms_graph(folders: dict[str, Path]) -> None:
    """Regression: the query tower ran, for every request, what an item's texts go through, on texts that were made up."""
    saved = {
        name: saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        for name, folder in {**folders, "items": folders["by_id"].with_name(ITEM_TOWER)}.items()
    }
    decodes = {
        name: any(
            "UnicodeDecode" in node.op for f in model.meta_graphs[0].graph_def.library.function for node in f.node_def
        )
        for name, model in saved.items()
    }
    # By ids alone, the query's words are rows of tables in the tower; in full, they come as texts.
    assert decodes == {"by_id": False, "in_full": True, "items": True}


def test_a_part_of_transforms_graph_equals_the_whole(folders: dict[str, Path]) -> None:
    transform = tft.TFTransformOutput(str(folders["in_full"].parents[1] / "transform"))
    for features in (IN_FULL.raw_query, IN_FULL.item):
        serialized = tf.constant([example(each) for each in CATALOGUE] + [example({"seed": [b"i3"], **in_full(3, 5)})])
        raw = raw_features.parse_examples(serialized, features)
        part = tf.function(TransformGraph.of(transform), autograph=False)(raw)
        whole = transform.transform_features_layer()(raw)
        assert part.keys() == whole.keys() >= features.keys()
        for name, values in part.items():
            expected = whole[name]
            if isinstance(values, tf.SparseTensor):
                np.testing.assert_array_equal(values.indices, expected.indices)
                values, expected = values.values, expected.values
            np.testing.assert_array_equal(values, expected)


def test_a_query_by_id_and_by_all_that_the_catalogue_says_is_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    by_id = [{"seed": [b"i3"], "past": [b"i5"]}, {"seed": [b"bare"], "past": [b"i0"]}]
    said = [in_full(3, 5), in_full(8, 0)]
    expected = embed(folders["in_full"], *({**ids, **each} for ids, each in zip(by_id, said, strict=True)))
    np.testing.assert_allclose(embed(folders["by_id"], *by_id), expected, atol=1e-6)
    assert np.abs(expected - embed(folders["in_full"], *by_id)).max() > 0.1  # what is said matters

    items = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0].astype(np.float32)
    export_retriever(str(folders["by_id"]), ExactSearch(items), [b"a", b"b", b"c", b"d", b"e"], str(tmp_path))
    served = tf.saved_model.load(f"{tmp_path}/{RETRIEVER}").signatures
    found = served[EXAMPLES_SIGNATURE](examples=tf.constant([example(each) for each in by_id]), k=tf.constant([5, 5]))
    products = expected @ items.T
    order = np.argsort(-products, axis=1)
    assert found[ITEM_IDS].numpy().tolist() == [[b"abcde"[i : i + 1] for i in row] for row in order]
    np.testing.assert_allclose(found[SCORES].numpy(), np.take_along_axis(products, order, axis=1), atol=1e-6)
    by_tensors = served[TENSORS_SIGNATURE](
        seed=tf.constant(["i3"]), past=tf.constant([["i5"]]), k=tf.constant([5]), exclude=tf.constant([[""]])
    )
    np.testing.assert_allclose(by_tensors[SCORES].numpy(), found[SCORES].numpy()[:1], atol=1e-6)
    # Stock TensorFlow, in a process of its own, knows every operation.
    command = [sys.executable, "-I", "-c", PROTO_ALONE, f"{tmp_path}/{RETRIEVER}"]
    read = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert read["unknown"] == []


def test_an_item_that_the_catalogue_lacks_is_the_zero_vector(folders: dict[str, Path]) -> None:
    gone = {"seed": [b"gone"], "past": [b"gone"]}
    np.testing.assert_allclose(embed(folders["by_id"], gone), embed(folders["in_full"], gone), atol=1e-6)
    without_seed = {"past": [b"i5"]}
    said = {name: values for name, values in in_full(0, 5).items() if name.startswith("past")}
    found = embed(folders["by_id"], without_seed)
    np.testing.assert_allclose(found, embed(folders["in_full"], {**without_seed, **said}), atol=1e-6)


def test_the_mean_over_a_history_worked_out_by_hand() -> None:
    of = spec(looked_up_of("past", "past"), last=4)
    items = {
        CANDIDATE_ID: tf.constant([1, 2], tf.int64),
        "label": tf.constant([7, -1], tf.int64),
        "tags": tf.constant([[3, 4], [5, -1]], tf.int64),
        "tags_weights": tf.constant([[3, -1], [2, 0]], tf.float32),
        "sums": tf.constant([[3, 4], [5, -1]], tf.int64),
        "sums_weights": tf.constant([[1, 1], [1, 0]], tf.float32),
        "price": tf.constant([4.0, -2.0]),
        "sound": tf.constant([[0.6, 0.8, 1], [0, 0, 0]], tf.float32),
        "called": tf.constant([[9, -1, -1, -1], [9, 8, -1, -1]], tf.int64),
        "called_weights": tf.constant([[1, 0, 0, 0], [1, 1, 0, 0]], tf.float32),
    }
    lookup = lookup_for_training(of, items)
    # Two known items and one that is gone; nothing at all. Each item of three has a share of 1/3, the one that is gone too.
    found = lookup.of_query(of, {"past_fingerprint": tf.constant([[1, 2, 3, -1], [-1] * 4], tf.int64)})
    third = 1 / 3
    assert found["past_price"].numpy().tolist() == pytest.approx([2 * third, 0])
    assert found["past_sound"].numpy() == pytest.approx(np.array([[0.2, 0.8 * third, third], [0, 0, 0]]))
    assert found["past_label"].numpy().tolist()[0] == [7, -1, -1, -1]
    assert found["past_label_weights"].numpy()[0] == pytest.approx([third, 0, 0, 0])
    # A mean divides by the weights' magnitudes first: 3 and -1 become 3/4 and -1/4.
    assert found["past_tags"].numpy().tolist()[0] == [3, 4, 5, -1, -1, -1, -1, -1]
    assert found["past_tags_weights"].numpy()[0] == pytest.approx([0.25, -third / 4, third, 0, 0, 0, 0, 0])
    assert found["past_sums_weights"].numpy()[0] == pytest.approx([third, third, third, 0, 0, 0, 0, 0])
    assert found["past_called_weights"].numpy()[0] == pytest.approx([third, 0, 0, 0, third / 2, third / 2] + [0] * 10)
    assert {name: values.numpy()[1].any() for name, values in found.items() if "weights" in name} == {
        f"past_{name}_weights": False for name in ("label", "tags", "sums", "called")
    }


def test_training_gets_catalogue_features_of_candidates_and_queries() -> None:
    of = spec({"seed_sound": {"kind": "looked_up", "of": "seed", "feature": "sound"}})
    items = {
        CANDIDATE_ID: tf.constant([1, 2], tf.int64),
        "sound": tf.constant([[0.6, 0.8, 1], [1, 0, 1]], tf.float32),
        "called": tf.constant([[9, -1, -1, -1], [9, 8, -1, -1]], tf.int64),
        "called_weights": tf.constant([[1, 0, 0, 0], [1, 1, 0, 0]], tf.float32),
    }
    interactions = {CANDIDATE_ID: tf.constant([2, 1], tf.int64), "seed_fingerprint": tf.constant([1, -1], tf.int64)}
    batches = tf.data.Dataset.from_tensors(interactions)
    (batch,) = looked_up(of, batches, lookup_for_training(of, items)).as_numpy_iterator()
    assert batch["sound"].tolist() == [[1, 0, 1], pytest.approx([0.6, 0.8, 1])]
    assert batch["called"].tolist() == [[9, 8, -1, -1], [9, -1, -1, -1]]
    assert batch["seed_sound"].tolist() == [pytest.approx([0.6, 0.8, 1]), [0, 0, 0]]


def test_lookups_return_the_items_features_and_zeros_for_unknown_items() -> None:
    items = {
        CANDIDATE_ID: tf.constant([50, 7, 30], tf.int64),
        "tag": tf.constant([0, 1, 2], tf.int64),
        "sound": tf.constant([[1, 1, 1], [2, 2, 1], [3, 3, 1]], tf.float32),
    }
    lookup = CatalogueLookup(["tag", "sound"], items)
    found = lookup(tf.constant([[7, -1], [50, 60], [8, 30]], tf.int64), ["tag", "sound"])
    assert found["tag"].numpy().tolist() == [[1, -1], [0, -1], [-1, 2]]
    assert found["sound"].numpy()[:, :, 0].tolist() == [[2, 0], [1, 0], [0, 3]]
    assert found["sound"].shape == (3, 2, 3)
    assert lookup(tf.constant([], tf.int64), ["tag"])["tag"].shape == (0,)
