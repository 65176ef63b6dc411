"""The retrieval loss: the columns of the softmax, and the correction of their sampling (paper, section 3)."""

import math
from statistics import NormalDist
from typing import Literal, NamedTuple

import tensorflow as tf
import tf_keras

from components.trainer import replicas
from components.trainer.blocked_softmax import HIDDEN, Candidates, cross_entropy
from components.trainer.repeats import Repeats

Correction = Literal["none", "logq", "logq_positive_left_out"]

NOBODY = -1  # fingerprints of users are not negative


class Items(NamedTuple):
    """Items that are columns of the softmax.

    Attributes:
        embeddings: [items, width] float, L2-normalised.
        ids: [items] int64.
        expected_counts: [items] float32, the expected count of each among the columns of the stream (a global batch).
        boosts: [items] float32 or scalar, factors of the expected counts over all columns. With a corrected loss, a boost of b
            trains scores that are log b higher: as if the item were b times as popular.
        hidden: [items] bool or scalar, whether the embedding was made without the item's id.
    """

    embeddings: tf.Tensor
    ids: tf.Tensor
    expected_counts: tf.Tensor
    boosts: tf.Tensor | float = 1.0
    hidden: tf.Tensor | bool = False


class Top(NamedTuple):
    """Gives more weight to rows whose positive ranks near or among the first of the catalogue (after SL@K, KDD 2025).

    SL@K weighs a row by sigmoid((s_p - b) / temperature), where b is the score from which on an item is among a user's first K: a
    quantile of the scores of sampled items, recomputed now and then. Here it is recomputed at each step, as the quantile of a
    normal distribution with the mean and variance of the row's scores over the catalogue, with what the row has taken. These follow
    from the means of the columns' embeddings and of their products, each column weighted by the inverse of its expected count. The
    weight has no gradient.

    Attributes:
        share: the share of the catalogue that counts as the first: K / items, in (0, 1).
        temperature: of the weight, in units of the inner product.
    """

    share: float
    temperature: float


class InBatchSoftmax(tf_keras.layers.Layer):
    """The mean over the global batch of reward times softmax cross-entropy against all other rows' items.

    - The logits are inner products over the temperature, minus the log of the expected count of the column's item among the columns
      (`correction="logq"`, paper, equation 3 and section 3), or without that (`none`).
    - `logq_positive_left_out` leaves the positive, which was not sampled, uncorrected and out of the sampled set
      (Khrylchenko et al., "Correcting the LogQ Correction", RecSys 2025).
    - Uniform draws from the catalogue may join the columns (Yang et al., "Mixed Negative Sampling", WWW 2020); the expected
      count is then that of the mixture. Or they are the only columns: a softmax over a sample of the catalogue.
    - Columns with the id of the row's own item are left out (accidental hits).
    - A query's bonuses for items of its history are added to the inner products; see `components.trainer.repeats`.
    - Columns with an item that the row has taken may be left out too.
    - The columns are those of all replicas, and a replica's loss is its rows' share of the mean over the global batch: the
      gradients that a strategy sums over replicas are those of the same batch on one device.

    A row whose reward is negative, infinite or NaN has weight 0. A batch without rewards has loss 0, and so has a batch of one row.
    The softmax is computed in float32, whatever the embeddings' dtype.

    Args:
        correction: see above.
        temperature: divides the inner products; the initial value if it is learned.
        learn_temperature: whether the temperature is trained with the towers, through its logarithm so that it stays positive.
        block_rows: rows of the batch whose logits are in memory at once.
        strength: for `logq`, in [0, 1]: the factor of the log of the expected count.
        negatives_weight: for BSL; see `components.trainer.blocked_softmax`. None for the softmax.
        in_batch: whether the other rows' items are negatives.
        top: gives some rows more weight; None for equal weights.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        correction: Correction = "logq",
        temperature: float = 0.05,
        learn_temperature: bool = False,
        block_rows: int = 512,
        strength: float = 1.0,
        negatives_weight: float | None = None,
        top: Top | None = None,
        in_batch: bool = True,
        name: str = "in_batch_softmax",
    ) -> None:
        super().__init__(name=name)
        if correction not in ("none", "logq", "logq_positive_left_out"):
            raise ValueError(f"expected correction none, logq or logq_positive_left_out, received {correction!r}")
        if not 0.0 < temperature < float("inf"):
            raise ValueError(f"expected a finite temperature above 0, received {temperature!r}")
        if block_rows < 1:
            raise ValueError(f"expected block_rows of at least 1, received {block_rows!r}")
        if not 0.0 <= strength <= 1.0:
            raise ValueError(f"expected a strength in [0, 1], received {strength!r}")
        if negatives_weight is not None and not 0.0 < negatives_weight < float("inf"):
            raise ValueError(f"expected a finite negatives_weight above 0, received {negatives_weight!r}")
        if top is not None and not (0.0 < top.share < 1.0 and 0.0 < top.temperature < float("inf")):
            raise ValueError(f"expected a share of the top in (0, 1) and a finite temperature above 0, received {top}")
        self.correction = correction
        self.negatives_weight = negatives_weight
        self.top = top
        self.in_batch = in_batch
        self.strength = strength
        self.block_rows = block_rows
        self.log_temperature = self.add_weight(
            "log_temperature",
            dtype=tf.float32,
            initializer=tf_keras.initializers.Constant(math.log(temperature)),
            trainable=learn_temperature,
        )

    @property
    def temperature(self) -> tf.Tensor:
        """Scalar float32."""
        return tf.exp(self.log_temperature)

    def call(
        self,
        queries: tf.Tensor,
        items: Items,
        rewards: tf.Tensor,
        uniform_items: Items | None = None,
        catalogue_size: int = 0,
        users: tf.Tensor | None = None,
        repeats: Repeats | None = None,
        taken: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Compute the loss of a batch, or of a replica's share of it.

        Args:
            queries: [batch, width] float, L2-normalised.
            items: [batch] positives of the queries, in their order.
            rewards: [batch] float, the paper's r_i.
            uniform_items: [draws] items drawn uniformly from the catalogue, the same number on each replica. Needed where the
                batch's own are no negatives.
            catalogue_size: the number of items they were drawn from.
            users: [batch] int64, the user of each positive: other positives of the same user are no negatives. None keeps them.
            repeats: of the queries; None for no bonuses.
            taken: [batch, entries] int64 ids of items that are no negatives of the query; NO_ITEM for none. None for no items.

        Returns:
            Scalar float32.

        Raises:
            ValueError: users were given with repeats or taken items, or there are no negatives.
        """
        if uniform_items is None and not self.in_batch:
            raise ValueError("expected uniform_items, received None: the batch's own items are no negatives")
        if users is not None and (repeats is not None or taken is not None):
            given = "repeats" if taken is None else "taken items"
            raise ValueError(f"expected users or {given}, received both: copies of an item are of several users")
        batch = queries.shape[0] or tf.shape(queries)[0]
        own = _whole(items)
        several = [_gathered(own)] if self.in_batch else []
        users = None if users is None else tf.cast(users, tf.int64)
        users_of = [] if users is None or not self.in_batch else [replicas.gather(users)]
        expected = 0.0
        if uniform_items is not None:
            drawn = _gathered(_whole(uniform_items))
            several.append(drawn)
            # A uniform draw belongs to no user, so it is a negative for all.
            users_of.append(tf.fill(tf.shape(drawn.ids), tf.constant(NOBODY, tf.int64)))
            expected = tf.cast(tf.shape(drawn.ids)[0], tf.float32) / tf.cast(catalogue_size, tf.float32)
        columns = Items(*(tf.concat(parts, axis=0) for parts in zip(*several, strict=True)))

        def counts(some: Items) -> tf.Tensor:
            return (some.expected_counts * float(self.in_batch) + expected) * some.boosts

        def candidates(some: Items, users: tf.Tensor | None) -> Candidates:
            bias = (
                tf.zeros_like(some.boosts) if self.correction == "none" else -self.strength * tf.math.log(counts(some))
            )
            return Candidates(some.embeddings, some.ids, bias, users, some.hidden)

        rewards = tf.cast(rewards, tf.float32)
        weighing = (rewards > 0.0) & tf.math.is_finite(rewards)
        queries = tf.cast(queries, tf.float32)
        weights = tf.where(weighing, rewards, 0.0)
        if self.top is not None:
            bonuses = (
                0.0 if repeats is None else repeats.of(tf.where(own.hidden, tf.constant(HIDDEN, tf.int64), own.ids))
            )
            similarity = tf.reduce_sum(queries * own.embeddings, axis=1) + bonuses
            weights *= _top_weights(queries, columns.embeddings, 1.0 / counts(columns), similarity, self.top)
        total = cross_entropy(
            queries,
            candidates(own, users),
            candidates(columns, None if users is None else tf.concat(users_of, axis=0)),
            weights=weights,
            inverse_temperature=1.0 / self.temperature,
            positive_left_out=self.correction == "logq_positive_left_out",
            block_rows=self.block_rows,
            negatives_weight=self.negatives_weight,
            repeats=repeats,
            taken=taken,
        )
        return total / tf.cast(batch * replicas.count(), tf.float32)


def _top_weights(
    queries: tf.Tensor,
    embeddings: tf.Tensor,
    weights: tf.Tensor,
    similarity: tf.Tensor,
    top: Top,
) -> tf.Tensor:
    """Return [batch] float32, given the scores of the positives; see `Top`."""
    shares = (weights / tf.reduce_sum(weights))[:, tf.newaxis]
    mean = tf.linalg.matvec(queries, tf.reduce_sum(shares * embeddings, axis=0))
    products = tf.matmul(embeddings, shares * embeddings, transpose_a=True)
    variance = tf.reduce_sum(tf.matmul(queries, products) * queries, axis=1) - tf.square(mean)
    first = mean + tf.sqrt(tf.maximum(variance, 0.0)) * NormalDist().inv_cdf(1.0 - top.share)
    return tf.stop_gradient(tf.sigmoid((similarity - first) / top.temperature))


def _whole(items: Items) -> Items:
    """Give every item its own boost and flag, and float32 embeddings."""
    shape = tf.shape(items.expected_counts)
    return items._replace(
        embeddings=tf.cast(items.embeddings, tf.float32),
        boosts=tf.broadcast_to(items.boosts, shape),
        hidden=tf.broadcast_to(items.hidden, shape),
    )


def _gathered(items: Items) -> Items:
    """Gather a replica's items to those of all replicas."""
    # As numbers: TensorFlow does not gather booleans.
    gathered = map(replicas.gather, items._replace(hidden=tf.cast(items.hidden, tf.int32)))
    columns = Items(*gathered)
    return columns._replace(hidden=tf.cast(columns.hidden, tf.bool))
