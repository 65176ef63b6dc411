"""Runs steps of one run, as a pod does; `python -m pipeline.run_node --help` lists the options.

The steps of a run are the pipeline's nodes, with `Begin` before and `End` after them. A step may be repeated at any time:
completed work is not repeated, and the outputs of a killed attempt are cleared first. Several steps run one after the other, each
as if alone, up to the first that fails.

If no day is given, `Begin` chooses the oldest without a complete run. The day is part of the run's name in ML Metadata, where a
repeated `Begin` finds it, and is written to a file, from which Kubeflow passes it to the other steps. The file is empty if there
is nothing to do.

`Begin` and `End` hold the root's lock exclusively and the nodes share it, so that nothing is recovered or collected while a node
of any run writes. The caller has to start the runs of a pipeline one after the other: a CronJob, a schedule, `backfill`. A
refresh runs beside a day: all its steps share the lock, it collects nothing, its Pusher and the day's take turns, and it pushes
nothing if another version went live meanwhile.

    status  meaning                                                          what to do
    0       the steps are done, or there was nothing to do
    1       the configuration, the settings or the image are invalid         fix them; retrying will not help
    2       an argument of the command is missing or malformed               as 1
    65      a step rejected the data, or another input                       fix the data, and run the day again
    70      a bug in ndr: the log ends in a traceback                        report it
    75      the metadata server, the disk or the root's lock is unavailable  retry later; Kubeflow does
    143     ended by SIGTERM: the attempt is marked as canceled              retry

Kubeflow's launcher turns every failure into status 1, so these are only in the log; and it ends a container at SIGTERM without
waiting for 143.
"""

import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.unused import leave_out
from pipeline.checks import rights
from pipeline.loading import loading
from pipeline.monitoring.missed import DAYS_BACK, MAKE_UP_DAYS
from schemas.errors import DataError, PassingError, Status, UserError
from schemas.visible import visible

if TYPE_CHECKING:
    from pipeline.config import Config

BEGIN = "Begin"
END = "End"


def _run_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]+", text):
        raise typer.BadParameter(f"expected letters, digits and hyphens, received {text!r}")
    return text


def _settings(text: str) -> list[str]:
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, list) or not all(isinstance(setting, str) for setting in parsed):
        raise typer.BadParameter(f'expected a JSON list such as ["trainer.epochs=5"], received {text!r}')
    return parsed


def _date(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


def step(
    nodes: Annotated[list[str], typer.Option("--node", help=f"A node, or {BEGIN} or {END}; several in their order.")],
    run_id: Annotated[Any, typer.Option(parser=_run_id, metavar="ID", help="The run's id, the same in all its steps.")],
    config: Annotated[Path, typer.Option(help="The dataset's configuration, a YAML file.")],
    day: Annotated[
        Any,
        typer.Option("--date", parser=_date, metavar="YYYY-MM-DD", help=f"The UTC day; without it {BEGIN} chooses."),
    ] = "",
    days_back: Annotated[
        int, typer.Option(min=0, help="The newest day that may be chosen is this many days back.")
    ] = DAYS_BACK,
    make_up_days: Annotated[
        int, typer.Option(min=0, help="The oldest day that may be chosen is this many days before the newest.")
    ] = MAKE_UP_DAYS,
    day_file: Annotated[Path | None, typer.Option(help=f"The file to which {BEGIN} writes the day.")] = None,
    settings: Annotated[
        Any, typer.Option(parser=_settings, metavar="JSON", help="A list of KEY=VALUE that override the configuration.")
    ] = "[]",
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Steps of a refresh, whose day is today by default."),
    ] = False,
    definition: Annotated[
        str | None, typer.Option(help="The digest of the code and configuration that the steps must be run from.")
    ] = None,
) -> None:
    """Run steps of one run against the configured ML Metadata."""
    if day is None and nodes != [BEGIN]:
        raise typer.BadParameter(f"expected --date for {', '.join(nodes)}; {BEGIN} alone chooses a day")
    from pipeline.terminal import VisibleFormatter

    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Ignored by default in a container's first process.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(Status.TERMINATED))
    try:
        loaded = _load(config, settings, definition)
        rights.check(loaded)
        for node in nodes:
            logging.info("%s of run %s", node, run_id)
            with _faults_of_the_machine(loaded), _lock_of(node, refresh)(loaded.root):
                suffix = _suffix(run_id, refresh)
                if node == BEGIN and refresh:
                    _begin_refresh(loaded, suffix, day, day_file)
                elif node == BEGIN:
                    _begin(loaded, suffix, day, days_back, make_up_days, day_file)
                elif node == END:
                    _end(loaded, f"{day}.{suffix}")
                else:
                    _run_node(loaded, day, f"{day}.{suffix}", node)
    except UserError as error:
        status = _told(error.status, error)
    except OSError:
        status = _told(Status.PASSING_FAULT, traceback.format_exc())
    except Exception:
        status = _told(Status.INTERNAL_FAULT, traceback.format_exc())
    else:
        status = Status.DONE
    raise typer.Exit(status)


def _suffix(run_id: str, is_refresh: bool) -> str:
    """Return the part of a run's id that follows the day."""
    from pipeline.records import REFRESH

    return f"{REFRESH}{run_id}" if is_refresh else run_id


def _told(status: Status, *words: object) -> Status:
    sys.stderr.write(visible("\n".join(map(str, words))) + "\n")
    return status


def _load(path: Path, settings: list[str], definition: str | None) -> "Config":
    from pipeline import config as configuration
    from pipeline import digests

    loaded = configuration.load(path, settings)
    loaded.feature_spec()  # reports an invalid specification before TFX is loaded
    current = digests.definition(path, loaded)
    if definition not in (None, current):
        raise UserError(
            f"The pipeline was compiled from other code or another configuration ({definition}) than this image holds ({current}). "
            "Compile it again from the image's: ndr kubeflow compile."
        )
    return loaded


def _lock_of(node: str, is_refresh: bool) -> Callable[[Path], AbstractContextManager[None]]:
    from pipeline import lock
    from pipeline.records import LAST_NODE

    if node == LAST_NODE or (node == BEGIN and is_refresh):  # which repairs what a push left
        return lock.pushing
    if node in (BEGIN, END):
        return lock.shared if is_refresh else lock.exclusive
    return lock.shared


@contextmanager
def _faults_of_the_machine(config: "Config") -> Iterator[None]:
    from pipeline.checks import disk
    from pipeline.records import GONE

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if disk.is_full(error, config.root):
            raise PassingError(f"The disk that holds {config.root} is full. Make room.") from error
        if isinstance(error, GONE):
            raise PassingError(f"ML Metadata went away in the middle of a call: {error}") from error
        raise


def _begin(
    config: "Config", suffix: str, asked: date | None, days_back: int, make_up_days: int, day_file: Path | None
) -> None:
    """Record the run's input, and write its day, or nothing if there is nothing to do."""
    from pipeline.records import CLOSED

    day, run = _begun(config, suffix, asked, days_back, make_up_days)
    why = "closed (data.closed)" if run == CLOSED else f"done by run {run}"
    print(f"{day} is {why}: nothing to do." if run else f"The run is of {day}.")
    _hand_on(day_file, None if run else day)


def _hand_on(day_file: Path | None, day: date | None) -> None:
    """Write the day for the other steps; an empty file if there is nothing to do."""
    if day_file:
        day_file.parent.mkdir(parents=True, exist_ok=True)
        day_file.write_text(str(day or ""), encoding="utf-8")


def _begin_refresh(config: "Config", suffix: str, asked: date | None, day_file: Path | None) -> None:
    """Begin a refresh. A repeated attempt keeps the day of the first; the version is the one that is live now."""
    from pipeline.monitoring.missed import today
    from pipeline.records import Records, connection
    from pipeline.refresh import refreshing
    from pipeline.refresh import run as refresh_run

    records = Records(connection(config))
    day = asked or records.day_of(refreshing.pipeline_name(config), suffix) or today()
    _, before = refresh_run.begin(config, day, f"{day}.{suffix}", records)
    print(refreshing.nothing_to_do(config, before) if before else f"The refresh is of the catalogue of {day}.")
    _hand_on(day_file, None if before else day)


def _begun(config: "Config", suffix: str, asked: date | None, days_back: int, make_up_days: int) -> tuple[date, str]:
    """Return the run's day, and why it has nothing to do: the run that did it before, CLOSED, or an empty string.

    An earlier attempt may have decided both.
    """
    from pipeline import day_run
    from pipeline.monitoring.missed import oldest_missed, today
    from pipeline.records import CLOSED, Records, connection

    records = Records(connection(config))
    earlier = records.day_of(config.name, suffix)
    if earlier and (done_by := records.run(f"{earlier}.{suffix}").passed_over_for):
        return earlier, done_by
    newest = today() - timedelta(days=days_back)
    chosen = asked or earlier or oldest_missed(records, config.name, newest, make_up_days, config.data.is_closed)
    day = chosen or newest
    is_closed = config.data.is_closed(day)
    if chosen and not is_closed:
        compiled, before = day_run.begin(config, day, f"{day}.{suffix}", records)
    else:
        compiled, before = day_run.compile_pipeline(config, day), records.last_complete(config.name, day)
        day_run.name_run(compiled, f"{day}.{suffix}")
    why = before.run if before else CLOSED if is_closed else ""
    if why:
        day_run.register(compiled, records)
        records.note_passed_over(f"{day}.{suffix}", why)
    return day, why


def _end(config: "Config", run_id: str) -> None:
    """Record the outcome of the run, and remove what no later run needs."""
    from pipeline.monitoring import metrics
    from pipeline.records import PASSED_OVER, Records, connection, lost_rows
    from pipeline.summary import tables
    from pipeline.terminal import UNKNOWN_WIDTH, TextConsole
    from pipeline.versions.retention import collect

    records = Records(connection(config))
    run = records.run(run_id)
    if run.state == PASSED_OVER:
        return
    if run.state != "complete":
        raise UserError(f"Run {run_id} is {run.state}. {END} must come after all other steps.")
    for table in tables(run):
        TextConsole(width=UNKNOWN_WIDTH).print(table)
    if not run.is_refresh and (sentence := lost_rows(run, records.complete_before(run, config.name))):
        print(sentence)
    if not run.is_refresh:  # a day may be at work; its End removes what refreshes left, too
        collect(config)
    metrics.export(config)


def _run_node(config: "Config", day: date, run_id: str, node: str) -> None:
    with loading():
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        from pipeline import day_run
        from pipeline.checks import job_server
        from pipeline.monitoring import metrics
        from pipeline.records import PASSED_OVER, Records, connection
        from pipeline.refresh import refreshing
        from pipeline.refresh import run as refresh_run

    records = Records(connection(config))
    run = records.run(run_id)
    if run.state == PASSED_OVER:
        print(f"{day} was done before: nothing to do.")
        return
    if run.is_refresh:
        if run.given is None:
            raise UserError(f"Run {run_id} has not begun: {BEGIN} comes before all other steps.")
        compiled = refresh_run.compile_pipeline(config, refreshing.base_numbered(config, run.given.refreshes), day)
    else:
        compiled = day_run.compile_pipeline(config, day)
    day_run.name_run(compiled, run_id)
    day_run.node_of(compiled, node)
    attempts = records.attempts(run_id, node)
    if any(map(_is_done, attempts)):
        print(f"{node} is done: nothing to do.")
        refreshing.note_if_unchanged(node, run_id, records)
        return
    engine = day_run.engine_of(config, compiled, node)
    if engine:
        job_server.check(engine)
    is_resolver = day_run.is_resolver(compiled, node)
    for attempt in attempts:
        # TFX makes a new execution for a resolver; for other nodes it continues the existing one.
        records.mark(attempt, mlmd.Execution.FAILED if is_resolver else mlmd.Execution.RUNNING)
        day_run.clear_outputs(compiled, node, attempt.id)

    def cancel() -> None:
        fresh_records = Records(records.connection)  # the other connection may be in the middle of a call
        for attempt in fresh_records.attempts(run_id, node):
            if attempt.last_known_state == mlmd.Execution.RUNNING:
                fresh_records.mark(attempt, mlmd.Execution.CANCELED)

    try:
        with _at_sigterm(cancel), job_server.faults(engine):
            day_run.launch(compiled, node, records.connection)
    except PassingError:
        raise
    except UserError as error:
        records.note_fault(run_id, f"{node}: {error}")
        metrics.export(config)
        raise DataError(str(error)) from error
    if not any(map(_is_done, records.attempts(run_id, node))):
        upstream = ", ".join(day_run.node_of(compiled, node).upstream_nodes)
        raise UserError(f"{node}: its inputs do not exist. It must come after {upstream} of the same run.")
    refreshing.note_if_unchanged(node, run_id, records)


def _is_done(execution: Any) -> bool:
    from pipeline.records import state

    return state(execution) in ("complete", "cached")


@contextmanager
def _at_sigterm(last_act: Callable[[], None]) -> Iterator[None]:
    """End the process at SIGTERM after a last action. Raises no exception, because Beam and others would catch it."""

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            last_act()
        finally:
            os._exit(Status.TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run the command line."""
    leave_out()
    typer.run(step)


if __name__ == "__main__":
    main()
