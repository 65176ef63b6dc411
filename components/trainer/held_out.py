"""Held-out interactions in memory, to compare models of one day: the epochs of a training, or the trials of a search."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray

from components.decoded import decode, rewarded, single
from components.digests import partition_of
from components.evaluator.expectation import hit_probability
from components.evaluator.positions import rows_of_lists
from components.evaluator.query_items import Bonuses, Excluded
from components.evaluator.ranked import USER_GROUPS
from components.evaluator.ranking import rank_by_embedding
from components.trainer.model import TwoTowerModel
from components.transform import raw_features
from components.transform.catalogue_lookup import CatalogueLookup, Inputs
from components.transform.model_inputs import ModelInputs
from components.transform.preprocessing import fingerprint
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, QUERY_ID, FeatureSpec

BATCH = 1024
OF_USERS = 1 << 20  # groups of users, of which some are drawn


@dataclass(frozen=True)
class HeldOut:
    """The held-out interactions of a day that have a reward and a retrievable item.

    In a search, half of the users choose the best trial; the other half measure its gain, because the best of many is partly the
    luckiest.

    Attributes:
        queries: the query tower's inputs, [interactions, ...] each.
        items: the item tower's inputs of all retrievable items, and `candidate_id`, [items, ...] each.
        true_rows: [interactions] int64, the row in `items` of each interaction's item.
        groups: [interactions] int64, the group of its user, for intervals.
        chooses: [interactions] bool, whether it is in the half that chooses.
        excluded: items that are not ranked; None to rank all.
    """

    queries: Inputs
    items: Inputs
    true_rows: NDArray[np.int64]
    groups: NDArray[np.int64]
    chooses: NDArray[np.bool_]
    excluded: Excluded | None = None

    def hits(self, model: TwoTowerModel, k: int) -> NDArray[np.float64]:
        """Return [interactions], the probability that its item is among the model's first k of the whole catalogue."""
        queries, items = (
            np.concatenate([tower(batch).numpy() for batch in _batches(inputs)])
            for tower, inputs in ((model.query_tower, self.queries), (model.item_tower, self.items))
        )
        ranks = rank_by_embedding(queries, items, self.true_rows, self.excluded, self._bonuses(model))
        return hit_probability(ranks.above, ranks.tied, k)

    def _bonuses(self, model: TwoTowerModel) -> Bonuses | None:
        """Return the queries' repeat bonuses; None without repeats."""
        if model.repeat_bonus is None:
            return None
        repeats = [model.repeat_bonus(batch) for batch in _batches(self.queries)]
        ids, values = (np.concatenate([tensor.numpy() for tensor in tensors]) for tensors in zip(*repeats, strict=True))
        known = self.items[CANDIDATE_ID].numpy()
        order = np.argsort(known)
        return Bonuses.of_ids(ids, values, known[order], order)


def read_held_out(
    patterns: Sequence[str],
    most: int,
    spec: FeatureSpec,
    transform_output: tft.TFTransformOutput,
    lookup: CatalogueLookup | None,
    catalogue: Inputs,
    not_ranked: Sequence[str] | None = None,
) -> HeldOut:
    """Read a day's held-out interactions.

    Args:
        patterns: patterns of the raw files.
        most: about the number to read; if the day has more, whole users are drawn by a digest.
        spec: the dataset's features.
        transform_output: the graph that transformed the training interactions.
        lookup: of queries; see `components.trainer.inputs.lookup_for_queries`.
        catalogue: see `components.trainer.inputs.catalogue_inputs`.
        not_ranked: patterns of the catalogue's files, if items in a query's history are not ranked; None to rank all.

    Raises:
        UserError: there are no held-out interactions.
    """
    serialized = _drawn(patterns, most)
    rows = decode(serialized)
    fingerprints = catalogue[CANDIDATE_ID].numpy()
    order = np.argsort(fingerprints)
    asked = np.zeros(0, np.int64)
    if serialized:
        asked = fingerprint(tf.constant(single(rows.column(CANDIDATE_ID)).to_pylist())).numpy()
    places = order[np.minimum(np.searchsorted(fingerprints, asked, sorter=order), len(order) - 1)]
    is_there = fingerprints[places] == asked
    if not is_there.any():
        raise UserError(
            "The day has no held-out interaction with a reward and an item of its catalogue, so models cannot be compared. Hold "
            "out more: data.split."
        )
    rows = rows.filter(pa.array(is_there))
    partitions = np.array(
        [partition_of(user, 2 * USER_GROUPS) for user in single(rows.column(QUERY_ID)).to_pylist()], np.int64
    )
    excluded = None
    if not_ranked is not None:
        ids = [single(decode(chunk).column(CANDIDATE_ID)) for chunk in _chunks(_read(not_ranked))]
        excluded = rows_of_lists(rows, spec.history_feature, pa.concat_arrays(ids))
    transform = ModelInputs(spec, transform_output, lookup)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def transformed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return transform(raw_features.parse_examples(examples, spec.raw_query))

    ranked = np.array(serialized, object)[is_there].tolist()
    batches = [transformed(tf.constant(chunk)) for chunk in _chunks(ranked)]
    return HeldOut(
        {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]},
        catalogue,
        places[is_there],
        partitions // 2,
        partitions % 2 == 0,
        excluded,
    )


def _batches(inputs: Inputs) -> Iterator[dict[str, tf.Tensor]]:
    for start in range(0, len(next(iter(inputs.values()))), BATCH):
        yield {name: values[start : start + BATCH] for name, values in inputs.items()}


def _drawn(patterns: Sequence[str], most: int) -> list[bytes]:
    """Read the rewarded interactions of as many whole users as give about the wanted number."""
    interactions, users = [], []
    for chunk in _chunks(_read(patterns)):
        rows = decode(chunk)
        numbered = rows.append_column("number", pa.array(np.arange(len(chunk))))
        with_reward = rewarded(numbered)
        interactions += [chunk[number] for number in with_reward.column("number").to_pylist()]
        users += single(with_reward.column(QUERY_ID)).to_pylist()
    share = most / max(1, len(interactions))
    if share >= 1.0:
        return interactions
    return [
        interaction
        for interaction, user in zip(interactions, users, strict=True)
        if partition_of(b"tune" + user, OF_USERS) < share * OF_USERS
    ]


def _read(patterns: Iterable[str]) -> list[bytes]:
    files = [path for pattern in patterns for path in sorted(tf.io.gfile.glob(pattern))]
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())


def _chunks(serialized: Sequence[bytes]) -> list[list[bytes]]:
    return [list(serialized[start : start + BATCH]) for start in range(0, len(serialized), BATCH)]
