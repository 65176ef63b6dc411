"""Works on days: `ndr run`, `backfill`, `refresh`, `tune`."""

from typing import Annotated, Any

import typer
from rich.console import Console

from pipeline.arguments import (
    MOVIELENS_CONFIG,
    ConfigOption,
    FirstDayOption,
    LastDayOption,
    SetOption,
    a_day,
    a_duration,
    days_between,
)
from pipeline.commands.session import session
from pipeline.loading import loading
from schemas.errors import UserError

app = typer.Typer()


@app.command()
def run(
    day: Annotated[Any, typer.Option("--date", parser=a_day, metavar="YYYY-MM-DD", help="The UTC day.")],
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Run the whole pipeline for one day."""
    with session("run", config, settings) as (console, loaded):
        _caution(console, loaded)  # reports a fault of the specification at once
        result, is_new = _run_day(console, loaded, day, lines=True)
        if not is_new:
            console.print(_done_before(result), highlight=False, soft_wrap=True)
            return
        from pipeline.summary import tables

        for table in tables(result):
            console.print(table)
        _say_lost_rows(console, loaded, result)
        _collect(console, loaded)


@app.command()
def backfill(
    first: FirstDayOption,
    last: LastDayOption,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Run the pipeline for every day of a range, oldest first; skip days that are done with the same input."""
    days = days_between(first, last)
    with session("backfill", config, settings) as (console, loaded):
        from pipeline.summary import day_table

        _caution(console, loaded)
        results = []
        try:
            for day in days:
                if loaded.data.is_closed(day):
                    console.print(f"  {day} is closed (data.closed)", highlight=False)
                    continue
                console.print(f"  {day} begins", highlight=False)
                try:
                    result, is_new = _run_day(console, loaded, day, lines=False)
                except UserError as error:
                    raise UserError(
                        f"{day}: {error}\nThe backfill stopped there. Once that is fixed, the same command resumes from {day}."
                    ) from error
                results.append(result)
                console.print(
                    f"  {day} {_outcome(result)}" if is_new else f"  {_done_before(result)}",
                    highlight=False,
                    soft_wrap=True,
                )
                if is_new:
                    _say_lost_rows(console, loaded, result)
                    _collect(console, loaded)
        finally:
            if results:
                console.print(day_table(results))


@app.command()
def refresh(
    day: Annotated[
        Any,
        typer.Option(
            "--date",
            parser=a_day,
            metavar="YYYY-MM-DD",
            help="The UTC day; the newest catalogue up to it is taken. Today by default.",
        ),
    ] = None,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Give the live version the newest catalogue without training: new items are found, blocked and removed ones are not."""
    with session("refresh", config, settings) as (console, loaded):
        from pipeline import terminal
        from pipeline.monitoring.missed import today
        from pipeline.records import REFRESH, Records, connection, has_begun
        from pipeline.refresh import refreshing

        taken = day or today()
        before = None
        if has_begun(loaded):
            _, before = refreshing.given(loaded, taken, Records(connection(loaded)))
        if before is None:
            with console.status("loading TFX"), loading():
                from pipeline.local import run_locally
                from pipeline.refresh.run import begin
            with terminal.step_progress(console, lines=True) as (started, ended):
                result, _ = run_locally(loaded, taken, started, ended, begin, REFRESH)
        if before or result.passed_over_for:
            console.print(refreshing.nothing_to_do(loaded, before or result), highlight=False, soft_wrap=True)
            return
        from pipeline.summary import tables

        for table in tables(result):
            console.print(table)
        _collect(console, loaded)


@app.command()
def tune(
    day: Annotated[
        Any, typer.Option("--date", parser=a_day, metavar="YYYY-MM-DD", help="The UTC day, of a complete run.")
    ],
    time_given: Annotated[
        Any, typer.Option("--for", parser=a_duration, metavar="DURATION", help="Time for all trials, such as 30m.")
    ] = "30m",
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Search for better trainer settings on a day's data, judged by its held-out users; resume an interrupted search."""
    with session("tune", config, settings, writes=False) as (console, loaded):
        from pipeline import terminal

        with console.status("loading TensorFlow"), loading():
            from pipeline.tuning import tune as search

        def say(words: str) -> None:
            console.print(f"  {words}", highlight=False, soft_wrap=True)

        with terminal.step_progress(console, lines=False):
            tuning = search.tune(loaded, day, time_given.total_seconds(), say)
        console.print(search.table(tuning))
        console.print(tuning.verdict, highlight=False, soft_wrap=True)
        for line in search.difference(tuning):
            console.print(f"  {line}", highlight=False, soft_wrap=True)


def _run_day(console: Console, loaded: Any, day: Any, lines: bool) -> tuple[Any, bool]:
    """Run a day unless it is done. Imports TFX only if there is something to run.

    Args:
        console: where progress is shown.
        loaded: the configuration.
        day: the UTC day.
        lines: whether each completed step gets a line.

    Returns:
        The day's run, and whether it is new.
    """
    from pipeline import glance, terminal

    if before := glance.done(loaded, day):
        from pipeline.monitoring import metrics as exporter

        exporter.export(loaded)
        return before, False
    with console.status("loading TFX"), loading():
        from pipeline.local import run_locally
    with terminal.step_progress(console, lines) as (started, ended):
        return run_locally(loaded, day, started, ended)


def _outcome(result: Any) -> str:
    if result.withdrawn:
        return f"version {result.version or 'none'}, withdrawn by a rollback"
    if result.version:
        return f"version {result.version}{', though a baseline beats its model' if result.waived else ''}"
    return f"{'not pushed' if result.blessed else 'not blessed'}: {'; '.join(result.refused)}"


def _done_before(result: Any) -> str:
    return f"{result.date} is done with the same input ({_outcome(result)}, by run {result.run}): nothing to do."


def _caution(console: Console, loaded: Any) -> None:
    for caution in loaded.cautions():
        console.print(caution, style="yellow", highlight=False, soft_wrap=True)


def _say_lost_rows(console: Console, loaded: Any, result: Any) -> None:
    from pipeline.records import Records, connection, lost_rows

    before = Records(connection(loaded)).complete_before(result, loaded.name)
    if sentence := lost_rows(result, before):
        console.print(f"  {sentence}", highlight=False, soft_wrap=True)


def _collect(console: Console, loaded: Any) -> None:
    """Remove old artifacts; called last, because the run's summary is read from folders that retention may remove."""
    from pipeline.versions.retention import collect

    collected = collect(loaded)
    artifacts = [f"{collected.artifacts} old artifacts ({collected.bytes / 1e6:.1f} MB)"] if collected.artifacts else []
    versions = [f"version {version}" for version in collected.versions]
    if artifacts or versions:
        console.print(f"  removed {', '.join([*artifacts, *versions])}", highlight=False)
    for path in collected.unreadable:
        console.print(
            f"  removed nothing old: {path} is not a readable version manifest. Move it away.", highlight=False
        )
