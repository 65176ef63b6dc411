"""What a refresh works on, whether there is anything to do, and its steps; whole ones are in end_to_end/test_faults.py."""

import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration.local import runner_utils

from components import recorded
from pipeline import config as configuration
from pipeline import origin
from pipeline.records import PASSED_OVER, REFRESH, UNCHANGED, Given, Records, Run, connection
from pipeline.refresh import refreshing
from pipeline.refresh import run as refresh_run
from pipeline.refresh.refreshing import COMPARISON, TOWERS, Base
from schemas.errors import UserError
from tests.work import Work

SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
PLAIN = SHOP.parents[1] / "plain_shop"
DAY, TODAY = "2026-11-23", date(2026, 11, 24)
VERSION = 20261123001
NO_CHANGE = {"items": 9, "before": 9, "new": 0, "changed": 0, "gone": 0, "others": 0}


class Shop:
    """A shop whose day was run and pushed, but for the training, and the catalogue of the day after it."""

    def __init__(self, root: Path) -> None:
        self.root, self.work = root, Work(root)
        self.day = self.work.day(DAY, blessed=True)
        for node, kind in (("Transform", "TransformGraph"), ("Evaluator", "ModelEvaluation"), ("Indexer", "ItemIndex")):
            self.work.step(self.day.run, node, "made", kind)
        for kind in ("interactions", "catalogue"):
            self.work.step(self.day.run, kind, "examples", "Examples", rows=json.dumps({"kind": kind}))
        self.work.push(self.day)
        self.records = Records(connection(self.config()))
        self.records.note_origin(self.day.run.name, origin.of(self.config()))
        self.write_catalogue(1)

    def config(self, *settings: str) -> configuration.Config:
        return configuration.load(SHOP, [f"root={self.root}", *settings])

    def write_catalogue(self, time: int) -> None:
        path = self.root / "data" / "items" / f"{TODAY}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("sku\n")
        os.utime(path, (time, time))

    def check(self, *settings: str) -> None:
        """Whether the live version can be refreshed."""
        refreshing.check(self.config(*settings), refreshing.base_numbered(self.config(), VERSION), self.records)

    def given(self, *settings: str) -> tuple[Given, Run | None]:
        return refreshing.given(self.config(*settings), TODAY, self.records)

    def begin(self) -> mlmd.Context:
        """A refresh that has begun."""
        return self._noted(self.work.run(str(TODAY), "shop.refresh", REFRESH).name, self.given()[0])

    def push(self) -> tuple[int, mlmd.Context]:
        """A refresh that was killed behind its push."""
        now, _ = self.given()
        version, _ = self.work.refresh(self.day, str(TODAY))
        return version, self._noted(self.records.run_ids("shop.refresh")[-1], now)

    def end(self, run: mlmd.Context, version: int) -> None:
        self.work.step(run, "Pusher", "pushed_model", "PushedModel", pushed=1, pushed_version=str(version), parts="{}")

    def run(self, name: str) -> mlmd.Context:
        """A run as it is recorded, for the steps that follow."""
        return self.work.store.get_context_by_type_and_name("pipeline_run", name)

    def _noted(self, name: str, now: Given) -> mlmd.Context:
        self.records.note_given(name, now)
        return self.run(name)

    def words(self, run: Run | None) -> str:
        assert run
        return refreshing.nothing_to_do(self.config(), run)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "root")


def test_without_a_version_or_a_catalogue_of_files_there_is_nothing_to_refresh(tmp_path: Path) -> None:
    config = configuration.load(SHOP, [f"root={tmp_path}"])
    records = Records(connection(config))
    with pytest.raises(UserError, match=r"Nothing was pushed to .* yet"):
        refreshing.given(config, TODAY, records)
    of_log = config.model_copy(update={"data": config.data.model_copy(update={"catalogue": "from_log"})})
    with pytest.raises(UserError, match="there is no newer catalogue to refresh from"):
        refreshing.given(of_log, TODAY, records)


def test_a_refresh_is_of_the_live_version_and_done_once(shop: Shop) -> None:
    now, before = shop.given()
    assert (now.refreshes, now.base_day, before) == (VERSION, DAY, None)
    version, run = shop.push()
    # Killed before it was recorded: it is begun again on the version that it worked on, and finds its push.
    assert shop.given() == (now, None)
    shop.end(run, version)
    _, before = shop.given()
    assert before and before.run == run.name
    assert shop.words(before) == f"Version {version} has this catalogue: nothing to do."
    # How much may change is no input; a setting, the catalogue and the model are.
    assert shop.given("refresh.most_changed=0.5")[1] == before
    now, before = shop.given("indexer.k_limit=200")
    assert (now.refreshes, before) == (version, None)
    shop.write_catalogue(2)
    assert shop.given()[1] is None
    shop.write_catalogue(1)
    assert shop.given()[1]
    shop.day = shop.work.day(DAY, blessed=True)
    pushed = shop.work.push(shop.day)
    with pytest.raises(UserError, match=f"What version {pushed} was made from is gone"):  # this day lacks an index
        shop.given()


def test_a_refresh_that_was_rolled_back_is_not_done_again(shop: Shop) -> None:
    version, run = shop.push()
    shop.end(run, version)
    shop.write_catalogue(2)
    shop.begin()  # and killed before its push
    restored = shop.work.roll_back().live.version
    now, before = shop.given()
    assert (now.refreshes, before) == (restored, None)
    shop.write_catalogue(1)
    said = shop.words(shop.given()[1])
    assert said.startswith(f"Version {version} has this catalogue, and was rolled back")
    assert said.endswith(f"ndr push --rollback --to {version}")


def test_a_catalogue_without_a_change_is_passed_over(shop: Shop) -> None:
    run = shop.begin()
    shop.work.step(run, COMPARISON, "changes", "CatalogueChanges", **{recorded.CHANGES: json.dumps(NO_CHANGE)})
    assert not refreshing.note_if_unchanged("Indexer", run.name, shop.records)
    assert refreshing.note_if_unchanged(COMPARISON, run.name, shop.records)
    read = shop.records.run(run.name)
    assert (read.state, read.passed_over_for) == (PASSED_OVER, UNCHANGED)
    assert shop.given()[1] == read
    assert shop.words(read) == f"Version {VERSION} has this catalogue: nothing to do."
    assert not refreshing.is_unchanged(replace(read, changes={}))  # it has not been compared
    for kind in ("new", "changed", "gone", "others"):
        assert not refreshing.is_unchanged(replace(read, changes={**NO_CHANGE, kind: 1}))


def test_a_refresh_that_was_not_servable_is_not_tried_again(shop: Shop) -> None:
    run = shop.begin()
    shop.work.step(run, "InfraValidator", "blessing", "InfraBlessing", refused='["it answers otherwise"]')
    shop.work.step(run, "Pusher", "pushed_model", "PushedModel", pushed=0)
    said = f"The same was tried by run {run.name}, and was not pushed: it answers otherwise. Nothing to do."
    assert shop.words(shop.given()[1]) == said


def test_a_model_that_was_trained_otherwise_is_refused(shop: Shop) -> None:
    changed = {
        "towers": "{query: [8], item: [8]}",
        "optimizer": "adam",
        "softmax": "{learn_temperature: false}",
        "frequency": "{buckets: 64}",
        "seed": "1",
        "mixed_precision": "true",
    }
    assert changed.keys() == set(TOWERS)
    for name, value in changed.items():
        with pytest.raises(UserError, match=rf"Version {VERSION} was trained with other trainer\.{name}: its towers"):
            shop.check(f"trainer.{name}={value}")
    with pytest.raises(UserError, match=rf"was trained with other {PLAIN}/features\.yaml: its towers"):
        shop.check(f"dataset={PLAIN}")
    shop.check("trainer.epochs=99", "trainer.learning_rate=0.5")  # of which the towers show nothing


def test_what_was_recorded_before_a_key_existed_is_no_difference(shop: Shop) -> None:
    """Regression: a key of a history that came later, with its default, was a change that nobody had made."""
    trained = shop.records.run(shop.records.run_ids("shop")[-1])
    assert trained.origin
    recorded = json.loads(json.dumps(trained.origin.configuration))
    histories = [f for f in recorded["features"]["query"].values() if f["kind"] == "history"]
    for history in histories:
        del history["negatives"]
    del recorded["trainer"]["softmax"]["top_share"]
    before = replace(trained, origin=replace(trained.origin, configuration=recorded))
    assert histories and list(refreshing._differences(shop.config(), before)) == []
    recorded["features"] = None
    assert len(list(refreshing._differences(shop.config(), before))) == 1


def test_what_a_version_was_made_from_is_looked_for_before_anything_begins(shop: Shop) -> None:
    made = [shop.root / "pipeline_root" / name for name in (
        "Trainer/model", "Transform/made", "Evaluator/made", "RetrievalEvaluator/blessing", "Indexer/made",
        "interactions/examples", "catalogue/examples",
    )]  # fmt: skip
    for folder in made:
        aside = folder.rename(shop.root / "aside")
        with pytest.raises(
            UserError, match=rf"What version {VERSION} was made from is gone: .* Run its day, {DAY}, again"
        ):
            shop.check()
        aside.rename(folder)
    shop.check()


def test_a_version_that_is_gone_is_named(shop: Shop) -> None:
    with pytest.raises(UserError, match=rf"received 7\. There are: {VERSION}"):
        refreshing.base_numbered(shop.config(), 7)


def test_a_refresh_begins_once_and_its_input_and_origin_are_recorded(shop: Shop) -> None:
    config, records = shop.config(), shop.records
    name = f"{TODAY}.{REFRESH}1"
    with pytest.raises(UserError, match="expected a runner that Beam has here"):
        refresh_run.begin(shop.config("beam.options=[--runner=Sparkle]"), TODAY, name, records)
    _, before = refresh_run.begin(config, TODAY, name, records)
    run = records.run(name)
    assert (before, run.given, run.origin) == (None, shop.given()[0], origin.of(config))
    assert records.run_ids("shop.refresh") == [name]
    shop.end(shop.run(name), VERSION + 1)
    _, before = refresh_run.begin(config, TODAY, f"{TODAY}.{REFRESH}2", records)
    assert before == records.run(name) and records.run_ids("shop.refresh") == [name]


def test_a_refresh_in_a_root_that_was_moved_is_refused(shop: Shop) -> None:
    moved = shop.root.rename(shop.root.with_name("moved"))
    config = configuration.load(SHOP, [f"root={moved}"])
    with pytest.raises(UserError, match=f"The root was {shop.root} in run"):
        refresh_run.begin(config, TODAY, f"{TODAY}.{REFRESH}1", Records(connection(config)))


def test_the_steps_of_a_refresh_stop_before_anything_is_embedded_and_run_where_the_days_do(shop: Shop) -> None:
    settings = ("beam={steps: {Indexer: {workers: 3}}}", "evaluator.minimum_index_recall=0.75")
    base = Base(VERSION, date.fromisoformat(DAY), "its run", "of the day", is_refreshed=True)
    compiled = refresh_run.compile_pipeline(shop.config(*settings), base, TODAY)
    nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in compiled.nodes}
    assert "CatalogueValidator" in nodes[COMPARISON].upstream_nodes
    for node in ("QueryTowerExport", "Indexer"):
        assert COMPARISON in nodes[node].upstream_nodes
    assert "Indexer" in nodes["InfraValidator"].upstream_nodes
    assert {"Indexer", "InfraValidator"} <= set(nodes["Pusher"].upstream_nodes)
    # The catalogue and the index are the refreshed version's, the model that of its day.
    of_runs = {
        (COMPARISON, "base_catalogue"): ('"shop.refresh"', '"its run"'),
        ("Indexer", "base_index"): ('"shop.refresh"', '"its run"'),
        **{
            (node, "model"): ('"shop"', '"of the day"')
            for node in ("QueryTowerExport", "Indexer", "InfraValidator", "Pusher")
        },
    }
    for (node, key), names in of_runs.items():
        asked = str(nodes[node].inputs.inputs[key])
        assert all(name in asked for name in names), (node, key, asked)
    given = runner_utils.extract_local_deployment_config(compiled).executor_specs["Indexer"].beam_executable_spec
    assert "--direct_num_workers=3" in given.beam_pipeline_args
    parameters = {name: node.parameters.parameters for name, node in nodes.items()}
    pushed = json.loads(parameters["Pusher"]["custom_config"].field_value.string_value)
    assert pushed == {"day": DAY, "label": None, "refreshes": VERSION}
    assert parameters["InfraValidator"]["least_recall"].field_value.double_value == 0.75
    plain = refresh_run.compile_pipeline(shop.config(f"dataset={PLAIN}"), replace(base, is_refreshed=False), TODAY)
    assert "QueryTowerExport" not in {node.pipeline_node.node_info.id for node in plain.nodes}
