"""What became of a run, why, and whether the day is good."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.origin import Origin
from pipeline.report.outcome import Outcome, day_runs, outcome, reasons, verdict
from pipeline.words import blessing_words
from tests.pipeline.report.made_up import BY_DAY, FAILED, REFUSED, a_run

PASSED_OVER: dict[str, Any] = {"state": "passed over", "version": None, "blessed": None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Outcome.PUSHED),
        (REFUSED, Outcome.REFUSED),
        (FAILED, Outcome.FAILED),
        (BY_DAY[6], Outcome.WITHDRAWN),
        (BY_DAY[8], Outcome.NOT_JUDGED),
        (BY_DAY[9], Outcome.NOT_SERVABLE),
        (BY_DAY[11], Outcome.UNFINISHED),
        (PASSED_OVER, Outcome.PASSED_OVER),
        ({**FAILED, "blessed": True}, Outcome.FAILED),  # judged, and then the Pusher failed
    ],
)
def test_a_run_has_one_outcome(changes: dict[str, Any], expected: Outcome) -> None:
    assert outcome(a_run(**changes)) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        (REFUSED, ["recall@50 of catalogue: 0.0400; expected at least 0.0500"]),
        (FAILED, ["Transform: no such column."]),
        ({**FAILED, "fault": ""}, ["Transform failed."]),
        (BY_DAY[6], ["Its model was rolled back."]),
        (BY_DAY[11], ["It ended after Pusher, or still runs."]),
        ({"state": "unfinished", "steps": ()}, ["No step has run."]),
        (
            {"not_judged": ("item_age=fresh",)},
            ["Limits on item_age=fresh were not judged: no held-out interaction is in it."],
        ),
    ],
)
def test_a_run_says_why(changes: dict[str, Any], expected: list[str]) -> None:
    assert reasons(a_run(**changes)) == expected


def test_a_waived_limit_is_mentioned_in_a_good_verdict() -> None:
    """Regression: a model below popularity was blessed, as configured, and called good without a word."""
    waiving = {"evaluator": {"below_popularity": "bless", "beat": ["popularity", "recent_popularity"]}}
    run = a_run(origin=Origin("1", "", False, "", waiving))
    assert run.waived == ()  # the made-up model is ahead of popularity
    own = run.metrics["all"]["candidate"]
    behind = {**run.metrics, "all": {**run.metrics["all"], "popularity": {**own, "recall_at_10": [0.9, None, None]}}}
    run = replace(run, metrics=behind)
    (sentence,) = run.waived
    assert sentence == (
        f"recall@10 is {own['recall_at_10'][0]:.4f}, that of popularity 0.9000: evaluator.below_popularity waived this limit."
    )
    found = verdict(run, (20261101001, "2026-11-01"))
    assert found.is_good and found.reasons == (sentence,)
    assert found.sentence.startswith("2026-11-01 is good: its model was blessed, though a baseline beats it.")
    assert blessing_words(run) == "yes, below a baseline"
    refusing = {"evaluator": {**waiving["evaluator"], "below_popularity": "refuse"}}
    assert replace(run, origin=Origin("1", "", False, "", refusing)).waived == ()


def test_of_a_day_the_last_run_counts_that_had_anything_to_do() -> None:
    first, second, third = (a_run(run=f"2026-11-01.{name}") for name in "abc")
    third = a_run(run=third.run, **PASSED_OVER)
    assert day_runs([first, second, third]) == [second]
    assert day_runs([third]) == [third]


def test_a_day_that_was_pushed_is_good_while_it_or_a_later_one_is_live() -> None:
    run = a_run()  # version 20261101001
    assert verdict(run, (20261101001, "2026-11-01")).is_good
    assert verdict(run, (20261105001, "2026-11-05")).is_good
    assert verdict(run, (20261101001, "2026-11-01")).sentence == (
        "2026-11-01 is good: its model was blessed. Version 20261101001 of 2026-11-01 is live."
    )
    behind = verdict(run, (20261031001, "2026-10-31"))
    assert not behind.is_good and "20261101001 was pushed, but is not live" in behind.sentence
    assert not verdict(run, None).is_good


def test_a_bad_verdict_says_why_and_what_still_serves() -> None:
    found = verdict(a_run(**REFUSED), (20261031001, "2026-10-31"))
    assert found.sentence == "2026-11-01 is not good: refused. Version 20261031001 of 2026-10-31 is live."
    assert found.reasons == ("recall@50 of catalogue: 0.0400; expected at least 0.0500",)
