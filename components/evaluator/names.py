"""The names of scorers, metrics and slices. Nothing heavy is imported: a configuration is checked by them before anything runs.

Scorers:

    candidate                the model that is judged
    baseline                 the one that it is compared with: the last blessed model before it
    popularity               interactions of each item, carried from day to day and decayed (`components.counts`)
    recent_popularity        the same of the last seven days only
    taken_before             what the user took before, most often first, of equals the newest; then popularity
    cooccurrence             what was taken by those whose histories hold the items of the query's, newer ones weighing more; then
                             popularity
    as_new                   the candidate, with a share of the catalogue embedded as if it had just arrived; only interactions with
                             those items are ranked
    content_neighbours       items whose features, but for the id, are most like those of the history; the same interactions
    new_queries_old_items    the candidate's query tower over the baseline's item embeddings: version skew
    old_queries_new_items    the reverse

`strongest` is, of the baselines that `evaluator.beat` names, the one with the greatest value of a metric on a slice.

Metrics, where K is each of `recall_at` and R is `retrieved_at`:

    recall_at_K         the mean over interactions of: is the item among the first K
    query_recall_at_K   the mean over queries of the share of the true items that are among the first K
    ndcg_at_K           the mean over queries of the gain discounted by log2(place + 1), over that of the best order (binary
                        relevance)
    mrr                 the mean over interactions of 1 / place
    popularity_at_R     the mean over queries of the retrieved items' mean share of the training interactions
    novelty_at_R        the same of -log2 of that share, in bits; one interaction is added to every item's, so that none is infinite
                        (self-information; Vargas & Castells, RecSys 2011)
    index_recall_at_R   the mean over queries of the share of the exact top R that the retriever finds in its index
    filtered_recall_S_percent_at_R
                        where items can be filtered, the same of search with a filter that S percent of the items pass, which are up
                        to a digest; the mean over some of the queries (`filtered_queries`)
    coverage_at_R       the share of the catalogue that is retrieved for any of the queries

Places with equal scores are taken in all orders (`components.evaluator.expectation`). Items as new have recall@K and MRR only,
version skew recall@K only. The next day measures nothing of what is retrieved (popularity, novelty, index recall, coverage).

Slices, whatever the dataset:

    item_popularity   its item by the share of the interactions known: the `head` has the first half of them, the `torso` those
                      up to nine tenths, the `tail` the rest, with the items that have none
    item_age          `fresh` where nothing of the item is known from before the day: no interaction, and no row of its own in the
                      last blessed model; else `known`
    user              `new` where nothing of the user is: no interaction before the day, no history that reaches back before it, and
                      no row; else `known`
    history_length    how many items the query's history has

and, of the declared features that the configuration names, each value. All rank the same candidates: those of the whole catalogue,
not only the slice's items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CANDIDATE = "candidate"
BASELINE = "baseline"
POPULARITY = "popularity"
RECENT_POPULARITY = "recent_popularity"
TAKEN_BEFORE = "taken_before"
COOCCURRENCE = "cooccurrence"
AS_NEW = "as_new"
CONTENT_NEIGHBOURS = "content_neighbours"
NEW_QUERIES_OLD_ITEMS = "new_queries_old_items"
OLD_QUERIES_NEW_ITEMS = "old_queries_new_items"
STRONGEST = "strongest"

BASELINES = (POPULARITY, RECENT_POPULARITY, TAKEN_BEFORE, COOCCURRENCE)
"""Scorers that are not models."""
OF_NEW_ITEMS = (AS_NEW, CONTENT_NEIGHBOURS)
SKEWED = (NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS)
SCORERS = (CANDIDATE, BASELINE, *BASELINES, *OF_NEW_ITEMS, *SKEWED)

INTERACTIONS = "interactions"
QUERIES = "queries"
FILTERED_QUERIES = "filtered_queries"
"""Those with which filtered search is measured."""
FILTERED_AT = (0.5, 0.1, 0.01, 0.001)


def gain_name(statistic: str, over: str) -> str:
    """The name of a statistic of the model, less that of another scorer on the same interactions."""
    return f"{statistic}_over_{over}"


@dataclass(frozen=True)
class Statistics:
    """The names of what is measured, and its numbers for an interaction.

    Attributes:
        recall_at: the K.
        retrieved_at: R.
        exclude_history: which items were left out of what was ranked; see `components.evaluator.settings`.
        filtered_at: the S, as shares; none where items cannot be filtered.
    """

    recall_at: tuple[int, ...]
    retrieved_at: int
    exclude_history: bool | Literal["all"] = False
    filtered_at: tuple[float, ...] = ()

    @property
    def candidates(self) -> str:
        """The candidate set's name, which is part of every metric's.

        `catalogue`; `unseen`, the catalogue less the query's history; `untaken`, less all that the user is known to have had.
        """
        return "untaken" if self.exclude_history == "all" else "unseen" if self.exclude_history else "catalogue"

    @property
    def recalls(self) -> list[str]:
        """recall@K, by interaction."""
        return [f"recall_at_{k}" for k in self.recall_at]

    @property
    def by_interaction(self) -> list[str]:
        """The means over interactions."""
        return [*self.recalls, "mrr"]

    @property
    def by_query(self) -> list[str]:
        """The means over queries that all scorers have."""
        ranked = [f"{name}_at_{k}" for name in ("query_recall", "ndcg") for k in self.recall_at]
        return [*ranked, f"popularity_at_{self.retrieved_at}", self.novelty]

    @property
    def novelty(self) -> str:
        """The one that is in bits; all others are shares."""
        return f"novelty_at_{self.retrieved_at}"

    @property
    def index_recall(self) -> str:
        """The index's recall, which only the model under evaluation has."""
        return f"index_recall_at_{self.retrieved_at}"

    @property
    def filtered_recalls(self) -> list[str]:
        """The same where a filter lets a share of the items through."""
        return [f"filtered_recall_{100 * share:g}_percent_at_{self.retrieved_at}" for share in self.filtered_at]

    @property
    def coverage(self) -> str:
        """The one that is no mean."""
        return f"coverage_at_{self.retrieved_at}"

    @property
    def ranked(self) -> list[str]:
        """What follows from ranks alone, which is all that the next day judges by."""
        return [*self.by_interaction, *(f"{name}_at_{k}" for name in ("query_recall", "ndcg") for k in self.recall_at)]

    @property
    def names(self) -> list[str]:
        """Everything that is measured of the model."""
        return [*self.by_interaction, *self.by_query, self.index_recall, *self.filtered_recalls, self.coverage]

    @property
    def columns(self) -> list[str]:
        """What `components.evaluator.statistics.added` gives: the counts that means are over, then the sums."""
        filtered = [FILTERED_QUERIES, *self.filtered_recalls] if self.filtered_at else []
        return [INTERACTIONS, QUERIES, *self.by_interaction, *self.by_query, self.index_recall, *filtered]


def denominator(name: str) -> str:
    """What a mean is over."""
    if name.startswith("filtered_recall_"):
        return FILTERED_QUERIES
    return INTERACTIONS if name.startswith("recall_at_") or name == "mrr" else QUERIES


ALL = "all"
"""The slice of all interactions."""
ITEM_POPULARITY = "item_popularity"
ITEM_AGE = "item_age"
USER = "user"
HISTORY_LENGTH = "history_length"
SLICES: Mapping[str, tuple[str, ...]] = {
    ITEM_POPULARITY: ("head", "torso", "tail"),
    ITEM_AGE: ("fresh", "known"),
    USER: ("new", "known"),
    HISTORY_LENGTH: ("0", "1-4", "5-19", "20+"),
}
"""The pipeline's own slices and their values."""
