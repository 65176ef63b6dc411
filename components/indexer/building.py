"""Builds the index of one shard of a catalogue, and the retrievers over them."""

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tfx.dsl.io import fileio

from components.indexer import faiss_index, files, filter_columns
from components.indexer.faiss_index import FaissIndex
from components.indexer.retriever import export_retriever
from components.indexer.search import ExactSearch, ListSearch, Search
from components.indexer.settings import IndexerSettings, Plan
from components.indexer.shards import WHOLE, Shard, shards_of
from components.indexer.stitched import StitchedSearch
from components.indexer.tuning import tune
from components.progress import progress
from ndr_client.served import INDEX, RETRIEVER
from schemas.errors import UserError
from schemas.features import FilterColumn

MakeQueries = Callable[[], NDArray[np.float32]]
"""Returns [queries, width] embeddings of queries, by which items are divided into lists and the search is tuned."""


@dataclass(frozen=True)
class Building:
    """What an index is built from, and where it goes.

    Attributes:
        catalogue: patterns of the catalogue's tf.Examples.
        filters: the columns that items are filtered by.
        settings: what is built.
        query_tower: the folder of its SavedModel.
        index: the folder of the index, which has the embeddings already.
        retriever: the folder of the retrievers.
    """

    catalogue: list[str]
    filters: Mapping[str, FilterColumn]
    settings: IndexerSettings
    query_tower: str
    index: str
    retriever: str

    def folder(self, shard: Shard) -> str:
        """Return the folder of the index of a shard."""
        return self.index if shard == WHOLE else os.path.join(self.index, shard.name(INDEX))

    def columns(self, ids: list[bytes], shard: Shard = WHOLE) -> pa.Table | None:
        """Read the filter columns of a shard's items; None for no filters."""
        return filter_columns.read(self.catalogue, self.filters, ids, shard) if self.filters else None

    def export(self, search: Search, ids: list[bytes], columns: pa.Table | None, name: str) -> None:
        """Write a retriever."""
        export_retriever(self.query_tower, search, ids, self.retriever, columns, self.settings.k_limit, name)


def build(building: Building, make_queries: MakeQueries, shard: Shard) -> files.Description:
    """Build the index of a shard and, unless it will be stitched to others, its retriever. Only this shard is in memory.

    Raises:
        UserError: an embedding is not finite, the shard has no item, or there are more lists than items.
    """
    settings, folder = building.settings, building.folder(shard)
    items = files.read(building.index, shard)
    if not items.ids:
        raise UserError(
            f"indexer.shards: expected a catalogue with items in each of {shard.of} shards, found none in number {shard.number}. "
            "Set fewer shards."
        )
    columns = building.columns(items.ids, shard)
    plan = settings.plan(len(items.ids))
    progress(f"{len(items.ids):,} items embedded, builds the index ({plan.kind})", 0.5)
    queries = None if plan.lists is None else make_queries()
    index = faiss_index.build(items.embeddings, plan, settings.seed, queries)
    search, recall = search_of(items.embeddings, index, plan, settings), None
    if isinstance(search, ListSearch) and queries is not None and not plan.probes:
        recall = _tune(search, items.embeddings, queries, settings)
        plan = replace(plan, probes=search.probes)
        index.look_at(search.probes)
    if recall is not None and recall < settings.recall_target and settings.kind == "auto":
        progress(f"{plan.probes} of {plan.lists} lists find {recall:.3f}: exact search instead", 0.8)
        plan, recall = Plan("flat"), None
        index = faiss_index.build(items.embeddings, plan, settings.seed)
        search = search_of(items.embeddings, index, plan, settings)
    fileio.makedirs(folder)
    index.write(folder)
    files.write_ids(folder, items.ids, columns)
    if shard == WHOLE or not settings.stitched:
        progress("builds the retriever", 0.9)
        building.export(search, items.ids, columns, shard.name(RETRIEVER))
    description = files.Description(
        items=len(items.ids),
        width=items.embeddings.shape[1],
        recall=recall,
        settings=settings.model_dump(),
        **asdict(plan),
    )
    files.write_description(folder, description)
    return description


def stitch(building: Building) -> None:
    """Build one retriever over the indexes of all shards, which are in memory as the retriever keeps them."""
    progress("builds the retriever", 0.9)
    shards = shards_of(building.settings.shards)
    searches, ids = [], list[list[bytes]]()
    for shard in shards:
        items, described = files.read(building.index, shard), files.read_description(building.folder(shard))
        plan = Plan("flat" if described.lists is None else "ivf", described.lists, described.probes)
        index = faiss_index.load(building.folder(shard))
        searches.append(search_of(items.embeddings, index, plan, building.settings))
        ids.append(items.ids)
    ascending = sorted(item for of_shard in ids for item in of_shard)
    building.export(StitchedSearch(searches, ids), ascending, building.columns(ascending), RETRIEVER)


def read_queries(path: str) -> NDArray[np.float32]:
    """Read the queries that `EmbedSomeQueries` wrote."""
    with fileio.open(path, "rb") as file:
        queries: NDArray[np.float32] = np.load(io.BytesIO(file.read()))
    return queries


def search_of(
    embeddings: NDArray[np.float32], index: FaissIndex, plan: Plan, settings: IndexerSettings
) -> ExactSearch | ListSearch:
    """Return the search of a plan; a plan without probes gives one that probes the nearest list."""
    lists = index.lists
    if lists is None:
        return ExactSearch(embeddings)
    return ListSearch(embeddings, lists, plan.probes or 1, settings.recall_at, settings.vectors)


def _tune(
    search: ListSearch, embeddings: NDArray[np.float32], queries: NDArray[np.float32], settings: IndexerSettings
) -> float:
    k, target, lists = settings.recall_at, settings.recall_target, search.bounds.shape[1]
    progress(f"tunes to a recall@{k} of {target:g}", 0.7)
    recall = tune(search, embeddings, queries, k, target, settings.most_probes(lists))
    progress(f"{search.probes} of {lists} lists find {recall:.3f} of the exact first {k}", 0.8)
    return recall
