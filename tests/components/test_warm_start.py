"""Training continues from an earlier day's model: the origin of each row by hand, then real models with changing vocabularies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from components.analysis import files
from components.analysis.vocabulary import Known, entries, hash_rows
from components.trainer import warm_start
from components.trainer.inputs import Batch
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import ScheduleSettings, TrainerSettings
from components.trainer.state import TrainingState
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec

BUCKETS = 3  # of 3 buckets, TensorFlow hashes a and f to 0, b and c to 1, d and g to 2
SCALES = {"price": (2.5, 0.5)}
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {
            "user": {"width": 4, "hash_buckets": 5},
            "item": {"width": 3, "hash_buckets": BUCKETS, "vocabulary": {}},
        },
        "query": {"user": {"kind": "id", "table": "user"}, "past": {"kind": "history", "table": "item", "last": 2}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
SETTINGS = TrainerSettings.model_validate(
    {
        "towers": {"query": [8, 4], "item": [4]},
        "softmax": {"learn_temperature": True},
        "frequency": {"buckets": 64, "hashes": 2},
    }
)
BATCHES = ["abcd", "dcga", "bbfa", "gcad"]
optimizers = pytest.mark.parametrize("optimizer", ["adagrad", "adam"])


def tokens(ids: str) -> list[bytes]:
    """Every letter is an id."""
    return [letter.encode() for letter in ids]


def letters(ids: str) -> pd.DataFrame:
    """A vocabulary."""
    return entries(tokens(ids), [1.0] * len(ids))


class Day:
    """A model behind the analysis that gives each letter of `vocabulary` a row of its own, in that order."""

    def __init__(self, folder: Path, vocabulary: str, optimizer: Any = "adagrad", spec: FeatureSpec = SPEC) -> None:
        self.spec, self.vocabulary, self.kept = spec, vocabulary, str(folder / "warm_start")
        self.analysis = str(folder / "analysis")
        self.settings = SETTINGS.model_copy(update={"optimizer": optimizer})
        files.write(self.analysis, {"user": Known(), "item": Known(letters(vocabulary))}, SCALES, span=0)
        self.model = build_model(spec, files.table_rows(self.analysis, spec), self.settings)
        self.model.compile(optimizer=build_optimizer(self.settings))
        self.model.make_weights(self.batch("abcd"))
        self.state = TrainingState(self.model)

    def save(self) -> None:
        warm_start.save(self.state, warm_start.shape(self.spec, self.settings), self.analysis, self.kept)

    def go_on_from(self, earlier: "Day") -> None:
        warm_start.restore(
            self.state, self.spec, warm_start.shape(self.spec, self.settings), self.analysis, earlier.kept
        )

    def rows(self, ids: str) -> NDArray[np.int64]:
        """The row of each id in the item table."""
        behind = len(self.vocabulary) + hash_rows(tokens(ids), BUCKETS)
        return np.array(
            [
                self.vocabulary.find(one) if one in self.vocabulary else bucket
                for one, bucket in zip(ids, behind, strict=True)
            ]
        )

    def own_rows(self, ids: list[str]) -> list[int]:
        """The rows of ids of the vocabulary."""
        return [self.vocabulary.index(one) for one in ids]

    def batch(self, ids: str) -> Batch:
        """As many interactions as there are ids; user n had item n - 1 before item n."""
        rows = self.rows(ids)
        interactions = {
            "user": np.arange(len(ids)) % 5,
            "past": np.stack([np.full(len(ids), -1), np.roll(rows, 1)], axis=1),
            "past_ages": np.tile([-1, 7], (len(ids), 1)),
            "past_fingerprint": np.array([[ord(one), -1] for one in np.roll(list(ids), 1)]),
            "item": rows,
            CANDIDATE_ID: np.array([ord(one) for one in ids]),
            REWARD: np.ones(len(ids), np.float32),
        }
        return Batch({name: tf.constant(values) for name, values in interactions.items()}, {})

    def train(self, batches: list[str]) -> None:
        for ids in batches:
            self.model.train_step(self.batch(ids))

    def train_and_save(self) -> None:
        self.train(BATCHES)
        self.save()

    def embeddings(self, ids: str) -> NDArray[np.float32]:
        """What both towers say of them."""
        inputs = self.batch(ids).interactions
        return np.stack([self.model.query_tower(inputs).numpy(), self.model.item_tower(inputs).numpy()])

    def everything(self) -> dict[str, NDArray[Any]]:
        """All that training changes, by name."""
        tables = {f"{table}:{n}": v for table, variables in self.state.rows.items() for n, v in enumerate(variables)}
        estimator = {name: getattr(self.model.frequency, name) for name in ("step", "marks", "means")}
        return {name: v.numpy() for name, v in (tables | self.state.rest | estimator).items()}


@pytest.fixture
def days(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Day]:
    return lambda *arguments: Day(tmp_path_factory.mktemp("day"), *arguments)


@pytest.mark.parametrize(
    ("before", "after", "sources"),
    [
        ("abc", "abc", [0, 1, 2, 3, 4, 5]),
        ("abc", "cab", [2, 0, 1, 3, 4, 5]),
        ("abc", "b", [1, 3, 4, 5]),  # the buckets of three ids are at 3, 4 and 5
        ("ab", "dabf", [2 + 2, 0, 1, 2 + 0, 2, 3, 4]),  # d was in bucket 2, f in bucket 0, behind two ids
        ("ab", "cb", [2 + 1, 1, 2, 3, 4]),
        ("", "ad", [0, 2, 0, 1, 2]),  # a first vocabulary
        ("ab", "", [2, 3, 4]),
    ],
)
def test_where_each_row_comes_from(before: str, after: str, sources: list[int]) -> None:
    earlier, today = letters(before), letters(after)
    assert warm_start.moved_rows(earlier, today, BUCKETS).tolist() == sources
    # A mask that is new has no earlier row; one that goes leaves nothing behind.
    assert warm_start.moved_rows(earlier, today, BUCKETS, has_mask=True).tolist() == [*sources, warm_start.STARTS_ANEW]


@pytest.mark.parametrize(
    ("has_mask", "sources"),
    [
        (True, [5, 0, 1, 5, 2, 3, 4, 5]),  # two ids, three buckets, then the mask at 5: d and f were served by it
        (False, [5, 0, 1, 5, 2, 3, 4]),
    ],
)
def test_a_new_id_comes_from_the_mask_where_there_was_one(has_mask: bool, sources: list[int]) -> None:
    earlier, today = letters("ab"), letters("dabf")
    assert warm_start.moved_rows(earlier, today, BUCKETS, had_mask=True, has_mask=has_mask).tolist() == sources


def test_a_million_ids_move_at_once() -> None:
    # Of ids 0 to 999,999 the first tenth has expired, as many new ones came, and all are in another order.
    ids, new, width, buckets = 1_000_000, 100_000, 64, 1000
    named = [b"%d" % number for number in range(ids + new)]
    order = np.random.default_rng(0).permutation(np.arange(new, ids + new))
    zeros = [0.0] * ids
    before, after = entries(named[:ids], zeros), entries([named[number] for number in order], zeros)
    rows = np.broadcast_to(np.arange(ids + buckets, dtype=np.float32)[:, np.newaxis], (ids + buckets, width)).copy()
    moved = rows[warm_start.moved_rows(before, after, buckets)]
    known = order < ids
    assert moved.shape == (ids + buckets, width)
    assert np.array_equal(moved[:ids][known, -1], order[known])
    assert np.array_equal(
        moved[:ids][~known, -1], ids + hash_rows([named[number] for number in order[~known]], buckets)
    )
    assert np.array_equal(moved[ids:, -1], np.arange(ids, ids + buckets))


@optimizers
def test_the_second_day_of_a_run_with_no_new_ids_reproduces_yesterdays_embeddings_exactly_before_the_first_step(
    days: Callable[..., Day], optimizer: str
) -> None:
    yesterday, today = days("abcd", optimizer), days("abcd", optimizer)
    yesterday.train_and_save()
    assert not np.array_equal(today.embeddings("abcdefg"), yesterday.embeddings("abcdefg"))
    today.go_on_from(yesterday)
    assert np.array_equal(today.embeddings("abcdefg"), yesterday.embeddings("abcdefg"))


@optimizers
def test_all_that_training_changes_is_carried(days: Callable[..., Day], optimizer: str) -> None:
    yesterday, today = days("abcd", optimizer), days("abcd", optimizer)
    untrained = today.everything()
    yesterday.train_and_save()
    today.go_on_from(yesterday)
    expected, found = yesterday.everything(), today.everything()
    # Besides the weights: 1 slot of each for Adagrad and 2 for Adam, the step, and 3 of the estimator's. The weights: 2 tables, 3
    # layers of 2 each, the temperature.
    assert len(expected) == 9 * {"adagrad": 2, "adam": 3}[optimizer] + 1 + 3
    assert {name for name in expected if np.array_equal(expected[name], untrained[name])} == set()
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
    assert found["iterations"] == found["step"] == len(BATCHES)
    assert today.model.retrieval_loss.temperature == yesterday.model.retrieval_loss.temperature


@optimizers
@pytest.mark.parametrize("vocabulary", ["abcd", "abcdfg", "dbca", "cb", "gdaf"])
def test_rows_and_slots_follow_their_ids(days: Callable[..., Day], optimizer: str, vocabulary: str) -> None:
    yesterday, today = days("abcd", optimizer), days(vocabulary, optimizer)
    yesterday.train_and_save()
    untrained = [variable.numpy() for variable in today.state.rows["item"]]
    today.go_on_from(yesterday)
    known, new = (
        today.own_rows([one for one in vocabulary if (one in "abcd") == is_known]) for is_known in (True, False)
    )
    known_before = yesterday.own_rows([one for one in vocabulary if one in "abcd"])
    for position, (was, now) in enumerate(zip(yesterday.state.rows["item"], today.state.rows["item"], strict=True)):
        was, now = was.numpy(), now.numpy()
        assert np.array_equal(now[known], was[known_before])
        # One that is new was served by the mask, the last row; its optimizer's slots are those of a row without a step.
        expected = was[-1:] if position == 0 else untrained[position][new]
        assert np.array_equal(now[new], np.broadcast_to(expected, (len(new), *now.shape[1:])))
        assert np.array_equal(now[-1 - BUCKETS :], was[-1 - BUCKETS :])
    for was, now in zip(yesterday.state.rows["user"], today.state.rows["user"], strict=True):
        assert np.array_equal(now.numpy(), was.numpy())


@optimizers
def test_training_does_not_depend_on_the_order_of_the_rows(days: Callable[..., Day], optimizer: str) -> None:
    yesterday, today = days("abcdfg", optimizer), days("gcfdba", optimizer)
    yesterday.train_and_save()
    today.go_on_from(yesterday)
    for day in (yesterday, today):
        day.train(["gabc", "fdaa", "cbge"])
    np.testing.assert_allclose(today.embeddings("abcdefg"), yesterday.embeddings("abcdefg"), rtol=1e-5, atol=1e-6)


def test_the_saved_state_has_yesterdays_vocabulary_and_scales(days: Callable[..., Day]) -> None:
    yesterday = days("ca")
    yesterday.train_and_save()
    yesterday.save()  # a repeated attempt
    assert files.read_vocabulary(yesterday.kept, "item").index.tolist() == [b"c", b"a"]
    assert files.read_scales(yesterday.kept) == SCALES


def test_a_model_from_before_its_table_had_a_mask_is_gone_on_from(days: Callable[..., Day]) -> None:
    unmasked = changed(
        tables={**SPEC.model_dump()["tables"], "item": {**SPEC.tables["item"].model_dump(), "masked": 0}}
    )
    yesterday, today = days("abcd", "adagrad", unmasked), days("abf")
    yesterday.train_and_save()
    mask = today.state.rows["item"][0].numpy()[-1]
    today.go_on_from(yesterday)
    was, now = (day.state.rows["item"][0].numpy() for day in (yesterday, today))
    # The mask is as it was made; f lived in bucket 0, behind four ids.
    assert np.array_equal(now[-1], mask)
    assert np.array_equal(now[[0, 1, 2]], was[[0, 1, 4]])


def test_repeat_bonuses_are_carried_or_start_from_scratch(
    days: Callable[..., Day],
) -> None:
    history = {**SPEC.query["past"].model_dump(), "repeats": True, "encoder": "attention"}
    repeating = changed(query={**SPEC.model_dump()["query"], "past": history})
    before, yesterday, today = days("abcd"), days("abcd", "adagrad", repeating), days("abcd", "adagrad", repeating)
    anew = {name: value for name, value in today.everything().items() if name.startswith(("repeats", "attention"))}
    before.train_and_save()
    yesterday.go_on_from(before)
    found = yesterday.everything()
    # Level, slope and decay of one history, and how its items are weighed: by a query, ages and places; each with its slot.
    assert len(anew) == 12 and all(np.array_equal(found[name], value) for name, value in anew.items())
    assert all(np.array_equal(found[name], value) for name, value in before.everything().items())
    yesterday.train(BATCHES)
    # Of one item there is nothing to learn.
    yesterday.model.query_tower.attentions["past"].learned["query"].assign([1.0, 2.0, 3.0])
    yesterday.save()
    learnt = yesterday.everything()
    assert not any(
        np.array_equal(learnt[name], value) for name, value in anew.items() if "level:0" in name or "query:0" in name
    )
    today.go_on_from(yesterday)
    assert all(np.array_equal(value, learnt[name]) for name, value in today.everything().items())
    before.go_on_from(yesterday)  # and back


def test_a_history_that_the_tower_does_not_see_has_no_part_in_the_shape(days: Callable[..., Day]) -> None:
    past = SPEC.query["past"].model_dump()
    unseen = {**past, "encoder": "none", "negatives": False}
    others = {name: feature for name, feature in SPEC.model_dump()["query"].items() if name != "past"}
    settings = days("abcd").settings
    shapes = {
        name: warm_start.shape(changed(query=query), settings)
        for name, query in (
            ("seen", {**others, "past": {**past, "negatives": False}}),
            ("unseen", {**others, "past": unseen}),
            ("absent", others),
        )
    }
    assert shapes["unseen"] == shapes["absent"] != shapes["seen"] == warm_start.shape(SPEC, settings)


def changed(**declared: Any) -> FeatureSpec:
    return FeatureSpec.model_validate({**SPEC.model_dump(), **declared})


@pytest.mark.parametrize(
    ("spec", "differences"),
    [
        (
            changed(tables={"user": {"width": 6, "hash_buckets": 7}, "item": SPEC.tables["item"].model_dump()}),
            ["tables.user.hash_buckets: 5 before, 7 now", "tables.user.width: 4 before, 6 now"],
        ),
        (
            changed(
                query={"past": {"kind": "history", "table": "item", "last": 2}},
                item={
                    "item": {"kind": "id", "table": "item"},
                    "user": {"kind": "id", "table": "user"},
                },
            ),
            [
                'item.user: null before, {"derive": null, "kind": "id", "table": "user"} now',
                'query.user: {"derive": null, "kind": "id", "table": "user"} before, null now',
            ],
        ),
    ],
)
def test_another_shape_is_refused_by_its_differences_and_nothing_is_loaded(
    days: Callable[..., Day], spec: FeatureSpec, differences: list[str]
) -> None:
    yesterday = days("abcd")
    yesterday.train_and_save()
    today = days("abcd", "adagrad", spec)
    before = today.everything()
    with pytest.raises(UserError) as refused:
        today.go_on_from(yesterday)
    assert {f"  {each}" for each in differences} <= set(str(refused.value).splitlines())
    assert "on_other_shape=restart" in str(refused.value)
    for name, values in today.everything().items():
        assert np.array_equal(values, before[name]), name


def test_features_in_another_order_are_another_shape(days: Callable[..., Day]) -> None:
    """Regression: they took each other's weights, as the first layer knows its inputs by their place."""
    yesterday = days("abcd")
    yesterday.train_and_save()
    turned = changed(query=dict(reversed(SPEC.model_dump()["query"].items())))
    with pytest.raises(UserError, match=r'order.query: \["user", "past"\] before, \["past", "user"\] now'):
        days("abcd", "adagrad", turned).go_on_from(yesterday)


def test_where_a_features_values_come_from_is_no_matter_of_shape() -> None:
    renamed = changed(
        query={
            "user": {"kind": "id", "table": "user", "column": "visitor"},
            "past": {"kind": "history", "table": "item", "last": 9},
        }
    )
    assert warm_start.shape(renamed, SETTINGS) == warm_start.shape(SPEC, SETTINGS)


def test_how_a_model_is_trained_is_no_matter_of_shape() -> None:
    towers = SETTINGS.towers.model_copy(update={"dropout": 0.5})
    otherwise = SETTINGS.model_copy(
        update={"towers": towers, "weight_decay": 0.1, "schedule": ScheduleSettings(kind="linear")}
    )
    assert warm_start.shape(SPEC, otherwise) == warm_start.shape(SPEC, SETTINGS)
