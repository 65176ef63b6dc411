"""A model small enough to push many times, whose answers can be worked out by hand and whose item ids name their push.

Items lie on the unit circle, item n at n / 2 radians; a query is an angle. The nearest item to the angle 0.6 is item 1 (at 0.5),
then 2 (at 1.0), then 0: score cos(0.1), cos(0.4), cos(0.6). The id of item n is LABEL-n.
"""

import math
import shutil
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer import files
from components.pusher.files import Source
from components.pusher.manifest import find
from components.pusher.versions import PushFolder
from ndr_client import served
from serving.histories import Histories
from serving.servable import Servable
from serving.server import EmbeddedServer, ServerSettings

ANY_PORT = ServerSettings(port=0, rest_port=0, poll_seconds=0.05)
DAY = date(2026, 11, 24)
ITEMS = 5
PARTS = (served.QUERY_TOWER, served.ITEM_TOWER, served.RETRIEVER, served.INDEX)


def unit(angles: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.cos(angles), tf.sin(angles)], axis=1)


def vectors() -> NDArray[np.float32]:
    angles = np.arange(ITEMS) / 2
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class Tower(tf.Module):
    """A number to its place on the circle: `angle` for queries, which also have a `past`, and `number` / 2 for items."""

    def __init__(self, feature: str, scale: float, with_past: bool) -> None:
        super().__init__()
        specs = {feature: tf.TensorSpec([None], tf.float32, name=feature)}
        if with_past:
            specs["past"] = tf.TensorSpec([None, None], tf.string, name="past")

        @tf.function(input_signature=[specs])
        def from_tensors(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {"embedding": unit(tensors[feature] * scale)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def from_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(examples, {feature: tf.io.FixedLenFeature([], tf.float32)})
            return {"embedding": unit(parsed[feature] * scale)}

        self.served = {
            "serving_default": from_tensors.get_concrete_function(),
            "serving_examples": from_examples.get_concrete_function(),
        }


class Retriever(tf.Module):
    """Exact search among the items; which push they are of it reads from an asset when it is loaded."""

    def __init__(self, label_file: str) -> None:
        super().__init__()
        rows = tf.lookup.TextFileInitializer(
            label_file, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
        )
        self.label = tf.lookup.StaticHashTable(rows, "")
        self.items = tf.Variable(vectors())
        k = tf.TensorSpec([None], tf.int32, name="k")
        exclude = tf.TensorSpec([None, None], tf.string, name="exclude")
        features = {
            "angle": tf.TensorSpec([None], tf.float32, name="angle"),
            "past": tf.TensorSpec([None, None], tf.string, name="past"),
        }

        @tf.function(input_signature=[{**features, "k": k, "exclude": exclude}])
        def from_tensors(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return self.nearest(unit(inputs["angle"]), inputs["k"], inputs["exclude"])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples"), k])
        def from_examples(examples: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(
                examples,
                {"angle": tf.io.FixedLenFeature([], tf.float32), "exclude": tf.io.VarLenFeature(tf.string)},
            )
            return self.nearest(unit(parsed["angle"]), k, tf.sparse.to_dense(parsed["exclude"], ""))

        embedding = tf.TensorSpec([None, 2], tf.float32, name="embedding")

        @tf.function(input_signature=[{"embedding": embedding, "k": k, "exclude": exclude}])
        def from_embeddings(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return self.nearest(inputs["embedding"], inputs["k"], inputs["exclude"])

        self.served = {
            "serving_default": from_tensors.get_concrete_function(),
            "serving_examples": from_examples.get_concrete_function(),
            "serving_embeddings": from_embeddings.get_concrete_function(),
        }

    def nearest(self, queries: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.assert_positive(k, "k: expected at least 1")]):
            width = tf.minimum(tf.reduce_max(k), ITEMS)
        label = self.label.lookup(tf.constant(0, tf.int64))
        ids = tf.strings.join([label, tf.strings.as_string(tf.range(ITEMS))], "-")
        excluded = tf.reduce_any(exclude[:, :, tf.newaxis] == ids, axis=1)
        scores = tf.where(excluded, -2.0, tf.matmul(queries, self.items, transpose_b=True))
        best, rows = tf.math.top_k(scores, width)
        there = (best > -2.0) & (tf.range(width) < k[:, tf.newaxis])
        return {"item_ids": tf.where(there, tf.gather(ids, rows), ""), "scores": tf.where(there, best, -2.0)}


def write_template(folder: Path) -> Path:
    """The models, once; a push of them differs by its label alone, as making a SavedModel takes a second."""
    label = folder / "label.txt"
    folder.mkdir(exist_ok=True)
    label.write_text("template\n")
    models: dict[str, Tower | Retriever] = {
        served.QUERY_TOWER: Tower("angle", 1.0, with_past=True),
        served.ITEM_TOWER: Tower("number", 0.5, with_past=False),
        served.RETRIEVER: Retriever(str(label)),
    }
    for name, model in models.items():
        tf.saved_model.save(model, str(folder / name), signatures=model.served)
    return folder


def write_model(template: Path, folder: Path, label: str) -> Path:
    """A model with its index, as a push takes it."""
    for name in (served.QUERY_TOWER, served.ITEM_TOWER, served.RETRIEVER):
        shutil.copytree(template / name, folder / name)
    (folder / served.RETRIEVER / "assets" / "label.txt").write_text(f"{label}\n")
    index = faiss.IndexFlatIP(2)
    index.add(vectors())
    (folder / served.INDEX).mkdir()
    faiss.write_index(index, str(folder / served.INDEX / "index.faiss"))
    # Item n has the number n, and but for the last it is even or odd.
    parities = [[b"odd" if n % 2 else b"even"] if n < ITEMS - 1 else [] for n in range(ITEMS)]
    ids = pa.table(
        {
            "candidate_id": pa.array([b"%s-%d" % (label.encode(), n) for n in range(ITEMS)], pa.binary()),
            "parity": pa.array(parities, pa.list_(pa.binary())),
            "number": pa.array(range(ITEMS), pa.float32()),
        }
    )
    with pa.ipc.new_file(str(folder / served.INDEX / "ids.arrow"), ids.schema) as writer:
        writer.write_table(ids)
    files.write_description(str(folder / served.INDEX), files.Description("flat", ITEMS, 2, None, None, None, {}))
    return folder


class Pushes:
    """A push folder, and the models that are pushed to it by their labels; the real push writes it."""

    def __init__(self, template: Path, root: Path) -> None:
        self.root = root / "serving"
        self._template = template
        self._models = root / "models"
        self.labels: dict[int, str] = {}

    def model(self, label: str) -> Path:
        folder = self._models / label
        return folder if folder.exists() else write_model(self._template, folder, label)

    def push(self, label: str) -> int:
        """A label that was pushed before is rolled back to: its content under a new, higher version."""
        folder, model = PushFolder(str(self.root)), self.model(label)
        before = [version for version, known in self.labels.items() if known == label]
        if before:
            manifest = folder.restore(find(folder.manifests(), before[-1]))
        else:
            sources = {part: Source(str(model / part)) for part in PARTS}
            manifest = folder.push(sources, DAY, run="run", model=str(model), metrics={})
        self.labels[manifest.version] = label
        return manifest.version

    def retain(self, newest: int) -> None:
        PushFolder(str(self.root)).retain(newest)


class Serve(Protocol):
    """Starts a server that ends with the test; the fixture `serve`."""

    def __call__(
        self,
        root: Path,
        wait: bool = True,
        tables: Mapping[str, str] | None = None,
        histories: Histories | None = None,
        shard: int | None = None,
        **config: Any,
    ) -> EmbeddedServer: ...


class Named(Servable):
    """A model that is known by its name and version alone: nothing is loaded."""

    def __init__(self, name: str, version: int, folder: Path) -> None:
        self.name = name
        self.version = version


def example(angle: float, exclude: tuple[bytes, ...] = (), feature: str = "angle") -> bytes:
    made = tf.train.Example()
    made.features.feature[feature].float_list.value.append(angle)
    made.features.feature["exclude"].bytes_list.value.extend(exclude)
    return made.SerializeToString()


def nearest(angle: float, k: int) -> list[tuple[int, float]]:
    """Items and scores, best first, by the definition."""
    scores = [(n, math.cos(angle - n / 2)) for n in range(ITEMS)]
    return sorted(scores, key=lambda each: -each[1])[:k]
