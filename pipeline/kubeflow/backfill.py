"""Days that are made up for: one run after the other, as each continues from the model of the day before."""

from collections.abc import Iterator, Sequence
from datetime import date

from pipeline.kubeflow.client import Client, Say
from pipeline.kubeflow.package import Package
from pipeline.metadata import Records
from pipeline.missed import oldest_missed
from pipeline.store import connection
from schemas.errors import UserError


def backfill(
    client: Client, package: Package, days: Iterator[date], settings: Sequence[str], say: Say
) -> Iterator[tuple[date, str]]:
    """Submits a day, waits for the end of its run, and takes the next.

    A run of the pipeline that is at work, of whatever origin, is waited for before a day is taken: also one that was left by a
    backfill that was interrupted.

    Args:
        client: Kubeflow.
        package: the pipeline.
        days: UTC days, oldest first; each is asked for when no run is at work.
        settings: `key=value` each, in place of those that the pipeline was compiled with; none leaves these.
        say: is told what is waited for.

    Yields:
        A day that is done, and its run's id.

    Raises:
        UserError: a run failed, or Kubeflow refuses; says what to do next.
        PassingError: Kubeflow does not answer any more.
    """
    day = None
    try:
        while True:
            for run in client.unfinished(package.name):
                say(f"waits for run {run}, which is at work")
                client.wait(run)
            before, day = day, next(days, None)
            if day is None:
                return
            if day == before:
                raise UserError(
                    f"run {run} succeeded, and yet ML Metadata has no complete run of that day. Check that `metadata` and `root` "
                    "here are those of the steps."
                )
            run = client.submit(package, day, settings)
            say(f"{day} is at work: run {run}")
            state = client.wait(run)
            if state != "SUCCEEDED":
                raise UserError(
                    f"run {run} ended as {state}. Its steps' logs say why; see docs/kubeflow.md, When a day fails."
                )
            yield day, run
    except UserError as error:
        raise type(error)(
            f"{f'{day}: ' if day else ''}{error}\nThe backfill stopped there. Once that is fixed, repeat it"
            f"{f' from {day} on' if day else ''}; a run that is at work continues."
        ) from error


def missed_days(package: Package, newest: date, make_up_days: int) -> Iterator[date]:
    """The days that no run completed, oldest first, as ML Metadata has it each time one is asked for.

    Args:
        package: says where ML Metadata is.
        newest: the last of them.
        make_up_days: how many days before it the oldest may lie.

    Raises:
        UserError: the configuration is not that of the package, or ML Metadata cannot be reached.
    """
    config = package.configuration()
    is_closed = config.data.is_closed
    while (day := oldest_missed(Records(connection(config)), config.name, newest, make_up_days, is_closed)) is not None:
        yield day
