"""The retrieval loss: worked examples of every form, its gradients against the definition, and what must not break it."""

from collections.abc import Callable
from math import exp, log
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.trainer.blocked_softmax import Candidates, cross_entropy
from components.trainer.loss import InBatchSoftmax, Items, Top

TEMPERATURE = 0.5
# exp(<u_i, v_j> / temperature) of the worked examples; the positives are on the diagonal.
ODDS = np.array([[4.0, 1.0, 1.0], [2.0, 6.0, 2.0], [1.0, 3.0, 2.0]])
COUNTS = [2.0, 1.0, 0.5]
REWARDS = [1.0, 0.5, 0.0]
# Of a column drawn uniformly from a catalogue of 4.
UNIFORM_ODDS, UNIFORM_COUNT = np.array([[1.0], [2.0], [1.0]]), [0.25]


def embeddings(odds: NDArray[np.float64]) -> tuple[tf.Tensor, tf.Tensor]:
    """Queries that are unit vectors, and candidates whose inner products with them are temperature * log(odds)."""
    return tf.eye(len(odds)), tf.constant(TEMPERATURE * np.log(odds.T), tf.float32)


def loss_of(correction: Any, ids: tuple[int, ...] = (7, 8, 9), rewards: Any = REWARDS, **more: Any) -> float:
    queries, items = embeddings(ODDS)
    layer = InBatchSoftmax(correction, TEMPERATURE, block_rows=2)
    return float(
        layer(queries, Items(items, tf.constant(ids, tf.int64), tf.constant(COUNTS)), tf.constant(rewards), **more)
    )


def test_plain_softmax() -> None:
    # Rows: 4 of 6, 6 of 10, 2 of 6; the third row has no reward.
    assert loss_of("none") == pytest.approx((log(6 / 4) + 0.5 * log(10 / 6)) / 3, rel=1e-5)


def test_corrected_softmax() -> None:
    # Odds over counts: [2, 1, 2] gives 2 of 5; [1, 6, 4] gives 6 of 11; [.5, 3, 4] gives 4 of 7.5.
    assert loss_of("logq") == pytest.approx((log(5 / 2) + 0.5 * log(11 / 6)) / 3, rel=1e-5)
    assert loss_of("logq", rewards=[0.0, 0.0, 1.0]) == pytest.approx(log(7.5 / 4) / 3, rel=1e-5)


def test_corrected_softmax_with_the_positive_left_out() -> None:
    # Q is counts / 3: [2/3, 1/3, 1/6]. Z = (1 - Q_p) / 2 * sum of odds / Q over the other two columns:
    # row 0: 1/6 (3 + 6) = 1.5, P = 4 / 5.5; row 1: 1/3 (3 + 12) = 5, P = 6 / 11; row 2: 5/12 (1.5 + 9) = 4.375, P = 2 / 6.375.
    rows = [(1.5 / 5.5) * log(1.5 / 4), (5 / 11) * log(5 / 6), (4.375 / 6.375) * log(4.375 / 2)]
    assert loss_of("logq_positive_left_out") == pytest.approx((rows[0] + 0.5 * rows[1]) / 3, rel=1e-5)
    assert loss_of("logq_positive_left_out", rewards=[0.0, 0.0, 1.0]) == pytest.approx(rows[2] / 3, rel=1e-5)


def test_mixed_negatives() -> None:
    _, uniform = embeddings(UNIFORM_ODDS)
    drawn = Items(uniform, tf.constant([6], tf.int64), tf.constant(UNIFORM_COUNT))
    # One draw of a catalogue of 4 adds 1/4 to every count: [2.25, 1.25, .75], and .5 for the drawn column.
    # Row 0: 4/2.25 of 4/2.25 + 1/1.25 + 1/.75 + 1/.5; row 1: 6/1.25 of 2/2.25 + 6/1.25 + 2/.75 + 2/.5.
    first = (4 / 2.25 + 1 / 1.25 + 1 / 0.75 + 1 / 0.5) / (4 / 2.25)
    second = (2 / 2.25 + 6 / 1.25 + 2 / 0.75 + 2 / 0.5) / (6 / 1.25)
    found = loss_of("logq", uniform_items=drawn, catalogue_size=4)
    assert found == pytest.approx((log(first) + 0.5 * log(second)) / 3, rel=1e-5)
    # Without correction the column joins as it is: 4 of 7 and 6 of 12.
    found = loss_of("none", uniform_items=drawn, catalogue_size=4)
    assert found == pytest.approx((log(7 / 4) + 0.5 * log(12 / 6)) / 3, rel=1e-5)


def test_uniform_negatives_alone() -> None:
    queries, items = embeddings(ODDS)
    _, uniform = embeddings(UNIFORM_ODDS)
    drawn = Items(uniform, tf.constant([6], tf.int64), tf.constant(UNIFORM_COUNT))

    def loss(first_id: int = 7, **arguments: Any) -> float:
        own = Items(items, tf.constant([first_id, 8, 9], tf.int64), tf.constant(COUNTS))
        layer = InBatchSoftmax("logq", TEMPERATURE, block_rows=2, in_batch=False, **arguments)
        return float(layer(queries, own, tf.constant(REWARDS), drawn, catalogue_size=4))

    # The own and the drawn alone: 4 of 5 and 6 of 8. All have the same count, whatever the stream's.
    assert loss() == pytest.approx((log(5 / 4) + 0.5 * log(8 / 6)) / 3, rel=1e-5)
    # The negatives alone in the sum: 1 over 4, 2 over 6.
    assert loss(negatives_weight=1.0) == pytest.approx((log(1 / 4) + 0.5 * log(2 / 6)) / 3, rel=1e-5)
    # The drawn is the first row's own: it has no negatives left.
    assert loss(first_id=6) == pytest.approx(0.5 * log(8 / 6) / 3, rel=1e-5)
    # The first half of the catalogue starts at the mean of the scores over it, 0 of one draw's; its variance is 0: log odds / 2.
    weights = [1 / (1 + exp(-TEMPERATURE * log(odds / drawn) / 0.3)) for odds, drawn in ((4, 1), (6, 2))]
    expected = (weights[0] * log(5 / 4) + 0.5 * weights[1] * log(8 / 6)) / 3
    assert loss(top=Top(share=0.5, temperature=0.3)) == pytest.approx(expected, rel=1e-5)


def test_a_loss_without_negatives_is_refused() -> None:
    queries, items = embeddings(ODDS)
    own = Items(items, tf.constant([7, 8, 9], tf.int64), tf.constant(COUNTS))
    with pytest.raises(ValueError, match="expected uniform_items, received None"):
        InBatchSoftmax(in_batch=False)(queries, own, tf.constant(REWARDS))


def test_strength_is_the_factor_of_log_q() -> None:
    # Odds over the roots of the counts 2, 1 and 1/2: a = 1.41421; [4/a, 1, a], [2/a, 6, 2a] and [1/a, 3, 2a].
    a = 2**0.5
    expected = log((4 / a + 1 + a) / (4 / a)) + 0.5 * log((2 / a + 6 + 2 * a) / 6)
    queries, items = embeddings(ODDS)
    own = Items(items, tf.constant([7, 8, 9], tf.int64), tf.constant(COUNTS))

    def at(strength: float) -> float:
        return float(InBatchSoftmax("logq", TEMPERATURE, strength=strength)(queries, own, tf.constant(REWARDS)))

    assert at(0.5) == pytest.approx(expected / 3, rel=1e-5)
    assert at(1.0) == pytest.approx(loss_of("logq"), rel=1e-6)
    assert at(0.0) == pytest.approx(loss_of("none"), rel=1e-6)


def test_a_boost_is_a_count_that_is_as_much_larger() -> None:
    queries, items = embeddings(ODDS)
    ids, rewards = tf.constant([7, 8, 9], tf.int64), tf.constant(REWARDS)
    layer = InBatchSoftmax("logq", TEMPERATURE)
    boosted = Items(items, ids, tf.constant(COUNTS), tf.constant([1.0, 4.0, 1.0]))
    # Odds over the counts [2, 4, 1/2]: [2, .25, 2] gives 2 of 4.25; [1, 1.5, 4] gives 1.5 of 6.5.
    found = float(layer(queries, boosted, rewards))
    assert found == pytest.approx((log(4.25 / 2) + 0.5 * log(6.5 / 1.5)) / 3, rel=1e-5)
    # Of the mixture: (.5 + 1/4) * 4 is 3, as a count of 2.75 and the same draw are.
    _, uniform = embeddings(UNIFORM_ODDS)
    drawn = Items(uniform, tf.constant([6], tf.int64), tf.constant(UNIFORM_COUNT))
    pair = [
        Items(items, ids, tf.constant([2.0, 1.0, 0.5]), tf.constant([1.0, 1.0, 4.0])),
        Items(items, ids, tf.constant([2.0, 1.0, 2.75])),
    ]
    found, expected = (float(layer(queries, each, rewards, drawn, 4)) for each in pair)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_weight_of_the_negatives() -> None:
    queries, items = embeddings(ODDS)
    own = Items(items, tf.constant([7, 8, 9], tf.int64), tf.constant(COUNTS))

    def at(correction: Any) -> float:
        layer = InBatchSoftmax(correction, TEMPERATURE, block_rows=2, negatives_weight=1.5)
        return float(layer(queries, own, tf.constant(REWARDS)))

    # The negatives' odds add up to 2 and 4; over the counts, [1, 2] and [1, 4] to 3 and 5, and the positives' are 2 and 6.
    assert at("none") == pytest.approx((1.5 * log(2) - log(4) + 0.5 * (1.5 * log(4) - log(6))) / 3, abs=1e-5)
    assert at("logq") == pytest.approx((1.5 * log(3) - log(2) + 0.5 * (1.5 * log(5) - log(6))) / 3, abs=1e-5)


def test_items_of_the_same_user_are_no_negatives() -> None:
    users = tf.constant([5, 6, 5], tf.int64)
    # Rows 0 and 2 are one user's: row 0 is without column 2, 4 of 5; row 2 without column 0, 2 of 5. Row 1 has all, 6 of 10.
    assert loss_of("none", users=users) == pytest.approx((log(5 / 4) + 0.5 * log(10 / 6)) / 3, rel=1e-5)
    assert loss_of("none", users=users, rewards=[0.0, 0.0, 1.0]) == pytest.approx(log(5 / 2) / 3, rel=1e-5)
    # Left out, row 0 has one negative as with an accidental hit: Z = (1 - 2/3) / 1 * 1 / (1/3) = 1, P = 4/5.
    found = loss_of("logq_positive_left_out", users=users, rewards=[1.0, 0.0, 0.0])
    assert found == pytest.approx(1 / 5 * log(1 / 4) / 3, rel=1e-5)
    # A draw from the catalogue is nobody's: 4 of 4 + 1 + 1.
    _, uniform = embeddings(UNIFORM_ODDS)
    drawn = Items(uniform, tf.constant([6], tf.int64), tf.constant(UNIFORM_COUNT))
    found = loss_of("none", users=users, rewards=[1.0, 0.0, 0.0], uniform_items=drawn, catalogue_size=4)
    assert found == pytest.approx(log(6 / 4) / 3, rel=1e-5)


def test_rows_whose_positive_is_close_to_the_first_weigh_more() -> None:
    queries, items = embeddings(ODDS)
    counts = tf.constant(COUNTS)
    # A row's scores over the catalogue, in which a column stands for as many items as its count is rare.
    scores, shares = TEMPERATURE * np.log(ODDS), (1 / np.array(COUNTS)) / (1 / np.array(COUNTS)).sum()
    mean = scores @ shares
    deviation = np.sqrt(scores**2 @ shares - mean**2)
    # Of a normal distribution a tenth is above 1.28155 deviations.
    weights = 1 / (1 + np.exp(-(np.diag(scores) - mean - 1.28155 * deviation) / 0.3))
    for row in range(3):
        rewards = [float(row == other) for other in range(3)]
        layer = InBatchSoftmax("logq", TEMPERATURE, block_rows=2, top=Top(share=0.1, temperature=0.3))
        found = float(layer(queries, Items(items, tf.constant([7, 8, 9], tf.int64), counts), tf.constant(rewards)))
        assert found == pytest.approx(weights[row] * loss_of("logq", rewards=rewards), rel=1e-4)
    assert weights.max() > 1.2 * weights.min()


def test_accidental_hits_are_left_out() -> None:
    # Rows 0 and 2 have the same item: row 0 is without column 2, 4 of 5; row 2 without column 0, 2 of 5.
    assert loss_of("none", ids=(7, 8, 7), rewards=[1.0, 0.0, 0.0]) == pytest.approx(log(5 / 4) / 3, rel=1e-5)
    assert loss_of("none", ids=(7, 8, 7), rewards=[0.0, 0.0, 1.0]) == pytest.approx(log(5 / 2) / 3, rel=1e-5)
    # Left out: row 0 has one negative, Q = 1/3: Z = (1 - 2/3) / 1 * 1 / (1/3) = 1, P = 4/5.
    found = loss_of("logq_positive_left_out", ids=(7, 8, 7), rewards=[1.0, 0.0, 0.0])
    assert found == pytest.approx(1 / 5 * log(1 / 4) / 3, rel=1e-5)


def test_the_temperature_comes_before_the_correction() -> None:
    """Regression: other implementations divide the corrected logits by the temperature, which scales log p too."""
    # With counts alike the correction is a constant, whatever the temperature: the same loss as without it.
    queries, items = embeddings(ODDS)
    alike = Items(items, tf.constant([7, 8, 9], tf.int64), tf.fill([3], 0.01))
    corrected = InBatchSoftmax("logq", TEMPERATURE)(queries, alike, tf.constant(REWARDS))
    assert float(corrected) == pytest.approx(loss_of("none"), rel=1e-5)
    # And a count that is e times another moves its logit by one, not by one over the temperature.
    two = Items(tf.constant([[0.0], [0.0]]), tf.constant([7, 8], tf.int64), tf.constant([1.0, float(np.e)]))
    found = InBatchSoftmax("logq", TEMPERATURE)(tf.zeros([2, 1]), two, tf.constant([1.0, 0.0]))
    assert float(found) == pytest.approx(log(1 + np.exp(-1)) / 2, rel=1e-5)


def definition(
    queries: tf.Tensor,
    candidates: Candidates,
    positives: tf.Tensor,
    weights: tf.Tensor,
    scale: tf.Tensor,
    left_out: bool,
    negatives_weight: float | None = None,
) -> tf.Tensor:
    """The loss as `cross_entropy` documents it, written plainly."""
    logits = tf.matmul(queries, candidates.embeddings, transpose_b=True) * scale
    columns = len(candidates.ids)
    own = tf.gather(candidates.ids, positives)[:, tf.newaxis] == candidates.ids
    is_positive = positives[:, tf.newaxis] == tf.range(columns)
    if candidates.users is not None:
        own |= tf.gather(candidates.users, positives)[:, tf.newaxis] == candidates.users
    positive = tf.reduce_sum(tf.where(is_positive, logits, 0.0), axis=1)
    negatives = tf.reduce_sum(tf.cast(~own, tf.float32), axis=1)

    def log_sum_of_negatives(biased: tf.Tensor) -> tf.Tensor:
        # A row without negatives must not make the gradients of others NaN.
        masked = tf.where(negatives[:, tf.newaxis] > 0.0, tf.where(own, -np.inf, biased), 0.0)
        return tf.reduce_logsumexp(masked, axis=1)

    if negatives_weight is not None:
        of_negatives = log_sum_of_negatives(logits + candidates.bias)
        rows = negatives_weight * of_negatives - positive - tf.gather(candidates.bias, positives)
        return tf.reduce_sum(tf.where(negatives > 0.0, weights * rows, 0.0))
    if not left_out:
        corrected = tf.where(own & ~is_positive, -np.inf, logits + candidates.bias)
        return tf.reduce_sum(
            weights * (tf.reduce_logsumexp(corrected, axis=1) - positive - tf.gather(candidates.bias, positives))
        )
    share = tf.exp(-candidates.bias) / columns
    log_rest = (
        tf.math.log(1.0 - tf.gather(share, positives))
        - tf.math.log(tf.maximum(negatives, 1.0))
        + log_sum_of_negatives(logits - tf.math.log(share))
    )
    rows = tf.stop_gradient(1.0 - tf.sigmoid(positive - log_rest)) * (log_rest - positive)
    return tf.reduce_sum(tf.where(negatives > 0.0, weights * rows, 0.0))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 20),
    more_columns=st.integers(1, 10),
    distinct=st.integers(2, 40),
    block=st.integers(1, 25),
    temperature=st.sampled_from([1.0, 0.05, 0.004]),  # the last has logits that exp() cannot take as they are
    left_out=st.booleans(),
    negatives_weight=st.sampled_from([None, None, 1.0, 1.4]),
    some_users=st.sampled_from([None, 3, 100]),
    apart=st.booleans(),
)
def test_value_and_gradients_are_those_of_the_definition(
    seed: int,
    rows: int,
    more_columns: int,
    distinct: int,
    block: int,
    temperature: float,
    left_out: bool,
    negatives_weight: float | None,
    some_users: int | None,
    apart: bool,
) -> None:
    left_out &= negatives_weight is None and not apart  # whose sum depends on the number of columns
    random = np.random.default_rng(seed)
    columns = rows + more_columns
    queries = tf.Variable(tf.math.l2_normalize(random.normal(size=(rows, 6)).astype(np.float32), axis=1))
    items = tf.Variable(tf.math.l2_normalize(random.normal(size=(columns, 6)).astype(np.float32), axis=1))
    scale = tf.Variable(1.0 / temperature)
    ids = tf.constant(random.integers(0, distinct, columns))
    bias = tf.constant(random.normal(2.0, 2.0, columns).astype(np.float32) + np.float32(2.0 - np.log(columns)))
    positives = tf.constant(np.arange(rows) if apart else random.permutation(columns)[:rows], tf.int32)
    weights = tf.constant(random.random(rows).astype(np.float32))
    bias = tf.maximum(bias, -np.log(0.9 * columns))  # an expected count is below the number of columns

    users = None if some_users is None else tf.constant(random.integers(0, some_users, columns))
    candidates = Candidates(items, ids, bias, users)

    def own() -> Candidates:
        return Candidates(*(None if part is None else tf.gather(part, positives) for part in candidates))

    def columns_of(row: int) -> tuple[Candidates, tf.Tensor]:
        """Where positives are no columns: a row's own as the last one."""
        parts = (
            None if whole is None else tf.concat([whole[rows:], mine[row : row + 1]], axis=0)
            for whole, mine in zip(candidates, own(), strict=True)
        )
        return Candidates(*parts), tf.constant([columns - rows])

    def defined() -> tf.Tensor:
        if not apart:
            return definition(queries, candidates, positives, weights, scale, left_out, negatives_weight)
        of_rows = [
            definition(queries[row : row + 1], *columns_of(row), weights[row : row + 1], scale, False, negatives_weight)
            for row in range(rows)
        ]
        return tf.add_n(of_rows)

    def blocked() -> tf.Tensor:
        others = Candidates(*(part if part is None or not apart else part[rows:] for part in candidates))
        return cross_entropy(queries, own(), others, weights, scale, left_out, block, negatives_weight)

    losses: tuple[Callable[[], tf.Tensor], ...] = (defined, blocked)
    results = []
    for loss in losses:
        with tf.GradientTape() as tape:
            value = loss()
        results.append([value, *tape.gradient(value, [queries, items, scale])])
    for expected, found in zip(*results, strict=True):
        wanted = np.nan_to_num(expected.numpy())  # rows without negatives have no gradient
        np.testing.assert_allclose(
            found.numpy(), wanted, rtol=2e-4, atol=2e-5 * (np.abs(wanted).max() + rows / temperature)
        )


def test_a_positive_far_from_the_columns_does_not_overflow() -> None:
    # log(exp(100) + exp(0)) - 100 is 0 in float32.
    nothing = tf.zeros([1, 2])
    own = Candidates(nothing, tf.constant([7], tf.int64), tf.constant([100.0]))
    other = Candidates(nothing, tf.constant([8], tf.int64), tf.constant([0.0]))
    assert float(cross_entropy(nothing, own, other, tf.ones([1]), tf.constant(1.0), False, 1)) == 0.0


def test_xla_gives_the_same_loss() -> None:
    queries, items = embeddings(ODDS)

    @tf.function(jit_compile=True)
    def compiled(queries: tf.Tensor) -> tf.Tensor:
        own = Items(items, tf.constant([7, 8, 7], tf.int64), tf.constant(COUNTS))
        return layer(queries, own, tf.constant(REWARDS))

    for correction in ("none", "logq", "logq_positive_left_out"):
        layer = InBatchSoftmax(correction, TEMPERATURE)
        assert float(compiled(queries)) == pytest.approx(loss_of(correction, ids=(7, 8, 7)), rel=1e-5)
        compiled = tf.function(compiled.python_function, jit_compile=True)


def test_bfloat16_embeddings_have_the_loss_of_their_values_and_gradients_of_their_type() -> None:
    queries, items = (tf.cast(part, tf.bfloat16) for part in embeddings(ODDS))
    own = Items(items, tf.constant([7, 8, 9], tf.int64), tf.constant(COUNTS))
    rounded = own._replace(embeddings=tf.cast(items, tf.float32))
    layer = InBatchSoftmax("logq", TEMPERATURE)
    with tf.GradientTape() as tape:
        tape.watch([queries, items])
        found = layer(queries, own, tf.constant(REWARDS))
    assert float(found) == float(layer(tf.cast(queries, tf.float32), rounded, tf.constant(REWARDS)))
    assert [gradient.dtype for gradient in tape.gradient(found, [queries, items])] == [tf.bfloat16] * 2


def test_a_learned_temperature_has_the_gradient_of_the_definition() -> None:
    queries, items = embeddings(ODDS)
    own = Items(items, tf.constant([7, 8, 9], tf.int64), tf.constant(COUNTS))
    layer = InBatchSoftmax("logq", TEMPERATURE, learn_temperature=True)
    with tf.GradientTape() as tape:
        found = layer(queries, own, tf.constant(REWARDS))
    gradient = float(tape.gradient(found, layer.trainable_variables)[0])

    def at(temperature: float) -> float:
        return float(InBatchSoftmax("logq", temperature)(queries, own, tf.constant(REWARDS)))

    # By differences, of the logarithm of the temperature.
    step = 1e-2
    expected = (at(TEMPERATURE * np.exp(step)) - at(TEMPERATURE * np.exp(-step))) / (2 * step)
    assert gradient == pytest.approx(expected, rel=1e-3)
    assert not InBatchSoftmax("logq", TEMPERATURE).trainable_variables


@pytest.mark.parametrize("correction", ["none", "logq", "logq_positive_left_out"])
@pytest.mark.parametrize("reward", [-1.0, float("nan"), float("inf"), 0.0])
def test_rewards_that_are_none_weigh_nothing(correction: str, reward: float) -> None:
    assert loss_of(correction, rewards=[reward] * 3) == 0.0
    assert loss_of(correction, rewards=[1.0, reward, 0.0]) == loss_of(correction, rewards=[1.0, 0.0, 0.0])


@pytest.mark.parametrize("correction", ["none", "logq", "logq_positive_left_out"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_without_negatives_has_no_loss_and_no_gradient(correction: Any, batch: int) -> None:
    queries, items = tf.Variable(tf.ones([batch, 4]) / 2.0), tf.Variable(tf.ones([batch, 4]) / 2.0)
    layer = InBatchSoftmax(correction)
    with tf.GradientTape() as tape:
        found = layer(
            queries, Items(items, tf.fill([batch], tf.constant(7, tf.int64)), tf.ones([batch])), tf.ones([batch])
        )
    assert float(found) == pytest.approx(0.0, abs=1e-5)
    for gradient in tape.gradient(found, [queries, items]):
        np.testing.assert_allclose(gradient.numpy(), 0.0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"temperature": 0.0}, "temperature above 0, received 0.0"),
        ({"temperature": -0.1}, "temperature above 0, received -0.1"),
        ({"temperature": float("nan")}, "temperature above 0, received nan"),
        ({"correction": "log"}, "received 'log'"),
        ({"block_rows": 0}, "block_rows of at least 1"),
        ({"negatives_weight": 0.0}, "negatives_weight above 0, received 0.0"),
        ({"top": Top(share=1.0, temperature=0.1)}, r"top in \(0, 1\)"),
        ({"strength": 1.5}, r"strength in \[0, 1\], received 1.5"),
    ],
)
def test_arguments_outside_their_range_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        InBatchSoftmax(**arguments)
