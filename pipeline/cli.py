"""The command `ndr`. Each command imports its own heavy modules."""

import json
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from components.unused import leave_out
from pipeline.arguments import (
    MOVIELENS_CONFIG,
    AuthoritiesOption,
    ConfigOption,
    FirstDayOption,
    LabelOption,
    LastDayOption,
    ServerOption,
    SetOption,
    WhereOption,
    a_day,
    a_duration,
    days_between,
    discard,
    reported,
)
from pipeline.export.stores import Name
from pipeline.inspection.cli import app as inspection_app
from pipeline.kubeflow.cli import app as kubeflow_app
from schemas.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.recommend import Recommendation

INTERNAL_FAULT = 70
INTERRUPTED = 130
HIGHEST_PORT = (1 << 16) - 1

app = typer.Typer(
    help="Train, evaluate and ship a two-tower retrieval model every day.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fetch example data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(inspection_app)
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


def _id(text: str) -> str:
    if not text or not text.isprintable():
        raise typer.BadParameter(f"expected an id, received {text!r}")
    return text


@app.command()
def run(
    day: Annotated[Any, typer.Option("--date", parser=a_day, metavar="YYYY-MM-DD", help="The UTC day.")],
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Run the whole pipeline for one day."""
    with _session("run", config, settings) as (console, loaded):
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
    with _session("backfill", config, settings) as (console, loaded):
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
    with _session("refresh", config, settings) as (console, loaded):
        from pipeline import refreshing, terminal
        from pipeline.missed import today
        from pipeline.records import REFRESH, Records, connection, has_begun

        taken = day or today()
        before = None
        if has_begun(loaded):
            _, before = refreshing.given(loaded, taken, Records(connection(loaded)))
        if before is None:
            with console.status("loading TFX"):
                from pipeline.local import run_locally
                from pipeline.refresh_run import begin
            with terminal.step_progress(console, lines=True) as (started, ended):
                result, _ = run_locally(loaded, taken, started, ended, begin, REFRESH)
        if before or result.passed_over_for:
            console.print(refreshing.nothing_to_do(loaded, before or result), highlight=False, soft_wrap=True)
            return
        from pipeline.summary import tables

        for table in tables(result):
            console.print(table)
        _collect(console, loaded)


@data_app.command()
def movielens(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Fetch MovieLens 100K and write it as daily logs and a catalogue."""
    with _session("data", config, settings) as (console, loaded):
        from pipeline.movielens import prepare

        target = prepare(loaded.root / "data", lambda words: console.print(f"  {words}"))
        console.print(f"MovieLens 100K is in {target}")


@data_app.command()
def completejourney(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Fetch a grocer's year and write it as daily sales, products and households."""
    with _session("data", config, settings) as (console, loaded):
        from pipeline.completejourney import prepare

        target = prepare(loaded.root / "data", lambda words: console.print(f"  {words}"))
        console.print(f"The grocer's year is in {target}")


@app.command()
def recommend(
    user: Annotated[Any, typer.Option(parser=_id, metavar="ID", help="The user's id, as in the interactions.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many items.")] = 10,
    server: ServerOption = None,
    label: LabelOption = None,
    authorities: AuthoritiesOption = None,
    where: WhereOption = None,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Show what the newest version, or the one with a label, recommends to a user."""
    with _session("recommend", config, settings, writes=False) as (console, loaded):
        with console.status("loading the retriever"):
            from pipeline import recommend as recommender

            answer = recommender.recommend(loaded, user, k, server, label, authorities, where or [])
        if answer.known:
            console.print(f"{user} saw last: {'; '.join(answer.history[-5:])}", highlight=False)
        else:
            console.print(
                f"{user} has no interaction in the window: the answer is that for an unknown user.", highlight=False
            )
        console.print(_items(f"For {user}, by version {answer.version}", answer.items))


@app.command()
def similar(
    item: Annotated[Any, typer.Option(parser=_id, metavar="ID", help="The item's id, as in the catalogue.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many items.")] = 10,
    server: ServerOption = None,
    label: LabelOption = None,
    authorities: AuthoritiesOption = None,
    where: WhereOption = None,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Show the items most similar to an item, by the newest version or the one with a label."""
    with _session("similar", config, settings, writes=False) as (console, loaded):
        with console.status("loading the retriever"):
            from pipeline import recommend as recommender

            answer = recommender.similar(loaded, item, k, server, label, authorities, where or [])
        console.print(_items(f"Like {answer.title}, by version {answer.version}", answer.items))


def _items(title: str, items: "list[Recommendation]") -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("", "item", "title", "score"):
        table.add_column(column)
    for place, each in enumerate(items, 1):
        table.add_row(str(place), each.item, each.title, f"{each.score:.3f}")
    return table


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
    with _session("tune", config, settings, writes=False) as (console, loaded):
        from pipeline import terminal

        with console.status("loading TensorFlow"):
            from pipeline.tuning import tune as search

        def say(words: str) -> None:
            console.print(f"  {words}", highlight=False, soft_wrap=True)

        with terminal.step_progress(console, lines=False):
            found = search.tune(loaded, day, time_given.total_seconds(), say)
        console.print(search.table(found))
        console.print(found.verdict, highlight=False, soft_wrap=True)
        for line in search.difference(found):
            console.print(f"  {line}", highlight=False, soft_wrap=True)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for all.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=HIGHEST_PORT, help="The gRPC port.")] = 8500,
    rest_port: Annotated[int, typer.Option(min=1, max=HIGHEST_PORT, help="The REST port.")] = 8501,
    embedded: Annotated[bool, typer.Option("--embedded", help="Use it even if TF Serving is installed.")] = False,
    histories: Annotated[
        bool,
        typer.Option("--histories", help="Keep each user's last items, so that a request needs only the user's id."),
    ] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Serve the pushed versions and those to come: by TF Serving if it may listen on all addresses, else by our own server."""
    if port == rest_port:
        raise typer.BadParameter(f"expected two ports, --port and --rest-port, received {port} for both")
    from pipeline import terminal

    with _session("serve", config, settings, writes=False, opened=terminal.logging_terminal) as (console, loaded):
        from serving.launch import Where
        from serving.launch import serve as launch

        def say(words: str) -> None:
            console.print(words, highlight=False, soft_wrap=True)

        def log_of(version: int) -> str | None:
            from pipeline.recommend import interactions_of

            return interactions_of(loaded, version)

        where, spec = Where(host, port, rest_port), loaded.feature_spec()
        launch(loaded.serving, where, embedded, loaded.root, loaded.server, spec, log_of if histories else None, say)


@app.command()
def report(
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path("report.html"),
    first: Annotated[
        Any,
        typer.Option(
            "--from", parser=a_day, metavar="YYYY-MM-DD", help="The first UTC day; by default the newest 30 with runs."
        ),
    ] = None,
    last: Annotated[Any, typer.Option("--to", parser=a_day, metavar="YYYY-MM-DD", help="The last UTC day.")] = None,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Write an HTML page about the runs of several days; it needs no network and no other file."""
    if first and last and last < first:
        raise typer.BadParameter(f"expected --to at or after --from, received {first} and {last}")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"expected --output in an existing folder, received {output}")
    if output.is_dir():
        raise typer.BadParameter(f"expected --output to be a file, received the folder {output}")
    with _session("report", config, settings, writes=False) as (console, loaded):
        with console.status("reading the runs"):
            from pipeline.report import facts, page

            found = facts.gather(loaded, first, last)
            page.write(page.render(found, loaded), output)
        span = f"s, {found.days[0].date} to {found.days[-1].date}" if len(found.days) > 1 else f", {found.days[0].date}"
        console.print(f"{output}: {len(found.days)} day{span}", highlight=False, soft_wrap=True)


@app.command()
def check(
    within: Annotated[
        Any,
        typer.Option("--newest-within", parser=a_duration, metavar="DURATION", help="Such as 30h, 2d or 90m."),
    ],
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Exit with status 0 if the last successful run ended within a duration, else with 1 and the reason; for alerts."""
    with _session("check", config, settings, writes=False) as (console, loaded):
        from datetime import UTC, datetime

        from pipeline import standing

        verdict = standing.check(standing.read(loaded), within, datetime.now(UTC), loaded.data.is_closed)
        if not verdict.is_good:
            raise UserError("\n".join([verdict.sentence, *verdict.reasons]))
        console.print(verdict.sentence, highlight=False, soft_wrap=True)


@app.command()
def skew(
    last: Annotated[
        Any, typer.Option("--last", parser=a_duration, metavar="DURATION", help="Use queries served in this time.")
    ] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Measure how far served queries are from the live version's training data; exit with status 1 beyond validation.skew."""
    with _session("skew", config, settings, writes=False) as (console, loaded):
        from datetime import UTC, datetime

        with console.status("loading TFDV"):
            from pipeline import requests
            from pipeline import skew as measurement
        queries = requests.read(loaded.root / loaded.server.request_log.path, datetime.now(UTC) - last)
        measured = measurement.measure(loaded, queries)
        measurement.write(loaded, measured)
        if as_json:
            console.file.write(json.dumps(asdict(measured), indent=2) + "\n")
        else:
            console.print(measurement.table(measured))
            for caution in measured.cautions():
                console.print(caution, style="yellow", highlight=False, soft_wrap=True)
        if faults := measured.faults():
            raise UserError("\n".join(faults))


@app.command()
def shadow(
    one: Annotated[str, typer.Argument(metavar="A", help="A version's number or label, such as stable.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The other version, such as canary.")],
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="A gRPC server of both.")] = "127.0.0.1:8500",
    authorities: AuthoritiesOption = None,
    last: Annotated[
        Any, typer.Option("--last", parser=a_duration, metavar="DURATION", help="Use queries served in this time.")
    ] = "24h",
    most: Annotated[int, typer.Option(min=1, help="Use at most this many queries, the newest.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Send logged queries to two versions, and compare their items, scores and latency."""
    with _session("shadow", config, settings, writes=False) as (console, loaded):
        from datetime import UTC, datetime

        with console.status("reading the queries"):
            from pipeline import asking, requests
            from pipeline import shadow as comparison

            queries = requests.read(loaded.root / loaded.server.request_log.path, datetime.now(UTC) - last)[-most:]
        with asking.client(loaded, server, authorities) as client, console.status("asking"):
            result = comparison.compare(client, queries, asking.version(one), asking.version(other))
        if as_json:
            console.file.write(json.dumps(asdict(result), indent=2) + "\n")
        else:
            console.print(comparison.table(result))


@app.command()
def metrics(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Print the pipeline's metrics in Prometheus format, and write them where the configuration says."""
    with _session("metrics", config, settings, writes=False) as (console, loaded):
        from prometheus_client import generate_latest

        from pipeline import metrics as exporter
        from pipeline import standing

        console.file.write(generate_latest(exporter.registry(loaded, standing.read(loaded))).decode())
        if faults := exporter.export(loaded):
            raise UserError("\n".join(faults))


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
    with _session("push", config, settings, writes=bool(rollback or label or unlabel)) as (console, loaded):
        with console.status("loading TFX"):
            from components.pusher import labels
            from components.pusher.versions import PushFolder
            from pipeline import metrics as exporter
            from pipeline import pushed
        folder = PushFolder(loaded.serving)
        if rollback:
            from pipeline.rollback import roll_back

            console.print(pushed.rollback_words(roll_back(loaded, to)), highlight=False, soft_wrap=True)
        elif label:
            given = labels.assign(folder, label, to or pushed.live(folder))
            console.print(pushed.label_words(given), highlight=False)
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
    with _session("promote", config, settings) as (console, loaded):
        with console.status("loading TFX"):
            from components.pusher import labels
            from components.pusher.versions import PushFolder
            from pipeline import metrics as exporter
            from pipeline import pushed
        folder = PushFolder(loaded.serving)
        given = labels.assign(folder, target, labels.resolve(folder, source))
        console.print(pushed.label_words(given), highlight=False)
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
    with _session("export", config, settings, writes=False) as (console, loaded):
        with console.status("loading TFX"):
            from pipeline import asking
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
        from pipeline import mirroring

        mirroring.mirror(source, target, every, lambda words: print(words, flush=True))


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
        from pipeline import doctor as examiner
        from pipeline.terminal import quiet_terminal

        findings = []
        with TemporaryDirectory() as folder, quiet_terminal(Path(folder), "doctor") as (console, _):
            for finding in examiner.examine(loaded):
                findings.append(finding)
                if not as_json:
                    console.print(examiner.in_words(finding), highlight=False, soft_wrap=True)
            if as_json:
                console.file.write(json.dumps([asdict(each) for each in findings], indent=2) + "\n")
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
        for other, reason in draft.others.items():
            typer.echo(f"not used: {other}: {reason}")
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
        from pipeline import metrics as exporter

        exporter.export(loaded)
        return before, False
    with console.status("loading TFX"):
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
    from pipeline.retention import collect

    collected = collect(loaded)
    artifacts = [f"{collected.artifacts} old artifacts ({collected.bytes / 1e6:.1f} MB)"] if collected.artifacts else []
    versions = [f"version {version}" for version in collected.versions]
    if artifacts or versions:
        console.print(f"  removed {', '.join([*artifacts, *versions])}", highlight=False)
    for path in collected.unreadable:
        console.print(
            f"  removed nothing old: {path} is not a readable version manifest. Move it away.", highlight=False
        )


def main() -> None:
    """Run the command line."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed by the parent process: the next opened file would take its number
            discard(descriptor)
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8"))
    leave_out()
    app()


@contextmanager
def _session(
    command: str,
    config: Path,
    settings: list[str] | None,
    writes: bool = True,
    opened: Callable[[Path, str], AbstractContextManager[tuple[Console, Path]]] | None = None,
) -> Iterator[tuple[Console, Any]]:
    """Run a command: read its configuration, lock the root if it writes, and send log messages to a file."""
    from contextlib import nullcontext

    from pipeline import config as configuration
    from pipeline import disk, lock, rights, terminal

    with reported():
        loaded = configuration.load(config, settings or [])
        if writes:
            rights.check(loaded)
        try:
            with (
                lock.exclusive(loaded.root) if writes else nullcontext(),
                (opened or terminal.quiet_terminal)(loaded.logs, command) as (console, log),
            ):
                try:
                    yield console, loaded
                except UserError:
                    raise
                except KeyboardInterrupt as error:
                    # Python restores the default handler before it exits, and a second Ctrl-C would then kill it.
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    console.print("Interrupted. Completed steps are kept, and the same command resumes from there.")
                    raise typer.Exit(INTERRUPTED) from error
                except Exception as error:
                    if disk.is_full(error, loaded.root):
                        raise
                    logging.getLogger(__name__).exception("internal error")
                    console.print(
                        f"Failed: {type(error).__name__}: {str(error)[:300]}\nDetails are in {log}.",
                        markup=False,
                    )
                    raise typer.Exit(INTERNAL_FAULT) from error
        except Exception as error:
            if disk.is_full(error, loaded.root):
                raise UserError(
                    f"The disk that holds {loaded.root} is full. Nothing was pushed. Make room and run again."
                ) from error
            if isinstance(error, OSError):
                raise UserError(
                    f"{loaded.root} cannot be used: {error.strerror or error}. Name another root: --set root=DIR."
                ) from error
            raise


if __name__ == "__main__":
    main()
