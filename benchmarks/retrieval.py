"""The retriever's search over a catalogue: recall against queries a second, beside exact search, FAISS and USearch.

Twice: with the embeddings of a trained model and queries of its own (`benchmarks.trained_embeddings`), and with random vectors of
a spectrum that falls as 1 / dimension. Each time also among the items that a filter lets pass, drawn at random.

All are measured in the same process on embeddings, and take turns of several queries: an exact search reads all items, so that
whatever came behind each one would find the caches empty, which is not how a server is asked. Measured is processor time, with one
thread each by default: a server has other queries for its other cores. *FAISS IVF* has as many lists as the retriever, which FAISS
makes of the items alone, and the fewest probes that reach the same recall; *FAISS IVF, our lists* is the index that the Indexer
writes. USearch is measured if it is installed (`pip install usearch`).
"""

import importlib
import importlib.util
import tempfile
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
from tensorflow.core.protobuf import config_pb2  # noqa: E402

from benchmarks import common, trained_embeddings  # noqa: E402
from components.indexer import faiss_index, tuning  # noqa: E402
from components.indexer.filters import Passing  # noqa: E402
from components.indexer.search import ExactSearch, Found, ListSearch, Search  # noqa: E402
from components.indexer.settings import IndexerSettings  # noqa: E402

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

WIDTH = 64
K = 100
TURNS = {1: 100, 64: 5}  # by batch size, how many batches a turn has
LINKS, CONSTRUCTION = 16, 60  # of HNSW
HNSW_WIDTHS = (64, 128, 256, 512)
SHARES = (0.5, 1.0, 2.0)  # of the tuned probes
SELECTIVITIES = (0.5, 0.1, 0.01, 0.001)
TRAINED, RANDOM = "trained", "random"
USUAL, OUR_LISTS = "FAISS IVF", "FAISS IVF, our lists"
MIB = 1 << 20
_load = tf.compat.v1.saved_model.load.__wrapped__  # without its deprecation warning
UNTYPED: Any = faiss  # its stubs lack the arguments of parameters

Embeddings = NDArray[np.float32]
Rows = NDArray[np.int64]


Call = Callable[[Embeddings], Any]


class Contender(NamedTuple):
    """A search with one setting.

    Attributes:
        name: of the curve.
        setting: probes or width; empty without one.
        call: what is timed.
        rows: maps what the call returns to [batch, K] rows of the embeddings.
        mib: of the index, with the vectors.
        build_seconds: processor seconds.
    """

    name: str
    setting: int | str
    call: Call
    rows: Callable[[Any], Rows]
    mib: float
    build_seconds: float

    @property
    def key(self) -> str:
        """Name and setting."""
        return f"{self.name} {self.setting}".strip()


def asked(queries: Embeddings, batch: int) -> list[Embeddings]:
    """Group queries into whole batches."""
    return [queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch)]


def random_vectors(count: int, seed: int) -> Embeddings:
    """[count, WIDTH] unit vectors."""
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)) / np.arange(1.0, WIDTH + 1)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def recalls(rows: Rows, exact: Rows) -> NDArray[np.float64]:
    """Return [queries] shares of the exact first rows, -1 for none, that are found."""
    shares = [len({*e} & {*f} - {-1}) / len({*e} - {-1}) for e, f in zip(exact.tolist(), rows.tolist(), strict=True)]
    return np.array(shares)


def recall(rows: Rows, exact: Rows) -> float:
    """Return the mean of `recalls`."""
    return float(recalls(rows, exact).mean())


def timed(calls: Mapping[str, Call], queries: Embeddings, batch: int, rounds: int) -> dict[str, list[float]]:
    """Return the mean processor seconds of each call for a batch, in each turn."""
    batches = asked(queries, batch)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-1, rounds):  # the first is to warm up
        for name, call in calls.items():
            begun = time.process_time()
            for each in range(TURNS[batch]):
                call(batches[(number * TURNS[batch] + each) % len(batches)])
            if number >= 0:
                seconds[name].append((time.process_time() - begun) / TURNS[batch])
    return seconds


def seconds_of(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and its processor seconds."""
    begun = time.process_time()
    return call(), time.process_time() - begun


def served(search: Search, passing: Passing | None = None) -> Call:
    """Return a search as servers run it: in a session. It returns [scores, rows].

    The calling thread computes. With a thread of TensorFlow's own, which waits for the next call in a busy loop, each call would
    be charged some 300 microseconds more that belong to no search.
    """
    model = tf.Module()
    model.search = search
    model.masks, model.left = (None, None) if passing is None else map(tf.Variable, passing[:2])

    def answer(queries: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
        number = tf.zeros_like(queries[:, 0], tf.int32)
        own = None if passing is None else Passing(model.masks.read_value(), model.left.read_value(), number)
        return search(queries, k, own)._asdict()

    specs = tf.TensorSpec([None, WIDTH], tf.float32, name="queries"), tf.TensorSpec([], tf.int32, name="k")
    traced = tf.function(answer, autograph=False, input_signature=specs).get_concrete_function()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(model, folder, signatures=traced)
        with tf.Graph().as_default() as graph:
            session = tf.compat.v1.Session(graph=graph)
            loaded = _load(session, [tf.saved_model.SERVING], folder)
    definition = loaded.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
    compute = session._make_callable_from_options(
        config_pb2.CallableOptions(
            feed=[definition.inputs[name].name for name in ("queries", "k")],
            fetch=[definition.outputs[name].name for name in Found._fields],
            run_options=config_pb2.RunOptions(inter_op_thread_pool=-1),
        )
    )
    k = np.int32(K)
    return lambda batch: compute(batch, k)


def of_ours(name: str, setting: int | str, search: Any, build_seconds: float) -> Contender:
    """Return a search of ours as it is now."""
    mib = sum(each.dtype.size * each.shape.num_elements() for each in search.variables) / MIB
    order = np.append(search.order, -1)  # for no item
    return Contender(name, setting, served(search), lambda found: order[found[1]], mib, build_seconds)


def of_faiss(name: str, setting: int, index: Any, parameters: Any, build_seconds: float) -> Contender:
    """Return a FAISS index with parameters of the search."""
    mib = len(faiss.serialize_index(index)) / MIB
    return Contender(
        name,
        setting,
        lambda batch: index.search(batch, K, params=parameters),
        lambda found: found[1],
        mib,
        build_seconds,
    )


def usual_ivf(items: Embeddings, queries: Embeddings, lists: int, target: float, seed: int) -> tuple[Any, int]:
    """Return FAISS's IVF, whose lists FAISS makes of the items alone, and the fewest probes that reach a recall.

    The probes are tuned as the retriever's are; see `tuning.tune`.
    """
    index: Any = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed
    index.cp.max_points_per_centroid = faiss_index.TRAINING_ITEMS_A_LIST
    index.cp.min_points_per_centroid = 1
    index.train(items)
    index.add(items)
    exact = faiss.knn(queries, items, K, metric=faiss.METRIC_INNER_PRODUCT)[1]

    def reaches(probes: int) -> bool:
        rows = index.search(queries, K, params=UNTYPED.SearchParametersIVF(nprobe=probes))[1]
        found = recalls(rows, exact)
        return bool(found.mean() - tuning.LOWER_END * found.std() / np.sqrt(len(found)) >= target)

    return index, tuning.fewest(reaches, lists)


def graphs(items: Embeddings, threads: int) -> list[Contender]:
    """Return the searches by graphs of neighbours."""
    hnsw = faiss.IndexHNSWFlat(WIDTH, LINKS, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction = CONSTRUCTION
    _, seconds = seconds_of(lambda: hnsw.add(items))
    made = [
        of_faiss("FAISS HNSW", width, hnsw, UNTYPED.SearchParametersHNSW(efSearch=width), seconds)
        for width in HNSW_WIDTHS
    ]
    if importlib.util.find_spec("usearch") is None:
        say("USearch is not installed, and is left out")
        return made
    usearch: Any = importlib.import_module("usearch.index")
    index = usearch.Index(ndim=WIDTH, metric="ip", dtype="f32", connectivity=LINKS, expansion_add=CONSTRUCTION)
    _, seconds = seconds_of(lambda: index.add(np.arange(len(items)), items, threads=threads))

    def with_width(width: int) -> Call:
        def call(batch: Embeddings) -> Any:
            index.expansion_search = width
            return index.search(batch, K, threads=threads)

        return call

    for width in HNSW_WIDTHS:
        made.append(
            Contender(
                "USearch",
                width,
                with_width(width),
                lambda found: np.reshape(found.keys, (-1, K)).astype(np.int64),
                index.memory_usage / MIB,
                seconds,
            )
        )
    return made


def measure(items: Embeddings, queries: Embeddings, tuned_on: Embeddings, options: Any) -> dict[str, Any]:
    """Build and time everything; return the points of the curves, those of filtered search, and the tuned settings."""
    settings = IndexerSettings(kind="ivf", recall_at=K)
    plan = settings.plan(len(items))
    assert plan.lists
    lists = plan.lists
    index, built = seconds_of(lambda: faiss_index.build(items, plan, settings.seed, tuned_on))
    divided = index.lists
    assert divided is not None
    say(f"{lists:,} lists in {built:.0f} s; tunes to a recall@{K} of {settings.recall_target}")
    search = ListSearch(items, divided, 1, K)
    _, tuned = seconds_of(lambda: tuning.tune(search, items, tuned_on, K, settings.recall_target, lists))
    probes = search.probes
    say(f"{probes} probes in {tuned:.0f} s")
    raw: Any = index._index
    contenders = [of_ours("exact", "", ExactSearch(items), 0.0)]
    for share in sorted({*options.shares, 1.0}):
        search.probes = min(lists, max(1, round(share * probes)))
        parameters = UNTYPED.SearchParametersIVF(nprobe=search.probes)
        contenders.append(of_ours("retriever", search.probes, search, built + tuned))
        contenders.append(of_faiss(OUR_LISTS, search.probes, raw, parameters, built))
    search.probes = probes
    (usual, own_probes), seconds = seconds_of(
        lambda: usual_ivf(items, tuned_on, lists, settings.recall_target, settings.seed)
    )
    parameters = UNTYPED.SearchParametersIVF(nprobe=own_probes)
    contenders.append(of_faiss(USUAL, own_probes, usual, parameters, seconds))
    for vectors in ("bfloat16", "int8"):
        narrow = ListSearch(items, divided, probes, K, vectors)
        contenders.append(of_ours(f"retriever, {vectors}", probes, narrow, built + tuned))
    if not options.lists_only:
        contenders += graphs(items, options.threads)
    say("measures")
    exact = faiss.knn(queries, items, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    taken = {
        batch: timed({each.key: each.call for each in contenders}, queries, batch, options.rounds) for batch in TURNS
    }
    points = []
    for each in contenders:
        rows = np.concatenate([each.rows(each.call(batch)) for batch in asked(queries, 1)])
        points.append(
            {
                "name": each.name,
                "setting": each.setting,
                "recall": recall(rows, exact),
                "mib": each.mib,
                "build_seconds": each.build_seconds,
                **{f"seconds_{batch}": taken[batch][each.key] for batch in TURNS},
                **{f"queries_per_second_{batch}": batch / common.median(taken[batch][each.key]) for batch in TURNS},
            }
        )
    filtered = [among(share, items, queries, search, usual, own_probes, options.rounds) for share in SELECTIVITIES]
    return {"lists": lists, "probes": probes, "points": points, "filtered": filtered}


def among(
    share: float, items: Embeddings, queries: Embeddings, search: ListSearch, index: Any, probes: int, rounds: int
) -> dict[str, Any]:
    """Measure search among a share of the items, drawn at random, beside FAISS's selector in its own IVF."""
    mask = np.random.default_rng(4).random(len(items)) < share
    mask[0] = True  # so that one passes
    passing = Passing(
        tf.constant(mask[search.order][np.newaxis]), tf.constant([mask.sum()], tf.int32), tf.constant([0])
    )
    selector = UNTYPED.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    parameters = UNTYPED.SearchParametersIVF(sel=selector, nprobe=probes)
    ours = served(search, passing)
    calls: dict[str, Call] = {"retriever": ours, "FAISS": lambda batch: index.search(batch, K, params=parameters)}
    left = np.append(np.flatnonzero(mask), -1)
    exact = left[faiss.knn(queries, items[mask], min(K, int(mask.sum())), metric=faiss.METRIC_INNER_PRODUCT)[1]]
    order = np.append(search.order, -1)
    batches = asked(queries, 1)
    figures: dict[str, Any] = {
        "share": share,
        "recall": recall(np.concatenate([order[ours(batch)[1]] for batch in batches]), exact),
        "recall_faiss": recall(np.concatenate([calls["FAISS"](batch)[1] for batch in batches]), exact),
    }
    for batch in TURNS:
        seconds = timed(calls, queries, batch, rounds)
        for name, key in (("retriever", ""), ("FAISS", "_faiss")):
            figures[f"queries_per_second_{batch}{key}"] = batch / common.median(seconds[name])
    return figures


def over(points: Sequence[Mapping[str, Any]], name: str, probes: int, batch: int) -> float:
    """Return how many times as fast as another the retriever is with the tuned probes: the median of the turns' ratios."""
    ours = next(each for each in points if (each["name"], each["setting"]) == ("retriever", probes))
    other = next(each for each in points if each["name"] == name and (name != OUR_LISTS or each["setting"] == probes))
    key = f"seconds_{batch}"
    return common.median([theirs / own for theirs, own in zip(other[key], ours[key], strict=True)])


def draw(path: Path, measured: Mapping[str, Mapping[str, Any]], items: int) -> None:
    """Recall against queries a second, a row for each kind of embeddings and a panel a batch size."""
    figure, axes = plt.subplots(
        len(measured), 2, figsize=(13, 4.8 * len(measured)), sharey="row", layout="constrained", squeeze=False
    )
    for row, (kind, of_kind) in zip(axes, measured.items(), strict=True):
        for axis, batch in zip(row, TURNS, strict=True):
            names = list(dict.fromkeys(point["name"] for point in of_kind["points"]))
            for number, name in enumerate(names):
                of_name = [point for point in of_kind["points"] if point["name"] == name]
                rates = [point[f"queries_per_second_{batch}"] for point in of_name]
                style = "-o" if len(of_name) > 1 else "D"
                axis.plot(rates, [point["recall"] for point in of_name], style, color=f"C{number}", label=name)
            axis.axhline(0.95, color="grey", linewidth=0.8)
            title = f"{items:,} {kind} embeddings, {'one query' if batch == 1 else f'{batch} queries'} at a time"
            axis.set(xscale="log", title=title, xlabel="queries a second of a processor")
            axis.grid(alpha=0.3, which="both")
        row[0].set_ylabel(f"recall@{K}")
    axes[0][0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def say(words: str) -> None:
    """On the terminal, at once."""
    print(words, flush=True)


def show(kind: str, measured: Mapping[str, Any]) -> None:
    """Tables of searches, without filters and with."""
    common.show(
        f"{kind} embeddings, the first {K}",
        ["", "probes or width", f"recall@{K}", "ms, one query", *(f"queries/s, {batch}" for batch in TURNS), "MiB", "build s"],
        [
            [
                point["name"],
                str(point["setting"]),
                f"{point['recall']:.4f}",
                f"{1000 / point['queries_per_second_1']:.2f}",
                *(f"{point[f'queries_per_second_{batch}']:,.0f}" for batch in TURNS),
                f"{point['mib']:,.0f}",
                f"{point['build_seconds']:,.0f}",
            ]
            for point in measured["points"]
        ],
    )  # fmt: skip
    common.show(
        f"{kind} embeddings, filtered",
        ["passing", "recall", "FAISS's", *(f"{name} batch {batch}" for batch in TURNS for name in ("queries/s,", "FAISS's,"))],
        [
            [
                f"{each['share']:.1%}",
                f"{each['recall']:.4f}",
                f"{each['recall_faiss']:.4f}",
                *(f"{each[f'queries_per_second_{batch}{key}']:,.0f}" for batch in TURNS for key in ("", "_faiss")),
            ]
            for each in measured["filtered"]
        ],
    )  # fmt: skip


def limit_threads(number: int) -> None:
    """Give TensorFlow, which must not have run anything yet, and FAISS this number of threads."""
    tf.config.threading.set_intra_op_parallelism_threads(number)
    tf.config.threading.set_inter_op_parallelism_threads(number)
    faiss.omp_set_num_threads(number)


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--items", type=int, default=1_000_000)
    arguments.add_argument("--queries", type=int, default=1000)
    arguments.add_argument("--interactions", type=int, default=3_000_000, help="that the model is trained on")
    arguments.add_argument("--kinds", nargs="+", choices=(TRAINED, RANDOM), default=(TRAINED, RANDOM))
    arguments.add_argument("--rounds", type=int, default=5, help="turns that each is timed in")
    arguments.add_argument("--shares", type=float, nargs="*", default=SHARES, help="of the tuned probes, beside 1")
    arguments.add_argument(
        "--lists-only", action="store_true", help="without HNSW and USearch, which take longest to build"
    )
    arguments.add_argument("--plot", type=Path, help="where the figures are drawn (PNG)")
    arguments.add_argument("--threads", type=int, default=1, help="of TensorFlow, FAISS and USearch")
    options = arguments.parse_args()
    limit_threads(options.threads)
    measured: dict[str, dict[str, Any]] = {}
    for kind in options.kinds:
        tuning_queries = IndexerSettings().tuning_queries
        if kind == TRAINED:
            say("trains")
            wanted = options.queries + tuning_queries
            items, queries = trained_embeddings.trained(options.items, wanted, options.interactions + wanted)
            asked_with, tuned_on = queries[tuning_queries:], queries[:tuning_queries]
        else:
            items, asked_with, tuned_on = (
                random_vectors(count, seed)
                for seed, count in enumerate((options.items, options.queries, tuning_queries), 1)
            )
        measured[kind] = measure(items, asked_with, tuned_on, options)
        show(kind, measured[kind])
    if options.plot:
        draw(options.plot, measured, options.items)
    first = measured[options.kinds[0]]
    points, probes = first["points"], first["probes"]
    tuned = next(each for each in points if (each["name"], each["setting"]) == ("retriever", probes))
    common.conclude(
        options.json,
        {
            "items": options.items,
            "queries": options.queries,
            "interactions": options.interactions,
            "width": WIDTH,
            "k": K,
            "rounds": options.rounds,
            "threads": options.threads,
            "hnsw": {"links": LINKS, "construction": CONSTRUCTION},
        },
        measured,
        {
            "recall_at_100": tuned["recall"],
            "speed_over_exact": over(points, "exact", probes, 1),
            "speed_over_faiss_one": over(points, USUAL, probes, 1),
            "speed_over_faiss_64": over(points, USUAL, probes, 64),
            "speed_over_faiss_our_lists_one": over(points, OUR_LISTS, probes, 1),
            "speed_over_faiss_our_lists_64": over(points, OUR_LISTS, probes, 64),
            "filtered_recall_1_percent": next(each for each in first["filtered"] if each["share"] == 0.01)["recall"],
        },
    )


if __name__ == "__main__":
    main()
