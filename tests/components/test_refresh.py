"""A catalogue that changes a little: what has changed is told to the entry, and only that is embedded, as a whole export would."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfx import types
from tfx.types import standard_artifacts

from components.artifacts import CatalogueChanges, ItemIndex, QueryTower, Retriever
from components.indexer import embedding, files
from components.indexer.component import IndexerExecutor
from components.indexer.settings import IndexerSettings
from components.indexer.shards import shards_of
from components.refresh.changes import Changes, changed_pattern, compare, read_gone
from components.refresh.component import CatalogueComparison
from components.refresh.query_tower import QueryTowerExport
from components.refresh.settings import RefreshSettings
from ndr_client.served import QUERY_TOWER
from schemas.errors import UserError
from tests.components.exported import export, trainer_settings
from tests.components.test_indexer import SPEC, WIDTH, example, query, write_catalogue
from tests.components.test_looked_up import BY_ID, CATALOGUE, TOWERS, embed
from tests.components.test_looked_up import example as catalogue_entry

SAME = (
    1e-6  # what two embeddings of one entry may differ by, of unit vectors: the rest of a batch is in their last bits
)
Prices = Mapping[int, float]
catalogues = st.dictionaries(st.integers(0, 30), st.sampled_from([1.0, 2.0]), min_size=1)


def item(number: int) -> bytes:
    return b"item %d" % number


def entries(prices: Prices) -> list[bytes]:
    return [example(item(number), price) for number, price in prices.items()]


@settings(max_examples=40)
@given(before=catalogues, now=catalogues)
def test_what_has_changed_is_told_to_the_entry(
    before: Prices, now: Prices, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("compared")
    earlier, newer = (
        [f"{write_catalogue(folder / name, entries(prices), 2).uri}/Split-catalogue/*"]
        for name, prices in (("before", before), ("now", now))
    )
    found = compare(earlier, newer, str(folder / "changes"))
    new, gone = now.keys() - before.keys(), before.keys() - now.keys()
    changed = {number for number in now.keys() & before.keys() if now[number] != before[number]}
    assert found == Changes(len(now), len(before), len(new), len(changed), len(gone))
    assert found.is_any == (before != now)
    left = read_gone(str(folder / "changes")).to_pylist()
    assert sorted(left) == sorted(item(number) for number in gone | changed)
    kept = [each for batch in embedding.read_serialized([changed_pattern(str(folder / "changes"))]) for each in batch]
    assert sorted(kept) == sorted(entries({number: now[number] for number in new | changed}))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> types.Artifact:
    return export(SPEC, {"query": [WIDTH], "item": [16, WIDTH]}, tmp_path_factory.mktemp("model"))


class World:
    """What a refresh is given."""

    def __init__(self, folder: Path, model: types.Artifact) -> None:
        self.folder, self.model = folder, model
        self.examples = write_catalogue(folder / "interactions", [query(item(n)) for n in range(50)], 1, "train")

    def catalogue(self, name: str, prices: Prices) -> types.Artifact:
        return write_catalogue(self.folder / name, entries(prices), 2)

    def compared(self, before: types.Artifact, now: types.Artifact, most: float = 1.0) -> types.Artifact:
        changes = CatalogueChanges()
        changes.uri = f"{now.uri}-changes"
        CatalogueComparison.EXECUTOR_SPEC.executor_class().Do(
            {"base_catalogue": [before], "catalogue": [now]},
            {"changes": [changes]},
            {"settings": RefreshSettings(most_changed=most).model_dump_json()},
        )
        return changes

    def indexed(self, catalogue: types.Artifact, name: str, shards: int = 1, **more: types.Artifact) -> types.Artifact:
        index, retriever = ItemIndex(), Retriever()
        index.uri, retriever.uri = str(self.folder / name), str(self.folder / f"{name} retriever")
        IndexerExecutor().Do(
            {
                "model": [self.model],
                "catalogue": [catalogue],
                "examples": [self.examples],
                **{key: [artifact] for key, artifact in more.items()},
            },
            {"index": [index], "retriever": [retriever]},
            {
                "settings": IndexerSettings(shards=shards).model_dump_json(),
                "filters": json.dumps({"price": {"kind": "number"}}),
            },
        )
        return index


def test_a_refresh_embeds_what_has_changed_and_equals_a_whole_export(tmp_path: Path, model: types.Artifact) -> None:
    world = World(tmp_path, model)
    before = dict.fromkeys(range(600), 1.0)
    now = {**dict.fromkeys(range(10, 600), 1.0), 20: 2.0, 21: 3.0, **dict.fromkeys(range(600, 605), 4.0)}
    earlier, newer = world.catalogue("before", before), world.catalogue("now", now)
    base, whole = world.indexed(earlier, "base"), world.indexed(newer, "whole")
    refreshed = world.indexed(newer, "refreshed", base_index=base, changes=world.compared(earlier, newer))
    ours, theirs, earlier_items = (files.read(each.uri) for each in (refreshed, whole, base))
    assert ours.ids == theirs.ids == sorted(map(item, now))
    assert np.abs(ours.embeddings - theirs.embeddings).max() < SAME
    # What has not changed is that of the version before, to the bit; it is taken from there, whatever stands there.
    rows = {each: row for row, each in enumerate(earlier_items.ids)}
    kept = [row for row, each in enumerate(ours.ids) if each in rows and each not in (item(20), item(21))]
    assert len(kept) == 588
    of_earlier = [rows[ours.ids[row]] for row in kept]
    assert (ours.embeddings[kept] == earlier_items.embeddings[of_earlier]).all()
    files.write_partition(base.uri, 0, 1, WIDTH, [(earlier_items.ids, -earlier_items.embeddings)])
    marked = files.read(world.indexed(newer, "marked", base_index=base, changes=world.compared(earlier, newer)).uri)
    anew = sorted(set(range(595)) - set(kept))
    assert (marked.embeddings[kept] == -ours.embeddings[kept]).all()
    assert (marked.embeddings[anew] == ours.embeddings[anew]).all() and len(anew) == 7
    with pa.ipc.open_file(f"{refreshed.uri}/{files.IDS}") as reader:
        ids = reader.read_all()
    prices = dict(zip(ids.column(0).to_pylist(), ids.column("price").to_pylist(), strict=True))
    assert prices == {item(number): price for number, price in now.items()}
    assert files.read_description(refreshed.uri).items == 595


def test_a_refresh_of_shards_changes_each_by_itself(tmp_path: Path, model: types.Artifact) -> None:
    world = World(tmp_path, model)
    now = {**dict.fromkeys(range(10, 600), 1.0), 20: 2.0, **dict.fromkeys(range(600, 605), 4.0)}
    earlier, newer = world.catalogue("before", dict.fromkeys(range(600), 1.0)), world.catalogue("now", now)
    base, changes = world.indexed(earlier, "base", 3), world.compared(earlier, newer)
    refreshed = world.indexed(newer, "refreshed", 3, base_index=base, changes=changes)
    of_shards = [files.read(refreshed.uri, shard) for shard in shards_of(3)]
    assert all(shard.has(each) for shard, own in zip(shards_of(3), of_shards, strict=True) for each in own.ids)
    ours, theirs = files.read(refreshed.uri), files.read(world.indexed(newer, "whole", 3).uri)
    assert ours.ids == theirs.ids == sorted(map(item, now)) == sorted(each for own in of_shards for each in own.ids)
    assert np.abs(ours.embeddings - theirs.embeddings).max() < SAME
    with pytest.raises(UserError, match=r"indexer.shards: expected 3, as in the version that is refreshed, received 2"):
        world.indexed(newer, "other", 2, base_index=base, changes=changes)


def test_the_same_catalogue_gives_the_same_embeddings_to_the_bit(tmp_path: Path, model: types.Artifact) -> None:
    world = World(tmp_path, model)
    catalogue = world.catalogue("before", dict.fromkeys(range(600), 1.0))
    base = world.indexed(catalogue, "base")
    # Written again, in other files, it is the same.
    again = write_catalogue(tmp_path / "again", entries(dict.fromkeys(reversed(range(600)), 1.0)), 5)
    refreshed = world.indexed(again, "refreshed", base_index=base, changes=world.compared(catalogue, again))
    ours, theirs = files.read(refreshed.uri), files.read(base.uri)
    assert ours.ids == theirs.ids and (ours.embeddings == theirs.embeddings).all()


def test_too_much_change_is_refused_in_words(tmp_path: Path, model: types.Artifact) -> None:
    world = World(tmp_path, model)
    before = world.catalogue("before", dict.fromkeys(range(100), 1.0))
    now = world.catalogue("now", {**dict.fromkeys(range(80), 1.0), 3: 2.0, 200: 1.0})
    # 20 are gone, one has changed, one is new: 22 of 100.
    with pytest.raises(UserError) as refused:
        world.compared(before, now, 0.2)
    said = str(refused.value)
    assert "add 1, change 1 and remove 20 of the live version's 100 items: 22.0%" in said
    assert said.endswith("--set refresh.most_changed=0.22")
    found = json.loads(world.compared(before, now, 0.22).get_string_custom_property("changes"))
    assert found == {"items": 81, "before": 100, "new": 1, "changed": 1, "gone": 20, "others": 0}
    nothing = write_catalogue(tmp_path / "nothing", [], 1)
    with pytest.raises(UserError, match="has no item that may be retrieved"):
        world.compared(before, nothing, 9.0)


def test_a_query_tower_that_is_exported_anew_looks_up_the_new_catalogue(tmp_path: Path) -> None:
    """It answers as one that was exported with the new catalogue from the start: the same weights, another catalogue."""
    dearer = [{**features, "price": [9.0]} for features in CATALOGUE]
    patterns = {}
    for name, features in (("before", CATALOGUE), ("now", dearer)):
        patterns[name] = write_catalogue(tmp_path / name, [catalogue_entry(each) for each in features], 1)
    made = {}
    for name, catalogue in patterns.items():
        (tmp_path / f"model {name}").mkdir()
        made[name] = export(BY_ID, TOWERS, tmp_path / f"model {name}", catalogue=f"{catalogue.uri}/Split-catalogue/*")
    transform, tower = standard_artifacts.TransformGraph(), QueryTower()
    transform.uri, tower.uri = f"{made['before'].uri}/transform", str(tmp_path / "tower")
    QueryTowerExport.EXECUTOR_SPEC.executor_class().Do(
        {"model": [made["before"]], "transform_graph": [transform], "catalogue": [patterns["now"]]},
        {"query_tower": [tower]},
        {"trainer": trainer_settings(TOWERS).model_dump_json(), "feature_spec": BY_ID.model_dump_json()},
    )
    asked = {"seed": [b"i1"], "past": [b"i1", b"i2"]}
    ours, theirs, old = (
        embed(folder, asked)
        for folder in (
            Path(tower.uri) / QUERY_TOWER,
            *(Path(made[name].uri) / "Format-Serving" / QUERY_TOWER for name in ("now", "before")),
        )
    )
    assert np.abs(ours - theirs).max() < SAME < np.abs(ours - old).max()
