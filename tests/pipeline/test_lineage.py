"""Lineage over three days' work, small enough to be seen at a glance.

day 1, run 1    Interactions -> examples -> Trainer -> model -> RetrievalEvaluator -> blessing
day 2, run 2    the same, and its Trainer continues from the model of day 1
day 2, run 3    examples from the cache, a model of its own
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from pytest import MonkeyPatch

from pipeline.records import Artifact, Edge, Graph, Lineage, Records, connection, executions
from schemas.errors import UserError
from tests.work import Day, Work

FIRST, SECOND = "2026-11-23", "2026-11-24"


@dataclass(frozen=True)
class Days:
    work: Work
    first: Day
    second: Day
    again: mlmd.Context
    again_model: mlmd.Artifact

    @property
    def lineage(self) -> Lineage:
        return Lineage(connection(self.work.places))

    @property
    def records(self) -> Records:
        return Records(connection(self.work.places))


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    work = Work(tmp_path_factory.mktemp("lineage"))
    first = work.day(FIRST, blessed=True)
    run = work.run(SECOND)
    work.resolved(run, "WarmStart", [first.model])
    examples = work.step(run, "Interactions", "examples", "Examples")
    model = work.step(run, "Trainer", "model", "Model", [examples, first.model])
    blessing = work.step(run, "RetrievalEvaluator", "blessing", "ModelBlessing", [model])
    again = work.run(SECOND)
    work.cached(again, "Interactions", examples)
    again_model = work.step(again, "Trainer", "model", "Model", [examples])
    return Days(work, first, Day(run, examples, model, blessing), again, again_model)


def steps(graph: Graph) -> set[tuple[str, str]]:
    """Node and run of each execution; the run's number is its last digit."""
    return {(each.node, each.run[-1]) for each in graph.executions.values()}


def test_a_runs_graph_has_its_steps_and_artifacts_used_of_others(days: Days) -> None:
    graph = days.lineage.of_run(days.second.run.name)
    assert [(each.node, each.state) for each in graph.executions.values()] == [
        ("WarmStart", "complete"), ("Interactions", "complete"), ("Trainer", "complete"), ("RetrievalEvaluator", "complete"),
    ]  # fmt: skip
    assert set(graph.artifacts) == days.second.ids | {days.first.model.id}
    resolver, interactions, trainer, evaluator = graph.executions
    # What a resolver found did not come from it.
    assert set(graph.edges) == {
        Edge(days.second.examples.id, interactions, "output", "key"),
        Edge(days.second.examples.id, trainer, "input", "key"),
        Edge(days.first.model.id, trainer, "input", "key"),
        Edge(days.second.model.id, trainer, "output", "key"),
        Edge(days.second.model.id, evaluator, "input", "key"),
        Edge(days.second.blessing.id, evaluator, "output", "key"),
    }
    assert graph.inputs(resolver) == graph.outputs(resolver) == []
    base = graph.artifacts[days.first.model.id]
    assert (base.type, base.node, base.run, base.state) == ("Model", "Trainer", days.first.run.name, "live")
    assert base.uri == days.first.model.uri and base.properties["span"] == 20780  # days from 1970-01-01 to 2026-11-23
    assert graph.makers(base.id) == [] and [edge.execution for edge in graph.users(base.id)] == [trainer]


def test_cached_artifacts_were_made_by_the_original_run(days: Days) -> None:
    graph = days.lineage.of_run(days.again.name)
    assert [(each.node, each.state) for each in graph.executions.values()] == [
        ("Interactions", "cached"), ("Trainer", "complete"),
    ]  # fmt: skip
    cached = next(iter(graph.executions))
    assert [edge.artifact for edge in graph.outputs(cached)] == [days.second.examples.id]
    assert graph.artifacts[days.second.examples.id].run == days.second.run.name


def test_a_lineage_keeps_to_its_day(days: Days) -> None:
    graph = days.lineage.of_artifact(days.second.model.id)
    assert steps(graph) == {("Interactions", "1"), ("Trainer", "1"), ("RetrievalEvaluator", "1")}
    assert set(graph.artifacts) == days.second.ids | {days.first.model.id}
    assert graph.makers(days.first.model.id) == []  # that it is of another day is told, who made it is not followed

    graph = days.lineage.of_artifact(days.first.model.id)
    assert steps(graph) == {("Interactions", "0"), ("Trainer", "0"), ("RetrievalEvaluator", "0"), ("Trainer", "1")}
    assert set(graph.artifacts) == days.first.ids  # of the later day only that it went on from the model
    [_, later] = [edge.execution for edge in graph.users(days.first.model.id)]
    assert graph.executions[later].run == days.second.run.name
    assert graph.outputs(later) == [] and [edge.artifact for edge in graph.inputs(later)] == [days.first.model.id]


def test_all_runs_of_the_day_are_followed(days: Days) -> None:
    graph = days.lineage.of_artifact(days.second.examples.id)
    # Run 2 has made the examples: that they were served from the cache to run 3 is no origin of theirs.
    assert steps(graph) == {("Interactions", "1"), ("Trainer", "1"), ("RetrievalEvaluator", "1"), ("Trainer", "2")}
    assert set(graph.artifacts) == days.second.ids | {days.first.model.id, days.again_model.id}


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (0, set()),
        (1, {("Interactions", "0"), ("Trainer", "0")}),
        # Down: examples, Trainer, model of day 1, and what used that: the Evaluator, and the Trainer of day 2.
        (2, {("Interactions", "0"), ("Trainer", "0"), ("RetrievalEvaluator", "0"), ("Trainer", "1")}),
        (3, {("Interactions", "0"), ("Trainer", "0"), ("RetrievalEvaluator", "0"), ("Trainer", "1"), ("RetrievalEvaluator", "1")}),
    ],
)  # fmt: skip
def test_a_depth_counts_steps_across_days(days: Days, depth: int, expected: set[tuple[str, str]]) -> None:
    assert steps(days.lineage.of_artifact(days.first.examples.id, depth)) == expected


def test_reading_many_at_once_equals_one_by_one(days: Days, monkeypatch: MonkeyPatch) -> None:
    def read() -> list[Any]:
        graphs = [days.lineage.of_run(each) for each in days.records.run_ids()]
        return [*graphs, days.lineage.artifacts(), days.records.runs(), days.records.runs(last=1)]

    one_by_one = read()
    monkeypatch.setattr(executions, "FEW", 0)
    assert read() == one_by_one
    # A node's newest executions alone: the oldest run's lie behind them, and have to be found all the same.
    monkeypatch.setattr(executions, "A_PAGE", 1)
    assert read() == one_by_one


def test_artifacts_are_listed_by_type_and_the_newest_only(days: Days) -> None:
    def ids(found: list[Artifact]) -> list[int]:
        return [each.id for each in found]

    models = [days.first.model.id, days.second.model.id, days.again_model.id]
    assert ids(days.lineage.artifacts("Model")) == models
    assert ids(days.lineage.artifacts("Model", last=2)) == models[1:]
    assert ids(days.lineage.artifacts()) == sorted(days.first.ids | days.second.ids | {days.again_model.id})
    with pytest.raises(
        UserError, match=r"expected a type of artifacts \(Examples, Model, ModelBlessing\), received 'Modle'"
    ):
        days.lineage.artifacts("Modle")


def test_the_newest_runs_only(days: Days) -> None:
    everything = days.records.runs()
    assert [run.run for run in everything] == [days.first.run.name, days.second.run.name, days.again.name]
    assert days.records.runs(last=2) == everything[1:] and days.records.runs(last=9) == everything
    assert days.records.run_ids() == [run.run for run in everything]


def test_missing_runs_and_artifacts_are_named(days: Days) -> None:
    with pytest.raises(UserError, match="no run 2026"):
        days.lineage.of_run("2026")
    with pytest.raises(UserError, match="no artifact 99"):
        days.lineage.of_artifact(99)


def test_artifacts_removed_by_retention_are_deleted(tmp_path: Path) -> None:
    work = Work(tmp_path)
    gone, kept = work.day(FIRST), work.day(SECOND)
    work.collect(days=1)
    found = {each.id: each.state for each in Lineage(connection(work.places)).artifacts()}
    assert found == {**dict.fromkeys(gone.ids, "deleted"), **dict.fromkeys(kept.ids, "live")}


@pytest.mark.parametrize(
    ("state", "seconds"),
    [("COMPLETE", 1.5), ("FAILED", 1.5), ("CANCELED", 1.5), ("CACHED", 1.5), ("RUNNING", None), ("NEW", None)],
)
def test_unfinished_steps_have_no_duration(state: str, seconds: float | None) -> None:
    execution = mlmd.Execution(
        last_known_state=mlmd.Execution.State.Value(state),
        create_time_since_epoch=1_000_000,
        last_update_time_since_epoch=1_001_500,
    )
    assert executions.seconds(execution) == seconds
    assert executions.instant(1_001_500) == "1970-01-01T00:16:41.500+00:00"  # 1,001.5 s are 16 min and 41.5 s
