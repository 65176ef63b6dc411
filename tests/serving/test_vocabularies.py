"""The share of unknown ids: those of a query that the vocabularies of its model do not have."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from ndr_client import Client
from serving.vocabularies import Vocabularies
from tests.serving.tiny import Pushes, Serve
from tests.waiting import wait_for


def texts(values: ArrayLike) -> NDArray[Any]:
    return np.array(values, object)


def write(folder: Path) -> Path:
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "vocabulary_item").write_bytes(b"a\nb\n\xff\n")
    return folder


TABLES = {"past": "item", "latest": "item", "hour": "hour"}  # hours are all hashed: there is no vocabulary of them


def test_ids_of_tensors_and_of_examples_are_looked_up(tmp_path: Path) -> None:
    known = Vocabularies(write(tmp_path), TABLES)
    # Of past: a, b and \xff are known, c is not, and an empty text is no id. Of latest: a is known, z is not.
    counts = {"past": (4, 1), "latest": (2, 1)}
    inputs = {"past": texts([[b"a", b"c"], [b"\xff", b""], [b"b", b""]]), "latest": texts([b"a", b"z", b""])}
    assert known.count({**inputs, "hour": texts([b"1"]), "k": np.array([1])}) == counts
    examples = []
    for past, latest in (([b"a", b"c"], [b"a"]), ([b"\xff"], [b"z"]), ([b"b"], [])):
        example = tf.train.Example()
        example.features.feature["past"].bytes_list.value.extend(past)
        example.features.feature["latest"].bytes_list.value.extend(latest)
        examples.append(example.SerializeToString())
    assert known.count({"examples": texts(examples)}) == counts
    assert Vocabularies(tmp_path / "none", TABLES).count(inputs) == {}


def test_a_server_counts_them(template: Path, tmp_path: Path, pushes: Pushes, serve: Serve) -> None:
    (pushes.model("one") / "retriever" / "assets" / "vocabulary_item").write_text("a\nb\n")
    pushes.push("one")
    server = serve(pushes.root, tables={"past": "item"}, unknown_ids_share=1.0)
    with Client(f"127.0.0.1:{server.port}") as client:
        client.retrieve({"angle": [0.6, 2.1], "past": [["a", "x"], ["y", ""]]}, 1)
    wait_for(lambda: b'ndr_serving_ids_total{feature="past"} 3.0' in server.metrics.exposed())
    assert b'ndr_serving_unknown_ids_total{feature="past"} 2.0' in server.metrics.exposed()
