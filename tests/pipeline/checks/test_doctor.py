"""What `ndr doctor` finds on machines that lack something."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tfx.dsl.io import fileio
from typer.testing import CliRunner

from pipeline import config as configuration
from pipeline.checks import doctor, rights
from pipeline.cli import app
from pipeline.records import Records, connection
from schemas.errors import Status, UserError

SHOP = Path(__file__).parents[2] / "end_to_end" / "shop" / "shop.yaml"
Examine = Callable[..., dict[str, doctor.Finding]]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """Makes the checks with settings over those of a root of its own; by check, what was found."""

    def made(*settings: str) -> dict[str, doctor.Finding]:
        config = configuration.load(SHOP, [f"root={tmp_path}", *settings])
        return {finding.check: finding for finding in doctor.examine(config)}

    return made


def statuses(found: dict[str, doctor.Finding]) -> dict[str, Status]:
    return {name: finding.status for name, finding in found.items() if finding.status != Status.DONE}


def test_this_machine_passes_and_nothing_is_left_behind(examine: Examine, tmp_path: Path) -> None:
    found = examine()
    assert list(found) == [
        "Python", "C library", "packages", "root", "root's disk", "files", "push folder", "push folder's disk", "metadata",
        "memory", "Keras", "devices", "serving",
    ]  # fmt: skip
    assert statuses(found) == {} and doctor.verdict(list(found.values())) == Status.DONE
    assert all(bool(finding.advice) == (finding.state != "ok") for finding in found.values())
    assert "tf_keras 2." in found["Keras"].found and "tensorflow 2." in found["packages"].found
    assert found["push folder"].found.endswith("made by the first run") and found["metadata"].found.endswith(
        "first run"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_metadata_file_that_is_there_is_opened(examine: Examine, tmp_path: Path) -> None:
    Records(connection(configuration.load(SHOP, [f"root={tmp_path}"])))
    assert "metadata.sqlite: of ml-metadata" in examine()["metadata"].found
    (tmp_path / "metadata.sqlite").write_text("something else")
    found = examine()
    assert statuses(found) == {"metadata": Status.USER_FAULT} and "expected ML Metadata's" in found["metadata"].found


def test_a_read_only_folder_is_named_with_its_purpose(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = examine(f"pusher.destination={tmp_path}/file/models")
    assert statuses(found) == {"push folder": Status.USER_FAULT}
    assert "file: Not a directory" in found["push folder"].found
    assert "--set pusher.destination=DIR" in found["push folder"].advice
    found = examine(f"root={tmp_path}/file/root")
    assert statuses(found) == dict.fromkeys(("root", "push folder"), Status.USER_FAULT)
    assert "--set root=DIR" in found["root"].advice


def test_a_file_system_without_locks_is_found(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert "No locks available" in examine()["root"].found


def test_a_database_that_is_away_may_come_back(examine: Examine) -> None:
    away = "metadata={store: mysql, host: 127.0.0.1, port: 1, user: ndr, password: {env: PATH}}"
    found = examine(away)
    assert statuses(found) == {"metadata": Status.PASSING_FAULT}
    assert doctor.verdict(list(found.values())) == Status.PASSING_FAULT
    assert "127.0.0.1:1" in found["metadata"].found and "refused" in found["metadata"].found


def test_an_object_store_is_written_to_as_a_push_does(examine: Examine) -> None:
    found = examine("pusher.destination=ram://doctor/serving")
    assert statuses(found) == {} and "push folder's disk" not in found
    assert found["push folder"].found == "ram://doctor/serving: can be written, moved and removed"
    assert [names for _, _, names in fileio.walk("ram://doctor") if names] == []
    found = examine("pusher.destination=nosuch://bucket/serving")
    assert statuses(found) == {"push folder": Status.USER_FAULT} and "nosuch" in found["push folder"].found


def test_packages_that_are_missing_or_of_another_version_are_named(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["tensorflow==99.*", "numpy", "no-such-package>=1", 'another; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    found = examine()
    assert statuses(found) == {"packages": Status.USER_FAULT}
    assert found["packages"].found == "tensorflow 2.21.0 is not ==99.*; no-such-package is missing"


def test_a_gpu_that_is_not_used_little_memory_and_little_room_are_warnings(
    examine: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limit").write_text(f"{1 << 30}\n")
    monkeypatch.setattr(doctor, "CGROUP_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(doctor, "NVIDIA", tmp_path)
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 60)
    found = examine()
    assert statuses(found) == {}
    assert {name for name, finding in found.items() if finding.state == "warn"} == {
        "root's disk", "push folder's disk", "memory", "devices",
    }  # fmt: skip
    assert found["memory"].found.startswith("1.0 GiB") and "DEVICE=gpu" in found["devices"].advice


def test_a_check_that_breaks_does_not_keep_the_others_from_being_made(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CGROUP_LIMIT", Path("/"))
    found = examine()
    assert statuses(found) == {"memory": Status.INTERNAL_FAULT} and found["devices"].state == "ok"


def test_the_command_tells_each_line_or_json_and_ends_with_the_worst(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    command = [
        "doctor",
        "--config",
        str(SHOP),
        "--set",
        f"root={tmp_path}",
        "--set",
        f"pusher.destination={tmp_path}/file",
    ]
    assert CliRunner().invoke(app, command).exit_code == 1
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "].count("FAIL") == 1
    assert lines[0].startswith("ok    Python             3.")
    assert CliRunner().invoke(app, [*command[:-2], "--json"]).exit_code == 0
    assert {each["state"] for each in json.loads(capfd.readouterr().out)} <= {"ok", "warn"}


@pytest.mark.parametrize("name", ["metadata.sqlite", "pipeline_root/Trainer/model/7/", ".lock", "serving/index/"])
def test_files_of_another_user_are_named_before_anything_is_begun(name: str) -> None:
    """Regression: SQLite and TFX said in the middle of a run that they may not write, as a fault of ours."""
    if os.getuid():
        pytest.skip("only root can make a file that belongs to someone else")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        config = configuration.load(SHOP, [f"root={root}"])
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
        for each in (root, *root.rglob("*")):
            os.chown(each, 65534, 65534)
        os.chown(path, 0, 0)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=rf"{path} cannot be written by user 65534: it belongs to root\."):
                rights.check(config)
            finding = next(each for each in doctor.examine(config) if each.check == "files")
            assert (finding.state, finding.status) == ("FAIL", Status.USER_FAULT) and str(path) in finding.found
            answer = CliRunner().invoke(
                app, ["run", "--date", "2026-11-24", "--config", str(SHOP), "--set", f"root={root}"]
            )
            assert answer.exit_code == 1 and f"{path} cannot be written by user 65534" in answer.stderr
        finally:
            os.seteuid(0)
        os.chown(path, 65534, 65534)
        rights.check(config)
