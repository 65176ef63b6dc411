"""A catalogue to its index: a real tower embeds it by Beam, and whatever is found in it is the item that it should be."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import faiss
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tfx import types
from tfx.types import standard_artifacts

from components import recorded
from components.artifacts import ItemIndex, Retriever
from components.digests import digest
from components.indexer import embedding, faiss_index, files
from components.indexer.component import IndexerExecutor
from components.indexer.embedding import EmbedCatalogue, EmbedSomeQueries, LoadedTower
from components.indexer.settings import IndexerSettings, Plan
from components.pusher import object_store  # registers file systems
from ndr_client.merging import merged
from ndr_client.served import ITEM_TOWER, QUERY_TOWER
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, FeatureSpec
from tests.components.exported import export

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"item": {"width": 8, "hash_buckets": 20_000}},
        "query": {"past": {"kind": "history", "table": "item", "last": 2}},
        "item": {"item": {"kind": "id", "table": "item"}, "price": {"kind": "number", "scale": "none"}},
    }
)
assert object_store
WIDTH, ITEMS = 6, 4000  # in three partitions: each of two batches and a rest
plans = pytest.mark.parametrize("plan", [Plan("flat"), Plan("ivf", 4, 2)], ids=lambda plan: plan.kind)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> types.Artifact:
    """A model with an item tower behind a transform, as the Trainer leaves it, but untrained."""
    return export(SPEC, {"query": [WIDTH], "item": [16, WIDTH]}, tmp_path_factory.mktemp("model"))


def tower_of(model: types.Artifact) -> str:
    return f"{model.uri}/Format-Serving/{ITEM_TOWER}"


def example(item: bytes, price: float = 1.0) -> bytes:
    made = tf.train.Example()
    for name in (CANDIDATE_ID, "item"):
        made.features.feature[name].bytes_list.value.append(item)
    made.features.feature["price"].float_list.value.append(price)
    return made.SerializeToString(deterministic=True)


def query(*history: bytes) -> bytes:
    made = tf.train.Example()
    made.features.feature["past"].bytes_list.value.extend(history)
    return made.SerializeToString(deterministic=True)


def item_ids(count: int = ITEMS) -> list[bytes]:
    return [b"item %d" % number for number in range(count)]


def write_catalogue(folder: Path, examples: list[bytes], in_files: int = 3, name: str = "catalogue") -> types.Artifact:
    split = folder / f"Split-{name}"
    split.mkdir(parents=True)
    for number in range(in_files):
        with tf.io.TFRecordWriter(str(split / f"{number}.gz"), "GZIP") as writer:
            for each in examples[number::in_files]:
                writer.write(each)
    catalogue = standard_artifacts.Examples()
    catalogue.uri, catalogue.split_names = str(folder), json.dumps([name])
    return catalogue


def embed(catalogue: types.Artifact, tower: str, folder: Path, *options: str) -> dict[str, bytes]:
    """What EmbedCatalogue writes, by file name."""
    with beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        _ = pipeline | EmbedCatalogue([f"{catalogue.uri}/Split-catalogue/*"], tower, str(folder))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def index(
    catalogue: types.Artifact, model: types.Artifact, folder: Path, filters: str = "{}", **settings: object
) -> types.Artifact:
    """What the step leaves; its queries have seen two items each."""
    made, retriever = ItemIndex(), Retriever()
    made.uri, retriever.uri = str(folder), f"{folder}-retriever"
    seen = [query(item, other) for item, other in zip(item_ids(200), item_ids(400)[200:], strict=True)]
    interactions = write_catalogue(folder.parent / f"{folder.name}-interactions", seen, name="train")
    IndexerExecutor().Do(
        {"model": [model], "catalogue": [catalogue], "examples": [interactions]},
        {"index": [made], "retriever": [retriever]},
        {"settings": IndexerSettings.model_validate(settings).model_dump_json(), "filters": filters},
    )
    return made


@pytest.fixture
def three_partitions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.Artifact:
    """A catalogue whose size asks for three partitions."""
    catalogue = write_catalogue(tmp_path / "catalogue", [example(item) for item in item_ids()])
    size = sum(path.stat().st_size for path in Path(catalogue.uri).rglob("*.gz"))
    monkeypatch.setattr(embedding, "PARTITION_BYTES", -(-size // 3))
    return catalogue


def test_every_item_has_the_embedding_that_the_tower_gives_it(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path
) -> None:
    written = embed(three_partitions, tower_of(model), tmp_path / "index")
    assert sorted(written) == [f"items-0000{number}-of-00003.arrow" for number in range(3)]
    items = files.read(str(tmp_path / "index"))
    assert items.ids == sorted(item_ids())
    assert items.embeddings.dtype == np.float32 and items.embeddings.shape == (ITEMS, WIDTH)
    tower = LoadedTower(tower_of(model))
    assert tower.width == WIDTH
    np.testing.assert_allclose(items.embeddings, tower.embed([example(item) for item in items.ids]), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(items.embeddings, axis=1), 1.0, atol=1e-5)


@pytest.mark.usefixtures("graph_optimizer")
@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_several_workers_write_the_same_bytes_as_one(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path, mode: str
) -> None:
    one = embed(three_partitions, tower_of(model), tmp_path / "one")
    two = embed(
        three_partitions, tower_of(model), tmp_path / "two", "--direct_num_workers=2", f"--direct_running_mode={mode}"
    )
    assert two == one


def test_the_order_and_the_files_of_the_catalogue_are_no_matter(model: types.Artifact, tmp_path: Path) -> None:
    examples = [example(item) for item in item_ids()]
    one = embed(write_catalogue(tmp_path / "a", examples, 1), tower_of(model), tmp_path / "one")
    other = embed(write_catalogue(tmp_path / "b", examples[::-1], 7), tower_of(model), tmp_path / "other")
    assert list(one) == ["items-00000-of-00001.arrow"] and other == one


def test_each_partition_is_embedded_in_the_order_of_its_ids_by_512(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path
) -> None:
    embed(three_partitions, tower_of(model), tmp_path / "index")
    for path in sorted((tmp_path / "index").iterdir()):
        table = pa.ipc.open_file(path).read_all()
        ids, sizes = table.column("candidate_id").to_pylist(), [len(batch) for batch in table.to_batches()]
        assert ids == sorted(ids)
        assert sizes == [512, 512, len(ids) - 1024]


def test_a_partition_without_items_is_written_too(
    model: types.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "PARTITION_BYTES", 16)
    catalogue = write_catalogue(tmp_path / "catalogue", [example(item) for item in item_ids(2)], 1)
    written = embed(catalogue, tower_of(model), tmp_path / "index")
    assert len(written) > 2
    assert files.read(str(tmp_path / "index")).ids == item_ids(2)


def test_queries_to_tune_by_are_those_with_the_smallest_digests_of_all_files(
    model: types.Artifact, tmp_path: Path
) -> None:
    # By hand: the five smallest of thirty digests, in their order, whichever of three files they are in.
    queries = [query(item) for item in item_ids(30)]
    interactions = write_catalogue(tmp_path / "interactions", queries)
    tower = f"{model.uri}/Format-Serving/{QUERY_TOWER}"
    with beam.Pipeline() as pipeline:
        path = str(tmp_path / "queries.npy")
        _ = pipeline | EmbedSomeQueries([f"{interactions.uri}/Split-catalogue/*"], 5, tower, path)
    expected = LoadedTower(tower).embed(sorted(queries, key=lambda each: digest(each, 16))[:5])
    assert np.load(path).tolist() == expected.tolist()


def test_an_item_whose_embedding_is_not_finite_is_named(model: types.Artifact, tmp_path: Path) -> None:
    prices = {b"item 7": float("inf"), b"item 8": float("inf")}
    catalogue = write_catalogue(tmp_path / "c", [example(item, prices.get(item, 1.0)) for item in item_ids(20)])
    with pytest.raises(UserError, match="others for 2 of 20 items, the first of them 'item 7'"):
        index(catalogue, model, tmp_path / "index")


@pytest.mark.parametrize("fault", ["missing", "saved_model.pb", "variables.index", "variables.data-00000-of-00001"])
def test_a_tower_that_cannot_be_loaded_is_named(model: types.Artifact, tmp_path: Path, fault: str) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue", [example(b"a")])
    broken = tmp_path / "tower"
    if fault != "missing":
        for path in Path(tower_of(model)).rglob("*"):
            if path.is_file():
                copy = broken / path.relative_to(tower_of(model))
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(b"nonsense" if str(copy).endswith(fault) else path.read_bytes())
    with pytest.raises(UserError, match=f"{broken}: expected the SavedModel of a tower") as raised:
        embed(catalogue, str(broken), tmp_path / "index")
    assert "while running" not in str(raised.value)


def write_partitions(folder: Path, *partitions: dict[bytes, list[float]]) -> None:
    for number, partition in enumerate(partitions):
        batches = [([item], np.array([vector], np.float32)) for item, vector in partition.items()]
        files.write_partition(str(folder), number, len(partitions), 2, batches)


@pytest.mark.parametrize("rows_at_once", [1, 2, 5])
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_row_is_the_place_of_an_id_over_all_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool, rows_at_once: int
) -> None:
    monkeypatch.setattr(files, "GATHERED_ROWS", rows_at_once)
    write_partitions(tmp_path, {b"b": [1, 0], b"\xff": [2, 0]}, {}, {b"a": [3, 0], b"c": [4, 0], b"": [5, 0]})
    read = files.read(str(tmp_path), on_disk=on_disk)
    assert read.ids == [b"", b"a", b"b", b"c", b"\xff"]
    assert read.embeddings.tolist() == [[5, 0], [3, 0], [1, 0], [4, 0], [2, 0]]


def test_embeddings_of_an_address_stay_on_disk_too() -> None:
    folder, vectors = "ram://embeddings/index", np.array([[1, 0], [2, 0]], np.float32)
    files.write_partition(folder, 0, 1, 2, [([b"a", b"b"], vectors)])
    assert files.read(folder, on_disk=True).embeddings.tolist() == vectors.tolist()


def test_partitions_that_are_not_whole_are_refused_by_name(tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words) as raised:
            files.read(str(folder))
        assert str(folder) in str(raised.value)

    folder = tmp_path / "index"
    refused(r"expected items-\*.arrow, found none")
    write_partitions(folder, {b"a": [1, 0]}, {b"b": [2, 0]})
    second = max(folder.iterdir())
    whole = second.read_bytes()
    second.unlink()
    refused("found none of the name items-00001-of-00002.arrow")
    second.write_bytes(whole[:-20])
    refused("expected Arrow IPC in items-00001-of-00002.arrow")
    second.write_bytes(b"")
    refused("expected Arrow IPC in items-00001-of-00002.arrow")
    with pa.ipc.new_file(second, pa.schema([("candidate_id", pa.binary())])):
        pass
    refused("expected ids and embeddings in items-00001-of-00002.arrow, found candidate_id: binary")
    files.write_partition(str(folder), 1, 2, 3, [([b"b"], np.ones((1, 3), np.float32))])
    refused(r"embeddings of one width, found \[2, 3\]")
    second.write_bytes(whole)
    assert files.read(str(folder)).ids == [b"a", b"b"]
    files.write_partition(str(folder), 0, 1, 2, [])
    refused("expected the partitions of one catalogue, found items-00000-of-00001.arrow, items-00000-of-00002.arrow")


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def circle(*degrees: float) -> NDArray[np.float32]:
    """Unit vectors at angles: of two of them, the product is the cosine of what they are apart."""
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@plans
def test_the_nearest_come_first(plan: Plan) -> None:
    # Two bundles opposite each other. From 7 degrees: 10 is 3 away, 0 is 7, 20 is 13; from 193: 190, 200, 180.
    items = circle(0, 180, 10, 190, 20, 200)
    found = faiss_index.build(items, Plan(plan.kind, plan.lists and 2, plan.probes and 1), seed=0)
    rows = found.search(circle(7, 193), 3)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[2, 0, 4], [3, 5, 1]]


@plans
def test_nearest_is_by_inner_product_not_by_distance(plan: Plan) -> None:
    # Of a query (1, 0): products 1, 3, 2 and 0; distances 0, 2.2, 1.4 and 1.4.
    items = np.array([[1, 0], [3, 1], [2, 1], [0, 1]], np.float32)
    found = faiss_index.build(items, Plan(plan.kind, plan.lists, plan.lists), seed=0)
    assert found.search(np.array([[1, 0]], np.float32), 4).tolist() == [[1, 2, 0, 3]]


@plans
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), items=st.integers(4, 400))
def test_an_items_own_embedding_finds_it_first(plan: Plan, seed: int, items: int) -> None:
    embeddings = unit(np.random.default_rng(seed).normal(size=(items, 8)))
    found = faiss_index.build(embeddings, plan, seed).search(embeddings, 3)
    assert found[:, 0].tolist() == list(range(items))
    assert all(len(set(rows) - {-1}) == np.count_nonzero(rows >= 0) for rows in found)  # none twice


@plans
def test_where_there_are_fewer_than_k_the_rest_is_minus_one(plan: Plan) -> None:
    items = circle(0, 90, 180, 270)  # of four lists, each holds one, and two are looked at
    rows = faiss_index.build(items, plan, seed=0).search(circle(10), 6)
    assert rows.tolist() == ([[0, 1, 3, 2, -1, -1]] if plan.kind == "flat" else [[0, 1, -1, -1, -1, -1]])


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_one_item_is_found_by_whatever_is_asked(kind: str) -> None:
    plan = IndexerSettings.model_validate({"kind": kind}).plan(1)
    rows = faiss_index.build(circle(30), plan, seed=0).search(circle(30, 210), 2)
    assert rows.tolist() == [[0, -1], [0, -1]]


@plans
def test_items_that_are_all_alike_are_all_there(plan: Plan) -> None:
    items = np.repeat(circle(30, 120), 10, axis=0)
    found = faiss_index.build(items, plan, seed=0)
    rows = found.search(circle(31), 10)
    assert sorted(rows[0].tolist()) == list(range(10))


def test_an_ivf_that_probes_every_list_is_exact() -> None:
    embeddings = unit(np.random.default_rng(0).normal(size=(2000, 8)))
    queries = unit(np.random.default_rng(1).normal(size=(50, 8)))
    exact = np.argsort(-(queries @ embeddings.T), axis=1)[:, :10]
    for plan in (Plan("flat"), Plan("ivf", 30, 30)):
        assert np.array_equal(faiss_index.build(embeddings, plan, seed=0).search(queries, 10), exact)


@pytest.fixture
def threads() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    yield
    faiss.omp_set_num_threads(before)


@plans
def test_the_same_embeddings_give_the_same_index_to_the_byte(plan: Plan, tmp_path: Path, threads: None) -> None:
    embeddings = unit(np.random.default_rng(0).normal(size=(3000, 32)))
    written = []
    for number in (1, 3):
        faiss.omp_set_num_threads(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        faiss_index.build(embeddings, plan, seed=5).write(str(folder))
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1] and list(written[0]) == ["index.faiss"]


def test_another_seed_gives_other_lists(tmp_path: Path) -> None:
    embeddings = unit(np.random.default_rng(0).normal(size=(3000, 8)))
    queries = embeddings[:100] + np.float32(0.3)
    one, other = (faiss_index.build(embeddings, Plan("ivf", 50, 1), seed).search(queries, 20) for seed in (0, 1))
    assert not np.array_equal(one, other)


@plans
@pytest.mark.parametrize("shape", [(2,), (1, 3), (1, 1, 2)])
def test_queries_of_another_shape_are_refused(plan: Plan, shape: tuple[int, ...]) -> None:
    found = faiss_index.build(circle(0, 90, 180, 270), plan, seed=0)
    with pytest.raises(ValueError, match=r"queries: expected the shape \[batch, 2\], received"):
        found.search(np.ones(shape, np.float32), 1)
    with pytest.raises(ValueError, match="k: expected at least 1, received 0"):
        found.search(circle(0), 0)


@pytest.mark.parametrize(
    ("given", "plan"),
    [({"kind": "flat"}, Plan("flat")), ({"exact_below": 10, "lists": 20, "probes": 10}, Plan("ivf", 20, 10))],
)
def test_the_step_leaves_an_index_that_finds_every_item(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path, given: dict[str, Any], plan: Plan
) -> None:
    made = index(three_partitions, model, tmp_path / "index", **given)
    assert {path.name for path in Path(made.uri).iterdir()} == {
        *(f"items-0000{number}-of-00003.arrow" for number in range(3)),
        "ids.arrow",
        "index.faiss",
        "index.json",
    }
    shown = {"kind": plan.kind, "items": ITEMS, "lists": plan.lists, "probes": plan.probes, "recall": None}
    assert json.loads(made.get_string_custom_property(recorded.INDEX)) == shown
    described = json.loads((Path(made.uri) / "index.json").read_text())
    assert described == {**shown, "width": WIDTH, "settings": IndexerSettings.model_validate(given).model_dump()}
    items = files.read(made.uri)
    assert pa.ipc.open_file(f"{made.uri}/ids.arrow").read_all().column("candidate_id").to_pylist() == items.ids
    found = faiss_index.load(made.uri).search(items.embeddings, 2)
    # Rows and ids belong together: what the tower says of an item finds it.
    embeddings = LoadedTower(tower_of(model)).embed([example(item) for item in items.ids])
    scores = np.einsum("iw,iw->i", embeddings, items.embeddings[found[:, 0]])
    assert scores == pytest.approx(np.ones(ITEMS), abs=1e-5)
    again = index(three_partitions, model, tmp_path / "again", **given)
    assert [p.read_bytes() for p in sorted(Path(again.uri).iterdir())] == [
        p.read_bytes() for p in sorted(Path(made.uri).iterdir())
    ]


@pytest.mark.parametrize("stitched", [True, False])
def test_shards_hold_the_whole_catalogue_and_answer_as_one_index(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path, stitched: bool
) -> None:
    filters = json.dumps({"price": {"kind": "number"}})
    whole = index(three_partitions, model, tmp_path / "whole", filters)
    made = index(three_partitions, model, tmp_path / "index", filters, shards=4, stitched=stitched)
    names = [f"index-{number}-of-4" for number in range(4)]
    assert {path.name for path in Path(made.uri).iterdir()} == {
        *(f"items-0000{part}-of-00004.arrow" for part in range(4)),
        *names,
        "index.json",
    }
    described = files.read_description(made.uri)
    assert (described.kind, described.items, described.shards) == ("flat", ITEMS, 4)
    shown = {"kind": "flat", "items": ITEMS, "lists": None, "probes": None, "recall": None}
    assert json.loads(made.get_string_custom_property(recorded.INDEX)) == shown
    ids = [pa.ipc.open_file(f"{made.uri}/{name}/ids.arrow").read_all().column(0).to_pylist() for name in names]
    assert sorted(item for each in ids for item in each) == sorted(item_ids()) and all(ids)
    for name, own in zip(names, ids, strict=True):
        assert own == sorted(own) and faiss_index.load(f"{made.uri}/{name}").search(
            np.zeros((1, WIDTH), np.float32), 1
        ).max() < len(own)
    retrievers = sorted(path.name for path in Path(f"{made.uri}-retriever").iterdir())
    assert retrievers == (["retriever"] if stitched else [f"retriever-{number}-of-4" for number in range(4)])
    queries = tf.constant([query(b"item 1", b"item 2"), query(b"item 3")])

    def ask(folder: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
        found = tf.saved_model.load(folder).signatures["serving_examples"](examples=queries, k=tf.constant([5, 9]))
        return found["item_ids"].numpy(), found["scores"].numpy()

    expected, found = (
        ask(f"{whole.uri}-retriever/retriever"),
        [ask(f"{made.uri}-retriever/{each}") for each in retrievers],
    )
    answer = found[0] if stitched else merged(found, np.array([5, 9], np.int32))
    np.testing.assert_allclose(answer[1], expected[1], atol=1e-6)
    assert answer[0].tolist() == expected[0].tolist()


def test_lists_of_shards_are_tuned_each_by_itself(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"exact_below": 10, "lists": 20, "recall_at": 20, "recall_target": 0.7, "shards": 2}
    made = index(three_partitions, model, tmp_path / "index", **given)
    shards = [files.read_description(f"{made.uri}/index-{number}-of-2") for number in range(2)]
    assert all(each.kind == "ivf" and each.lists == 20 and 1 <= (each.probes or 0) <= 5 for each in shards)
    shown = json.loads(made.get_string_custom_property(recorded.INDEX))
    assert (shown["lists"], shown["probes"]) == (40, sum(each.probes or 0 for each in shards))
    assert shown["recall"] == min(each.recall or 0.0 for each in shards) >= 0.7
    assert not Path(made.uri, "queries.npy").exists()


def test_a_shard_without_items_is_refused(model: types.Artifact, tmp_path: Path) -> None:
    catalogue = write_catalogue(tmp_path / "catalogue", [example(item) for item in item_ids(2)], 1)
    with pytest.raises(UserError, match=r"items in each of 8 shards, found none in number [0-7]\. Set fewer shards"):
        index(catalogue, model, tmp_path / "index", shards=8)


def test_filter_columns_are_beside_the_ids_and_in_the_retriever(model: types.Artifact, tmp_path: Path) -> None:
    # Item n costs n, the last nothing; even ones are of two lands, of the odd ones nothing is known.
    examples = []
    for number, item in enumerate(item_ids(20)):
        made = tf.train.Example.FromString(example(item, number))
        if number == 19:
            del made.features.feature["price"]
        lands = [b"de", b"l%d" % number] if number % 2 == 0 else []
        made.features.feature["lands"].bytes_list.value.extend(lands)
        examples.append(made.SerializeToString())
    filters = json.dumps({"price": {"kind": "number"}, "lands": {"kind": "ids"}, "none": {"kind": "number"}})
    made = index(write_catalogue(tmp_path / "c", examples), model, tmp_path / "index", filters=filters, kind="flat")
    rows = pa.ipc.open_file(f"{made.uri}/ids.arrow").read_all().to_pylist()
    assert [row["candidate_id"] for row in rows] == sorted(item_ids(20))
    by_id = {row.pop("candidate_id"): row for row in rows}
    assert by_id[b"item 4"] == {"price": 4.0, "lands": [b"de", b"l4"], "none": None}
    assert by_id[b"item 19"] == {"price": None, "lands": [], "none": None}
    retriever = tf.saved_model.load(f"{made.uri}-retriever/retriever").signatures["serving_examples"]

    def find(*where: bytes) -> list[bytes]:
        asked = tf.train.Example.FromString(query(b"item 1"))
        asked.features.feature["where"].bytes_list.value.extend(where)
        found = retriever(examples=tf.constant([asked.SerializeToString()]), k=tf.constant([20]))["item_ids"]
        return sorted(item for item in found.numpy()[0].tolist() if item)

    assert find(b"price>=4", b"price<=6.5", b"lands=de") == [b"item 4", b"item 6"]
    assert find(b"lands=l8") == [b"item 8"] and find(b"none>=0") == [] and len(find()) == 20


def test_the_step_looks_at_as_few_lists_as_reach_the_target(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"exact_below": 10, "lists": 40, "recall_at": 20}
    low, high = (
        json.loads(
            index(
                three_partitions, model, tmp_path / str(target), recall_target=target, **given
            ).get_string_custom_property(recorded.INDEX)
        )
        for target in (0.5, 0.9)
    )
    assert 0.5 <= low["recall"] < high["recall"] and high["recall"] >= 0.9
    assert 1 <= low["probes"] < high["probes"] <= 10  # a quarter of the lists
    assert not (tmp_path / "0.9" / "queries.npy").exists()


def test_where_a_quarter_of_the_lists_finds_too_few_the_search_is_exact(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path
) -> None:
    # One list has 1,000 items or so.
    given: dict[str, Any] = {"exact_below": 10, "lists": 4, "recall_at": 1000, "recall_target": 0.999}
    made = index(three_partitions, model, tmp_path / "index", **given)
    shown = json.loads(made.get_string_custom_property(recorded.INDEX))
    assert (shown["kind"], shown["lists"], shown["probes"], shown["recall"]) == ("flat", None, None, None)
    assert isinstance(faiss_index.load(made.uri)._index, faiss.IndexFlat)
    forced = index(three_partitions, model, tmp_path / "forced", **given, kind="ivf")  # takes as many as it needs
    assert json.loads(forced.get_string_custom_property(recorded.INDEX))["probes"] == 4


def test_the_step_takes_the_seed_that_is_set(
    model: types.Artifact, three_partitions: types.Artifact, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"kind": "ivf", "lists": 20, "probes": 2}
    made = [index(three_partitions, model, tmp_path / str(seed), seed=seed, **given) for seed in (1, 2)]
    one, other = ((Path(each.uri) / "index.faiss").read_bytes() for each in made)
    assert one != other


@plans
def test_an_index_is_loaded_as_it_was_written_or_refused(plan: Plan, tmp_path: Path) -> None:
    embeddings = unit(np.random.default_rng(0).normal(size=(200, 8)))
    built = faiss_index.build(embeddings, plan, seed=0)
    built.write(str(tmp_path))
    with pytest.raises(UserError, match=r"found no index\.json"):
        faiss_index.load(str(tmp_path))
    description = files.Description(plan.kind, 200, 8, plan.lists, plan.probes, None, {})
    files.write_description(str(tmp_path), description)
    assert files.read_description(str(tmp_path)) == description
    # Probes included.
    assert np.array_equal(faiss_index.load(str(tmp_path)).search(embeddings, 200), built.search(embeddings, 200))
    path = tmp_path / "index.faiss"
    whole = path.read_bytes()
    for content in (whole[:-10], b"", b"nonsense" * 100):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path}: expected an index of FAISS"):
            faiss_index.load(str(tmp_path))
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: no such file"):
        faiss_index.load(str(tmp_path))
    path.write_bytes(whole)
    files.write_description(str(tmp_path), files.Description(plan.kind, 199, 8, plan.lists, plan.probes, None, {}))
    with pytest.raises(UserError, match="expected 199 items of width 8, found 200 of 8"):
        faiss_index.load(str(tmp_path))
    (tmp_path / "index.json").write_text('{"kind": "flat"')
    with pytest.raises(UserError, match=r"index\.json to say what the index is"):
        faiss_index.load(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "items", "plan"),
    [
        ({}, 19_999, Plan("flat")),
        ({}, 20_000, Plan("ivf", 566)),  # 4 * 141.42 lists
        ({"exact_below": 5}, 5, Plan("ivf", 5)),  # 4 * 2.2 would be more lists than items
        ({"kind": "flat"}, 1_000_000, Plan("flat")),
        ({"kind": "ivf"}, 1, Plan("ivf", 1)),
        ({"kind": "ivf", "lists": 3}, 100, Plan("ivf", 3)),
        ({"kind": "ivf", "probes": 50}, 100, Plan("ivf", 40, 40)),
        ({"kind": "ivf", "lists": 9, "probes": 9}, 9, Plan("ivf", 9, 9)),
    ],
)
def test_the_index_follows_the_settings_and_the_catalogue(given: dict[str, object], items: int, plan: Plan) -> None:
    assert IndexerSettings.model_validate(given).plan(items) == plan


def test_more_lists_than_items_are_refused() -> None:
    with pytest.raises(UserError, match=r"indexer\.lists: expected at most the number of items in the catalogue, 9"):
        IndexerSettings(kind="ivf", lists=10).plan(9)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"lists": 4, "probes": 5}, "probes: expected at most the 4 lists, received 5"),
        ({"kind": "flat", "lists": 4, "probes": 2}, "lists: a flat index has none.*; probes: a flat index has none"),
        ({"kind": "flat", "probes": 2}, "probes: a flat index has none"),
        ({"kind": "flat", "vectors": "int8"}, "vectors: a flat index is exact and keeps float32"),
        ({"recall_target": 1.1}, "recall_target"),
        ({"kind": "hnsw"}, "kind"),
        ({"lists": 0}, "lists"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_that_do_not_go_together_are_named(given: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        IndexerSettings.model_validate(given)
