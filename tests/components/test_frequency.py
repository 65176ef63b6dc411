"""The frequency estimator: worked examples, known streams, what a checkpoint keeps, replicas and XLA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.trainer.frequency import FrequencyEstimator

ROOMY = 1 << 16  # enough buckets that a handful of ids do not collide


def int_ids(*ids: int) -> tf.Tensor:
    return tf.constant(ids, tf.int64)


def in_a_graph(estimator: FrequencyEstimator, dtype: tf.DType = tf.int64) -> Callable[[tf.Tensor], None]:
    """Its `update`, for hundreds of batches: one operation after the other takes many times as long."""
    update: Callable[[tf.Tensor], None] = tf.function(estimator.update, input_signature=[tf.TensorSpec([None], dtype)])
    return update


def test_gaps_of_one_item_worked_out_by_hand() -> None:
    estimator = FrequencyEstimator(ROOMY, alpha=0.5, initial_gap=100.0)
    seen = []
    for batch in ([7], [8], [8], [7], [8], [7]):
        estimator.update(int_ids(*batch))
        seen.append(1.0 / float(estimator.estimate(int_ids(7))[0]))
    # Step 1: first hit of a stream that is 1 step old, gap 1. Step 4, second hit: gap 3, rate max(.5, 1/2): 1 + .5 (3 - 1) = 2.
    # Step 6, third hit: gap 2, rate max(.5, 1/3): 2 + .5 (2 - 2) = 2. Between hits the open gap counts as one more, at the rate of
    # the last hit: 1 + 1 * 1 and 1 + 1 * 2, then 2 + .5 * 1.
    assert seen == pytest.approx([1.0, 2.0, 3.0, 2.0, 2.5, 2.0])


def test_the_first_gap_is_no_longer_than_initial_gap() -> None:
    estimator = FrequencyEstimator(ROOMY, initial_gap=5.0)
    estimator.step.assign(10_000_000)
    # An item that is first seen at step 10,000,001 is not one that occurs once in ten million steps.
    assert estimator(int_ids(7)).numpy() == pytest.approx([1 / 5])
    # What was never seen is no more frequent than once in the stream's age, and in a young stream once in initial_gap.
    assert estimator.estimate(int_ids(8)).numpy() == pytest.approx([1 / 10_000_001])
    assert FrequencyEstimator(ROOMY, initial_gap=5.0).estimate(int_ids(8)).numpy() == pytest.approx([1 / 5])


def test_unused_objects_are_released() -> None:
    estimator = FrequencyEstimator(ROOMY, alpha=0.01)
    update = in_a_graph(estimator)
    for _ in range(200):
        update(int_ids(7, 7))
    # Two in each batch, then none for 1,000 steps: 1 + .01 * 1000 is less than a third of them.
    estimator.step.assign_add(1000)
    assert estimator.estimate(int_ids(7)).numpy() == pytest.approx([2 / (1000 / 3)], rel=1e-4)
    # A gap of two steps happens: 1 + .01 * 2.
    estimator.step.assign_sub(998)
    assert estimator.estimate(int_ids(7)).numpy() == pytest.approx([2 / 1.02], rel=1e-4)


def test_live_items_keep_their_frequency_whenever_it_is_read() -> None:
    # An item in one batch of 10, at random; read at all steps, as draws from the catalogue are.
    estimator, random = FrequencyEstimator(ROOMY, alpha=0.01), np.random.default_rng(0)

    @tf.function
    def after(batches: tf.Tensor) -> tf.Tensor:
        def step(_: tf.Tensor, batch: tf.Tensor) -> tf.Tensor:
            estimator.update(batch)
            return estimator.estimate(int_ids(5))[0]

        return tf.scan(step, batches, tf.constant(0.0))

    batches = np.where(random.random(4000) < 0.1, 5, 1)[:, np.newaxis]
    read = after(tf.constant(batches, tf.int64)).numpy()[1000:]
    # 300 hits to read by, some 200 of which are remembered at once: a standard deviation of 6 %; the ageing takes 2 %.
    assert read.mean() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("behind", [1, 100])
def test_a_worker_that_comes_behind_a_later_hit_leaves_a_finite_estimate(behind: int) -> None:
    """Regression: of parameter servers' workers one counted at an earlier step than another's hit, and got an infinite estimate."""
    estimator = FrequencyEstimator(ROOMY)
    estimator.update(int_ids(7))
    estimator.step.assign_sub(behind)
    estimate = estimator(int_ids(7, 8)).numpy()
    assert np.all(np.isfinite(estimate)) and np.all(estimate > 0.0)


def test_the_means_move_by_one_over_n_until_alpha_is_larger() -> None:
    estimator = FrequencyEstimator(ROOMY, alpha=0.25, initial_gap=100.0)
    gaps, step = [1, 3, 8, 4, 9], 0
    for gap in gaps:
        for _ in range(gap - 1):
            estimator.update(int_ids(0))
        estimator.update(int_ids(7))
        step += gap
    # The plain mean of the first four is 4, at rates 1, 1/2, 1/3, 1/4; then 4 + .25 (9 - 4) = 5.25.
    assert 1.0 / estimator.estimate(int_ids(7)).numpy()[0] == pytest.approx(5.25)


def test_an_item_that_occurs_several_times_a_batch_has_its_expected_count() -> None:
    estimator = FrequencyEstimator(ROOMY)
    update = in_a_graph(estimator)
    for _ in range(1000):
        update(int_ids(7, 7, 7, 8))
    assert estimator.estimate(int_ids(7, 8)).numpy() == pytest.approx([3.0, 1.0], rel=1e-5)


def test_the_count_is_the_mean_of_the_batches_that_have_the_item() -> None:
    estimator = FrequencyEstimator(ROOMY, alpha=0.001)
    update = in_a_graph(estimator)
    for step in range(1, 601):
        update(int_ids(0, *([7] * (4 if step % 4 == 0 else 2 if step % 2 == 0 else 0))))
    # Every second batch has it, 4 and 2 times in turn: 3 a batch with a hit, a gap of 2.
    assert estimator.estimate(int_ids(7)).numpy() == pytest.approx([1.5], rel=1e-3)


def test_counting_batches_saturates_at_one() -> None:
    estimator = FrequencyEstimator(ROOMY, counting="batches")
    update = in_a_graph(estimator)
    for _ in range(1000):
        update(int_ids(7, 7, 7, 8))
    assert estimator.estimate(int_ids(7, 8)).numpy() == pytest.approx([1.0, 1.0], rel=1e-5)


def test_periodic_items_have_their_period() -> None:
    estimator = FrequencyEstimator(ROOMY, hashes=2)
    update = in_a_graph(estimator)
    for step in range(1, 2001):
        update(int_ids(0, *([5] if step % 5 == 0 else []), *([10] if step % 10 == 0 else [])))
    assert estimator.estimate(int_ids(5, 10)).numpy() == pytest.approx([1 / 5, 1 / 10], rel=1e-4)


def test_of_several_hashes_the_one_without_collision_counts() -> None:
    # With one table of one bucket the ids share a gap of 1; tables of 2 buckets tell some pairs apart, 8 of them nearly all.
    ids = [int_ids(number) for number in range(8)]
    estimates = {}
    for hashes in (1, 8):
        estimator = FrequencyEstimator(buckets=4, hashes=hashes, alpha=0.01)
        update = in_a_graph(estimator)
        for step in range(1000):
            update(ids[step % 8])
        estimates[hashes] = estimator.estimate(tf.range(8, dtype=tf.int64)).numpy()
    assert np.all(estimates[8] <= estimates[1] + 1e-6)
    assert estimates[8].mean() < estimates[1].mean()
    # A collision can only add hits; of 8 items in turn, the last hit of one is up to 7 steps ago, which count at a rate of .01.
    assert np.all(estimates[8] >= 1 / 8.07 - 1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=20),
    st.sampled_from([0.01, 0.3, 1.0]),
    st.integers(1, 3),
    st.sampled_from(["occurrences", "batches"]),
)
def test_every_stream_equals_a_plain_loop(batches: list[list[int]], alpha: float, hashes: int, counting: Any) -> None:
    estimator = FrequencyEstimator(3, hashes, alpha, initial_gap=7.0, counting=counting, seed=3)
    gap, count = np.full(3 * hashes, 7.0), np.ones(3 * hashes)
    last, hits = np.zeros(3 * hashes), np.zeros(3 * hashes)
    rows = estimator._rows(tf.range(6, dtype=tf.int64)).numpy()
    step = 0
    for step, batch in enumerate(batches, 1):
        occurring = np.bincount(rows[:, batch].ravel(), minlength=3 * hashes)
        for row in np.flatnonzero(occurring):
            newest = min(step, 7.0) if hits[row] == 0 else step - last[row]
            hits[row] += 1
            rate = max(alpha, 1 / hits[row])
            gap[row] += rate * (newest - gap[row])
            count[row] += rate * (occurring[row] - count[row])
            last[row] = step
        estimator.update(int_ids(*batch))
    open_gap = step - last
    aged = np.maximum(gap + np.maximum(alpha, 1 / np.maximum(hits, 1)) * open_gap, open_gap / 3)
    gap = np.where(hits == 0, np.maximum(7.0, step), aged)
    expected = ((count if counting == "occurrences" else 1.0) / gap)[rows].min(axis=0)
    assert estimator.estimate(tf.range(6, dtype=tf.int64)).numpy() == pytest.approx(expected, rel=1e-4)


def test_hashes_are_well_mixed_and_independent() -> None:
    buckets, ids = 1000, 200_000
    estimator = FrequencyEstimator(buckets, hashes=2)
    # Multiples of the number of buckets, which `id % buckets` would send to one bucket.
    rows = estimator._rows(tf.range(ids, dtype=tf.int64) * buckets).numpy() - np.array([[0], [buckets]])
    for row in rows:
        load = np.bincount(row, minlength=buckets)
        # 200 expected, standard deviation 14: chi-square of 999 degrees is 999 +- 45.
        assert ((load - 200) ** 2 / 200).sum() == pytest.approx(999, abs=5 * 45)
    # Two ids that share a bucket under one hash share one under the other no more often than any two.
    same_first = rows[0][:-1] == rows[0][1:]
    assert (rows[1][:-1] == rows[1][1:])[same_first].sum() < 6  # 0.2 expected


def test_strings_are_ids_too() -> None:
    estimator = FrequencyEstimator(ROOMY, id_dtype=tf.string)
    update = in_a_graph(estimator, tf.string)
    for _ in range(500):
        update(tf.constant(["ant", "ant", "bee"]))
    assert estimator.estimate(tf.constant(["ant", "bee"])).numpy() == pytest.approx([2.0, 1.0], rel=1e-4)


def test_int32_ids_are_those_of_int64() -> None:
    estimator = FrequencyEstimator(ROOMY)
    estimator.update(int_ids(7, 7))
    assert estimator.estimate(tf.constant([7], tf.int32)).numpy() == estimator.estimate(int_ids(7)).numpy()


@pytest.mark.parametrize("ids", [tf.constant(["ant"]), tf.constant([1.0])])
def test_ids_of_another_dtype_are_refused(ids: tf.Tensor) -> None:
    with pytest.raises(TypeError, match="expected ids of dtype int64, received"):
        FrequencyEstimator(ROOMY).update(ids)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"buckets": 0}, "buckets of at least 1, received 0"),
        ({"hashes": 0}, "hashes of at least 1, received 0"),
        ({"alpha": 0.0}, r"alpha in \(0, 1\], received 0.0"),
        ({"alpha": 1.5}, r"alpha in \(0, 1\], received 1.5"),
        ({"alpha": float("nan")}, "received nan"),
        ({"initial_gap": 0.0}, "initial_gap above 0"),
        ({"counting": "hits"}, "received 'hits'"),
        ({"id_dtype": tf.float32}, "id_dtype tf.int64 or tf.string"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        FrequencyEstimator(**{"buckets": 8, **arguments})


def stream(steps: int, seed: int = 0) -> list[tf.Tensor]:
    random = np.random.default_rng(seed)
    return [tf.constant(random.zipf(1.3, 32) % 50, tf.int64) for _ in range(steps)]


def test_a_checkpoint_carries_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    batches = stream(60)
    through, first, second = (FrequencyEstimator(64, 3, seed=1) for _ in range(3))
    for batch in batches[:30]:
        through.update(batch)
        first.update(batch)
    path = tf.train.Checkpoint(estimator=first).write(str(tmp_path / "day1"))
    tf.train.Checkpoint(estimator=second).read(path).assert_consumed()
    for batch in batches[30:]:
        through.update(batch)
        second.update(batch)
    assert int(second.step) == 60
    everything = tf.range(50, dtype=tf.int64)
    assert second.estimate(everything).numpy().tolist() == through.estimate(everything).numpy().tolist()


def after_batches(rows: int, batches: int, earlier: str | None, folder: Path) -> tuple[NDArray[np.float64], str]:
    """Estimates over expected counts of items with shares of 1/rank, after some more batches; and a checkpoint of it."""
    weights = 1.0 / np.arange(1, 2001)
    shares = weights / weights.sum()
    estimator = FrequencyEstimator(ROOMY, hashes=2)  # as some of 2,000 collide even here
    checkpoint = tf.train.Checkpoint(frequency=estimator)
    if earlier:
        checkpoint.read(earlier).assert_consumed()
    estimator.count_batches_of(rows)

    @tf.function
    def count(ids: tf.Tensor) -> None:
        for batch in ids:
            estimator.update(batch)

    count(tf.constant(np.random.default_rng(batches).choice(2000, (batches, rows), p=shares)))
    found = estimator.estimate(tf.range(2000, dtype=tf.int64)).numpy() / (shares * rows)
    return found, checkpoint.write(str(folder / f"of_{rows}_{batches}"))


@pytest.mark.parametrize(("before", "after"), [(512, 4096), (3000, 1000)])
def test_estimates_carry_over_to_another_batch_size(tmp_path: Path, before: int, after: int) -> None:
    _, earlier = after_batches(before, 400, None, tmp_path)
    for batches in (0, 50):
        ratios, _ = after_batches(after, batches, earlier, tmp_path)
        # Chance: the first ten have thousands of hits, ranks 100 to 500 some tens each, together thousands.
        assert ratios[:10].mean() == pytest.approx(1.0, abs=0.05)
        assert ratios[100:500].mean() == pytest.approx(1.0, abs=0.05)


def test_a_changed_batch_size_worked_out_by_hand(tmp_path: Path) -> None:
    estimator = FrequencyEstimator(ROOMY, alpha=0.01)
    estimator.count_batches_of(8)
    for step in range(12):  # 7 three times in each batch, 8 once in every fourth: gaps of 1 and 4, counts of 3 and 1
        estimator.update(int_ids(7, 7, 7, 8 if step % 4 == 3 else 9))
    path = tf.train.Checkpoint(frequency=estimator).write(str(tmp_path / "of_8"))

    def changed(rows: int) -> tuple[list[Any], int]:
        """Gap, count, and steps since the last hit of 7 and of 8; and the step."""
        other = FrequencyEstimator(ROOMY, alpha=0.01)
        tf.train.Checkpoint(frequency=other).read(path).assert_consumed()
        other.count_batches_of(rows)
        at = [int(other._rows(int_ids(item))[0, 0]) for item in (7, 8)]
        step = int(other.step)
        return [[*other.means.numpy()[row], step - other.marks.numpy()[row, 0]] for row in at], step

    # As many rows: nothing is changed.
    assert changed(8) == ([[1, 3, 0], [4, 1, 0]], 12)
    # Twice as many: 7 is in each batch six times. 8 is in every second batch.
    assert changed(16) == ([[1, 6, 0], [2, 1, 0]], 6)
    # A quarter: .75 of 7 a batch, of which one is there in every 1 / .75 batches. 8 is in every sixteenth.
    assert changed(2) == ([pytest.approx([1 / 0.75, 1, 0]), pytest.approx([16, 1, 0])], 48)


def test_a_checkpoint_that_does_not_say_its_batch_size_is_taken_as_it_is(tmp_path: Path) -> None:
    estimator = FrequencyEstimator(ROOMY)
    estimator.update(int_ids(7, 7))
    path = tf.train.Checkpoint(frequency=estimator).write(str(tmp_path / "of_an_earlier_release"))
    other = FrequencyEstimator(ROOMY)
    tf.train.Checkpoint(frequency=other).read(path).assert_consumed()
    other.count_batches_of(16)
    assert other.estimate(int_ids(7)).numpy() == pytest.approx([2.0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"buckets": 32}, r"buckets 32 \(the checkpoint has 64\)"),
        ({"hashes": 2}, r"hashes 2 \(the checkpoint has 3\)"),
        ({"buckets": 96, "hashes": 2}, r"buckets 96 .*hashes 2"),  # as many rows, but others
        ({"seed": 2}, r"seed 2 \(the checkpoint has 1\)"),
        ({"id_dtype": tf.string}, "id_dtype 'string'"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    kept: dict[str, Any] = {"buckets": 64, "hashes": 3, "seed": 1}
    path = tf.train.Checkpoint(estimator=FrequencyEstimator(**kept)).write(str(tmp_path / "kept"))
    with pytest.raises(ValueError, match=sentence):
        tf.train.Checkpoint(estimator=FrequencyEstimator(**{**kept, **arguments})).read(path)


def test_xla_gives_the_same_numbers() -> None:
    plain, compiled = FrequencyEstimator(64, 3), FrequencyEstimator(64, 3)
    step = tf.function(compiled.call, jit_compile=True)
    for batch in stream(40):
        expected, found = plain(batch), step(batch)
        assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-5)
