"""Pushed versions: `ndr push`, `promote`, `export`, `mirror`."""

from typing import Annotated, Any

import typer

from pipeline.arguments import MOVIELENS_CONFIG, ConfigOption, SetOption, a_duration, reported
from pipeline.commands.session import session
from pipeline.export.stores import Name

app = typer.Typer()


@app.command()
def push(
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Make the previous version's content live again, under a new number.")
    ] = False,
    label: Annotated[
        str | None, typer.Option("--label", metavar="LABEL", help="Give the live version a label, such as canary.")
    ] = None,
    unlabel: Annotated[str | None, typer.Option("--unlabel", metavar="LABEL", help="Remove a label.")] = None,
    to: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Roll back to this version, or give it the label.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="List the versions as JSON.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """List the pushed versions; with --rollback, roll the live one back; with --label, label one for clients to ask by."""
    chosen = [
        name
        for name, value in (("--rollback", rollback), ("--label", label), ("--unlabel", unlabel), ("--json", as_json))
        if value
    ]
    if len(chosen) > 1:
        raise typer.BadParameter(
            f"expected one of --rollback, --label, --unlabel and --json, received {' and '.join(chosen)}"
        )
    if to is not None and not (rollback or label):
        raise typer.BadParameter("expected --rollback or --label beside --to")
    with session("push", config, settings, writes=bool(rollback or label or unlabel)) as (console, loaded):
        with console.status("loading TFX"):
            from components.pusher import labels
            from components.pusher.versions import PushFolder
            from pipeline.monitoring import metrics as exporter
            from pipeline.versions import pushed
        folder = PushFolder(loaded.serving)
        if rollback:
            from pipeline.versions.rollback import roll_back

            console.print(pushed.rollback_words(roll_back(loaded, to)), highlight=False, soft_wrap=True)
        elif label:
            labelled = labels.assign(folder, label, to or pushed.live(folder))
            console.print(pushed.label_words(labelled), highlight=False)
        elif unlabel:
            console.print(pushed.label_words(labels.remove(folder, unlabel)), highlight=False)
        elif as_json:
            console.file.write(pushed.as_json(loaded.serving))
        else:
            console.print(pushed.table(loaded.serving), soft_wrap=True)
        if rollback or label or unlabel:
            exporter.export(loaded)


@app.command()
def promote(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A label that the version has.")] = "canary",
    target: Annotated[str, typer.Argument(metavar="TO", help="The label to give it as well.")] = "stable",
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Give the label `stable` to the version that has the label `canary`."""
    with session("promote", config, settings) as (console, loaded):
        with console.status("loading TFX"):
            from components.pusher import labels
            from components.pusher.versions import PushFolder
            from pipeline.monitoring import metrics as exporter
            from pipeline.versions import pushed
        folder = PushFolder(loaded.serving)
        labelled = labels.assign(folder, target, labels.resolve(folder, source))
        console.print(pushed.label_words(labelled), highlight=False)
        exporter.export(loaded)


@app.command()
def export(
    store: Annotated[Name, typer.Argument(help="The store, as configured under `export`.")],
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="V", help="A version's number or label; by default the live version."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the versions in the store instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Show them as JSON.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Write a pushed version's items to a store, and make it live there once its answers are those of exact search."""
    if version and (listed or as_json):
        raise typer.BadParameter("expected --version, or --list and --json, received both")
    with session("export", config, settings, writes=False) as (console, loaded):
        with console.status("loading TFX"):
            from pipeline.asking import server as asking
            from pipeline.export import exporting, shown

        if as_json:
            console.file.write(shown.as_json(loaded, store))
        elif listed:
            console.print(shown.table(loaded, store), soft_wrap=True)
        else:

            def say(words: str) -> None:
                console.print(f"  {words}", highlight=False, soft_wrap=True)

            wanted = None if version is None else asking.version(version)
            outcome = exporting.export(loaded, store, wanted, say)
            console.print(shown.words(outcome), highlight=False, soft_wrap=True)


@app.command()
def mirror(
    source: Annotated[str, typer.Argument(metavar="FROM", help="A push folder, such as s3://bucket/serving.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="A folder of this machine, for TF Serving or ndr serve.")],
    every: Annotated[
        Any, typer.Option("--every", parser=a_duration, metavar="DURATION", help="Go on, with this pause.")
    ] = None,
) -> None:
    """Copy the versions to serve from a push folder that servers cannot read, complete versions only; remove others."""
    with reported():
        from pipeline.versions import mirroring

        mirroring.mirror(source, target, every, lambda words: print(words, flush=True))
