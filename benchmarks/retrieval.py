"""The retriever's search over a million items: recall against queries a second, beside exact search, FAISS's IVF and HNSW.

Embeddings are random, of a spectrum that falls as 1 / dimension, so that there is something for lists to follow; trained towers
leave such a spectrum too.

The retriever, exact search and FAISS's IVF are timed on embeddings, in the same process, taking turns of several queries: an exact
search reads all items, so that whatever came behind each one would find the caches empty, which is not how a server is asked. The
retriever and the IVF have the same lists and look at as many of them, so they find the same.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import components  # before TensorFlow: it chooses Keras 2

assert components

import faiss  # noqa: E402
import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from benchmarks import common  # noqa: E402
from components.indexer import faiss_index, tuning  # noqa: E402
from components.indexer.search import ExactSearch, ListSearch, Search  # noqa: E402
from components.indexer.settings import IndexerSettings  # noqa: E402

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

WIDTH = 64
K = 100
TURNS = {1: 100, 64: 5}  # by batch size, how many batches a turn has
HNSW_LINKS, HNSW_CONSTRUCTION = 16, 60
HNSW_WIDTHS = (64, 128, 256, 512)
SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the tuned probes

Embeddings = NDArray[np.float32]


class Asked(NamedTuple):
    """A batch of queries in the form that each library takes, as what is timed is the search.

    Attributes:
        array: [batch, WIDTH], FAISS's.
        tensor: the same, TensorFlow's.
    """

    array: Embeddings
    tensor: tf.Tensor


Call = Callable[[Asked], Any]


def asked(queries: Embeddings, batch: int) -> list[Asked]:
    """Group queries into whole batches."""
    parts = (queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch))
    return [Asked(part, tf.constant(part)) for part in parts]


def embeddings(count: int, seed: int) -> Embeddings:
    """[count, WIDTH] unit vectors."""
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)) / np.arange(1.0, WIDTH + 1)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def in_graph(search: Search) -> Call:
    """Return a search as it is served: a function of a graph."""
    call = tf.function(
        lambda queries: search(queries, tf.constant(K)), input_signature=[tf.TensorSpec([None, WIDTH], tf.float32)]
    ).get_concrete_function()
    return lambda batch: call(batch.tensor)


def recall(rows: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Return the mean share of the exact first K that is found."""
    return float(np.mean([len(set(e) & set(f)) / K for e, f in zip(exact.tolist(), rows.tolist(), strict=True)]))


def timed(calls: Mapping[str, Call], queries: Embeddings, batch: int, rounds: int) -> dict[str, list[float]]:
    """Return the median seconds of each call for a batch, in each turn."""
    batches = asked(queries, batch)
    medians: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, rounds):  # the first is to warm up
        for name, call in calls.items():
            seconds = []
            for each in range(TURNS[batch]):
                taken = batches[(number * TURNS[batch] + each) % len(batches)]
                begun = time.perf_counter()
                call(taken)
                seconds.append(time.perf_counter() - begun)
            if number >= 0:
                medians[name].append(common.median(seconds))
    return medians


def rows_of(call: Call, order: NDArray[np.int64], queries: Embeddings) -> NDArray[np.int64]:
    """Return the rows that a search of ours finds."""
    return order[np.concatenate([call(each).rows.numpy() for each in asked(queries, 1)])]


def measure(options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Build and time everything; return the points of the curves, and further figures."""
    items, queries = embeddings(options.items, 1), embeddings(options.queries, 2)
    settings = IndexerSettings(kind="ivf", recall_at=K)
    plan = settings.plan(options.items)
    assert plan.lists
    began = time.perf_counter()
    index = faiss_index.build(items, plan, settings.seed)
    lists = index.lists
    assert lists is not None
    built = time.perf_counter() - began
    say(f"{plan.lists:,} lists in {built:.0f} s; tunes to a recall@{K} of {settings.recall_target}")
    search = ListSearch(items, lists, 1, deepest=K)
    began = time.perf_counter()
    tuning.tune(search, items, embeddings(settings.tuning_queries, 3), K, settings.recall_target, plan.lists)
    probes, tuned = search.probes, time.perf_counter() - began
    say(f"{probes} probes in {tuned:.0f} s; builds HNSW")
    raw: Any = index._index
    hnsw = faiss.IndexHNSWFlat(WIDTH, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction = HNSW_CONSTRUCTION
    began = time.perf_counter()
    hnsw.add(items)
    say(f"HNSW in {time.perf_counter() - began:.0f} s; measures")
    exact_rows = faiss.knn(queries, items, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(items)

    points: list[dict[str, Any]] = []
    exact = in_graph(ExactSearch(items))

    def point(name: str, setting: int | str, found: NDArray[np.int64], calls: Mapping[str, Call]) -> dict[str, Any]:
        made: dict[str, Any] = {"name": name, "setting": setting, "recall": recall(found, exact_rows)}
        for batch in TURNS:
            seconds = timed(calls, queries, batch, options.rounds)
            made[f"seconds_{batch}"] = {key: common.median(each) for key, each in seconds.items()}
            made[f"queries_per_second_{batch}"] = batch / common.median(seconds[name])
            if name == "retriever":
                over = {
                    key: common.median([o / r for o, r in zip(each, seconds[name], strict=True)])
                    for key, each in seconds.items()
                    if key != name
                }
                made[f"over_{batch}"] = over
        points.append(made)
        return made

    def of_faiss(searched: Any) -> Call:
        return lambda batch: searched.search(batch.array, K)

    point("exact", "", rows_of(exact, np.arange(len(items)), queries), {"exact": exact})
    point("FAISS exact", "", flat.search(queries, K)[1], {"FAISS exact": of_faiss(flat)})
    for share in sorted({*options.shares, 1.0}):
        search.probes = raw.nprobe = min(plan.lists, max(1, round(share * probes)))
        call = in_graph(search)
        with_faiss = {"retriever": call, "FAISS IVF": of_faiss(raw), "exact": exact}
        made = point("retriever", search.probes, rows_of(call, search.order, queries), with_faiss)
        if share == 1.0:
            headline = made
        ivf: dict[str, Any] = {
            "name": "FAISS IVF",
            "setting": search.probes,
            "recall": recall(raw.search(queries, K)[1], exact_rows),
        }
        for batch in TURNS:
            ivf[f"queries_per_second_{batch}"] = batch / made[f"seconds_{batch}"]["FAISS IVF"]
        points.append(ivf)
    for width in HNSW_WIDTHS:
        hnsw.hnsw.efSearch = width
        point("FAISS HNSW", width, hnsw.search(queries, K)[1], {"FAISS HNSW": of_faiss(hnsw)})
    del search
    for vectors in ("bfloat16", "int8"):
        narrow = ListSearch(items, lists, probes, K, vectors)
        call = in_graph(narrow)
        name = f"retriever, {vectors}"
        point(name, probes, rows_of(call, narrow.order, queries), {name: call})
    said = {"lists": plan.lists, "probes": probes, "build_seconds": built, "tune_seconds": tuned, "headline": headline}
    return points, said


def draw(path: Path, points: Sequence[Mapping[str, Any]], items: int) -> None:
    """Recall against queries a second, a panel a batch size."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.8), sharey=True, layout="constrained")
    for axis, batch in zip(axes, TURNS, strict=True):
        names = list(dict.fromkeys(point["name"] for point in points))
        for number, name in enumerate(names):
            of_name = [point for point in points if point["name"] == name]
            rates = [point[f"queries_per_second_{batch}"] for point in of_name]
            style = "-o" if len(of_name) > 1 else "D"
            axis.plot(rates, [point["recall"] for point in of_name], style, color=f"C{number}", label=name)
        axis.axhline(0.95, color="grey", linewidth=0.8)
        title = f"{items:,} items x {WIDTH}, {'one query' if batch == 1 else f'{batch} queries'} at a time"
        axis.set(xscale="log", title=title, xlabel="queries a second")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel(f"recall@{K}")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def say(words: str) -> None:
    """On the terminal, at once."""
    print(words, flush=True)


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--items", type=int, default=1_000_000)
    arguments.add_argument("--queries", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=5, help="turns that each is timed in")
    arguments.add_argument("--shares", type=float, nargs="*", default=SHARES, help="of the tuned probes, beside 1")
    arguments.add_argument("--plot", type=Path, help="where the two figures are drawn (PNG)")
    options = arguments.parse_args()
    points, said = measure(options)
    common.show(
        f"{options.items:,} items x {WIDTH}, the first {K}",
        ["", "probes or width", f"recall@{K}", "ms, one query", *(f"queries/s, batch {batch}" for batch in TURNS)],
        [
            [
                point["name"],
                str(point["setting"]),
                f"{point['recall']:.4f}",
                f"{1000 / point['queries_per_second_1']:.2f}",
                *(f"{point[f'queries_per_second_{batch}']:,.0f}" for batch in TURNS),
            ]
            for point in points
        ],
    )
    if options.plot:
        draw(options.plot, points, options.items)
    tuned = said.pop("headline")
    common.conclude(
        options.json,
        {
            "items": options.items,
            "queries": options.queries,
            "width": WIDTH,
            "k": K,
            "rounds": options.rounds,
            "hnsw": {"links": HNSW_LINKS, "construction": HNSW_CONSTRUCTION},
            **said,
        },
        points,
        {
            "recall_at_100": tuned["recall"],
            "speedup_over_exact": tuned["over_1"]["exact"],
            "qps_over_faiss_ivf": tuned["over_1"]["FAISS IVF"],
        },
    )


if __name__ == "__main__":
    main()
