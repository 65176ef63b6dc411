"""Estimates how often an item occurs in a batch, from the stream of batches itself (paper, section 4)."""

import json
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from components.trainer import replicas

Counting = Literal["occurrences", "batches"]

IMPROBABLE = 3.0
"""In mean gaps: by chance, one open gap in twenty is longer; adding a third of it lowers a live estimate by one percent."""

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class FrequencyEstimator(tf_keras.layers.Layer):
    """Algorithms 2 and 3: a moving average, for every hash bucket, of the number of steps between its hits.

    The state is `hashes` tables of `buckets` rows. At each step every bucket that the batch hits updates two means: of the gap
    since its last hit, in steps, and of the number of simultaneous hits. The estimate for an item is count / gap, the least over
    all hashes, because a collision can only add hits.

    It deviates from the paper's algorithms where these go wrong:

    - *An item that occurs several times in a batch.* 1 / gap is the probability that a batch has the item, which saturates at 1
      (`counting="batches"` reads that, for comparison). The softmax with several equal columns needs the expected count, which is
      count / gap: the mean count in batches with the item, times how often there is one.
    - *A bucket that was never hit* has no last step. Its first gap is `initial_gap`, not the age of the stream, unless the stream
      is younger than that.
    - *A constant rate alpha* leaves a rare item at its start value for 1 / alpha hits. Here the n-th batch with a hit updates the
      means at the rate max(alpha, 1/n): plain means for the first 1 / alpha hits.

    - *An item whose last hit is long ago*, which a draw from the catalogue may read: its open gap counts as one more gap. If that
      is longer than `IMPROBABLE` mean gaps, it counts with a growing share, so that the estimate of a vanished item falls. An item
      that was never hit is no more frequent than once in the stream's age.

    Each batch updates the estimates before they are read. So a rare item's newest gap is part of its estimate at the only step that
    uses it; and the gap that a hit ends is as long as any other, so reading after it adds no bias.

    Every replica must get the same number of ids. The ids of all replicas are gathered, and each replica updates its own copy of
    the state with all of them, so the copies stay equal and the estimates are for the global batch, at the global step. Workers of
    parameter servers share one state and update it one after the other: a batch of any worker is a step.

    Args:
        buckets: H, the number of rows of each table.
        hashes: m, the number of tables.
        alpha: the lowest rate of the means, in (0, 1].
        initial_gap: in steps; the estimate for unseen items is 1 / initial_gap while the stream is younger than that.
        counting: `occurrences` for the expected count in a batch, `batches` for the probability of a hit.
        seed: of the hashes.
        id_dtype: tf.int64 or tf.string; int64 accepts int32 ids.

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
        # These define the meaning of the tables; the other settings may change from day to day.
        self.fixed_settings = FixedSettings(buckets=buckets, hashes=hashes, seed=seed, id_dtype=id_dtype.name)
        self.step = self._state("step", (), tf.int64, 0)
        with tf.distribute.get_strategy().extended.colocate_vars_with(self.step):  # because one lock is on one server
            # The numbers of a row are adjacent, so that one lookup reads them all.
            # Last step hit, batches with a hit, hits.
            self.marks = self._state("marks", (hashes * buckets, 3), tf.int64, 0)
            self.means = self._state("means", (hashes * buckets, 2), tf.float32, (initial_gap, 1.0))  # gap, count
        self._in_turn = replicas.Turns(self.step)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Update the estimates with a batch as the next step, then read those of its ids.

        Args:
            ids: [batch] item ids, a replica's share of the global batch.

        Returns:
            [batch] float32, the expected count of each id in a global batch (or its probability of a hit).
        """
        counted, read = self._rows(replicas.gather(ids)), self._rows(ids)

        def count_and_read() -> tf.Tensor:
            with tf.control_dependencies(self._count(counted)):
                return self._read(read)

        return self._in_turn.run(count_and_read)

    def update(self, ids: tf.Tensor) -> None:
        """Update the estimates with a batch as the next step.

        Args:
            ids: [batch] item ids, a replica's share of the global batch.
        """
        rows = self._rows(replicas.gather(ids))
        self._in_turn.run(lambda: self._count(rows))

    def count_batches_of(self, rows: int) -> None:
        """Set the rows of a global batch from now on; call before the first batch and after restoring a checkpoint.

        Converts what was learnt from batches of another size: steps become as many times shorter, and expected counts as many times
        larger, as batches are larger. A gap cannot become shorter than a step, nor a count less than one; then the other
        mean takes the rest of the factor.

        Args:
            rows: of all replicas together.
        """
        before, self.fixed_settings.batch_rows = self.fixed_settings.restored_batch_rows, rows
        if before is None or before == rows:
            return
        larger = rows / before
        gap, count = tf.unstack(tf.convert_to_tensor(self.means), axis=1)
        expected = count / gap * larger
        new_gap = tf.maximum(gap / larger, 1.0) if larger > 1.0 else tf.maximum(count * larger, 1.0) / expected
        marks = tf.convert_to_tensor(self.marks)
        self.means.assign(tf.stack([new_gap, expected * new_gap], axis=1))
        self.marks.assign(tf.concat([_scaled(marks[:, :1], 1.0 / larger), marks[:, 1:]], axis=1))
        self.step.assign(_scaled(tf.convert_to_tensor(self.step), 1.0 / larger))

    def estimate(self, ids: tf.Tensor) -> tf.Tensor:
        """Read the estimates without an update.

        Args:
            ids: item ids of any shape [...].

        Returns:
            [...] float32, the expected count of each id in a global batch (or its probability of a hit).
        """
        return self._read(self._rows(ids))

    def _count(self, rows: tf.Tensor) -> list[tf.Operation]:
        """Count a batch's table rows [hashes, batch] as the next step; return the writing operations."""
        rows = tf.reshape(rows, [-1])
        tf.raw_ops.AssignAddVariableOp(resource=self.step.handle, value=tf.constant(1, tf.int64))
        step = tf.raw_ops.ReadVariableOp(resource=self.step.handle, dtype=tf.int64)
        marks, means = _gather(self.marks, rows), _gather(self.means, rows)
        # The table itself adds up rows that are hit several times.
        one_hit = tf.broadcast_to(tf.constant([0, 0, 1], tf.int64), tf.shape(marks))
        tf.raw_ops.ResourceScatterAdd(resource=self.marks.handle, indices=rows, updates=one_hit)
        hits = _gather(self.marks, rows)[:, 2]
        count = tf.cast(hits - marks[:, 2], tf.float32)
        # The age of the stream, if there was no hit yet. A restored server may be at a step before the last hit.
        age = tf.cast(tf.maximum(step - marks[:, 0], 1), tf.float32)
        gap = tf.where(marks[:, 1] == 0, tf.minimum(age, self.initial_gap), age)
        batches = marks[:, 1] + 1
        rate = self._rate(batches)[:, tf.newaxis]
        # A row that is hit several times is written several times, with the same values.
        return [
            _scatter(self.means, rows, means + rate * (tf.stack([gap, count], axis=1) - means)),
            _scatter(self.marks, rows, tf.stack([tf.fill(tf.shape(rows), step), batches, hits], axis=1)),
        ]

    def _read(self, rows: tf.Tensor) -> tf.Tensor:
        """Read the estimates of table rows [hashes, ...]."""
        marks, means = _gather(self.marks, rows), _gather(self.means, rows)
        step = tf.raw_ops.ReadVariableOp(resource=self.step.handle, dtype=tf.int64)
        # The age of the stream, if there was no hit. Another worker may hit the row meanwhile.
        open_gap = tf.cast(tf.maximum(step - marks[..., 0], 0), tf.float32)
        aged = tf.maximum(means[..., 0] + self._rate(marks[..., 1]) * open_gap, open_gap / IMPROBABLE)
        gap = tf.where(marks[..., 1] == 0, tf.maximum(open_gap, self.initial_gap), aged)
        count = means[..., 1]
        return tf.reduce_min((count if self.counting == "occurrences" else 1.0) / gap, axis=0)

    def _rate(self, batches: tf.Tensor) -> tf.Tensor:
        """Return the rate at which the n-th batch with a hit updates the means."""
        return tf.maximum(self.alpha, 1.0 / tf.cast(tf.maximum(batches, 1), tf.float32))

    def _state(self, name: str, shape: tuple[int, ...], dtype: tf.DType, start: Any) -> tf.Variable:
        return self.add_weight(
            name,
            shape=shape,
            dtype=dtype,
            initializer=lambda shape, dtype: tf.broadcast_to(tf.constant(start, dtype), shape),
            trainable=False,
            # Each replica writes its own copy with the same values.
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _rows(self, ids: tf.Tensor) -> tf.Tensor:
        """Map ids [...] to int64 rows [hashes, ...] of the concatenated tables."""
        tables = np.arange(self.hashes, dtype=np.int64) * self.buckets
        shape = [self.hashes] + [1] * len(ids.shape)
        keys = self._keys(ids)[tf.newaxis]
        mixed = _mix(keys + tf.reshape(tf.constant(self._seeds), shape))
        # One bit fewer, to fit a signed integer: unsigned ones lack a modulo on some devices.
        positive = tf.cast(tf.bitwise.right_shift(mixed, np.uint64(1)), tf.int64)
        return positive % self.buckets + tf.reshape(tf.constant(tables), shape)

    def _keys(self, ids: tf.Tensor) -> tf.Tensor:
        """Map ids to uint64, injectively for integers."""
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
    """Settings stored in a checkpoint, which must be the same when it is restored; and the batch size of its numbers.

    Attributes:
        batch_rows: rows of the counted batches; None until set.
        restored_batch_rows: rows of the restored checkpoint's batches; None without one, or if it does not say.
    """

    def __init__(self, **settings: int | str) -> None:
        super().__init__()
        self._settings = settings
        self.batch_rows: int | None = None
        self.restored_batch_rows: int | None = None

    def serialize(self) -> str:
        """Override of TensorFlow's method, for saving."""
        return json.dumps({**self._settings, "batch_rows": self.batch_rows})

    def deserialize(self, text: str) -> None:
        """Override of TensorFlow's method, for restoring.

        Raises:
            ValueError: the checkpoint has other settings.
        """
        saved = json.loads(text)
        differing = [
            f"{name} {value!r} (the checkpoint has {saved.get(name)!r})"
            for name, value in self._settings.items()
            if value != saved.get(name)
        ]
        if differing:
            raise ValueError(
                "expected the frequency estimator's settings to be those of the checkpoint, received "
                f"{', '.join(differing)}. Restore with the checkpoint's settings, or start without the checkpoint."
            )
        self.restored_batch_rows = saved.get("batch_rows")


def _mix(keys: tf.Tensor) -> tf.Tensor:
    """Apply the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): each bit of a key affects each bit of the result."""
    for shift, factor in zip((30, 27), _MIX, strict=True):
        keys = tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, np.uint64(shift))) * factor
    return tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, np.uint64(31)))


def _hash_seeds(seed: int, hashes: int) -> NDArray[np.uint64]:
    """Return an independent offset for each hash, however close the seeds of two estimators are."""
    return np.random.SeedSequence(seed).generate_state(hashes, np.uint64).astype(np.uint64)


def _scaled(steps: tf.Tensor, factor: float) -> tf.Tensor:
    return tf.cast(tf.round(tf.cast(steps, tf.float64) * factor), tf.int64)


def _gather(table: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.ResourceGather(resource=table.handle, indices=rows, dtype=table.dtype)


def _scatter(table: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> tf.Operation:
    return tf.raw_ops.ResourceScatterUpdate(resource=table.handle, indices=rows, updates=values)


def _check(is_met: bool, expected: str, received: object) -> None:
    if not is_met:
        raise ValueError(f"expected {expected}, received {received!r}")
