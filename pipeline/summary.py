"""The tables at the end of a run, and after several days."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from components.evaluator.names import ALL, BASELINES, CANDIDATE
from pipeline.records import Run
from pipeline.words import (
    ASIDE,
    NEXT_DAY_SCORERS,
    SCORERS,
    blessing_words,
    chosen_cutoff,
    from_here,
    history_words,
    metric_words,
    oov_share,
    slice_order,
    strongest_baseline,
    with_interval,
)


def tables(run: Run) -> list[Table]:
    """Make the tables of a run: its input, its results, and its version."""
    if run.is_refresh:
        return [table for table in (_rows(run), _changes(run), _outcome(run)) if table.row_count]
    sections = (_rows(run), _turnover(run), _next_day(run), _metrics(run), _slices(run), _aside(run), _outcome(run))
    return [table for table in sections if table.row_count]


def day_table(runs: Sequence[Run]) -> Table:
    """Make a table with a row for each day."""
    cutoffs = sorted({k for run in runs for k in (*run.recall, *run.next_day_recall)})
    k = chosen_cutoff(cutoffs)
    title = (
        "Days. next day: recall@K of all of the day by the model blessed before it, in brackets the strongest baseline; held out: "
        "of the day's own model on people that it was not trained on that day, in brackets the last blessed"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    recalls_of_days = [f"next day@{cutoff}" for cutoff in cutoffs]
    for column in ("day", "rows", "new ids", "OOV", *recalls_of_days, f"held out@{k}", "blessed", "version"):
        table.add_column(column, justify="left" if column == "day" else "right", overflow="fold")
    for run in runs:
        table.add_row(
            run.date,
            f"{run.rows['interactions']['rows_of_day']:,}" if "interactions" in run.rows else "",
            f"{sum(of_table['admitted'] for of_table in run.turnover.values()):,}" if run.turnover else "",
            f"{oov_share(run):.1%}" if run.turnover else "",
            *(_beside(run.next_day_recall.get(cutoff), strongest_baseline(run, cutoff)) for cutoff in cutoffs),
            _beside(run.recall.get(k), run.baseline_recall.get(k)),
            run.state if run.state != "complete" else blessing_words(run),
            str(run.version or ""),
        )
    return table


def _beside(value: float | None, reference: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f} ({'  -  ' if reference is None else f'{reference:.3f}'})"


def _rows(run: Run) -> Table:
    table = Table(title=f"Rows of {run.date}", title_justify="left")
    for column in ("", "read", "filtered", "dropped", "examples"):
        table.add_column(column, justify="left" if not column else "right")
    for kind, rows in sorted(run.rows.items(), reverse=True):
        filtered = rows.get("filtered", {})  # runs of older code did not count these, nor other days and skipped files
        lost = sum(reason["rows"] for reason in rows["dropped"].values())
        splits = ", ".join(f"{split} {examples:,}" for split, examples in rows["splits"].items())
        table.add_row(kind, f"{rows['rows']:,}", f"{sum(filtered.values()):,}", f"{lost:,}", splits)
        for reason, number in filtered.items():
            table.add_row(f"  {reason}", "", f"{number:,}")
        for reason, dropped in rows["dropped"].items():
            table.add_row(f"  {reason} ({dropped['first'][0]})", "", "", f"{dropped['rows']:,}")
        if before := rows.get("before"):
            table.add_row("  rows of days before the window, for histories alone", f"{before:,}")
        if absent := rows.get("absent"):
            table.add_row(
                f"  missing days before the window, for histories ({absent[0]} to {absent[-1]})",
                f"{len(absent):,}",
            )
        if other_days := rows.get("other_days"):
            table.add_row("  rows of days that are not read", f"{other_days:,}")
        if (passed := rows.get("passed_over")) and passed["files"]:
            name = f"  files whose names begin with _ or . ({passed['first'][0]})"
            table.add_row(name, f"{passed['files']:,}")
    return table


def _changes(run: Run) -> Table:
    table = Table(title="Items", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name in ("before", "new", "changed", "gone", "items"):
        if run.changes:
            table.add_row("now" if name == "items" else name, f"{run.changes[name]:,}")
    return table


def _turnover(run: Run) -> Table:
    table = Table(title="Ids with a row of their own, and those that share a hash bucket", title_justify="left")
    columns = ("", "ids", "admitted", "expired", "OOV", "ids a bucket", "most")
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for name, of_table in run.turnover.items():
        table.add_row(
            name,
            *(f"{of_table[figure]:,}" for figure in ("ids", "admitted", "expired")),
            "-" if of_table["oov_share"] is None else f"{of_table['oov_share']:.1%}",
            f"{of_table['bucket_ids']:.1f}",
            f"{of_table['fullest_bucket_ids']:,}",
        )
    return table


def _next_day(run: Run) -> Table:
    """Show how the model blessed before the day ranks it: no figure of training could flatter this one."""
    whole, judged = run.next_day_metrics.get(ALL, {}), run.next_day
    if judged is None:
        table = Table(title=f"The next day: {run.next_day_reason}", title_justify="left", show_header=False)
        if run.judgement:
            table.add_row("No model could be judged by this day; the next one can.")
        return table
    some = (
        ""
        if judged["ranked"] + judged["not_in_catalogue"] >= judged["interactions"]
        else f" of {judged['interactions']:,}"
    )
    gone = f"; {judged['not_in_catalogue']:,} with items that the catalogue lacks" if judged["not_in_catalogue"] else ""
    title = (
        f"The next day: {judged['ranked']:,}{some} interactions of {run.date} ranked by the model of {judged['model_day']}, which "
        f"saw none of them{gone}"
    )
    return _metric_table(title, whole, NEXT_DAY_SCORERS)


def _metrics(run: Run) -> Table:
    """Show every metric of every scorer, all on the same interactions and candidates."""
    whole = run.metrics.get(ALL, {})
    title = (
        f"Held out: ranked among {_candidates(run)}: {whole.get('interactions', 0):,} interactions of "
        f"{whole.get('queries', 0):,} queries; in brackets 95 % intervals"
    )
    return _metric_table(title, whole, SCORERS)


def _metric_table(title: str, whole: Mapping[str, Any], words: Mapping[str, str]) -> Table:
    scorers = {key: heading for key, heading in words.items() if key in whole}
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    _add_scorers(table, scorers)
    for name in (n for n in whole.get(CANDIDATE, {}) if "_over_" not in n):
        table.add_row(metric_words(name), *(with_interval(whole[key].get(name), key) for key in scorers))
    return table


def _add_scorers(table: Table, scorers: Mapping[str, str]) -> None:
    """Add a column for each scorer; those with intervals are not wrapped, to keep both ends together."""
    for key, heading in scorers.items():
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=key not in BASELINES)


def _aside(run: Run) -> Table:
    """Show new items, similar items, and towers of different versions: recall only."""
    whole = run.metrics.get(ALL, {})
    cutoffs = sorted(run.recall)
    table = Table(title="Held out, besides", title_justify="left")
    for heading in ("", *(f"recall@{k}" for k in cutoffs)):
        table.add_column(heading, justify="right" if heading else "left")
    for scorer, words in ASIDE.items():
        if scorer in whole:
            table.add_row(words, *(with_interval(whole[scorer].get(f"recall_at_{k}"), scorer) for k in cutoffs))
    return table


def _slices(run: Run) -> Table:
    """Show recall by slice, at the second K: the first is often too small for a slice of few interactions."""
    cutoffs = sorted(run.recall)
    k = chosen_cutoff(cutoffs)
    table = Table(title=f"recall@{k} by slice, among {_candidates(run)}", title_justify="left")
    of_all = run.metrics.get("all", {})
    scorers = {key: title for key, title in SCORERS.items() if key in of_all}
    table.add_column("", no_wrap=True, min_width=max((len(name) for name in run.metrics), default=0))
    table.add_column("inter-\nactions", justify="right")
    _add_scorers(table, scorers)
    for name in sorted(run.metrics.keys() - {"all"}, key=slice_order):
        figures = run.metrics[name]
        recalls = (with_interval(figures.get(key, {}).get(f"recall_at_{k}"), key) for key in scorers)
        table.add_row(name, f"{figures['interactions']:,}", *recalls)
    return table


def _candidates(run: Run) -> str:
    less = {"unseen": ", less the query's history", "untaken": ", less all that the user took before"}
    items = f"the whole catalogue of {run.index.get('items', 0):,} items"
    return items + less.get(run.metrics.get(ALL, {}).get("candidates", ""), "")


def _outcome(run: Run) -> Table:
    table = Table(title=f"Run {run.run}", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # a truncated path is useless
    table.add_row("state", run.state)
    if run.given and run.given.refreshes:
        table.add_row("refreshes", f"version {run.given.refreshes}, with the model of {run.given.base_day}")
    elif run.given:
        table.add_row("trained from", f"the model of {run.given.base_day}" if run.given.base_day else "scratch")
    if run.blessed is not None:
        table.add_row("blessed", blessing_words(run) if run.blessed else "no: the last good model keeps serving")
    if run.servable is not None:
        table.add_row("servable", "yes: it answers as it was trained" if run.servable else "no: nothing was pushed")
    if run.histories:
        table.add_row("histories", history_words(run.histories))
    for sentence in run.histories.get("cautions", ()):
        table.add_row("", sentence)
    for sentence in run.waived:
        table.add_row("", sentence)
    for refusal in run.refused:
        table.add_row("", refusal)
    for name in run.not_judged:
        table.add_row("", f"limits on {name} were not judged: no held-out interaction is in it")
    if run.index:
        lists = f", {run.index['probes']} of {run.index['lists']} lists" if run.index.get("lists") else ""
        table.add_row("search", f"{run.index['kind']}{lists}, {run.index['items']:,} items")
    if run.version:
        table.add_row("version", str(run.version))
    for component, place in sorted(run.pushed.items()):
        table.add_row(component, from_here(place))
    return table
