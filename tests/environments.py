"""Environments of their own, with nothing of this project: TensorFlow as TF Serving has it, and emulators of object stores.

Each is built once, in var/stock, by the hashes of tests/stock/NAME.lock, which is made by

    uv pip compile --python-version 3.11 --generate-hashes --no-annotate --no-header tests/stock/NAME.in
"""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
LOCKS = PROJECT / "tests" / "stock"
VERSIONS = ("2.19", "2.20")  # of the newest TF Serving, and the next
NEWEST_PYTHON = {"2.19": (3, 12), "2.20": (3, 13)}
UV = Path(sys.executable).parent / "uv"


def python_of(version: str) -> Path:
    """The interpreter of an environment that has this TensorFlow; skips the test where it cannot be had."""
    if sys.version_info[:2] > NEWEST_PYTHON[version]:
        pytest.skip(f"TensorFlow {version} has no wheels for Python {sys.version_info.major}.{sys.version_info.minor}")
    return environment(f"tensorflow-{version}") / "bin" / "python"


def environment(name: str) -> Path:
    """The folder of an environment; skips the test where it cannot be had."""
    lock = LOCKS / f"{name}.lock"
    folder = PROJECT / "var" / "stock" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        complete = folder / "complete"
        if not (complete.exists() and complete.read_text() == lock.read_text()):
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            _run(UV, "venv", "--clear", "--python", python, folder)
            _run(UV, "pip", "install", "--python", folder, "--no-deps", "--require-hashes", "--requirement", lock)
            complete.write_text(lock.read_text())
    return folder


def _run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(map(str, command[1:4]))}: {done.stderr.strip()[-300:]}")
