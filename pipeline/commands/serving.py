"""Asks and serves pushed versions: `ndr recommend`, `similar`, `serve`, `shadow`."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.arguments import (
    MOVIELENS_CONFIG,
    AuthoritiesOption,
    ConfigOption,
    LabelOption,
    ServerOption,
    SetOption,
    WhereOption,
    a_duration,
)
from pipeline.commands.session import session

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.asking.recommend import Recommendation

HIGHEST_PORT = (1 << 16) - 1

app = typer.Typer()


def _id(text: str) -> str:
    if not text or not text.isprintable():
        raise typer.BadParameter(f"expected an id, received {text!r}")
    return text


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
    with session("recommend", config, settings, writes=False) as (console, loaded):
        with console.status("loading the retriever"):
            from pipeline.asking import recommend as recommender

            answer = recommender.recommend(
                loaded, user, recommender.Question(k, where or [], label, server, authorities)
            )
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
    with session("similar", config, settings, writes=False) as (console, loaded):
        with console.status("loading the retriever"):
            from pipeline.asking import recommend as recommender

            answer = recommender.similar(loaded, item, recommender.Question(k, where or [], label, server, authorities))
        console.print(_items(f"Like {answer.title}, by version {answer.version}", answer.items))


def _items(title: str, items: "list[Recommendation]") -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("", "item", "title", "score"):
        table.add_column(column)
    for place, recommendation in enumerate(items, 1):
        table.add_row(str(place), recommendation.item, recommendation.title, f"{recommendation.score:.3f}")
    return table


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
    shard: Annotated[
        int | None,
        typer.Option(
            "--shard", min=0, metavar="N", help="Serve the retriever of this shard only (indexer.stitched: false)."
        ),
    ] = None,
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Serve the pushed versions and those to come: by TF Serving if it may listen on all addresses, else by our own server."""
    if port == rest_port:
        raise typer.BadParameter(f"expected two ports, --port and --rest-port, received {port} for both")
    from pipeline import terminal

    with session("serve", config, settings, writes=False, opened=terminal.logging_terminal) as (console, loaded):
        from serving.launch import Where
        from serving.launch import serve as launch

        def say(words: str) -> None:
            console.print(words, highlight=False, soft_wrap=True)

        def log_of(version: int) -> str | None:
            from pipeline.asking.recommend import interactions_of

            return interactions_of(loaded, version)

        where, spec = Where(host, port, rest_port), loaded.feature_spec()
        history_log = log_of if histories else None
        launch(loaded.serving, where, embedded, loaded.root, loaded.server, spec, history_log, say, shard)


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
    with session("shadow", config, settings, writes=False) as (console, loaded):
        from datetime import UTC, datetime

        with console.status("reading the queries"):
            from pipeline.asking import server as asking
            from pipeline.asking import shadow as comparison
            from pipeline.monitoring import requests

            queries = requests.read(loaded.root / loaded.server.request_log.path, datetime.now(UTC) - last)[-most:]
        with asking.client(loaded, server, authorities) as client, console.status("asking"):
            result = comparison.compare(client, queries, asking.version(one), asking.version(other))
        if as_json:
            console.file.write(json.dumps(asdict(result), indent=2) + "\n")
        else:
            console.print(comparison.table(result))
