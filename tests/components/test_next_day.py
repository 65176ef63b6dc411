"""A day judged by models of the evening before, against what each number is by definition, and against TFMA's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest

from components.artifacts import Counts
from components.counts.files import THROUGH, TRAINING
from components.evaluator import ranked
from components.evaluator.expectation import hit_probability, reciprocal_rank
from components.evaluator.interactions import Window
from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    CANDIDATE,
    CONTENT_NEIGHBOURS,
    COOCCURRENCE,
    NEW_QUERIES_OLD_ITEMS,
    POPULARITY,
    RECENT_POPULARITY,
    TAKEN_BEFORE,
)
from components.evaluator.next_day import NextDay, judge_next_day
from components.evaluator.settings import EvaluatorSettings
from tests.components.counted import write_counts
from tests.components.exported import export
from tests.components.ranked_world import (
    DAY,
    ITEMS,
    SETTINGS,
    SPEC,
    START,
    Row,
    World,
    example,
    expected_places,
    item_features,
    log,
    make_world,
    write,
)
from tests.components.test_evaluator import evaluate


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("ranker"))


def day() -> list[Row]:
    """The day's interactions with a reward, training and held out, each once."""
    rows = [row for row in (*log()[0], *log()[1]) if row.time >= START and row.reward]
    return rows


def judge(world: World, folder: Path, **arguments: Any) -> NextDay:
    """What the day says of the first model, and of the second as the one before."""
    given: dict[str, Any] = {
        "interactions": [f"{world.examples.uri}/Split-{split}/*" for split in ("train", "eval")],
        "catalogue": [f"{world.catalogue.uri}/Split-catalogue/*"],
        "model": world.model.uri,
        "earlier_model": world.baseline.uri,
        "counts": [f"{world.base_counts.uri}/{THROUGH}"],
        "settings": EvaluatorSettings.model_validate(SETTINGS),
    }
    given |= arguments
    return judge_next_day(
        **given, spec=SPEC, span=DAY, make_pipeline=lambda: beam.Pipeline("FnApiRunner"), working=str(folder)
    )


def test_the_next_day_uses_counts_of_the_evening_before(world: World, tmp_path: Path) -> None:
    found = judge(world, tmp_path)
    places = [expected_places(world, row, before=START) for row in day()]
    assert (found.interactions, found.ranked, found.not_in_catalogue) == (len(places), len(places), 0)
    whole = found.metrics["all"]
    assert whole["interactions"] == len(places)
    for scorer in (CANDIDATE, BASELINE, POPULARITY, RECENT_POPULARITY, TAKEN_BEFORE, COOCCURRENCE):
        above, tied = np.array([each[scorer] for each in places]).T
        assert whole[scorer]["recall_at_10"][0] == pytest.approx(hit_probability(above, tied, 10).mean()), scorer
        assert whole[scorer]["mrr"][0] == pytest.approx(reciprocal_rank(above, tied).mean()), scorer
    new = [each for each in places if AS_NEW in each]
    for scorer in (AS_NEW, CONTENT_NEIGHBOURS):
        above, tied = np.array([each[scorer] for each in new]).T
        assert whole[scorer]["recall_at_10"][0] == pytest.approx(hit_probability(above, tied, 10).mean()), scorer
        assert whole[scorer]["interactions"][0] == len(new)
    strongest = max(whole[scorer]["recall_at_10"][0] for scorer in (POPULARITY, RECENT_POPULARITY))
    assert whole[CANDIDATE]["recall_at_10_over_strongest"][0] == pytest.approx(
        whole[CANDIDATE]["recall_at_10"][0] - strongest
    )
    assert NEW_QUERIES_OLD_ITEMS not in whole and "coverage_at_5" not in whole[CANDIDATE]
    assert judge(world, tmp_path) == found  # to the bit
    fresh = (
        {row.item for row in day()} - {row.item for row in log()[0] if row.reward and row.time < START} - {ITEMS[39]}
    )
    assert found.metrics.get("item_age=fresh", {"interactions": 0})["interactions"] == sum(
        row.item in fresh for row in day()
    )


def test_a_large_day_is_judged_by_whole_users(world: World, tmp_path: Path) -> None:
    rows = day()
    settings = EvaluatorSettings.model_validate({**SETTINGS, "next_day_interactions": 100})
    found = judge(world, tmp_path, settings=settings)
    drawn = [row for row in rows if Window(DAY, share=100 / len(rows)).has(row.user)]
    assert 0 < len(drawn) < len(rows)
    assert (found.interactions, found.ranked) == (len(rows), len(drawn))
    assert found.metrics["all"]["interactions"] == len(drawn)


def test_a_catalogue_that_lost_items_and_no_counts(world: World, tmp_path: Path) -> None:
    write(tmp_path, "catalogue", [example(item_features(item)) for item in ITEMS[:5]])
    found = judge(world, tmp_path, catalogue=[f"{tmp_path}/Split-catalogue/*"], counts=[], earlier_model=None)
    kept = [row for row in day() if row.item in ITEMS[:5]]
    assert (found.ranked, found.not_in_catalogue) == (len(kept), len(day()) - len(kept))
    assert found.metrics["all"][POPULARITY]["recall_at_10"][0] == 1.0  # of five items
    assert BASELINE not in found.metrics["all"] and "change" not in found.metrics["all"]


def test_a_day_of_one_user_has_no_interval(world: World, tmp_path: Path) -> None:
    own = [row for row in day() if row.user == b"newcomer"]
    write(tmp_path, "eval", [row.serialized() for row in own])
    found = judge(world, tmp_path, interactions=[f"{tmp_path}/Split-eval/*"])
    assert found.metrics["all"]["interactions"] == len(own)
    value, *ends = found.metrics["all"][CANDIDATE]["recall_at_10"]
    assert 0.0 <= value <= 1.0 and ends == [None, None]
    write(tmp_path / "nobody", "eval", [])
    nobody = judge(world, tmp_path, interactions=[f"{tmp_path}/nobody/Split-eval/*"])
    assert (nobody.metrics, nobody.interactions, nobody.ranked) == ({}, 0, 0)


def test_models_of_another_width_are_compared_but_not_mixed(world: World, tmp_path: Path) -> None:
    other = export(SPEC, {"query": [4], "item": [4]}, tmp_path / "other")
    found = judge(world, tmp_path, earlier_model=other.uri)
    assert set(found.metrics["all"]["change"]) >= {"recall_at_10", "mrr"}
    replace(world, baseline=other).rank("other")
    ranked_examples = world.read("other").values()
    assert all(ranked.rank_feature(BASELINE) in each for each in ranked_examples)
    assert not any(ranked.rank_feature(NEW_QUERIES_OLD_ITEMS) in each for each in ranked_examples)


def test_tfma_says_the_same_of_the_same_rows(world: World, tmp_path: Path) -> None:
    """The candidate's evaluation and the next day's judgement add up by one code; TFMA slices the one, NumPy the other."""
    examples = write(tmp_path, "eval", [row.serialized() for row in day()])
    nothing = Counts()
    nothing.uri = str(tmp_path / "counts")
    write_counts(tmp_path / "counts" / TRAINING, [], DAY - 1)
    replace(world, examples=examples, counts=nothing).rank("tfma")
    of_tfma = evaluate(
        tmp_path / "evaluation",
        f"{world.folder}/tfma",
        {"model": [world.model], "baseline_model": [world.baseline]},
        SETTINGS | {"below_popularity": "bless"},
        has_history=True,
    ).full
    of_numpy = judge(world, tmp_path).metrics
    assert of_numpy.keys() == of_tfma.keys() and len(of_numpy) > 10
    # Each kind of event has its metrics, in the evaluation and in the judgement by the next day.
    kinds = [of_numpy[f"event_kind={kind}"]["interactions"] for kind in ("view", "purchase")]
    assert all(kinds) and sum(kinds) == of_numpy["all"]["interactions"]
    compared = 0
    for name, of_slice in of_numpy.items():
        for scorer, expected in of_slice.items():
            found = of_tfma[name][scorer]
            if not isinstance(expected, dict):
                assert found == expected, (name, scorer)
                continue
            for metric, (value, *ends) in expected.items():
                assert found[metric][0] == pytest.approx(value, abs=1e-12), (name, scorer, metric)
                if found[metric][1] is not None:
                    assert found[metric][1:] == pytest.approx(ends, abs=1e-9), (name, scorer, metric)
                compared += 1
    assert compared > 1000
