"""Something to serve: a query tower as the Trainer exports it, but untrained, and a retriever over a random catalogue."""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from numpy.typing import NDArray
from tensorflow_transform.tf_metadata import schema_utils

from components.analysis import files as analysis_files
from components.indexer.retriever import export_retriever
from components.indexer.search import ExactSearch
from components.trainer.export import export_tower
from components.trainer.towers import Tower, build_tables
from components.transform import raw_features
from components.transform.component import write_graph
from components.transform.model_inputs import ModelInputs
from ndr_client import served
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

HISTORY = 20
FIXED = {CANDIDATE_ID: tf.string, QUERY_ID: tf.string, TIMESTAMP: tf.int64, REWARD: tf.float32}
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 32, "hash_buckets": 20_000}, "user": {"width": 32, "hash_buckets": 20_000}},
        "query": {
            "user": {"kind": "id", "table": "user"},
            "past": {"kind": "history", "table": "item", "last": HISTORY},
        },
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)


def write(folder: Path, scratch: Path, items: int, width: int) -> None:
    """Write the retriever's SavedModel to `folder/retriever`.

    Args:
        folder: where to.
        scratch: an empty folder for what it is made from.
        items: of the catalogue.
        width: of the embeddings.
    """
    transform = transform_of(SPEC, scratch)
    tables = build_tables(
        {name: table.hash_buckets for name, table in SPEC.tables.items()},
        {name: table.width for name, table in SPEC.tables.items()},
        seed=0,
    )
    tower = Tower(SPEC.query_inputs, tables, (2 * width, width), 1, served.QUERY_TOWER)
    # This call makes its layers' weights.
    tower({"user": tf.zeros([1], tf.int64), "past": tf.zeros([1, HISTORY], tf.int64)})
    export_tower(tower, SPEC.raw_query, ModelInputs(SPEC, transform), str(scratch))
    embeddings = np.random.default_rng(2).normal(size=(items, width)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    ids = [b"item %d" % number for number in range(items)]
    export_retriever(str(scratch / served.QUERY_TOWER), ExactSearch(embeddings), ids, str(folder))


def example(user: int, items: NDArray[np.int64]) -> bytes:
    """Return a query, serialised: who asks, and the items of the history."""
    made = tf.train.Example()
    made.features.feature["user"].bytes_list.value.append(b"user %d" % user)
    made.features.feature["past"].bytes_list.value.extend(b"item %d" % item for item in items)
    return made.SerializeToString()


def transform_of(spec: FeatureSpec, scratch: Path) -> tft.TFTransformOutput:
    """Return the transform of a dataset without a vocabulary: every id is hashed."""
    analysis_files.write(str(scratch / "analysis"), {}, {}, span=0)
    dtypes = {**raw_features.dtypes(spec.features), **FIXED}
    schema = schema_utils.schema_from_feature_spec({n: tf.io.VarLenFeature(dtype) for n, dtype in dtypes.items()})
    config = {"feature_spec": spec.model_dump_json(), "analysis": str(scratch / "analysis")}
    (scratch / "schema.pbtxt").write_text(text_format.MessageToString(schema))
    write_graph(str(scratch / "transform"), str(scratch / "schema.pbtxt"), config)
    return tft.TFTransformOutput(str(scratch / "transform"))
