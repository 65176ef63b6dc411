"""Maps raw features to model inputs: one graph for training, evaluation and both served towers.

Every model input is dense and of fixed width, so that a step has static shapes:

| kind | input | shape | missing |
| --- | --- | --- | --- |
| id | int64 row of the table | [batch] | -1 |
| ids | int64 rows, and float32 weights under `NAME_weights` | [batch, max_values] | -1, 0.0 |
| history | int64 rows, oldest first; with ages also int64 classes under `NAME_ages` | [batch, last] | -1 |
| number | float32 | [batch] | 0.0, the training mean once scaled |
| text | as ids, a row for each token | [batch, max_values] | -1, 0.0 |
| vector | float32, followed by 1.0 | [batch, size + 1] | 0.0, also as the last value |

If features are looked up for an id or a history, or a history has repeats, there are also fingerprints of its ids, int64 under
`NAME_fingerprint`, in the shape of its rows; -1 for none. `components.transform.catalogue_lookup` makes the looked-up
inputs.

The graph leaves the item's vectors and texts sparse, a vector unchanged and a text as rows: interactions lack them, so that they
cost nothing there. `components.transform.model_inputs` makes them dense where items are embedded or looked up.

A row is that of the vocabulary or, after these, one of the table's hash buckets: an id unseen in training uses the
same bucket wherever it appears. If a feature is masked (`schemas.features.Table`), such an id uses the table's last row instead,
the mask, which tells the model that the id carries no information.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.analysis import files
from components.transform.missing import NO_AGE, NO_ITEM, NO_ROW
from components.transform.text import tokens
from schemas.features import (
    AGES_SUFFIX,
    CANDIDATE_ID,
    FINGERPRINT_SUFFIX,
    QUERY_ID,
    REWARD,
    TIMESTAMP,
    WEIGHTS_SUFFIX,
    Feature,
    FeatureSpec,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    NumberFeature,
    Table,
    TextFeature,
    VectorFeature,
)

AGE_BOUNDS = [float(1 << power) for power in range(31)]  # seconds: below 1, from 1, 2, 4, ... up to 34 years and more
AGE_CLASSES = len(AGE_BOUNDS) + 1
FINGERPRINTS = 2**63 - 1


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Make model inputs; the Transform component's user function.

    Args:
        inputs: raw features by name, each a SparseTensor of [batch, values].
        custom_config: `feature_spec`, the FeatureSpec as JSON; `analysis`, the folder of `components.analysis.files`.

    Returns:
        Model inputs by name as in the table above, and `candidate_id` and `query_id` (int64 fingerprints of the raw
        ids), `timestamp` (int64, microseconds) and `reward` (float32), each [batch].
    """
    spec = FeatureSpec.model_validate_json(custom_config["feature_spec"])
    analysis = custom_config["analysis"]
    lookups = {name: _lookup(name, table, analysis) for name, table in spec.tables.items()}
    mask_rows = {
        name: (len(files.read_vocabulary(analysis, name)), files.mask_row(analysis, name, spec))
        for name in spec.masked_tables
    }
    scales = files.read_scales(analysis)
    outputs = {
        CANDIDATE_ID: fingerprint(_single(inputs[CANDIDATE_ID], "")),
        QUERY_ID: fingerprint(_single(inputs[QUERY_ID], "")),
        TIMESTAMP: _single(inputs[TIMESTAMP], 0),
        REWARD: _single(inputs[REWARD], 0.0),
    }
    for name, feature in spec.features.items():
        if isinstance(feature, NumberFeature):
            outputs[name] = _number(inputs[name], feature, scales.get(name, (0.0, 1.0)))
            continue
        if isinstance(feature, VectorFeature | TextFeature):
            values = inputs[name]
            if isinstance(feature, TextFeature):
                values = lookups[feature.table](tokens(_single(values, ""), feature.words, feature.ngrams))
            is_sparse = name in spec.kept_in_catalogue
            outputs |= {name: values} if is_sparse else dense(name, feature, values)
            continue
        rows = lookups[feature.table](inputs[name])
        if name in spec.fingerprinted:
            outputs[name + FINGERPRINT_SUFFIX] = _fingerprints(inputs[name], feature)
        match feature:
            case IdFeature():
                single = _single(rows, NO_ROW)
                outputs[name] = _or_mask(single, *mask_rows[feature.table]) if name in spec.masked_features else single
            case HistoryFeature():
                outputs[name] = last_values(rows, feature.last, NO_ROW)
                if feature.has_ages:
                    outputs[name + AGES_SUFFIX] = last_values(
                        _age_classes(inputs[name + AGES_SUFFIX]), feature.last, NO_AGE
                    )
            case IdsFeature():
                outputs[name] = _first(rows, feature.max_values, NO_ROW)
                weights = inputs[name + WEIGHTS_SUFFIX] if feature.weights else _ones(rows)
                outputs[name + WEIGHTS_SUFFIX] = _first(weights, feature.max_values, 0.0)
    return outputs


def dense(name: str, feature: VectorFeature | TextFeature, values: tf.SparseTensor) -> dict[str, tf.Tensor]:
    """Make a vector's numbers or a text's rows dense, as in the table above."""
    if isinstance(feature, TextFeature):
        return {
            name: _first(values, feature.max_values, NO_ROW),
            name + WEIGHTS_SUFFIX: _first(_ones(values), feature.max_values, 0.0),
        }
    numbers, present = (_first(sparse, feature.size, 0.0) for sparse in (values, _ones(values)))
    if feature.normalise == "l2":
        # In double precision: the square of a number may underflow or overflow a float32.
        numbers = tf.cast(tf.math.l2_normalize(tf.cast(numbers, tf.float64), axis=1, epsilon=1e-300), tf.float32)
    return {name: tf.concat([numbers, present[:, :1]], axis=1)}


def fingerprint(ids: tf.Tensor) -> tf.Tensor:
    """Hash [batch] strings to [batch] int64 fingerprints of 63 bits, so that no step of the model handles a string."""
    return tf.strings.to_hash_bucket_fast(ids, FINGERPRINTS)


def _fingerprints(ids: tf.SparseTensor, feature: Feature) -> tf.Tensor:
    values = tf.SparseTensor(ids.indices, fingerprint(ids.values), ids.dense_shape)
    return (
        last_values(values, feature.last, NO_ITEM) if isinstance(feature, HistoryFeature) else _single(values, NO_ITEM)
    )


def _lookup(name: str, table: Table, analysis: str) -> Callable[[tf.SparseTensor], tf.SparseTensor]:
    """Return a function from ids to rows: the line of the vocabulary or, after these, the id's hash bucket."""

    def hashed(ids: tf.SparseTensor) -> tf.SparseTensor:
        buckets = tf.strings.to_hash_bucket_fast(ids.values, table.hash_buckets)
        return tf.SparseTensor(ids.indices, buckets, ids.dense_shape)

    def vocabulary() -> Any:
        lines = tf.lookup.TextFileInitializer(
            files.vocabulary_path(analysis, name),
            key_dtype=tf.string,
            key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
            value_dtype=tf.int64,
            value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        return tf.lookup.StaticVocabularyTable(lines, table.hash_buckets)

    # TensorFlow rejects a file without lines.
    if table.vocabulary is None or files.read_vocabulary(analysis, name).empty:
        return hashed
    return tft.make_and_track_object(vocabulary, name=f"vocabulary_{name}").lookup


def _or_mask(rows: tf.Tensor, ids: int, mask: int) -> tf.Tensor:
    """Replace the rows of hash buckets by the mask's; the first `ids` rows belong to single ids."""
    return tf.where(rows < ids, rows, tf.constant(mask, tf.int64))


def _number(values: tf.SparseTensor, feature: NumberFeature, scale: tuple[float, float]) -> tf.Tensor:
    # In double precision: the last bit of TensorFlow's float32 logarithm depends on a value's position in the batch, and training
    # with another bit gives another model.
    numbers = tf.cast(values.values, tf.float64)
    if feature.scale == "log":
        numbers = tf.math.log1p(tf.maximum(numbers, 0.0))
    if feature.scale != "none":
        mean, deviation = scale
        numbers = (numbers - mean) / deviation
    return _single(tf.SparseTensor(values.indices, tf.cast(numbers, tf.float32), values.dense_shape), 0.0)


def _age_classes(seconds: tf.SparseTensor) -> tf.SparseTensor:
    """Map ages to their classes; a non-finite age is unknown, and a negative one, from unsynchronised clocks, counts as 0."""
    is_known = tf.math.is_finite(seconds.values)
    classes = tf.raw_ops.Bucketize(input=tf.where(is_known, seconds.values, 0.0), boundaries=AGE_BOUNDS)
    age_classes = tf.where(is_known, tf.cast(classes, tf.int64), tf.constant(NO_AGE, tf.int64))
    return tf.SparseTensor(seconds.indices, age_classes, seconds.dense_shape)


def _ones(values: tf.SparseTensor) -> tf.SparseTensor:
    return tf.SparseTensor(values.indices, tf.ones_like(values.values, dtype=tf.float32), values.dense_shape)


def _single(values: tf.SparseTensor, missing: str | int | float) -> tf.Tensor:
    return tf.squeeze(_first(values, 1, missing), axis=1)


def _first(values: tf.SparseTensor, count: int, missing: str | int | float) -> tf.Tensor:
    return _dense(values, tf.unstack(values.indices, num=2, axis=1)[1], count, missing)


def last_values(values: tf.SparseTensor, count: int, missing: str | int | float) -> tf.Tensor:
    """Return the last values of each row of [batch, values] as [batch, count], followed by `missing`."""
    rows, columns = tf.unstack(values.indices, num=2, axis=1)
    lengths = tf.math.unsorted_segment_max(columns + 1, rows, values.dense_shape[0])
    return _dense(values, columns - tf.maximum(tf.gather(lengths, rows) - count, 0), count, missing)


def _dense(values: tf.SparseTensor, columns: tf.Tensor, count: int, missing: str | int | float) -> tf.Tensor:
    """Scatter values to [batch, count] by their new columns, [values] int64; others are dropped."""
    return _dense_function(values.dtype, count, missing)(values, columns)


@functools.cache
def _dense_function(dtype: tf.DType, count: int, missing: str | int | float) -> Any:
    """Trace `_dense` once per process: TensorFlow Transform traces every feature some ten times a day."""

    @tf.function(
        autograph=False,
        input_signature=[tf.SparseTensorSpec([None, None], dtype), tf.TensorSpec([None], tf.int64)],
    )
    def traced(values: tf.SparseTensor, columns: tf.Tensor) -> tf.Tensor:
        positions = tf.where((columns >= 0) & (columns < count))
        rows = tf.unstack(values.indices, num=2, axis=1)[0]
        places = tf.gather_nd(tf.stack([rows, columns], axis=1), positions)
        matrix = tf.raw_ops.SparseToDense(
            sparse_indices=places,
            output_shape=tf.stack([values.dense_shape[0], count]),
            sparse_values=tf.gather_nd(values.values, positions),
            default_value=tf.constant(missing, dtype),
        )
        return tf.ensure_shape(matrix, [None, count])

    return traced
