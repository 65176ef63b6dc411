"""`ndr runs`, `show`, `artifacts`, `lineage`, `diff` over a few days' work; over real runs in end_to_end/test_days.py."""

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from pytest import CaptureFixture, MonkeyPatch
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from pipeline import lock
from pipeline.cli import app
from pipeline.inspection import cli
from pipeline.inspection.differences import apart, difference_tables, differences, flat
from pipeline.inspection.find import find_artifact, find_run
from pipeline.inspection.show import files_words
from pipeline.inspection.tree import lineage_tree
from pipeline.origin import Origin
from pipeline.records import Artifact, Edge, Execution, Given, Graph, Lineage, Records, Run, Step, connection
from schemas.errors import UserError
from tests.work import Day, Work

FIRST, SECOND, THIRD = "2026-11-23", "2026-11-24", "2026-11-25"
VERSION = "20261124001"
ORIGIN = Origin(
    "0.1.0", "0123456789abcdef", True, "c0de", {"name": "shop", "trainer": {"epochs": 3, "towers": {"query": [8]}}}
)


@dataclass(frozen=True)
class Worked:
    """What commands say of some work."""

    work: Work

    def ndr(self, *command: str, status: int = 0) -> str:
        """What a command writes: to standard output, or to standard error where it is to fail."""
        answer = CliRunner().invoke(app, [*command, "--set", f"root={self.work.places.root}"])
        assert answer.exit_code == status, answer.output
        return answer.stderr if status else answer.stdout

    @property
    def records(self) -> Records:
        return Records(connection(self.work.places))

    @property
    def lineage(self) -> Lineage:
        return Lineage(connection(self.work.places))


@dataclass(frozen=True)
class Shop(Worked):
    """Two days, the second of which was pushed and run again; and a third that was begun."""

    first: Day
    second: Day
    again: Day
    pushed: int


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    work = Work(tmp_path_factory.mktemp("shop"))
    first, second = work.day(FIRST), work.day(SECOND, blessed=True)
    pushed = work.step(second.run, "Pusher", "pushed_model", "PushedModel", [second.model], pushed=1)
    pushed.custom_properties["pushed_version"].string_value = VERSION
    parts = {"query_tower": f"{work.serving}/query_tower/{VERSION}", "index": f"gs://bucket/index/{VERSION}"}
    pushed.custom_properties["parts"].string_value = json.dumps(parts)
    work.store.put_artifacts([pushed])
    again = work.day(SECOND)
    work.run(THIRD)
    made = Shop(work, first, second, again, pushed.id)
    made.records.note_origin(second.run.name, ORIGIN)
    return made


# What is meant


def test_a_run_is_meant_by_its_id_a_beginning_of_it_or_its_day(shop: Shop) -> None:
    first, second, again, third = shop.records.run_ids()
    assert find_run(shop.records, second) == second
    assert find_run(shop.records, "2026-11-23.") == first
    assert find_run(shop.records, SECOND) == again  # the last of that day
    assert find_run(shop.records, THIRD) == third


def test_a_whole_id_is_its_run_though_another_begins_with_it(tmp_path: Path) -> None:
    work = Work(tmp_path)
    kind = work.run(FIRST).type_id
    work.store.put_contexts([mlmd.Context(type_id=kind, name=f"{SECOND}.{number}") for number in (1, 10)])
    records = Records(connection(work.places))
    assert find_run(records, f"{SECOND}.1") == f"{SECOND}.1"
    with pytest.raises(UserError, match="which 2 runs begin with"):
        find_run(records, f"{SECOND}.")


@pytest.mark.parametrize("words", ["2026-11-24.", "2026-11-2", "2026"])
def test_an_ambiguous_beginning_is_refused_with_the_candidates(shop: Shop, words: str) -> None:
    with pytest.raises(UserError) as refusal:
        find_run(shop.records, words)
    candidates = [run for run in shop.records.run_ids() if run.startswith(words)]
    assert f"received {words!r}, which {len(candidates)} runs begin with:\n  {candidates[0]}" in str(refusal.value)
    assert str(refusal.value).endswith(candidates[-1])


@pytest.mark.parametrize("words", ["2026-11-22", "", "x"])
def test_a_run_that_is_not_there_is_refused_with_the_last_ones(shop: Shop, words: str) -> None:
    with pytest.raises(UserError, match=r"there is no such run\. The last runs are:\n  2026-11-23"):
        find_run(shop.records, words)


def test_of_many_candidates_the_newest_ten_are_listed(tmp_path: Path) -> None:
    work = Work(tmp_path)
    ids = [work.run(FIRST).name for _ in range(12)]
    with pytest.raises(UserError) as refusal:
        find_run(Records(connection(work.places)), "2026-11-2")
    listed = "".join(f"\n  {each}" for each in ids[2:])
    assert str(refusal.value).endswith(f"which 12 runs begin with:\n  and 2 older{listed}")


def test_an_artifact_is_meant_by_its_id_its_place_or_its_version(shop: Shop, monkeypatch: MonkeyPatch) -> None:
    model = shop.second.model
    monkeypatch.chdir(model.uri)
    for words in (str(model.id), model.uri, f"{model.uri}/", f"{model.uri}/file", "file", "not/yet/there"):
        assert find_artifact(shop.lineage, words) == model.id
    with pytest.raises(UserError):
        find_artifact(shop.lineage, "")  # is no path, not even of the current folder
    monkeypatch.chdir(shop.work.places.root)
    for words in (
        VERSION,
        f"{shop.work.serving}/query_tower/{VERSION}",
        f"serving/query_tower/{VERSION}",
        f"gs://bucket/index/{VERSION}/",
    ):
        assert find_artifact(shop.lineage, words) == shop.pushed


def test_an_artifact_is_found_through_a_link(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(shop.work.places.root)
    inside = Path(shop.second.model.uri).relative_to(shop.work.places.root)
    assert find_artifact(shop.lineage, str(tmp_path / "link" / inside)) == shop.second.model.id


@pytest.mark.parametrize("words", ["999", "9" * 30, "/nowhere", "", "://", "gs://bucket/model", "20261124002"])
def test_an_artifact_that_is_not_there_is_refused(shop: Shop, words: str) -> None:
    with pytest.raises(
        UserError, match=r"there is no such artifact\. The newest are:\n  1, Examples of run 2026-11-23"
    ):
        find_artifact(shop.lineage, words)


def test_a_version_that_was_pushed_twice_is_refused_with_the_candidates(tmp_path: Path) -> None:
    work = Work(tmp_path)
    for _ in range(2):
        pushed = work.step(work.run(SECOND), "Pusher", "pushed_model", "PushedModel", pushed=1)
        pushed.custom_properties["pushed_version"].string_value = VERSION
        work.store.put_artifacts([pushed])
    with pytest.raises(UserError, match=rf"name one by its id:\n  1, PushedModel of run {SECOND}.*\n  2, PushedModel"):
        find_artifact(Lineage(connection(work.places)), VERSION)


def test_a_folder_of_several_artifacts_is_refused_with_the_candidates(shop: Shop) -> None:
    models = [shop.first.model, shop.second.model, shop.again.model]
    with pytest.raises(UserError) as refusal:
        find_artifact(shop.lineage, str(Path(shop.first.model.uri).parent))
    assert [line.split(",")[0].strip() for line in str(refusal.value).splitlines()[1:]] == [str(m.id) for m in models]
    only_one = Path(shop.work.places.pipeline_root, "Pusher")
    assert find_artifact(shop.lineage, str(only_one)) == shop.pushed


# What is told


def test_runs_are_listed_and_the_newest_only(shop: Shop) -> None:
    ids = shop.records.run_ids()
    assert [run["run"] for run in json.loads(shop.ndr("runs", "--json"))] == ids
    assert [run["run"] for run in json.loads(shop.ndr("runs", "--json", "--last", "2"))] == ids[-2:]
    table = shop.ndr("runs", "--last", "3")
    assert VERSION in table and ids[0] not in table and all(run in table for run in ids[1:])


def test_a_table_is_limited_for_people(shop: Shop, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "ROWS", 2)
    ids = shop.records.run_ids()
    table = shop.ndr("runs")
    assert ids[-2] in table and ids[-1] in table and ids[-3] not in table
    assert table.endswith("The newest 2; --last N shows more.\n")
    assert ids[0] in shop.ndr("runs", "--last", "4") and "shows more" not in shop.ndr("runs", "--last", "2")
    assert len(json.loads(shop.ndr("runs", "--json"))) == len(ids)  # a program is given all
    assert "The newest 2" in shop.ndr("artifacts")
    assert min(each["id"] for each in json.loads(shop.ndr("artifacts", "--json"))) == shop.first.examples.id


def test_names_from_data_are_shown_and_not_obeyed(capsys: CaptureFixture[str]) -> None:
    cli._print(["run \x1b[2J"])
    assert capsys.readouterr().out == "run \u241b[2J\n"


def test_a_run_is_shown(shop: Shop) -> None:
    run = shop.second.run.name
    shown = json.loads(shop.ndr("show", run, "--json"))
    assert (shown["date"], shown["state"], shown["version"], shown["blessed"]) == (
        SECOND,
        "complete",
        int(VERSION),
        True,
    )
    assert shown["origin"]["configuration"]["trainer"]["epochs"] == 3 and shown["origin"]["commit"] == ORIGIN.commit
    assert [step["node"] for step in shown["steps"]] == ["Interactions", "Trainer", "RetrievalEvaluator", "Pusher"]
    assert {each["id"]: (each["type"], each["exists"]) for each in shown["artifacts"]} == {
        shop.second.examples.id: ("Examples", True),
        shop.second.model.id: ("Model", True),
        shop.second.blessing.id: ("ModelBlessing", True),
        shop.pushed: ("PushedModel", True),
    }
    text = shop.ndr("show", run)
    assert "ndr 0.1.0, commit 0123456789ab and changes, digest c0de" in text
    assert all(words in text for words in ("Trainer", VERSION, "Artifacts of", "yes"))
    [row] = [line for line in text.splitlines() if "│ Model " in line]
    assert run not in row  # which goes without saying
    assert "unfinished" in shop.ndr("show", THIRD)


def test_artifacts_say_whether_they_are_still_there(tmp_path: Path) -> None:
    work = Work(tmp_path)
    gone, lost = work.day(FIRST), work.day(SECOND)
    work.collect(days=1)
    Path(lost.model.uri, "file").unlink()
    Path(lost.model.uri).rmdir()
    shop = Shop(work, gone, lost, lost, 0)
    found = json.loads(shop.ndr("artifacts", "--type", "Model", "--json"))
    assert [(each["id"], each["state"], each["exists"]) for each in found] == [
        (gone.model.id, "deleted", False),
        (lost.model.id, "live", False),
    ]
    table = shop.ndr("artifacts", "--type", "Model")
    assert "deleted" in table and "missing" in table and "yes" not in table
    assert [each["id"] for each in json.loads(shop.ndr("artifacts", "--json", "--last", "1"))] == [lost.blessing.id]


def test_a_lineage_is_shown_as_a_tree_and_as_nodes_and_edges(shop: Shop) -> None:
    told = json.loads(shop.ndr("lineage", VERSION, "--json"))
    assert told["artifact"] == shop.pushed
    assert {each["node"] for each in told["executions"]} == {"Interactions", "Trainer", "Pusher"}
    assert {each["id"] for each in told["artifacts"]} == {shop.second.examples.id, shop.second.model.id, shop.pushed}
    assert {(edge["artifact"], edge["kind"]) for edge in told["edges"]} == {
        (shop.second.examples.id, "output"), (shop.second.examples.id, "input"),
        (shop.second.model.id, "output"), (shop.second.model.id, "input"),
        (shop.pushed, "output"),
    }  # fmt: skip
    assert told["runs"][shop.second.run.name]["configuration"] == ORIGIN.configuration
    assert "commit 0123456789ab and changes" in shop.ndr("lineage", VERSION)
    text = shop.ndr("lineage", str(shop.second.model.id))
    came_from, went_into = text.split("went into")
    assert f"Examples {shop.second.examples.id}" in came_from and "Interactions" in came_from
    assert f"PushedModel {shop.pushed}, version {VERSION}" in went_into and "blessed" in went_into
    assert "went into" not in shop.ndr("lineage", VERSION)


TREE = f"""\
Model 2, deleted, /nowhere/model
├── came from
│   └── Trainer, 2.0 s
│       ├── base_model: Model 9, made by Trainer of {FIRST}.1
│       ├── catalogue: Examples 1, 1,682 rows of catalogue, span 20781, /data/items (1 file, 1.5 kB)
│       │   └── Catalogue, cached
│       └── examples: Examples 3, 7 rows of interactions, span 20781, /data/22 to /data/24 (3 folders, 4 files, 2.0 MB)
│           └── Interactions, 1.0 s
│               └── catalogue: Examples 1 of Catalogue (above)
├── went into
│   ├── Evaluator, 1.0 s (its model)
│   │   └── ModelBlessing 4, not blessed
│   │       └── Pusher, failed (its blessing)
│   ├── Pusher, failed (its model) (above)
│   └── Trainer of {THIRD}.1, 3.0 s (its base_model)
└── runs
    ├── {SECOND}.1: ndr 0.1.0, commit 0123456789ab and changes, digest c0de, configuration {ORIGIN.configuration_digest}
    └── {THIRD}.1: code and configuration were not recorded
"""


def test_a_tree_shows_each_thing_once_and_names_other_days() -> None:
    run, before, after = f"{SECOND}.1", f"{FIRST}.1", f"{THIRD}.1"

    def artifact(id: int, kind: str, node: str, run: str, state: str = "deleted", **properties: Any) -> Artifact:
        return Artifact(id, kind, "/nowhere/model", state, run, node, "", properties)

    def examples(id: int, node: str, rows: int, kind: str, files: dict[str, Any]) -> Artifact:
        accounting = json.dumps({"kind": kind, "rows": rows})
        found = artifact(id, "Examples", node, run, rows=accounting, span=20781, input_files=json.dumps(files))
        return replace(found, state="live", uri="/")

    catalogue = {"first": "/data/items", "last": "/data/items", "folders": 1, "files": 1, "bytes": 1500}
    interactions = {"first": "/data/22", "last": "/data/24", "folders": 3, "files": 4, "bytes": 2_000_000}
    artifacts = [
        examples(1, "Catalogue", 1682, "catalogue", catalogue),
        artifact(2, "Model", "Trainer", run),
        examples(3, "Interactions", 7, "interactions", interactions),
        replace(artifact(4, "ModelBlessing", "Evaluator", run, blessed=0), state="live", uri="/"),
        replace(artifact(9, "Model", "Trainer", before), state="live", uri="/"),
    ]
    executions = [
        Execution(1, "Catalogue", run, "cached", "", 0.0),
        Execution(2, "Interactions", run, "complete", "", 1.0),
        Execution(3, "Trainer", run, "complete", "", 2.0),
        Execution(4, "Evaluator", run, "complete", "", 1.0),
        Execution(5, "Pusher", run, "failed", "", 1.0),
        Execution(6, "Trainer", after, "complete", "", 3.0),
    ]
    edges = (
        Edge(1, 1, "output", "examples"), Edge(1, 2, "input", "catalogue"), Edge(3, 2, "output", "examples"),
        Edge(9, 3, "input", "base_model"), Edge(1, 3, "input", "catalogue"), Edge(3, 3, "input", "examples"),
        Edge(2, 3, "output", "model"), Edge(2, 4, "input", "model"), Edge(4, 4, "output", "blessing"),
        Edge(4, 5, "input", "blessing"), Edge(2, 5, "input", "model"), Edge(2, 6, "input", "base_model"),
    )  # fmt: skip
    graph = Graph({each.id: each for each in artifacts}, {each.id: each for each in executions}, edges)
    console = Console(file=io.StringIO(), width=120, markup=False)
    console.print(lineage_tree(graph, 2, {run: ORIGIN, after: None}))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.rstrip() for line in lines] == TREE.splitlines()


@pytest.mark.parametrize(
    ("kind", "properties", "fact"),
    [
        ("PushedModel", {"pushed": 1, "pushed_version": VERSION}, f"version {VERSION}"),
        ("PushedModel", {"pushed": 0}, "nothing was pushed"),
        ("ModelBlessing", {"blessed": 1}, "blessed"),
        ("ModelBlessing", {"blessed": 1, "withdrawn": 1}, "withdrawn"),
        ("InfraBlessing", {"blessed": 0}, "not blessed"),
    ],
)
def test_facts_about_an_artifact_are_shown(kind: str, properties: dict[str, Any], fact: str) -> None:
    artifact = Artifact(1, kind, "/", "live", "", "", "", properties)
    tree = lineage_tree(Graph({1: artifact}, {}, ()), 1, {})
    assert tree.label == f"{kind} 1, {fact}, /"


def test_daily_files_are_shown_as_days() -> None:
    files = {"first": "/log/22.csv", "last": "/log/24.csv", "folders": 1, "files": 3, "bytes": 2000}
    assert files_words(files) == "/log/22.csv to /log/24.csv (3 files, 2.0 kB)"
    assert files_words({**files, "last": "/log/22.csv", "files": 1}) == "/log/22.csv (1 file, 2.0 kB)"


def test_a_day_that_was_done_before_says_by_which_run(tmp_path: Path) -> None:
    work = Work(tmp_path)
    done, again = work.run(FIRST), work.run(FIRST)
    shop = Worked(work)
    shop.records.note_passed_over(again.name, done.name)
    shown = json.loads(shop.ndr("show", again.name, "--json"))
    assert (shown["state"], shown["passed_over_for"]) == ("passed over", done.name)
    assert f"by {done.name}, with the same input" in shop.ndr("show", again.name)


def test_a_run_at_work_is_not_called_unfinished(tmp_path: Path) -> None:
    """Regression: a run at work looked like one that was killed."""
    work = Work(tmp_path)
    shop = Worked(work)
    work.run(FIRST)  # killed, as another was begun after it
    begun = work.run(SECOND).name

    def states() -> list[str]:
        return [each["state"] for each in json.loads(shop.ndr("runs", "--json"))]

    assert states() == ["unfinished", "unfinished"]
    with lock.exclusive(tmp_path):
        assert states() == ["unfinished", "at work"]
        assert json.loads(shop.ndr("show", begun, "--json"))["state"] == "at work"
    assert states() == ["unfinished", "unfinished"]


def test_two_runs_are_compared(shop: Shop) -> None:
    told = json.loads(shop.ndr("diff", shop.second.run.name, SECOND, "--json"))
    assert told["runs"] == [shop.second.run.name, shop.again.run.name]
    assert told["outcome"] == {
        "state": ["complete", "unfinished"],
        "version": [int(VERSION), None],
        "blessed": [True, False],
    }
    assert told["configuration"]["trainer.epochs"] == [3, None] and set(told["steps"]) == {"Pusher"}
    text = shop.ndr("diff", shop.second.run.name, SECOND)
    assert "trainer.epochs" in text and "RetrievalEvaluator" not in text
    assert "RetrievalEvaluator" in shop.ndr("diff", shop.second.run.name, SECOND, "--all")
    assert shop.ndr("diff", SECOND, SECOND) == "Nothing differs.\n"


@pytest.mark.parametrize(
    "command", [("show", "2026"), ("lineage", "999"), ("diff", SECOND, "2026"), ("artifacts", "--type", "x")]
)
def test_a_mistake_is_explained_in_a_sentence(shop: Shop, command: tuple[str, ...]) -> None:
    said = shop.ndr(*command, status=1)
    assert said.startswith("expected") and "Traceback" not in said


@pytest.mark.parametrize("command", [("show", SECOND), ("lineage", "1"), ("diff", SECOND, SECOND)])
def test_nothing_was_run_yet(tmp_path: Path, command: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*command, "--set", f"root={tmp_path}"])
    assert answer.exit_code == 1 and answer.stderr.startswith("No run yet")
    assert list(tmp_path.iterdir()) == []  # no metadata store is made by looking for one
    empty = CliRunner().invoke(app, ["artifacts", "--json", "--set", f"root={tmp_path}"])
    assert (empty.exit_code, json.loads(empty.stdout)) == (0, [])


# What differs


def run(**values: Any) -> Run:
    return Run(run="a", date=FIRST, state="complete", **values)


def test_nested_keys_become_paths_and_lists_are_values() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None, "f": {}}) == {
        "a.b": 1,
        "a.c.d": [1, 2],
        "e": None,
        "f": {},
    }


def test_only_differences_are_shown() -> None:
    one = run(
        version=1,
        given=Given("d1", 7, "2026-11-22", 7),
        origin=ORIGIN,
        rows={"interactions": {"kind": "interactions", "rows": 10, "dropped": {}}},
        sources={"interactions": {"fingerprint": "f", "files": {"files": 2}}},
        turnover={"sku": {"ids": 5, "admitted": 1}},
        metrics={
            "all": {"candidate": {"mrr": [0.5, 0.4, 0.6], "ndcg": [0.1, 0.0, 0.2]}},
            "user=new": {"candidate": {"mrr": [0.1, 0, 1]}},
        },
    )
    other = replace(
        one,
        given=Given("d2", 8, "2026-11-22", 7),
        origin=replace(
            ORIGIN, code="d0de", configuration={"name": "shop", "trainer": {"epochs": 4, "towers": {"query": [8]}}}
        ),
        rows={"interactions": {"kind": "interactions", "rows": 11, "dropped": {}}},
        turnover={"sku": {"ids": 6, "admitted": 1}},
        metrics={
            "all": {"candidate": {"mrr": [0.7, 0.65, 0.8], "ndcg": [0.1, 0.0, 0.2]}},
            "user=new": {"candidate": {"mrr": [0.2, 0, 1]}},
        },
    )
    found = differences(one, other)
    assert (found.outcome, found.steps) == ({}, {})
    assert found.code == {"code": ("c0de", "d0de")}
    assert found.configuration == {"trainer.epochs": (3, 4)}
    # The digests of the input differ too, as they are of code and configuration beside the data: that is no difference of the data.
    assert found.data == {"interactions.rows": (10, 11), "ids.sku.ids": (5, 6)}
    assert found.metrics == {"mrr": ([0.5, 0.4, 0.6], [0.7, 0.65, 0.8]), "user=new mrr": ([0.1, 0, 1], [0.2, 0, 1])}
    everything = differences(one, other, everything=True)
    assert everything.outcome["version"] == (1, 1) and everything.metrics["ndcg"] == ([0.1, 0.0, 0.2], [0.1, 0.0, 0.2])
    assert everything.configuration["trainer.towers.query"] == ([8], [8])
    assert everything.data["interactions.files.files"] == (2, 2) and "kind" not in str(everything.data)


def test_files_that_were_only_touched_are_no_difference_of_the_data() -> None:
    def of(fingerprint: str, content: str) -> Run:
        return run(sources={"interactions": {"fingerprint": fingerprint, "content": content, "files": {"files": 2}}})

    assert differences(of("f1", "c"), of("f2", "c")).data == {}
    assert differences(of("f1", "c1"), of("f2", "c2")).data == {"interactions.content": ("c1", "c2")}
    # Of what older code made the files alone are known.
    assert differences(of("f1", ""), of("f2", "")).data == {"interactions.fingerprint": ("f1", "f2")}


def test_of_the_slices_metrics_the_table_has_those_that_are_apart() -> None:
    def judged(new: list[float], known: list[float]) -> Run:
        slices = {"user=known": {"candidate": {"mrr": known}}, "user=new": {"candidate": {"mrr": new}}}
        return run(metrics={**slices, "all": {"candidate": {"mrr": [0.3, 0.2, new[0]]}}})

    def rows(everything: bool) -> list[RenderableType]:
        [table] = difference_tables(one, other, differences(one, other), everything)
        return list(table.columns[0].cells)

    # Of new users 0.2 to 0.4 and 0.5 to 0.7; of known ones 0.1 to 0.3 and 0.2 to 0.4.
    one, other = judged([0.3, 0.2, 0.4], [0.2, 0.1, 0.3]), judged([0.6, 0.5, 0.7], [0.3, 0.2, 0.4])
    assert rows(everything=False) == ["mrr", "user=new mrr"]
    assert rows(everything=True) == ["mrr", "user=known mrr", "user=new mrr"]  # all interactions first


def test_values_of_one_run_only_are_beside_none() -> None:
    found = differences(run(), run(origin=ORIGIN, metrics={"all": {"candidate": {"mrr": [0.5, 0.4, 0.6]}}}))
    assert found.configuration["name"] == (None, "shop") and found.metrics == {"mrr": (None, [0.5, 0.4, 0.6])}


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        (("complete", 10.0), ("complete", 10.9), False),  # less than a second
        (("complete", 100.0), ("complete", 109.0), False),  # less than a tenth of the longer
        (("complete", 10.0), ("complete", 12.0), True),
        (("complete", 1.0), ("cached", 1.0), True),
        (("unfinished", None), ("unfinished", None), False),
    ],
)
def test_a_step_is_shown_if_its_duration_differs(
    one: tuple[str, float | None], other: tuple[str, float | None], told: bool
) -> None:
    first, second = (run(steps=(Step("Trainer", state, "", seconds),)) for state, seconds in (one, other))
    assert ("Trainer" in differences(first, second).steps) is told


def test_intervals_without_a_common_value_are_apart() -> None:
    assert apart([0.5, 0.4, 0.6], [0.7, 0.61, 0.8]) and apart([0.7, 0.61, 0.8], [0.5, 0.4, 0.6])
    assert not apart([0.5, 0.4, 0.6], [0.7, 0.6, 0.8])  # 0.6 is in both
    assert not apart([0.5, None, None], [0.7, 0.6, 0.8]) and not apart(None, [0.7, 0.6, 0.8])
