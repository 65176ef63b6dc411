"""The search for settings: real trials over a small day, gone on with after a kill, and judged by users that had no part in it."""

from pathlib import Path

import numpy as np
import optuna
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from optuna.trial import TrialState

from components.trainer.day import Places, TrainingDay
from components.trainer.held_out import HeldOut
from components.trainer.settings import TowerSettings, TrainerSettings
from components.tuner import search as searching
from components.tuner.search import LAYERS, LEARNING_RATE, NEGATIVES, Search
from components.tuner.settings import TunerSettings
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec
from tests.components.exported import export

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"user": {"width": 8, "hash_buckets": 512}, "item": {"width": 8, "hash_buckets": 512}},
        "query": {"user": {"kind": "id", "table": "user"}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
TOWERS = {"query": [8], "item": [8]}
USERS, ITEMS, EACH = 60, 20, 6
# Only the learning rate is searched for, which is a ten thousandth of what it has to be.
SETTINGS = TunerSettings(
    temperature=(0.2, 0.2), strength=(1.0, 1.0), masked=(0.1, 0.1), uniform_negatives=(), layers=(),
    learning_rate=(1.0, 1e5), epochs=4,
)  # fmt: skip
TRAINER = TrainerSettings.model_validate(
    {
        "towers": TOWERS, "batch_size": 60, "epochs": 1, "learning_rate": 1e-5, "softmax": {"temperature": 0.2},
        "frequency": {"buckets": 64, "hashes": 1},
    }
)  # fmt: skip


def example(user: int, item: int, reward: float = 1.0) -> bytes:
    """A user takes the items of its own fifth of the catalogue, and no other."""
    made = tf.train.Example()
    for name, value in (("user", user), ("item", item), (CANDIDATE_ID, item), (QUERY_ID, user)):
        made.features.feature[name].bytes_list.value.append(b"%d" % value)
    made.features.feature[TIMESTAMP].int64_list.value.append(0)
    made.features.feature[REWARD].float_list.value.append(reward)
    return made.SerializeToString()


def written(path: Path, examples: list[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for each in examples:
            writer.write(each)
    return str(path)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    root = tmp_path_factory.mktemp("tuner")
    export(SPEC, TOWERS, root / "before")
    transform = tft.TFTransformOutput(str(root / "before" / "transform"))
    raw = [example(user, 5 * (item % 4) + user % 5) for user in range(USERS) for item in range(EACH)]
    features = {name: tf.io.VarLenFeature(tf.string) for name in ("user", "item", CANDIDATE_ID, QUERY_ID)}
    features |= {TIMESTAMP: tf.io.VarLenFeature(tf.int64), REWARD: tf.io.VarLenFeature(tf.float32)}
    transformed = transform.transform_features_layer()(tf.io.parse_example(raw, features))
    train = []
    for row in range(len(raw)):
        made = tf.train.Example()
        for name, values in transformed.items():
            value = values.numpy()[row]
            kind = made.features.feature[name]
            (kind.float_list if values.dtype == tf.float32 else kind.int64_list).value.append(value)
        train.append(made.SerializeToString())
    return Places(
        str(root / "before" / "transform"),
        str(root / "before" / "analysis"),
        (written(root / "train.gz", train),),
        (written(root / "catalogue.gz", [example(0, item) for item in range(ITEMS)]),),
        (),
        len(train),
    )


@pytest.fixture(scope="module")
def day(places: Places) -> TrainingDay:
    return TrainingDay(places, SPEC)


@pytest.fixture(scope="module")
def held_out(day: TrainingDay, tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    """Each user once with an item of its own; one without a reward and one with an item that is gone, which nobody ranks."""
    asked = [example(user, 5 * (user % 4) + user % 5) for user in range(USERS)]
    others = [example(1, 2, reward=0.0), example(1, 99)]
    return day.held_out([written(tmp_path_factory.mktemp("held") / "out.gz", asked + others)], 20_000)


def search(day: TrainingDay, held_out: HeldOut, folder: Path) -> Search:
    return Search(day, held_out, TRAINER, SETTINGS, 4, folder)


def test_a_learning_rate_that_teaches_nothing_is_left_for_one_that_does(
    day: TrainingDay, held_out: HeldOut, tmp_path: Path
) -> None:
    begun = search(day, held_out, tmp_path)
    told: list[int] = []
    begun.run(1e-9, lambda trial: told.append(trial.number))  # the settings as they are are tried whatever it takes
    assert told == [0]
    current = begun.trials[0]
    assert (current.values, len(current.curve)) == ({LEARNING_RATE: 1e-5}, 1)

    # Killed in its second trial: what it had chosen is tried again, under another number.
    killed = begun._study.ask()
    chosen = begun._chosen(killed)
    gone_on = search(day, held_out, tmp_path)
    assert [trial.number for trial in gone_on.trials] == [0]
    gone_on.run(gone_on.trials[0].seconds + 1e-6, lambda trial: told.append(trial.number))
    assert gone_on._study.trials[killed.number].state == TrialState.FAIL
    assert told == [0, 2] and gone_on.trials[1].values == chosen

    # Nor are earlier draws repeated, as they would be by a sampler that starts again.
    drawn = gone_on._study.ask()
    assert gone_on._chosen(drawn) != chosen
    gone_on._study.tell(drawn.number, state=TrialState.FAIL)

    for rate in (1.0, 3e-5):
        gone_on._study.enqueue_trial({LEARNING_RATE: rate})
        gone_on._try(gone_on._study.ask(), float("inf"))
    # The one that learns nothing is stopped on the way, the other is whole.
    whole, stopped = gone_on.trials[-2:]
    assert (stopped.state, whole.state, len(whole.curve)) == ("stopped", "complete", 4)
    assert len(stopped.curve) < 4

    gain = gone_on.gain()
    # A user's items are 4 of 20, so that the first 4 are all of them where that was learnt, and 4 in 20 by chance.
    assert gain.trial == whole.number and gain.after > 0.6
    assert gain.lower is not None and gain.lower > 0.2
    assert gain.difference == pytest.approx(gain.after - gain.before)
    # By the users that had no part in the choice.
    assert gain.after == pytest.approx(gone_on._hits(whole.number, gain.epochs).mean())
    assert len(gone_on._hits(whole.number, gain.epochs)) == (~held_out.chooses).sum()
    expected = {LEARNING_RATE: 1.0} | ({"trainer.catch_up.epochs": gain.epochs} if gain.epochs != 1 else {})
    assert gone_on.configured(whole.values, gain.epochs) == expected


def test_negatives_of_the_catalogue_alone_are_not_tried_without_any(
    day: TrainingDay, held_out: HeldOut, tmp_path: Path
) -> None:
    for in_batch, expected in ((True, (0, 256)), (False, (256,))):
        softmax = TRAINER.softmax.model_copy(update={"in_batch_negatives": in_batch, "uniform_negatives": 256})
        trainer = TRAINER.model_copy(update={"softmax": softmax})
        tuner = SETTINGS.model_copy(update={"uniform_negatives": (0, 256)})
        begun = Search(day, held_out, trainer, tuner, 4, tmp_path / str(in_batch))
        trial = optuna.trial.FixedTrial({NEGATIVES: 256, LEARNING_RATE: 1.0})
        begun._chosen(trial)  # type: ignore[arg-type]
        distribution = trial.distributions[NEGATIVES]
        assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
        assert distribution.choices == expected


def test_layers_are_tried_that_are_others_than_the_current_and_keep_the_width(
    day: TrainingDay, held_out: HeldOut, tmp_path: Path
) -> None:
    """Regression: a tower without layers counted as linear, and what was tried beside it lost the embedding's width."""
    tuner = SETTINGS.model_copy(update={"layers": ((), (16,))})
    for number, (query, item, expected) in enumerate(
        [
            ((8,), (8,), ("configured", "[16]")),
            ((), (), ("configured", "linear", "[16]")),
            ((16, 8), (16, 8), ("configured", "linear")),
            ((16, 8), (8,), ("configured", "linear", "[16]")),
        ]
    ):
        trainer = TRAINER.model_copy(update={"towers": TowerSettings(query=query, item=item)})
        begun = Search(day, held_out, trainer, tuner, 4, tmp_path / str(number))
        trial = optuna.trial.FixedTrial({LAYERS: "configured", LEARNING_RATE: 1.0})
        begun._chosen(trial)  # type: ignore[arg-type]
        distribution = trial.distributions[LAYERS]
        assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
        assert distribution.choices == expected
        assert begun._applied({LAYERS: "[16]"})[1].towers == TowerSettings(query=(16, 8), item=(16, 8))


def test_halves_are_of_users_and_hits_are_those_of_exact_search(
    day: TrainingDay, held_out: HeldOut, tmp_path: Path
) -> None:
    assert 15 <= held_out.chooses.sum() <= 45 and len(held_out.chooses) == USERS  # a user each
    one = search(day, held_out, tmp_path)
    seen = []

    def is_enough(epoch: int, model: object) -> bool:
        queries = model.query_tower(held_out.queries).numpy()  # type: ignore[attr-defined]
        items = model.item_tower(day.catalogue).numpy()  # type: ignore[attr-defined]
        order = np.argsort(-(queries @ items.T), axis=1)[:, :4]
        found = [(5 * (user % 4) + user % 5) in order[user] for user in range(USERS)]
        seen.append((held_out.hits(model, 4), found))  # type: ignore[arg-type]
        return True

    one._train({LEARNING_RATE: 1.0}, is_enough)
    ((hits, found),) = seen
    assert hits.tolist() == [float(each) for each in found]


def test_a_trial_that_diverges_is_an_answer(
    day: TrainingDay, held_out: HeldOut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*_: object) -> None:
        raise UserError("Training diverged")

    monkeypatch.setattr(searching, "train", diverging)
    one = search(day, held_out, tmp_path)
    one._try(one._study.ask(), float("inf"))
    (trial,) = one.trials
    assert (trial.state, trial.curve) == ("diverged", ())


def test_a_day_that_holds_nothing_out_is_refused(day: TrainingDay, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no held-out interaction"):
        day.held_out([written(tmp_path / "none.gz", [])], 20_000)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": [0.5, 0.1]}, "expected the lower end first"),
        ({"strength": [0.0, 1.5]}, "expected shares from 0.0 to 1.0"),
        ({"masked": [0.0, 0.5]}, "expected shares from 1e-06"),
    ],
)
def test_ranges_that_are_none_are_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        TunerSettings.model_validate(settings)
