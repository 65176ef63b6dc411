"""Retries as Argo's own workflow controller grants them, for the strategy that Kubeflow makes of ours."""

from collections.abc import Mapping

import pytest

from tests import argo_controller, kubeflow_judge
from tests.argo_controller import Answer, Attempt, Question

# Five retries after 10 seconds, and twice as long each time.
STRATEGY = kubeflow_judge.answer("2.17.0")["steps"]["trainer"]["retryStrategy"]
BACKOFF = STRATEGY["backoff"]
QUESTIONS = {
    "fails at minute 30": Question(STRATEGY, [Attempt(30, "failed"), Attempt(400, "succeeded")]),
    "fails in its ninth hour": Question(
        STRATEGY, [Attempt(540, "failed"), Attempt(540, "failed"), Attempt(60, "succeeded")]
    ),
    "runs over its time": Question(STRATEGY, [Attempt(600, "deadline"), Attempt(400, "succeeded")]),
    "is evicted": Question(STRATEGY, [Attempt(30, "evicted"), Attempt(400, "succeeded")]),
    "loses its pod": Question(STRATEGY, [Attempt(30, "deleted")]),
    "always fails": Question(STRATEGY, [Attempt(1, "failed")] * 6),
    # What was compiled before: these show that the judge can say no.
    "an end after ten minutes": Question(
        {**STRATEGY, "backoff": {**BACKOFF, "maxDuration": "600"}}, [Attempt(30, "failed")]
    ),
    "killed by that end": Question(
        {**STRATEGY, "backoff": {**BACKOFF, "maxDuration": "600"}}, [Attempt(5, "failed")] * 2
    ),
    "a broken factor": Question({**STRATEGY, "backoff": {**BACKOFF, "factor": "1.5"}}, [Attempt(1, "failed")]),
}


@pytest.fixture(scope="module")
def answers() -> Mapping[str, Answer]:
    if reason := argo_controller.missing():
        pytest.skip(reason)
    return dict(zip(QUESTIONS, argo_controller.ask(list(QUESTIONS.values())), strict=True))


def retried(answer: Answer) -> list[bool]:
    return [verdict.retried for verdict in answer.verdicts]


def test_a_step_is_tried_again_however_long_it_ran(answers: Mapping[str, Answer]) -> None:
    assert retried(answers["fails at minute 30"]) == [True, False]
    assert retried(answers["fails in its ninth hour"]) == [True, True, False]
    assert {answers[asked].phase for asked in ("fails at minute 30", "fails in its ninth hour")} == {"Succeeded"}


def test_a_time_out_and_an_eviction_are_failures_and_a_lost_pod_is_not(answers: Mapping[str, Answer]) -> None:
    assert [answers[asked].verdicts[0].node for asked in ("runs over its time", "is evicted")] == ["Failed", "Failed"]
    assert [retried(answers[asked]) for asked in ("runs over its time", "is evicted")] == [[True, False]] * 2
    lost = answers["loses its pod"]
    assert (lost.verdicts[0].node, retried(lost), lost.phase) == ("Error", [False], "Error")


def test_waits_grow_and_the_last_failure_is_final(answers: Mapping[str, Answer]) -> None:
    failing = answers["always fails"]
    assert retried(failing) == [True] * 5 + [False]
    # Argo waits from the failure on; this test's clock moves by whole seconds.
    waits = [verdict.wait_seconds for verdict in failing.verdicts[:5]]
    assert waits == pytest.approx([10, 20, 40, 80, 160], abs=1)
    assert (failing.phase, failing.message) == ("Failed", "No more retries left")
    # Argo's own end of an attempt lies a year off.
    assert all(verdict.killed_after is None or verdict.killed_after > 500_000 for verdict in failing.verdicts)


def test_earlier_compiled_pipelines_were_never_retried(answers: Mapping[str, Answer]) -> None:
    ended = answers["an end after ten minutes"]
    assert (retried(ended), ended.phase, ended.message) == ([False], "Failed", "Max duration limit exceeded")
    first, second = answers["killed by that end"].verdicts
    assert first.retried and second.killed_after == pytest.approx(5, abs=1)
    broken = answers["a broken factor"]
    assert (retried(broken), broken.phase) == ([False], "Error") and "1.5" in broken.message
