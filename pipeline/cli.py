"""The command `ndr`. Each command imports its own heavy modules."""

import os
import sys
from typing import Annotated

import typer

from components.unused import leave_out
from pipeline.arguments import discard
from pipeline.commands import preparing, reports, runs, serving, versions
from pipeline.inspection.cli import app as inspection_app
from pipeline.kubeflow.cli import app as kubeflow_app

app = typer.Typer(
    help="Train, evaluate and ship a two-tower retrieval model every day.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (preparing.app, runs.app, serving.app, versions.app, reports.app, inspection_app):
    app.add_typer(commands)
app.add_typer(kubeflow_app, name="kubeflow")


def _say_version(is_asked: bool) -> None:
    if is_asked:
        from importlib import metadata

        from pipeline import origin

        commit, is_changed = origin.commit()
        of_commit = f", commit {commit}{', with local changes' if is_changed else ''}" if commit else ""
        typer.echo(f"ndr {metadata.version(origin.PACKAGE)}{of_commit}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and the commit.")
    ] = False,
) -> None:
    """Train, evaluate and ship a two-tower retrieval model every day."""


def main() -> None:
    """Run the command line."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed by the parent process: the next opened file would take its number
            discard(descriptor)
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8"))
    leave_out()
    app()


if __name__ == "__main__":
    main()
