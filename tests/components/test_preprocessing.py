"""Numbers as Transform's graph scales them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.analysis import files
from components.transform.preprocessing import preprocessing_fn
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 4, "hash_buckets": 9}},
        "query": {
            "visits": {"kind": "number", "scale": "log"},
            "past": {"kind": "history", "table": "item", "last": 2},
        },
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)


def scaled(folder: Path, visits: list[float]) -> list[float]:
    """What the graph makes of a batch of visits."""
    files.write(str(folder), {}, {"visits": (2.5, 0.75)})

    def column(values: object, dtype: tf.DType) -> tf.SparseTensor:
        return tf.sparse.from_dense(tf.expand_dims(tf.constant(values, dtype), 1))

    rows = len(visits)
    text = {name: column(["x"] * rows, tf.string) for name in (CANDIDATE_ID, QUERY_ID, "past", "item")}
    numbers = {TIMESTAMP: column([1] * rows, tf.int64), REWARD: column([1.0] * rows, tf.float32)}
    graph = tf.function(
        lambda raw: preprocessing_fn(raw, {"feature_spec": SPEC.model_dump_json(), "analysis": str(folder)})
    )
    inputs = {**text, **numbers, "visits": column(visits, tf.float32)}
    values: list[float] = graph(inputs)["visits"].numpy().tolist()
    return values


def test_a_log_number_is_scaled_by_what_the_analysis_knows(tmp_path: Path) -> None:
    # log(1 + e^4 - 1) = 4; (4 - 2.5) / 0.75 = 2
    assert scaled(tmp_path, [float(np.expm1(4.0))]) == pytest.approx([2.0])


def test_a_number_is_the_same_wherever_in_a_batch_it_stands(tmp_path: Path) -> None:
    """Regression: the last few of a batch went through another logarithm, which differs in the last bit."""
    rng = np.random.default_rng(0)
    visits = rng.uniform(1.0, 300.0, 203).astype(np.float32).tolist()
    alone = [scaled(tmp_path, [value])[0] for value in visits[:40]]
    assert scaled(tmp_path, visits)[:40] == alone
