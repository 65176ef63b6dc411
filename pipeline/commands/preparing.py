"""What comes before the first run: `ndr data`, `doctor`, `init`, `schema`."""

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from pipeline.arguments import MOVIELENS_CONFIG, ConfigOption, SetOption, reported
from pipeline.commands.session import session

app = typer.Typer()
data_app = typer.Typer(help="Fetch example data.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def movielens(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Fetch MovieLens 100K and write it as daily logs and a catalogue."""
    with session("data", config, settings) as (console, loaded):
        from pipeline.datasets.movielens import prepare

        target = prepare(loaded.root / "data", lambda words: console.print(f"  {words}"))
        console.print(f"MovieLens 100K is in {target}")


@data_app.command()
def completejourney(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Fetch a grocer's year and write it as daily sales, products and households."""
    with session("data", config, settings) as (console, loaded):
        from pipeline.datasets.completejourney import prepare

        target = prepare(loaded.root / "data", lambda words: console.print(f"  {words}"))
        console.print(f"The grocer's year is in {target}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Check that this machine or image has everything a run needs; exit with status 0 if so."""
    from pipeline import config as configuration

    with reported():
        loaded = configuration.load(config, settings or [])
        from pipeline.checks import doctor as examiner
        from pipeline.terminal import quiet_terminal

        findings = []
        with TemporaryDirectory() as folder, quiet_terminal(Path(folder), "doctor") as (console, _):
            for finding in examiner.examine(loaded):
                findings.append(finding)
                if not as_json:
                    console.print(examiner.in_words(finding), highlight=False, soft_wrap=True)
            if as_json:
                console.file.write(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
        raise typer.Exit(examiner.verdict(findings))


@app.command()
def init(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="A log of interactions and, if you have them, a catalogue and a users' table; CSV or Parquet.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The dataset's name; by default the folder's.")] = None,
    into: Annotated[Path | None, typer.Option(help="The folder to write to; by default the dataset's name.")] = None,
    interactions: Annotated[str | None, typer.Option(metavar="PATH", help="The log, relative to the folder.")] = None,
    catalogue: Annotated[str | None, typer.Option(metavar="PATH", help="The items, relative to the folder.")] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's user column.")] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's item column.")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's time column.")] = None,
    reward: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's reward column.")] = None,
) -> None:
    """Draft features.yaml and the configuration from your files, with a comment for each guess."""
    called = re.sub(r"[^A-Za-z0-9_-]+", "-", name or folder.resolve().name).strip("-") or "dataset"
    if name is not None and called != name:
        raise typer.BadParameter(f"expected --name of letters, digits, _ and -, received {name!r}")
    with reported():
        from pipeline.init import drafts
        from pipeline.init.roles import Declared

        declared = Declared(interactions, catalogue, user, item, time, reward)
        draft = drafts.draft(str(folder), into or Path(called), called, declared)
        for path in draft.paths:
            typer.echo(f"wrote {path}")
        for group, reason in draft.others.items():
            typer.echo(f"not used: {group}: {reason}")
        config = shlex.quote(str(draft.paths[1]))
        typer.echo(f"Read their comments, then: ndr run --config {config} --date {draft.day}")
        if draft.week < draft.day:
            typer.echo(
                f"Or run its last days one by one: ndr backfill --config {config} --from {draft.week} --to {draft.day}"
            )


@app.command()
def schema(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Write a first draft of the schemas missing from a dataset's folder."""
    from pipeline import config as configuration

    with reported():
        loaded = configuration.load(config, settings or [])
        from schemas import contract

        written = contract.write_drafts(loaded.dataset, loaded.feature_spec())
        typer.echo("\n".join(f"wrote {path}" for path in written) or f"{loaded.dataset} has both schemas already")
