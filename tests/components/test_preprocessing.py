"""What Transform's graph makes of raw features."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.in_memory import Transform
from components.analysis import files
from components.analysis.vocabulary import Known, entries, hash_rows
from components.transform.preprocessing import preprocessing_fn
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec
from tests.components.ranked_world import example

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
    files.write(str(folder), {}, {"visits": (2.5, 0.75)}, span=0)

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


def test_a_log_number_is_scaled_by_the_analysis(tmp_path: Path) -> None:
    # log(1 + e^4 - 1) = 4; (4 - 2.5) / 0.75 = 2
    assert scaled(tmp_path, [float(np.expm1(4.0))]) == pytest.approx([2.0])


def test_a_number_does_not_depend_on_its_position_in_the_batch(tmp_path: Path) -> None:
    """Regression: the last few of a batch went through another logarithm, which differs in the last bit."""
    rng = np.random.default_rng(0)
    visits = rng.uniform(1.0, 300.0, 203).astype(np.float32).tolist()
    alone = [scaled(tmp_path, [value])[0] for value in visits[:40]]
    assert scaled(tmp_path, visits)[:40] == alone


def test_every_input_is_dense_and_of_fixed_width(tmp_path: Path) -> None:
    files.write(str(tmp_path), {}, {}, span=0)
    spec = FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "at"},
            "catalogue": {"item": "item"},
            "tables": {"item": {"width": 4, "hash_buckets": 1000}},
            "query": {
                "past": {"kind": "history", "table": "item", "last": 3, "encoder": "attention"},
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
        "past_ages": tf.ragged.constant([[], [1, 2, 3], [4, 5, float("nan"), 7, 1e12], [-3]], tf.float32),
    }
    config = {"feature_spec": spec.model_dump_json(), "analysis": str(tmp_path)}
    graph = tf.function(lambda ragged: preprocessing_fn({n: v.to_sparse() for n, v in ragged.items()}, config))
    found = {name: values.numpy().tolist() for name, values in graph(raw).items()}
    row = dict(zip("abcdefghi", hash_rows([letter.encode() for letter in "abcdefghi"], 1000).tolist(), strict=True))

    def rows(*texts: str) -> list[list[int]]:
        return [[row.get(letter, -1) for letter in text] for text in texts]

    assert found["past"] == rows("...", "abc", "fgh", "i..")  # the last three, oldest first
    # Powers of two: 1, from 2, up to 2^30 seconds and more; an unknown one is -1, and so is a missing one; below 0 counts as 0.
    assert found["past_ages"] == [[-1, -1, -1], [1, 2, 2], [-1, 3, 31], [0, -1, -1]]
    assert found["tags"] == found["parts"] == rows("..", "ab", "de", "i.")
    assert found["tags_weights"] == [[0, 0], [1, 1], [1, 1], [1, 0]]
    assert found["parts_weights"] == [[0, 0], [1, 2], [4, 5], [9, 0]]
    assert found["item"] == [-1, row["a"], row["b"], row["c"]]
    assert (found["age"], found[REWARD], found[TIMESTAMP]) == ([0, 5, 6, 0], [0.5, 0, 1, 2], [7] * 4)


def test_vectors_and_texts_of_the_query_are_dense_and_those_of_the_item_are_left_sparse(tmp_path: Path) -> None:
    files.write(str(tmp_path), {}, {}, span=0)
    query = {
        "mood": {"kind": "vector", "size": 2},
        "stats": {"kind": "vector", "size": 2, "normalise": "none"},
        "words": {"kind": "text", "table": "word", "ngrams": [], "max_values": 3},
    }
    item = {"sound": {"kind": "vector", "size": 2}, "name": {"kind": "text", "table": "word", "words": False}}
    spec = FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "at"},
            "catalogue": {"item": "item"},
            "tables": {"word": {"width": 4, "hash_buckets": 1000}},
            "query": query,
            "item": item,
        }
    )
    vectors = tf.ragged.constant([[], [3, 4], [0, 0], [1e-30, 0]], tf.float32, ragged_rank=1)
    texts = tf.ragged.constant([[], [b"O\xcc\x88l, OK go go"], [b"!"], [b"ok"]], tf.string, ragged_rank=1)
    ids = tf.ragged.constant([[b"a"]] * 4, tf.string)
    raw = {
        **{CANDIDATE_ID: ids, QUERY_ID: ids, "words": texts, "name": texts},
        **dict.fromkeys(("mood", "stats", "sound"), vectors),
        TIMESTAMP: tf.ragged.constant([[7]] * 4, tf.int64),
        REWARD: tf.ragged.constant([[1.0]] * 4, tf.float32),
    }
    config = {"feature_spec": spec.model_dump_json(), "analysis": str(tmp_path)}
    graph = tf.function(lambda ragged: preprocessing_fn({n: v.to_sparse() for n, v in ragged.items()}, config))
    found = graph(raw)
    # Behind the numbers 1 where there is a vector, which tells a vector of zeros from none. 3, 4 has the length 5.
    expected = [[0, 0, 0], [0.6, 0.8, 1], [0, 0, 1], [1, 0, 1]]
    assert found["mood"].numpy() == pytest.approx(np.array(expected))
    assert found["stats"].numpy().tolist()[:3] == [[0, 0, 0], [3, 4, 1], [0, 0, 1]]
    # Folded: an o with two dots and an l, ok, go, go, of which three are kept; an exclamation mark is no word.
    ol, ok, go = hash_rows(["o\u0308l".encode(), b"ok", b"go"], 1000).tolist()
    assert found["words"].numpy().tolist() == [[-1, -1, -1], [ol, ok, go], [-1, -1, -1], [ok, -1, -1]]
    assert found["words_weights"].numpy().tolist() == [[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert tf.sparse.to_dense(found["sound"]).numpy().tolist()[:3] == [[0, 0], [3, 4], [0, 0]]
    # The n-grams of <ok>: <ok and ok>.
    grams = hash_rows([b" <ok", b" ok>"], 1000).tolist()
    assert tf.sparse.to_dense(found["name"], default_value=-1).numpy().tolist()[3][:3] == [*grams, -1]


def test_an_id_without_a_row_of_its_own_is_the_mask_where_the_feature_is_masked(tmp_path: Path) -> None:
    spec = FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "at"},
            "catalogue": {"item": "item"},
            "tables": {
                "item": {"width": 4, "hash_buckets": 3, "vocabulary": {}},
                "user": {"width": 4, "hash_buckets": 5, "vocabulary": {}, "masked": 0.2},
            },
            "query": {
                "user": {"kind": "id", "table": "user"},
                "past": {"kind": "history", "table": "item", "last": 2},
            },
            "item": {"item": {"kind": "id", "table": "item"}},
        }
    )
    known = {"item": Known(entries([b"a", b"b"], [1.0, 1.0])), "user": Known()}
    files.write(str(tmp_path), known, {}, span=0)
    rows = [
        {"item": [b"b"], "user": [b"u"], "past": [b"a", b"c"]},
        {"item": [b"c"], "user": [b"v"], "past": [b"c"]},
        {},
    ]
    transform = Transform(spec, str(tmp_path))
    found = {name: values.numpy().tolist() for name, values in transform([example(row) for row in rows]).items()}
    # Two ids, three buckets, and the mask behind them; no user, five buckets, and the mask.
    assert found["item"] == [1, 5, -1]
    assert found["user"] == [5, 5, -1]
    bucket = 2 + int(hash_rows([b"c"], 3)[0])
    assert found["past"] == [[0, bucket], [bucket, -1], [-1, -1]]
    assert files.table_rows(str(tmp_path), spec) == {"item": 6, "user": 6}
