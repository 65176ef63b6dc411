"""What a refresh costs of which little has changed, beside embedding the whole catalogue anew: processor seconds.

    python -m benchmarks.refresh                                a million items, of which 1 % are new, changed or gone
    python -m benchmarks.refresh --items 20000 --changed 0.05   a small one

The item tower is as the Trainer exports it, untrained; items have an id, five tags and a price. Both ways write the embeddings of
the same catalogue; the index over them, which both build, is measured once.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import common, served_model
from components.encoded import encode
from components.indexer import faiss_index, files
from components.indexer.embedding import EmbedCatalogue
from components.indexer.settings import IndexerSettings
from components.records import write_records
from components.refresh.changes import changed_pattern, compare, read_gone
from components.trainer.export import export_tower
from components.trainer.towers import Tower, build_tables
from components.transform.model_inputs import ModelInputs
from ndr_client.served import ITEM_TOWER
from schemas.features import CANDIDATE_ID, FeatureSpec

TAGS, TAGS_OF_ITEM, WIDTH = 1000, 5, 64
ITEMS_A_FILE = 50_000
AT_ONCE = 10_000
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 32, "hash_buckets": 100_000}, "tag": {"width": 32, "hash_buckets": 2_000}},
        "query": {"past": {"kind": "history", "table": "item", "last": 10}},
        "item": {
            "item": {"kind": "id", "table": "item"},
            "tags": {"kind": "ids", "table": "tag", "max_values": TAGS_OF_ITEM},
            "price": {"kind": "number", "scale": "none"},
        },
    }
)


def main() -> None:
    """Measure both ways."""
    arguments = common.parser(__doc__)
    arguments.add_argument("--items", type=int, default=1_000_000, help="of the catalogue")
    arguments.add_argument(
        "--changed", type=float, default=0.01, help="the share that is new, changed or gone, a third each"
    )
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tower = item_tower(folder / "model")
        third = max(1, round(given.items * given.changed / 3))
        numbers = np.arange(given.items + third)
        prices = numbers % 100 + 0.5
        earlier = write_catalogue(folder / "earlier", numbers[:-third], prices)
        prices[third : 2 * third] += 1
        newer = write_catalogue(folder / "newer", numbers[third:], prices)
        embed([earlier], tower, folder / "base")
        seconds: dict[str, float] = {}

        def timed(name: str, call: Callable[[], object]) -> None:
            begun = time.process_time()
            call()
            seconds[name] = time.process_time() - begun

        timed("embed all", lambda: embed([newer], tower, folder / "whole"))
        timed("compare the catalogues", lambda: compare([earlier], [newer], str(folder / "changes")))
        timed("embed what has changed", lambda: renew(folder, tower))
        whole, refreshed = (files.read(str(folder / name)) for name in ("whole", "refreshed"))
        settings = IndexerSettings()
        plan = settings.plan(len(refreshed.ids))
        timed(
            f"build the index ({plan.kind}), either way",
            lambda: faiss_index.build(refreshed.embeddings, plan, settings.seed),
        )
    refresh = seconds["compare the catalogues"] + seconds["embed what has changed"]
    difference = float(np.abs(whole.embeddings - refreshed.embeddings).max())
    common.show("processor seconds", ["", "seconds"], [[name, f"{value:.1f}"] for name, value in seconds.items()])
    headline = {
        "refresh_seconds": refresh,
        "embed_all_seconds": seconds["embed all"],
        "refresh_over_embed_all": refresh / seconds["embed all"],
        "largest_difference": difference,
    }
    common.conclude(given.json, {"items": given.items, "changed": given.changed}, seconds, headline)


def item_tower(folder: Path) -> str:
    """Export an item tower; return the folder of its SavedModel."""
    transform = served_model.transform_of(SPEC, folder)
    sizes = {name: table.hash_buckets for name, table in SPEC.tables.items()}
    tables = build_tables(sizes, {name: table.width for name, table in SPEC.tables.items()}, seed=0)
    tower = Tower(SPEC.item, tables, (128, WIDTH), 1, ITEM_TOWER)
    ids = tf.zeros([1, TAGS_OF_ITEM], tf.int64)
    tower({"item": ids[:, 0], "tags": ids, "tags_weights": tf.ones([1, TAGS_OF_ITEM]), "price": tf.zeros([1])})
    export_tower(tower, SPEC.item, ModelInputs(SPEC, transform), str(folder))
    return str(folder / ITEM_TOWER)


def write_catalogue(folder: Path, numbers: NDArray[np.int64], prices: NDArray[np.float64]) -> str:
    """Write the items of some numbers; return the pattern of the files."""
    for start in range(0, len(numbers), ITEMS_A_FILE):
        some = numbers[start : start + ITEMS_A_FILE]
        write_records(str(folder / f"{start:09d}.gz"), (each for rows in _batches(some, prices) for each in rows))
    return str(folder / "*.gz")


def _batches(numbers: NDArray[np.int64], prices: NDArray[np.float64]) -> list[list[bytes]]:
    made = []
    for start in range(0, len(numbers), AT_ONCE):
        some = numbers[start : start + AT_ONCE]
        ids = pa.array([b"item %09d" % number for number in some], pa.binary())
        tags = [[b"tag %d" % (number * step % TAGS) for step in range(1, TAGS_OF_ITEM + 1)] for number in some.tolist()]
        columns = {
            CANDIDATE_ID: ids,
            "item": ids,
            "tags": pa.array(tags, pa.list_(pa.binary())),
            "price": pa.array(prices[some], pa.float32()),
        }
        made.append(encode(pa.RecordBatch.from_pydict(columns)).to_pylist())
    return made


def embed(catalogue: list[str], tower: str, folder: Path) -> None:
    """Embed a catalogue, as the Indexer does on a day."""
    with beam.Pipeline() as pipeline:
        _ = pipeline | EmbedCatalogue(catalogue, tower, str(folder))


def renew(folder: Path, tower: str) -> None:
    """Embed what has changed, as the Indexer does in a refresh."""
    changes = str(folder / "changes")
    embed([changed_pattern(changes)], tower, folder / "changed")
    base, changed = files.read(str(folder / "base")), files.read(str(folder / "changed"))
    files.write_renewed(str(folder / "refreshed"), base, read_gone(changes), changed)


if __name__ == "__main__":
    main()
