"""What all commands share: the configuration, the root's lock, the log, and what becomes of a fault."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from pipeline.arguments import reported
from schemas.errors import Status, UserError


@contextmanager
def session(
    command: str,
    config: Path,
    settings: list[str] | None,
    writes: bool = True,
    opened: Callable[[Path, str], AbstractContextManager[tuple[Console, Path]]] | None = None,
) -> Iterator[tuple[Console, Any]]:
    """Run a command: read its configuration, lock the root if it writes, and send log messages to a file."""
    from pipeline import config as configuration
    from pipeline import lock, terminal
    from pipeline.checks import disk, rights

    with reported():
        loaded = configuration.load(config, settings or [])
        if writes:
            rights.check(loaded)
        try:
            with (
                lock.exclusive(loaded.root) if writes else nullcontext(),
                (opened or terminal.quiet_terminal)(loaded.logs, command) as (console, log),
            ):
                try:
                    yield console, loaded
                except UserError:
                    raise
                except KeyboardInterrupt as error:
                    # Python restores the default handler before it exits, and a second Ctrl-C would then kill it.
                    signal.signal(signal.SIGINT, signal.SIG_IGN)
                    console.print("Interrupted. Completed steps are kept, and the same command resumes from there.")
                    raise typer.Exit(Status.INTERRUPTED) from error
                except Exception as error:
                    if disk.is_full(error, loaded.root):
                        raise
                    logging.getLogger(__name__).exception("internal error")
                    console.print(
                        f"Failed: {type(error).__name__}: {str(error)[:300]}\nDetails are in {log}.",
                        markup=False,
                    )
                    raise typer.Exit(Status.INTERNAL_FAULT) from error
        except Exception as error:
            if disk.is_full(error, loaded.root):
                raise UserError(
                    f"The disk that holds {loaded.root} is full. Nothing was pushed. Make room and run again."
                ) from error
            if isinstance(error, OSError):
                raise UserError(
                    f"{loaded.root} cannot be used: {error.strerror or error}. Name another root: --set root=DIR."
                ) from error
            raise
