"""Held-out interactions in memory, by which models of one day are compared while settings are searched for."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from components.decoded import decode, id_part, rewarded, single
from components.evaluator.expectation import hit_probability
from components.evaluator.positions import positions, rows_of_lists
from components.evaluator.ranked import USER_GROUPS
from components.evaluator.ranking import Bonuses, Excluded, rank_by_embedding
from components.trainer.day import TrainingDay
from components.trainer.model import TwoTowerModel
from components.transform import raw_features
from components.transform.catalogue_lookup import Inputs
from components.transform.model_inputs import ModelInputs
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, QUERY_ID

BATCH = 1024
OF_USERS = 1 << 20  # parts of users, of which some are drawn


class HeldOut:
    """The held-out interactions of a day, with a reward and an item of the catalogue.

    Half of the users choose between trials; the other half say what that is worth, as the best of many is partly the luckiest.

    Args:
        day: what models are trained on.
        patterns: of the held-out interactions' files, raw.
        most: about how many interactions there are to be; of a day with more, whole users are drawn by a digest.
        excludes_history: whether what stands in a query's history is not ranked.

    Attributes:
        groups: [interactions] int64, of the users, for intervals.
        chooses: [interactions] bool, whether it is of the half that chooses.

    Raises:
        UserError: nothing is held out.
    """

    def __init__(self, day: TrainingDay, patterns: Sequence[str], most: int, excludes_history: bool) -> None:
        serialized = _drawn(patterns, most)
        ids = pa.concat_arrays([single(decode(part).column(CANDIDATE_ID)) for part in _parts(_read(day.places.ranked))])
        rows = decode(serialized)
        is_there = positions(rows.column(CANDIDATE_ID), ids) >= 0 if serialized else np.zeros(0, bool)
        if not is_there.any():
            raise UserError(
                "The day has no held-out interaction with a reward and an item of its catalogue, to compare settings by."
            )
        rows = rows.filter(pa.array(is_there))
        users = single(rows.column(QUERY_ID)).to_pylist()
        parts = np.array([id_part(user, 2 * USER_GROUPS) for user in users], np.int64)
        self.chooses, self.groups = parts % 2 == 0, parts // 2
        self._true_rows = positions(rows.column(CANDIDATE_ID), ids)
        self._excluded: Excluded | None = None
        if excludes_history:
            self._excluded = rows_of_lists(rows, day.spec.history_feature, ids)
        lookup = day.lookup_of_queries(day.places.judged_day)
        transform = ModelInputs(day.spec, day.transform_output, lookup)

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
        def transformed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return transform(raw_features.parse_examples(examples, day.spec.raw_query))

        kept = np.array(serialized, object)[is_there].tolist()
        batches = [transformed(tf.constant(part)) for part in _parts(kept)]
        self._queries = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
        self._items = day.catalogue

    def hits(self, model: TwoTowerModel, k: int) -> NDArray[np.float64]:
        """[interactions] the chance of each to have its item among the model's first k of the whole catalogue."""
        queries, items = (
            np.concatenate([tower(batch).numpy() for batch in _batches(inputs)])
            for tower, inputs in ((model.query_tower, self._queries), (model.item_tower, self._items))
        )
        ranks = rank_by_embedding(queries, items, self._true_rows, self._excluded, self._bonuses(model))
        return hit_probability(ranks.above, ranks.tied, k)

    def _bonuses(self, model: TwoTowerModel) -> Bonuses | None:
        """What the queries' histories add to scores; None where they add nothing."""
        if model.repeat_bonus is None:
            return None
        found = [model.repeat_bonus(batch) for batch in _batches(self._queries)]
        ids, values = (np.concatenate([each.numpy() for each in parts]) for parts in zip(*found, strict=True))
        known = self._items[CANDIDATE_ID].numpy()
        order = np.argsort(known)
        return Bonuses.of_ids(ids, values, known[order], order)


def _batches(inputs: Inputs) -> Iterator[dict[str, tf.Tensor]]:
    for start in range(0, len(next(iter(inputs.values()))), BATCH):
        yield {name: values[start : start + BATCH] for name, values in inputs.items()}


def _drawn(patterns: Sequence[str], most: int) -> list[bytes]:
    """The rewarded interactions, of whole users so that they are about as many as wanted."""
    kept, users = [], []
    for part in _parts(_read(patterns)):
        rows = decode(part)
        numbered = rows.append_column("number", pa.array(np.arange(len(part))))
        with_reward = rewarded(numbered)
        kept += [part[number] for number in with_reward.column("number").to_pylist()]
        users += single(with_reward.column(QUERY_ID)).to_pylist()
    share = most / max(1, len(kept))
    if share >= 1.0:
        return kept
    return [
        each for each, user in zip(kept, users, strict=True) if id_part(b"tune" + user, OF_USERS) < share * OF_USERS
    ]


def _read(patterns: Iterable[str]) -> list[bytes]:
    files = [path for pattern in patterns for path in sorted(tf.io.gfile.glob(pattern))]
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())


def _parts(serialized: Sequence[bytes]) -> list[list[bytes]]:
    return [list(serialized[start : start + BATCH]) for start in range(0, len(serialized), BATCH)]
