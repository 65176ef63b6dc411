"""Versions to push: files of a few bytes that tell which they are of."""

from datetime import date
from pathlib import Path
from typing import Any

from components.pusher.files import Source
from components.pusher.manifest import Manifest
from components.pusher.versions import PushFolder

MODELS = ("query_tower", "item_tower", "retriever")
PARTS = (*MODELS, "index")
INDEX_FILES = ("index.faiss", "index.json", "ids.arrow")
DAY = date(2026, 11, 24)


def sources(folder: Path) -> dict[str, Source]:
    """The four parts of a version; every file but the empty one holds `PART of NAME`."""
    for part in MODELS:
        (folder / part / "variables").mkdir(parents=True, exist_ok=True)
        (folder / part / "assets").mkdir(exist_ok=True)
        (folder / part / "assets" / "vocabulary").touch()
        for name in ("saved_model.pb", "variables/data"):
            (folder / part / name).write_text(f"{part} of {folder.name}")
    (folder / "index").mkdir(exist_ok=True)
    for name in (*INDEX_FILES, "items-00000-of-00001.arrow"):  # the last is no file of a version
        (folder / "index" / name).write_text(f"index of {folder.name}")
    return {
        **{part: Source(str(folder / part)) for part in MODELS},
        "index": Source(str(folder / "index"), INDEX_FILES),
    }


def push(root: Path | str, model: Path, day: date = DAY, **arguments: Any) -> Manifest:
    """Pushes what `sources` makes in the folder `model`."""
    given = {"run": f"run of {model.name}", "metrics": {}, **arguments}
    return PushFolder(str(root)).push(sources(model), day, model=str(model), **given)
