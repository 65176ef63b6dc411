"""Raw features to model inputs: one graph for training, evaluation and both served towers.

Every model input is dense and of fixed width, so that a step has static shapes:

| kind | input | shape | missing |
| --- | --- | --- | --- |
| id | int64 row of the table | [batch] | -1 |
| ids | int64 rows, and float32 weights under `NAME_weights` | [batch, max_values] | -1, 0.0 |
| history | int64 rows, oldest first | [batch, last] | -1 |
| number | float32 | [batch] | 0.0, the training mean once scaled |

A row is that of the vocabulary, or behind it one of the table's hash buckets: an id unseen in training lands in the
same bucket wherever it appears.
"""

from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from schemas.features import (
    CANDIDATE_ID,
    QUERY_ID,
    REWARD,
    TIMESTAMP,
    WEIGHTS_SUFFIX,
    FeatureSpec,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    NumberFeature,
    Table,
)

NO_ROW = -1
FINGERPRINTS = 2**63 - 1
VOCABULARY_PREFIX = "vocabulary_"


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """The Transform component's user function.

    Args:
        inputs: raw features by name, each a SparseTensor of [batch, values].
        custom_config: `feature_spec`, the FeatureSpec as JSON.

    Returns:
        Model inputs by name as in the table above, and `candidate_id` and `query_id` (int64 fingerprints of the raw
        ids), `timestamp` (int64, microseconds) and `reward` (float32), each [batch].
    """
    spec = FeatureSpec.model_validate_json(custom_config["feature_spec"])
    vocabularies = {name: _vocabulary(name, spec, inputs) for name, table in spec.tables.items() if table.vocabulary}
    outputs = {
        CANDIDATE_ID: fingerprint(_single(inputs[CANDIDATE_ID], "")),
        QUERY_ID: fingerprint(_single(inputs[QUERY_ID], "")),
        TIMESTAMP: _single(inputs[TIMESTAMP], 0),
        REWARD: _single(inputs[REWARD], 0.0),
    }
    for name, feature in spec.features.items():
        if isinstance(feature, NumberFeature):
            outputs[name] = _number(inputs[name], feature)
            continue
        rows = _rows(inputs[name], spec.tables[feature.table], vocabularies.get(feature.table))
        match feature:
            case IdFeature():
                outputs[name] = _single(rows, NO_ROW)
            case HistoryFeature():
                outputs[name] = _last(rows, feature.last, NO_ROW)
            case IdsFeature():
                outputs[name] = _first(rows, feature.max_values, NO_ROW)
                weights = inputs[name + WEIGHTS_SUFFIX] if feature.weights else _ones(rows)
                outputs[name + WEIGHTS_SUFFIX] = _first(weights, feature.max_values, 0.0)
    return outputs


def fingerprint(ids: tf.Tensor) -> tf.Tensor:
    """63-bit fingerprints: [batch] strings to [batch] int64, so that no step of the model handles a string."""
    return tf.strings.to_hash_bucket_fast(ids, FINGERPRINTS)


def table_rows(table: Table, name: str, transform_output: tft.TFTransformOutput) -> int:
    """Rows of an embedding table: its vocabulary and its hash buckets."""
    size = transform_output.vocabulary_size_by_name(VOCABULARY_PREFIX + name) if table.vocabulary else 0
    return int(size) + table.hash_buckets


def _vocabulary(name: str, spec: FeatureSpec, inputs: dict[str, Any]) -> Any:
    settings = spec.tables[name].vocabulary
    if settings is None:
        raise ValueError(f"expected a table with a vocabulary, received {name}")
    counted = [inputs[feature] for feature in spec.counted_features(name)]
    return tft.vocabulary(
        counted[0] if len(counted) == 1 else tf.sparse.concat(axis=1, sp_inputs=counted, expand_nonconcat_dims=True),
        top_k=settings.max_size,
        frequency_threshold=settings.min_count,
        vocab_filename=VOCABULARY_PREFIX + name,
    )


def _rows(ids: tf.SparseTensor, table: Table, vocabulary: Any) -> tf.SparseTensor:
    if vocabulary is None:
        return tf.SparseTensor(
            ids.indices, tf.strings.to_hash_bucket_fast(ids.values, table.hash_buckets), ids.dense_shape
        )
    return tft.apply_vocabulary(ids, vocabulary, num_oov_buckets=table.hash_buckets)


def _number(values: tf.SparseTensor, feature: NumberFeature) -> tf.Tensor:
    values = tf.cast(values, tf.float32)
    if feature.scale == "log":
        values = tf.SparseTensor(values.indices, tf.math.log1p(tf.maximum(values.values, 0.0)), values.dense_shape)
    if feature.scale == "none":
        return _single(values, 0.0)
    mean, deviation = tft.mean(values), tf.sqrt(tft.var(values))
    # A window in which the number never occurs, or never varies, has no scale to speak of.
    mean = tf.where(tf.math.is_finite(mean), mean, 0.0)
    scaled = (values.values - mean) / tf.where(deviation > 0.0, deviation, 1.0)
    return _single(tf.SparseTensor(values.indices, scaled, values.dense_shape), 0.0)


def _ones(values: tf.SparseTensor) -> tf.SparseTensor:
    return tf.SparseTensor(values.indices, tf.ones_like(values.values, dtype=tf.float32), values.dense_shape)


def _single(values: tf.SparseTensor, missing: str | int | float) -> tf.Tensor:
    return tf.squeeze(_first(values, 1, missing), axis=1)


def _first(values: tf.SparseTensor, count: int, missing: str | int | float) -> tf.Tensor:
    ragged = tf.RaggedTensor.from_sparse(values)[:, :count]
    return _dense(ragged, count, missing)


def _last(values: tf.SparseTensor, count: int, missing: str | int | float) -> tf.Tensor:
    ragged = tf.RaggedTensor.from_sparse(values)[:, -count:]
    return _dense(ragged, count, missing)


def _dense(ragged: tf.RaggedTensor, count: int, missing: str | int | float) -> tf.Tensor:
    default = tf.constant(missing, dtype=ragged.dtype)
    dense = ragged.to_tensor(default_value=default, shape=[None, count])
    return tf.ensure_shape(dense, [None, count])
