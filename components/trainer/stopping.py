"""Early stopping: after every epoch the held-out interactions are ranked, and the best epoch's model is kept.

Training that is killed and called again ends as an undisturbed one: what an epoch found is in the same checkpoint as the state
behind it, and the best epoch's state is on the disk before that checkpoint names it.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray
from tfx.dsl.io import fileio

from components.trainer.model import TwoTowerModel
from components.trainer.settings import EarlyStoppingSettings
from components.trainer.state import TrainingState
from components.transform import raw_features
from components.transform.catalogue_lookup import CatalogueLookup, Inputs
from components.transform.model_inputs import ModelInputs
from components.transform.preprocessing import fingerprint
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec

NOT_MEASURED = -1.0
AT_ONCE = 1024
BEST = "best-"


class HeldOut:
    """The interactions that a model is measured by, in memory.

    Args:
        queries: the query tower's inputs, [interactions, ...] each.
        items: the item tower's inputs of all items that may be retrieved, [items, ...] each.
        true_rows: [interactions] int64, which of the items each was with.
        recall_at: K.
    """

    def __init__(self, queries: Inputs, items: Inputs, true_rows: NDArray[np.int64], recall_at: int) -> None:
        self._queries, self._items = queries, items
        self._true_rows = true_rows
        self._k = recall_at

    def recall(self, model: TwoTowerModel) -> float:
        """The share of the interactions whose item is among the first K of the catalogue; of equal scores the true one is last."""
        items = np.concatenate([model.item_tower(each).numpy() for each in _batches(self._items)])
        found = 0
        for number, queries in enumerate(_batches(self._queries)):
            scores = model.query_tower(queries).numpy() @ items.T
            true_rows = self._true_rows[number * AT_ONCE : number * AT_ONCE + len(scores)]
            true_scores = scores[np.arange(len(scores)), true_rows, np.newaxis]
            # Not `>=`: what cannot be compared, such as NaN, is above.
            found += int(((~(scores < true_scores)).sum(axis=1) - 1 < self._k).sum())
        return found / len(self._true_rows)


def read_held_out(
    file_patterns: Sequence[str],
    spec: FeatureSpec,
    transform_output: tft.TFTransformOutput,
    lookup: CatalogueLookup | None,
    catalogue: Inputs,
    settings: EarlyStoppingSettings,
) -> HeldOut:
    """Reads the held-out interactions with a reward above 0 and an item that may be retrieved.

    Args:
        file_patterns: gzipped TFRecords of raw interactions.
        spec: the dataset's features.
        transform_output: the graph that training's interactions went through.
        lookup: of queries; see `components.trainer.inputs.lookup_for_queries`.
        catalogue: see `components.trainer.inputs.catalogue_inputs`.
        settings: at most how many, and K.

    Raises:
        UserError: there is none.
    """
    transform = ModelInputs(spec, transform_output, lookup)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def transformed(examples: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        own = {CANDIDATE_ID: tf.io.FixedLenFeature([], tf.string), REWARD: tf.io.FixedLenFeature([], tf.float32)}
        parsed = tf.io.parse_example(examples, own)
        counts = parsed[REWARD] > 0.0
        inputs = transform(raw_features.parse_examples(tf.boolean_mask(examples, counts), spec.raw_query))
        return inputs, tf.boolean_mask(fingerprint(parsed[CANDIDATE_ID]), counts)

    files = [path for pattern in file_patterns for path in sorted(tf.io.gfile.glob(pattern))]
    examples = tf.data.TFRecordDataset(files, compression_type="GZIP")
    # Drawn by a digest: the same whatever the order of the files, and no user's before all of another's.
    serialized = np.array(sorted(examples.as_numpy_iterator(), key=_digest)[: settings.interactions], object)
    parts = [
        transformed(tf.constant(serialized[start : start + AT_ONCE])) for start in range(0, len(serialized), AT_ONCE)
    ]
    ids = np.concatenate([np.zeros(0, np.int64), *(items.numpy() for _, items in parts)])
    fingerprints = catalogue[CANDIDATE_ID].numpy()
    order = np.argsort(fingerprints, kind="stable")
    places = order[np.minimum(np.searchsorted(fingerprints, ids, sorter=order), len(order) - 1)]
    chosen = np.flatnonzero(fingerprints[places] == ids)
    if not len(chosen):
        raise UserError(
            "trainer.early_stopping: expected held-out interactions with items of the catalogue, found none. Hold out more "
            "(data.split), or leave it out."
        )
    queries = {name: tf.gather(tf.concat([part[name] for part, _ in parts], 0), chosen) for name in parts[0][0]}
    items = {name: values for name, values in catalogue.items() if name != CANDIDATE_ID}
    return HeldOut(queries, items, places[chosen], settings.recall_at)


class EarlyStopping:
    """What the epochs so far found, and when it is over.

    Args:
        settings: how patient it is.
        held_out: measures a model.
        epochs: the most there may be.

    Attributes:
        recalls: [epochs] float64, NOT_MEASURED for those to come; goes into checkpoints.
    """

    def __init__(self, settings: EarlyStoppingSettings, held_out: HeldOut, epochs: int) -> None:
        self.recalls = tf.Variable(tf.fill([epochs], tf.constant(NOT_MEASURED, tf.float64)))
        self._settings = settings
        self._held_out = held_out

    def judge(self, model: TwoTowerModel, state: TrainingState, epoch: int, folder: str) -> float:
        """Measures the model of an epoch that has ended, and keeps its state if it is the best so far; returns the recall."""
        recall = self._held_out.recall(model)
        self.recalls.scatter_update(tf.IndexedSlices(tf.constant(recall, tf.float64), epoch))
        if self._best == epoch:
            state.checkpoint.write(os.path.join(folder, f"{BEST}{epoch}"))
        return recall

    def forget_others(self, folder: str) -> None:
        """Removes what was kept of epochs that are not the best any more, once a checkpoint says so."""
        for name in fileio.listdir(folder):
            if name.startswith(BEST) and name.partition(".")[0] != f"{BEST}{self._best}":
                fileio.remove(os.path.join(folder, name))

    @property
    def is_over(self) -> bool:
        """Whether none of the last epochs was better than the best before."""
        return self.epochs > 0 and self.epochs - 1 - self._best >= self._settings.patience

    @property
    def epochs(self) -> int:
        """How many epochs have ended."""
        return int((self.recalls.numpy() != NOT_MEASURED).sum())

    def restore_best(self, state: TrainingState, folder: str) -> None:
        """Brings the state of the best epoch back."""
        state.checkpoint.read(os.path.join(folder, f"{BEST}{self._best}")).assert_consumed()

    @property
    def _best(self) -> int:
        return int(np.argmax(self.recalls.numpy()))  # the first of equals


def _digest(example: bytes) -> bytes:
    return hashlib.blake2b(example, digest_size=8).digest()


def _batches(inputs: Inputs) -> list[dict[str, tf.Tensor]]:
    rows = next(iter(inputs.values())).shape[0]
    return [
        {name: values[start : start + AT_ONCE] for name, values in inputs.items()} for start in range(0, rows, AT_ONCE)
    ]
