"""What Transform's graph makes of raw features."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.analysis import files
from components.analysis.vocabulary import hash_rows
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


def test_every_input_is_dense_and_of_fixed_width(tmp_path: Path) -> None:
    files.write(str(tmp_path), {}, {})
    spec = FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "at"},
            "catalogue": {"item": "item"},
            "tables": {"item": {"width": 4, "hash_buckets": 1000}},
            "query": {
                "past": {"kind": "history", "table": "item", "last": 3},
                "age": {"kind": "number", "scale": "none"},
            },
            "item": {
                "item": {"kind": "id", "table": "item"},
                "tags": {"kind": "ids", "table": "item", "max_values": 2},
                "parts": {"kind": "ids", "table": "item", "max_values": 2, "weights": "shares"},
            },
        }
    )
    # A row without anything, one that is full to the last place, one that has more, and one that has less.
    several = [[], [b"a", b"b", b"c"], [b"d", b"e", b"f", b"g", b"h"], [b"i"]]
    text, numbers, shares = (
        tf.ragged.constant(several, tf.string),
        [[], [5.0], [6.0], []],
        [[], [1, 2, 3], [4, 5, 6, 7, 8], [9]],
    )
    single = {CANDIDATE_ID: [[b"a"]] * 4, QUERY_ID: [[b"u"]] * 4, "item": [[], [b"a"], [b"b"], [b"c"]]}
    raw = {
        **{name: tf.ragged.constant(values, tf.string, ragged_rank=1) for name, values in single.items()},
        TIMESTAMP: tf.ragged.constant([[7]] * 4, tf.int64),
        REWARD: tf.ragged.constant([[0.5], [], [1.0], [2.0]], tf.float32),
        "age": tf.ragged.constant(numbers, tf.float32),
        **dict.fromkeys(("past", "tags", "parts"), text),
        "parts_weights": tf.ragged.constant(shares, tf.float32),
    }
    config = {"feature_spec": spec.model_dump_json(), "analysis": str(tmp_path)}
    graph = tf.function(lambda ragged: preprocessing_fn({n: v.to_sparse() for n, v in ragged.items()}, config))
    found = {name: values.numpy().tolist() for name, values in graph(raw).items()}
    row = dict(zip("abcdefghi", hash_rows([letter.encode() for letter in "abcdefghi"], 1000).tolist(), strict=True))

    def rows(*texts: str) -> list[list[int]]:
        return [[row.get(letter, -1) for letter in text] for text in texts]

    assert found["past"] == rows("...", "abc", "fgh", "i..")  # the last three, oldest first
    assert found["tags"] == found["parts"] == rows("..", "ab", "de", "i.")
    assert found["tags_weights"] == [[0, 0], [1, 1], [1, 1], [1, 0]]
    assert found["parts_weights"] == [[0, 0], [1, 2], [4, 5], [9, 0]]
    assert found["item"] == [-1, row["a"], row["b"], row["c"]]
    assert (found["age"], found[REWARD], found[TIMESTAMP]) == ([0, 5, 6, 0], [0.5, 0, 1, 2], [7] * 4)
