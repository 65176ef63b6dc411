"""The commands `ndr kubeflow ...`."""

import json
import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.whole_files import write_aside
from pipeline.arguments import (
    MOVIELENS_CONFIG,
    ConfigOption,
    SetOption,
    a_day,
    a_duration,
    days_between,
    reported,
)
from pipeline.monitoring.missed import DAYS_BACK, MAKE_UP_DAYS, today
from schemas.errors import PassingError, Status, UserError
from schemas.visible import visible

if TYPE_CHECKING:
    from pipeline.kubeflow.client import Client


app = typer.Typer(
    help="Run the pipeline on Kubeflow Pipelines 2. If it asks for a token, set the environment variable NDR_KUBEFLOW_TOKEN, or "
    "NDR_KUBEFLOW_TOKEN_FILE to a file that is read at every request; NDR_KUBEFLOW_COOKIE holds a session's cookie.",
    no_args_is_help=True,
)

PackageArgument = Annotated[Path, typer.Argument(help="The file that `ndr kubeflow compile` wrote.")]
NameArgument = Annotated[str, typer.Argument(help="The pipeline's name.")]
DaysBackOption = Annotated[int, typer.Option(min=0, help="The newest day to run is this many days before today (UTC).")]
MakeUpOption = Annotated[int, typer.Option(min=0, help="The oldest day to make up for is this many days before that.")]
HostOption = Annotated[
    str, typer.Option("--host", envvar="NDR_KUBEFLOW_HOST", help="The address of Kubeflow Pipelines.")
]
CertificatesOption = Annotated[
    Path | None, typer.Option("--certificates", exists=True, help="Certificates to trust, a PEM file.")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="The profile, on a multi-user installation.")]
PlainHttpOption = Annotated[
    bool,
    typer.Option("--plain-http", envvar="NDR_KUBEFLOW_PLAIN_HTTP", help="Allow sending token and cookie over http://."),
]


@app.command("compile")
def compile_package(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    tune: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Instead compile a pipeline of one step: ndr tune --for DURATION, of the day `date`.",
        ),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Instead, the pipeline of ndr refresh, with a schedule of its own.")
    ] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Write the pipeline as Kubeflow expects it."""
    if tune and refresh:
        raise typer.BadParameter("expected one of --tune and --refresh")
    seconds = a_duration(tune).total_seconds() if tune else 0.0
    from pipeline import config as configuration

    with reported():
        loaded = configuration.load(config, settings or [])
        for caution in loaded.cautions():
            _say(caution)
        from pipeline.terminal import quiet_terminal

        with TemporaryDirectory() as folder, quiet_terminal(Path(folder), "compile"):
            from pipeline.kubeflow import compiler

            if tune:
                compiled = compiler.compile_tuning(loaded, config, settings or [], tune, seconds)
            else:
                compiled = compiler.compile_pipeline(loaded, config, settings or [], refresh)
        write_aside(output, compiled.text)
        _echo(
            f"wrote {output}: {compiled.steps} steps, which start {compiled.pods} pods, or {compiled.pods_when_done} if the day is "
            f"done; a workflow of about {round(compiled.workflow_bytes, -3) // 1000} kB (the limit is 1500)"
        )


@app.command()
def upload(
    package: PackageArgument,
    host: HostOption,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Upload the pipeline as a version, if this package has none yet; `submit`, `schedule` and `backfill` do so themselves."""
    with reported():
        from pipeline.kubeflow.package import read_package

        read = read_package(package)
        pipeline, _, is_new = _client(host, certificates, namespace, plain_http).upload(read)
        _echo(f"{'uploaded' if is_new else 'found'} version {read.version} of {read.name} ({pipeline})")


@app.command()
def submit(
    package: PackageArgument,
    day: Annotated[Any, typer.Option("--date", parser=a_day, metavar="YYYY-MM-DD", help="The UTC day.")],
    host: HostOption,
    settings: SetOption = None,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Start the run of a day."""
    with reported():
        from pipeline.kubeflow.package import read_package

        read = read_package(package)
        run = _client(host, certificates, namespace, plain_http).submit(read, day, settings or [])
        _echo(f"submitted {read.name} for {day}: run {run}")


@app.command()
def retry(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    host: HostOption,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Retry the failed steps of a run: a Trainer resumes from its last checkpoint."""
    with reported():
        _client(host, certificates, namespace, plain_http).retry(run)


@app.command()
def backfill(
    package: PackageArgument,
    host: HostOption,
    first: Annotated[
        Any, typer.Option("--from", parser=a_day, metavar="YYYY-MM-DD", help="The first UTC day of a range.")
    ] = None,
    last: Annotated[Any, typer.Option("--to", parser=a_day, metavar="YYYY-MM-DD", help="The last UTC day.")] = None,
    missed: Annotated[
        bool, typer.Option("--missed", help="Instead of a range, run the days without a complete run in ML Metadata.")
    ] = False,
    days_back: DaysBackOption = DAYS_BACK,
    make_up_days: MakeUpOption = MAKE_UP_DAYS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the completed days as a JSON list.")] = False,
    settings: SetOption = None,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Run the days of a range or the missed days: oldest first, each once no other run is unfinished."""
    if missed == bool(first and last) or bool(first) != bool(last):
        raise typer.BadParameter("expected --from and --to, or --missed")
    chosen = None if missed else days_between(first, last)
    with reported():
        from pipeline.kubeflow import backfill as made_up
        from pipeline.kubeflow.package import read_package

        read = read_package(package)
        if read.is_refresh:
            raise UserError(
                f"{package}: expected the pipeline of the days, found that of refreshes, which no day misses."
            )
        newest = today() - timedelta(days=days_back)
        days: Iterator[date] = made_up.missed_days(read, newest, make_up_days) if chosen is None else iter(chosen)
        done = []
        try:
            client = _client(host, certificates, namespace, plain_http)
            for day, run in made_up.backfill(client, read, days, settings or [], _say):
                done.append({"date": str(day), "run": run})
                if not as_json:
                    _echo(f"{day} is done: run {run}")
            if missed and not as_json:
                _echo(f"{read.name}: no day up to {newest} is missing")
        except PassingError as error:
            _say(str(error))
            raise typer.Exit(error.status) from error  # the CronJob of deploy/ retries this, but not a failed day
        except KeyboardInterrupt as error:
            _echo("Interrupted. A run that was started continues; the same command waits for it.", err=True)
            raise typer.Exit(Status.INTERRUPTED) from error
        finally:
            if as_json:
                typer.echo(json.dumps(done, indent=2))


@app.command()
def schedule(
    package: PackageArgument,
    cron: Annotated[str, typer.Option(help="When: six fields, seconds first, such as '0 0 4 * * *'.")],
    host: HostOption,
    days_back: DaysBackOption = DAYS_BACK,
    make_up_days: MakeUpOption = MAKE_UP_DAYS,
    settings: SetOption = None,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Schedule the pipeline: each run takes the oldest missing day, one at a time. Replaces the pipeline's schedule."""
    with reported():
        from pipeline.kubeflow.client import Schedule
        from pipeline.kubeflow.package import read_package

        read = read_package(package)
        wanted = Schedule(cron, days_back, make_up_days, tuple(settings or ()))
        client = _client(host, certificates, namespace, plain_http)
        try:
            was = client.schedule(read, wanted)
        except KeyboardInterrupt as error:
            _echo(f"Interrupted. {read.name} is paused until the same command is completed.", err=True)
            raise typer.Exit(Status.INTERRUPTED) from error
        same = f"{read.name} is already scheduled this way; nothing to do"
        _echo(same if was == "the same" else f"{read.name} is scheduled at {cron}")


@app.command("list")
def list_schedules(
    host: HostOption,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """List the schedules."""
    with reported():
        for existing in _client(host, certificates, namespace, plain_http).schedules():
            cron = (
                existing.trigger.cron_schedule.cron
                if existing.trigger and existing.trigger.cron_schedule
                else "at intervals"
            )
            _echo(f"{existing.display_name}  {cron}{'  paused' if existing.mode == 'DISABLE' else ''}")


@app.command()
def pause(
    name: NameArgument,
    host: HostOption,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Start no further runs until `resume`; a running one continues."""
    with reported():
        _client(host, certificates, namespace, plain_http).pause(name)


@app.command()
def resume(
    name: NameArgument,
    host: HostOption,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Resume a paused schedule."""
    with reported():
        _client(host, certificates, namespace, plain_http).resume(name)


@app.command()
def delete(
    name: NameArgument,
    host: HostOption,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
    plain_http: PlainHttpOption = False,
) -> None:
    """Remove a schedule once its last run has ended; completed runs stay."""
    with reported():
        _client(host, certificates, namespace, plain_http).delete(name)


def _say(words: str) -> None:
    _echo(words, err=True)


def _echo(words: str, err: bool = False) -> None:
    """Print text that includes a server's names and ids."""
    typer.echo(visible(words), err=err)


def _client(host: str, certificates: Path | None, namespace: str, plain_http: bool) -> "Client":
    from pipeline.kubeflow.client import Client
    from pipeline.kubeflow.connection import Access, Connection

    file = os.environ.get("NDR_KUBEFLOW_TOKEN_FILE")
    access = Access(
        host=host,
        token=os.environ.get("NDR_KUBEFLOW_TOKEN", ""),
        token_file=Path(file) if file else None,
        cookie=os.environ.get("NDR_KUBEFLOW_COOKIE", ""),
        certificates=certificates,
        plain_http=plain_http,
    )
    return Client(Connection(access), namespace, _say)
