"""The two-tower model."""

from collections.abc import Iterable, Mapping

import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from components.trainer import replicas
from components.trainer.frequency import FrequencyEstimator
from components.trainer.inputs import Batch, masks_of
from components.trainer.loss import InBatchSoftmax, Items, Top
from components.trainer.repeats import RepeatBonus
from components.trainer.settings import TrainerSettings
from components.trainer.towers import Parts, Tower, build_tables, undivided
from components.transform.catalogue_lookup import Inputs
from schemas.features import CANDIDATE_ID, FINGERPRINT_SUFFIX, QUERY_ID, REWARD, FeatureSpec

OF_QUERIES, OF_ITEMS, OF_UNIFORM_ITEMS = range(3)  # each drops out different values


class TwoTowerModel(tfrs.Model):
    """Both towers, the loss that trains them, and the estimator that corrects the loss.

    The estimator counts every batch even if the loss is not corrected: that costs little, and the estimates are ready when the
    correction is turned on.

    Args:
        query_tower: model inputs to query embeddings.
        item_tower: model inputs to item embeddings.
        loss: the loss of a batch.
        frequency: estimates the counts of items in a global batch.
        catalogue_size: the number of items that uniform negatives are drawn from.
        masks: by feature, the row that hides an item's own id.
        new_item_boost: see `components.trainer.settings.SoftmaxSettings`.
        same_user_negatives: see `components.trainer.settings.SoftmaxSettings`.
        repeat_bonus: the bonuses of a query's history for its items; None without repeats.
        dropout_seed: the seed of the towers' dropout; None without dropout.
        not_negatives: the histories whose items are no negatives of their query.
    """

    def __init__(
        self,
        query_tower: Tower,
        item_tower: Tower,
        loss: InBatchSoftmax,
        frequency: FrequencyEstimator,
        catalogue_size: int,
        masks: Mapping[str, int],
        new_item_boost: float,
        same_user_negatives: bool,
        repeat_bonus: RepeatBonus | None = None,
        dropout_seed: int | None = None,
        not_negatives: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.query_tower = query_tower
        self.item_tower = item_tower
        self.repeat_bonus = repeat_bonus
        self.retrieval_loss = loss
        self.frequency = frequency
        self._catalogue_size = catalogue_size
        self._masks = dict(masks)
        self._new_item_boost = new_item_boost
        self._same_user_negatives = same_user_negatives
        self._dropout_seed = dropout_seed
        self._not_negatives = tuple(not_negatives)
        self._mean_loss = tf_keras.metrics.Mean("loss")

    def compute_loss(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """Compute the loss of a batch, or of a replica's share of it; in training, update the estimator first."""
        ids = batch.interactions[CANDIDATE_ID]
        counts = self.frequency(ids) if training else self.frequency.estimate(ids)
        return self.retrieval_loss(
            self.query_tower(batch.interactions, noise=self._noise(OF_QUERIES, training)),
            self._items(batch.interactions, counts, self._noise(OF_ITEMS, training)),
            rewards=batch.interactions[REWARD],
            uniform_items=self._uniform_items(batch.uniform_items, training) if batch.uniform_items else None,
            catalogue_size=self._catalogue_size,
            users=None if self._same_user_negatives else batch.interactions[QUERY_ID],
            repeats=self.repeat_bonus(batch.interactions) if self.repeat_bonus else None,
            taken=self._taken(batch.interactions) if self._not_negatives else None,
        )

    def make_weights(self, batch: Batch) -> None:
        """Create the weights that Keras creates at the first call; unlike a loss, this may be called outside of replicas."""
        self.query_tower(batch.interactions)
        self.item_tower(batch.interactions)

    def mean_loss(self) -> float:
        """Return the mean loss since `reset_metrics`, averaged over replicas."""
        return float(self._mean_loss.result())

    @tf.autograph.experimental.do_not_convert  # no Python branch depends on a tensor, and the conversion takes seconds
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Take one step; called by Keras. Return the mean loss of the epoch's steps so far, over all replicas.

        TFRS's own step returns the last step's loss on one replica.
        """
        with tf.GradientTape() as tape:
            loss = self.compute_loss(batch, training=True)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        self._mean_loss.update_state(loss * replicas.count())
        return {"loss": self._mean_loss.result()}

    def _uniform_items(self, inputs: Inputs, training: bool) -> Items:
        noise = self._noise(OF_UNIFORM_ITEMS, training)
        return self._items(inputs, self.frequency.estimate(inputs[CANDIDATE_ID]), noise)

    def _taken(self, inputs: Inputs) -> tf.Tensor:
        return tf.concat([inputs[name + FINGERPRINT_SUFFIX] for name in self._not_negatives], axis=1)

    def _noise(self, of: int, training: bool) -> tf.Tensor | None:
        """Return the seed of a step's dropout on this replica."""
        if not training or self._dropout_seed is None:
            return None
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        seed = self._dropout_seed + (of << 32) + replica * (1 << 34)
        return tf.stack([seed, tf.cast(self.optimizer.iterations, tf.int64)])

    def _items(self, inputs: Inputs, expected_counts: tf.Tensor, noise: tf.Tensor | None) -> Items:
        hidden = tf.zeros_like(expected_counts, tf.bool)
        for feature, mask in self._masks.items():
            hidden |= tf.equal(inputs[feature], mask)
        boosts = tf.where(hidden, self._new_item_boost, 1.0)
        return Items(self.item_tower(inputs, noise=noise), inputs[CANDIDATE_ID], expected_counts, boosts, hidden)


def build_model(
    spec: FeatureSpec,
    rows: Mapping[str, int],
    settings: TrainerSettings,
    catalogue_size: int = 0,
    parts: Parts = undivided,
) -> TwoTowerModel:
    """Build an untrained model.

    Args:
        spec: the features of each tower.
        rows: the number of rows of every embedding table.
        settings: the towers' widths, the loss, the estimator and the seed.
        catalogue_size: the number of items that uniform negatives are drawn from.
        parts: the number of shards of a table.
    """
    tables = build_tables(rows, {name: table.width for name, table in spec.tables.items()}, settings.seed, parts)
    towers, mixed = settings.towers, settings.mixed_precision
    query_tower = Tower(
        spec.query_inputs, tables, towers.query, settings.seed + 1, "query_tower", mixed, towers.dropout
    )
    item_tower = Tower(spec.item, tables, towers.item, settings.seed + 2, "item_tower", mixed, towers.dropout)
    softmax, frequency = settings.softmax, settings.frequency
    loss = InBatchSoftmax(
        softmax.correction,
        softmax.temperature,
        softmax.learn_temperature,
        softmax.block_rows,
        softmax.strength,
        softmax.negatives_weight,
        Top(softmax.top_share, softmax.top_temperature) if softmax.top_share else None,
        softmax.in_batch_negatives,
    )
    estimator = FrequencyEstimator(
        frequency.buckets, frequency.hashes, frequency.alpha, frequency.initial_gap, frequency.counting, settings.seed
    )
    masks = {name: mask.row for name, mask in masks_of(spec, rows).items() if name in spec.id_features}
    return TwoTowerModel(
        query_tower,
        item_tower,
        loss,
        estimator,
        catalogue_size,
        masks,
        softmax.new_item_boost,
        softmax.same_user_negatives,
        RepeatBonus(spec.repeating) if spec.repeating else None,
        settings.seed if towers.dropout else None,
        spec.not_negatives,
    )
