"""The clients against a server: what they ask, what they make of the answers, and that they never mix versions."""

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import faiss
import grpc
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import ArrayLike

from ndr_client import Client, FaissClient, VersionError, served
from ndr_client.faiss_client import Index
from serving.server import EmbeddedServer
from tests.serving.tiny import ITEMS, Pushes, Serve, example, nearest


@pytest.fixture
def client(served: EmbeddedServer) -> Iterator[Client]:
    with Client(f"127.0.0.1:{served.port}") as client:
        yield client


def connected(server: EmbeddedServer) -> Client:
    return Client(f"127.0.0.1:{server.port}")


def test_towers_embed_features_and_examples_alike(client: Client) -> None:
    features = client.embed("query_tower", {"angle": [0.6, 2.0], "past": [["a"], [""]]})
    examples = client.embed("query_tower", [example(0.6), example(2.0)])
    expected = [[math.cos(0.6), math.sin(0.6)], [math.cos(2.0), math.sin(2.0)]]
    np.testing.assert_allclose(features.outputs["embedding"], expected, rtol=1e-6)
    np.testing.assert_array_equal(examples.outputs["embedding"], features.outputs["embedding"])
    assert features.version == examples.version == client.available("query_tower")[0]


def test_the_retriever_gives_each_query_its_k_without_excluded_items(client: Client) -> None:
    # Item n lies at n / 2: nearest to 0.6 are 1, 2, 0; nearest to 2.1 are 4, 3, 2.
    features: dict[str, ArrayLike] = {"angle": [0.6, 2.1], "past": [["a"], [""]]}
    found = client.retrieve(features, [2, 3], exclude=[[], [b"one-4"]])
    assert found.item_ids.tolist() == [[b"one-1", b"one-2", b""], [b"one-3", b"one-2", b"one-1"]]
    np.testing.assert_allclose(
        found.scores, [[math.cos(0.1), math.cos(0.4), -2.0], [math.cos(0.6), math.cos(1.1), math.cos(1.6)]], rtol=1e-5
    )
    examples = client.retrieve([example(0.6), example(2.1, (b"one-4",))], [2, 3])
    assert examples.item_ids.tolist() == found.item_ids.tolist()
    assert client.retrieve(features, 1).item_ids.tolist() == [[b"one-1"], [b"one-4"]]
    with pytest.raises(ValueError, match="expected None beside Examples"):
        client.retrieve([example(0.6)], 1, exclude=[[b"one-1"]])


def test_an_answer_is_as_wide_as_was_asked_for_whatever_it_was_merged_with(client: Client) -> None:
    widths = list[tuple[int, set[int]]]()

    def ask(k: int) -> None:
        inputs = {"examples": np.array([example(0.6)], object), "k": np.array([k], np.int32)}
        for _ in range(20):  # as the server gives it: the client would cut what is wider
            outputs = client.predict("retriever", "serving_examples", inputs).outputs
            widths.append((k, {values.shape[1] for values in outputs.values()}))

    threads = [threading.Thread(target=ask, args=(1 + number % 4,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(widths) == 160 and all(found == {k} for k, found in widths)


def test_similar_items_are_those_nearest_to_an_item_without_itself(client: Client) -> None:
    # Item n lies at n / 2: nearest to 3 are 4 and 2, then 1; nearest to 0 are 1 and 2.
    found = client.similar([example(3.0, feature="number"), example(0.0, feature="number")], ["one-3", "one-0"], [3, 1])
    assert found.item_ids[:, 0].tolist() in ([b"one-2", b"one-1"], [b"one-4", b"one-1"])
    assert {*found.item_ids[0].tolist()} == {b"one-2", b"one-4", b"one-1"} and found.item_ids[1, 1:].tolist() == [
        b""
    ] * 2
    np.testing.assert_allclose(found.scores[0], [math.cos(0.5), math.cos(0.5), math.cos(1.0)], rtol=1e-5)
    assert found.version == client.available("retriever")[0]
    without = client.similar({"number": [3.0]}, [b"one-3"], 2, exclude=[["one-4"]])
    assert without.item_ids.tolist() == [[b"one-2", b"one-1"]]
    with pytest.raises(ValueError, match="ids: expected one for each of 1 items, received 2"):
        client.similar({"number": [3.0]}, ["one-3", "one-4"], 2)


def test_optional_inputs_may_be_omitted(client: Client) -> None:
    """So that a client that knows nothing of conditions goes on where a model has them."""
    inputs: dict[str, ArrayLike] = {"angle": [0.6], "past": [["a"]], "k": np.array([2], np.int32)}
    answer = client.predict("retriever", "serving_default", inputs)
    assert answer.outputs["item_ids"].tolist() == [[b"one-1", b"one-2"]]


def test_text_keeps_the_zeros_at_its_end(client: Client) -> None:
    answer = client.predict("retriever", "serving_default", {
        "angle": [0.6], "past": [["a"]], "k": np.array([1], np.int32), "exclude": [[b"one-1\0"]],
    })  # fmt: skip
    assert answer.outputs["item_ids"].tolist() == [[b"one-1"]]


def test_a_refusal_reaches_the_caller_with_its_code(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as refusal:
        client.embed("query_tower", [b"\xff"])
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert client.available("none") == []


def test_faiss_and_the_retriever_find_the_same(serve: Serve, pushes: Pushes) -> None:
    version = pushes.push("one")
    with connected(serve(pushes.root)) as client:
        search = FaissClient(client, pushes.root)
        rows = [example(0.6), example(2.1)]
        by_faiss, by_retriever = search.for_queries(rows, 3), client.retrieve(rows, 3)
        assert by_faiss.item_ids.tolist() == by_retriever.item_ids.tolist()
        np.testing.assert_allclose(by_faiss.scores, by_retriever.scores, rtol=1e-6)
        assert by_faiss.version == version
        similar = search.like_items([example(3.1, feature="number")], 2)
        assert similar.item_ids.tolist() == [[b"one-3", b"one-4"]]
        more = search.for_queries([example(0.6)], ITEMS + 1)
        assert more.item_ids[0].tolist() == [b"one-%d" % n for n, _ in nearest(0.6, ITEMS)] + [b""]
        assert more.scores[0, -1] == served.NO_SCORE


def test_faiss_finds_items_that_meet_each_rows_conditions(serve: Serve, pushes: Pushes) -> None:
    pushes.push("one")
    with connected(serve(pushes.root)) as client:
        search = FaissClient(client, pushes.root)
        features: dict[str, ArrayLike] = {"angle": [0.6, 0.6, 2.1], "past": [[""], [""], [""]]}
        # Nearest to 0.6 are 1, 2, 0, 3, 4; nearest to 2.1 are 4, 3, 2, 1, 0. The last is neither even nor odd.
        found = search.for_queries(features, 2, where=[["parity=even"], [], ["parity!=odd", "number<=2"]])
        assert found.item_ids.tolist() == [[b"one-2", b"one-0"], [b"one-1", b"one-2"], [b"one-2", b"one-0"]]
        asked = tf.train.Example.FromString(example(0.6))
        asked.features.feature["where"].bytes_list.value.extend([b"number>=3", b"parity=odd"])
        by_example = search.for_queries([asked.SerializeToString(), example(0.6)], 2)
        assert by_example.item_ids.tolist() == [[b"one-3", b""], [b"one-1", b"one-2"]]
        assert by_example.scores[0].tolist() == [pytest.approx(math.cos(0.9)), served.NO_SCORE]
        with pytest.raises(ValueError, match=r"where: expected parity with = or != .* received size=3"):
            search.for_queries(features, 2, where=[["size=3"]] * 3)
        with pytest.raises(ValueError, match="conditions for each of 3 rows, received 1"):
            search.for_queries(features, 2, where=[["number=3"]])
        with pytest.raises(ValueError, match="expected None beside Examples"):
            search.for_queries([example(0.6)], 2, where=[["number=3"]])


@pytest.mark.parametrize("lists", [None, 20])
def test_faiss_finds_all_that_pass_where_they_are_few(lists: int | None) -> None:
    random = np.random.default_rng(0)
    items, queries = (random.normal(size=(count, 8)).astype(np.float32) for count in (400, 5))
    index: faiss.Index = faiss.IndexFlatIP(8)
    if lists:
        index = faiss.IndexIVFFlat(index, 8, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(items)
        index.make_direct_map()  # and one of the lists is probed
    index.add(items)
    searched = Index(1, index, np.array([b"%03d" % number for number in range(400)], object))
    # 2 of 400 items; 160 of which a list has some 8, asked for more; none.
    for passing, k in ((np.arange(400) % 200 == 3, 5), (np.arange(400) % 5 < 2, 40), (np.zeros(400, bool), 3)):
        _, rows = searched.search(queries, k, passing)
        order = np.argsort(-np.where(passing, queries @ items.T, -np.inf), axis=1)[:, :k]
        expected = np.where(passing[order], order, -1)
        assert rows.tolist() == expected.tolist()
    # What a history adds to does not pass either.
    repeated, bonuses = np.array([[b"003", b"004"]] * 5, object), np.full((5, 2), 90, np.float32)
    _, rows = searched.with_repeated(queries, 2, repeated, bonuses, np.arange(400) % 200 == 3)
    assert rows.tolist() == [[3, 203]] * 5


def test_faiss_probes_more_lists_for_more_items_and_at_last_all() -> None:
    random = np.random.default_rng(0)
    items, queries = (random.normal(size=(count, 8)).astype(np.float32) for count in (4000, 5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(8), 8, 20, faiss.METRIC_INNER_PRODUCT)
    index.train(items)
    index.add(items)
    index.nprobe = 2  # which are enough for the first 100
    searched = Index(1, index, np.array([b"%04d" % number for number in range(4000)], object))
    # Twice 1, 2.25 and 4 to the power of .75 are 2, 3.7 and 5.7; 400 is a tenth.
    for k, probes in ((100, 2), (225, 4), (400, 6), (401, 20)):
        params = faiss.SearchParametersIVF()
        params.nprobe = probes
        assert searched.search(queries, k)[1].tolist() == index.search(queries, k, params=params)[1].tolist()
    # The first 100 of half the items are the first 200 of all: twice 2 to the power of .75 is 3.4.
    half = np.arange(4000) % 2 == 0
    selector = faiss.IDSelectorBitmap(np.packbits(half, bitorder="little"))  # type: ignore[call-arg,arg-type]
    params = faiss.SearchParametersIVF()
    params.nprobe, params.sel = 4, selector
    assert searched.search(queries, 100, half)[1].tolist() == index.search(queries, 100, params=params)[1].tolist()


@pytest.mark.parametrize("lists", [None, 20])
def test_faiss_finds_items_of_histories_with_their_bonuses_whatever_lists_they_are_in(lists: int | None) -> None:
    random = np.random.default_rng(0)
    items, queries = (random.normal(size=(count, 8)).astype(np.float32) for count in (200, 3))
    index: faiss.Index = faiss.IndexFlatIP(8)
    if lists:
        index = faiss.IndexIVFFlat(index, 8, lists, faiss.METRIC_INNER_PRODUCT)
        index.train(items)
        index.make_direct_map()
    index.add(items)
    ids = np.array([b"%03d" % number for number in range(200)], object)
    scores = queries @ items.T
    # The last item of all with 90 more, the first with 90 less, and one that the index lacks.
    last, first = scores.argmin(axis=1), scores.argmax(axis=1)
    repeated = np.array([[ids[low], b"gone", ids[high], b""] for low, high in zip(last, first, strict=True)], object)
    bonuses = np.tile(np.array([90, 90, -90, 0], np.float32), (3, 1))
    scores[np.arange(3), last] += 90
    scores[np.arange(3), first] -= 90
    found_scores, rows = Index(1, index, ids).with_repeated(queries, 2, repeated, bonuses)
    assert rows[:, 0].tolist() == last.tolist()
    assert not (rows == first[:, np.newaxis]).any()
    np.testing.assert_allclose(found_scores, np.take_along_axis(scores, rows, axis=1), rtol=1e-5)
    if not lists:
        assert rows.tolist() == np.argsort(-scores, axis=1)[:, :2].tolist()


def test_the_index_is_of_the_version_that_the_server_has(serve: Serve, pushes: Pushes) -> None:
    """A pushed version that the server has not loaded yet is not used; one that it unloaded is no longer used."""
    first = pushes.push("one")
    server = serve(pushes.root)
    with connected(server) as client:
        search = FaissClient(client, pushes.root, check_seconds=0.0)
        assert search.for_queries([example(0.6)], 1).item_ids.tolist() == [[b"one-1"]]
        server._watcher.stop()
        second = pushes.push("two")
        found = search.for_queries([example(0.6)], 1)
        assert (found.version, found.item_ids.tolist()) == (first, [[b"one-1"]])
        server.versions.refresh()
        found = search.for_queries([example(0.6)], 1)
        assert (found.version, found.item_ids.tolist()) == (second, [[b"two-1"]])

        unaware = FaissClient(client, pushes.root, check_seconds=3600.0)
        assert unaware.for_queries([example(0.6)], 1).version == second
        for label in ("three", "four"):
            pushes.push(label)
        server.versions.refresh()
        assert second not in client.available("query_tower")
        assert unaware.for_queries([example(0.6)], 1).item_ids.tolist() == [[b"four-1"]]


def test_the_lack_of_a_common_version_is_reported(serve: Serve, pushes: Pushes, tmp_path: Path) -> None:
    pushes.push("one")
    with connected(serve(pushes.root)) as client, pytest.raises(VersionError, match="found none"):
        FaissClient(client, tmp_path / "another").for_queries([example(0.6)], 1)


@pytest.mark.parametrize("name", ["index.faiss", "ids.arrow"])
def test_a_changed_index_is_not_searched(serve: Serve, pushes: Pushes, name: str) -> None:
    version = pushes.push("one")
    with connected(serve(pushes.root)) as client:
        path = pushes.root / "index" / str(version) / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(VersionError, match=rf"index/{version}/{name} has another content than what was pushed"):
            FaissClient(client, pushes.root).for_queries([example(0.6)], 1)
