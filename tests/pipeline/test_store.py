"""ML Metadata in each of its stores: one contract for all, and what is said where a server does not play its part.

The servers are MariaDB and PostgreSQL themselves; see `database_servers`.
"""

import json
import random
import string
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pymysql
import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from pydantic import ValidationError
from pytest import MonkeyPatch

from pipeline import config as configuration
from pipeline import day_run, origin
from pipeline.checks import doctor
from pipeline.config import Config
from pipeline.records import Lineage, Records, store
from schemas.errors import PassingError, UserError
from schemas.secret import SecretSource
from tests.certificates import self_signed
from tests.database_servers import PASSWORD, SERVERS, USER, Server
from tests.forks import Forks
from tests.pipeline import toy
from tests.waiting import wait_for

SHOP = Path(__file__).parents[1] / "end_to_end" / "shop" / "shop.yaml"


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[[str], Server]]:
    """Starts each server when it is first asked for; all tests share its database."""
    started: dict[str, Server] = {}

    def get(name: str) -> Server:
        if name not in started:
            started[name] = SERVERS[name]()
        return started[name]

    yield get
    for server in started.values():
        server.close()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], Server]) -> Server:
    return servers(request.param)


@pytest.fixture(params=["sqlite", *SERVERS])
def config(request: pytest.FixtureRequest, servers: Callable[[str], Server], tmp_path: Path) -> Config:
    """A configuration of each store."""
    own = [] if request.param == "sqlite" else servers(request.param).settings()
    return configuration.load(SHOP, [f"root={tmp_path}", *own])


class ToyRun:
    """A run of the toy pipeline that has begun."""

    def __init__(self, config: Config) -> None:
        self.to = store.connection(config)
        self.id = f"2026-11-24.{uuid4().hex}"
        self.root = config.root
        self.compiled = toy.compiled(self.root, self.id)
        self.records = Records(self.to)
        day_run.register(self.compiled, self.records)

    def open_gates(self) -> None:
        for name in toy.WRITERS:
            (self.root / name).touch()

    def steps(self) -> dict[str, str]:
        return {step.node: step.state for step in self.records.run(self.id).steps}

    def launch(self, name: str) -> None:
        toy.launch(str(self.root), self.id, name, self.to.SerializeToString().hex())


def test_a_run_is_recorded_node_by_node_and_its_twin_comes_from_the_cache(config: Config) -> None:
    first = ToyRun(config)
    assert (first.records.run(first.id).state, first.steps()) == ("unfinished", {})
    first.open_gates()
    for name in (*toy.WRITERS, "Pusher"):
        first.launch(name)
    assert first.steps() == dict.fromkeys([*toy.WRITERS, "Pusher"], "complete")
    (pushed,) = first.records.artifact_uris(first.id, "PushedModel")
    assert (Path(pushed) / "text").read_text() == "Three"
    assert first.records.runs()[-1] == first.records.run(first.id)
    second = ToyRun(config)
    made_from = origin.of(config)
    second.records.note_origin(second.id, made_from)
    for name in (*toy.WRITERS, "Pusher"):
        second.launch(name)
    assert second.steps() == dict.fromkeys([*toy.WRITERS, "Pusher"], "cached")
    assert second.records.artifact_uris(second.id, "PushedModel") == [pushed]
    assert (first.records.run(first.id).origin, second.records.run(second.id).origin) == (None, made_from)
    check_lineage(Lineage(first.to), first.id, second.id, pushed)


def test_a_text_of_any_length_and_with_any_signs_is_kept(config: Config) -> None:
    # As a run's metrics, JSON of thousands of characters with backslashes. ML Metadata's own way to PostgreSQL takes neither.
    kept = store.connect(store.connection(config))
    long = "".join(random.Random(0).choices(string.printable, k=20_000))
    texts = [
        "\\",
        'a\\"b\\\\n',
        "'",
        "\N{SYMBOL FOR ESCAPE}1",
        "%s %%",
        "é\n",
        json.dumps(json.dumps({"a": "\n"})),
        long,
    ]
    artifact_type = kept.put_artifact_type(mlmd.ArtifactType(name="Text", properties={"declared": mlmd.STRING}))
    artifacts = [mlmd.Artifact(type_id=artifact_type, uri=f"place\\{uuid4()}") for _ in texts]
    for artifact, text in zip(artifacts, texts, strict=True):
        artifact.properties["declared"].string_value = artifact.custom_properties["own"].string_value = text
    ids = kept.put_artifacts(artifacts)
    found = {each.id: each for each in kept.get_artifacts_by_id(ids)}
    assert [found[each].properties["declared"].string_value for each in ids] == texts
    assert [found[each].custom_properties["own"].string_value for each in ids] == texts
    assert [[each.id for each in kept.get_artifacts_by_uri(artifact.uri)] for artifact in artifacts] == [
        [each] for each in ids
    ]
    run = kept.put_context_type(mlmd.ContextType(name="Texts"))
    context = mlmd.Context(type_id=run, name=f"{uuid4()}\\'")
    kept.put_contexts([context])
    assert kept.get_context_by_type_and_name("Texts", context.name).name == context.name


def check_lineage(lineage: Lineage, first: str, second: str, pushed: str) -> None:
    """Of a run, and of one that was served from the cache."""
    made, served = lineage.of_run(first), lineage.of_run(second)
    assert made.artifacts == served.artifacts and made.runs() == {first} and served.runs() == {second}
    [taken] = [each for each in served.artifacts.values() if each.uri == pushed]
    assert (taken.run, taken.node, taken.type, taken.state) == (first, "Pusher", "PushedModel", "live")
    [pusher] = [each for each in made.executions.values() if each.node == "Pusher"]
    texts = {made.artifacts[edge.artifact].node: edge.name for edge in made.inputs(pusher.id)}
    assert texts == {"One": "one", "Two": "two", "Three": "three"}
    assert pusher.seconds is not None and 0 < pusher.seconds < 60
    around = lineage.of_artifact(taken.id)
    assert around.executions == made.executions and around.artifacts == made.artifacts
    assert lineage.at(pushed) == [taken.id]


def test_nodes_at_once_in_processes_of_their_own(config: Config, forks: Forks) -> None:
    run = ToyRun(config)
    arguments = [(str(run.root), run.id, name, run.to.SerializeToString().hex()) for name in toy.WRITERS]
    started = [forks.start(*each, program="tests.pipeline.toy:launch") for each in arguments]
    for name in toy.WRITERS:  # all have begun before any may end
        wait_for((run.root / f"{name}.waits").exists, f"the start of {name}")
    assert run.steps() == dict.fromkeys(toy.WRITERS, "unfinished")
    run.open_gates()
    for process in started:
        ended = forks.end(process)
        assert ended.returncode == 0, ended.stderr
    run.launch("Pusher")
    assert run.records.run(run.id).state == "complete"
    assert len(run.records.run(run.id).steps) == 4


def test_a_server_that_restarts_in_the_middle_of_a_node_loses_nothing(server: Server, tmp_path: Path) -> None:
    run = ToyRun(configuration.load(SHOP, [f"root={tmp_path}", *server.settings()]))

    def restart() -> None:
        wait_for((run.root / "One.waits").exists, "the start of One")
        server.stop()
        run.open_gates()
        time.sleep(1)
        server.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    run.launch("One")  # ends while there is no server
    restarting.join()
    # These records were connected to the server that was stopped.
    assert run.steps() == {"One": "complete"}
    server.stop()
    threading.Timer(1, server.start).start()
    for name in ("Two", "Three", "Pusher"):
        run.launch(name)
    assert run.records.run(run.id).state == "complete"


def refusal(server: Server, **changed: object) -> UserError:
    """What is said to a configuration that differs from the right one."""
    config = configuration.load(SHOP, server.settings(**changed))
    with pytest.raises(UserError) as refused:
        Records(store.connection(config))
    assert PASSWORD not in str(refused.value)
    return refused.value


def test_a_wrong_password_is_reported_at_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wr0ng")
    said = refusal(server, password=f"{{file: {tmp_path / 'wrong'}}}")
    assert not isinstance(said, PassingError)
    assert f"127.0.0.1:{server.port}" in str(said) and "the password" in str(said) and "wr0ng" not in str(said)


def test_a_database_that_is_not_there_is_named_and_not_made(server: Server) -> None:
    for _ in range(2):  # the first attempt made none
        said = refusal(server, database="metdata")
        assert not isinstance(said, PassingError) and "metdata" in str(said) and "the database was made" in str(said)


def test_a_server_that_is_not_there_is_waited_for_and_then_named(server: Server, monkeypatch: MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    said = refusal(server, port=1)
    assert isinstance(said, PassingError) and "127.0.0.1:1," in str(said) and "efused" in str(said)
    assert waited == list(store.PATIENCE)


@pytest.mark.parametrize("version", [7, 99])
def test_ml_metadata_of_another_version_is_named(server: Server, version: int) -> None:
    Records(store.connection(configuration.load(SHOP, server.settings())))
    server.execute(f"UPDATE MLMDEnv SET schema_version = {version}")
    said = refusal(server)
    server.execute("UPDATE MLMDEnv SET schema_version = 10")
    assert not isinstance(said, PassingError) and f"version {version}" in str(said) and "another version" in str(said)


def test_a_store_that_others_keep_busy_is_not_taken_for_something_else(config: Config) -> None:
    # The words of ML Metadata itself, half a minute after another process had begun an exclusive transaction.
    busy = RuntimeError("Concurrent writes aborted after max number of retries.")
    said = store._refusal(store.connection(config), busy)
    assert isinstance(said, PassingError) and "locked by other processes" in str(said)


def test_localhost_is_a_machine_not_a_socket(server: Server) -> None:
    Records(store.connection(configuration.load(SHOP, server.settings(host="localhost"))))


def test_the_doctor_reaches_it_too(server: Server, tmp_path: Path) -> None:
    config = configuration.load(SHOP, [f"root={tmp_path}", *server.settings()])
    (found,) = [each for each in doctor.examine(config) if each.check == "metadata"]
    assert (found.state, f"127.0.0.1:{server.port}, database metadata: of" in found.found) == ("ok", True)


def test_a_server_that_requires_tls_is_reported_and_reached_with_it(servers: Callable[[str], Server]) -> None:
    mariadb = servers("mysql")
    mariadb.execute("SET GLOBAL require_secure_transport = ON")
    by_tls = {"tls": f"{{ca: {mariadb.certificate}}}"}
    try:
        said = refusal(mariadb)
        assert not isinstance(said, PassingError) and "metadata.tls" in str(said)
        Records(store.connection(configuration.load(SHOP, mariadb.settings(**by_tls))))
        said = refusal(mariadb, **by_tls, database="metdata")  # asked why in the same way
        assert "metdata" in str(said) and "the database was made" in str(said)
        assert f"127.0.0.1:{mariadb.port} (by TLS)" in str(said)
    finally:
        connection = pymysql.connect(
            host="127.0.0.1", port=mariadb.port, user=USER, password=PASSWORD, ssl={"ca": mariadb.certificate}
        )
        connection.cursor().execute("SET GLOBAL require_secure_transport = OFF")


def test_ml_metadata_passes_whole_through_tls(server: Server) -> None:
    to = store.connection(configuration.load(SHOP, server.settings(tls=f"{{ca: {server.certificate}}}")))
    connected = store.connect(to)
    name = uuid4().hex
    kind = connected.put_context_type(mlmd.ContextType(name=name, properties={"text": mlmd.STRING}))
    long = "".join(random.Random(1).choices(string.ascii_letters, k=60_000))  # longer than what is passed on at once
    context = mlmd.Context(type_id=kind, name=name, properties={"text": mlmd.Value(string_value=long)})
    connected.put_contexts([context])
    found = connected.get_context_by_type_and_name(name, name)
    assert found and found.properties["text"].string_value == long
    server.stop()
    server.start()  # one tunnel carries every later connection
    assert store.connect(to).get_context_by_type_and_name(name, name)


def test_a_server_that_does_not_prove_who_it_is_is_refused(server: Server, tmp_path: Path) -> None:
    foreign = self_signed(tmp_path)
    said = refusal(server, tls=f"{{ca: {foreign}}}")
    assert not isinstance(said, PassingError) and "self-signed certificate" in str(said)
    said = refusal(server, tls="{}")  # nor does the system trust it
    assert not isinstance(said, PassingError) and "self-signed certificate" in str(said)
    own = {"host": "localhost"}  # its certificate is one of 127.0.0.1
    said = refusal(server, **own, tls=f"{{ca: {server.certificate}}}")
    assert not isinstance(said, PassingError) and "not valid for 'localhost'" in str(said)
    anyhow = server.settings(**own, tls=f"{{ca: {server.certificate}, check_host: false}}")
    Records(store.connection(configuration.load(SHOP, anyhow)))


def test_a_server_that_is_not_there_is_waited_for_by_tls_too(server: Server, monkeypatch: MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    said = refusal(server, port=1, tls=f"{{ca: {server.certificate}}}")
    assert isinstance(said, PassingError) and "127.0.0.1:1 (by TLS)," in str(said) and "efused" in str(said)
    assert waited == list(store.PATIENCE)


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no PEM")
    server = "store: mysql, host: db, user: ndr, password: {env: HOME}"
    for tls, found in (
        (f"{{ca: {tmp_path}/none.pem}}", f"ca {tmp_path}/none.pem.*No such file"),
        (f"{{ca: {tmp_path}/text.pem}}", f"ca {tmp_path}/text.pem.*NO_CERTIFICATE"),
    ):
        with pytest.raises(UserError, match=rf"metadata\.tls: expected PEM files \({found}"):
            store.connection(configuration.load(SHOP, [f"metadata={{{server}, tls: {tls}}}"]))
    with pytest.raises(UserError, match="expected a certificate beside key"):
        configuration.load(SHOP, [f"metadata={{{server}, tls: {{key: a}}}}"])


def test_the_password_is_asked_for_by_name_and_never_shown(monkeypatch: MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(UserError, match=r"the environment variable that metadata\.password\.env names, found nothing"):
        SecretSource(env="NO_SUCH").read("metadata.password")
    monkeypatch.setenv("NO_SUCH", "word\n with more lines")
    assert SecretSource(env="NO_SUCH").read("metadata.password") == "word\n with more lines"
    (tmp_path / "word").write_text("word\n of a file with more lines\n")
    assert SecretSource(file=tmp_path / "word").read("metadata.password") == "word"
    with pytest.raises(UserError, match="No such file"):
        SecretSource(file=tmp_path / "none").read("metadata.password")
    for both_or_neither in ({}, {"env": "A", "file": "b"}):
        with pytest.raises(ValidationError, match="expected one of env"):
            SecretSource.model_validate(both_or_neither)


def test_a_setting_of_the_other_store_is_refused() -> None:
    with pytest.raises(UserError, match=r"metadata\.host: is not a known key"):
        configuration.load(SHOP, ["metadata={store: sqlite, host: here}"])
    with pytest.raises(UserError, match=r"metadata: .*store"):
        configuration.load(SHOP, ["metadata={store: oracle}"])
    with pytest.raises(UserError, match=r"metadata\.user: is missing"):
        configuration.load(SHOP, ["metadata={store: mysql, host: here, password: {env: A}}"])
