"""The table at the end of a run."""

from pathlib import Path

from rich.table import Table

from pipeline.metadata import Run


def tables(run: Run) -> list[Table]:
    """What came in, what came of it, and where it went."""
    return [table for table in (_rows(run), _recall(run), _outcome(run)) if table.row_count]


def _rows(run: Run) -> Table:
    table = Table(title=f"Rows of {run.date}", title_justify="left")
    for column in ("", "read", "dropped", "examples"):
        table.add_column(column, justify="left" if not column else "right")
    for kind, rows in sorted(run.rows.items(), reverse=True):
        lost = sum(reason["rows"] for reason in rows["dropped"].values())
        splits = ", ".join(f"{split} {examples:,}" for split, examples in rows["splits"].items())
        table.add_row(kind, f"{rows['rows']:,}", f"{lost:,}", splits)
        for reason, found in rows["dropped"].items():
            table.add_row(f"  {reason} ({found['first'][0]})", "", f"{found['rows']:,}", "")
    return table


def _recall(run: Run) -> Table:
    table = Table(title="Recall among the whole catalogue", title_justify="left")
    for column in ("", "model", "popularity", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for k, model in sorted(run.recall.items()):
        popular = run.metrics[f"popularity_recall_at_{k}"]
        table.add_row(f"recall@{k}", f"{model:.4f}", f"{popular:.4f}", f"{model / popular:.2f}" if popular else "")
    return table


def _outcome(run: Run) -> Table:
    table = Table(title=f"Run {run.run}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a path that is cut is of no use
    table.add_row("state", run.state)
    if run.blessed is not None:
        table.add_row("blessed", "yes" if run.blessed else "no: the last good model keeps serving")
    if run.version:
        table.add_row("version", str(run.version))
    for part, place in sorted(run.pushed.items()):
        table.add_row(part, _from_here(place))
    return table


def _from_here(place: str) -> str:
    """A path below the current folder without that folder."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else place
