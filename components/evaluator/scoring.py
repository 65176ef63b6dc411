"""Ranks the interactions of a group of users among the whole catalogue, by every scorer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components import ragged
from components.decoded import decode, lists, single
from components.digests import is_drawn
from components.evaluator import names, slices
from components.evaluator.catalogue import Catalogue, Places
from components.evaluator.cells import Scored, numbered
from components.evaluator.names import (
    AS_NEW,
    BASELINE,
    CANDIDATE,
    CONTENT_NEIGHBOURS,
    COOCCURRENCE,
    NEW_QUERIES_OLD_ITEMS,
    OLD_QUERIES_NEW_ITEMS,
    POPULARITY,
    RECENT_POPULARITY,
    SIMILAR_ITEMS,
    TAKEN_BEFORE,
)
from components.evaluator.positions import positions, rows_of_lists
from components.evaluator.query_items import Bonuses, Excluded
from components.evaluator.ranking import Ranks, rank_and_retrieve, rank_by_embedding, rank_by_score, top_rows
from components.evaluator.ranking_entries import rank_by_entries, top_by_entries, top_by_popularity
from components.evaluator.settings import EvaluatorSettings
from components.evaluator.taken import Taken
from components.indexer.embedding import LoadedTower, Queries
from components.kept import Kept
from components.utc import MICROSECONDS_A_DAY
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

BATCH = 2048


class Group(NamedTuple):
    """The ranked interactions of a group of users.

    Attributes:
        rows: [interactions], their features.
        scored: the results of each scorer.
        sets: [interactions, 2] int64, the number of distinct items of the interaction's query, and of its interactions with
            this item.
        slices: by slice, [interactions] lists of its values.
        not_in_catalogue: the number of other interactions, with items that the catalogue lacks.
    """

    rows: pa.RecordBatch
    scored: dict[str, Scored]
    sets: NDArray[np.int64]
    slices: dict[str, pa.ListArray]
    not_in_catalogue: int


class Asked(NamedTuple):
    """The queries for the scorers.

    Attributes:
        true_rows: [queries] int64, the catalogue rows of the items.
        users: [queries] int64, numbers of the group's users.
        times: [queries] int64, microseconds.
        histories: the catalogue rows of each query's history, oldest first.
        excluded: the items that are not ranked.
        is_sampled: [queries] bool, whether what needs another search is measured too.
    """

    true_rows: NDArray[np.int64]
    users: NDArray[np.int64]
    times: NDArray[np.int64]
    histories: Excluded
    excluded: Excluded | None
    is_sampled: NDArray[np.bool_]

    def of(self, queries: NDArray[np.int64]) -> "Asked":
        """Return some of the queries."""
        excluded = self.excluded and self.excluded.of(queries)
        return Asked(
            self.true_rows[queries],
            self.users[queries],
            self.times[queries],
            self.histories.of(queries),
            excluded,
            self.is_sampled[queries],
        )


class ScoreGroup:
    """Ranks a group's interactions by all scorers of `components.evaluator.names` that apply.

    A query is a user with the features of the query tower: interactions that share all of them are one query with several true
    items.

    Args:
        places: where the inputs lie.
        settings: the evaluator's settings.
        spec: the dataset's features.
        span: the day, in days since 1970-01-01.
    """

    def __init__(self, places: Places, settings: EvaluatorSettings, spec: FeatureSpec, span: int) -> None:
        self._places = places
        self._settings = settings
        self._spec = spec
        self._span = span
        self._towers = {name: LoadedTower(folder) for name, folder in places.query_towers.items()}
        self._catalogue = Kept(lambda: Catalogue(places, settings, spec, span))

    @property
    def size(self) -> int:
        """The size of the catalogue."""
        return len(self._catalogue.get().ids)

    def __call__(self, group: int, examples: Iterable[bytes]) -> Group:
        """Rank the interactions with a reward above 0 and an item of the catalogue."""
        catalogue = self._catalogue.get()
        rows, serialized = _in_order(list(examples))
        in_catalogue = positions(rows.column(CANDIDATE_ID), catalogue.ids) >= 0
        rows, serialized = rows.filter(pa.array(in_catalogue)), serialized[in_catalogue]
        gone = int((~in_catalogue).sum())
        if not rows.num_rows:
            return Group(rows, {}, np.zeros((0, 2), np.int64), {}, gone)
        users = single(rows.column(QUERY_ID)).dictionary_encode()
        taken = Taken(self._places.counts, group, users.dictionary.cast(pa.binary()), catalogue.ids)
        sampled = self._settings.sampled_interactions / max(1, catalogue.facts.interactions)
        is_sampled = np.array([is_drawn(user, self._span, sampled) for user in users.dictionary.to_pylist()], bool)
        asked = Asked(
            positions(rows.column(CANDIDATE_ID), catalogue.ids),
            users.indices.to_numpy().astype(np.int64),
            single(rows.column(TIMESTAMP)).to_numpy(),
            rows_of_lists(rows, self._spec.history_feature, catalogue.ids),
            None,
            is_sampled[users.indices.to_numpy()],
        )
        excluded: Excluded | None = None
        if self._settings.exclude_history:
            excluded = asked.histories
        if self._settings.exclude_history == "all":
            excluded = taken.items(asked.users, asked.times, asked.histories)
        asked = asked._replace(excluded=excluded)
        # Batches do not depend on the runner, because the last bit of an embedding may depend on its batch.
        batches = [np.arange(start, min(start + BATCH, rows.num_rows)) for start in range(0, rows.num_rows, BATCH)]
        scored = [self._score(asked.of(batch), serialized[batch].tolist(), taken, catalogue) for batch in batches]
        return Group(
            rows,
            Scored.concatenate(scored, batches),
            _sets(rows, list(self._spec.raw_query)),
            self._slices(rows, asked, taken, catalogue),
            gone,
        )

    def _score(self, asked: Asked, serialized: list[bytes], taken: Taken, catalogue: Catalogue) -> dict[str, Scored]:
        embedded = {name: tower.embed_queries(serialized) for name, tower in self._towers.items()}
        queries = {name: of_tower.embeddings for name, of_tower in embedded.items()}
        bonuses = {name: _bonuses(of_tower, catalogue) for name, of_tower in embedded.items()}
        scored = {}
        for name, by_model in queries.items():
            scored[name] = self._of_model(name, by_model, asked, catalogue, bonuses[name])
        scored |= self._of_baselines(asked, taken, catalogue)
        scored |= self._of_new_items(asked, queries[CANDIDATE], catalogue, bonuses[CANDIDATE])
        if self._places.retrievers:
            scored |= _of_similar_items(asked, catalogue.embeddings[CANDIDATE])
            scored |= _of_skewed_towers(asked, queries, catalogue, bonuses)
        return scored

    def _of_model(
        self,
        name: str,
        queries: NDArray[np.float32],
        asked: Asked,
        catalogue: Catalogue,
        bonuses: Bonuses | None,
    ) -> Scored:
        k, items = self._settings.retrieved_at, catalogue.embeddings[name]
        if not self._places.retrievers:
            return Scored.of_ranks(rank_by_embedding(queries, items, asked.true_rows, asked.excluded, bonuses))
        ranks, rows = rank_and_retrieve(queries, items, asked.true_rows, k, asked.excluded, bonuses)
        recalls = np.zeros((len(rows), 2))
        if name == CANDIDATE:  # the search alone, without bonuses
            searched = items if catalogue.is_served else catalogue.served.embeddings
            is_exact = asked.excluded is None and bonuses is None and catalogue.is_served
            some = np.flatnonzero(asked.is_sampled)
            if len(some):
                exact = rows[some] if is_exact else top_rows(queries[some], searched, k)
                recalls[some, 0], recalls[some, 1] = 1.0, catalogue.index_recall(queries[some], exact)
            if self._settings.statistics.filtered_at:
                recalls = np.concatenate([recalls, catalogue.filtered_recalls(queries, k)], axis=1)
        return _measured(ranks, rows, recalls, catalogue)

    def _of_baselines(self, asked: Asked, taken: Taken, catalogue: Catalogue) -> dict[str, Scored]:
        known, k = catalogue.known, self._settings.retrieved_at
        by_count = {POPULARITY: known.counts, RECENT_POPULARITY: known.recent}
        by_entries = {TAKEN_BEFORE: taken.scores(asked.users, asked.times, asked.histories, len(catalogue.ids))}
        if self._spec.history_feature:
            by_entries[COOCCURRENCE] = known.neighbours.scores(asked.histories)
        ranks = {
            name: rank_by_score(counts.astype(np.float64), asked.true_rows, asked.excluded)
            for name, counts in by_count.items()
        } | {
            name: rank_by_entries(entries, known.counts, asked.true_rows, asked.excluded)
            for name, entries in by_entries.items()
        }
        if not self._places.retrievers:
            return {name: Scored.of_ranks(of_scorer) for name, of_scorer in ranks.items()}
        retrieved = {
            name: top_by_popularity(len(asked.true_rows), counts, k, asked.excluded)
            for name, counts in by_count.items()
        } | {name: top_by_entries(entries, known.counts, k, asked.excluded) for name, entries in by_entries.items()}
        nothing = np.zeros((len(asked.true_rows), 2))
        return {name: _measured(of_scorer, retrieved[name], nothing, catalogue) for name, of_scorer in ranks.items()}

    def _of_new_items(
        self, asked: Asked, queries: NDArray[np.float32], catalogue: Catalogue, bonuses: Bonuses | None
    ) -> dict[str, Scored]:
        rows = np.flatnonzero(catalogue.is_new[asked.true_rows])
        if not len(rows):
            return {}
        some = asked.of(rows)
        if bonuses is not None:  # an item that has just arrived is in no history
            bonuses = bonuses.of(rows)
            bonuses = bonuses._replace(values=np.where(catalogue.is_new[bonuses.rows], np.float32(0), bonuses.values))
        return {
            AS_NEW: Scored.of_ranks(
                rank_by_embedding(queries[rows], catalogue.as_new, some.true_rows, some.excluded, bonuses), rows
            ),
            CONTENT_NEIGHBOURS: Scored.of_ranks(
                catalogue.content.rank(some.histories, some.true_rows, some.excluded), rows
            ),
        }

    def _slices(
        self, rows: pa.RecordBatch, asked: Asked, taken: Taken, catalogue: Catalogue
    ) -> dict[str, pa.ListArray]:
        lengths = np.diff(lists(rows, self._spec.history_feature).offsets.to_numpy())
        known_users = self._known_users(rows, asked, taken, catalogue)
        built_in = {
            names.ITEM_POPULARITY: catalogue.popularity_parts[asked.true_rows],
            names.ITEM_AGE: np.where(catalogue.is_known[asked.true_rows], "known", "fresh"),
            names.USER: np.where(known_users, "known", "new"),
            names.HISTORY_LENGTH: slices.history_lengths(lengths),
        }
        by_name = {name: _names(values) for name, values in built_in.items()}
        for name, declared in self._settings.slices.items():
            values = lists(rows, name)
            of_numbers = slices.of_numbers(values, declared.edges) if declared.edges else None
            by_name[name] = of_numbers or slices.of_ids(values, catalogue.facts.kept_values[name])
        return by_name

    def _known_users(self, rows: pa.RecordBatch, asked: Asked, taken: Taken, catalogue: Catalogue) -> NDArray[np.bool_]:
        """Return [rows], whether anything of the user is known from before the day."""
        day = self._span * MICROSECONDS_A_DAY
        is_known = taken.before(day)
        # A history with more than the day's own items reaches back before the day.
        size = len(catalogue.ids)
        of_day = [taken.since(day), (asked.users[asked.times >= day], asked.true_rows[asked.times >= day])]
        keys = np.concatenate([users * size + items for users, items in of_day])
        users = np.repeat(asked.users, np.diff(asked.histories.offsets))
        is_known[users[~np.isin(users * size + asked.histories.rows, keys)]] = True
        identifiers = single(rows.column(QUERY_ID)).dictionary_encode().dictionary.to_pylist()
        is_known |= np.array([user in catalogue.known_users for user in identifiers], bool)
        return is_known[asked.users]


def _of_similar_items(asked: Asked, items: NDArray[np.float32]) -> dict[str, Scored]:
    """Rank by the similarity to the last item of the history, which is not ranked itself; for sampled users."""
    rows = np.flatnonzero(asked.is_sampled & (np.diff(asked.histories.offsets) > 0))
    if not len(rows):
        return {}
    some = asked.of(rows)
    last = some.histories.rows[some.histories.offsets[1:] - 1]
    excluded = some.excluded or Excluded(np.arange(len(last) + 1), last)
    return {SIMILAR_ITEMS: Scored.of_ranks(rank_by_embedding(items[last], items, some.true_rows, excluded), rows)}


def _of_skewed_towers(
    asked: Asked,
    queries: Mapping[str, NDArray[np.float32]],
    catalogue: Catalogue,
    bonuses: Mapping[str, Bonuses | None],
) -> dict[str, Scored]:
    """Rank by each model's query tower with the other's items; for sampled users, if their embeddings are as wide."""
    rows = np.flatnonzero(asked.is_sampled)
    if BASELINE not in queries or queries[BASELINE].shape != queries[CANDIDATE].shape or not len(rows):
        return {}
    some, scored = asked.of(rows), {}
    for name, of_queries, of_items in (
        (NEW_QUERIES_OLD_ITEMS, CANDIDATE, BASELINE),
        (OLD_QUERIES_NEW_ITEMS, BASELINE, CANDIDATE),
    ):
        added = bonuses[of_queries]
        ranks = rank_by_embedding(
            queries[of_queries][rows],
            catalogue.embeddings[of_items],
            some.true_rows,
            some.excluded,
            added and added.of(rows),
        )
        scored[name] = Scored.of_ranks(ranks, rows)
    return scored


def _bonuses(queries: Queries, catalogue: Catalogue) -> Bonuses | None:
    """Return the bonuses of histories, by the catalogue's rows; None without repeats."""
    if not queries.repeated.shape[1]:
        return None
    rows = positions(pa.array(queries.repeated.ravel(), pa.binary()), catalogue.ids)
    return Bonuses.of_rows(rows.reshape(queries.repeated.shape), queries.bonuses)


def _measured(ranks: Ranks, retrieved: NDArray[np.int64], recalls: NDArray[np.float64], catalogue: Catalogue) -> Scored:
    retrieval = np.concatenate([np.stack(catalogue.popularity_and_novelty(retrieved), axis=1), recalls], axis=1)
    return Scored(np.arange(len(retrieved)), ranks, retrieval, retrieved)


def _in_order(serialized: Sequence[bytes]) -> tuple[pa.RecordBatch, NDArray[np.object_]]:
    """Sort a user's rewarded interactions together, oldest first; ties by their bytes."""
    rows = decode(serialized)
    keys = zip(*(single(rows.column(name)).to_pylist() for name in (QUERY_ID, TIMESTAMP)), serialized, strict=True)
    order = np.array([number for *_, number in sorted((*key, number) for number, key in enumerate(keys))], np.int64)
    chosen = order[pc.greater(single(rows.column(REWARD)), 0.0).to_numpy(zero_copy_only=False)[order]]
    return rows.take(pa.array(chosen)), np.array(serialized, object)[chosen]


def _sets(rows: pa.RecordBatch, query_features: list[str]) -> NDArray[np.int64]:
    """Return [rows, 2]: the number of distinct items of the row's query, and of its interactions with the row's item."""
    columns = [lists(rows, name) for name in (QUERY_ID, *query_features)]
    queries, _ = numbered(columns, rows.num_rows)
    items, first = numbered([lists(rows, CANDIDATE_ID)], rows.num_rows)
    pairs, numbers, repeats = np.unique(queries * len(first) + items, return_inverse=True, return_counts=True)
    different = np.bincount(pairs // len(first))
    return np.stack([different[queries], repeats[numbers]], axis=1).astype(np.int64)


def _names(values: NDArray[np.str_]) -> pa.ListArray:
    return ragged.of_width(pa.array(values.astype(np.bytes_).tolist(), pa.binary()), 1)
