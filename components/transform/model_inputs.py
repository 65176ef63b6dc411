"""Turns raw features into model inputs: Transform's graph, then densification and the lookup in the catalogue."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from components.transform.catalogue_lookup import CatalogueLookup
from components.transform.graph import TransformGraph
from components.transform.preprocessing import dense
from schemas.features import AGES_SUFFIX, FeatureSpec, VectorFeature


class ModelInputs(tf.Module):
    """The transform of a tower, the same in training and in serving.

    The graph that calls it fails for a vector with another length than declared or with a non-finite number, and for a history with
    a different number of ages than items.

    Args:
        spec: the dataset's features.
        transform_output: Transform's graph.
        lookup: for queries with looked-up features.
    """

    def __init__(
        self, spec: FeatureSpec, transform_output: tft.TFTransformOutput, lookup: CatalogueLookup | None = None
    ) -> None:
        super().__init__()
        graph = TransformGraph.of(transform_output)
        self._tables = graph.tables
        self._transformed: Callable[[Mapping[str, tf.SparseTensor]], dict[str, Any]] = graph
        self._vectors = {name: f for name, f in spec.features.items() if isinstance(f, VectorFeature)}
        self._aged = spec.aged_histories
        self._sparse = spec.kept_in_catalogue
        self._spec = spec
        self._lookup = lookup

    def __call__(self, raw: Mapping[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        """Map raw features (see `components.transform.raw_features`) to the inputs that can be computed from them."""
        if tf.executing_eagerly():
            in_a_graph = tf.function(self.__call__, autograph=False)
            return in_a_graph(raw)
        checked = {name: _checked(name, self._vectors[name], raw[name]) for name in self._vectors if name in raw}
        checked |= {name + AGES_SUFFIX: _aligned(name, raw) for name in self._aged if name in raw}
        inputs = self._transformed({**raw, **checked})
        for name, feature in self._sparse.items():
            if name in raw:
                inputs |= dense(name, feature, inputs[name])
        return inputs | self._lookup.of_query(self._spec, inputs) if self._lookup else inputs


def _aligned(name: str, raw: Mapping[str, tf.SparseTensor]) -> tf.SparseTensor:
    """Return the ages of a history's items, after checking their number."""
    ages = raw[name + AGES_SUFFIX]
    items, numbers = (_lengths(values) for values in (raw[name], ages))
    is_right = tf.reduce_all((numbers == 0) | (numbers == items))
    reason = f"{name}{AGES_SUFFIX}: expected as many numbers as {name} has items, or none, in each row"
    with tf.control_dependencies([tf.debugging.Assert(is_right, [reason])]):
        return tf.SparseTensor(ages.indices, tf.identity(ages.values), ages.dense_shape)


def _checked(name: str, feature: VectorFeature, values: tf.SparseTensor) -> tf.SparseTensor:
    lengths = _lengths(values)
    is_right = tf.reduce_all((lengths == 0) | (lengths == feature.size))
    checks = [
        tf.debugging.Assert(is_right, [f"{name}: expected {feature.size} numbers or none in each row"]),
        tf.debugging.assert_all_finite(values.values, f"{name}: expected finite numbers"),
    ]
    with tf.control_dependencies(checks):
        return tf.SparseTensor(values.indices, tf.identity(values.values), values.dense_shape)


def _lengths(values: tf.SparseTensor) -> tf.Tensor:
    """Return [batch] int64, the number of values in each row."""
    rows = values.indices[:, 0]
    return tf.math.unsorted_segment_sum(tf.ones_like(rows), rows, values.dense_shape[0])
