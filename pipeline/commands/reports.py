"""Reports and alerts: `ndr report`, `check`, `metrics`, `skew`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from components.whole_files import write_aside
from pipeline.arguments import MOVIELENS_CONFIG, ConfigOption, SetOption, a_day, a_duration
from pipeline.commands.session import session
from schemas.errors import UserError

app = typer.Typer()


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
    with session("report", config, settings, writes=False) as (console, loaded):
        with console.status("reading the runs"):
            from pipeline.report import facts, page

            report_facts = facts.gather(loaded, first, last)
            write_aside(output, page.render(report_facts, loaded))
        span = (
            f"s, {report_facts.days[0].date} to {report_facts.days[-1].date}"
            if len(report_facts.days) > 1
            else f", {report_facts.days[0].date}"
        )
        console.print(f"{output}: {len(report_facts.days)} day{span}", highlight=False, soft_wrap=True)


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
    with session("check", config, settings, writes=False) as (console, loaded):
        from datetime import UTC, datetime

        from pipeline.monitoring import standing

        verdict = standing.check(standing.read(loaded), within, datetime.now(UTC), loaded.data.is_closed)
        if not verdict.is_good:
            raise UserError("\n".join([verdict.sentence, *verdict.reasons]))
        console.print(verdict.sentence, highlight=False, soft_wrap=True)


@app.command()
def metrics(config: ConfigOption = MOVIELENS_CONFIG, settings: SetOption = None) -> None:
    """Print the pipeline's metrics in Prometheus format, and write them where the configuration says."""
    with session("metrics", config, settings, writes=False) as (console, loaded):
        from prometheus_client import generate_latest

        from pipeline.monitoring import metrics as exporter
        from pipeline.monitoring import standing

        console.file.write(generate_latest(exporter.registry(loaded, standing.read(loaded))).decode())
        if faults := exporter.export(loaded):
            raise UserError("\n".join(faults))


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
    with session("skew", config, settings, writes=False) as (console, loaded):
        from datetime import UTC, datetime

        with console.status("loading TFDV"):
            from pipeline.monitoring import requests
            from pipeline.monitoring import skew as measurement
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
