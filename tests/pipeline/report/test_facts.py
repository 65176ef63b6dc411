"""What is read of a run's folders, and what stands there where they are gone or hold something else."""

from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2

from pipeline import config
from pipeline.records import Artifact, Edge, Graph
from pipeline.report import facts
from pipeline.report.facts import Distance, Frequencies, Missing
from schemas.errors import UserError
from tests.pipeline.report.made_up import graph

MOVIELENS = Path(config.__file__).parent / "configs" / "movielens.yaml"


def made(kind: str, node: str, folder: Path, state: str = "live") -> Graph:
    """A run that made one thing."""
    artifact = Artifact(1, kind, str(folder), state, "r", node, "")
    return Graph({1: artifact}, {1: replace(graph("r").executions[1], node=node)}, (Edge(1, 1, "output", "it"),))


def test_losses_are_those_of_the_epochs(tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_text("epoch,loss\n0,3.5\n1,2.25\n")
    assert facts.read_losses(made("ModelRun", "Trainer", tmp_path)) == [3.5, 2.25]


def test_frequencies_are_the_trainers(tmp_path: Path) -> None:
    run = made("ModelRun", "Trainer", tmp_path)
    with pytest.raises(UserError, match="stored no frequencies"):
        facts.read_frequencies(run)
    pd.DataFrame({"counted": [1.0, 2.0], "estimated": [0.5, 2.5]}).to_parquet(tmp_path / "frequencies.parquet")
    assert facts.read_frequencies(run) == Frequencies([1.0, 2.0], [0.5, 2.5])


def test_drift_is_that_of_the_training_split(tmp_path: Path) -> None:
    run = made("ExampleAnomalies", "InteractionDrift", tmp_path)
    with pytest.raises(UserError, match="no day before"):
        facts.read_drift(run)
    anomalies = anomalies_pb2.Anomalies()
    measured = anomalies.drift_skew_info.add()
    measured.path.step.append("price")
    measured.drift_measurements.add(value=0.25, threshold=0.5)
    (tmp_path / "SplitPair-train_train").mkdir()
    (tmp_path / "SplitPair-train_train" / "SchemaDiff.pb").write_bytes(anomalies.SerializeToString())
    assert facts.read_drift(run) == {"price": Distance(0.25, 0.5)}
    with pytest.raises(UserError, match="made no ExampleAnomalies"):  # those of the schema are not of the drift
        facts.read_drift(made("ExampleAnomalies", "InteractionValidator", tmp_path))


def test_removed_and_never_made_artifacts_are_distinguished(tmp_path: Path) -> None:
    assert facts.place(made("Model", "Trainer", tmp_path), "Model") == tmp_path
    for gone in (made("Model", "Trainer", tmp_path / "gone"), made("Model", "Trainer", tmp_path, "deleted")):
        with pytest.raises(UserError, match="was removed"):
            facts.place(gone, "Model")
    with pytest.raises(UserError, match="The run made no ItemIndex"):
        facts.place(graph("r"), "ItemIndex")
    with pytest.raises(UserError, match="The run made no Model"):  # it used one
        facts.place(replace(made("Model", "Trainer", tmp_path), edges=(Edge(1, 1, "input", "it"),)), "Model")


@pytest.mark.parametrize("content", ["", "epoch,loss\n0,many\n", "what\n1\n", "\x00\x01", "PAR1"])
def test_a_file_that_holds_something_else_is_named_in_a_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "loss.csv").write_text(content)
    (tmp_path / "frequencies.parquet").write_text(content)
    run = made("ModelRun", "Trainer", tmp_path)
    for what, read in (("The loss", facts.read_losses), ("The frequencies", facts.read_frequencies)):
        found = facts.or_missing(what, partial(read, run))
        assert isinstance(found, Missing) and found.why.startswith(f"{what} cannot be read: ")


def test_without_runs_there_is_nothing_to_report(tmp_path: Path) -> None:
    settings = config.load(MOVIELENS, [f"root={tmp_path}"])
    with pytest.raises(UserError, match=r"no run of 2026-11-01 to the last day to report on; it knows none"):
        facts.gather(settings, date(2026, 11, 1), None)
    assert not list(tmp_path.iterdir())  # looking makes no store
