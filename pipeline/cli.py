"""The command `ndr`. What is heavy is imported by the command that needs it."""

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
    help="Trains, judges and ships a two-tower retrieval model every day.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Fetches example data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(inspection_app)
app.add_typer(kubeflow_app, name="kubeflow")


def _say_version(is_asked: bool) -> None:
    if is_asked:
        from importlib import metadata

        from pipeline import origin

        commit, is_changed = origin.commit()
        of_commit = f", commit {commit}{', changed since' if is_changed else ''}" if commit else ""
        typer.echo(f"ndr {metadata.version(origin.PACKAGE)}{of_commit}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Shows the version and the commit.")
    ] = False,
) -> None:
    """Trains, judges and ships a two-tower retrieval model every day."""


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
    """Runs the whole pipeline for one day."""
    with _session("run", config, settings) as (console, loaded):
        _caution(console, loaded)  # a fault of the specification is told at once
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
    """Runs the pipeline for every day of a range, oldest first; days that are done with the same input are passed over."""
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
                        f"{day}: {error}\nThe backfill stopped there. Once that is mended, the same command goes on with {day}."
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


@data_app.command()
def movielens(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Fetches MovieLens 100K and writes it as daily logs and a catalogue."""
    with _session("data", config, settings) as (console, loaded):
        from pipeline.movielens import prepare

        target = prepare(loaded.root / "data", lambda words: console.print(f"  {words}"))
        console.print(f"MovieLens 100K is in {target}")


@data_app.command()
def completejourney(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Fetches a grocer's year and writes it as daily sales, products and households."""
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
    """Shows what the newest version, or that of a label, recommends to a user."""
    with _session("recommend", config, settings, writes=False) as (console, loaded):
        with console.status("loading the retriever"):
            from pipeline import recommend as recommender

            answer = recommender.recommend(loaded, user, k, server, label, authorities, where or [])
        if answer.known:
            console.print(f"{user} saw last: {'; '.join(answer.history[-5:])}", highlight=False)
        else:
            console.print(
                f"{user} has no interaction in the window: the answer is for someone unknown.", highlight=False
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
    """Shows the items that are most like an item, by the newest version, or that of a label."""
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
        Any, typer.Option("--for", parser=a_duration, metavar="DURATION", help="Of all trials, such as 30m.")
    ] = "30m",
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Searches for better settings of the trainer over a day's data, judged by its held-out users; goes on where it was ended."""
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
        str, typer.Option(metavar="ADDRESS", help="The address to listen on; 0.0.0.0 for every one.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=HIGHEST_PORT, help="Of gRPC.")] = 8500,
    rest_port: Annotated[int, typer.Option(min=1, max=HIGHEST_PORT, help="Of REST.")] = 8501,
    embedded: Annotated[bool, typer.Option("--embedded", help="Even where TF Serving is installed.")] = False,
    histories: Annotated[
        bool,
        typer.Option("--histories", help="Keeps each user's last items, so that a request may be a user's id alone."),
    ] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Serves what was pushed, and what will be: by TF Serving where it may listen on every address, else by a server of our own."""
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
            "--from", parser=a_day, metavar="YYYY-MM-DD", help="The first UTC day; else the newest 30 with runs."
        ),
    ] = None,
    last: Annotated[Any, typer.Option("--to", parser=a_day, metavar="YYYY-MM-DD", help="The last UTC day.")] = None,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Writes one HTML page on how the days went: it needs no network and no other file."""
    if first and last and last < first:
        raise typer.BadParameter(f"expected --to at or after --from, received {first} and {last}")
    if not output.absolute().parent.is_dir():
        raise typer.BadParameter(f"expected --output in a folder that is there, received {output}")
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
    """For alerts: status 0 where the last successful run ended within a duration, else 1 and the reason."""
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
        Any, typer.Option("--last", parser=a_duration, metavar="DURATION", help="Queries that were served since then.")
    ] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Measures how far served queries are from what the live version was trained on; status 1 beyond validation.skew."""
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
    other: Annotated[str, typer.Argument(metavar="B", help="Another's, such as canary.")],
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="That has both; gRPC.")] = "127.0.0.1:8500",
    authorities: AuthoritiesOption = None,
    last: Annotated[
        Any, typer.Option("--last", parser=a_duration, metavar="DURATION", help="Queries that were served since then.")
    ] = "24h",
    most: Annotated[int, typer.Option(min=1, help="The newest so many queries.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Asks two versions what was asked before, and compares their items, scores and latency."""
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
    """Prints the pipeline's metrics in Prometheus' form, and writes them to where the configuration says."""
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
        bool, typer.Option("--rollback", help="Makes the content of the version before live again, under a new number.")
    ] = False,
    label: Annotated[
        str | None, typer.Option("--label", metavar="LABEL", help="Gives a label, such as canary, to the live version.")
    ] = None,
    unlabel: Annotated[str | None, typer.Option("--unlabel", metavar="LABEL", help="Removes a label.")] = None,
    to: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Goes back to this version, or gives it the label.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Lists them as JSON.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Lists the pushed versions; with --rollback, takes the live one back; with --label, names one for clients to ask by."""
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
    source: Annotated[str, typer.Argument(metavar="FROM", help="The label of the version.")] = "canary",
    target: Annotated[str, typer.Argument(metavar="TO", help="The label that it is given besides.")] = "stable",
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Gives the label `stable` to the version that has the label `canary`."""
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
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Looks whether this machine, or this image, has all that a run needs; status 0 if so."""
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
            help="With a log of interactions, and a catalogue and a users' table if there are: CSV or Parquet.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Of the dataset; by default the folder's.")] = None,
    into: Annotated[Path | None, typer.Option(help="The folder to write to; by default the name.")] = None,
    interactions: Annotated[str | None, typer.Option(metavar="PATH", help="The log, below the folder.")] = None,
    catalogue: Annotated[str | None, typer.Option(metavar="PATH", help="The items, below the folder.")] = None,
    user: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's column of the user.")] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's column of the item.")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's column of the time.")] = None,
    reward: Annotated[str | None, typer.Option(metavar="COLUMN", help="The log's column of the reward.")] = None,
) -> None:
    """Drafts features.yaml and the configuration from files that you have, with a comment for each guess."""
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
        typer.echo(f"Look at their comments, then: ndr run --config {config} --date {draft.day}")
        if draft.week < draft.day:
            typer.echo(
                f"Or its last days, one by one: ndr backfill --config {config} --from {draft.week} --to {draft.day}"
            )


@app.command()
def schema(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Writes a first draft of the schemas that a dataset's folder lacks."""
    from pipeline import config as configuration

    with reported():
        loaded = configuration.load(config, settings or [])
        from schemas import contract

        written = contract.write_drafts(loaded.dataset, loaded.feature_spec())
        typer.echo("\n".join(f"wrote {path}" for path in written) or f"{loaded.dataset} has both schemas")


def _run_day(console: Console, loaded: Any, day: Any, lines: bool) -> tuple[Any, bool]:
    """A day's run, and whether there was anything to do. Only where there is, TFX is imported.

    Args:
        console: where to.
        loaded: the configuration.
        day: the UTC day.
        lines: whether each step that has ended gets a line.
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
        return f"version {result.version}{', though a baseline is ahead of its model' if result.waived else ''}"
    return f"{'not pushed' if result.blessed else 'not blessed'}: {'; '.join(result.refused)}"


def _done_before(result: Any) -> str:
    return f"{result.date} is done with the same input ({_outcome(result)}, by run {result.run}): nothing to do."


def _caution(console: Console, loaded: Any) -> None:
    for caution in loaded.cautions():
        console.print(caution, style="yellow", highlight=False, soft_wrap=True)


def _say_lost_rows(console: Console, loaded: Any, result: Any) -> None:
    from pipeline.metadata import Records
    from pipeline.runs import lost_rows
    from pipeline.store import connection

    before = Records(connection(loaded)).complete_before(result, loaded.name)
    if sentence := lost_rows(result, before):
        console.print(f"  {sentence}", highlight=False, soft_wrap=True)


def _collect(console: Console, loaded: Any) -> None:
    """Last, as what a run says of itself may lie in folders that go."""
    from pipeline.retention import collect

    collected = collect(loaded)
    artifacts = [f"{collected.artifacts} old artifacts ({collected.bytes / 1e6:.1f} MB)"] if collected.artifacts else []
    versions = [f"version {version}" for version in collected.versions]
    if artifacts or versions:
        console.print(f"  removed {', '.join([*artifacts, *versions])}", highlight=False)
    for path in collected.unreadable:
        console.print(
            f"  removed nothing old: {path} cannot be read as a version's manifest. Move it away.", highlight=False
        )


def main() -> None:
    """The entry point."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed by whoever started us: the next file to be opened would take its number
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
    """A command under a root: its configuration read, the root locked where it is written to, noise in a log file."""
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
                    # Python gives the signal back its own effect before it is at its end, and a second one would then kill it.
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    console.print("Interrupted. What is whole is kept, and the same command goes on from there.")
                    raise typer.Exit(INTERRUPTED) from error
                except Exception as error:
                    if disk.is_full(error, loaded.root):
                        raise
                    logging.getLogger(__name__).exception("not the user's fault")
                    console.print(
                        f"Failed: {type(error).__name__}: {str(error)[:300]}\nThe whole story is in {log}.",
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
                    f"{loaded.root} cannot be used: {error.strerror or error}. Name another: --set root=DIR."
                ) from error
            raise


if __name__ == "__main__":
    main()
