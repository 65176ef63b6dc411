"""Files in a folder of manifests that no push writes."""

import json
import os
from pathlib import Path


def write_odd_files(folder: Path) -> None:
    """What no push writes: each of these once stopped every later push, or a server's reading of the folder."""
    for name, text in {
        "20261123001.json": '{"version": 2026',
        "infinity.json": '{"version": Infinity, "parts": {}}',
        "nested.json": "[" * 100_000,
        "notes.json": "[]",
        f"{10**30}.json": json.dumps({"version": 10**30, "day": "", "run": "", "model": "", "parts": {}}),
        "20261123002.json": json.dumps(
            {"version": 20261123002, "day": "", "run": "", "model": "", "parts": {"index": "../../etc"}}
        ),
    }.items():
        (folder / name).write_text(text)
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "fifo.json")
    (folder / "loop.json").symlink_to(folder / "loop.json")  # which the system refuses to open, whoever asks
    (folder / "dangling.json").symlink_to(folder / "nothing")
