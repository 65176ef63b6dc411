"""Four shards give the answers of one index, to the last tie: stitched in one graph, or each by itself and merged by the client."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from components.indexer import faiss_index
from components.indexer.retriever import Retriever
from components.indexer.search import ExactSearch, ListSearch, Search
from components.indexer.settings import Plan
from components.indexer.shards import shards_of
from components.indexer.stitched import StitchedSearch
from ndr_client.merging import merged

ITEMS, WIDTH = 90, 4
IDS = sorted(b"item %d" % number for number in range(ITEMS))
RANDOM = np.random.default_rng(1)
# Quarters: every product is exact, whatever the order of summation, and most items share their score with others.
VECTORS = RANDOM.choice([-0.5, 0.0, 0.5], (ITEMS, WIDTH)).astype(np.float32)
LANDS = [[], [b"de"], [b"de", b"at"], [b"fr"]]
COLUMNS = pa.table(
    {
        "land": pa.array([LANDS[n % 4] for n in range(ITEMS)], pa.list_(pa.binary())),
        "price": pa.array([None if n % 5 == 0 else float(n % 7) for n in range(ITEMS)], pa.float32()),
    }
)
CONDITIONS = {
    "land=de": [b"de" in LANDS[n % 4] for n in range(ITEMS)],
    "land!=fr": [b"fr" not in LANDS[n % 4] for n in range(ITEMS)],
    "price>=4": [n % 5 != 0 and n % 7 >= 4 for n in range(ITEMS)],
    "price<=1": [n % 5 != 0 and n % 7 <= 1 for n in range(ITEMS)],
    "land=nowhere": [False] * ITEMS,
}
BONUS = 0.25


class Tower(tf.Module):
    """A query is its own embedding; what it has seen is scored BONUS higher."""

    def __init__(self) -> None:
        super().__init__()
        features = {
            "vector": tf.TensorSpec([None, WIDTH], tf.float32, name="vector"),
            "past": tf.TensorSpec([None, None], tf.string, name="past"),
        }

        def answer(vector: tf.Tensor, past: tf.Tensor) -> dict[str, tf.Tensor]:
            bonuses = tf.where(past == "", 0.0, BONUS)
            return {"embedding": tf.identity(vector), "repeated_items": tf.identity(past), "repeated_bonuses": bonuses}

        @tf.function(input_signature=[features])
        def from_tensors(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return answer(tensors["vector"], tensors["past"])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def from_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            wanted = {"vector": tf.io.FixedLenFeature([WIDTH], tf.float32), "past": tf.io.VarLenFeature(tf.string)}
            parsed = tf.io.parse_example(examples, wanted)
            return answer(parsed["vector"], tf.sparse.to_dense(parsed["past"]))

        self.served = {"serving_default": from_tensors, "serving_examples": from_examples}


class World(NamedTuple):
    """The same items in one index, in four stitched ones, and in four."""

    one: Retriever
    stitched: Retriever
    shards: list[Retriever]

    def answers(self, signature: str, inputs: dict[str, Any]) -> list[tuple[NDArray[Any], NDArray[np.float32]]]:
        """Ids and scores of each of the three."""
        found = [self._ask(each, signature, inputs) for each in (self.one, self.stitched, *self.shards)]
        return [*found[:2], merged(found[2:], np.array(inputs["k"], np.int32))]

    @staticmethod
    def _ask(retriever: Retriever, signature: str, inputs: dict[str, Any]) -> tuple[NDArray[Any], NDArray[np.float32]]:
        outputs = retriever.served[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        return outputs["item_ids"].numpy(), outputs["scores"].numpy()


def by_lists(vectors: NDArray[np.float32]) -> ListSearch:
    """Probes all lists."""
    divided = faiss_index.build(vectors, Plan("ivf", 3, 3), seed=0).lists
    assert divided is not None
    return ListSearch(vectors, divided, 3, 200)


@pytest.fixture(scope="module", params=[ExactSearch, by_lists], ids=["exact", "lists"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = str(tmp_path_factory.mktemp("tower"))
    made = Tower()
    tf.saved_model.save(made, folder, signatures=made.served)
    tower = tf.saved_model.load(folder)
    rows = [[n for n, item in enumerate(IDS) if shard.has(item)] for shard in shards_of(4)]
    assert all(rows) and sorted(n for each in rows for n in each) == list(range(ITEMS))
    ids = [[IDS[n] for n in each] for each in rows]
    searches: list[Search] = [request.param(VECTORS[each]) for each in rows]
    apart = [
        Retriever(tower, search, own, COLUMNS.take(of_shard), k_limit=200)
        for search, own, of_shard in zip(searches, ids, rows, strict=True)
    ]
    stitched = Retriever(tower, StitchedSearch(searches, ids), IDS, COLUMNS, k_limit=200)
    return World(Retriever(tower, request.param(VECTORS), IDS, COLUMNS, k_limit=200), stitched, apart)


def by_definition(
    query: NDArray[np.float32], k: int, width: int, exclude: list[bytes], where: list[str], past: list[bytes]
) -> tuple[list[bytes], list[float]]:
    """The first k items, padded, of equal scores those with the lower id."""
    scores = VECTORS @ query + [BONUS * (item in past) for item in IDS]
    lands = [CONDITIONS[each] for each in where if each.startswith("land=")]
    all_of = [CONDITIONS[each] for each in where if not each.startswith("land=")]
    passing = [
        all(each[n] for each in all_of) and (not lands or any(each[n] for each in lands)) and item not in exclude
        for n, item in enumerate(IDS)
    ]
    best = sorted((-float(scores[n]), item) for n, item in enumerate(IDS) if passing[n])[:k]
    missing = min(width, ITEMS) - len(best)
    return [item for _, item in best] + [b""] * missing, [-score for score, _ in best] + [-2.0] * missing


def padded(lists: list[list[bytes]]) -> NDArray[Any]:
    width = max(1, *map(len, lists)) if len(lists) > 1 else max(1, len(lists[0]))
    return np.array([[*each, *[b""] * (width - len(each))] for each in lists], object)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), batch=st.integers(1, 3), has_history=st.booleans())
def test_four_shards_answer_as_one_index_does(world: World, seed: int, batch: int, has_history: bool) -> None:
    """Filters, exclusion, histories that are scored higher, and more items asked for than there are."""
    random = np.random.default_rng(seed)
    queries = random.choice([-0.5, 0.0, 0.5], (batch, WIDTH)).astype(np.float32)
    k = random.choice([1, 3, 10, 60, 100], batch).astype(np.int32)
    some = [*IDS, b"nothing"]

    def drawn(most: int) -> list[list[bytes]]:
        return [[some[n] for n in random.permutation(len(some))[: random.integers(0, most)]] for _ in range(batch)]

    exclude, past = drawn(12), drawn(5) if has_history else [[] for _ in range(batch)]
    names = [*CONDITIONS]
    where = [[names[n] for n in random.permutation(len(names))[: random.integers(0, 3)]] for _ in range(batch)]
    inputs = {"k": k, "exclude": padded(exclude), "where": padded([[each.encode() for each in row] for row in where])}
    if has_history:
        answers = world.answers("serving_default", {**inputs, "vector": queries, "past": padded(past)})
    else:
        answers = world.answers("serving_embeddings", {**inputs, "embedding": queries})
    expected = [by_definition(queries[n], int(k[n]), int(k.max()), exclude[n], where[n], past[n]) for n in range(batch)]
    is_exact = isinstance(world.one.search, ExactSearch)
    for ids, scores in answers:
        assert scores.tolist() == [each for _, each in expected]
        if is_exact:  # lists are not in the order of the ids
            assert ids.tolist() == [each for each, _ in expected]
    for row, (best, _) in enumerate(expected):
        for found, _ in answers:
            kept = [item for item in found[row].tolist() if item]
            assert len(kept) == len(set(kept)) == sum(item != b"" for item in best)


def test_an_item_is_always_in_the_same_shard() -> None:
    # The remainder of blake2b(id) by the number of shards: of "a", 0x40f89e395b66422f.
    assert [[shard.has(b"a") for shard in shards_of(number)] for number in (1, 2, 4)] == [
        [True],
        [False, True],
        [False, False, False, True],
    ]
    assert [shard.name("index") for shard in shards_of(2)] == ["index-0-of-2", "index-1-of-2"]
