"""How often an item occurs in a batch, estimated from the stream of batches itself (paper, section 4)."""

import json
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from components.trainer import replicas

Counting = Literal["occurrences", "batches"]

IMPROBABLE = 3.0
"""Mean gaps: an open gap is longer by chance in one case of twenty, so that a third of it lowers what is live by a hundredth."""

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class FrequencyEstimator(tf_keras.layers.Layer):
    """Algorithms 2 and 3: a moving average, for every hash bucket, of the number of steps between its hits.

    The state is `hashes` tables of `buckets` rows. At each step every bucket that the batch hits moves two means: of the gap since
    its last hit, in steps, and of the number of hits that came at once. The estimate for an item is count / gap, the least of all
    hashes, since a collision can only add hits.

    Where the paper's algorithms, taken to the letter, go wrong, this does otherwise:

    - *An item that occurs several times in a batch.* 1 / gap is the probability that a batch has it, which saturates at 1
      (`counting="batches"` reads that, to compare). The softmax with several equal columns needs the expected count, which is
      count / gap: the mean count of the batches that have the item, times how often there is one.
    - *A bucket that was never hit* has no last step. Its first gap is `initial_gap`, not the age of the stream, unless the stream
      is younger than that.
    - *A rate of alpha alone* leaves a rare item at its start value for 1 / alpha hits. Here the n-th batch with a hit moves the
      means by max(alpha, 1/n): plain means until there are 1 / alpha of them.

    - *An item whose last hit is long ago*, which a draw from the catalogue may read, has its open gap counted as one more; where
      that is longer than `IMPROBABLE` mean gaps, a share of it is the gap, so that the estimate of an item that is gone falls. What
      was never hit is no more frequent than once in the stream's age.

    A batch is counted before it is read. A rare item's newest gap is then part of its estimate at the one step where that is used;
    and the gap that a hit ends is as long as any other, so reading behind it adds no bias.

    Every replica must be given the same number of ids. The ids of all replicas are gathered and each replica updates its own copy
    of the state with all of them, so the copies stay equal and the estimates are of the global batch, at the global step. Workers
    of parameter servers share one state and count one after the other: a batch of any worker is a step.

    Args:
        buckets: H, rows of each table.
        hashes: m, how many tables.
        alpha: the slowest rate at which a mean moves, in (0, 1].
        initial_gap: steps; the estimate for what was never seen is 1 / initial_gap in a stream that is younger than that.
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
        # Without these the tables cannot be read; the other settings may change from day to day.
        self.fixed_settings = FixedSettings(buckets=buckets, hashes=hashes, seed=seed, id_dtype=id_dtype.name)
        self.step = self._state("step", (), tf.int64, 0)
        with tf.distribute.get_strategy().extended.colocate_vars_with(self.step):  # as one lock is on one server
            # A row's numbers lie side by side, so that it is fetched once.
            self.marks = self._state(
                "marks", (hashes * buckets, 3), tf.int64, 0
            )  # last step hit, batches with a hit, hits
            self.means = self._state("means", (hashes * buckets, 2), tf.float32, (initial_gap, 1.0))  # gap, count
        self._in_turn = replicas.Turns(self.step)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        """Counts a batch as the next step, then reads the estimates for it.

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
        """Counts a batch as the next step.

        Args:
            ids: [batch] item ids, a replica's share of the global batch.
        """
        rows = self._rows(replicas.gather(ids))
        self._in_turn.run(lambda: self._count(rows))

    def count_batches_of(self, rows: int) -> None:
        """Says how many rows a global batch has from now on, before the first is counted and behind a restored checkpoint.

        What was learnt of batches of another size is changed to what these would have taught: steps are as many times shorter as
        batches are larger, and the expected counts as many times larger. A gap that is a step already cannot be shorter, nor the
        count of a batch with a hit be less than one; the other of the two means then takes what is left.

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
        """Reads the estimates without counting anything.

        Args:
            ids: item ids of any shape [...].

        Returns:
            [...] float32, the expected count of each id in a global batch (or its probability of a hit).
        """
        return self._read(self._rows(ids))

    def _count(self, rows: tf.Tensor) -> list[tf.Operation]:
        """Counts a batch's rows [hashes, batch] of the tables as the next step; returns what writes that."""
        rows = tf.reshape(rows, [-1])
        tf.raw_ops.AssignAddVariableOp(resource=self.step.handle, value=tf.constant(1, tf.int64))
        step = tf.raw_ops.ReadVariableOp(resource=self.step.handle, dtype=tf.int64)
        marks, means = _gather(self.marks, rows), _gather(self.means, rows)
        # Rows that are hit several times are added up by the table itself.
        one_hit = tf.broadcast_to(tf.constant([0, 0, 1], tf.int64), tf.shape(marks))
        tf.raw_ops.ResourceScatterAdd(resource=self.marks.handle, indices=rows, updates=one_hit)
        hits = _gather(self.marks, rows)[:, 2]
        count = tf.cast(hits - marks[:, 2], tf.float32)
        # Of the stream, where there was no hit yet. A server that came back without its last steps may be behind a hit.
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
        """The estimates of rows [hashes, ...] of the tables."""
        marks, means = _gather(self.marks, rows), _gather(self.means, rows)
        step = tf.raw_ops.ReadVariableOp(resource=self.step.handle, dtype=tf.int64)
        # The age of the stream where there was no hit. What is only read may be hit by another worker meanwhile.
        open_gap = tf.cast(tf.maximum(step - marks[..., 0], 0), tf.float32)
        aged = tf.maximum(means[..., 0] + self._rate(marks[..., 1]) * open_gap, open_gap / IMPROBABLE)
        gap = tf.where(marks[..., 1] == 0, tf.maximum(open_gap, self.initial_gap), aged)
        count = means[..., 1]
        return tf.reduce_min((count if self.counting == "occurrences" else 1.0) / gap, axis=0)

    def _rate(self, batches: tf.Tensor) -> tf.Tensor:
        """By how much the n-th batch with a hit moves the means."""
        return tf.maximum(self.alpha, 1.0 / tf.cast(tf.maximum(batches, 1), tf.float32))

    def _state(self, name: str, shape: tuple[int, ...], dtype: tf.DType, start: Any) -> tf.Variable:
        return self.add_weight(
            name,
            shape=shape,
            dtype=dtype,
            initializer=lambda shape, dtype: tf.broadcast_to(tf.constant(start, dtype), shape),
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
    """Settings that a checkpoint keeps, and that whoever restores it must have too; and what its numbers speak of.

    Attributes:
        batch_rows: of the batches that are counted; None before that is said.
        restored_batch_rows: of the batches that the restored checkpoint speaks of; None without one, or where it does not say.
    """

    def __init__(self, **settings: int | str) -> None:
        super().__init__()
        self._settings = settings
        self.batch_rows: int | None = None
        self.restored_batch_rows: int | None = None

    def serialize(self) -> str:
        """Called by TensorFlow when it saves."""
        return json.dumps({**self._settings, "batch_rows": self.batch_rows})

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
        self.restored_batch_rows = kept.get("batch_rows")


def _mix(keys: tf.Tensor) -> tf.Tensor:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): every bit of a key reaches every bit of the result."""
    for shift, factor in zip((30, 27), _MIX, strict=True):
        keys = tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, np.uint64(shift))) * factor
    return tf.bitwise.bitwise_xor(keys, tf.bitwise.right_shift(keys, np.uint64(31)))


def _hash_seeds(seed: int, hashes: int) -> NDArray[np.uint64]:
    """An independent offset for each hash, however close the seeds of two estimators are."""
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
