"""Looks up model inputs in the catalogue by item id, for features that are known by the item's id alone.

These features are:

- of the candidate, in training: its vectors and texts (`FeatureSpec.kept_in_catalogue`);
- of the query, also when served: those declared as `looked_up`, for the seed or as the mean over a history.

Training, the InfraValidator's reference, and the exported query tower share this one class, which runs after Transform's graph:
looked-up values are model inputs already, so nothing is transformed twice, and no example repeats them. Copied into every
interaction, the vectors of a history's items would take a hundred times the space of everything else, and pass through statistics,
Transform and every epoch. Training looks up in its input pipeline, on whatever device the towers are.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

import tensorflow as tf

from components.example_gen.point_in_time import DAYS, NEWEST
from components.transform.missing import NO_ITEM, NO_ROW
from components.transform.recency import recency_weights
from schemas.features import (
    CANDIDATE_ID,
    FINGERPRINT_SUFFIX,
    SEEN_THROUGH,
    WEIGHTS_SUFFIX,
    Feature,
    FeatureSpec,
    HistoryFeature,
    IdsFeature,
    Numeric,
    TextFeature,
)

Inputs = Mapping[str, tf.Tensor]
"""Model inputs by name, each [rows, ...]; see `components.transform.preprocessing`."""


def input_names(features: Iterable[tuple[str, Feature]]) -> list[str]:
    """Return the names of the model inputs of features, including weights."""
    return [
        input_name
        for name, feature in features
        for input_name in ([name, name + WEIGHTS_SUFFIX] if isinstance(feature, IdsFeature | TextFeature) else [name])
    ]


def inputs_of_candidates(spec: FeatureSpec) -> list[str]:
    """Return the names of the candidate's model inputs that interactions lack."""
    return input_names(spec.kept_in_catalogue.items())


def inputs_of_query_items(spec: FeatureSpec) -> list[str]:
    """Return the names of the item inputs that the query's inputs are made from."""
    names = {feature.feature for feature in spec.looked_up.values()}
    return input_names((name, feature) for name, feature in spec.item.items() if name in names)


class CatalogueLookup(tf.Module):
    """Model inputs of items, by the fingerprints of their ids.

    Ids are found by a binary search in sorted fingerprints, which are numbers: TensorFlow's hash tables have to be initialised
    wherever a graph runs, and do not work on TPUs.

    Args:
        names: the inputs to look up.
        items: the inputs of all known items, and `candidate_id`, each [items, ...]; at least one item. With `seen_through` they
            include rows of earlier catalogues; see `components.example_gen.point_in_time`.
        keep: converts each array: to constants in memory, or to the variables of a SavedModel.
    """

    def __init__(self, names: Iterable[str], items: Inputs, keep: Callable[[Any], Any] = tf.identity) -> None:
        super().__init__()
        self.has_versions = SEEN_THROUGH in items
        order = tf.argsort(items[CANDIDATE_ID], stable=True)
        if self.has_versions:
            by_day = tf.argsort(items[SEEN_THROUGH], stable=True)
            order = tf.gather(by_day, tf.argsort(tf.gather(items[CANDIDATE_ID], by_day), stable=True))
        known = tf.gather(items[CANDIDATE_ID], order)
        if self.has_versions:
            is_first = tf.concat([[True], known[1:] != known[:-1]], axis=0)
            self._versions = _key(tf.cumsum(tf.cast(is_first, tf.int64)) - 1, tf.gather(items[SEEN_THROUGH], order))
            known = tf.boolean_mask(known, is_first)
        self._fingerprints = keep(known)
        self._inputs = {name: keep(tf.gather(items[name], order)) for name in names}

    @property
    def arrays(self) -> dict[str, tf.Tensor]:
        """All that is looked up in, for `over`."""
        versions = {SEEN_THROUGH: self._versions} if self.has_versions else {}
        return {CANDIDATE_ID: self._fingerprints, **versions, **self._inputs}

    def over(self, arrays: Inputs) -> "CatalogueLookup":
        """Return the same lookup in the same arrays somewhere else: those of a worker, which a graph has as its inputs."""
        other = copy(self)
        other._fingerprints = arrays[CANDIDATE_ID]
        if self.has_versions:
            other._versions = arrays[SEEN_THROUGH]
        other._inputs = {name: arrays[name] for name in self._inputs}
        return other

    def __call__(self, ids: tf.Tensor, names: Iterable[str], days: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Look up the inputs of items.

        Args:
            ids: [rows, ...] int64 fingerprints; NO_ITEM for none.
            names: of the inputs.
            days: [rows] int64, the days of the interactions since 1970-01-01, if there are earlier catalogues; None for the values
                of the newest one.

        Returns:
            [..., ...] by name; rows of -1 and zeros for an unknown item.
        """
        known = tf.convert_to_tensor(self._fingerprints)
        places = tf.minimum(tf.searchsorted(known, tf.reshape(ids, [-1])), tf.size(known) - 1)
        places = tf.ensure_shape(tf.reshape(places, tf.shape(ids)), ids.shape)
        is_known = tf.gather(known, places) == ids
        if self.has_versions:
            seen = (
                tf.constant(NEWEST, tf.int64) if days is None else tf.reshape(days, [-1, *[1] * (ids.shape.rank - 1)])
            )
            wanted = _key(tf.cast(places, tf.int64), seen)
            places = tf.reshape(tf.searchsorted(self._versions, tf.reshape(wanted, [-1])), tf.shape(ids))
            places = tf.ensure_shape(places, ids.shape)
        looked_up = {}
        for name in names:
            values = tf.gather(self._inputs[name], places)
            missing = NO_ROW if values.dtype == tf.int64 else 0
            is_known_value = is_known[(..., *[tf.newaxis] * (values.shape.rank - ids.shape.rank))]
            looked_up[name] = tf.where(is_known_value, values, tf.constant(missing, values.dtype))
        return looked_up

    def of_query(self, spec: FeatureSpec, inputs: Inputs, days: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Look up the query tower's inputs.

        Args:
            spec: the dataset's features.
            inputs: Transform's outputs, with the fingerprints of the items to look up.
            days: [rows] int64, as above.
        """
        looked_up: dict[str, tf.Tensor] = {}
        for name, feature in spec.looked_up.items():
            item, ids = spec.item[feature.feature], inputs[feature.of + FINGERPRINT_SUFFIX]
            values = self(ids, input_names([(feature.feature, item)]), days)
            of = spec.query[feature.of]
            if isinstance(of, HistoryFeature):
                values = _mean(feature.feature, item, values, recency_weights(ids != NO_ITEM, of.half_life))
            looked_up |= {
                name + input_name.removeprefix(feature.feature): value for input_name, value in values.items()
            }
        return looked_up


def _key(items: tf.Tensor, days: tf.Tensor) -> tf.Tensor:
    """Combine item and day to a key that sorts by item, then by day."""
    return items * tf.constant(DAYS, tf.int64) + days


def _mean(name: str, feature: Feature, values: Inputs, item_weights: tf.Tensor) -> dict[str, tf.Tensor]:
    """Take the mean over the items of histories.

    Args:
        name: the item's feature.
        feature: its declaration.
        values: [batch, last, ...] its inputs.
        item_weights: [batch, last] the weight of each item, known or not, and 0 for none.

    Returns:
        The inputs, as in `FeatureSpec.query_inputs`.
    """
    shares = tf.math.divide_no_nan(item_weights, tf.reduce_sum(item_weights, axis=1, keepdims=True))
    rows = values[name]
    if isinstance(feature, Numeric):
        return {name: tf.einsum("bl...,bl->b...", rows, shares)}
    if not isinstance(feature, IdsFeature | TextFeature):  # an id
        return {name: rows, name + WEIGHTS_SUFFIX: shares * tf.cast(rows != NO_ROW, tf.float32)}
    weights = values[name + WEIGHTS_SUFFIX]
    if feature.pooling == "mean":
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(tf.abs(weights), axis=2, keepdims=True))
    flat = [-1, rows.shape[1] * rows.shape[2]]
    return {
        name: tf.reshape(rows, flat),
        name + WEIGHTS_SUFFIX: tf.reshape(weights * shares[:, :, tf.newaxis], flat),
    }
