"""The commands that read ML Metadata. They neither write to it nor load TensorFlow."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.arguments import MOVIELENS_CONFIG, ConfigOption, SetOption, reported

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

ROWS = 50  # of a table by default: more are slow to read, for people and for us

app = typer.Typer()

JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
LastOption = Annotated[
    int | None,
    typer.Option("--last", min=1, metavar="N", help=f"Show only the newest N; a table shows {ROWS} by default."),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or a day, for its last run.")
]


@app.command()
def runs(
    last: LastOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """List the runs."""
    with _reading(config, settings) as to:
        from pipeline.records import Records, at_work

        listed = at_work(Records(to).runs(_rows(last, as_json)), _is_held(config, settings)) if to else []
        if as_json:
            from pipeline.records import run_json

            _write([run_json(run) for run in listed])
        else:
            from pipeline.inspection.show import run_table

            _print([run_table(listed), *_note(listed, last)])


@app.command()
def show(
    run: RunArgument, as_json: JsonOption = False, config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None
) -> None:
    """Show a run: its inputs, steps and artifacts, and its results."""
    with _reading(config, settings, needed=True) as to:
        from pipeline.inspection import show
        from pipeline.inspection.find import find_run
        from pipeline.records import Lineage, Records, at_work

        records = Records(to)
        record = records.run(find_run(records, run))
        if record.run == records.run_ids()[-1]:
            (record,) = at_work([record], _is_held(config, settings))
        graph = Lineage(to).of_run(record.run)
        if as_json:
            _write(show.shown_json(record, graph))
        else:
            _print(show.run_tables(record, graph))


@app.command()
def artifacts(
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Show only this type, such as Model.")
    ] = None,
    last: LastOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """List the artifacts of the steps, oldest first, and whether each still exists."""
    with _reading(config, settings) as to:
        from pipeline.inspection import show
        from pipeline.records import Lineage

        listed = Lineage(to).artifacts(kind, _rows(last, as_json)) if to else []
        if as_json:
            _write([show.artifact_json(artifact) for artifact in listed])
        else:
            _print([show.artifact_table(listed), *_note(listed, last)])


@app.command()
def lineage(
    artifact: Annotated[
        str, typer.Argument(metavar="ARTIFACT", help="An artifact's id, its URI, a path in it, or a pushed version.")
    ],
    depth: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Follow N steps up and down; by default all of the artifact's own day."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Show what an artifact was made from (steps, data, code, configuration), and what was made from it."""
    with _reading(config, settings, needed=True) as to:
        from pipeline.inspection import tree
        from pipeline.inspection.find import find_artifact
        from pipeline.records import Lineage, Records

        history, records = Lineage(to), Records(to)
        artifact_id = find_artifact(history, artifact)
        graph = history.of_artifact(artifact_id, depth)
        origins = {run: records.run(run).origin for run in sorted(graph.runs())}
        if as_json:
            _write(tree.lineage_json(graph, artifact_id, origins))
        else:
            _print([tree.lineage_tree(graph, artifact_id, origins)])


@app.command()
def diff(
    one: RunArgument,
    other: RunArgument,
    everything: Annotated[bool, typer.Option("--all", help="Show what is the same, too.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Compare two runs: code, configuration, data, metrics, durations."""
    with _reading(config, settings, needed=True) as to:
        from pipeline.inspection import differences
        from pipeline.inspection.find import find_run
        from pipeline.records import Records

        records = Records(to)
        first, second = (records.run(find_run(records, run)) for run in (one, other))
        changes = differences.differences(first, second, everything)
        if as_json:
            _write(differences.differences_json(first, second, changes))
        else:
            _print(differences.difference_tables(first, second, changes, everything) or ["Nothing differs."])


@contextmanager
def _reading(config: Any, settings: list[str] | None, needed: bool = False) -> Iterator["mlmd.ConnectionConfig | None"]:
    """Open ML Metadata; yield None if nothing was ever run, unless it is `needed`."""
    with reported():
        from pipeline import config as configuration
        from pipeline.records import connection, has_begun
        from schemas.errors import UserError

        loaded = configuration.load(config, settings or [])
        if has_begun(loaded):
            yield connection(loaded)
        elif needed:
            raise UserError(
                f"No run yet: {loaded.metadata_path} does not exist. Name another root with --set root=DIR."
            )
        else:
            yield None


def _is_held(config: Any, settings: list[str] | None) -> bool:
    """Return whether a command holds the lock of the configuration's root."""
    from pipeline import config as configuration
    from pipeline import lock

    return lock.is_held(configuration.load(config, settings or []).root)


def _rows(last: int | None, as_json: bool) -> int | None:
    """Return how many rows to read: the number asked for, else all for JSON and one table for people."""
    return last if last or as_json else ROWS


def _note(listed: Sequence[Any], last: int | None) -> list[str]:
    """Note that there may be more rows."""
    return [f"The newest {ROWS}; --last N shows more."] if last is None and len(listed) == ROWS else []


def _write(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def _print(content: Sequence[Any]) -> None:
    from pipeline.terminal import UNKNOWN_WIDTH, TextConsole

    is_known = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = TextConsole(width=None if is_known else UNKNOWN_WIDTH)
    for block in content:
        console.print(block)
