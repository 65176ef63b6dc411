"""Converts requests to a served tower, serialised tf.Examples or named tensors, to raw features."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from schemas.features import (
    AGES_SUFFIX,
    WEIGHTS_SUFFIX,
    Feature,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    NumberFeature,
    Numeric,
    TextFeature,
    VectorFeature,
)

FLOATS = tf.float32
TEXT = tf.string


def dtypes(features: Mapping[str, Feature]) -> dict[str, tf.DType]:
    """Return the raw feature names of a tower, including weights and ages, with their dtypes."""
    types = {name: FLOATS if isinstance(feature, Numeric) else TEXT for name, feature in features.items()}
    weights = {name + WEIGHTS_SUFFIX: FLOATS for name, f in features.items() if isinstance(f, IdsFeature) and f.weights}
    ages = {name + AGES_SUFFIX: FLOATS for name, f in features.items() if isinstance(f, HistoryFeature) and f.has_ages}
    return types | weights | ages


def parse_examples(serialized: tf.Tensor, features: Mapping[str, Feature]) -> dict[str, tf.SparseTensor]:
    """Parse [batch] serialised tf.Examples to raw features by name; other features are ignored."""
    parsed = {name: tf.io.VarLenFeature(dtype) for name, dtype in dtypes(features).items()}
    return tf.io.parse_example(serialized, parsed)


def tensor_specs(features: Mapping[str, Feature]) -> dict[str, tf.TensorSpec]:
    """Describe the named tensors: [batch] for an id, number or text, [batch, size] for a vector, [batch, values] for others."""
    specs = {}
    for name, dtype in dtypes(features).items():
        match features.get(name):
            case IdFeature() | NumberFeature() | TextFeature():
                shape: list[int | None] = [None]
            case VectorFeature(size=size):
                shape = [None, size]
            case _:
                shape = [None, None]
        specs[name] = tf.TensorSpec(shape, dtype, name=name)
    return specs


def from_tensors(tensors: dict[str, tf.Tensor], features: Mapping[str, Feature]) -> dict[str, tf.SparseTensor]:
    """Convert named tensors to raw features: an empty text and a NaN stand for a missing value, or for padding.

    A history may be padded on either side, and its ages with it; NaN is an unknown age, and without columns of ages all are
    unknown. A vector of only NaN is missing.
    """
    raw = {}
    for name, feature in features.items():
        values = tensors[name]
        match feature:
            case IdsFeature():
                present = tf.not_equal(values, "")
                raw[name] = _sparse(values, present)
                if feature.weights:
                    raw[name + WEIGHTS_SUFFIX] = _sparse(tensors[name + WEIGHTS_SUFFIX], present)
            case HistoryFeature():
                present = tf.not_equal(values, "")
                raw[name] = _sparse(values, present)
                if feature.has_ages:
                    raw[name + AGES_SUFFIX] = _sparse(_beside(values, tensors[name + AGES_SUFFIX]), present)
            case VectorFeature():
                missing = tf.reduce_all(tf.math.is_nan(values), axis=1, keepdims=True)
                raw[name] = _sparse(values, tf.broadcast_to(~missing, tf.shape(values)))
            case IdFeature() | TextFeature():
                raw[name] = _sparse(values[:, tf.newaxis], tf.not_equal(values, "")[:, tf.newaxis])
            case NumberFeature():
                raw[name] = _sparse(values[:, tf.newaxis], tf.math.is_finite(values)[:, tf.newaxis])
    return raw


def _beside(items: tf.Tensor, ages: tf.Tensor) -> tf.Tensor:
    """Return the ages of [batch, values] items, NaN if they have no columns."""
    return tf.cond(tf.shape(ages)[1] > 0, lambda: ages, lambda: tf.fill(tf.shape(items), float("nan")))


def _sparse(values: Any, present: Any) -> tf.SparseTensor:
    """Select the present values of each row, moved to its left."""
    return tf.ragged.boolean_mask(values, present).to_sparse()
