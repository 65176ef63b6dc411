"""What is recorded of the code and the configuration."""

import json
import shutil
import subprocess
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import pytest
from pytest import MonkeyPatch

from pipeline import config as configuration
from pipeline import day_run, digests, origin
from pipeline.origin import Origin
from pipeline.records import Records, connection
from schemas.errors import UserError
from tests.work import Work

SHOP = Path(__file__).parents[1] / "end_to_end" / "shop" / "shop.yaml"
MOVIELENS = Path(configuration.__file__).parent / "configs" / "movielens.yaml"


def test_the_configuration_is_the_resolved_one_with_the_features_and_the_schemas(tmp_path: Path) -> None:
    loaded = configuration.load(MOVIELENS, [f"root={tmp_path}", "trainer.epochs=17"])
    found = origin.of(loaded).configuration
    assert found["trainer"]["epochs"] == 17 and found["root"] == str(tmp_path)
    assert found["retention"] == {"days": 14, "versions": 5}  # that no file says: the defaults
    assert found["features"]["interactions"]["user"] == "user_id"
    assert set(found["schemas"]) == {"interactions", "catalogue"}


def test_another_schema_is_another_configuration(tmp_path: Path) -> None:
    shutil.copytree(SHOP.parent, tmp_path / "shop")
    loaded = configuration.load(tmp_path / "shop" / "shop.yaml")
    assert origin.of(loaded).configuration["schemas"] == {}  # it has none of its own
    schema = tmp_path / "shop" / "interactions.pbtxt"
    schema.write_text("one")
    first = origin.of(loaded).configuration["schemas"]["interactions"]
    schema.write_text("other")
    assert origin.of(loaded).configuration["schemas"]["interactions"] != first


def test_the_digest_of_a_configuration_is_of_its_values() -> None:
    first = Origin("", "", False, "", {"a": 1, "b": {"c": 2, "d": 3}})
    reordered = replace(first, version="2", configuration={"b": {"d": 3, "c": 2}, "a": 1})
    other = replace(first, configuration={"a": 1, "b": {"c": 2, "d": 4}})
    assert first.configuration_digest == reordered.configuration_digest != other.configuration_digest


def test_no_password_is_recorded(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "p4ssw0rd")
    server = "metadata={store: mysql, host: db, user: ndr, password: {env: SECRET}}"
    text = json.dumps(asdict(origin.of(configuration.load(SHOP, [server]))))
    assert "SECRET" in text and "p4ssw0rd" not in text


def test_a_root_is_one_by_whatever_link_it_is_named(tmp_path: Path) -> None:
    """Regression: by a link to its root a day was run again, and pushed as another version."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    linked, named = (configuration.load(SHOP, [f"root={tmp_path}/{name}/own"]) for name in ("link", "disk"))
    assert linked == named and str(linked.root) == f"{tmp_path}/disk/own"


def test_a_root_that_was_moved_is_refused_until_it_is_where_it_was(tmp_path: Path) -> None:
    """Regression: the run failed in the middle with a file of the old root that TensorFlow did not find."""
    old, new = (configuration.load(SHOP, [f"root={tmp_path}/{name}"]) for name in ("old", "new"))
    old.pipeline_root.mkdir(parents=True)
    work = Work(old.root)
    work.run("2026-11-23", "another")
    run = work.run("2026-11-24")
    Records(connection(work.places)).note_origin(run.name, origin.of(old))
    work.run("2026-11-25")  # of older code, or killed before it was noted
    origin.check_root(old, Records(connection(old)))
    old.root.rename(new.root)
    moved = Records(connection(new))
    with pytest.raises(UserError, match=rf"The root was {old.root} in run {run.name}, and is {new.root} now"):
        origin.check_root(new, moved)
    with pytest.raises(UserError, match=rf"link it \(ln -s {new.root} {old.root}\)"):
        day_run.begin(new, date(2026, 11, 26), "2026-11-26.a", moved)
    old.root.symlink_to(new.root)
    origin.check_root(new, moved)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: MonkeyPatch) -> Path:
    """A project of one file in a commit."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    project = tmp_path / "project"
    (project / "pipeline").mkdir(parents=True)
    (project / "pipeline" / "a.py").write_text("a = 1\n")
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "-c", "user.name=n", "-c", "user.email=e", "commit", "--quiet", "--message", "one")
    monkeypatch.setattr(digests, "PROJECT", project)
    monkeypatch.setenv(origin.COMMIT_VARIABLE, "of an image")
    return project


def git(project: Path, *command: str) -> str:
    return subprocess.run(["git", "-C", project, *command], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout: Path) -> None:
    loaded = configuration.load(SHOP)
    first = origin.of(loaded)
    assert (first.commit, first.changed) == (git(checkout, "rev-parse", "HEAD"), False)
    (checkout / "pipeline" / "a.py").write_text("a = 2\n")
    second = origin.of(loaded)
    assert (second.commit, second.changed) == (first.commit, True) and second.code != first.code


def test_without_a_checkout_the_commit_is_the_images(checkout: Path, monkeypatch: MonkeyPatch) -> None:
    # The package lies in a folder of somebody else's checkout: that commit says nothing of it.
    monkeypatch.setattr(digests, "PROJECT", checkout / "pipeline")
    loaded = configuration.load(SHOP)
    assert (origin.of(loaded).commit, origin.of(loaded).changed) == ("of an image", False)
    monkeypatch.delenv(origin.COMMIT_VARIABLE)
    assert origin.of(loaded).commit == ""
