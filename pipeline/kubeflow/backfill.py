"""Days that are made up for: one run after the other, as each goes on from the model of the day before."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date

from pipeline.kubeflow.client import Client, Package
from schemas.errors import PassingError, UserError

POLL = 15.0  # seconds between questions to Kubeflow
PATIENCE = 40  # so many questions in a row may go unanswered


def backfill(
    client: Client, package: Package, days: Sequence[date], settings: Sequence[str], say: Callable[[str], None]
) -> Iterator[tuple[date, str]]:
    """Submits a day, waits for the end of its run, and goes on with the next.

    A run of the pipeline that is at work, of whatever origin, is waited for before a day is submitted: also one that was left by a
    backfill that was interrupted. Its day is submitted again and passed over by its first step.

    Args:
        client: Kubeflow.
        package: the pipeline.
        days: UTC days, oldest first.
        settings: `key=value` each, in place of those that the pipeline was compiled with; none leaves these.
        say: is told what is waited for.

    Yields:
        A day that is done, and its run's id.

    Raises:
        UserError: a run failed, or Kubeflow refuses; says with which day it is to be gone on.
        PassingError: Kubeflow does not answer any more.
    """
    for day in days:
        try:
            for run in client.unfinished(package.name):
                say(f"waits for run {run}, which is at work")
                _wait(client, run)
            run = client.submit(package, day, settings)
            say(f"{day} is at work: run {run}")
            state = _wait(client, run)
            if state != "SUCCEEDED":
                raise UserError(
                    f"run {run} ended as {state}. Its steps' logs say why; see docs/kubeflow.md, When a day fails."
                )
        except UserError as error:
            raise type(error)(
                f"{day}: {error}\nThe backfill stopped there. Once that is mended, go on with --from {day}."
            ) from error
        yield day, run


def _wait(client: Client, run: str) -> str:
    """The state that a run ends in. To ask again is harmless, so that a server that restarts is waited for."""
    unanswered = 0
    while True:
        try:
            state, unanswered = client.final_state(run), 0
        except PassingError:
            unanswered += 1
            if unanswered == PATIENCE:
                raise
            state = None
        if state:
            return state
        time.sleep(POLL)
