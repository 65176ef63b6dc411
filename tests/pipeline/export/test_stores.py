"""One contract for every store that versions are exported to, as its readers see it.

PostgreSQL is one with pgvector; see `database_servers`.
"""

import json
import multiprocessing
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pg8000.native
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tfx.dsl.io import fileio

from components.indexer import faiss_index, files
from components.indexer.settings import Plan
from components.pusher.files import Source
from components.pusher.manifest import Manifest, find
from components.pusher.versions import PushFolder
from pipeline import cli
from pipeline import config as configuration
from pipeline.config import Config
from pipeline.export import copied, exporting, parquet, postgresql
from pipeline.export.store import Answers, Items, Store
from pipeline.export.stores import Name, opened
from schemas.errors import PassingError, UserError
from tests.certificates import self_signed
from tests.database_servers import DATABASE, PASSWORD, USER, PgVector, PostgreSQL, Server
from tests.pipeline.export import killed_export

SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
DAY = date(2026, 11, 24)
ITEMS, WIDTH = 150, 8
FLAT = Plan("flat")
FEW = "export.queries=20"  # a thousand by themselves


def units(seed: int, items: int = ITEMS, width: int = WIDTH) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(items, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def columns(items: int = ITEMS) -> pa.Table:
    """Item n is sold in n % 3 countries, and has the price n / 2; every seventh has none."""
    lands = [[b"de", "übersee \\ 'x' \"y\",{}".encode()][: n % 3] for n in range(items)]
    prices = [None if n % 7 == 0 else n / 2 for n in range(items)]
    return pa.table({"country": pa.array(lands, pa.list_(pa.binary())), "price": pa.array(prices, pa.float32())})


def push(
    root: Path,
    seed: int,
    day: date = DAY,
    plan: Plan = FLAT,
    filters: pa.Table | None = None,
    **of_vectors: int,
) -> Manifest:
    """A version whose index is real; its models are a few bytes."""
    vectors = units(seed, **of_vectors)
    folder = root / "models" / f"{seed} {len(vectors)}"
    for part in ("query_tower", "item_tower", "retriever"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "saved_model.pb").write_text(f"{part} {seed}")
    (folder / "index").mkdir(exist_ok=True)
    faiss_index.build(vectors, plan, 0).write(str(folder / "index"))
    files.write_ids(str(folder / "index"), ids_of(len(vectors)), columns(len(vectors)) if filters is None else filters)
    described = files.Description(plan.kind, len(vectors), vectors.shape[1], plan.lists, plan.probes, None, {})
    files.write_description(str(folder / "index"), described)
    sources = {part: Source(str(folder / part)) for part in ("query_tower", "item_tower", "retriever", "index")}
    return PushFolder(str(root / "serving")).push(sources, day, run="run", model=f"model {seed}", metrics={})


def ids_of(items: int) -> list[bytes]:
    return [f"item {n:04d} é".encode() for n in range(items)]


@dataclass
class World:
    """A root, and one store that it exports to."""

    name: Name
    root: Path
    settings: list[str]
    server: PgVector | None

    @property
    def config(self) -> Config:
        return configuration.load(SHOP, self.settings)

    def export(self, version: int | str | None = None, *changed: str) -> exporting.Outcome:
        config = configuration.load(SHOP, [*self.settings, *changed])
        return exporting.export(config, self.name, version, print)

    def versions(self) -> list[tuple[int, bool]]:
        """What the store lists, and which is live."""
        with opened(self.config, self.name, writes=False) as store:
            return [(each.version, each.is_live) for each in store.exported()]

    def live(self) -> tuple[int, dict[str, tuple[Any, ...]]] | None:
        """As a reader finds it: the version, and each item's embedding and filter columns."""
        if self.server is None:
            pointer = self.root / "exported" / "live.json"
            if not pointer.exists():
                return None
            live = json.loads(pointer.read_text())
            rows = pq.read_table(self.root / "exported" / live["path"]).to_pylist()
            found = {row.pop("candidate_id"): (row.pop("embedding"), row) for row in rows}
            return live["version"], found
        if not self.server.rows("SELECT to_regclass('items') IS NOT NULL")[0][0]:
            return None
        names = [
            row[0]
            for row in self.server.rows(
                "SELECT attname FROM pg_attribute WHERE attrelid = 'items'::regclass ORDER BY attnum"
            )
        ]
        assert names[:3] == ["version", "candidate_id", "embedding"]
        rows = self.server.rows("SELECT * FROM items")
        (version,) = {row[0] for row in rows}
        return version, {row[1]: (json.loads(row[2]), dict(zip(names[3:], row[3:], strict=True))) for row in rows}

    def left(self) -> list[str]:
        """Everything there is in the store but locks."""
        if self.server is None:
            folder = self.root / "exported"
            return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".export.lock")
        relations = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')"
        return sorted(row[0] for row in self.server.rows(relations))

    def close(self) -> None:
        for kind, pattern in (("VIEW", "items"), ("TABLE", "items\\_%")) if self.server else ():
            assert self.server
            names = self.server.rows(
                f"SELECT relname FROM pg_class WHERE relname LIKE '{pattern}' AND relkind IN ('r', 'v')"
            )
            for (name,) in names:
                self.server.execute(f'DROP {kind} IF EXISTS "{name}" CASCADE')


@pytest.fixture(scope="module")
def pgvector() -> Iterator[PgVector]:
    server = PgVector()
    server.execute("CREATE EXTENSION vector")
    yield server
    server.close()


def of_server(server: Server, **changed: object) -> list[str]:
    values = {
        "host": "127.0.0.1", "port": server.port, "database": DATABASE, "user": USER,
        "password": f"{{file: {server.password_file}}}",
    }  # fmt: skip
    return [f"export.postgresql.{name}={value}" for name, value in {**values, **changed}.items()]


@pytest.fixture(params=Name)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    server = request.getfixturevalue("pgvector") if request.param is Name.POSTGRESQL else None
    settings = [f"root={tmp_path}", FEW, *(of_server(server) if server else [])]
    made = World(request.param, tmp_path, settings, server)
    yield made
    made.close()


@pytest.fixture
def of_postgresql(pgvector: PgVector, tmp_path: Path) -> Iterator[World]:
    made = World(Name.POSTGRESQL, tmp_path, [f"root={tmp_path}", FEW, *of_server(pgvector)], pgvector)
    yield made
    made.close()


def check_live(world: World, manifest: Manifest, seed: int, **of_vectors: int) -> None:
    """What readers see is a version, to the bit."""
    live = world.live()
    assert live and live[0] == manifest.version
    vectors = units(seed, **of_vectors)
    assert list(live[1]) == [each.decode() for each in ids_of(len(vectors))] or world.server
    assert live[1].keys() == {each.decode() for each in ids_of(len(vectors))}
    expected = columns(len(vectors)).to_pylist()
    for number, item in enumerate(ids_of(len(vectors))):
        embedding, own = live[1][item.decode()]
        assert np.array_equal(np.float32(embedding), vectors[number])
        assert own == {**expected[number], "country": [land.decode() for land in expected[number]["country"]]}


def test_a_version_is_live_for_readers_whole_and_with_its_types(world: World) -> None:
    manifest = push(world.root, 1, plan=Plan("ivf", 4, 1))
    outcome = world.export(None, "export.queries=1000")
    assert (outcome.live.version, outcome.before, outcome.recall) == (manifest.version, None, 1.0)
    assert (outcome.live.items, outcome.live.width, outcome.live.day) == (ITEMS, WIDTH, "2026-11-24")
    check_live(world, manifest, 1)
    there = world.left()
    again = world.export()
    assert (again.is_written, again.recall, again.live) == (False, None, outcome.live)
    assert world.left() == there


def test_the_next_version_replaces_it_and_an_older_one_comes_back_unwritten(world: World) -> None:
    first = push(world.root, 1)
    world.export()
    second = push(world.root, 2, items=120, width=5)  # fewer items, and other towers
    outcome = world.export()
    assert (outcome.before, outcome.is_written) == (first.version, True)
    check_live(world, second, 2, items=120, width=5)
    assert world.versions() == [(first.version, False), (second.version, True)]
    back = world.export(first.version)
    assert (back.before, back.is_written, back.recall) == (second.version, False, 1.0)
    check_live(world, first, 1)
    assert world.versions() == [(first.version, True), (second.version, False)]


def test_a_rollback_of_the_push_folder_needs_no_writing(world: World) -> None:
    folder = PushFolder(str(world.root / "serving"))
    first = push(world.root, 1)
    world.export()
    push(world.root, 2)
    world.export()
    third = folder.restore(find(folder.manifests(), first.version))
    outcome = world.export()
    assert not outcome.is_written and outcome.recall == 1.0
    check_live(world, third, 1)


def test_a_version_that_only_the_store_has_comes_back(world: World) -> None:
    folder = PushFolder(str(world.root / "serving"))
    first = push(world.root, 1)
    world.export()
    push(world.root, 2, day=date(2026, 11, 25))
    world.export()
    folder.retain(1)
    assert folder.manifests()[0].version != first.version
    assert world.export(first.version).recall is None
    check_live(world, first, 1)


def test_old_versions_are_removed_but_never_the_live_one(world: World) -> None:
    pushed = [push(world.root, 1)]
    world.export()
    for seed in (2, 3):
        pushed.append(push(world.root, seed))
        world.export()
    one, two, three = (each.version for each in pushed)
    world.export(one)  # the oldest export is live
    pushed.append(push(world.root, 4))
    outcome = world.export(None, "export.keep=2")
    assert outcome.removed == (one, two)
    assert world.versions() == [(three, False), (pushed[3].version, True)]
    world.export(three)
    assert world.export(three, "export.keep=1").removed == ()  # the older export is live, the newest is kept
    check_live(world, pushed[2], 3)
    assert world.export(pushed[3].version, "export.keep=1").removed == (three,)
    check_live(world, pushed[3], 4)


def test_wrong_answers_are_not_made_live(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first = push(world.root, 1)
    world.export()
    there = world.left()
    push(world.root, 2)
    store: Any = killed_export.STORES[world.name]
    put = store.put

    def rolled(self: Store, items: Items) -> None:
        """Gives two of the items each other's embedding."""
        wrong = items.embeddings.copy()
        wrong[[3, 4]] = wrong[[4, 3]]
        put(self, replace(items, embeddings=wrong))

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", rolled)
        with pytest.raises(
            UserError, match=r"does not answer as exact search does, over 20 queries: .*It was not made live"
        ):
            world.export()
    check_live(world, first, 1)
    second = PushFolder(str(world.root / "serving")).manifests()[-1]
    world.export()
    check_live(world, second, 2)
    assert len(world.left()) == len(there) + (3 if world.server is None else 1)  # nothing of the wrong one


def test_what_was_changed_in_the_store_does_not_come_back(world: World) -> None:
    first = push(world.root, 1)
    world.export()
    second = push(world.root, 2)
    world.export()
    if world.server:
        (table,) = [name for name in world.left() if str(first.version) in name]
        world.server.execute(f"DELETE FROM {table} WHERE candidate_id > 'item 0020'")
    else:
        (path,) = (world.root / "exported").glob(f"{first.version}*/items.parquet")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"earlier export"):
        world.export(first.version)
    check_live(world, second, 2)


@pytest.fixture(scope="module")
def processes() -> Iterator[multiprocessing.context.ForkServerContext]:
    """Processes that have TFX loaded from the start."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[1]))
        context.set_forkserver_preload([killed_export.__name__])
        yield context


@pytest.mark.parametrize("point", killed_export.POINTS)
def test_killed_anywhere_the_same_command_ends_it(
    world: World, processes: multiprocessing.context.ForkServerContext, point: str
) -> None:
    first = push(world.root, 1)
    world.export()
    second = push(world.root, 2)
    process = processes.Process(target=killed_export.run, args=(str(SHOP), world.settings, world.name.value, point))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check_live(world, *((second, 2) if point == "flipped" else (first, 1)))
    world.export()
    check_live(world, second, 2)
    # Two folders of two files, and what names the live one; two tables, the view, and the table of the versions.
    assert len(world.left()) == (7 if world.server is None else 4)


def test_a_second_export_at_once_is_refused(world: World) -> None:
    manifest = push(world.root, 1)
    with opened(world.config, world.name, writes=True), pytest.raises(PassingError, match=r"another export is writing"):
        world.export()
    assert world.live() is None
    world.export()
    check_live(world, manifest, 1)


def test_another_version_that_goes_live_meanwhile_stops_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    push(world.root, 1)
    checked = exporting._checked
    pushed: list[Manifest] = []

    def then_pushed(store: Store, items: Items, config: Config) -> float:
        pushed.append(push(world.root, 2))
        return checked(store, items, config)

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_checked", then_pushed)
        with pytest.raises(PassingError, match=r"went live meanwhile"):
            world.export()
    assert world.live() is None
    world.export()
    check_live(world, pushed[0], 2)


def test_a_catalogue_without_filters(world: World) -> None:
    manifest = push(world.root, 1, filters=pa.table({}))
    world.export()
    live = world.live()
    assert live and live[0] == manifest.version
    assert len(live[1]) == ITEMS and all(own == {} for _, own in live[1].values())
    push(world.root, 2)  # which has filters
    world.export()
    live = world.live()
    assert live and {*next(iter(live[1].values()))[1]} == {"country", "price"}


def test_one_item(world: World) -> None:
    manifest = push(world.root, 1, items=1)
    assert world.export().recall == 1.0
    check_live(world, manifest, 1, items=1)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (pa.table({"embedding": pa.array([1.0] * ITEMS, pa.float32())}), "no filter named embedding"),
        (pa.table({"code": pa.array([[b"\xff"]] * ITEMS, pa.list_(pa.binary()))}), "code: expected ids of UTF-8"),
    ],
)
def test_what_no_store_can_hold_is_refused(world: World, changed: pa.Table, sentence: str) -> None:
    push(world.root, 1, filters=changed)
    with pytest.raises(UserError, match=sentence):
        world.export()
    assert world.live() is None


def test_a_damaged_version_and_an_unknown_one(world: World) -> None:
    with pytest.raises(UserError, match=r"Nothing was pushed to"):
        world.export()
    manifest = push(world.root, 1)
    with pytest.raises(UserError, match=rf"received 7. Pushed: {manifest.version}. Stored: none"):
        world.export(7)
    with pytest.raises(UserError, match=r"Expected a label that a version has, received 'stable'"):
        world.export("stable")
    (world.root / "serving" / "index" / str(manifest.version) / "ids.arrow").write_text("else")
    with pytest.raises(UserError, match=rf"expected version {manifest.version} as it was pushed: .*ids.arrow"):
        world.export()
    assert world.live() is None


def test_the_command_exports_and_lists(world: World, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    def ndr(*arguments: str) -> tuple[int, str, str]:
        given = [part for setting in world.settings for part in ("--set", setting)]
        monkeypatch.setattr(sys, "argv", ["ndr", "export", world.name, *arguments, "--config", str(SHOP), *given])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (int(end.value.code or 0), *capfd.readouterr())

    assert ndr("--list")[1].endswith("no version was exported yet.\n")
    first, second = push(world.root, 1), push(world.root, 2)
    status, said, _ = ndr("--version", str(first.version))
    assert status == 0 and f"version {first.version} (2026-11-24) is live: 150 items of width 8." in said
    status, said, _ = ndr()
    assert status == 0 and f"version {second.version} (2026-11-24) is live, in place of {first.version}" in said
    listed = json.loads(ndr("--json")[1])
    assert [(each["version"], each["is_live"]) for each in listed] == [(first.version, False), (second.version, True)]
    assert re.search(rf"{second.version} .* 150 .* live", ndr("--list")[1])
    assert ndr("--list", "--version", "1")[0] == 2
    status, _, error = ndr("--version", "7")
    assert status == 1 and "received 7" in error and PASSWORD not in said + error


# PostgreSQL alone


def test_an_approximate_index_must_find_what_it_is_set_to(of_postgresql: World) -> None:
    manifest = push(of_postgresql.root, 1, items=400)
    approximate = ("export.postgresql.index=hnsw", "export.queries=50")
    assert of_postgresql.server
    of_postgresql.server.execute(f"ALTER DATABASE {DATABASE} SET enable_seqscan = off")  # as of a large table
    with pytest.raises(
        UserError, match=r"expected 0.95 of the exact first 100 items, found 0.\d+. .*Raise export.postgresql.ef_search"
    ):
        of_postgresql.export(None, *approximate, "export.postgresql.ef_search=20")
    assert of_postgresql.live() is None and of_postgresql.left() == []
    recall = of_postgresql.export(None, *approximate).recall
    assert recall and recall >= 0.95
    of_postgresql.server.execute(f"ALTER DATABASE {DATABASE} RESET enable_seqscan")
    check_live(of_postgresql, manifest, 1, items=400)
    definitions = [
        row[0] for row in of_postgresql.server.rows("SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'items\\_2%'")
    ]
    assert sum("hnsw (embedding vector_ip_ops)" in each for each in definitions) == 1


def test_by_itself_only_a_large_catalogue_is_indexed(of_postgresql: World) -> None:
    push(of_postgresql.root, 1)
    of_postgresql.export(None, f"indexer.exact_below={ITEMS}", "export.queries=5")
    assert of_postgresql.server
    statement = "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%hnsw%'"
    assert of_postgresql.server.rows(statement) == [[1]]
    push(of_postgresql.root, 2)
    of_postgresql.export(None, f"indexer.exact_below={ITEMS + 1}", "export.keep=1")
    assert of_postgresql.server.rows(statement) == [[0]]


def test_readers_may_read_the_view_and_nothing_else(of_postgresql: World) -> None:
    server = of_postgresql.server
    assert server
    server.execute(f"CREATE USER reader PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
    try:
        for seed in (1, 2):
            push(of_postgresql.root, seed, width=4 + seed)  # which makes the view again
            of_postgresql.export(None, "export.postgresql.readers=[reader]")
            assert server.rows("SELECT count(*) FROM items", user="reader") == [[ITEMS]]
            with pytest.raises(Exception, match=r"permission denied"):
                server.rows("SELECT * FROM items_exports", user="reader")
    finally:
        of_postgresql.close()
        server.execute("DROP OWNED BY reader")
        server.execute("DROP USER reader")


def test_a_reader_is_not_interrupted_and_holds_its_version(
    of_postgresql: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 1)
    first = push(of_postgresql.root, 1)
    of_postgresql.export()
    assert of_postgresql.server
    with ExitStack() as stack:
        reading = pg8000.native.Connection(
            USER, host="127.0.0.1", port=of_postgresql.server.port, database=DATABASE, password=PASSWORD
        )
        stack.callback(reading.close)
        (table,) = [name for name in of_postgresql.left() if str(first.version) in name]
        reading.run("BEGIN")
        reading.run(f"SELECT count(*) FROM {table}")
        second = push(of_postgresql.root, 2)
        outcome = of_postgresql.export(None, "export.keep=1")
        assert (outcome.removed, outcome.held) == ((), (first.version,))
        check_live(of_postgresql, second, 2)
        reading.run("SELECT count(*) FROM items")  # now it holds the view
        push(of_postgresql.root, 3)
        with pytest.raises(PassingError, match=r"held items for 1 s. What is live stays"):
            of_postgresql.export()
    assert of_postgresql.export(None, "export.keep=1").removed == (first.version, second.version)


def fault(server: PgVector, code: str) -> None:
    """From now on a new index fails with an error of the server's."""
    server.execute(
        "CREATE OR REPLACE FUNCTION fails() RETURNS event_trigger LANGUAGE plpgsql "
        f"AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$"
    )
    server.execute(
        "CREATE EVENT TRIGGER fails ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION fails()"
    )


@pytest.mark.parametrize(("code", "kind", "sentence"), [
    ("53100", UserError, "has a full disk. What is live there stays"),
    ("57P01", PassingError, "refuses: .*What is live there stays"),
])  # fmt: skip
def test_faults_of_the_server_in_the_middle(
    of_postgresql: World, code: str, kind: type[Exception], sentence: str
) -> None:
    first = push(of_postgresql.root, 1)
    of_postgresql.export()
    there = of_postgresql.left()
    assert of_postgresql.server
    fault(of_postgresql.server, code)
    try:
        push(of_postgresql.root, 2)
        with pytest.raises(kind, match=sentence):
            of_postgresql.export()
    finally:
        of_postgresql.server.execute("DROP EVENT TRIGGER fails")
    check_live(of_postgresql, first, 1)
    assert of_postgresql.left() == there


def test_what_is_said_where_the_database_does_not_play_its_part(of_postgresql: World) -> None:
    push(of_postgresql.root, 1)
    server = of_postgresql.server
    assert server
    server.execute("CREATE DATABASE bare")
    server.execute(f"CREATE USER guest PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        cases = {
            "database=bare": "lacks the extension vector .pgvector.. Install it on the server",
            "database=nowhere": 'refuses: database "nowhere" does not exist. Check',
            "user=guest": "refuses: permission denied for schema public. .*GRANT USAGE, CREATE ON SCHEMA public",
            "namespace=nowhere": "has no schema 'nowhere'. CREATE SCHEMA it",
            "password={env: NDR_WRONG}": 'refuses: password authentication failed for user "ndr". Check',
            "password={env: NDR_NONE}": "export.postgresql.password: expected a password or a token in the environment variable",
            f"port={unused.getsockname()[1]}": "cannot be reached, or went away: .*Check export.postgresql.host and port",
            "tls={}": "is not trusted: the server has no TLS",
            "readers=[nobody_known]": 'refuses: role "nobody_known" does not exist',
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NDR_WRONG", "wrong secret")
            patch.delenv("NDR_NONE", raising=False)
            for changed, sentence in cases.items():
                with pytest.raises(UserError, match=sentence) as error:
                    of_postgresql.export(None, f"export.postgresql.{changed}")
                assert "secret" not in str(error.value) and PASSWORD not in str(error.value)
    assert of_postgresql.live() is None
    with pytest.raises(UserError, match=r"export.postgresql: expected host, database, user and password"):
        exporting.export(configuration.load(SHOP, [f"root={of_postgresql.root}"]), Name.POSTGRESQL, None, print)
    server.execute("DROP DATABASE bare")
    server.execute("DROP USER guest")


def test_towers_too_wide_for_an_index(of_postgresql: World) -> None:
    manifest = push(of_postgresql.root, 1, items=3, width=2001)
    with pytest.raises(UserError, match=r"at most 2000 dimensions, and version .* has 2001. Set index: none"):
        of_postgresql.export(None, "export.postgresql.index=hnsw")
    of_postgresql.export()
    check_live(of_postgresql, manifest, 1, items=3, width=2001)


def test_a_view_that_others_depend_on(of_postgresql: World) -> None:
    push(of_postgresql.root, 1)
    of_postgresql.export()
    assert of_postgresql.server
    of_postgresql.server.execute("CREATE VIEW dear AS SELECT candidate_id FROM items WHERE price > 10")
    try:
        second = push(of_postgresql.root, 2)
        of_postgresql.export()  # the same columns: the other view follows
        check_live(of_postgresql, second, 2)
        push(of_postgresql.root, 3, width=5)
        with pytest.raises(UserError, match=r"drop what depends on it first"):
            of_postgresql.export()
        check_live(of_postgresql, second, 2)
    finally:
        of_postgresql.server.execute("DROP VIEW dear")


def test_the_connection_is_by_verified_tls(tmp_path: Path) -> None:
    """Debian's server, which has TLS and no pgvector: what is said of that comes through the connection."""
    server = PostgreSQL()
    try:
        (tmp_path / "other").mkdir()
        push(tmp_path, 1)
        for tls, sentence in {
            f"{{ca: {server.certificate}}}": "by TLS lacks the extension vector",
            f"{{ca: {self_signed(tmp_path / 'other')}}}": "is not trusted: self-signed certificate",
            "{}": "is not trusted: self-signed certificate",
            f"{{ca: {server.password_file}}}": "export.postgresql.tls: expected PEM files",
        }.items():
            config = configuration.load(SHOP, [f"root={tmp_path}", *of_server(server, tls=tls)])
            with pytest.raises(UserError, match=sentence):
                exporting.export(config, Name.POSTGRESQL, None, print)
        named = of_server(server, tls=f"{{ca: {server.certificate}}}", host="localhost")
        with pytest.raises(UserError, match=r"is not trusted: Hostname mismatch"):
            exporting.export(configuration.load(SHOP, [f"root={tmp_path}", *named]), Name.POSTGRESQL, None, print)
    finally:
        server.close()


# Parquet alone


def test_a_full_disk_and_a_folder_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(Name.PARQUET, tmp_path, [f"root={tmp_path}"], None)
    first = push(tmp_path, 1)
    world.export()
    push(tmp_path, 2)

    def full(path: str, content: bytes) -> None:
        Path("/dev/full").write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write_whole", full)
        with pytest.raises(UserError, match=r"The disk that holds .*exported is full. What is live there stays"):
            world.export()
    check_live(world, first, 1)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be used: .*export.parquet.folder=DIR"):
        world.export(None, f"export.parquet.folder={tmp_path}/file")


def test_what_a_killed_removal_left_is_removed(tmp_path: Path) -> None:
    world = World(Name.PARQUET, tmp_path, [f"root={tmp_path}", FEW], None)
    first = push(tmp_path, 1)
    world.export()
    second = push(tmp_path, 2)
    world.export()
    next((tmp_path / "exported").glob(f"{first.version}_*/manifest.json")).unlink()
    assert world.versions() == [(second.version, True)]
    world.export()
    assert not list((tmp_path / "exported").glob(f"{first.version}_*"))


def test_an_address_is_a_folder_like_another(tmp_path: Path) -> None:
    world = World(Name.PARQUET, tmp_path, [f"root={tmp_path}", FEW, "export.parquet.folder=ram://exported"], None)
    push(tmp_path, 1)
    world.export()
    second = push(tmp_path, 2)
    assert world.export(None, "export.keep=1").recall == 1.0
    assert world.versions() == [(second.version, True)]
    names = {name for _, _, names in fileio.walk("ram://exported") for name in names}
    assert names == {"live.json", "items.parquet", "manifest.json"}


# What is common


def test_texts_of_any_signs_are_encoded_as_postgresql_does(pgvector: PgVector) -> None:
    connection = pg8000.native.Connection(
        USER, host="127.0.0.1", port=pgvector.port, database=DATABASE, password=PASSWORD
    )
    connection.run("CREATE TEMP TABLE texts (id text, vector vector(2), texts text[])")

    @given(st.lists(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4)))
    def check(lists: list[list[str]]) -> None:
        ids = pa.array([f"{n:04d}" for n in range(len(lists))], pa.string())
        texts = pa.table({"texts": pa.array(lists, pa.list_(pa.string()))})
        connection.run("TRUNCATE texts")
        items = Items("key", 1, "", ids, units(0, len(lists), 2), texts)
        connection.run("COPY texts FROM STDIN WITH (FORMAT binary)", stream=copied.chunks(items))
        assert [row[0] for row in connection.run("SELECT texts FROM texts ORDER BY id")] == lists

    check()
    connection.close()


def test_agreement_with_exact_search() -> None:
    # Items at 0, 60 and 90 degrees; to the query at 0 their scores are 1, .5 and 0.
    vectors = np.array([[1, 0], [0.5, 0.75**0.5], [0, 1]], np.float32)
    items = Items("key", 1, "", pa.array(["a", "b", "c"]), vectors, pa.table({}))
    query = vectors[:1]

    def found(*best: tuple[str, float]) -> exporting.Agreement:
        answers: Answers = [([item for item, _ in best], [score for _, score in best])]
        return exporting.agreement(items, query, 2, answers)

    assert found(("a", 1.0), ("b", 0.5)) == (1.0, "")
    assert found(("a", 1.0), ("c", 0.0)) == (0.5, "")
    assert found(("a", 1.0)) == (0.5, "")
    assert found() == (0.0, "")
    assert "gave 'b' the score 0.4000, which is 0.5000" in found(("a", 1.0), ("b", 0.4)).wrong
    assert "an item twice, or one that was not exported" in found(("a", 1.0), ("a", 1.0)).wrong
    assert "an item twice, or one that was not exported" in found(("a", 1.0), ("x", 0.5)).wrong


def test_questions_are_unit_vectors_between_items() -> None:
    opposite = np.array([[1, 0], [-1, 0]], np.float32)
    asked = exporting.questions(opposite, 50, 3)
    assert np.allclose(np.linalg.norm(asked, axis=1), 1.0)
    assert np.array_equal(asked, exporting.questions(opposite, 50, 3))
    assert len(np.unique(exporting.questions(units(1), 1000, 3), axis=0)) > 900
