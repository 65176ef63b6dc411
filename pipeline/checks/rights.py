"""Checks that the user of a run may write below its root. Does not import TensorFlow or TFX."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from pipeline.config import Config
from pipeline.metadata_settings import SqliteSettings
from schemas.errors import UserError

ARTIFACTS = 3  # levels below the pipeline root: step, output, artifact
SHOWN = 5


def check(config: Config) -> None:
    """Check before anything begins: in the middle of a run SQLite and TFX would fail with errors of their own.

    Raises:
        UserError: the message names what belongs to another user.
    """
    if faults := not_writable(config):
        more = [f"... and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise UserError("\n".join([*faults[:SHOWN], *more, advice()]))


def not_writable(config: Config) -> list[str]:
    """List existing paths without write permission, a sentence each."""
    user = os.geteuid()
    return [
        f"{path} cannot be written by user {user}: it belongs to {_owner(path)}."
        for path in _written(config)
        if path.exists() and not os.access(path, os.W_OK | (os.X_OK if path.is_dir() else 0), effective_ids=True)
    ]


def advice() -> str:
    """Say what to do about it."""
    return f"Give it to user {os.geteuid()} (chown -R), run as the other user, or name another root: --set root=DIR."


def _written(config: Config) -> Iterator[Path]:
    yield from (config.root, config.root / ".lock", config.logs)
    if isinstance(config.metadata, SqliteSettings):
        yield config.metadata_path
    yield from _folders(config.pipeline_root, ARTIFACTS)
    if "://" not in config.serving:
        yield from _folders(Path(config.serving), 1)


def _folders(folder: Path, levels: int) -> Iterator[Path]:
    yield folder
    if levels and folder.is_dir() and os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
        for child in sorted(folder.iterdir()):
            if child.is_dir():
                yield from _folders(child, levels - 1)


def _owner(path: Path) -> str:
    owner = path.stat().st_uid
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return f"user {owner}"
