"""The day's whole catalogue, shared by all scorers: ids and counts in memory, embeddings on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from components.analysis import files as analysis_files
from components.artifacts import warm_start_folder
from components.counts.files import ONE
from components.evaluator import facts, slices
from components.evaluator.block_search import TIE
from components.evaluator.content import Content
from components.evaluator.known import Known
from components.evaluator.names import CANDIDATE
from components.evaluator.positions import positions
from components.evaluator.ranking import top_among
from components.evaluator.settings import EvaluatorSettings
from components.indexer import files as item_files
from components.indexer import on_disk
from components.indexer.filter_columns import sample
from components.indexer.filters import SAMPLE
from components.trainer.export import load_tower
from components.utc import MICROSECONDS_A_DAY
from ndr_client.merging import merged
from ndr_client.served import EMBEDDING, EMBEDDINGS_SIGNATURE, EXCLUDE, ITEM_IDS, SCORES, WHERE, K
from schemas.features import FeatureSpec

RETRIEVER_BYTES = 2 << 30  # of the retrievers of shards that stay in memory; more are loaded for each group of users
FILTERED_QUERIES_OF_BATCH = 16
"""The number of queries in a batch for which filtered search is measured: over a million items, a selective filter takes ms."""


@dataclass(frozen=True)
class Places:
    """Where the inputs of ranking lie.

    Attributes:
        catalogue: patterns of the catalogue's tf.Examples.
        counts: the folders of `components.counts.files` with the known counts.
        facts: the file of `components.evaluator.facts`.
        item_folders: the embeddings of the catalogue, by model.
        query_towers: the query tower's folder, by model.
        as_new: the embeddings of the items that are ranked as new.
        has_rows: the model whose vocabularies tell which ids were known before the day; None without one.
        retrievers: the SavedModels of the candidate's search, one or one for each shard; none if retrieval is not measured.
        index: the embeddings that it searches.
    """

    catalogue: tuple[str, ...]
    counts: tuple[str, ...]
    facts: str
    item_folders: Mapping[str, str]
    query_towers: Mapping[str, str]
    as_new: str
    has_rows: str | None
    retrievers: tuple[str, ...]
    index: str | None = None


@dataclass
class Catalogue:
    """The catalogue, and everything known of its items.

    Attributes:
        ids: [items] binary, in the order of the rows.
        embeddings: [items, width] float32, by model.
        as_new: the candidate's embeddings, with those of the drawn items as if they had just arrived.
        is_new: [items] bool, whether an item is drawn.
        known: the counts of the items.
        popularity_parts: [items], see `components.evaluator.names`.
        is_known: [items] bool, whether anything is known of the item from before the day.
        known_users: the users with rows of their own in the model from before the day.
        facts: of the interactions.
    """

    places: Places
    settings: EvaluatorSettings
    spec: FeatureSpec
    span: int
    ids: pa.Array = field(init=False)
    embeddings: dict[str, NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        items = {name: item_files.read(folder, on_disk=True) for name, folder in self.places.item_folders.items()}
        self.ids = pa.array(items[CANDIDATE].ids, pa.binary())
        self.embeddings = {name: of_model.embeddings for name, of_model in items.items()}
        self.known = Known.read(self.places.counts, self.ids, self.span, self.settings.neighbours)
        self.popularity_parts = slices.popularity_parts(self.known.counts)
        has_rows = self._ids_with_rows(self.spec.id_table(self.spec.item, self.spec.catalogue.item))
        self.is_known = self.known.first < self.span * MICROSECONDS_A_DAY
        self.is_known |= np.array([item in has_rows for item in items[CANDIDATE].ids], bool)
        self.known_users = self._ids_with_rows(self.spec.id_table(self.spec.raw_query, self.spec.interactions.user))
        self.facts = facts.read(self.places.facts)
        drawn = item_files.read(self.places.as_new, on_disk=True)
        rows = positions(pa.array(drawn.ids, pa.binary()), self.ids)
        self.is_new = np.zeros(len(self.ids), bool)
        self.is_new[rows] = True
        self.as_new = self.embeddings[CANDIDATE]
        if len(rows):
            self.as_new = on_disk.copy(self.as_new)
            self.as_new[rows] = drawn.embeddings
        interactions = self.known.counts / ONE
        self._share = interactions / max(1.0, interactions.sum())
        self._information = -np.log2((interactions + 1) / (interactions.sum() + len(self.ids)))

    @cached_property
    def content(self) -> Content:
        """The contents of the items; read only if an interaction has an item ranked as new."""
        return Content.read(self.places.catalogue, self.ids, self.spec)

    @cached_property
    def served(self) -> item_files.ItemEmbeddings:
        """The candidate's items as they are searched; these differ from the ranked ones if features changed on the day."""
        assert self.places.index is not None
        return item_files.read(self.places.index, on_disk=True)

    @property
    def is_served(self) -> bool:
        """Whether the ranked items are the searched ones."""
        return self.places.index == self.places.item_folders[CANDIDATE]

    @cached_property
    def _retriever(self) -> Callable[[str], tf.Module]:
        """Loads a retriever; the last loaded ones stay in memory while there is room, at least one."""
        largest = max(map(_bytes, self.places.retrievers))
        return lru_cache(max(1, RETRIEVER_BYTES // largest))(load_tower)

    def popularity_and_novelty(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Average popularity and novelty over [queries, k] retrieved rows, -1 for none, to [queries] each."""
        is_item = rows >= 0
        number = np.maximum(1, is_item.sum(axis=1))
        share, information = (
            np.where(is_item, of_item[rows], 0.0).sum(axis=1) / number for of_item in (self._share, self._information)
        )
        return share, information

    def index_recall(self, queries: NDArray[np.float32], exact: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return [queries], the share of the exact top k of the whole catalogue that the retriever finds.

        An item counts as found if its score is high enough, so among items with equal scores any will do.

        Args:
            queries: [queries, width].
            exact: [queries, k], the rows of `top_rows` of `served`.
        """
        items = self.embeddings[CANDIDATE] if self.is_served else self.served.embeddings
        of_rows = self.ids if self.is_served else pa.array(self.served.ids, pa.binary())
        k = min(exact.shape[1], len(items))
        exact = exact[:, :k]
        retrieved = self._searched(queries, k, of_rows, ())
        return self._shares(queries, exact, retrieved, items)

    def filtered_recalls(self, queries: NDArray[np.float32], k: int) -> NDArray[np.float64]:
        """Measure `index_recall` of filtered search for each of `filtered_at`; for some of the queries, evenly spread.

        Args:
            queries: [queries, width].
            k: the number of items to retrieve; if fewer pass, all of these must be found.

        Returns:
            [queries, 1 + shares], the first column tells whether a query was used.
        """
        shares = self.settings.statistics.filtered_at
        items, of_rows = self.served.embeddings, pa.array(self.served.ids, pa.binary())
        asked = np.unique(np.linspace(0, len(queries) - 1, FILTERED_QUERIES_OF_BATCH).astype(np.int64))
        measured = np.zeros((len(queries), 1 + len(shares)))
        measured[asked, 0] = 1.0
        for number, share in enumerate(shares, 1):
            passing = np.flatnonzero(self._sample <= np.float32(share))
            exact = top_among(queries[asked], items, passing, k)
            retrieved = self._searched(queries[asked], exact.shape[1], of_rows, (f"{SAMPLE}<={share}",))
            retrieved[~np.isin(retrieved, passing)] = -1
            measured[asked, number] = self._shares(queries[asked], exact, retrieved, items)
        return measured

    @cached_property
    def _sample(self) -> NDArray[np.float32]:
        return sample(self.served.ids, len(self.places.retrievers))

    def _searched(
        self, queries: NDArray[np.float32], k: int, of_rows: pa.Array, where: Sequence[str]
    ) -> NDArray[np.int64]:
        """Return [queries, k] rows that the retriever finds, -1 for none."""
        nothing = tf.zeros([len(queries), 0], tf.string)
        inputs = {EMBEDDING: tf.constant(queries), K: tf.fill([len(queries)], k), EXCLUDE: nothing}
        answers = []
        for folder in self.places.retrievers:
            signature = self._retriever(folder).signatures[EMBEDDINGS_SIGNATURE]
            if WHERE in signature.structured_input_signature[1]:
                inputs[WHERE] = tf.tile([where], [len(queries), 1]) if where else nothing
            answer = signature(**inputs)
            answers.append((answer[ITEM_IDS].numpy(), answer[SCORES].numpy()))
        ids, _ = merged(answers, np.full(len(queries), k, np.int32))
        return positions(pa.array(ids.ravel(), pa.binary()), of_rows).reshape(len(queries), k)

    @staticmethod
    def _shares(
        queries: NDArray[np.float32],
        exact: NDArray[np.int64],
        retrieved: NDArray[np.int64],
        items: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """Return [queries], the share of the exact [queries, k] rows that are found, or tied with the last of them."""
        last = np.einsum("qw,qw->q", queries, items[exact[:, -1]])
        scores = np.einsum("qw,qkw->qk", queries, items[retrieved])
        right = (scores >= last[:, np.newaxis] - TIE) & (retrieved >= 0)
        return right.sum(axis=1) / exact.shape[1]

    def _ids_with_rows(self, table: str | None) -> set[bytes]:
        if table is None or self.places.has_rows is None:
            return set()
        folder = warm_start_folder(self.places.has_rows)
        return (
            set(analysis_files.read_vocabulary(folder, table).index)
            if analysis_files.has_table(folder, table)
            else set()
        )


def _bytes(folder: str) -> int:
    """Return the size of a SavedModel, of its files."""
    return sum(
        int(tf.io.gfile.stat(f"{place}/{name}").length)
        for place, _, names in tf.io.gfile.walk(folder)
        for name in names
    )
