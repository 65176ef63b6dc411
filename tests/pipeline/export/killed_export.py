"""An export that is killed at a chosen point, in a process of its own."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline import config as configuration
from pipeline.export import copied, exporting, parquet, postgresql
from pipeline.export.store import Items
from pipeline.export.stores import Name

POINTS = ("writing", "written", "checked", "flipped")
STORES = {Name.PARQUET: parquet.Parquet, Name.POSTGRESQL: postgresql.PostgreSQL}


def killed(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(call: Callable[..., Any]) -> Callable[..., Any]:
    def then_killed(*given: Any, **named: Any) -> None:
        call(*given, **named)
        killed()

    return then_killed


def half(items: Items) -> Iterator[bytes]:
    yield copied.COPY_HEADER
    killed()


def run(shop: str, settings: list[str], name: str, point: str) -> None:
    """Export what is live, up to a point."""
    store: Any = STORES[Name(name)]
    if point == "writing":  # some of the rows are on their way
        vars(postgresql)["chunks"] = half
        vars(parquet)["write_whole"] = lambda path, content: killed(
            Path(path).write_bytes(content[: len(content) // 2])
        )
    elif point == "written":
        store.put = after(store.put)
    elif point == "checked":
        store.flip = killed
    else:
        store.flip = after(store.flip)
    exporting.export(configuration.load(Path(shop), settings), Name(name), None, print)
