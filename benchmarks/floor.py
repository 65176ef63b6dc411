"""What a day's steps cannot take much less than: their arithmetic, by NumPy, Arrow and FAISS alone.

Of a log of `benchmarks.logs` each function does what the step of that name does to it, plainly: columns are read, joined,
counted, looked up and written as Arrow's own files, and matrices are multiplied. Left out is what a floor need not have: TFX and
Beam, TensorFlow's graphs, tf.Examples and gzip, loading models, and settings that the log does not need.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import feather, parquet
from threadpoolctl import threadpool_limits

from benchmarks import common

# As benchmarks/service, the defaults and the steps have it.
HELD_OUT = 0.1
HISTORY = 10
BATCH = 4096
INPUTS, HIDDEN, WIDTH = 128, 128, 64  # of a tower
NEXT_DAY = 200_000
SAMPLED, OTHER_SEARCHES = 20_000, 3  # by similar items, and by each tower with the other model's items
CHECKED_ITEMS = 2048
MODELS = 2  # that held-out interactions are ranked by; those of the second day by the one model of the day before
TOP = 50
LISTS_A_ROOT, PROBES, ROUNDS = 4, 16, 10  # of k-means
# Of what is the same again and again, so much is measured, and taken for the rest.
QUERIES_MEASURED, BATCHES_MEASURED = 4096, 10
GROUPS, COLUMNS, SCORERS, SLICES = 256, 20, 8, 20  # of sums


class Day(NamedTuple):
    """What a step may read.

    Attributes:
        log: the folder of the day's Parquet files.
        catalogue: the same of its items.
        folder: to write to.
    """

    log: Path
    catalogue: Path
    folder: Path


def floors(log: Path, catalogue: Path) -> dict[str, float]:
    """Processor seconds by step.

    Args:
        log: the folder of a day's interactions, of `benchmarks.logs`.
        catalogue: the same of its items.
    """
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], pa.Table | None]) -> pa.Table:
        begun = time.process_time()
        made = call()
        seconds[name] = time.process_time() - begun
        return made

    # A thread: others that wait for each other would be counted too.
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        day = Day(log, catalogue, Path(folder))
        items = timed("Catalogue", lambda: catalogue_table(day))
        timed("CatalogueStatistics", lambda: statistics(items))
        joined = timed("Interactions", lambda: joined_table(day, items))
        timed("InteractionStatistics", lambda: statistics(joined))
        timed("Counter", lambda: count(joined, items))
        timed("Analyzer", lambda: analyse(joined))
        timed("Transform", lambda: look_up(day, joined))
        rows, size = joined.num_rows, items.num_rows
        held_out = round(HELD_OUT * rows)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, _lists(size), faiss.METRIC_INNER_PRODUCT)
        next_day, ranked = min(rows, NEXT_DAY), MODELS * held_out + OTHER_SEARCHES * min(held_out, SAMPLED)
        seconds["NextDay"] = scaled(lambda count: rank(count, size), next_day, QUERIES_MEASURED)
        seconds["Trainer"] = scaled(train, -(-(rows - held_out) // BATCH), BATCHES_MEASURED)
        timed("Indexer", lambda: build(index, size))
        timed("InfraValidator", lambda: ask(index, held_out, min(size, CHECKED_ITEMS)))
        seconds["Ranker"] = scaled(lambda count: rank(count, size), ranked, QUERIES_MEASURED)
        timed("RetrievalEvaluator", lambda: add_up(held_out))
    return seconds


def scaled(work: Callable[[int], None], count: int, most: int) -> float:
    """Processor seconds of work that is the same for each of `count`, from those of `most` of them."""
    measured = min(count, most)
    begun = time.process_time()
    work(measured)
    return (time.process_time() - begun) * count / measured


def catalogue_table(day: Day) -> pa.Table:
    """Return the items, by id, written."""
    table = parquet.read_table(day.catalogue).sort_by("item")
    feather.write_feather(table, day.folder / "items")
    return table


def joined_table(day: Day, items: pa.Table) -> pa.Table:
    """Interactions by user and time with their histories and their items' features, written."""
    log = parquet.read_table(day.log)
    users = log.column("user").combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((log.column("time").cast(pa.int64()).to_numpy(), users))
    log, users = log.take(pa.array(order)), users[order]
    number = np.arange(len(users))
    first = np.searchsorted(users, users)
    lengths = np.minimum(number - first, HISTORY)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(number - lengths, lengths)
    history = log.column("item").combine_chunks().take(pa.array(places))
    rows = pc.index_in(log.column("item"), value_set=items.column("item").combine_chunks())
    for name in ("title", "categories", "creator", "seconds"):
        log = log.append_column(name, items.column(name).combine_chunks().take(rows.combine_chunks()))
    log = log.append_column("history", pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), history))
    log = log.append_column("hour", pc.hour(log.column("time")))
    feather.write_feather(log, day.folder / "joined")
    return log


def statistics(table: pa.Table) -> None:
    """Of each text the counts of its values, of each number moments and quantiles."""
    for name in table.column_names:
        values = _flat(table, name)
        if pa.types.is_string(values.type):
            np.sort(pc.value_counts(values).field("counts").to_numpy())
        else:
            numbers = values.cast(pa.float64()) if not pa.types.is_timestamp(values.type) else values.cast(pa.int64())
            pc.mean(numbers), pc.stddev(numbers), pc.min_max(numbers), pc.quantile(numbers, q=np.linspace(0, 1, 11))


def count(table: pa.Table, items: pa.Table) -> None:
    """How often each item, each item after another, and each item of a user."""
    ids = items.column("item").combine_chunks()
    rows = pc.index_in(table.column("item"), value_set=ids).to_numpy()
    histories = table.column("history").combine_chunks()
    before = pc.index_in(histories.flatten(), value_set=ids).to_numpy(zero_copy_only=False)
    after = np.repeat(rows, np.diff(histories.offsets.to_numpy()))
    users = table.column("user").combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    np.bincount(rows, minlength=len(ids))
    np.unique(before.astype(np.int64) * len(ids) + after, return_counts=True)
    np.unique(users.astype(np.int64) * len(ids) + rows, return_counts=True)


def analyse(table: pa.Table) -> None:
    """Count all ids, and compute the moments of the number."""
    for name in ("user", "item", "history", "categories", "creator", "device"):
        pc.value_counts(_flat(table, name))
    numbers = pc.ln(table.column("seconds"))
    pc.mean(numbers), pc.stddev(numbers)


def look_up(day: Day, table: pa.Table) -> None:
    """Each id's number in a vocabulary, written."""
    columns = {}
    for name in ("user", "item", "history", "categories", "creator", "device"):
        values = _flat(table, name)
        columns[name] = pc.index_in(values, value_set=pc.unique(values).slice(0, len(values) // 2 + 1))
    for name, values in columns.items():
        feather.write_feather(pa.table({name: values}), day.folder / f"transformed-{name}")
    feather.write_feather(table.select(["seconds", "reward", "time"]), day.folder / "transformed")


def train(batches: int) -> None:
    """Multiply as two towers and a batch's logits do, forwards and backwards."""
    layers = [0.1 * _random(INPUTS, HIDDEN), 0.01 * _random(HIDDEN, WIDTH)]
    inputs = _random(BATCH, INPUTS)
    for _ in range(batches):
        sides = []
        for _ in range(2):
            hidden = np.maximum(inputs @ layers[0], 0)
            sides.append((hidden, hidden @ layers[1]))
        (_, queries), (_, items) = sides
        shares = np.exp(queries @ items.T)
        shares /= shares.sum(axis=1, keepdims=True)
        for (hidden, _), gradient in zip(sides, (shares @ items, shares.T @ queries), strict=True):
            inputs.T @ (gradient @ layers[1].T)
            hidden.T @ gradient


def build(index: faiss.IndexIVFFlat, items: int) -> None:
    """Embed all items, and divide them into lists."""
    embeddings = _towers(items)
    index.cp.niter = ROUNDS
    index.cp.max_points_per_centroid = items
    index.train(embeddings)
    index.add(embeddings)


def ask(index: faiss.IndexIVFFlat, queries: int, items: int) -> None:
    """Embed queries and items with the served and the trained towers, and find the queries' first items by the lists."""
    _towers(items), _towers(items), _towers(queries)
    index.nprobe = PROBES
    index.search(_towers(queries), 2 * TOP)


def rank(queries: int, items: int) -> None:
    """Scores of all items for each query, compared with one."""
    embeddings, block = _towers(items), 512
    scores, flags = np.empty((block, block), np.float32), np.empty((block, block), np.bool_)
    for start in range(0, queries, block):
        columns = _random(WIDTH, min(block, queries - start))
        width = columns.shape[1]
        for first in range(0, items, block):
            rows = embeddings[first : first + block]
            there = scores[: len(rows), :width]
            np.matmul(rows, columns, out=there)
            np.greater(there, 1.0, out=flags[: len(rows), :width])


def add_up(rows: int) -> None:
    """Add up ranked interactions by scorer, slice and group of users."""
    random = np.random.default_rng(0)
    values = random.random((rows, COLUMNS))
    for _ in range(SCORERS):
        cells = random.integers(0, GROUPS * SLICES, rows)
        for column in values.T:
            np.bincount(cells, column, GROUPS * SLICES)


def _flat(table: pa.Table, name: str) -> pa.Array:
    values = table.column(name).combine_chunks()
    return values.flatten() if pa.types.is_list(values.type) else values


def _lists(items: int) -> int:
    return max(1, min(items // 4, round(LISTS_A_ROOT * items**0.5)))


def _towers(rows: int) -> NDArray[np.float32]:
    embeddings: NDArray[np.float32] = np.maximum(_random(rows, INPUTS) @ _random(INPUTS, HIDDEN), 0) @ _random(
        HIDDEN, WIDTH
    )
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def _random(rows: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((rows, columns), np.float32)


def main() -> None:
    """Run the command line."""
    from benchmarks.logs import FIRST_DAY, World, write

    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--interactions", type=int, default=1_000_000)
    arguments.add_argument("--items", type=int, default=50_000)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(World(max(1, options.interactions // 20), options.items), [options.interactions], Path(folder))
        seconds = floors(*(Path(folder) / kind / str(FIRST_DAY) for kind in ("interactions", "catalogue")))
    rows = [[name, f"{each:.2f}"] for name, each in seconds.items()]
    common.show(f"{options.interactions:,} interactions", ["step", "processor seconds"], rows)
    settings = {"interactions": options.interactions, "items": options.items}
    common.conclude(options.json, settings, seconds, {"processor_seconds": sum(seconds.values())})


if __name__ == "__main__":
    main()
