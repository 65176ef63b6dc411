"""Formats a run and its artifacts."""

import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich import filesize
from rich.table import Table

from pipeline.origin import Origin
from pipeline.records import CLOSED, UNCHANGED, Artifact, Graph, Run, run_json
from pipeline.summary import tables
from pipeline.words import blessing_words, from_here


def run_tables(run: Run, graph: Graph) -> list[Table]:
    """Make the tables of a run: its inputs, its steps, their artifacts, and its results."""
    shown = [_made_from(run), _steps(run), artifact_table(graph.artifacts.values(), run.run), *tables(run)]
    return [table for table in shown if table.row_count]


def shown_json(run: Run, graph: Graph) -> dict[str, Any]:
    """Convert the same to JSON types, with the whole configuration."""
    return {**run_json(run), "artifacts": [artifact_json(artifact) for artifact in graph.artifacts.values()]}


def run_table(runs: Iterable[Run]) -> Table:
    """Make a table with a row for each run."""
    listed = list(runs)
    cutoffs = sorted({k for run in listed for k in (*run.recall, *run.next_day_recall)})
    table = Table(
        "run", "state", "version", "blessed", *(f"{of}@{k}" for of in ("next day", "held out") for k in cutoffs)
    )
    for run in listed:
        recalls = (f"{by_k[k]:.4f}" if k in by_k else "" for by_k in (run.next_day_recall, run.recall) for k in cutoffs)
        table.add_row(run.run, run.state, str(run.version or ""), blessing_words(run), *recalls)
    table.caption = (
        "next day: recall@K of all of the day by the model blessed before it; held out: of the run's own model"
    )
    table.caption_justify = "left"
    return table


def artifact_table(artifacts: Iterable[Artifact], run: str = "") -> Table:
    """Make a table with a row for each artifact.

    Args:
        artifacts: in the order of the rows.
        run: the run of these artifacts; only other runs are named. Empty if there is none.
    """
    table = Table(title=f"Artifacts of {run}, and what it used" if run else None, title_justify="left")
    for column in ("id", "type", "run", "there", "uri"):
        table.add_column(column, justify="right" if column == "id" else "left", overflow="fold")
    for artifact in artifacts:
        maker = "" if run and artifact.run == run else artifact.run
        table.add_row(str(artifact.id), artifact.type, maker, presence(artifact), from_here(artifact.uri))
    return table


def artifact_json(artifact: Artifact) -> dict[str, Any]:
    """Convert an artifact to JSON types; `exists` is None for an object store, which is not asked."""
    return {**asdict(artifact), "exists": _exists(artifact)}


def presence(artifact: Artifact) -> str:
    """Say whether an artifact that ML Metadata records still exists."""
    if artifact.state != "live":
        return artifact.state
    return {True: "yes", False: "missing", None: ""}[_exists(artifact)]


def code_words(origin: Origin) -> str:
    """Describe the code of a run."""
    commit = f", commit {origin.commit[:12]}{' and changes' if origin.changed else ''}" if origin.commit else ""
    return f"ndr {origin.version}{commit}, digest {origin.code}"


def seconds_words(seconds: float | None) -> str:
    """Format a duration, to a tenth of a second."""
    return "" if seconds is None else f"{seconds:.1f} s"


def files_words(files: dict[str, Any]) -> str:
    """Describe the input files that `components.example_gen.sources.summary` recorded for examples."""
    count = f"{files['files']:,} file{'s'[: files['files'] != 1]}, {filesize.decimal(files['bytes'])}"
    if files["first"] == files["last"]:
        return f"{from_here(files['first'])} ({count})"
    folders = f"{files['folders']:,} folders, " if files["folders"] > 1 else ""  # else a file a day
    return f"{from_here(files['first'])} to {from_here(files['last'])} ({folders}{count})"


def _exists(artifact: Artifact) -> bool | None:
    return None if "://" in artifact.uri else os.path.lexists(artifact.uri)


def _made_from(run: Run) -> Table:
    table = Table(title=f"Inputs of {run.run}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    if run.passed_over_for == CLOSED:
        table.add_row("closed", "data.closed names the day: it has no data")
    elif run.passed_over_for == UNCHANGED:
        table.add_row("unchanged", "the catalogue is the live one: nothing was pushed")
    elif run.passed_over_for:
        table.add_row("done before", f"by {run.passed_over_for}, with the same input")
    if run.origin:
        table.add_row("code", code_words(run.origin))
        name, digest = run.origin.configuration["name"], run.origin.configuration_digest
        table.add_row("configuration", f"of {name}, digest {digest} (--json has all of it)")
    if run.given:
        table.add_row("input", f"digest {run.given.digest[:16]}")
    if run.given and run.given.refreshes:
        table.add_row("refreshes", f"version {run.given.refreshes}, of {run.given.base_day}")
    elif run.given:
        models = {"trained from": run.given.base_model, "must beat": run.given.baseline_model}
        for role, model in models.items():
            table.add_row(role, f"Model {model}" if model else "no model")
    for kind, source in run.sources.items():
        if source["files"]:
            table.add_row(kind, files_words(source["files"]))
    return table


def _steps(run: Run) -> Table:
    durations = [step.seconds for step in run.steps if step.seconds is not None]
    table = Table(title=f"Steps, {sum(durations):,.1f} s in all", title_justify="left")
    for column in ("step", "state", "seconds", "started (UTC)"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for step in run.steps:
        duration = "" if step.seconds is None else f"{step.seconds:,.1f}"
        table.add_row(step.node, step.state, duration, step.started[:19].replace("T", " "))
    return table
