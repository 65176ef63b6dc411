"""Labels of versions: what TF Serving's configuration has of them, read back by TF Serving's own proto."""

from datetime import date
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from components.pusher import labels
from components.pusher.versions import PushFolder
from schemas.errors import UserError
from tests.components.pushes import push


@pytest.fixture
def folder(tmp_path: Path) -> PushFolder:
    folder = PushFolder(str(tmp_path / "serving"))
    labels.configure(folder)
    return folder


def days(folder: PushFolder, *numbers: int) -> list[int]:
    """Pushes a version a day of November, as the Pusher does; gives their numbers."""
    pushed = []
    for number in numbers:
        labels.configure(folder)
        model = Path(folder.root).parent / f"model {number}"
        pushed.append(push(folder.root, model, date(2026, 11, number)).version)
    return pushed


def served(folder: PushFolder) -> tuple[dict[str, int], int]:
    """What TF Serving reads, the same for each model: its labels, and the number of newest versions that it serves."""
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((Path(folder.root) / "models.config").read_text(), config)
    found = [
        (dict(model.version_labels), model.model_version_policy.latest.num_versions)
        for model in config.model_config_list.config
    ]
    assert len(found) == 3 and found.count(found[0]) == 3
    return found[0]


def test_a_label_moves_and_is_removed(folder: PushFolder) -> None:
    first, second = days(folder, 1, 2)
    assert labels.assign(folder, "stable", first) == {"stable": first}
    assert labels.assign(folder, "canary", second) == {"stable": first, "canary": second}
    assert labels.resolve(folder, "canary") == second
    assert labels.assign(folder, "stable", second) == labels.read(folder) == {"stable": second, "canary": second}
    assert labels.remove(folder, "canary") == {"stable": second}
    assert labels.remove(folder, "stable") == {}
    assert served(folder) == ({}, 2)


def test_a_labelled_version_is_among_those_that_tf_serving_keeps_also_after_the_next_push(folder: PushFolder) -> None:
    first, *_ = days(folder, 1, 2, 3)
    labels.assign(folder, "stable", first)
    # 3, 2, 1 and then 4 before them: four.
    assert served(folder) == ({"stable": first}, 4)
    (fourth,) = days(folder, 4)
    assert served(folder) == ({"stable": first}, 4)
    days(folder, 5)  # before which it is written that five are kept
    assert served(folder) == ({"stable": first}, 5)
    labels.assign(folder, "stable", fourth)
    assert served(folder) == ({"stable": fourth}, 3)


def test_paths_of_a_servers_own_view_are_kept(folder: PushFolder) -> None:
    (version,) = days(folder, 1)
    path = Path(folder.root) / "models.config"
    path.write_text(path.read_text().replace(folder.root, "/mounted"))
    labels.assign(folder, "stable", version)
    assert path.read_text().count('base_path: "/mounted/') == 3


def test_labels_of_versions_that_are_gone_are_removed(folder: PushFolder) -> None:
    first, second = days(folder, 1, 2)
    labels.assign(folder, "stable", first)
    labels.assign(folder, "canary", second)
    (Path(folder.root) / "manifests" / f"{first}.json").unlink()
    labels.configure(folder)
    assert served(folder) == ({"canary": second}, 2)


def test_retention_keeps_labelled_versions(folder: PushFolder) -> None:
    first, second, third = days(folder, 1, 2, 3)
    labels.assign(folder, "stable", first)
    assert folder.retain(1, labels.read(folder).values()) == [second]
    assert [manifest.version for manifest in folder.manifests()] == [first, third]


def test_a_refresh_has_the_labels_of_what_it_refreshes_and_no_others(folder: PushFolder) -> None:
    first, second, third = days(folder, 1, 2, 3)
    for label, version in (("stable", first), ("canary", second), ("newest", second)):
        labels.assign(folder, label, version)
    labels.move_from(folder, second, third)
    assert labels.read(folder) == {"stable": first, "canary": third, "newest": third}
    labels.move_from(folder, second, first)
    assert labels.read(folder) == {"stable": first, "canary": third, "newest": third}


def test_a_rollback_moves_the_labels_of_withdrawn_versions(folder: PushFolder) -> None:
    first, second, third = days(folder, 1, 2, 3)
    for label, version in (("old", first), ("stable", second), ("canary", third)):
        labels.assign(folder, label, version)
    known = folder.manifests()
    labels.move(folder, {third}, second)
    assert labels.read(folder) == {"old": first, "stable": second, "canary": second}
    restored = folder.restore(known[1]).version
    assert labels.assign(folder, "stable", restored)["stable"] == restored
    # Back once more: a label of the content that the restored version has a copy of moves too.
    labels.move(folder, {second}, first)
    assert labels.read(folder) == {"old": first, "stable": first, "canary": first}


@pytest.mark.parametrize("name", ["", "1", "a b", "a/b", "ü", "a" * 64, 'a"}'])
def test_a_name_that_no_address_can_have_is_refused(folder: PushFolder, name: str) -> None:
    (version,) = days(folder, 1)
    with pytest.raises(UserError, match="Expected a label of a letter"):
        labels.assign(folder, name, version)
    assert labels.read(folder) == {}


def test_a_version_that_cannot_serve_gets_no_label(folder: PushFolder) -> None:
    first, second = days(folder, 1, 2)
    with pytest.raises(UserError, match=r"received 7\. There are"):
        labels.assign(folder, "stable", 7)
    folder.restore(folder.manifests()[0])
    with pytest.raises(UserError, match=f"not rolled back, received {second}"):
        labels.assign(folder, "stable", second)
    (Path(folder.root) / "index" / str(first) / "ids.arrow").write_text("torn")
    with pytest.raises(UserError, match=f"version {first} as it was pushed, but index/{first}/ids.arrow has 4 bytes"):
        labels.assign(folder, "stable", first)
    with pytest.raises(UserError, match=r"received 'canary'\. There are: none"):
        labels.remove(folder, "canary")
    assert labels.read(folder) == {}


def test_a_configuration_that_is_not_tf_servings_is_named(folder: PushFolder) -> None:
    (Path(folder.root) / "models.config").write_text("model_config_list { ")
    with pytest.raises(UserError, match=r"models.config: expected TF Serving's ModelServerConfig"):
        labels.read(folder)
