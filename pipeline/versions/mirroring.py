"""`ndr mirror`: mirrors a push folder once, or until the process is asked to end."""

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from components.pusher.mirror import Mirrored
from components.pusher.mirror import mirror as mirror_once
from components.pusher.versions import PushFolder
from pipeline.lock import exclusive
from schemas.errors import UserError


def mirror(source: str, target: str, every: timedelta | None, say: Callable[[str], None]) -> None:
    """Mirror a push folder.

    Args:
        source: its address or path.
        target: a folder of this machine; made if it is not there.
        every: the pause between two passes; None for one pass. What fails is then reported once, and tried again.
        say: called with each message.

    Raises:
        UserError: the target cannot be used, or is the source; or the only pass failed.
    """
    if "://" in target or os.path.realpath(source) == os.path.realpath(target):
        raise UserError(f"{target}: expected another folder than the source, of this machine.")
    asked = threading.Event()
    if every:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.set())
    with exclusive(Path(target)):
        reported = ""
        while not asked.is_set():
            try:
                words = _words(mirror_once(PushFolder(source), PushFolder(target)))
            except (UserError, OSError) as error:
                if every is None:
                    raise
                words = str(error)
            if words != reported and words:
                say(words)
            reported = words
            if every is None:
                return
            asked.wait(every.total_seconds())


def _words(done: Mirrored) -> str:
    lines = [f"copied version {version}" for version in done.copied]
    lines += [f"removed version {version}" for version in done.removed]
    if done.labels is not None:
        lines.append("labels: " + (", ".join(f"{name} {version}" for name, version in done.labels.items()) or "none"))
    return "\n".join(lines)
