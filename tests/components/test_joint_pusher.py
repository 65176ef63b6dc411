"""The Pusher's executor: what is blessed goes out whole, with its metrics and TF Serving's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2
from tfx import types
from tfx.types import channel_utils, standard_artifacts

from components import recorded
from components.artifacts import ItemIndex, Retriever
from components.indexer.files import Description, write_description
from components.pusher import labels
from components.pusher.joint import JointExecutor, JointPusher
from components.pusher.versions import PushFolder
from tests.components.pushes import DAY, MODELS, sources

FIRST = 20261124001


class Step:
    """What the step is given, and its executor."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "serving"
        self.label: str | None = None
        made = sources(folder / "made")
        write_description(made["index"].folder, Description("flat", 1, 2, None, None, None, {}))
        model, retriever, index = standard_artifacts.Model(), Retriever(), ItemIndex()
        model.uri, retriever.uri, index.uri = str(folder / "model"), str(folder / "made"), made["index"].folder
        serving = Path(model.uri) / "Format-Serving"  # as the Trainer leaves it
        serving.mkdir(parents=True)
        for tower in ("query_tower", "item_tower"):
            Path(made[tower].folder).rename(serving / tower)
        evaluation = standard_artifacts.ModelEvaluation()
        candidate = {
            "recall_at_50": [0.31, 0.24, 0.38],
            "coverage_at_50": [0.475, None, None],
            "mrr": [float("nan")] * 3,
        }
        found = {
            "all": {"interactions": 3660, "candidate": candidate, "popularity": {"recall_at_50": [0.15, 0.1, 0.2]}}
        }
        evaluation.set_string_custom_property("metrics", json.dumps(found))
        self.blessing, self.infra_blessing = standard_artifacts.ModelBlessing(), standard_artifacts.InfraBlessing()
        for each in (self.blessing, self.infra_blessing):
            each.set_int_custom_property("blessed", 1)
        self.inputs: dict[str, types.Artifact] = {
            "model": model,
            "model_blessing": self.blessing,
            "infra_blessing": self.infra_blessing,
            "retriever": retriever,
            "index": index,
            "evaluation": evaluation,
        }

    def __call__(self) -> dict[str, Any]:
        """Runs it, and gives what it says of the push."""
        channels = {name: channel_utils.as_channel([artifact]) for name, artifact in self.inputs.items()}
        step = JointPusher(destination=str(self.root), day=DAY, label=self.label, **channels)
        pushed = standard_artifacts.PushedModel()
        given = {name: [artifact] for name, artifact in self.inputs.items()}
        JointExecutor().Do(given, {"pushed_model": [pushed]}, dict(step.exec_properties))
        return {name: pushed.get_custom_property(name) for name in ("pushed", "pushed_version", "parts")}


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path)


def test_all_parts_of_a_blessed_model_are_pushed(step: Step) -> None:
    said = step()
    assert (said["pushed"], said["pushed_version"]) == (1, str(FIRST))
    places = {part: f"{step.root}/{part}/{FIRST}" for part in (*MODELS, "index")}
    assert json.loads(said["parts"]) == places
    assert Path(places["retriever"], "saved_model.pb").read_text() == "retriever of made"
    assert sorted(path.name for path in Path(places["index"]).iterdir()) == ["ids.arrow", "index.faiss", "index.json"]
    (manifest,) = PushFolder(str(step.root)).manifests()
    assert manifest.model == f"{step.root.parent}/model/Format-Serving"
    assert manifest.metrics == {"recall_at_50": 0.31, "coverage_at_50": 0.475}
    assert step() == said


@pytest.mark.parametrize("lacking", ["blessing", "infra_blessing"])
def test_nothing_is_pushed_without_every_blessing(step: Step, lacking: str) -> None:
    getattr(step, lacking).set_int_custom_property("blessed", 0)
    assert step()["pushed"] == 0
    assert not step.root.exists()


def test_a_withdrawn_version_is_not_pushed_again(step: Step) -> None:
    step.blessing.set_int_custom_property(recorded.WITHDRAWN, 1)
    assert step()["pushed"] == 0
    assert not step.root.exists()


def test_the_configuration_lists_the_pushed_models(step: Step) -> None:
    step()
    models = text_format.Parse((step.root / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    assert [(each.name, each.base_path) for each in models.model_config_list.config] == [
        (name, f"{step.root}/{name}") for name in MODELS
    ]
    assert {each.model_version_policy.latest.num_versions for each in models.model_config_list.config} == {2}
    assert "max_batch_size { value: " in (step.root / "batching.config").read_text()


def test_every_version_gets_the_label_of_the_settings_and_other_labels_stay(step: Step) -> None:
    step()
    folder = PushFolder(str(step.root))
    labels.assign(folder, "stable", FIRST)
    step.label = "canary"
    said = step()  # what a killed attempt pushed is found, and given the label
    assert said["pushed_version"] == str(FIRST)
    assert labels.read(folder) == {"stable": FIRST, "canary": FIRST}
