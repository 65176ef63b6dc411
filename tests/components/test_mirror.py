"""A mirror has what servers serve of a push folder: complete versions, with their labels."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from components.pusher import files, labels, mirror, tf_serving
from components.pusher.mirror import Mirrored
from components.pusher.versions import PushFolder
from ndr_client.manifests import Manifests
from pipeline.versions import mirroring
from schemas.errors import UserError
from tests.components.pushes import DAY, PARTS, push

DAYS = [DAY + timedelta(days=number) for number in range(4)]
FIRST, SECOND, THIRD, FOURTH = (int(f"{day:%Y%m%d}001") for day in DAYS)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[PushFolder, PushFolder]:
    return PushFolder(str(tmp_path / "pushed")), PushFolder(str(tmp_path / "mirror"))


def pushed(folder: PushFolder, tmp_path: Path, *numbers: int) -> None:
    for number in numbers:
        labels.configure(folder)
        push(folder.root, tmp_path / f"model{number}", DAYS[number])


def config(folder: PushFolder) -> str:
    return (Path(folder.root) / tf_serving.MODEL_CONFIG).read_text()


def test_the_newest_and_the_labelled_are_mirrored(folders: tuple[PushFolder, PushFolder], tmp_path: Path) -> None:
    source, target = folders
    pushed(source, tmp_path, 0, 1, 2)
    labels.assign(source, "stable", FIRST)
    assert mirror.mirror(source, target) == Mirrored([FIRST, SECOND, THIRD], [], {"stable": FIRST})
    assert target.manifests() == source.manifests()
    assert [target.verify(version) for version in (FIRST, SECOND, THIRD)] == [[], [], []]
    assert f'base_path: "{target.root}/retriever"' in config(target) and source.root not in config(target)
    assert labels.read(target) == {"stable": FIRST}
    assert mirror.mirror(source, target) == Mirrored()


def test_versions_that_are_no_longer_served_go(folders: tuple[PushFolder, PushFolder], tmp_path: Path) -> None:
    source, target = folders
    pushed(source, tmp_path, 0, 1)
    labels.assign(source, "stable", FIRST)
    mirror.mirror(source, target)
    pushed(source, tmp_path, 2, 3)
    # TF Serving keeps the versions from the newest to a labelled one: the first is now the fourth, and one more is on its way.
    assert mirror.mirror(source, target) == Mirrored([THIRD, FOURTH], [SECOND])
    assert [each.version for each in target.manifests()] == [FIRST, THIRD, FOURTH]
    labels.remove(source, "stable")
    assert mirror.mirror(source, target) == Mirrored([], [FIRST], {})
    assert not (Path(target.root) / "retriever" / str(FIRST)).exists()


def test_a_rollback_is_mirrored_as_the_version_that_it_is(
    folders: tuple[PushFolder, PushFolder], tmp_path: Path
) -> None:
    source, target = folders
    pushed(source, tmp_path, 0, 1)
    mirror.mirror(source, target)
    restored = source.restore(source.manifests()[0])
    assert mirror.mirror(source, target) == Mirrored([restored.version], [FIRST])
    assert target.manifests()[-1] == restored
    assert f'base_path: "{target.root}/retriever"' in config(target)  # without any label too


def test_an_altered_file_is_not_mirrored(folders: tuple[PushFolder, PushFolder], tmp_path: Path) -> None:
    source, target = folders
    pushed(source, tmp_path, 0)
    mirror.mirror(source, target)
    pushed(source, tmp_path, 1)
    (Path(source.root) / "retriever" / str(SECOND) / "saved_model.pb").write_text("retriever of modelX")
    with pytest.raises(
        UserError, match=r"retriever/20261125001: expected what was pushed, but saved_model.pb holds some"
    ):
        mirror.mirror(source, target)
    assert [each.version for each in target.manifests()] == [FIRST]
    assert {path.name for path in (Path(target.root) / "retriever").iterdir()} == {str(FIRST)}


def test_a_source_without_a_version_leaves_what_is_there(
    folders: tuple[PushFolder, PushFolder], tmp_path: Path
) -> None:
    source, target = folders
    pushed(source, tmp_path, 0)
    mirror.mirror(source, target)
    shutil.rmtree(source.root)
    with pytest.raises(UserError, match="expected a pushed version, found none"):
        mirror.mirror(source, target)
    assert [each.version for each in target.manifests()] == [FIRST]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("step", ["copy", "move"])
@pytest.mark.parametrize("calls", range(1, 5))
def test_a_mirror_that_was_killed_goes_on(
    folders: tuple[PushFolder, PushFolder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, calls: int
) -> None:
    """At any part's copy or move: no server sees a version, and the next pass has all of it."""
    source, target = folders
    pushed(source, tmp_path, 0)
    done, left = getattr(files, step), [calls]

    def stops(part: Any, place: str) -> Any:
        left[0] -= 1
        if not left[0]:
            raise StoppedError
        return done(part, place)

    with monkeypatch.context() as patch:
        patch.setattr(files, step, stops)
        with pytest.raises(StoppedError):
            mirror.mirror(source, target)
    assert Manifests(Path(target.root)).read() == []
    if step == "copy":
        assert not any((Path(target.root) / part).exists() for part in PARTS)
    mirror.mirror(source, target)
    assert target.verify(FIRST) == [] and Manifests(Path(target.root)).read()[0].version == FIRST


@pytest.mark.parametrize("target", ["s3://bucket/mirror", "{source}", "{source}/../pushed"])
def test_a_target_that_is_none_is_refused(target: str, tmp_path: Path) -> None:
    source = str(tmp_path / "pushed")
    with pytest.raises(UserError, match="expected another folder than the source"):
        mirroring.mirror(source, target.format(source=source), None, print)
