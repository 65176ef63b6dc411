"""Held-out interactions with the places of their items among the whole catalogue, by every scorer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse
from tfx_bsl.coders import example_coder

from components.analysis import files as analysis_files
from components.artifacts import warm_start_folder
from components.evaluator import facts, names, slices
from components.evaluator.cooccurrence import Neighbours, rank_by_cooccurrence, top_by_cooccurrence
from components.evaluator.names import CANDIDATE, COOCCURRENCE, POPULARITY
from components.evaluator.ranked import (
    CATALOGUE_SIZE,
    TRUE_ITEMS,
    USER_GROUP,
    USER_GROUPS,
    rank_feature,
    retrieval_feature,
    retrieved_feature,
)
from components.evaluator.ranking import TIE, Excluded, Ranks, rank_by_embedding, rank_by_score, top_rows
from components.evaluator.settings import EvaluatorSettings
from components.example_gen.sources import MICROSECONDS_A_DAY
from components.indexer import files as item_files
from components.indexer.embedding import LoadedTower
from components.kept import Kept
from components.trainer.export import load_tower
from ndr_client.served import EMBEDDINGS_SIGNATURE, ITEM_IDS
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

BATCH = 512
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Places:
    """Where what the held-out interactions are ranked by lies.

    Attributes:
        facts: what `components.evaluator.facts` wrote.
        index: the Indexer's folder for the model under evaluation.
        retriever: the SavedModel's folder for it.
        item_folders: the embeddings of the catalogue, by model.
        query_towers: the query tower's folder, by model.
        last_blessed: the last blessed model's folder; None on a first run.
    """

    facts: str
    index: str
    retriever: str
    item_folders: Mapping[str, str]
    query_towers: Mapping[str, str]
    last_blessed: str | None


class RankHeldOut(beam.DoFn):
    """(part of the users, serialised interactions of theirs) to serialised ranked examples (`components.evaluator.ranked`).

    The scorers are `candidate` and, where there is one, `baseline`, which embed; `popularity`; and, where queries have a history,
    `cooccurrence`.

    A query is a user with the features that the query tower is given: interactions that share all of them are one query with
    several true items.

    Args:
        places: where everything lies.
        settings: what is measured.
        spec: the dataset's features.
        span: the day, in days since 1970-01-01.
    """

    def __init__(self, places: Places, settings: EvaluatorSettings, spec: FeatureSpec, span: int) -> None:
        self._places = places
        self._settings = settings
        self._spec = spec
        self._day = day = span * MICROSECONDS_A_DAY
        self._towers = {name: LoadedTower(folder) for name, folder in places.query_towers.items()}
        self._catalogue = Kept(lambda: Catalogue(places, settings, spec, day))

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[bytes]:
        """Called by Beam."""
        part, serialized = element
        rows = facts.rewarded(facts.decode(_in_order(serialized)))
        if not rows.num_rows:
            return
        catalogue = self._catalogue.get()
        users = self._known_users(rows, part, catalogue)
        sets = _sets(rows, list(self._spec.query))
        # The batches do not depend on the runner, as the last bit of an embedding may depend on its batch.
        for start in range(0, rows.num_rows, BATCH):
            batch = rows.slice(start, BATCH)
            chosen = slice(start, start + batch.num_rows)
            features = {
                **{name: batch.column(name) for name in (CANDIDATE_ID, QUERY_ID, TIMESTAMP, REWARD)},
                **self._ranked(batch, catalogue),
                **self._slices(batch, catalogue, users[chosen]),
                TRUE_ITEMS: _lists(sets[chosen]),
                USER_GROUP: _lists(_user_groups(batch)[:, np.newaxis]),
                CATALOGUE_SIZE: _lists(np.full((batch.num_rows, 1), len(catalogue.ids))),
            }
            yield from example_coder.RecordBatchToExamples(
                pa.RecordBatch.from_arrays(list(features.values()), list(features))
            )

    def _ranked(self, batch: pa.RecordBatch, catalogue: "Catalogue") -> dict[str, pa.Array]:
        settings, k = self._settings, self._settings.retrieved_at
        true_rows = facts.positions(batch.column(CANDIDATE_ID), catalogue.ids)
        histories = _histories(batch, self._spec.history_feature, catalogue)
        excluded = histories if settings.exclude_history else None
        examples = example_coder.RecordBatchToExamples(batch)
        ranks: dict[str, Ranks] = {}
        retrieved: dict[str, NDArray[np.int64]] = {}
        found = {}
        for name, tower in self._towers.items():
            queries, items = tower.embed(examples), catalogue.embeddings[name]
            ranks[name] = rank_by_embedding(queries, items, true_rows, excluded)
            retrieved[name] = top_rows(queries, items, k, excluded)
            if name == CANDIDATE:
                exact = retrieved[name] if excluded is None else top_rows(queries, items, k)
                found[name] = catalogue.index_recall(queries, exact)
        ranks[POPULARITY] = rank_by_score(catalogue.counts.astype(np.float64), true_rows, excluded)
        nothing = sparse.csr_array((batch.num_rows, len(catalogue.ids)), dtype=np.int64)
        retrieved[POPULARITY] = top_by_cooccurrence(nothing, catalogue.counts, k, excluded)
        if self._spec.history_feature:
            by = (catalogue.neighbours.scores(histories), catalogue.counts)
            ranks[COOCCURRENCE] = rank_by_cooccurrence(*by, true_rows, excluded)
            retrieved[COOCCURRENCE] = top_by_cooccurrence(*by, k, excluded)
        features = {}
        for scorer, of_scorer in ranks.items():
            rows = retrieved[scorer]
            indexed = found.get(scorer, np.zeros(len(rows)))
            retrieval = np.stack([*catalogue.popularity_and_novelty(rows), indexed], axis=1)
            features[rank_feature(scorer)] = _lists(np.stack(of_scorer, axis=1))
            features[retrieved_feature(scorer)] = _lists_without_gaps(rows)
            features[retrieval_feature(scorer)] = _lists(retrieval.astype(np.float32))
        return features

    def _slices(
        self, batch: pa.RecordBatch, catalogue: "Catalogue", known_users: NDArray[np.bool_]
    ) -> dict[str, pa.Array]:
        true_rows = facts.positions(batch.column(CANDIDATE_ID), catalogue.ids)
        lengths = np.diff(facts.lists(batch, self._spec.history_feature).offsets.to_numpy())
        own = {
            names.ITEM_POPULARITY: catalogue.popularity_parts[true_rows],
            names.ITEM_AGE: np.where(catalogue.known[true_rows], "known", "fresh"),
            names.USER: np.where(known_users, "known", "new"),
            names.HISTORY_LENGTH: slices.history_lengths(lengths),
        }
        found = {slices.feature(name): _names(values) for name, values in own.items()}
        for name, each in self._settings.slices.items():
            values = facts.lists(batch, name)
            of_feature = slices.of_numbers(values, each.edges) if each.edges else None
            found[slices.feature(name)] = of_feature or slices.of_ids(values, catalogue.kept_values[name])
        return found

    def _known_users(self, rows: pa.RecordBatch, part: int, catalogue: "Catalogue") -> NDArray[np.bool_]:
        """[rows], whether anything of the user is known from before the day."""
        users = facts.single(rows.column(QUERY_ID)).to_numpy(zero_copy_only=False)
        lengths = np.diff(facts.lists(rows, self._spec.history_feature).offsets.to_numpy())
        held_out = pd.DataFrame(
            {"user": users, "first": facts.single(rows.column(TIMESTAMP)).to_numpy(), "history": lengths}
        )
        training = facts.read(self._places.facts, facts.USERS, part)
        before = set(training.loc[training["first"] < self._day, "user"])
        earliest = facts.earliest([training, held_out])
        before |= set(earliest.loc[earliest["history"] > 0, "user"])
        return np.array([user in before or user in catalogue.blessed_users for user in users], bool)


@dataclass
class Catalogue:
    """The day's whole catalogue in memory, as every scorer sees it.

    Attributes:
        ids: [items] binary, in the order of the rows.
        embeddings: [items, width] float32, by model.
        counts: [items] int64, interactions in training.
        neighbours: what the items of a history lead to.
        popularity_parts: [items], see `components.evaluator.names`.
        known: [items] bool, whether anything is known of the item from before the day.
        blessed_users: the users that have a row of their own in the last blessed model.
        kept_values: the values of each declared slice that are slices of their own.
    """

    places: Places
    settings: EvaluatorSettings
    spec: FeatureSpec
    day: int
    ids: pa.Array = field(init=False)
    embeddings: dict[str, NDArray[np.float32]] = field(init=False)

    def __post_init__(self) -> None:
        items = {name: item_files.read(folder) for name, folder in self.places.item_folders.items()}
        self.ids = pa.array(items[CANDIDATE].ids, pa.binary())
        self.embeddings = {name: each.embeddings for name, each in items.items()}
        size = len(self.ids)
        found = facts.read(self.places.facts, facts.ITEMS)
        rows = found["row"].to_numpy(np.int64)
        self.counts = np.zeros(size, np.int64)
        self.counts[rows] = found["count"].to_numpy(np.int64)
        first = np.full(size, NEVER)
        first[rows] = found["first"].to_numpy(np.int64)
        pairs = facts.read(self.places.facts, facts.PAIRS)
        source, target, count, total = (
            pairs[name].to_numpy(np.int64) for name in ("source", "target", "count", "total")
        )
        self.neighbours = Neighbours.build(source, target, count, total, size)
        self.popularity_parts = slices.popularity_parts(self.counts)
        blessed_items = self._ids_with_rows(self.spec.id_table(self.spec.item, self.spec.catalogue.item))
        self.known = (first < self.day) | np.array([item in blessed_items for item in items[CANDIDATE].ids], bool)
        self.blessed_users = self._ids_with_rows(self.spec.id_table(self.spec.query, self.spec.interactions.user))
        values = facts.read(self.places.facts, facts.VALUES)
        self.kept_values = {
            name: values.loc[values["feature"] == name, "value"].tolist() for name in self.settings.slices
        }
        self._retriever = load_tower(self.places.retriever)
        self._share = self.counts / max(1, self.counts.sum())
        self._information = -np.log2((self.counts + 1) / (self.counts.sum() + size))

    def popularity_and_novelty(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[queries, k] retrieved rows, -1 where there are no more, to [queries] means over those that there are."""
        there = rows >= 0
        number = np.maximum(1, there.sum(axis=1))
        share, information = (
            np.where(there, of_item[rows], 0.0).sum(axis=1) / number for of_item in (self._share, self._information)
        )
        return share, information

    def index_recall(self, queries: NDArray[np.float32], exact: NDArray[np.int64]) -> NDArray[np.float64]:
        """[queries] shares of the exact top k of the whole catalogue that the retriever finds.

        An item that it found counts by its score, so that of items that score alike either will do.

        Args:
            queries: [queries, width].
            exact: [queries, k], the rows of `top_rows`.
        """
        items = self.embeddings[CANDIDATE]
        k = min(exact.shape[1], len(items))
        exact = exact[:, :k]
        retrieved = self._retriever.signatures[EMBEDDINGS_SIGNATURE](
            embedding=tf.constant(queries),
            k=tf.fill([len(queries)], k),
            exclude=tf.zeros([len(queries), 0], tf.string),
        )[ITEM_IDS]
        ids = pa.array(tf.reshape(retrieved, [-1]).numpy(), pa.binary())
        found = facts.positions(ids, self.ids).reshape(len(queries), k)
        last = np.einsum("qw,qw->q", queries, items[exact[:, -1]])
        scores = np.einsum("qw,qkw->qk", queries, items[found])
        right = (scores >= last[:, np.newaxis] - TIE) & (found >= 0)
        share: NDArray[np.float64] = right.sum(axis=1) / k
        return share

    def _ids_with_rows(self, table: str | None) -> set[bytes]:
        if table is None or self.places.last_blessed is None:
            return set()
        folder = warm_start_folder(self.places.last_blessed)
        return (
            set(analysis_files.read_vocabulary(folder, table).index)
            if analysis_files.has_table(folder, table)
            else set()
        )


def _in_order(serialized: Iterable[bytes]) -> list[bytes]:
    """A user's interactions side by side, oldest first; the order of the bytes decides between what is alike."""
    found = list(serialized)
    rows = facts.decode(found)
    keys = zip(*(facts.single(rows.column(name)).to_pylist() for name in (QUERY_ID, TIMESTAMP)), found, strict=True)
    return [example for *_, example in sorted(keys)]


def _sets(rows: pa.RecordBatch, query_features: list[str]) -> NDArray[np.int64]:
    """[rows, 2]: how many different items the row's query has, and how many of its interactions are with the row's."""
    there = [name for name in query_features if name in rows.schema.names]
    values = [[str(value) for value in rows.column(name).to_pylist()] for name in there]
    frame = pd.DataFrame({"item": facts.single(rows.column(CANDIDATE_ID)).to_pylist()})
    users = facts.single(rows.column(QUERY_ID)).to_pylist()
    numbers: dict[tuple[object, ...], int] = {}
    frame["query"] = [numbers.setdefault(key, len(numbers)) for key in zip(users, *values, strict=True)]
    different = frame.groupby("query")["item"].transform("nunique")
    repeats = frame.groupby(["query", "item"])["item"].transform("size")
    return np.stack([different, repeats], axis=1).astype(np.int64)


def _histories(batch: pa.RecordBatch, history: str | None, catalogue: Catalogue) -> Excluded:
    """The rows of the items in each query's history, of those that the catalogue still has."""
    lists = facts.lists(batch, history)
    rows = facts.positions(lists.values, catalogue.ids)
    kept = np.concatenate([[0], np.cumsum(rows >= 0)])
    return Excluded(kept[lists.offsets.to_numpy()].astype(np.int64), rows[rows >= 0])


def _user_groups(batch: pa.RecordBatch) -> NDArray[np.int64]:
    users = facts.single(batch.column(QUERY_ID)).to_pylist()
    return np.array([facts.user_part(user, USER_GROUPS) for user in users])


def _lists(values: NDArray[Any]) -> pa.ListArray:
    """[rows, width] to a list a row."""
    rows, width = values.shape
    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * width, pa.int32()), pa.array(flat))


def _lists_without_gaps(rows: NDArray[np.int64]) -> pa.ListArray:
    """[rows, k] with -1 for nothing to a list a row."""
    there = rows >= 0
    offsets = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(rows[there]))


def _names(values: NDArray[np.str_]) -> pa.ListArray:
    return pa.array([[value.encode()] for value in values.tolist()], pa.list_(pa.binary()))
