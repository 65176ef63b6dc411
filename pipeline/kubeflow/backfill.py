"""Makes up for days: one run after the other, because each continues from the model of the day before."""

from collections.abc import Iterator, Sequence
from datetime import date

from pipeline.kubeflow.client import Client, Say
from pipeline.kubeflow.package import Package
from pipeline.monitoring.missed import oldest_missed
from pipeline.records import Records, connection
from schemas.errors import UserError


def backfill(
    client: Client, package: Package, days: Iterator[date], settings: Sequence[str], say: Say
) -> Iterator[tuple[date, str]]:
    """Submit a day, wait for its run to end, and take the next.

    Before each day, any unfinished run of the pipeline is waited for, whoever started it; that includes the run of an
    interrupted backfill.

    Args:
        client: Kubeflow.
        package: the pipeline.
        days: UTC days, oldest first; each is taken from the iterator when no run is unfinished.
        settings: `key=value` each, in place of those that the pipeline was compiled with; empty to keep these.
        say: called with each progress message.

    Yields:
        A completed day, and its run's id.

    Raises:
        UserError: a run failed, or Kubeflow refuses; the message says what to do next.
        PassingError: Kubeflow no longer answers.
    """
    day = None
    try:
        while True:
            for run in client.unfinished(package.name):
                say(f"waits for unfinished run {run}")
                client.wait(run)
            before, day = day, next(days, None)
            if day is None:
                return
            if day == before:
                raise UserError(
                    f"run {run} succeeded, but ML Metadata has no complete run of that day. Check that `metadata` and `root` here "
                    "are those of the steps."
                )
            run = client.submit(package, day, settings)
            say(f"{day} is running: run {run}")
            state = client.wait(run)
            if state != "SUCCEEDED":
                raise UserError(
                    f"run {run} ended as {state}. Its steps' logs say why; see docs/kubeflow.md, When a day fails."
                )
            yield day, run
    except UserError as error:
        raise type(error)(
            f"{f'{day}: ' if day else ''}{error}\nThe backfill stopped there. Once that is fixed, repeat it"
            f"{f' from {day} on' if day else ''}; an unfinished run continues."
        ) from error


def missed_days(package: Package, newest: date, make_up_days: int) -> Iterator[date]:
    """Find the days that no run completed, oldest first; ML Metadata is read each time one is taken.

    Args:
        package: names the place of ML Metadata.
        newest: the newest day to consider.
        make_up_days: how many days before it the oldest may lie.

    Raises:
        UserError: the configuration differs from the package's, or ML Metadata cannot be reached.
    """
    config = package.configuration()
    is_closed = config.data.is_closed
    while (day := oldest_missed(Records(connection(config)), config.name, newest, make_up_days, is_closed)) is not None:
        yield day
