"""The two-tower model as Keras trains it: what a step does, what a checkpoint holds, XLA, and draws from the catalogue."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from pydantic import ValidationError

from components.trainer.epochs import OwnBatches
from components.trainer.inputs import Batch, uniform_draws, with_uniform_items
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import CatchUpSettings, TowerSettings, TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import one_device
from components.trainer.towers import Tower, build_tables
from components.trainer.training import Training, train
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, REWARD, WEIGHTS_SUFFIX, FeatureSpec

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"user": {"width": 4, "hash_buckets": 8}, "item": {"width": 4, "hash_buckets": 30}},
        "query": {"user": {"kind": "id", "table": "user"}, "past": {"kind": "history", "table": "item", "last": 2}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
ROWS = {"user": 8, "item": 30}
BATCH, ITEMS = 16, 30


def settings(**softmax: object) -> TrainerSettings:
    return TrainerSettings.model_validate(
        {
            "towers": {"query": [8, 4], "item": [4]},
            "softmax": {"block_rows": 5, **softmax},
            "frequency": {"buckets": 256, "hashes": 2},
        }
    )


def batches(uniform: int = 0) -> tf.data.Dataset:
    """Users who keep to the items of their own number, and an endless supply of them."""
    random = np.random.default_rng(0)
    user = random.integers(0, 8, 4000)
    item = (user + 8 * random.integers(0, 3, 4000)) % ITEMS
    interactions = {
        "user": user,
        "past": np.stack([np.full(4000, -1), (user + 8) % ITEMS], axis=1),
        "item": item,
        CANDIDATE_ID: item + 1000,
        REWARD: np.ones(4000, np.float32),
    }
    rows = tf.data.Dataset.from_tensor_slices(interactions).repeat().batch(BATCH, drop_remainder=True)
    everything = {"item": tf.range(ITEMS, dtype=tf.int64), CANDIDATE_ID: tf.range(ITEMS, dtype=tf.int64) + 1000}
    return with_uniform_items(rows, uniform_draws(everything, uniform, seed=1) if uniform else None)


def trained(steps: int = 200, uniform: int = 0, **softmax: object) -> TwoTowerModel:
    tf_keras.utils.set_random_seed(1)
    model = build_model(SPEC, ROWS, settings(**softmax), ITEMS)
    model.compile(optimizer=tf_keras.optimizers.Adagrad(0.1))
    model.fit(batches(uniform), epochs=1, steps_per_epoch=steps, verbose=0)
    return model


@pytest.mark.parametrize("correction", ["none", "logq", "logq_positive_left_out"])
@pytest.mark.parametrize("uniform", [0, 8])
def test_every_form_learns_who_keeps_to_what(correction: str, uniform: int) -> None:
    model = trained(steps=400, uniform=uniform, correction=correction)
    everyone = tf.range(8, dtype=tf.int64)
    users = {"user": everyone, "past": tf.stack([tf.fill([8], tf.constant(-1, tf.int64)), everyone + 8], axis=1)}
    scores = model.query_tower(users).numpy() @ model.item_tower({"item": tf.range(ITEMS, dtype=tf.int64)}).numpy().T
    best = np.argsort(-scores, axis=1)[:, :3]
    assert np.mean(best % 8 == np.arange(8)[:, np.newaxis]) > 0.8  # by chance 1/8


def test_training_counts_items_and_evaluation_does_not() -> None:
    model = trained(steps=50)
    assert int(model.frequency.step) == 50
    model.test_step(next(iter(batches())))
    assert int(model.frequency.step) == 50
    # Users are drawn alike, and each keeps to three items (one of them to four users' items): 16 / 24 a batch.
    estimates = model.frequency.estimate(tf.range(1000, 1024, dtype=tf.int64)).numpy()
    assert estimates.mean() == pytest.approx(16 / 24, rel=0.2)


def test_the_reported_loss_is_the_mean_of_the_epochs_steps() -> None:
    """Regression: TFRS's train step says the loss of the last batch."""
    tf_keras.utils.set_random_seed(1)
    model = build_model(SPEC, ROWS, settings(), ITEMS)
    losses = [float(model.compute_loss(batch, training=True)) for batch in batches().take(7)]
    tf_keras.utils.set_random_seed(1)
    same = build_model(SPEC, ROWS, settings(), ITEMS)
    same.compile(optimizer=tf_keras.optimizers.SGD(0.0))
    said = same.fit(batches().take(7), epochs=1, verbose=0).history["loss"][0]
    assert said == pytest.approx(np.mean(losses), rel=1e-4)
    assert said != pytest.approx(losses[-1], rel=1e-2)


def test_a_checkpoint_holds_slots_estimates_and_temperature(tmp_path: Path) -> None:
    first = trained(steps=30, learn_temperature=True)
    path = tf.train.Checkpoint(model=first).write(str(tmp_path / "model"))
    second = build_model(SPEC, ROWS, settings(learn_temperature=True), ITEMS)
    second.compile(optimizer=tf_keras.optimizers.Adagrad(0.1))
    second.train_step(next(iter(batches())))  # makes all variables
    tf.train.Checkpoint(model=second).read(path).assert_existing_objects_matched()
    assert int(second.frequency.step) == 30
    assert float(second.retrieval_loss.temperature) == float(first.retrieval_loss.temperature) != pytest.approx(0.05)
    for batch in batches().skip(30).take(3):
        expected, found = first.train_step(batch), second.train_step(batch)
    for one, other in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6)
    assert expected.keys() == found.keys()


def test_the_whole_step_compiles_with_xla_and_does_the_same() -> None:
    """With all that the loss can have; `test_a_switch_changes_how_a_step_is_computed_and_hardly_what` has it as configured."""
    correction = "logq_positive_left_out"
    plain, compiled = (build_model(SPEC, ROWS, settings(correction=correction), ITEMS) for _ in range(2))
    for model, jit in ((plain, False), (compiled, True)):
        model.compile(optimizer=tf_keras.optimizers.Adagrad(0.1))
        step = tf.function(model.train_step, jit_compile=jit)
        for batch in batches(uniform=8).take(5):
            step(batch)
    assert int(compiled.frequency.step) == 5
    for one, other in zip(plain.trainable_variables, compiled.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-5)


def test_a_loss_without_negatives_is_refused() -> None:
    softmax = {"in_batch_negatives": False, "uniform_negatives": 0}
    with pytest.raises(ValidationError, match="expected at least 1 without in_batch_negatives, received 0"):
        TrainerSettings.model_validate({**settings().model_dump(), "softmax": softmax})


def test_uniform_draws_are_uniform() -> None:
    catalogue = {"item": tf.range(10, 20, dtype=tf.int64), CANDIDATE_ID: tf.range(10, dtype=tf.int64)}
    drawn = list(uniform_draws(catalogue, 500, seed=3).take(20).as_numpy_iterator())
    assert all(np.array_equal(part["item"] - 10, part[CANDIDATE_ID]) for part in drawn)
    counts = np.bincount(np.concatenate([part[CANDIDATE_ID] for part in drawn]), minlength=10)
    # 1000 each expected, standard deviation 30.
    assert counts == pytest.approx(np.full(10, 1000), abs=150)


def test_batches_without_draws_have_no_uniform_items() -> None:
    batch = next(iter(batches()))
    assert isinstance(batch, Batch) and not batch.uniform_items
    assert set(next(iter(batches(uniform=4))).uniform_items) == {"item", CANDIDATE_ID}


def test_a_first_run_has_epochs_and_a_rate_of_its_own_where_they_are_set() -> None:
    day = settings().model_copy(update={"epochs": 1, "learning_rate": 0.01})
    assert day.of_run(goes_on=False) == day
    both = day.model_copy(update={"catch_up": CatchUpSettings(epochs=6, learning_rate=0.03)})
    assert both.of_run(goes_on=True) == both
    first = both.of_run(goes_on=False)
    assert (first.epochs, first.learning_rate) == (6, 0.03)
    assert CatchUpSettings(epochs=6).learning_rate is None and both.epochs == 1


def test_without_layers_the_features_side_by_side_are_the_embedding() -> None:
    chosen = TrainerSettings.model_validate({"towers": {"query": [], "item": [8]}, "frequency": {"buckets": 256}})
    assert chosen.faults(SPEC) == []  # a user's row and a history's mean, of 4 values each
    model = build_model(SPEC, ROWS, chosen, ITEMS)
    user, past = tf.constant([3], tf.int64), tf.constant([[5, -1]], tf.int64)
    tables = model.query_tower.tables
    expected = np.concatenate([tables["user"].parts[0][3], tables["item"].parts[0][5]])
    embedded = model.query_tower({"user": user, "past": past})
    np.testing.assert_allclose(embedded[0], expected / np.linalg.norm(expected), rtol=1e-6)
    model.compile(optimizer=build_optimizer(chosen))
    before = tables["user"].parts[0].numpy()
    model.train_step(next(iter(batches())))
    assert not np.array_equal(tables["user"].parts[0], before)


@pytest.mark.parametrize(
    ("query", "item", "received"),
    [
        ([16, 8], [16, 4], "8, received 4"),
        ([8], [], "8, received 4 (without layers, that of its features side by side)"),
        ([], [4], "8, received 4 (without layers, that of its features side by side)"),
        ([], [], "8, received 4 (without layers, that of its features side by side)"),
    ],
)
def test_towers_that_end_at_two_widths_are_named(query: list[int], item: list[int], received: str) -> None:
    chosen = TrainerSettings.model_validate({"towers": {"query": query, "item": item}})
    assert chosen.faults(SPEC) == [(("towers", "item"), f"expected the query tower's last width, {received}")]


def test_every_kind_of_feature_has_the_width_that_the_tower_sees() -> None:
    """By hand: an id 4, ids 6, a text 6, a number 1, a vector 3 and its flag."""
    spec = FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "at"},
            "catalogue": {"item": "item"},
            "tables": {"item": {"width": 4, "hash_buckets": 9}, "word": {"width": 6, "hash_buckets": 9}},
            "query": {"past": {"kind": "history", "table": "item", "last": 2}},
            "item": {
                "item": {"kind": "id", "table": "item"},
                "kinds": {"kind": "ids", "table": "word", "max_values": 2},
                "name": {"kind": "text", "table": "word", "max_values": 2},
                "price": {"kind": "number"},
                "picture": {"kind": "vector", "size": 3},
            },
        }
    )
    widths = {"item": 4, "kinds": 6, "name": 6, "price": 1, "picture": 4}
    assert {name: spec.width({name: feature}) for name, feature in spec.item.items()} == widths
    tower = Tower(spec.item, build_tables({"item": 9, "word": 9}, {"item": 4, "word": 6}, 0), (), 0, "item_tower")
    rows = tf.zeros([1, 2], tf.int64)
    inputs = {
        "item": tf.zeros([1], tf.int64),
        "price": tf.zeros([1]),
        "picture": tf.ones([1, 4]),
        **dict.fromkeys(("kinds", "name"), rows),
        **{name + WEIGHTS_SUFFIX: tf.ones([1, 2]) for name in ("kinds", "name")},
    }
    assert tower(inputs).shape == [1, spec.width(spec.item)] == [1, 21]


def test_dropout_leaves_out_others_each_step_and_nothing_where_a_model_is_asked() -> None:
    chosen = settings().model_copy(update={"towers": TowerSettings(query=(64, 4), item=(4,), dropout=0.5)})
    with_dropout, without = (
        build_model(SPEC, ROWS, each, ITEMS)
        for each in (chosen, chosen.model_copy(update={"towers": TowerSettings(query=(64, 4), item=(4,))}))
    )
    inputs = next(iter(batches())).interactions
    first, second = tf.constant([3, 0], tf.int64), tf.constant([3, 1], tf.int64)
    embedded = with_dropout.query_tower(inputs, noise=first)
    assert np.array_equal(with_dropout.query_tower(inputs, noise=first), embedded)
    assert not np.allclose(with_dropout.query_tower(inputs, noise=second), embedded)
    # Of the item tower's single layer, which gives the embedding, nothing is left out.
    assert np.array_equal(with_dropout.item_tower(inputs, noise=first), with_dropout.item_tower(inputs))
    assert np.array_equal(with_dropout.query_tower(inputs), without.query_tower(inputs))
    # Training does leave out.
    losses = []
    for model, each in ((with_dropout, chosen), (without, chosen)):
        model.compile(optimizer=build_optimizer(each))
        model.train_step(next(iter(batches())))
        losses.append(model.mean_loss())
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"epochs": 2, "strategy": {"kind": "parameter_server"}}, "strategy.kind one_device or mirrored"),
        ({"epochs": 1}, "expected more than one epoch"),
    ],
)
def test_invalid_early_stopping_is_rejected(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainerSettings.model_validate({**settings().model_dump(), "early_stopping": {}, **changed})


def test_adagrad_starts_from_its_setting() -> None:
    # Sums of squares start from 9: a gradient of 4 moves a weight by 0.5 * 4 / sqrt(9 + 16), one of 0 not at all.
    optimizer = build_optimizer(settings().model_copy(update={"learning_rate": 0.5, "adagrad_start": 9.0}))
    weight = tf.Variable([1.0])
    for gradient in (4.0, 0.0):
        optimizer.apply_gradients([(tf.constant([gradient]), weight)])
        assert weight.numpy() == pytest.approx([1.0 - 0.4])


def test_diverged_training_is_an_error_with_advice(tmp_path: Path) -> None:
    hopeless = settings().model_copy(update={"learning_rate": 1e38})
    model = build_model(SPEC, ROWS, hopeless, ITEMS)
    model.compile(optimizer=build_optimizer(hopeless))
    model.make_weights(next(iter(batches())))
    training = Training(OwnBatches(lambda epoch, skip: batches()), 50, hopeless, str(tmp_path / "unfinished"))
    with pytest.raises(UserError, match=r"no longer finite. Lower trainer.learning_rate \(now 1e\+38\)"):
        train(model, TrainingState(model), training, str(tmp_path), one_device())


@pytest.mark.parametrize("switch", ["mixed_precision", "jit_compile"])
def test_a_switch_changes_how_a_step_is_computed_and_hardly_what(switch: str) -> None:
    # bfloat16 has 8 bits: of a unit vector's values some 0.004 are lost in each layer. XLA adds up in another order.
    losses, embedded = [], []
    for chosen in (settings(), settings().model_copy(update={switch: True})):
        model = build_model(SPEC, ROWS, chosen, ITEMS)
        model.compile(optimizer=build_optimizer(chosen), jit_compile=chosen.jit_compile)
        step, feed = model.make_train_function(), iter(batches())
        for _ in range(3):
            step(feed)
        losses.append(model.mean_loss())
        embedded.append(model.item_tower({"item": tf.range(ITEMS, dtype=tf.int64)}))
        assert {weight.dtype for weight in model.trainable_variables} == {tf.float32}
    assert losses[1] == pytest.approx(losses[0], rel=2e-2 if switch == "mixed_precision" else 1e-5)
    assert losses[1] != losses[0] or switch == "jit_compile"
    assert embedded[1].dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embedded[1], axis=1), 1.0, atol=1e-5)
