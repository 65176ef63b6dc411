"""How often an item occurs in a batch, estimated from the stream of batches itself (paper, section 4)."""

import json
from typing import Literal

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from components.trainer import replicas

Counting = Literal["occurrences", "batches"]

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class FrequencyEstimator(tf_keras.layers.Layer):
    """Algorithms 2 and 3: a moving average, for every hash bucket, of the number of steps between its hits.

    The state is `hashes` tables of `buckets` rows: the step of the last hit, the mean gap between hits in steps, and the number
    of hits. At each step every bucket that the batch hits moves its mean towards the gap since its last hit; the estimate for an
    item is 1 / its largest mean gap over the hashes, since a collision can only make a gap too small.

    Where the paper's algorithms, taken to the letter, go wrong, this does otherwise:

    - *An item that occurs c times in a batch* is c hits, spread evenly over the gap: the mean moves by
      1 - (1 - alpha)^c towards gap / c, so 1 / mean is the expected count in a batch, which is what the softmax with c equal
      columns needs. One hit a batch (`counting="batches"`) estimates the probability of a hit instead, which saturates at 1; c
      hits at the same step, as the algorithm reads, end in c - 1 gaps of zero just before they are read.
    - *A bucket that was never hit* has no last step. Its first gap is `initial_gap`, not the age of the stream, unless the stream
      is younger than that.
    - *A rate of alpha alone* leaves a rare item at its start value for 1 / alpha hits. Here the n-th hit moves the mean by
      max(alpha, 1/n): the plain mean of the gaps until there are 1 / alpha of them.

    A batch is counted before it is read. A rare item's newest gap is then part of its estimate at the one step where that is used;
    and the gap that a hit ends is as long as any other, so reading behind it adds no bias.

    Every replica must be given the same number of ids. The ids of all replicas are gathered and each replica updates its own copy
    of the state with all of them, so the copies stay equal and the estimates are of the global batch, at the global step.

    Args:
        buckets: H, rows of each table.
        hashes: m, how many tables.
        alpha: the slowest rate at which a mean moves, in (0, 1].
        initial_gap: steps; the estimate for what was never seen is 1 / initial_gap.
        counting: `occurrences` for the expected count in a batch, `batches` for the probability of a hit.
        seed: of the hashes.
        id_dtype: tf.int64 or tf.string; int32 ids may be given for int64.

    Raises:
        ValueError: an argument is outside its range.
    """

    def __init__(
        self,
        buckets: int,
        hashes: int = 1,
        alpha: float = 0.01,
        initial_gap: float = 100.0,
        counting: Counting = "occurrences",
        seed: int = 0,
        id_dtype: tf.DType = tf.int64,
        name: str = "frequency_estimator",
    ) -> None:
        super().__init__(name=name, trainable=False)
        _check(buckets >= 1, "buckets of at least 1", buckets)
        _check(hashes >= 1, "hashes of at least 1", hashes)
        _check(0.0 < alpha <= 1.0, "alpha in (0, 1]", alpha)
        _check(0.0 < initial_gap < float("inf"), "a finite initial_gap above 0", initial_gap)
        _check(counting in ("occurrences", "batches"), "counting by `occurrences` or `batches`", counting)
        _check(id_dtype in (tf.int64, tf.string), "id_dtype tf.int64 or tf.string", id_dtype)
        self.buckets, self.hashes, self.alpha = buckets, hashes, alpha
        self.initial_gap, self.counting, self.seed, self.id_dtype = initial_gap, counting, seed, id_dtype
        self._seeds = _hash_seeds(seed, hashes)
        # Without these the tables cannot be read; alpha and initial_gap may change from day to day.
        self.fixed_settings = FixedSettings(
            buckets=buckets, hashes=hashes, counting=counting, seed=seed, id_dtype=id_dtype.name
        )
        self.step = self._state("step", (), tf.int64, 0)
        self.last_hit = self._state("last_hit", (hashes * buckets,), tf.int64, 0)
        self.mean_gap = self._state("mean_gap", (hashes * buckets,), tf.float32, initial_gap)
        self.hits = self._state("hits", (hashes * buckets,), tf.int64, 0)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Counts a batch as the next step, then reads the estimates for it.

        Args:
            ids: [batch] item ids, a replica's share of the global batch.

        Returns:
            [batch] float32, the expected count of each id in a global batch (or its probability of a hit).
        """
        self.update(ids)
        return self.estimate(ids)

    def update(self, ids: tf.Tensor) -> None:
        """Counts a batch as the next step.

        Args:
            ids: [batch] item ids, a replica's share of the global batch.
        """
        rows = tf.reshape(self._rows(replicas.gather(ids)), [-1])
        step = tf.raw_ops.ReadVariableOp(resource=self.step.handle, dtype=tf.int64) + 1
        hits, last_hit, mean_gap = (_gather(table, rows) for table in (self.hits, self.last_hit, self.mean_gap))
        if self.counting == "occurrences":
            # Rows that are hit several times are added up by the table itself.
            tf.raw_ops.ResourceScatterAdd(resource=self.hits.handle, indices=rows, updates=tf.ones_like(hits))
        else:
            _scatter(self.hits, rows, hits + 1)
        hits_now = _gather(self.hits, rows)
        count = tf.cast(hits_now - hits, tf.float32)
        age = tf.cast(step - last_hit, tf.float32)  # of the stream, where there was no hit yet
        gap = tf.where(hits == 0, tf.minimum(age, self.initial_gap), age)
        rate = tf.maximum(1.0 - tf.pow(1.0 - self.alpha, count), count / tf.cast(hits_now, tf.float32))
        # A row that is hit several times is written several times, with the same values.
        _scatter(self.mean_gap, rows, mean_gap + rate * (gap / count - mean_gap))
        _scatter(self.last_hit, rows, tf.fill(tf.shape(rows), step))
        tf.raw_ops.AssignVariableOp(resource=self.step.handle, value=step)

    def estimate(self, ids: tf.Tensor) -> tf.Tensor:
        """Reads the estimates without counting anything.

        Args:
            ids: item ids of any shape [...].

        Returns:
            [...] float32, the expected count of each id in a global batch (or its probability of a hit).
        """
        return 1.0 / tf.reduce_max(_gather(self.mean_gap, self._rows(ids)), axis=0)

    def _state(self, name: str, shape: tuple[int, ...], dtype: tf.DType, start: float) -> tf.Variable:
        return self.add_weight(
            name,
            shape=shape,
            dtype=dtype,
            initializer=tf_keras.initializers.Constant(start),
            trainable=False,
            # Each replica writes a copy of its own with the same values.
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _rows(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids [...] to int64 rows [hashes, ...] of the tables, which lie one behind the other."""
        tables = np.arange(self.hashes, dtype=np.int64) * self.buckets
        shape = [self.hashes] + [1] * len(ids.shape)
        keys = self._keys(ids)[tf.newaxis]
        mixed = _mix(keys + tf.reshape(tf.constant(self._seeds), shape))
        # One bit less, so that it fits a signed integer: unsigned ones have no modulo everywhere.
        positive = tf.cast(tf.bitwise.right_shift(mixed, np.uint64(1)), tf.int64)
        return positive % self.buckets + tf.reshape(tf.constant(tables), shape)

    def _keys(self, ids: tf.Tensor) -> tf.Tensor:
        """Ids to uint64, injectively for integers."""
        if ids.dtype == tf.int32 and self.id_dtype == tf.int64:
            ids = tf.cast(ids, tf.int64)
        if ids.dtype != self.id_dtype:
            raise TypeError(
                f"expected ids of dtype {self.id_dtype.name}, received {ids.dtype.name}: the same item would fall into "
                "other buckets. Make the estimator with that id_dtype, or convert the ids."
            )
        if ids.dtype == tf.string:
            ids = tf.strings.to_hash_bucket_fast(ids, 2**63 - 1)
        return tf.bitcast(ids, tf.uint64)


class FixedSettings(tf.train.experimental.PythonState):
    """Settings that a checkpoint keeps, and that whoever restores it must have too."""

    def __init__(self, **settings: int | str) -> None:
        super().__init__()
        self._settings = settings

    def serialize(self) -> str:
        """Called by TensorFlow when it saves."""
        return json.dumps(self._settings)

    def deserialize(self, text: str) -> None:
        """Called by TensorFlow when it restores.

        Raises:
            ValueError: the checkpoint's settings are others.
        """
        kept = json.loads(text)
        differing = [
            f"{name} {value!r} (the checkpoint has {kept.get(name)!r})"
            for name, value in self._settings.items()
            if value != kept.get(name)
        ]
        if differing:
            raise ValueError(
                "expected the frequency estimator's settings to be those of the checkpoint, received "
                f"{', '.join(differing)}. Restore with the checkpoint's settings, or start without the checkpoint."
            )


def _mix(keys: tf.Tensor) -> tf.Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of a key reaches every bit of the result."""
    for shift, factor in zip((30, 27), _MIX, strict=True):
        keys = tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, np.uint64(shift))) * factor
    return tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, np.uint64(31)))


def _hash_seeds(seed: int, hashes: int) -> NDArray[np.uint64]:
    """An independent offset for each hash, however close the seeds of two estimators are."""
    return np.random.SeedSequence(seed).generate_state(hashes, np.uint64).astype(np.uint64)


def _gather(table: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.ResourceGather(resource=table.handle, indices=rows, dtype=table.dtype)


def _scatter(table: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    tf.raw_ops.ResourceScatterUpdate(resource=table.handle, indices=rows, updates=values)


def _check(is_met: bool, expected: str, received: object) -> None:
    if not is_met:
        raise ValueError(f"expected {expected}, received {received!r}")
