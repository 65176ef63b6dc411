"""A query end to end, as in docs/export.md: embedded by the query tower over gRPC, answered by SQL as by the retriever."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndr_client import Client
from pipeline import config as configuration
from pipeline.export import exporting
from pipeline.export.stores import Name
from tests.database_servers import DATABASE, PASSWORD, USER, PgVector
from tests.serving.tiny import ITEMS, Pushes, Serve, example

SHOP = Path(__file__).parents[1] / "end_to_end" / "shop" / "shop.yaml"
SEARCH = """
SELECT candidate_id, -(embedding <#> :query ::vector) FROM items
WHERE version = :version {conditions} ORDER BY embedding <#> :query ::vector LIMIT 5
"""


@pytest.fixture(scope="module")
def database() -> Iterator[PgVector]:
    server = PgVector()
    server.execute("CREATE EXTENSION vector")
    yield server
    server.close()


def test_sql_finds_what_the_retriever_finds(database: PgVector, pushes: Pushes, serve: Serve) -> None:
    settings = {"host": "127.0.0.1", "port": database.port, "database": DATABASE, "user": USER}
    settings["password"] = f"{{file: {database.password_file}}}"
    given = [f"root={pushes.root.parent}", *(f"export.postgresql.{name}={value}" for name, value in settings.items())]
    config = configuration.load(SHOP, given)
    first = pushes.push("one")
    exporting.export(config, Name.POSTGRESQL, None, print)
    server = serve(pushes.root)
    angles = [0.6, 1.9, 0.1]
    queries = [example(angle) for angle in angles]
    with Client(f"127.0.0.1:{server.port}") as client:
        embedded = client.embed("query_tower", queries, version=first)
        expected = client.retrieve(queries, ITEMS, version=first)
    for number, query in enumerate(embedded.outputs["embedding"].tolist()):
        asked: dict[str, Any] = {"query": json.dumps(query), "version": first}
        found = database.rows(SEARCH.format(conditions=""), **asked)
        assert [row[0].encode() for row in found] == expected.item_ids[number].tolist()
        assert np.allclose([row[1] for row in found], expected.scores[number], atol=1e-6)
        odd = database.rows(SEARCH.format(conditions="AND parity && ARRAY['odd'] AND number <= 2"), **asked)
        assert [row[0] for row in odd] == ["one-1"]
    # What is embedded by the towers of one version finds nothing among the items of another.
    pushes.push("two")
    exporting.export(config, Name.POSTGRESQL, None, print)
    assert database.rows(SEARCH.format(conditions=""), query="[1, 0]", version=first) == []
    assert PASSWORD not in str(settings)
