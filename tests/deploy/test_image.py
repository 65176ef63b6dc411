"""What the Dockerfile must keep to; `make lint` has hadolint read it, and tools/try_dockerfile.py runs its steps."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

PROJECT = Path(__file__).parents[2]
PROJECT_FILE = tomllib.loads((PROJECT / "pyproject.toml").read_text())


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROJECT / "tools" / f"{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def requirements(lock: str) -> list[Requirement]:
    """The packages of a lock, each of which has hashes."""
    entries = tool("setup_env").entries(PROJECT / lock)
    assert len(entries) == sum(line[:1] not in (" ", "") for line in (PROJECT / lock).read_text().split("\n"))
    for entry in entries:
        first, *hashes = entry.split("\\\n")
        assert hashes and all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64} ?", each) for each in hashes), first
    return [Requirement(entry.split("\\\n")[0].strip()) for entry in entries]


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, each in its order."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in tool("try_dockerfile").instructions():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def given(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for each, rest in stage if each == word]


def test_the_base_is_pinned_and_the_last_stage_is_of_it_without_what_built(stages: list[list[tuple[str, str]]]) -> None:
    base, build, last = stages
    assert re.fullmatch(r"debian:trixie-\d{8}-slim@sha256:[0-9a-f]{64} AS base", base[0][1])
    assert (build[0][1], last[0][1]) == ("base AS build", "base")
    assert not re.search(r"apt-get|pip|venv /", " ".join(given(last, "RUN")))
    installed = re.search(r"--no-install-recommends (.*?) &&", given(base, "RUN")[0])
    assert installed and set(installed[1].split()) == {"ca-certificates", "libstdc++6", "python3"}
    assert [words.split()[:2] for words in given(last, "COPY")] == [
        ["--from=build", "/opt/venv"], ["--from=build", "/opt/ndr"],
    ]  # fmt: skip


def test_the_user_is_a_number_that_is_not_roots(stages: list[list[tuple[str, str]]]) -> None:
    last = stages[-1]
    (user,) = given(last, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    number = user.partition(":")[0]
    (made,) = given(last, "RUN")
    assert f"useradd --uid {number} " in made
    assert [word for word, _ in last].index("USER") > [word for word, _ in last].index("RUN")
    deployed = (PROJECT / "deploy/base/doctor/doctor.yaml").read_text()
    assert f"runAsUser: {number}" in deployed and f"fsGroup: {number}" in deployed


def test_the_lock_is_installed_before_the_code_is_there_and_the_code_without_a_network(
    stages: list[list[tuple[str, str]]],
) -> None:
    steps = [(word, rest) for word, rest in stages[1] if word in ("COPY", "RUN")]
    _, (_, installers), (_, tools), (_, locks), (_, install), *copies, (_, package) = steps
    assert installers.split() == ["tools/installers.lock", "tools/"]
    assert "--require-hashes --requirement tools/installers.lock" in tools
    assert set(locks.split()[:-1]) == {"pyproject.toml", "requirements.lock", "requirements-gpu.lock"}
    assert "--require-hashes --no-deps --requirements requirements.lock $gpu" in install
    assert "--offline --no-deps --no-build-isolation --editable ." in package
    copied = {source for _, words in copies for source in words.split()[:-1]}
    packages = find_packages(str(PROJECT), include=["components*", "ndr_client*", "pipeline*", "schemas*", "serving*"])
    assert copied >= {each for each in packages if "." not in each}
    for source in {*copied, *locks.split()[:-1], installers.split()[0]}:
        assert (PROJECT / source).exists()
        assert f"!{source}" in (PROJECT / ".dockerignore").read_text().split()
    assert (PROJECT / ".dockerignore").read_text().split("\n")[1] == "*"  # all else stays out


def test_its_versions_are_the_projects(stages: list[list[tuple[str, str]]]) -> None:
    arguments = dict(each.split("=", 1) for stage in stages for each in given(stage, "ARG"))
    assert arguments == {"DEVICE": "cpu", "VERSION": PROJECT_FILE["project"]["version"], "REVISION": "unknown"}


def test_every_package_is_locked_by_its_hashes_and_this_environment_is_what_was_locked() -> None:
    """Of the tools that install the others, too: nothing comes into an environment or an image by its name alone."""
    setup = tool("setup_env")
    assert {str(each).partition(";")[0].strip() for each in requirements("tools/installers.lock")} == set(
        setup.INSTALLERS
    )
    locked = [*requirements("requirements.lock"), *requirements("requirements-dev.lock")]
    assert len(locked) > 200
    for each in locked:
        if each.marker is None or each.marker.evaluate():
            assert metadata.version(each.name) == next(iter(each.specifier)).version, each.name


def test_the_set_up_installs_by_hashes_and_writes_them_into_its_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commands are kept, not run: they would fetch a gigabyte."""
    setup, commands = tool("setup_env"), list[list[str]]()
    monkeypatch.setattr(setup, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(setup, "glibc_version", lambda: setup.NEEDED_GLIBC)
    monkeypatch.setattr(setup.venv.EnvBuilder, "create", lambda *_: None)
    for name in ("run", "uv"):
        monkeypatch.setattr(setup, name, lambda *words: commands.append(list(map(str, words))))
    setup.build()
    setup.compile_lock(tmp_path / "own.lock", "own.toml")
    *installs, compiled = commands
    by_hash = [words for words in installs if "--require-hashes" in words]
    locks = {str(lock) for lock in (setup.INSTALLERS_LOCK, setup.LOCK, setup.DEV_LOCK)}
    assert {word for words in by_hash for word in words if word.endswith(".lock")} == locks
    (own,) = [words[4:] for words in installs if words not in by_hash]
    assert own == ["--editable", str(PROJECT), "--no-deps", "--no-build-isolation"]
    assert "--generate-hashes" in compiled


def test_the_lock_of_gpus_has_all_that_this_tensorflow_wants() -> None:
    locked = requirements("requirements-gpu.lock")
    pins = {each.name: next(iter(each.specifier)).version for each in locked}
    wanted = [Requirement(each) for each in metadata.requires("tensorflow") or [] if "and-cuda" in each]
    assert len(wanted) > 10 and {each.name for each in wanted} == pins.keys()
    assert all(each.specifier.contains(pins[each.name]) for each in wanted)


def test_the_commands_of_steps_and_people_are_found_where_they_are_run(stages: list[list[tuple[str, str]]]) -> None:
    last = stages[-1]
    (environment,) = given(last, "ENV")
    assert environment.startswith("PATH=/opt/venv/bin:")
    assert given(last, "WORKDIR") == given(stages[1], "WORKDIR") == ["/opt/ndr"]
    (command,) = given(last, "CMD")
    assert json.loads(command)[0] in PROJECT_FILE["project"]["scripts"] and not given(last, "ENTRYPOINT")


def test_a_copied_folder_has_the_checkouts_digest(tmp_path: Path) -> None:
    """So that what is compiled in a checkout is taken by the steps of an image that was built from it."""
    for name in ("schemas", "components", "ndr_client", "serving", "pipeline"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "from pathlib import Path; from pipeline import config, digests\n"
        "path = Path('pipeline/configs/movielens.yaml'); print(digests.__file__, digests.definition(path, config.load(path)))"
    )

    def told(folder: Path) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, "-c", program]
        answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        return answer.stdout.split()

    (copied, its), (own, digest) = told(tmp_path), told(PROJECT)
    assert (copied, own) == (f"{tmp_path}/pipeline/digests.py", f"{PROJECT}/pipeline/digests.py")
    assert its == digest
