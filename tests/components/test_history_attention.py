"""A history as one vector by learned weights: by hand, as the mean at first, learned from data, and asked without ages."""

from math import log
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.history_attention import HistoryAttention
from components.trainer.inputs import Batch, Mask, masked
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.towers import pool
from components.transform.missing import NO_AGE
from components.transform.preprocessing import AGE_CLASSES
from components.transform.recency import recency_weights
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec

UNKNOWN = [[NO_AGE] * 3]


def attention(has_seed: bool = False, **learned: Any) -> HistoryAttention:
    """Of items with rows of width 2; what is not given is 0. Rows of classes by class."""
    layer = HistoryAttention(2, has_seed, True, "past")
    for name, given in learned.items():
        value = layer.learned[name].numpy()
        if isinstance(given, dict):
            for number, row in given.items():
                value[number] = row
        layer.learned[name].assign(value if isinstance(given, dict) else given)
    return layer


def weights(layer: HistoryAttention, rows: Any, ages: Any, prior: Any = None, seed: Any = None) -> Any:
    vectors = tf.constant([rows], tf.float32)
    prior = tf.ones(vectors.shape[:2]) if prior is None else tf.constant([prior], tf.float32)
    given = None if seed is None else tf.constant([seed], tf.float32)
    return layer.attend(vectors, prior, tf.constant(ages, tf.int64), given)[0].numpy().tolist()


def test_an_untrained_encoder_is_the_half_life_mean() -> None:
    random = np.random.default_rng(0)
    vectors = tf.constant(random.normal(size=(4, 3, 2)), tf.float32)
    there = tf.constant([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]]) > 0
    for half_life in (None, 2.0):
        prior = recency_weights(there, half_life)
        found = attention()(vectors, prior, tf.constant(random.integers(-1, 9, (4, 3))))
        np.testing.assert_allclose(found, pool(vectors, prior, "mean"), atol=1e-6)
    assert not found[3].numpy().any()  # an empty history is the zero vector


def test_weights_depend_on_item_position_and_age() -> None:
    of_items = attention(query=[log(3), 0])
    assert weights(of_items, [[1, 7], [0, -7], [0, 0]], UNKNOWN) == pytest.approx([0.6, 0.2, 0.2])  # 3 to 1 to 1
    # Places from the newest, which is the last: 2, 1 and 0, of the classes 2, 1 and 0.
    of_places = attention(query=[1, 0], places={0: [log(2), 0], 2: [log(5), 0]})
    assert weights(of_places, np.zeros((3, 2)), UNKNOWN) == pytest.approx([5 / 8, 1 / 8, 2 / 8])
    of_ages = attention(query=[1, 0], ages={4: [log(2), 0], 31: [-log(2), 0]})
    assert weights(of_ages, np.zeros((3, 2)), [[31, NO_AGE, 4]]) == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_the_seed_asks_with_the_query() -> None:
    layer = attention(has_seed=True, query=[log(2), 0], seed=[[0, 0], [log(3), 0]])
    rows = [[1, 0], [0, 0]]
    assert weights(layer, rows, [[NO_AGE] * 2], seed=[5, 0]) == pytest.approx([2 / 3, 1 / 3])  # the seed says nothing
    assert weights(layer, rows, [[NO_AGE] * 2], seed=[0, 1]) == pytest.approx([6 / 7, 1 / 7])


@pytest.mark.parametrize("high", [0.0, 500.0, -500.0])  # of the logits: exponentials of none of them overflow or vanish
def test_padding_has_no_part(high: float) -> None:
    layer = attention(query=[1, 0])
    alone = weights(layer, [[high, 0], [high + log(3), 0]], [[NO_AGE] * 2])
    assert alone == pytest.approx([1 / 4, 3 / 4], rel=1e-4)
    padded = weights(layer, [[high, 0], [high + log(3), 0], [high + 300, 0]], UNKNOWN, prior=[1, 1, 0])
    assert padded == pytest.approx([*alone, 0])
    variable = tf.Variable([[[high, 0.0], [high + 300, 0.0]], [[1e3, 0.0], [1e3, 0.0]]])
    with tf.GradientTape() as tape:
        found = tf.reduce_sum(layer(variable, tf.constant([[1.0, 0.0], [0.0, 0.0]]), tf.constant([[3, -1], [-1, -1]])))
    gradient = tf.convert_to_tensor(tape.gradient(found, variable)).numpy()
    assert np.isfinite(gradient).all() and not gradient[0, 1].any() and not gradient[1].any()


def test_ages_are_hidden_all_at_once() -> None:
    ages = tf.constant(np.tile([3, 9, NO_AGE], (5000, 1)))
    found = masked({"past_ages": ages}, {"past_ages": Mask(NO_AGE, 0.1)}, seed=1, number=0)["past_ages"].numpy()
    hidden = (found == NO_AGE).all(axis=1)
    assert hidden.sum() == pytest.approx(500, abs=5 * 21)  # of 5,000; standard deviation 21
    assert (found[~hidden] == [3, 9, NO_AGE]).all()


SPEC: dict[str, Any] = {
    "interactions": {"user": "user", "item": "item", "time": "at"},
    "catalogue": {"item": "item"},
    "tables": {"item": {"width": 8, "hash_buckets": 30}},
    "query": {"past": {"kind": "history", "table": "item", "last": 4}},
    "item": {"item": {"kind": "id", "table": "item"}},
}
SETTINGS = TrainerSettings.model_validate(
    {
        "towers": {"query": [8], "item": [8]},
        "softmax": {"temperature": 0.1},
        "learning_rate": 0.05,
        "frequency": {"buckets": 256},
    }
)


def trained(encoder: str) -> tuple[Any, float]:
    """A model of people who take what they took within the last seconds again, wherever it stands; and its last steps' loss."""
    random = np.random.default_rng(0)
    past = {**SPEC["query"]["past"], "encoder": encoder}
    model = build_model(FeatureSpec.model_validate({**SPEC, "query": {"past": past}}), {"item": 30}, SETTINGS)
    model.compile(optimizer=build_optimizer(SETTINGS))
    step = tf.function(model.train_step, autograph=False)
    for number in range(150):
        if number == 130:
            model.reset_metrics()
        histories = np.array([random.permutation(30)[:4] for _ in range(64)])
        recent = random.integers(0, 4, 64)
        ages = np.where(np.arange(4) == recent[:, np.newaxis], 2, 20)
        item = histories[np.arange(64), recent]
        inputs = {
            "past": histories,
            "past_ages": ages,
            "item": item,
            CANDIDATE_ID: item,
            REWARD: np.ones(64, np.float32),
        }
        step(Batch({name: tf.constant(values) for name, values in inputs.items()}, {}))
    return model, model.mean_loss()


def test_training_learns_which_ages_matter() -> None:
    # Of four items, which the mean cannot tell apart, one is taken: at best log 4 = 1.4. The attention can come near 0.
    (_, of_mean), (model, of_attention) = trained("mean"), trained("attention")
    assert of_mean > 1.2 and of_attention < 0.6
    histories = model.query_tower.tables["item"](tf.constant([[1, 2, 3, 4]]))
    layer = model.query_tower.attentions["past"]
    found = layer.attend(histories, tf.ones([1, 4]), tf.constant([[20, 2, 20, 20]], tf.int64), None)[0].numpy()
    assert found[1] > 0.8
    # Asked without ages it is near the mean again, and with one that training never had it is what it says of none.
    for ages in ([NO_AGE] * 4, [AGE_CLASSES - 1] * 4):
        unaged = layer.attend(histories, tf.ones([1, 4]), tf.constant([ages], tf.int64), None)[0].numpy()
        assert unaged.max() < 0.5
