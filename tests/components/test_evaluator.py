"""The gate: ranked examples of known places through TFX's own Evaluator, with everything that blesses or refuses."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import json_utils, proto_utils

from components.evaluator import names, ranked, slices
from components.evaluator.eval_config import eval_config
from components.evaluator.evaluator import EvaluatorExecutor
from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    BASELINES,
    CANDIDATE,
    CONTENT_NEIGHBOURS,
    COOCCURRENCE,
    NEW_QUERIES_OLD_ITEMS,
    POPULARITY,
    RECENT_POPULARITY,
    SIMILAR_ITEMS,
    TAKEN_BEFORE,
)
from components.evaluator.ranking import Ranks
from components.evaluator.settings import EvaluatorSettings
from components.evaluator.statistics import added
from schemas.features import FeatureSpec

ITEMS = 20
SETTINGS: dict[str, Any] = {"recall_at": [1, 5], "retrieved_at": 2, "minimum_index_recall": 0.5}
STATISTICS = EvaluatorSettings.model_validate(SETTINGS).statistics


@dataclass
class Interaction:
    """A held-out interaction, a cell of its own: the place of its item by every scorer, from 0, and how many are tied."""

    user: int
    places: dict[str, int]
    tied: int = 0
    true_items: int = 1
    found: float | None = 1.0
    """The share that the retriever finds; None if it was not asked."""
    retrieved: tuple[int, ...] = (0, 1)
    part: str = "head"

    def serialized(self) -> bytes:
        example = tf.train.Example()
        features = example.features.feature
        own = {names.ITEM_POPULARITY: self.part, names.ITEM_AGE: "known", names.USER: "known"}
        for name, value in {**own, names.HISTORY_LENGTH: "0"}.items():
            features[slices.feature(name)].bytes_list.value.append(value.encode())
        features[ranked.USER_GROUP].int64_list.value.append(self.user % ranked.USER_GROUPS)
        features[ranked.CATALOGUE_SIZE].int64_list.value.append(ITEMS)
        for scorer, place in self.places.items():
            ranks = Ranks(np.array([place]), np.array([self.tied]))
            sets = np.array([self.true_items]), np.array([1])
            asked, found = (0.0, 0.0) if self.found is None else (1.0, self.found)
            values = added(STATISTICS, ranks, *sets, np.array([[0.1, 3.0, asked, found]]))
            features[ranked.sums_feature(scorer)].bytes_list.value.append(values[0].astype("<f8").tobytes())
            features[ranked.retrieved_feature(scorer)].int64_list.value.extend(self.retrieved)
        return example.SerializeToString()


@dataclass
class Judgement:
    """What the Evaluator said."""

    metrics: dict[str, Any]
    blessed: bool
    refused: list[str]
    not_judged: list[str]
    full: dict[str, Any] = field(default_factory=dict)


def judge(folder: Path, interactions: Sequence[Interaction], workers: int = 1, **settings: Any) -> Judgement:
    """Evaluates interactions, in as many files as workers."""
    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(folder / "examples"), artifact_utils.encode_split_names(["sums"])
    split = folder / "examples" / "Split-sums"
    split.mkdir(parents=True)
    for number in range(workers):
        with tf.io.TFRecordWriter(str(split / f"{number}.gz"), options="GZIP") as writer:
            for interaction in interactions[number::workers]:
                writer.write(interaction.serialized())
    inputs = {}
    for name in ("model", "baseline_model") if BASELINE in interactions[0].places else ("model",):
        model = standard_artifacts.Model()
        model.uri = str(folder / name)
        (folder / name).mkdir()
        inputs[name] = [model]
    has_history = COOCCURRENCE in interactions[0].places
    return evaluate(folder, examples.uri, inputs, {**SETTINGS, **settings}, has_history, workers)


def evaluate(
    folder: Path,
    ranked_examples: str,
    models: dict[str, list[types.Artifact]],
    settings: dict[str, Any],
    has_history: bool,
    workers: int = 1,
) -> Judgement:
    """Runs the Evaluator's executor, as TFX does, over what the Ranker left in a folder."""
    examples, evaluation, blessing = (
        standard_artifacts.Examples(),
        standard_artifacts.ModelEvaluation(),
        standard_artifacts.ModelBlessing(),
    )
    examples.uri, examples.split_names = ranked_examples, artifact_utils.encode_split_names(["sums"])
    for name, artifact in {"evaluation": evaluation, "blessing": blessing}.items():
        artifact.uri = str(folder / name)
        (folder / name).mkdir(parents=True)
    config = eval_config(EvaluatorSettings.model_validate(settings), has_history)
    properties = {
        "eval_config": proto_utils.proto_to_json(config),
        "example_splits": json_utils.dumps(["sums"]),
        "fairness_indicator_thresholds": None,
    }
    context = base_beam_executor.BaseBeamExecutor.Context(
        beam_pipeline_args=[f"--direct_num_workers={workers}", "--sdk_container_image=none"],
        tmp_dir=str(folder / "tmp"),
        unique_id="1",
    )
    inputs = {"examples": [examples], **models}
    EvaluatorExecutor(context).Do(inputs, {"evaluation": [evaluation], "blessing": [blessing]}, properties)
    return Judgement(
        json.loads(evaluation.get_string_custom_property("metrics")),
        blessing.get_int_custom_property("blessed") == 1
        and [path.name for path in (folder / "blessing").iterdir()] == ["BLESSED"],
        json.loads(evaluation.get_string_custom_property("refused")),
        json.loads(evaluation.get_string_custom_property("not_judged")),
        json.loads((folder / "evaluation" / "metrics.json").read_text()),
    )


def crowd(candidate: Sequence[int], **others: Sequence[int]) -> list[Interaction]:
    """An interaction a user, with the places by each scorer; baselines put every item last unless told otherwise."""
    last = [ITEMS - 1] * len(candidate)
    columns = {CANDIDATE: candidate, POPULARITY: last, RECENT_POPULARITY: last, TAKEN_BEFORE: last, **others}
    return [
        Interaction(user, {scorer: places[user] for scorer, places in columns.items()})
        for user in range(len(candidate))
    ]


def test_metrics_of_a_first_run(tmp_path: Path) -> None:
    # Four users: places 0, 2, 4 and 9. recall@1 is 1/4, recall@5 is 3/4; mrr (1 + 1/3 + 1/5 + 1/10) / 4.
    # A limit on a change is not checked.
    limits = [{"metric": "recall_at_1", "fall_at_most": 0.0}]
    found = judge(tmp_path, crowd([0, 2, 4, 9], cooccurrence=[0, 0, 9, 9]), limits=limits)
    whole = found.metrics["all"]
    assert (whole["interactions"], whole["queries"], whole["candidates"]) == (4, 4, "catalogue")
    model = {name: value for name, (value, *_) in whole[CANDIDATE].items()}
    assert (model["recall_at_1"], model["recall_at_5"]) == (0.25, 0.75)
    assert model["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 5 + 1 / 10) / 4)
    assert model["ndcg_at_5"] == pytest.approx((1 + 1 / 2 + 1 / np.log2(6)) / 4)
    assert model["popularity_at_2"] == pytest.approx(0.1)
    assert model["novelty_at_2"] == pytest.approx(3.0)
    assert model["coverage_at_2"] == 2 / 20  # every query retrieves the same two
    assert model["index_recall_at_2"] == 1.0
    assert (model["recall_at_1_over_popularity"], model["recall_at_5_over_cooccurrence"]) == (0.25, 0.25)
    assert BASELINE not in whole and "change" not in whole
    assert "index_recall_at_2" not in whole[POPULARITY]
    assert whole[COOCCURRENCE]["recall_at_1"][0] == 0.5
    assert found.blessed and not found.refused and not found.not_judged
    # One interaction a user, so the error is the textbook's: sqrt(.25 * .75 / 3); Student's t of 3 degrees of freedom is 3.182.
    value, low, high = whole[CANDIDATE]["recall_at_1_over_popularity"]
    assert (high - value, value - low) == pytest.approx((3.182 * (0.25 * 0.75 / 3) ** 0.5,) * 2, rel=1e-3)
    assert whole[CANDIDATE]["recall_at_1"] == [0.25, 0.0, 1.0]  # as far, but a share has ends
    assert whole[CANDIDATE]["novelty_at_2"] == pytest.approx([3.0, 3.0, 3.0])
    assert whole[CANDIDATE]["coverage_at_2"][1:] == [None, None]


def test_tfmas_metric_names_include_the_candidate_set(tmp_path: Path) -> None:
    whole = judge(tmp_path, crowd([0, 1]), exclude_history=True).metrics["all"]
    assert whole["candidates"] == "unseen"
    config = eval_config(EvaluatorSettings(exclude_history=True), has_history=True)
    names = [json.loads(metric.config)["name"] for spec in config.metrics_specs for metric in spec.metrics]
    assert {"recall_at_50_of_unseen", "ndcg_at_10_of_unseen_by_popularity"} <= set(names)
    config = eval_config(EvaluatorSettings(), has_history=True)
    names = [json.loads(metric.config)["name"] for spec in config.metrics_specs for metric in spec.metrics]
    assert {"recall_at_300_of_catalogue", "recall_at_50_of_catalogue_over_cooccurrence"} <= set(names)


def test_chance_perfect_and_reversed_models(tmp_path: Path) -> None:
    users, last = 40, dict.fromkeys(BASELINES, ITEMS - 1)
    kinds = {"head": ("chance", 0, ITEMS - 1), "torso": ("perfect", 0, 0), "tail": ("reversed", ITEMS - 1, 0)}
    interactions = [
        Interaction(user, last | {CANDIDATE: place}, tied, part=part)
        for part, (_, place, tied) in kinds.items()
        for user in range(users)
    ]
    found = judge(tmp_path, interactions, below_popularity="bless").full
    of_all = {name: found[f"item_popularity={part}"][CANDIDATE] for part, (name, *_) in kinds.items()}
    for k in (1, 5):
        assert of_all["chance"][f"recall_at_{k}"][0] == pytest.approx(k / ITEMS)
        assert of_all["perfect"][f"recall_at_{k}"][0] == of_all["perfect"][f"ndcg_at_{k}"][0] == 1.0
        assert of_all["reversed"][f"recall_at_{k}"][0] == of_all["reversed"][f"ndcg_at_{k}"][0] == 0.0
    harmonic = sum(1 / n for n in range(1, ITEMS + 1))
    assert of_all["chance"]["mrr"][0] == pytest.approx(harmonic / ITEMS)
    assert (of_all["perfect"]["mrr"][0], of_all["reversed"]["mrr"][0]) == (1.0, pytest.approx(1 / ITEMS))


def test_a_model_below_popularity_is_not_blessed_unless_configuration_says_so(tmp_path: Path) -> None:
    worse = crowd([0, 9, 9, 9], popularity=[0, 0, 9, 9])
    found = judge(tmp_path / "1", worse)
    assert not found.blessed
    assert found.refused == [
        f"recall_at_{k}_of_catalogue_over_strongest: -0.2500; expected at least 0.0000" for k in (1, 5)
    ]
    assert judge(tmp_path / "2", worse, below_popularity="bless").blessed
    assert judge(tmp_path / "3", crowd([0, 0, 9, 9], popularity=[0, 0, 9, 9])).blessed  # as good is not below


def test_the_strongest_of_the_baselines_that_are_named_is_to_be_beaten(tmp_path: Path) -> None:
    # recall@1: the model 1/4, what was taken before 3/4; recall@5: co-occurrence 1, the model 3/4.
    interactions = crowd([0, 4, 4, 9], taken_before=[0, 0, 0, 9], cooccurrence=[1, 1, 1, 1])
    assert judge(tmp_path / "1", interactions).blessed  # neither is named
    found = judge(tmp_path / "2", interactions, beat=["popularity", "taken_before", "cooccurrence"])
    assert found.refused == [
        "recall_at_1_of_catalogue_over_strongest: -0.5000; expected at least 0.0000",
        "recall_at_5_of_catalogue_over_strongest: -0.2500; expected at least 0.0000",
    ]
    whole = found.metrics["all"][CANDIDATE]
    assert whole["recall_at_5_over_strongest"] == whole["recall_at_5_over_cooccurrence"]
    limit = {"metric": "recall_at_1_over_strongest", "at_least": -0.6}
    settings: dict[str, Any] = {"beat": ["taken_before"], "below_popularity": "bless"}
    assert judge(tmp_path / "3", interactions, limits=[limit], **settings).blessed


def test_items_as_new_have_limits_of_their_own(tmp_path: Path) -> None:
    # The items of two of the four are as new: one is found first, the other is not found.
    interactions = crowd([0, 0, 0, 0])
    for user, place in ((1, 0), (3, 9)):
        interactions[user].places |= {AS_NEW: place, CONTENT_NEIGHBOURS: 3}
    limit = {"metric": "recall_at_1", "slice": {"item_age": "as_new"}, "at_least": 0.6}
    found = judge(tmp_path / "1", interactions, limits=[limit])
    whole = found.metrics["all"]
    assert whole[AS_NEW]["interactions"] == [2.0, None, None]
    assert whole[AS_NEW]["recall_at_1"] == [0.5, 0.0, 1.0]
    assert whole[CONTENT_NEIGHBOURS]["recall_at_5"][0] == 1.0
    assert whole[AS_NEW]["recall_at_5_over_content_neighbours"][0] == -0.5
    assert found.refused == ["recall_at_1_of_catalogue_by_as_new: 0.5000; expected at least 0.6000"]
    assert judge(tmp_path / "2", interactions, limits=[{**limit, "at_least": 0.5}]).blessed
    # Where no interaction is with one, there is nothing to judge, and nothing else is hidden by that.
    none = judge(tmp_path / "3", crowd([0, 0, 0, 0]), limits=[limit])
    assert (none.blessed, none.refused, none.not_judged) == (True, [], ["item_age=as_new"])
    assert AS_NEW not in none.metrics["all"] or set(none.metrics["all"][AS_NEW]) == {"interactions"}
    both = judge(tmp_path / "4", crowd([9, 9, 9, 9]), limits=[limit, {"metric": "recall_at_1", "at_least": 0.4}])
    assert (both.blessed, len(both.refused), both.not_judged) == (False, 1, ["item_age=as_new"])


def test_version_skew_is_reported(tmp_path: Path) -> None:
    found = judge(tmp_path, crowd([0, 0, 9, 9], baseline=[0, 9, 9, 9], new_queries_old_items=[9, 9, 9, 0]))
    assert found.metrics["all"][NEW_QUERIES_OLD_ITEMS]["recall_at_1"][0] == 0.25
    assert set(found.metrics["all"][NEW_QUERIES_OLD_ITEMS]) == {"recall_at_1", "recall_at_5"}


def test_similar_items_are_measured_where_there_are_histories(tmp_path: Path) -> None:
    # Three of four interactions have a history: of these, two have their item among the first five.
    interactions = crowd([0, 0, 0, 0], cooccurrence=[0, 0, 0, 0], similar_items=[0, 4, 9, 9])
    del interactions[3].places[SIMILAR_ITEMS]
    found = judge(tmp_path / "histories", interactions).metrics["all"][SIMILAR_ITEMS]
    assert {name: value for name, (value, *_) in found.items()} == pytest.approx(
        {"recall_at_1": 1 / 3, "recall_at_5": 2 / 3}
    )
    assert SIMILAR_ITEMS not in judge(tmp_path / "none", crowd([0, 0, 0, 0])).metrics["all"]


def test_the_index_has_a_limit_of_its_own(tmp_path: Path) -> None:
    interactions = crowd([0, 0])
    for interaction in interactions:
        interaction.found = 0.4
    found = judge(tmp_path, interactions)
    assert not found.blessed
    assert found.refused == ["index_recall_at_2_of_catalogue: 0.4000; expected at least 0.5000"]


def test_the_limit_of_the_index_is_for_the_queries_that_it_was_asked(tmp_path: Path) -> None:
    interactions = crowd([0, 0, 0])
    interactions[0].found, interactions[1].found, interactions[2].part = 0.6, None, "tail"
    interactions[2].found = None
    limits = [{"metric": "index_recall_at_2", "slice": {"item_popularity": "tail"}, "at_least": 0.9}]
    found = judge(tmp_path, interactions, limits=limits)
    assert found.metrics["all"][CANDIDATE]["index_recall_at_2"][0] == 0.6
    assert "index_recall_at_2" not in found.full["item_popularity=tail"][CANDIDATE]
    assert (found.blessed, found.refused, found.not_judged) == (True, [], ["item_popularity=tail"])


def test_change_against_the_last_blessed_model(tmp_path: Path) -> None:
    # On four users: recall@1 is 1/4 now, 3/4 by the last blessed model; a pair of users each differs by 1 or 0.
    interactions = crowd([0, 9, 9, 9], baseline=[0, 0, 0, 9])
    limits = [{"metric": "recall_at_1", "fall_at_most": 0.5}, {"metric": "mrr", "rise_at_most": 0.0}]
    loose = judge(tmp_path / "1", interactions, limits=limits)
    assert loose.blessed
    value, low, high = loose.metrics["all"]["change"]["recall_at_1"]
    # Differences 0, -1, -1, 0: the error of their mean is sqrt((4 * .25 / 3) / 4), as the same users are in both.
    assert (value, (high - low) / 2) == (-0.5, pytest.approx(3.182 * (1 / 12) ** 0.5, rel=1e-3))
    assert loose.metrics["all"][BASELINE]["recall_at_1"][0] == 0.75
    strict = judge(tmp_path / "2", interactions, limits=[{"metric": "recall_at_1", "fall_at_most": 0.4}])
    assert not strict.blessed
    assert strict.refused == [
        "recall_at_1_of_catalogue: 0.5000 below that of the last blessed model; 0.4000 below is allowed"
    ]


def test_a_model_that_training_on_made_worse_beyond_noise_is_not_blessed(tmp_path: Path) -> None:
    # Of ten users five are no longer served: a fall of 1/2. The differences' deviation is (10 / 4 / 9)^.5, the error of their mean
    # that over 10^.5, 1/6; of 9 degrees of freedom, 2.262 of it is .377.
    worse = crowd([0] * 5 + [9] * 5, baseline=[0] * 10)
    found = judge(tmp_path / "1", worse)
    assert not found.blessed
    assert found.refused == [
        f"recall_at_{k}_of_catalogue: 0.5000 below that of the last blessed model; 0.0000 below is allowed "
        "(95 %: -0.8770 to -0.1230)"
        for k in (1, 5)
    ]
    assert judge(tmp_path / "2", worse, below_last_blessed="bless").blessed
    # One of ten that falls is noise: 1/10, of an error of 1/10. Of it a limit that asks for none knows nothing.
    noise = crowd([0] * 9 + [9], baseline=[0] * 10)
    assert judge(tmp_path / "3", noise).blessed
    strict = judge(tmp_path / "4", noise, limits=[{"metric": "recall_at_1", "fall_at_most": 0.0}])
    assert strict.refused == [
        "recall_at_1_of_catalogue: 0.1000 below that of the last blessed model; 0.0000 below is allowed"
    ]


def test_limits_on_slices(tmp_path: Path) -> None:
    interactions = crowd([0, 0, 0, 9])
    interactions[3].part = "tail"
    tail = {"metric": "recall_at_5", "slice": {"item_popularity": "tail"}, "at_least": 0.1}
    crossed = {**tail, "slice": {"item_popularity": "tail", "item_age": "known"}}
    # A limit without a slice is for all interactions, not for each of their slices.
    found = judge(tmp_path, interactions, limits=[tail, crossed, {"metric": "recall_at_5", "at_least": 0.7}])
    assert not found.blessed
    assert sorted(found.refused) == [
        "recall_at_5_of_catalogue of item_age=known, item_popularity=tail: 0.0000; expected at least 0.1000",
        "recall_at_5_of_catalogue of item_popularity=tail: 0.0000; expected at least 0.1000",
    ]
    assert found.metrics["item_popularity=head"]["interactions"] == 3
    assert found.metrics["item_popularity=tail"][CANDIDATE]["recall_at_5"] == [0.0, None, None]  # one user: no interval


def test_a_limit_on_an_empty_slice_is_reported_as_not_judged(tmp_path: Path) -> None:
    """An empty slice does not hide a missed limit. The test of items as new, above, has one without a missed limit."""
    limits = [
        {"metric": "recall_at_5", "slice": {"item_age": "fresh"}, "at_least": 0.9},
        {"metric": "recall_at_1", "at_least": 0.4},
    ]
    found = judge(tmp_path, crowd([9, 9]), limits=limits)
    assert (found.blessed, len(found.refused), found.not_judged) == (False, 1, ["item_age=fresh"])


def test_several_workers_say_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    places = random.integers(0, ITEMS, (6, 200))
    interactions = [
        Interaction(
            int(random.integers(60)),
            dict(zip((CANDIDATE, BASELINE, *BASELINES), places[:, n].tolist(), strict=True)),
            tied=0,
            retrieved=tuple(random.permutation(ITEMS)[:2].tolist()),
            part=str(random.choice(["head", "tail"])),
        )
        for n in range(200)
    ]
    one, three = (judge(tmp_path / str(workers), interactions, workers, below_popularity="bless") for workers in (1, 3))
    assert one.full.keys() == three.full.keys()
    for name, of_slice in one.full.items():
        for key, expected in of_slice.items():
            found = three.full[name][key]
            if isinstance(expected, dict):
                for metric, values in expected.items():
                    assert found[metric] == pytest.approx(values, abs=1e-12), (name, key, metric)
            else:
                assert found == expected
    for k in (1, 5):
        assert one.metrics["all"][CANDIDATE][f"recall_at_{k}"][0] == pytest.approx((places[0] < k).mean())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limits": [{"metric": "recall_at_7", "at_least": 0.1}]}, "limits.0.metric: expected one of recall_at_10,"),
        ({"limits": [{"metric": "mrr", "slice": {"planet": "x"}, "at_least": 0.1}]}, "there is no such slice"),
        ({"limits": [{"metric": "mrr", "slice": {"user": "old"}, "at_least": 0.1}]}, "expected one of new, known"),
        ({"limits": [{"metric": "mrr"}]}, "received none of them"),
        ({"limits": [{"metric": "mrr", "fall_at_most": 0, "rise_at_most": 0}]}, "in separate limits"),
        (
            {"limits": [{"metric": "mrr", "at_least": 0, "beyond_noise": True}]},
            "as beyond_noise is about a change; received neither",
        ),
        (
            {"limits": [{"metric": "coverage_at_50", "fall_at_most": 0, "beyond_noise": True}]},
            "the change of coverage_at_50 has no interval",
        ),
        ({"limits": [{"metric": "index_recall_at_50", "fall_at_most": 0.1}]}, "no index of today's catalogue"),
        (
            {"limits": [{"metric": "ndcg_at_10", "slice": {"item_age": "as_new"}, "at_least": 0}]},
            "expected one of recall_at_10",
        ),
        (
            {"limits": [{"metric": "mrr", "slice": {"item_age": "as_new"}, "fall_at_most": 0}]},
            "does not rank items as new",
        ),
        (
            {"limits": [{"metric": "mrr", "slice": {"item_age": "old"}, "at_least": 0}]},
            "expected one of fresh, known, as_new",
        ),
        ({"beat": ["luck"]}, "Input should be 'popularity'"),
        ({"beat": []}, "at least 1 item"),
        ({"as_new": {"least": 0.3}}, "expected at most `most`, 0.2; received 0.3"),
        ({"slices": {"user": {}}}, "the pipeline's own slices have this name"),
        ({"slices": {"age": {"edges": [5, 3]}}}, "expected ascending numbers"),
    ],
)
def test_invalid_settings_are_rejected(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        EvaluatorSettings.model_validate(settings)


def test_settings_that_do_not_fit_the_features() -> None:
    spec = FeatureSpec.model_validate(
        {
            "interactions": {"user": "u", "item": "i", "time": "t"},
            "catalogue": {"item": "i"},
            "tables": {"person": {"width": 2, "hash_buckets": 4}, "thing": {"width": 2, "hash_buckets": 4}},
            "query": {"u": {"kind": "id", "table": "person"}, "age": {"kind": "number"}},
            "item": {"i": {"kind": "id", "table": "thing"}},
        }
    )
    settings = EvaluatorSettings.model_validate(
        {
            "exclude_history": True,
            "beat": ["cooccurrence"],
            "slices": {"age": {}, "u": {"edges": [1]}, "height": {"edges": [1]}},
            "limits": [{"metric": "recall_at_10_over_cooccurrence", "at_least": 0}],
        }
    )
    assert [(".".join(map(str, path)), reason) for path, reason in settings.faults(spec)] == [
        ("slices.age", "age is a number: give its edges"),
        ("slices.u", "u is no number: it has no edges"),
        ("slices.height", "no such feature (there: u, age, i)"),
        ("exclude_history", "the query has no feature of kind history"),
        ("beat", "co-occurrence needs a feature of kind history in the query"),
        ("limits.0.metric", "co-occurrence needs a feature of kind history in the query"),
    ]
