"""What batches of examples are completed by: the catalogue's items, uniform draws of them, and masks."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray

from components.example_gen.point_in_time import NEWEST
from components.transform import raw_features
from components.transform.catalogue_lookup import (
    CatalogueLookup,
    Inputs,
    inputs_of_candidates,
    inputs_of_query_items,
)
from components.transform.missing import NO_AGE
from components.transform.model_inputs import ModelInputs
from components.transform.preprocessing import fingerprint
from components.utc import MICROSECONDS_A_DAY
from schemas.features import AGES_SUFFIX, CANDIDATE_ID, SEEN_THROUGH, TIMESTAMP, FeatureSpec

CATALOGUE_BATCH = 4096
OF_DRAWS = 1 << 62  # added to the seed for uniform draws
HIDDEN_AGES = 0.1  # the share of queries whose ages training hides
SEED_STRIDE = 1 << 33  # between the seeds of two features' draws; an epoch's number is smaller

as_it_is = tf.autograph.experimental.do_not_convert
"""No Python branch below depends on a tensor, and AutoGraph would take more time to find none than everything else takes."""


class Batch(NamedTuple):
    """The input of a training step.

    Attributes:
        interactions: the model inputs of both towers, the rewards and the candidates' ids.
        uniform_items: the item tower's inputs and ids of items drawn uniformly from the catalogue; empty without such draws.
    """

    interactions: Inputs
    uniform_items: Inputs


class Mask(NamedTuple):
    """How training hides a feature's ids (see `schemas.features.Table`), or the ages of a history's items.

    Attributes:
        row: the row of the embedding table that replaces a hidden id's; NO_AGE for ages.
        share: the share of rows whose ids or ages are hidden.
    """

    row: int
    share: float


Masks = Mapping[str, Mask]
"""By name, the masks of masked features."""


def masks_of(spec: FeatureSpec, rows: Mapping[str, int]) -> dict[str, Mask]:
    """Return the masks of a model, given the number of rows of its embedding tables.

    Ages are hidden too, so that the model is trained on queries without them.
    """
    shares = spec.masked_tables
    of_ids = {name: Mask(rows[table] - 1, shares[table]) for name, table in spec.masked_features.items()}
    return of_ids | {name + AGES_SUFFIX: Mask(NO_AGE, HIDDEN_AGES) for name in spec.aged_histories}


def masked(inputs: Inputs, masks: Masks, seed: int | tf.Tensor, number: int | tf.Tensor) -> dict[str, tf.Tensor]:
    """Hide some of the ids and ages among model inputs, all ages of a history at once; missing values stay missing.

    Args:
        inputs: [rows, ...] each.
        masks: masks of features; some may not be among the inputs.
        seed: of the draw; differs between epochs.
        number: the number of the draw in the epoch; int64. The same seed and number hide the same rows' ids.
    """
    hidden = dict(inputs)
    for position, (name, mask) in enumerate(sorted(masks.items())):
        if name in inputs:
            rows = tf.convert_to_tensor(inputs[name])
            of_feature = tf.cast(seed, tf.int64) + position * SEED_STRIDE
            drawn = tf.random.stateless_uniform(tf.shape(rows)[:1], tf.stack([of_feature, tf.cast(number, tf.int64)]))
            drawn = tf.reshape(drawn, [-1, *[1] * (rows.shape.rank - 1)])
            hidden[name] = tf.where((drawn < mask.share) & (rows >= 0), tf.constant(mask.row, rows.dtype), rows)
    return hidden


def fixed_features(transform_output: tft.TFTransformOutput) -> dict[str, tf.io.FixedLenFeature]:
    """Select the features of transformed examples with a fixed shape: all that interactions have."""
    spec = transform_output.transformed_feature_spec()
    return {name: feature for name, feature in spec.items() if isinstance(feature, tf.io.FixedLenFeature)}


def parsed_bytes(transform_output: tft.TFTransformOutput) -> int:
    """Return the size of an example in memory, in bytes."""
    return sum(math.prod(feature.shape) * feature.dtype.size for feature in fixed_features(transform_output).values())


def catalogue_inputs(
    file_patterns: Sequence[str], spec: FeatureSpec, transform_output: tft.TFTransformOutput, has_versions: bool = False
) -> dict[str, tf.Tensor]:
    """Compute the item tower's inputs for all items of a catalogue, in memory.

    Args:
        file_patterns: gzipped TFRecords of raw catalogue examples.
        spec: the dataset's features.
        transform_output: the graph that transformed the interactions.
        has_versions: whether the files include rows of earlier catalogues.

    Returns:
        Model inputs by name, and `candidate_id`, each [items, ...]; with versions also `seen_through`, `NEWEST` in the newest
        catalogue's rows.
    """
    transform = ModelInputs(spec, transform_output)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def transformed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        keys = {CANDIDATE_ID: tf.io.FixedLenFeature([], tf.string)}
        if has_versions:
            keys[SEEN_THROUGH] = tf.io.FixedLenFeature([], tf.int64, NEWEST)
        parsed = tf.io.parse_example(examples, keys)
        inputs = transform(raw_features.parse_examples(examples, spec.item))
        return {**inputs, **parsed, CANDIDATE_ID: fingerprint(parsed[CANDIDATE_ID])}

    files = [path for pattern in file_patterns for path in sorted(tf.io.gfile.glob(pattern))]
    batches = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(CATALOGUE_BATCH)
    by_batch = [transformed(batch) for batch in batches] or [transformed(tf.constant([], tf.string))]
    return {name: tf.concat([of_batch[name] for of_batch in by_batch], axis=0) for name in by_batch[0]}


def known_items(
    catalogue: Inputs, seen: NDArray[np.int64], masks: Masks, id_features: Sequence[str]
) -> dict[str, tf.Tensor]:
    """Select the items that uniform negatives are drawn from: those seen or with a row of their own; all if there are none.

    An item that nobody could have taken yet is no negative: drawn as often as any other, it would only be pushed down.

    Args:
        catalogue: see `catalogue_inputs`.
        seen: the `candidate_id`s of the training split.
        masks: masks of the masked features.
        id_features: the features that are an item's own id.
    """
    is_known = np.isin(catalogue[CANDIDATE_ID].numpy(), seen)
    for name in id_features:
        if name in masks:
            is_known |= catalogue[name].numpy() != masks[name].row
    rows = np.flatnonzero(is_known) if is_known.any() else np.arange(len(is_known))
    return {name: tf.gather(values, rows) for name, values in catalogue.items()}


def uniform_draws(
    catalogue: Inputs, draws: int, seed: int | tf.Tensor, masks: Masks | None = None, skip: int | tf.Tensor = 0
) -> tf.data.Dataset:
    """Return an endless stream of items drawn uniformly, with replacement.

    Args:
        catalogue: see `catalogue_inputs`.
        draws: items in an element.
        seed: of the draws.
        masks: masks of the features whose ids are hidden in some rows.
        skip: the number of elements to skip at the beginning.
    """
    items = tf.shape(catalogue[CANDIDATE_ID], tf.int64)[0]
    of_draws = tf.cast(seed, tf.int64) + OF_DRAWS

    @as_it_is
    def drawn(number: tf.Tensor) -> dict[str, tf.Tensor]:
        of_rows = tf.stack([of_draws - SEED_STRIDE, number])
        rows = tf.random.stateless_uniform([draws], of_rows, maxval=items, dtype=tf.int64)
        items_drawn = {name: tf.gather(values, rows) for name, values in catalogue.items()}
        return masked(items_drawn, masks or {}, of_draws, number)

    return tf.data.Dataset.counter(tf.cast(skip, tf.int64)).map(drawn)


def as_known_on(spec: FeatureSpec, items: Inputs, day: int | None) -> Inputs:
    """Select one version of each item, for lookups by queries.

    Args:
        spec: the dataset's features.
        items: see `catalogue_inputs`.
        day: in days since 1970-01-01: the version that interactions of that day see; None for the newest.
    """
    if SEEN_THROUGH not in items:
        return items
    names = inputs_of_query_items(spec)
    ids = tf.boolean_mask(items[CANDIDATE_ID], items[SEEN_THROUGH] == NEWEST)
    days = None if day is None else tf.fill(tf.shape(ids), tf.constant(day, tf.int64))
    return {CANDIDATE_ID: ids, **CatalogueLookup(names, items)(ids, names, days)}


def lookup_for_training(spec: FeatureSpec, items: Inputs) -> CatalogueLookup:
    """Make the lookup of the inputs that interactions do not repeat.

    Args:
        spec: the dataset's features.
        items: see `catalogue_inputs`; all known ones, including blocked ones.
    """
    return CatalogueLookup({*inputs_of_candidates(spec), *inputs_of_query_items(spec)}, items)


def lookup_for_queries(spec: FeatureSpec, items: Inputs) -> CatalogueLookup | None:
    """Make the lookup that the exported query tower holds in variables; None if it looks up nothing. For `items` see above."""
    names = inputs_of_query_items(spec)
    return CatalogueLookup(names, items, lambda values: tf.Variable(values, trainable=False)) if names else None


def looked_up(spec: FeatureSpec, batches: tf.data.Dataset, lookup: CatalogueLookup | None) -> tf.data.Dataset:
    """Add to batches of interactions the inputs of both towers that come from the catalogue."""
    if lookup is None:
        return batches

    @as_it_is
    def complete(batch: Inputs) -> dict[str, tf.Tensor]:
        days = batch[TIMESTAMP] // MICROSECONDS_A_DAY if lookup.has_versions else None
        of_items = lookup(batch[CANDIDATE_ID], inputs_of_candidates(spec), days)
        return {**batch, **of_items, **lookup.of_query(spec, batch, days)}

    return batches.map(complete)


def with_uniform_items(batches: tf.data.Dataset, draws: tf.data.Dataset | None) -> tf.data.Dataset:
    """Pair batches of interactions with uniform draws, as `Batch`."""
    if draws is None:
        return batches.map(as_it_is(lambda interactions: Batch(interactions, {}))).prefetch(tf.data.AUTOTUNE)
    return tf.data.Dataset.zip(batches, draws).map(as_it_is(Batch)).prefetch(tf.data.AUTOTUNE)
