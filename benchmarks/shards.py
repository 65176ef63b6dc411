"""How much memory the index of a catalogue takes to build, and the catalogue to rank with: whole, and in shards.

    python -m benchmarks.shards --json FILE                 400,000 items x 64, whole and in four shards
    python -m benchmarks.shards --items 2000 --shards 2     a small one

Each figure is the most anonymous memory by which a process of its own grows, sampled every few milliseconds: pages that are mapped
from a file are not in it, as the operating system takes them away when memory is short. Shards are built one after another, as one
worker of Beam does; the query tower is untrained, the embeddings are random.
"""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import common, served_model
from components.digests import partition_of
from components.evaluator.ranking import rank_and_retrieve
from components.indexer import files
from components.indexer.building import Building, build
from components.indexer.settings import IndexerSettings
from components.indexer.shards import shards_of
from ndr_client.served import QUERY_TOWER

WIDTH, QUERIES, FIRST = 64, 2048, 50
BUILD, RANK = "build", "rank"
SAMPLE_SECONDS = 0.005


def main() -> None:
    """Measure each in a process of its own."""
    arguments = common.parser(__doc__)
    arguments.add_argument("--items", type=int, default=400_000, help="of the catalogue")
    arguments.add_argument("--shards", type=int, default=4, help="beside one")
    arguments.add_argument("--measured", nargs=3, help="what, how and where: of a process of its own")
    given = arguments.parse_args()
    if given.measured:
        what, how, folder = given.measured
        call = (
            (lambda: _build(Path(folder), int(how))) if what == BUILD else (lambda: _rank(Path(folder), how == "disk"))
        )
        Path(folder, f"{what}-{how}").write_text(str(_growth(call)))
        return
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        served_model.write(folder / "served", folder, items=1, width=WIDTH)
        _write_embeddings(folder / "index", given.items, given.shards)
        for what, how in ((BUILD, "1"), (BUILD, str(given.shards)), (RANK, "memory"), (RANK, "disk")):
            command = [sys.executable, "-m", "benchmarks.shards", "--measured", what, how, str(folder)]
            subprocess.run(command, check=True)
            figures[f"{what}_{how}_gib"] = float((folder / f"{what}-{how}").read_text())
    embeddings = given.items * WIDTH * 4 / common.GIB
    rows = [[name, f"{value:.2f}", f"{value / embeddings:.1f}"] for name, value in figures.items()]
    common.show("anonymous memory", ["", "GiB", "times the embeddings"], rows)
    common.conclude(given.json, {"items": given.items, "shards": given.shards}, figures, figures)


def _write_embeddings(folder: Path, items: int, parts: int) -> None:
    """Write random unit vectors, divided as the Indexer's are."""
    ids = sorted(b"item %09d" % number for number in range(items))
    own = np.array([partition_of(each, parts) for each in ids])
    for part in range(parts):
        some = [ids[row] for row in np.flatnonzero(own == part).tolist()]
        vectors = np.random.default_rng(part).normal(size=(len(some), WIDTH)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        files.write_partition(str(folder), part, parts, WIDTH, [(some, vectors)])


def _build(folder: Path, shards: int) -> None:
    settings = IndexerSettings(kind="ivf", probes=32, shards=shards, stitched=shards == 1)
    building = Building(
        [], {}, settings, str(folder / QUERY_TOWER), str(folder / "index"), str(folder / f"of {shards}")
    )
    for shard in shards_of(shards):
        build(building, lambda: np.zeros((0, WIDTH), np.float32), shard)


def _rank(folder: Path, on_disk: bool) -> None:
    items = files.read(str(folder / "index"), on_disk=on_disk).embeddings
    random = np.random.default_rng(0)
    queries = items[random.integers(0, len(items), QUERIES)]
    rank_and_retrieve(queries, items, random.integers(0, len(items), QUERIES), FIRST)


def _growth(call: Callable[[], object]) -> float:
    """Return the most anonymous memory during a call beyond that before, in GiB."""
    before, ended = _anonymous(), threading.Event()
    most = before

    def sample() -> None:
        nonlocal most
        while not ended.wait(SAMPLE_SECONDS):
            most = max(most, _anonymous())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        call()
    finally:
        ended.set()
        sampler.join()
    return (most - before) / common.GIB


def _anonymous() -> int:
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
