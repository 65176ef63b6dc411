"""Digests that tell whether two machines would run the same. Does not import TFX."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipeline.config import Config
from schemas import contract, features

STEP_CODE = ("components", "ndr_client", "schemas", "serving")
WIRING = ("pipeline",)
PROJECT = Path(__file__).resolve().parent.parent


def code(folders: Iterable[str] = STEP_CODE) -> str:
    """Return a digest of all code in some folders; by default of the steps' code."""
    content = hashlib.sha256()
    for folder in folders:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            content.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def definition(path: Path, config: Config) -> str:
    """Return a digest of all that a pipeline is made from, except the day and the settings of a run.

    Args:
        path: the configuration file.
        config: what was read from it.
    """
    dataset = [
        config.dataset / name for name in (features.FILE_NAME, contract.INTERACTIONS_FILE, contract.CATALOGUE_FILE)
    ]
    content = hashlib.sha256(code((*STEP_CODE, *WIRING)).encode())
    for source in (path, *(file for file in dataset if file.exists())):
        content.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return content.hexdigest()[:16]
