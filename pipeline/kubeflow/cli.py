"""The commands `ndr kubeflow ...`."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.arguments import (
    MOVIELENS_CONFIG,
    ConfigOption,
    FirstDayOption,
    LastDayOption,
    SetOption,
    a_day,
    days_between,
    reported,
)

if TYPE_CHECKING:
    from pipeline.kubeflow.client import Client

TOKEN = "NDR_KUBEFLOW_TOKEN"
INTERRUPTED = 130

app = typer.Typer(
    help=f"Runs the pipeline on Kubeflow Pipelines 2. The environment variable {TOKEN} holds the token, where one is asked for.",
    no_args_is_help=True,
)

PackageArgument = Annotated[Path, typer.Argument(help="What `ndr kubeflow compile` wrote.")]
NameArgument = Annotated[str, typer.Argument(help="The pipeline's name.")]
HostOption = Annotated[
    str, typer.Option("--host", envvar="NDR_KUBEFLOW_HOST", help="The address of Kubeflow Pipelines.")
]
CertificatesOption = Annotated[
    Path | None, typer.Option("--certificates", exists=True, help="Certificates to trust, a PEM file.")
]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="The profile, on an installation for many users.")]


@app.command("compile")
def compile_package(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Writes the pipeline as Kubeflow takes it."""
    from pipeline import config as configuration

    with reported():
        loaded = configuration.load(config, settings or [])
        from pipeline.terminal import quiet_terminal

        with TemporaryDirectory() as folder, quiet_terminal(Path(folder), "compile"):
            from pipeline.kubeflow import compiler

            text = compiler.compile_pipeline(loaded, config, settings or [])
        unfinished = output.with_name(f"{output.name}.unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(output)
        typer.echo(f"wrote {output}")


@app.command()
def submit(
    package: PackageArgument,
    day: Annotated[Any, typer.Option("--date", parser=a_day, metavar="YYYY-MM-DD", help="The UTC day.")],
    host: HostOption,
    settings: SetOption = None,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
) -> None:
    """Starts the run of a day."""
    with reported():
        from pipeline.kubeflow.client import read_package

        read = read_package(package)
        run = _client(host, certificates, namespace).submit(read, day, settings or [])
        typer.echo(f"submitted {read.name} for {day}: run {run}")


@app.command()
def backfill(
    package: PackageArgument,
    first: FirstDayOption,
    last: LastDayOption,
    host: HostOption,
    as_json: Annotated[bool, typer.Option("--json", help="The days that were done, as a JSON list.")] = False,
    settings: SetOption = None,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
) -> None:
    """Runs every day of a range, oldest first, each once the one before is done; days that are done are passed over."""
    days = days_between(first, last)
    with reported():
        from pipeline.kubeflow import backfill as made_up
        from pipeline.kubeflow.client import read_package

        read = read_package(package)
        done = []
        try:
            client = _client(host, certificates, namespace)
            for day, run in made_up.backfill(
                client, read, days, settings or [], lambda words: typer.echo(words, err=True)
            ):
                done.append({"date": str(day), "run": run})
                if not as_json:
                    typer.echo(f"{day} is done: run {run}")
        except KeyboardInterrupt as error:
            typer.echo("Interrupted. The run that was started goes on; the same command waits for it.", err=True)
            raise typer.Exit(INTERRUPTED) from error
        finally:
            if as_json:
                typer.echo(json.dumps(done, indent=2))


@app.command()
def schedule(
    package: PackageArgument,
    cron: Annotated[str, typer.Option(help="When: six fields, seconds first, such as '0 0 4 * * *'.")],
    host: HostOption,
    days_back: Annotated[int, typer.Option(min=0, help="The day that is run lies so many days before.")] = 0,
    catch_up: Annotated[bool, typer.Option("--catch-up", help="Days missed while paused are run, too.")] = False,
    settings: SetOption = None,
    certificates: CertificatesOption = None,
    namespace: NamespaceOption = "",
) -> None:
    """Runs the pipeline daily, one run at a time; in place of the schedule that it had."""
    with reported():
        from pipeline.kubeflow.client import Schedule, read_package

        read = read_package(package)
        wanted = Schedule(cron, days_back, catch_up, tuple(settings or ()))
        is_new = _client(host, certificates, namespace).schedule(read, wanted)
        typer.echo(f"{read.name} is scheduled at {cron}" if is_new else f"{read.name} was so before: nothing to do")


@app.command("list")
def list_schedules(host: HostOption, certificates: CertificatesOption = None, namespace: NamespaceOption = "") -> None:
    """Lists the schedules."""
    with reported():
        for each in _client(host, certificates, namespace).schedules():
            cron = each.trigger.cron_schedule.cron if each.trigger and each.trigger.cron_schedule else "at intervals"
            typer.echo(f"{each.display_name}  {cron}{'  paused' if each.mode == 'DISABLE' else ''}")


@app.command()
def pause(
    name: NameArgument, host: HostOption, certificates: CertificatesOption = None, namespace: NamespaceOption = ""
) -> None:
    """Starts no further run until `resume`."""
    with reported():
        _client(host, certificates, namespace).pause(name)


@app.command()
def resume(
    name: NameArgument, host: HostOption, certificates: CertificatesOption = None, namespace: NamespaceOption = ""
) -> None:
    """Takes up a schedule that was paused."""
    with reported():
        _client(host, certificates, namespace).resume(name)


@app.command()
def delete(
    name: NameArgument, host: HostOption, certificates: CertificatesOption = None, namespace: NamespaceOption = ""
) -> None:
    """Removes a schedule; what was run stays."""
    with reported():
        _client(host, certificates, namespace).delete(name)


def _client(host: str, certificates: Path | None, namespace: str) -> "Client":
    from pipeline.kubeflow.client import Client

    return Client(host, os.environ.get(TOKEN, ""), certificates, namespace)
