"""Files of raw interactions through Transform's graph to files of model inputs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft

from components.analysis import files
from components.analysis.vocabulary import Known, entries, hash_rows
from components.encoded import encode
from components.records import read_records, write_records
from components.trainer.inputs import fixed_features
from components.transform.component import write_graph
from components.transform.examples import TransformFiles
from schemas import contract
from schemas.features import FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {
            "item": {"width": 4, "vocabulary": {"min_count": 1}, "hash_buckets": 5},
            "word": {"width": 4, "hash_buckets": 5},
        },
        "query": {"past": {"kind": "history", "table": "item", "last": 2}},
        "item": {
            "item": {"kind": "id", "table": "item"},
            "seconds": {"kind": "number", "scale": "log"},
            "words": {"kind": "text", "table": "word"},
        },
    }
)


def test_rows_keep_their_order_and_missing_features_are_left_out(tmp_path: Path) -> None:
    known = {"item": Known(entries([b"a", b"b"], [2.0, 1.0])), "word": Known()}
    files.write(str(tmp_path / "analysis"), known, {"seconds": (1.0, 2.0)}, span=0)
    schema = tmp_path / "schema.pbtxt"
    schema.write_text(str(contract.draft(SPEC).interactions))
    graph, written = tmp_path / "graph", tmp_path / "written"
    config = {"feature_spec": SPEC.model_dump_json(), "analysis": str(tmp_path / "analysis")}
    write_graph(str(graph), str(schema), config)
    raw = pa.RecordBatch.from_pydict(
        {
            "candidate_id": [b"b", b"a", b"z"],
            "query_id": [b"u", b"v", b"u"],
            "timestamp": np.array([3, 1, 2]),
            "reward": pa.array([1.0, 0.5, 0.0], pa.float32()),
            "item": [b"b", b"a", b"z"],
            "past": pa.array([[b"a", b"b", b"a"], None, [b"z"]]),
            "seconds": pa.array([np.expm1(3.0), None, np.expm1(1.0)], pa.float32()),
        }
    )
    path = str(tmp_path / "raw" / "examples-00000-of-00001.gz")
    write_records(path, encode(raw).to_pylist())
    assert list(TransformFiles(str(graph), SPEC, str(written)).process(path)) == [("examples-00000-of-00001.gz", 3)]
    (made,) = written.iterdir()
    assert made.name == "examples-00000-of-00001.gz"
    examples = list(read_records([str(made)]))
    found = tf.io.parse_example(examples, fixed_features(tft.TFTransformOutput(str(graph))))
    # Of the vocabulary a is row 0 and b row 1, behind them five hash buckets; the item's own id has the mask's row instead, 2 + 5.
    # The last two of a history, padded behind by -1.
    (bucket,) = hash_rows([b"z"], 5)
    assert found["item"].numpy().tolist() == [1, 0, 7]
    assert found["past"].numpy().tolist() == [[1, 0], [-1, -1], [2 + bucket, -1]]
    # (log(1 + e^3 - 1) - 1) / 2 = 1, missing is the mean, (1 - 1) / 2 = 0.
    np.testing.assert_allclose(found["seconds"], [1.0, 0.0, 0.0], atol=1e-6)
    assert found["timestamp"].numpy().tolist() == [3, 1, 2]
    np.testing.assert_array_equal(found["reward"], np.array([1.0, 0.5, 0.0], np.float32))
    assert "words" not in tf.train.Example.FromString(examples[0]).features.feature
