"""The search in TensorFlow's operations and the retriever around it: what exact search finds, by whatever is asked."""

import json
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.indexer import faiss_index, tuning
from components.indexer.faiss_index import InvertedLists
from components.indexer.filters import Filters
from components.indexer.retriever import Retriever, export_retriever
from components.indexer.search import ExactSearch, ListSearch, Search
from components.indexer.settings import Plan
from components.trainer.export import load_tower
from components.trainer.model import TwoTowerModel
from ndr_client.served import EMBEDDING, EXAMPLES_SIGNATURE, RETRIEVER, TENSORS_SIGNATURE
from schemas.features import FeatureSpec
from tests.components.exported import export

Embeddings = NDArray[np.float32]


def unit(count: int, width: int = 8, seed: int = 0) -> Embeddings:
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def circle(*degrees: float) -> Embeddings:
    """Unit vectors at angles: of two of them, the product is the cosine of what they are apart."""
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def by_lists(
    embeddings: Embeddings, lists: int, probes: int, vectors: str = "float32", tuned_at: int = 200
) -> ListSearch:
    divided = faiss_index.build(embeddings, Plan("ivf", lists, probes), seed=0).lists
    assert divided is not None
    return ListSearch(embeddings, divided, probes, tuned_at, vectors)


# Each looks at all lists, so it has to find what is exact.
SEARCHES: dict[str, Callable[[Embeddings], Search]] = {
    "exact": ExactSearch,
    "lists": lambda embeddings: by_lists(embeddings, min(4, len(embeddings)), min(4, len(embeddings))),
    "bfloat16": lambda embeddings: by_lists(embeddings, min(4, len(embeddings)), min(4, len(embeddings)), "bfloat16"),
    "int8": lambda embeddings: by_lists(embeddings, min(4, len(embeddings)), min(4, len(embeddings)), "int8"),
}
searches = pytest.mark.parametrize("name", SEARCHES)
ERRORS = {"exact": 1e-6, "lists": 1e-6, "bfloat16": 2e-2, "int8": 2e-2}  # of a score


def found(search: Search, queries: Embeddings, k: int) -> tuple[NDArray[np.int64], Embeddings]:
    """Rows of the embeddings, and scores."""
    call = tf.function(search, input_signature=[tf.TensorSpec([None, queries.shape[1]]), tf.TensorSpec([], tf.int32)])
    scores, rows = call(tf.constant(queries), tf.constant(k))
    return np.where(rows.numpy() >= 0, search.order[rows.numpy()], -1), scores.numpy()


@searches
def test_the_nearest_come_first(name: str) -> None:
    # From 7 degrees: 10 is 3 away, 0 is 7, 20 is 13; from 193: 190, 200, 180.
    items = circle(0, 180, 10, 190, 20, 200)
    rows, scores = found(SEARCHES[name](items), circle(7, 193), 3)
    assert rows.tolist() == [[2, 0, 4], [3, 5, 1]]
    assert scores[0] == pytest.approx(np.cos(np.radians([3, 7, 13])), abs=ERRORS[name])


@searches
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), items=st.integers(1, 300), queries=st.integers(1, 5), k=st.integers(1, 320))
def test_probing_all_lists_is_exact(name: str, seed: int, items: int, queries: int, k: int) -> None:
    embeddings, asked = unit(items, seed=seed), unit(queries, seed=seed + 1)
    rows, scores = found(SEARCHES[name](embeddings), asked, k)
    exact = np.sort(asked @ embeddings.T, axis=1)[:, ::-1][:, :k]
    there = min(k, items)
    assert rows.shape == scores.shape == (queries, k)
    assert (rows[:, there:] == -1).all() and (scores[:, there:] == -2).all()
    assert all(len(set(each[:there].tolist())) == there for each in rows)  # none twice
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(scores[:, :there], exact, atol=ERRORS[name])
    own = np.einsum("qw,qkw->qk", asked, embeddings[rows[:, :there]])
    np.testing.assert_allclose(scores[:, :there], own, atol=ERRORS[name])  # a row's score is that row's


def test_of_items_that_score_alike_the_lower_row_comes_first() -> None:
    rows, _ = found(ExactSearch(circle(10, 90, 10, 10)), circle(0), 4)
    assert rows.tolist() == [[0, 2, 3, 1]]


def test_only_the_nearest_lists_are_probed() -> None:
    # Two bundles opposite each other, a list each: two items and sixty.
    lists = InvertedLists(circle(2, 180), np.array([2, 60]), np.arange(62))
    rows, scores = found(ListSearch(circle(0, 4, *range(150, 210)), lists, 1, 200), circle(1, 180), 5)
    assert rows[0].tolist() == [0, 1, -1, -1, -1] and scores[0, 2:].tolist() == [-2, -2, -2]
    assert sorted(rows[1].tolist()) == [30, 31, 32, 33, 34]  # 178 to 182 degrees


def test_a_query_for_more_items_probes_more_lists_and_at_last_all() -> None:
    # Five lists, of 2, 2, 34, 1 and 1 items. By their centroids from 0 degrees the last is farthest, although its item is near.
    items = circle(1, 3, 110, 115, *range(200, 234), 170, 6)
    lists = InvertedLists(circle(2, 112, 217, 170, 180), np.array([2, 2, 34, 1, 1]), np.arange(40))
    search = ListSearch(items, lists, 1, 1)
    assert found(search, circle(0), 1)[0].tolist() == [[0]]
    assert found(search, circle(0), 4)[0].tolist() == [[0, 1, 2, 3]]  # 4 to the power of .75: three lists
    assert found(search, circle(0), 5)[0].tolist() == [[0, 1, 39, 2, 3]]  # more than a tenth of 40
    assert found(ListSearch(items, lists, 1, 4), circle(0), 4)[0].tolist() == [[0, 1, -1, -1]]


def test_lists_are_divided_by_what_queries_tell_apart() -> None:
    # Items differ most in six directions that no query has: lists of the items alone find .24, these .94.
    items, queries = unit(2000) * np.array([1, 1] + [3] * 6, np.float32), unit(200, seed=1)
    queries[:, 2:] = 0
    exact = tuning.exact_scores(items, queries, 10)

    def recall(sample: Embeddings | None) -> float:
        rows = faiss_index.build(items, Plan("ivf", 20, 4), 0, sample).search(queries, 10)
        scores = np.einsum("qw,qkw->qk", queries, items[rows])
        return float((scores >= exact[:, -1:] - 1e-6).mean())

    assert recall(None) < 0.5 and recall(queries) > 0.9


def test_int8_counts_in_steps_of_each_item_by_itself() -> None:
    # In steps of a 127th of the first item's, the others would all be 1.
    embeddings = np.array([[1, 0], [0.008, 0], [0.0085, 0], [0.009, 0]], np.float32)
    rows, scores = found(SEARCHES["int8"](embeddings), np.array([[1, 0]], np.float32), 4)
    assert rows.tolist() == [[0, 3, 2, 1]]
    assert scores[0] == pytest.approx([1, 0.009, 0.0085, 0.008], rel=1e-5)


@pytest.mark.parametrize(("vectors", "size"), [("float32", 4), ("bfloat16", 2), ("int8", 1)])
def test_vectors_take_the_memory_that_is_promised(vectors: str, size: int) -> None:
    items = unit(100)
    lists = faiss_index.build(items, Plan("ivf", 4, 1), seed=0).lists
    assert lists is not None
    kept = by_lists(items, 4, 1, vectors).vectors
    # Blocks of 32 rows, of which the last of each list has the rest of its rows, and one without any.
    assert kept.dtype.size == size and kept.shape == (sum(-(-lists.sizes // 32)) + 1, 32, 8)


def test_the_graph_does_not_grow_with_the_probes() -> None:
    def operations(probes: int) -> int:
        search = by_lists(unit(100), 8, probes, "float32")
        shape = [tf.TensorSpec([None, 8], tf.float32), tf.TensorSpec([], tf.int32)]
        graph = tf.function(search, input_signature=shape).get_concrete_function().graph.as_graph_def()
        return len(graph.node) + sum(len(each.node_def) for each in graph.library.function)

    assert operations(2) == operations(7)


@pytest.mark.parametrize("most", [1, 2, 7, 8, 9, 100])
@pytest.mark.parametrize("needed", [1, 2, 3, 5, 8, 9, 63, 64, 65, 99, 100, 101])
def test_the_fewest_that_are_enough(needed: int, most: int) -> None:
    assert tuning.fewest(lambda probes: probes >= needed, most) == min(needed, most)


def test_tuning_takes_the_fewest_lists_that_reach_the_target(
    graph_optimizer: None, capfd: pytest.CaptureFixture[str]
) -> None:
    embeddings, queries = unit(2000), unit(50, seed=1)
    exact = np.argsort(-(queries @ embeddings.T), axis=1)[:, :10]

    def shares(probes: int) -> list[float]:
        rows, _ = found(by_lists(embeddings, 40, probes), queries, 10)
        return [len(set(e) & set(f)) / 10 for e, f in zip(exact.tolist(), rows.tolist(), strict=True)]

    def recall(probes: int) -> float:
        return float(np.mean(shares(probes)))

    def error(probes: int) -> float:
        return float(1.96 * np.std(shares(probes)) / np.sqrt(50))

    search = by_lists(embeddings, 40, 1)
    reached = tuning.tune(search, embeddings, queries, 10, 0.8, most=40)
    assert recall(search.probes) == pytest.approx(reached) and reached - error(search.probes) >= 0.8
    assert recall(search.probes - 1) - error(search.probes - 1) < 0.8
    reached = tuning.tune(search, embeddings, queries, 10, 0.99, most=3)  # the most, though too few
    assert search.probes == 3 and reached == pytest.approx(recall(3))
    assert "couldn't be sorted" not in capfd.readouterr().err  # of a graph, by TensorFlow's optimizer


SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 8, "hash_buckets": 500}},
        "query": {
            "past": {"kind": "history", "table": "item", "last": 3},
            "age": {"kind": "number", "scale": "none"},
        },
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
IDS = [b"item %03d" % number for number in range(300)]
ITEMS = unit(300, 6)


@pytest.fixture(scope="module")
def query_tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = export(SPEC, {"query": [6], "item": [6]}, tmp_path_factory.mktemp("model"))
    return f"{model.uri}/Format-Serving/query_tower"


@pytest.fixture(scope="module", params=["exact", "lists"])
def folder(request: pytest.FixtureRequest, query_tower: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a retriever's SavedModel."""
    target = tmp_path_factory.mktemp(request.param)
    export_retriever(query_tower, SEARCHES[request.param](ITEMS), IDS, str(target))
    return str(target / RETRIEVER)


@pytest.fixture(scope="module")
def retriever(folder: str) -> tf.Module:
    return tf.saved_model.load(folder)


def example(past: list[bytes], age: float, exclude: list[bytes] | None = None) -> bytes:
    made = tf.train.Example()
    made.features.feature["past"].bytes_list.value.extend(past)
    made.features.feature["age"].float_list.value.append(age)
    if exclude is not None:
        made.features.feature["exclude"].bytes_list.value.extend(exclude)
    return made.SerializeToString()


def by_examples(retriever: tf.Module, examples: list[bytes], k: list[int]) -> tuple[list[list[bytes]], Embeddings]:
    answer = retriever.signatures[EXAMPLES_SIGNATURE](examples=tf.constant(examples), k=tf.constant(k))
    return answer["item_ids"].numpy().tolist(), answer["scores"].numpy()


def by_embeddings(
    retriever: tf.Module, queries: Embeddings, k: list[int], exclude: list[list[bytes]]
) -> tuple[list[list[bytes]], Embeddings]:
    answer = retriever.signatures["serving_embeddings"](
        embedding=tf.constant(queries), k=tf.constant(k), exclude=tf.constant(exclude, tf.string)
    )
    return answer["item_ids"].numpy().tolist(), answer["scores"].numpy()


def nearest(query: Embeddings, k: int, without: Collection[bytes] = ()) -> list[bytes]:
    order = np.argsort(-(ITEMS @ query), kind="stable")
    return [IDS[row] for row in order if IDS[row] not in without][:k]


def test_raw_features_and_the_towers_embedding_find_the_same(retriever: tf.Module, query_tower: str) -> None:
    examples = [example([b"item 001", b"item 005"], 0.3), example([], -2.0)]
    embeddings = load_tower(query_tower).signatures[EXAMPLES_SIGNATURE](tf.constant(examples))[EMBEDDING].numpy()
    ids, scores = by_examples(retriever, examples, [5, 5])
    assert ids == [nearest(query, 5) for query in embeddings]
    for query, row, found_scores in zip(embeddings, ids, scores, strict=True):
        assert found_scores == pytest.approx(ITEMS[[IDS.index(item) for item in row]] @ query, abs=1e-6)
    tensors = retriever.signatures[TENSORS_SIGNATURE](
        past=tf.constant([["", "item 001", "item 005"], ["", "", ""]]),
        age=tf.constant([0.3, -2.0]),
        k=tf.constant([5, 5]),
        exclude=tf.constant([[""], [""]]),
    )
    assert tensors["item_ids"].numpy().tolist() == ids
    assert by_embeddings(retriever, embeddings, [5, 5], [[], []])[0] == ids


def test_each_query_has_its_own_k_and_is_padded_beyond_it(retriever: tf.Module) -> None:
    queries = unit(3, 6, seed=1)
    ids, scores = by_embeddings(retriever, queries, [1, 4, 2], [[], [], []])
    assert ids == [nearest(query, k) + [b""] * (4 - k) for query, k in zip(queries, [1, 4, 2], strict=True)]
    assert (scores == -2).tolist() == [[False, True, True, True], [False] * 4, [False, False, True, True]]


def test_excluded_items_are_replaced_by_the_next(retriever: tf.Module) -> None:
    queries = unit(2, 6, seed=2)
    first, second = (nearest(query, 6) for query in queries)
    unwanted = [[first[0], first[2], b"no such item"], [second[1], b"", b""]]
    ids, _ = by_embeddings(retriever, queries, [3, 3], unwanted)
    assert ids == [[first[1], first[3], first[4]], [second[0], second[2], second[3]]]
    examples = [example([], 0.5, []), example([], 0.5)]
    (best, *_), _ = by_examples(retriever, examples, [3, 3])
    ids, _ = by_examples(retriever, [example([], 0.5, best[:2]), example([], 0.5)], [1, 3])
    assert ids == [[best[2], b"", b""], best]


def test_more_than_there_are_gives_all_that_there_are(retriever: tf.Module) -> None:
    ids, scores = by_embeddings(retriever, unit(1, 6, seed=3), [10_000], [[IDS[7]]])
    assert sorted(ids[0]) == sorted([*IDS[:7], *IDS[8:], b""]) and ids[0][-1] == b"" and scores[0, -1] == -2


def test_all_excluded_leaves_nothing(retriever: tf.Module) -> None:
    ids, scores = by_embeddings(retriever, unit(1, 6), [2], [IDS])
    assert ids == [[b"", b""]] and scores.tolist() == [[-2, -2]]


TAGS = [[b"t%d" % (number % 7), b"u%d" % (number % 50)] if number % 11 else [] for number in range(300)]
PRICES = [None if number % 13 == 0 else float(number) for number in range(300)]
COLUMNS = pa.table({"tags": pa.array(TAGS, pa.list_(pa.binary())), "price": pa.array(PRICES, pa.float32())})
# What passes each: a third part, a seventh, one in fifty, one item, none, all but those of a tag, all.
CONDITIONS: dict[tuple[str, ...], Callable[[int], bool]] = {
    ("price<=99.5",): lambda row: PRICES[row] is not None and row < 100,
    ("tags=t3",): lambda row: b"t3" in TAGS[row],
    ("tags=u8", "price>=0"): lambda row: b"u8" in TAGS[row] and PRICES[row] is not None,
    ("price=7",): lambda row: row == 7,
    ("tags=t1", "price<=0"): lambda row: False,
    ("tags!=t1",): lambda row: b"t1" not in TAGS[row],
    (): lambda row: True,
}


@pytest.fixture(scope="module", params=["exact", "bfloat16", "int8", "narrow"])
def filtered(request: pytest.FixtureRequest, query_tower: str) -> tuple[str, Retriever]:
    """`narrow` probes one list of thirty, and a few where a tenth of what passes is enough."""
    search = SEARCHES[request.param](ITEMS) if request.param in SEARCHES else by_lists(ITEMS, 30, 1, tuned_at=8)
    return request.param, Retriever(load_tower(query_tower), search, IDS, COLUMNS)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    wheres=st.lists(st.sampled_from(list(CONDITIONS)), min_size=2, max_size=2),
    ks=st.lists(st.integers(1, 320), min_size=2, max_size=2),
    excluded=st.lists(st.integers(0, 310), max_size=4),
)
def test_filtered_answers_are_those_of_brute_force(
    filtered: tuple[str, Retriever], seed: int, wheres: list[tuple[str, ...]], ks: list[int], excluded: list[int]
) -> None:
    name, retriever = filtered
    queries, width = unit(2, 6, seed), max(map(len, wheres))
    unwanted = [b"item %03d" % row for row in excluded]
    answer = retriever.served["serving_embeddings"](
        embedding=tf.constant(queries),
        k=tf.constant(ks),
        exclude=tf.reshape(tf.constant([unwanted, unwanted], tf.string), [2, len(unwanted)]),
        where=tf.reshape(tf.constant([[*w, *[""] * (width - len(w))] for w in wheres], tf.string), [2, width]),
    )
    for query, where, k, ids, scores in zip(
        queries, wheres, ks, answer["item_ids"].numpy(), answer["scores"].numpy(), strict=True
    ):
        left = [row for row in range(300) if CONDITIONS[where](row) and row not in excluded]
        exact = np.sort(ITEMS[left] @ query)[::-1][:k]
        found = [IDS.index(item) for item in ids.tolist() if item]
        assert len(set(found)) == len(found) and set(found) <= set(left)
        if name == "narrow" and not where and k + len(excluded) <= 30:
            continue  # as many as the one list has
        assert len(found) == len(exact) and (ids[len(exact) :] == b"").all() and (scores[len(exact) :] == -2).all()
        np.testing.assert_allclose(scores[: len(found)], ITEMS[found] @ query, atol=ERRORS.get(name, 1e-6))
        if name == "narrow" and 10 * (k + len(excluded)) <= sum(map(CONDITIONS[where], range(300))):
            continue  # nearly all pass, and the list has enough of them
        np.testing.assert_allclose(scores[: len(exact)], exact, atol=ERRORS.get(name, 1e-6))


def test_a_filter_that_few_pass_probes_more_lists() -> None:
    # Twenty lists of two; the first 20 items pass, so that the first 2 of them are the first 4 of all: 1.7 lists.
    items = circle(0, 40, 5, 60, *range(150, 186))
    lists = InvertedLists(circle(1, 10, *range(150, 186, 2)), np.array([2] * 20), np.arange(40))
    search = ListSearch(items, lists, probes=1, tuned_at=2)
    passing = Filters(
        pa.table({"price": pa.array(range(40), pa.float32())}), [b"%d" % row for row in range(40)], search.order
    )

    def ask(condition: str) -> list[int]:
        return (
            search(tf.constant(circle(0)), tf.constant(2), passing(tf.constant([[condition]]))).rows.numpy()[0].tolist()
        )

    assert ask("price<=19") == [0, 2]
    assert ask("price>=0") == [0, 1]  # all pass: by the nearest list alone


def test_a_narrow_filter_finds_items_outside_the_probed_lists(query_tower: str) -> None:
    # The query lies in the list of the first items; the only one that passes is opposite.
    items = circle(*range(0, 60), *range(180, 240))
    search = by_lists(items, lists=2, probes=1)
    columns = pa.table({"price": pa.array([float(row) for row in range(120)], pa.float32())})
    passing = Filters(columns, [b"%d" % row for row in range(120)], search.order)

    def ask(condition: str, k: int) -> list[int]:
        rows = search(tf.constant(circle(1)), tf.constant(k), passing(tf.constant([[condition]]))).rows.numpy()[0]
        return [int(search.order[row]) if row >= 0 else -1 for row in rows]

    assert ask("price>=119", 2) == [119, -1]  # 239 degrees are 122 away
    assert ask("price>=30", 3) == [30, 31, 32]  # by the list, which has thirty of the ninety
    assert sorted(ask("price>=30", 40)) == sorted([*range(30, 60), *range(110, 120)])  # of which it has too few


def test_examples_have_conditions_and_invalid_ones_are_explained(filtered: tuple[str, Retriever]) -> None:
    _, retriever = filtered

    def ask(*where: bytes) -> list[bytes]:
        one = tf.train.Example.FromString(example([], 0.5))
        one.features.feature["where"].bytes_list.value.extend(where)
        answer = retriever.served[EXAMPLES_SIGNATURE](
            examples=tf.constant([one.SerializeToString()]), k=tf.constant([3])
        )
        found: list[bytes] = answer["item_ids"].numpy()[0].tolist()
        return found

    assert ask(b"price=7") == [IDS[7], b"", b""] and b"" not in ask()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"where: expected tags with = or != .*received prize=7"):
        ask(b"price<=9", b"prize=7")


def test_conditions_without_filters_are_refused(retriever: tf.Module) -> None:
    """An Example's unknown features are passed over, but for this: what was to be left out would be found."""
    one = tf.train.Example.FromString(example([], 0.5))
    one.features.feature["where"].bytes_list.value.append(b"price=7")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"no conditions, as features.yaml declares no catalogue.filters"
    ):
        by_examples(retriever, [one.SerializeToString()], [1])


@pytest.fixture(scope="module")
def tower_with_bonuses(tmp_path_factory: pytest.TempPathFactory) -> str:
    spec = SPEC.model_copy(
        update={"query": {**SPEC.query, "past": SPEC.query["past"].model_copy(update={"repeats": True})}}
    )

    def learned(model: TwoTowerModel, _: Any) -> None:
        assert model.repeat_bonus
        for name, value in (("level", 2.5), ("slope", 0.5), ("decay", 1.0)):
            model.repeat_bonus.learned["past"][name].assign(value)

    made = export(spec, {"query": [6], "item": [6]}, tmp_path_factory.mktemp("bonuses"), adjust=learned)
    return f"{made.uri}/Format-Serving/query_tower"


@pytest.mark.parametrize("search", ["exact", "lists", "int8"])
def test_items_of_histories_are_found_with_their_bonuses_whatever_lists_they_are_in(
    search: str, tower_with_bonuses: str, tmp_path: Path
) -> None:
    one_list = {"lists": "float32", "int8": "int8"}
    export_retriever(
        tower_with_bonuses,
        by_lists(ITEMS, 30, 1, one_list[search]) if search in one_list else ExactSearch(ITEMS),
        IDS,
        str(tmp_path),
        COLUMNS,
    )
    retriever = tf.saved_model.load(str(tmp_path / RETRIEVER))
    past = [IDS[3], b"gone", IDS[250]]
    asked = [example(past, 0.3), example([], 0.3), example(past, 0.3, [IDS[250]])]
    queries = load_tower(tower_with_bonuses).signatures[EXAMPLES_SIGNATURE](tf.constant(asked))[EMBEDDING].numpy()
    ids, scores = by_examples(retriever, asked, [3, 3, 3])
    # The newest of the history has 2.5 more, the third 2.5 - log(3) / 2, and all others none.
    bonuses = {IDS[250]: 2.5, IDS[3]: 2.5 - np.log(3) / 2}
    expected = sorted(bonuses, key=lambda item: -(bonuses[item] + float(ITEMS[IDS.index(item)] @ queries[0])))
    assert ids[0][:2] == expected and ids[2][0] == IDS[3] and IDS[250] not in ids[2]
    for row, of_row, query in zip(ids[::2], scores[::2], queries[::2], strict=True):
        products = [float(ITEMS[IDS.index(item)] @ query) + bonuses.get(item, 0.0) for item in row]
        assert of_row == pytest.approx(products, abs=ERRORS[search])
    assert len(set(ids[0])) == 3 and not {*ids[1]} & {IDS[3], IDS[250]} - {*nearest(queries[1], 3)}
    tensors = retriever.signatures[TENSORS_SIGNATURE](
        past=tf.constant([["", *past]]),
        age=tf.constant([0.3]),
        k=tf.constant([3]),
        exclude=tf.constant([[""]]),
        where=tf.constant([["price>=200"]]),  # the price of item n is n
    )
    ids = tensors["item_ids"].numpy().tolist()
    assert ids[0][0] == IDS[250] and {IDS.index(item) >= 200 for item in ids[0]} == {True}


@pytest.mark.parametrize(
    ("queries", "k", "exclude", "words"),
    [
        (unit(1, 6), [0], [[]], "k: expected at least 1"),
        (unit(1, 6), [-5], [[]], "k: expected at least 1"),
        (unit(2, 6), [10_001, 1], [[], []], r"k: expected at most 10000 \(indexer.k_limit\)"),
        (unit(2, 6), [1], [[], []], "k: expected one for each query"),
        (unit(2, 6), [1, 1], [[]], "exclude: expected a row a query"),
        (np.zeros((0, 6), np.float32), [], np.zeros((0, 0)).tolist(), "expected at least one query|exclude"),
        (np.full((1, 6), np.nan, np.float32), [1], [[]], "embedding: expected numbers"),
    ],
)
def test_what_cannot_be_answered_is_an_invalid_argument(
    retriever: tf.Module, queries: Embeddings, k: list[int], exclude: list[list[bytes]], words: str
) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        retriever.signatures["serving_embeddings"](
            embedding=tf.constant(queries),
            k=tf.constant(k, tf.int32),
            exclude=tf.reshape(tf.constant(exclude, tf.string), [len(exclude), -1 if exclude else 0]),
        )


PROTO_ALONE = """
import json, sys
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
saved = saved_model_pb2.SavedModel.FromString(open(sys.argv[1] + "/saved_model.pb", "rb").read())
graph = saved.meta_graphs[0]
nodes = [*graph.graph_def.node, *(node for f in graph.graph_def.library.function for node in f.node_def)]
named = {f.signature.name for f in graph.graph_def.library.function}
unknown = sorted({n.op for n in nodes if n.op not in named and op_def_registry.get(n.op) is None})
dims = lambda info: [d.size for d in info.tensor_shape.dim]
signatures = {name: {side: {key: [info.dtype, dims(info)] for key, info in getattr(signature, side).items()}
                     for side in ("inputs", "outputs")} for name, signature in graph.signature_def.items()}
print(json.dumps({"ops": len(nodes), "unknown": unknown, "signatures": signatures}))
"""
FLOAT, INT, TEXT = 1, 3, 7  # tensorflow.DataType


def test_the_saved_model_suits_stock_tensorflow_serving(folder: str) -> None:
    """Its signatures and operations, read from the proto by a process that has plain TensorFlow alone."""
    command = [sys.executable, "-I", "-c", PROTO_ALONE, folder]
    read = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert read["unknown"] == [] and read["ops"] > 100
    outputs = {"item_ids": [TEXT, [-1, -1]], "scores": [FLOAT, [-1, -1]]}
    k, exclude = [INT, [-1]], [TEXT, [-1, -1]]
    del read["signatures"]["__saved_model_init_op"]
    assert read["signatures"] == {
        "serving_default": {
            "inputs": {"past": [TEXT, [-1, -1]], "age": [FLOAT, [-1]], "k": k, "exclude": exclude},
            "outputs": outputs,
        },
        "serving_examples": {"inputs": {"examples": [TEXT, [-1]], "k": k}, "outputs": outputs},
        "serving_embeddings": {
            "inputs": {"embedding": [FLOAT, [-1, 6]], "k": k, "exclude": exclude},
            "outputs": outputs,
        },
    }


def test_the_retriever_keeps_ids_in_the_order_of_its_search(query_tower: str) -> None:
    search = SEARCHES["lists"](ITEMS)
    made = Retriever(load_tower(query_tower), search, IDS)
    assert made.ids.numpy().tolist() == [IDS[row] for row in search.order]
    assert search.order.tolist() != list(range(300))
