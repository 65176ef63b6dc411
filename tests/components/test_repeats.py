"""What histories add to the scores of their items: worked out by hand, in the loss by its definition, and learned from data."""

from math import log, sqrt
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.blocked_softmax import Candidates, cross_entropy
from components.trainer.inputs import Batch
from components.trainer.loss import InBatchSoftmax, Items, Top
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.repeats import LOWEST, RepeatBonus, Repeats
from components.trainer.settings import TrainerSettings
from components.transform.recency import recency_weights
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec, HistoryFeature

NONE = -1


def learned(**values: tuple[float, float, float]) -> RepeatBonus:
    layer = RepeatBonus(values)
    for name, numbers in values.items():
        for weight, number in zip(layer.learned[name].values(), numbers, strict=True):
            weight.assign(number)
    return layer


def ids(*rows: list[int]) -> tf.Tensor:
    return tf.constant(rows, tf.int64)


def test_items_weigh_half_as_much_a_half_life_further_back() -> None:
    there = ids([1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]) > 0
    # The newest is the last that is there: with a half-life of 2 items, 2 and 1 items back weigh 2^-1 and 2^-1/2.
    expected: list[list[float]] = [[0.5, sqrt(0.5), 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(recency_weights(there, 2.0), expected, rtol=1e-6)
    np.testing.assert_array_equal(recency_weights(there, None), tf.cast(there, tf.float32))


def test_a_bonus_depends_on_frequency_and_recency() -> None:
    layer = learned(bought=(0.2, 0.1, 0.5))
    found = layer({"bought_fingerprint": ids([7, 8, 7, 9], [5, NONE, NONE, NONE], [NONE] * 4)})
    # By id, missing ones first. Places from the newest: 9 at 1, 7 at 2 and 4, 8 at 3. 1, 2^-1/2 + 4^-1/2 = 1.2071, 3^-1/2.
    assert found.ids.numpy().tolist() == [[7, NONE, 8, 9], [NONE, NONE, NONE, 5], [NONE] * 4]
    first = [0.2 + 0.1 * log(1.2071068), 0, 0.2 - 0.1 * log(sqrt(3)), 0.2]
    expected: list[list[float]] = [first, [0, 0, 0, 0.2], [0, 0, 0, 0]]
    np.testing.assert_allclose(found.bonuses, expected, rtol=1e-5)


def test_several_histories_add_up_and_an_item_of_both_comes_once() -> None:
    layer = learned(bought=(0.2, 0.0, 0.5), seen=(0.05, 0.1, 0.0))
    found = layer({"bought_fingerprint": ids([7, 8]), "seen_fingerprint": ids([7, 7, 6])})
    # 7 was seen twice, which a decay of 0 counts as 2: .2 + .05 + .1 log 2; 8 was only bought; 6 was seen once.
    assert found.ids.numpy().tolist() == [[6, 7, NONE, NONE, 8]]
    np.testing.assert_allclose(found.bonuses, [[0.05, 0.25 + 0.1 * log(2), 0, 0, 0.2]], rtol=1e-5)
    assert found.of(ids([6])[0]).numpy() == pytest.approx([0.05])
    assert found.of(ids([5])[0]).numpy() == pytest.approx([0.0])


def test_a_bonus_has_a_bound_and_can_rise_from_it_again() -> None:
    layer = learned(bought=(-3.0, 0.0, 0.5))
    with tf.GradientTape() as tape:
        found = tf.reduce_sum(layer({"bought_fingerprint": ids([7])}).bonuses)
    assert float(found) == pytest.approx(LOWEST)
    assert float(tape.gradient(found, layer.learned["bought"]["level"])) == 1.0


def definition(
    queries: tf.Tensor,
    candidates: Candidates,
    positives: Any,
    weights: Any,
    scale: Any,
    repeats: Repeats | None,
    taken: tf.Tensor | None,
    form: Any,
) -> tf.Tensor:
    """The losses of `cross_entropy`, with a bonus for each column that the history has and without taken ones, written plainly."""
    hidden = candidates.hidden
    assert hidden is not None

    def alike(entries: tf.Tensor) -> tf.Tensor:
        # What hides its id is taken for a new item, which no history has.
        return (entries[:, :, tf.newaxis] == candidates.ids[tf.newaxis, tf.newaxis, :]) & ~hidden

    added = 0.0
    if repeats is not None:
        added = tf.reduce_sum(tf.where(alike(repeats.ids), repeats.bonuses[:, :, tf.newaxis], 0.0), axis=1)
    scores = scale * (tf.matmul(queries, candidates.embeddings, transpose_b=True) + added)
    own = tf.gather(candidates.ids, positives)
    negatives = own[:, tf.newaxis] != candidates.ids
    if taken is not None:
        negatives &= ~tf.reduce_any(alike(taken), axis=1)
    rows = tf.range(len(positives))
    of_positive = tf.gather_nd(scores, tf.stack([rows, positives], axis=1))
    bias = tf.gather(candidates.bias, positives)
    log_sum = tf.reduce_logsumexp(tf.where(negatives, scores + candidates.bias, -1e9), axis=1)
    if form == "left_out":
        columns = len(candidates.ids)
        share = tf.exp(-bias) / columns
        others = tf.reduce_sum(tf.cast(own[:, tf.newaxis] != candidates.ids, tf.float32), 1)
        rest = log_sum + tf.math.log1p(-share) + tf.math.log(columns / others)
        losses = tf.stop_gradient(tf.sigmoid(rest - of_positive)) * (rest - of_positive)
    elif form == "weighted":
        losses = 1.22 * log_sum - of_positive - bias
    else:
        losses = tf.reduce_logsumexp(tf.stack([log_sum, of_positive + bias], axis=1), axis=1) - of_positive - bias
    return tf.reduce_sum(weights * losses)


@pytest.mark.parametrize("form", ["plain", "left_out", "weighted"])
@pytest.mark.parametrize("scale", [3.0, 200.0])  # the larger one needs a maximum for each row
@pytest.mark.parametrize("of_history", ["repeats", "taken", "both"])
def test_value_and_gradients_are_those_of_the_definition(form: str, scale: float, of_history: str) -> None:
    random = np.random.default_rng(3)
    rows, width, items = 23, 5, 6  # of few items, so that there are many copies
    vectors = random.normal(size=(2, items, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    of_items, hidden = random.integers(0, items, rows + 9), random.random(rows + 9) < 0.3
    biases = random.normal(size=(2, items)).astype(np.float32) * 0.3 + 0.5  # of an item with its id and without it
    names = np.array([0, 1, 2**62, 2**62 + 1, 2**63 - 2, 2**63 - 3])  # fingerprints have 63 bits
    past = np.array([random.permutation(items)[:3] for _ in range(rows)])
    entries = np.where(random.random((rows, 3)) < 0.3, NONE, names[past])
    entries[0] = [12345, names[of_items[0]], NONE]  # an item that no column has, and the row's own
    queries = tf.Variable(random.normal(size=(rows, width)).astype(np.float32) / 3)
    columns = tf.Variable(vectors[hidden.astype(int), of_items])
    bonuses = tf.Variable(np.where(entries == NONE, 0.0, random.normal(size=entries.shape)).astype(np.float32) / 3)
    inverse = tf.Variable(scale)
    # Some twice, or its own, or of no column; the last row has taken all items, of which only those without their ids are left.
    has_taken = names[random.integers(0, items, (rows, 6))]
    has_taken[random.random((rows, 6)) < 0.6] = NONE
    has_taken[1, :2], has_taken[-1] = [12345, names[of_items[1]]], names
    taken = None if of_history == "repeats" else tf.constant(has_taken)
    weights = tf.constant(random.random(rows).astype(np.float32))
    bias = tf.constant(biases[hidden.astype(int), of_items])
    positives = tf.range(rows)
    arguments: dict[str, dict[str, Any]] = {
        "left_out": {"positive_left_out": True},
        "weighted": {"positive_left_out": False, "negatives_weight": 1.22},
        "plain": {"positive_left_out": False},
    }
    found, gradients = [], []
    for blocked in (True, False):
        with tf.GradientTape() as tape:
            candidates = Candidates(columns, tf.constant(names[of_items]), bias, None, tf.constant(hidden))
            repeats = None if of_history == "taken" else Repeats(tf.constant(entries), tf.convert_to_tensor(bonuses))
            if blocked:
                own = Candidates(*(None if part is None else tf.gather(part, positives) for part in candidates))
                loss = cross_entropy(
                    queries, own, candidates, weights, inverse, block_rows=8, repeats=repeats, taken=taken,
                    **arguments[form],
                )  # fmt: skip
            else:
                loss = definition(queries, candidates, positives, weights, inverse, repeats, taken, form)
        found.append(float(loss))
        gradients.append(
            tape.gradient(
                loss, [queries, columns, bonuses, inverse], unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
        )
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    by_item = of_items + items * hidden
    for name, ours, theirs in zip(("queries", "columns", "bonuses", "scale"), *gradients, strict=True):
        ours, theirs = (tf.convert_to_tensor(each).numpy() for each in (ours, theirs))
        if name == "columns":  # copies of an item share what is learnt of it: compared by item, those with its id
            ours, theirs = (
                np.stack([each[by_item == item].sum(axis=0) for item in np.unique(by_item)]) for each in (ours, theirs)
            )
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3 * max(1.0, np.abs(theirs).max()), err_msg=name)


def test_a_worked_example() -> None:
    # One query, items 7 (its own) and 8, temperature 1/2, products 0: the history gives 8 a bonus of log(3)/2, so odds of 3 to 1.
    items = Items(tf.zeros([2, 2]), tf.constant([7, 8], tf.int64), tf.ones([2]), hidden=tf.constant([False, False]))
    repeats = Repeats(ids([8, NONE], [NONE, NONE]), tf.constant([[log(3) / 2, 0], [0, 0]], tf.float32))
    layer = InBatchSoftmax("logq", 0.5)
    found = layer(tf.zeros([2, 2]), items, tf.constant([1.0, 0.0]), repeats=repeats)
    assert float(found) == pytest.approx(log(4) / 2)
    # The same for its own: 3 to 1 for it.
    own = Repeats(ids([7, NONE], [NONE, NONE]), repeats.bonuses)
    assert float(layer(tf.zeros([2, 2]), items, tf.constant([1.0, 0.0]), repeats=own)) == pytest.approx(
        log(4 / 3) / 2, rel=1e-5
    )


def test_a_large_bonus_overflows_nothing() -> None:
    # Products are 0 and the temperature is 1/100: the history gives 8 a bonus of 1, so odds of e^100 to 1, which float32 has not.
    items = Items(tf.zeros([2, 2]), tf.constant([7, 8], tf.int64), tf.ones([2]), hidden=tf.constant([False, False]))
    repeats = Repeats(ids([8], [NONE]), tf.constant([[1.0], [0.0]]))
    with tf.GradientTape() as tape:
        tape.watch(repeats.bonuses)
        found = InBatchSoftmax("logq", 0.01)(tf.zeros([2, 2]), items, tf.constant([1.0, 0.0]), repeats=repeats)
    assert float(found) == pytest.approx(100 / 2)
    assert tape.gradient(found, repeats.bonuses).numpy().tolist() == [[pytest.approx(100 / 2)], [0.0]]


def test_rows_that_are_close_to_the_first_are_so_by_their_bonuses_too() -> None:
    # All products are 0, and so is what is first; a bonus of 1/2 for the row's own item at a temperature of 1/2 weighs sigmoid(1).
    items = Items(tf.zeros([2, 2]), tf.constant([7, 8], tf.int64), tf.ones([2]), hidden=tf.constant([False, False]))
    repeats = Repeats(ids([7], [NONE]), tf.constant([[0.5], [0.0]]))
    layer = InBatchSoftmax("logq", 0.5, top=Top(0.5, 0.5))
    found = float(layer(tf.zeros([2, 2]), items, tf.constant([1.0, 0.0]), repeats=repeats))
    assert found == pytest.approx(1 / (1 + np.exp(-1)) * log(1 + np.exp(-1)) / 2, rel=1e-5)


def test_users_cannot_be_combined_with_items_of_a_history() -> None:
    items = Items(tf.zeros([1, 2]), tf.constant([7], tf.int64), tf.ones([1]))
    repeats = Repeats(ids([7]), tf.zeros([1, 1]))
    with pytest.raises(ValueError, match="users or repeats, received both"):
        InBatchSoftmax()(tf.zeros([1, 2]), items, tf.ones([1]), users=tf.constant([1]), repeats=repeats)
    with pytest.raises(ValueError, match="users or taken items, received both"):
        InBatchSoftmax()(tf.zeros([1, 2]), items, tf.ones([1]), users=tf.constant([1]), taken=ids([7]))


def test_items_that_were_taken_are_no_negatives() -> None:
    # Products are 0, and each of the items 7, 7, 8 and 9 is expected once. The first row's 7 has 8 and 9 against it: log 3. It has
    # taken 9 (and 7, which it is about): log 2. The third row's 8 has both copies of 7 against it, and 9: log 4.
    items = Items(tf.zeros([4, 2]), tf.constant([7, 7, 8, 9], tf.int64), tf.ones([4]), hidden=tf.constant([False] * 4))
    layer = InBatchSoftmax("logq", 0.5)
    for rewards, taken, expected in (
        ([1.0, 0, 0, 0], [[NONE, NONE]] * 4, log(3)),
        ([1.0, 0, 0, 0], [[9, 7]] + [[NONE, NONE]] * 3, log(2)),
        ([0, 0, 1.0, 0], [[NONE, NONE]] * 4, log(4)),
        ([0, 0, 1.0, 0], [[9, 8]] * 2 + [[7, 7]] + [[9, 8]], log(2)),
        ([0, 0, 1.0, 0], [[NONE, NONE]] * 2 + [[7, 9]] + [[NONE, NONE]], 0.0),
    ):
        found = layer(tf.zeros([4, 2]), items, tf.constant(rewards, tf.float32), taken=ids(*taken))
        assert float(found) == pytest.approx(expected / 4, abs=1e-6)


def test_a_row_that_has_taken_all_has_nothing_to_learn_from() -> None:
    # Without the positive in the sum, nothing is left of it; -100 to 1 also needs a maximum for each row.
    items = Items(
        tf.constant([[1.0], [-1.0]]), tf.constant([7, 8], tf.int64), tf.ones([2]), hidden=tf.zeros([2], tf.bool)
    )
    for temperature in (0.5, 0.01):
        layer = InBatchSoftmax("logq", temperature, negatives_weight=1.0)
        queries = tf.constant([[1.0], [1.0]])
        with tf.GradientTape() as tape:
            tape.watch(queries)
            found = layer(queries, items, tf.constant([1.0, 0.0]), taken=ids([8], [NONE]))
        assert float(found) == 0.0
        assert tape.gradient(found, queries).numpy().tolist() == [[0.0], [0.0]]


SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"user": {"width": 4, "hash_buckets": 20}, "item": {"width": 4, "hash_buckets": 30}},
        "query": {
            "user": {"kind": "id", "table": "user"},
            "past": {"kind": "history", "table": "item", "last": 3, "repeats": True},
        },
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
TOWERS = {"towers": {"query": [4], "item": [4]}, "frequency": {"buckets": 256}}


@pytest.mark.parametrize(("share", "sign"), [(0.8, 1.0), (0.0, -1.0)])
def test_training_learns_whether_items_are_taken_again(share: float, sign: float) -> None:
    random = np.random.default_rng(0)
    settings = TrainerSettings.model_validate({**TOWERS, "softmax": {"temperature": 0.2}})
    model = build_model(SPEC, {"user": 20, "item": 30}, settings)
    model.compile(optimizer=build_optimizer(settings))
    step = tf.function(model.train_step, autograph=False)
    for _ in range(40):
        past = np.array([random.permutation(30)[:3] for _ in range(64)])
        item = np.array([random.choice(np.setdiff1d(np.arange(30), each)) for each in past])
        item = np.where(random.random(64) < share, past[:, 2], item)
        inputs = {
            "user": random.integers(0, 20, 64),
            "past": past,
            "past_fingerprint": past,
            "item": item,
            CANDIDATE_ID: item,
            REWARD: np.ones(64, np.float32),
        }
        step(Batch({name: tf.constant(values) for name, values in inputs.items()}, {}))
    assert model.repeat_bonus
    assert sign * float(model.repeat_bonus.learned["past"]["level"]) > 0.1


def test_settings_incompatible_with_repeats_are_named() -> None:
    asked = {**TOWERS, "jit_compile": True, "strategy": {"kind": "tpu"}, "softmax": {"same_user_negatives": False}}
    settings = TrainerSettings.model_validate(asked)
    found = dict(settings.faults(SPEC))
    assert found.keys() == {("softmax", "same_user_negatives"), ("jit_compile",), ("strategy", "kind")}
    assert found["jit_compile",].startswith("cannot be combined with a history with `repeats: true` (past)")
    past = SPEC.query["past"].model_copy(update={"repeats": False})
    assert settings.faults(SPEC.model_copy(update={"query": {**SPEC.query, "past": past}})) == []
    past = past.model_copy(update={"negatives": False})
    found = dict(settings.faults(SPEC.model_copy(update={"query": {**SPEC.query, "past": past}})))
    assert found.keys() == {("softmax", "same_user_negatives"), ("jit_compile",), ("strategy", "kind")}
    assert found["jit_compile",].startswith("cannot be combined with a history with `negatives: false` (past)")


def test_training_does_not_learn_to_score_what_was_taken_low() -> None:
    """Each user takes one item all the time, and has taken three others, which is no input of the tower."""
    settings = TrainerSettings.model_validate({**TOWERS, "learning_rate": 0.1, "softmax": {"temperature": 0.2}})
    leads = {}
    of_user = np.array([np.random.default_rng(seed).permutation(30)[:4] for seed in range(20)])
    others = np.array([np.setdiff1d(np.arange(30), each) for each in of_user])
    for negatives in (True, False):
        past = {"kind": "history", "table": "item", "last": 3, "encoder": "none", "negatives": negatives}
        query = {**SPEC.query, "past": HistoryFeature.model_validate(past)}
        model = build_model(SPEC.model_copy(update={"query": query}), {"user": 20, "item": 30}, settings, 30)
        model.compile(optimizer=build_optimizer(settings))
        step = tf.function(model.train_step, autograph=False)
        random = np.random.default_rng(0)
        for _ in range(100):
            user = random.integers(0, 20, 64)
            item = of_user[user, 3]
            inputs = {
                "user": user,
                "past_fingerprint": of_user[user, :3],
                "item": item,
                CANDIDATE_ID: item,
                REWARD: np.ones(64, np.float32),
            }
            everything = {name: tf.range(30, dtype=tf.int64) for name in ("item", CANDIDATE_ID)}
            step(Batch({name: tf.constant(values) for name, values in inputs.items()}, everything))
        users, items = (tower({name: tf.range(count, dtype=tf.int64)}).numpy() for tower, name, count in (
            (model.query_tower, "user", 20), (model.item_tower, "item", 30),
        ))  # fmt: skip
        scores = users @ items.T
        taken, rest = (np.take_along_axis(scores, rows, axis=1).mean() for rows in (of_user[:, :3], others))
        leads[negatives] = taken - rest
    assert leads[False] > 0.0 and leads[False] - leads[True] > 0.1


def test_the_left_out_sum_estimates_the_rest_without_what_was_taken() -> None:
    """Regression: a taken item counted as if it had not been drawn, and the rest of the sum was too large.

    Of four items with the same product 0, the row's own and another are taken, and the columns are what expectation says of 100
    draws: .1 its own, .4 the taken one, .2 and .3 the others. The full sum without both is 2, whose log is the loss but for its
    weight, 1 - P = 2 / 3.
    """
    counts = [10, 40, 20, 30]
    of_columns = np.repeat(np.arange(4), counts)
    columns = Candidates(
        tf.zeros([100, 1]), tf.constant(of_columns), -tf.math.log(tf.constant(np.array(counts, np.float32)[of_columns])),
        hidden=tf.zeros([100], tf.bool),
    )  # fmt: skip
    own = Candidates(tf.zeros([1, 1]), tf.constant([0], tf.int64), tf.constant([-log(10)]), hidden=tf.constant([False]))
    loss = cross_entropy(tf.zeros([1, 1]), own, columns, tf.ones([1]), tf.constant(1.0), True, 8, taken=ids([1]))
    assert float(loss) == pytest.approx(2 / 3 * log(2), rel=1e-4)
