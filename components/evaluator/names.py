"""The names of scorers, metrics and slices. Imports nothing heavy: a configuration is validated with them before anything runs.

Scorers:

    candidate                the model under evaluation
    baseline                 the model that it is compared with: the last blessed one before it
    popularity               interactions of each item, carried from day to day and decayed (`components.counts`)
    recent_popularity        the same for the last seven days only
    taken_before             what the user took before, most often first, ties by the newest; then popularity
    cooccurrence             items taken by users whose histories contain items of the query's, newer ones with more weight; then
                             popularity
    as_new                   the candidate, with a share of the catalogue embedded as if it had just arrived; ranks only
                             interactions with those items
    content_neighbours       items whose features, without the id, are most similar to the history's; the same interactions
    similar_items            items whose embeddings by the candidate's item tower are most similar to that of the last item of the
                             history, as `ndr similar` finds them: without that item; ranks only interactions with a history
    new_queries_old_items    the candidate's query tower with the baseline's item embeddings: version skew
    old_queries_new_items    the reverse

`strongest` is the baseline in `evaluator.beat` with the greatest value of a metric on a slice.

Metrics, where K is each of `recall_at` and R is `retrieved_at`:

    recall_at_K         the mean over interactions of whether the item is among the first K
    query_recall_at_K   the mean over queries of the share of the true items among the first K
    ndcg_at_K           the mean over queries of the gain discounted by log2(rank + 1), divided by that of the best order (binary
                        relevance)
    mrr                 the mean over interactions of 1 / rank
    popularity_at_R     the mean over queries of the retrieved items' mean share of the training interactions
    novelty_at_R        the same for -log2 of that share, in bits; one interaction is added to every item's, so that none is
                        infinite (self-information; Vargas & Castells, RecSys 2011)
    index_recall_at_R   the mean over queries of the share of the exact top R that the retriever finds in its index; over
                        some of the users (`sampled_interactions`), as are those of similar items and of version skew
    filtered_recall_S_percent_at_R
                        if items can be filtered, the same for search with a filter that S percent of the items pass, chosen by a
                        digest; the mean over fewer queries (`filtered_queries`)
    coverage_at_R       the share of the catalogue that is retrieved for at least one query

Ties are averaged over all orders (`components.evaluator.expectation`). Items as new have recall@K and MRR only,
similar items and version skew recall@K only. The next day does not measure retrieval (popularity, novelty, index recall, coverage),
similar items and version skew.

Slices, whatever the dataset:

    item_popularity   by the item's share of the known interactions: the `head` has the first half of them, the `torso` those
                      up to nine tenths, the `tail` the rest, including items without any
    item_age          `fresh` if nothing of the item is known from before the day: no interaction, and no row of its own in the
                      last blessed model; else `known`
    user              `new` if nothing of the user is known: no interaction before the day, no history that reaches back before it,
                      and no row; else `known`
    history_length    the number of items in the query's history

and each value of the declared features that the configuration names. All slices rank the same candidates: those of the whole
catalogue, not only the slice's items.
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
SIMILAR_ITEMS = "similar_items"
NEW_QUERIES_OLD_ITEMS = "new_queries_old_items"
OLD_QUERIES_NEW_ITEMS = "old_queries_new_items"
STRONGEST = "strongest"

BASELINES = (POPULARITY, RECENT_POPULARITY, TAKEN_BEFORE, COOCCURRENCE)
"""Scorers that are not models."""
OF_NEW_ITEMS = (AS_NEW, CONTENT_NEIGHBOURS)
SKEWED = (NEW_QUERIES_OLD_ITEMS, OLD_QUERIES_NEW_ITEMS)
SCORERS = (CANDIDATE, BASELINE, *BASELINES, *OF_NEW_ITEMS, SIMILAR_ITEMS, *SKEWED)

INTERACTIONS = "interactions"
QUERIES = "queries"
SEARCHED_QUERIES = "searched_queries"
"""The number of queries that the retriever is asked."""
FILTERED_QUERIES = "filtered_queries"
"""The number of queries for which filtered search is measured."""
FILTERED_AT = (0.5, 0.1, 0.01, 0.001)


def gain_name(statistic: str, over: str) -> str:
    """Return the name of a statistic of the model minus that of another scorer on the same interactions."""
    return f"{statistic}_over_{over}"


@dataclass(frozen=True)
class Statistics:
    """The names of the statistics, and their columns for an interaction.

    Attributes:
        recall_at: the K.
        retrieved_at: R.
        exclude_history: which items are not ranked; see `components.evaluator.settings`.
        filtered_at: the S, as shares; empty if items cannot be filtered.
    """

    recall_at: tuple[int, ...]
    retrieved_at: int
    exclude_history: bool | Literal["all"] = False
    filtered_at: tuple[float, ...] = ()

    @property
    def candidates(self) -> str:
        """The candidate set's name, which is part of every metric's.

        `catalogue`; `unseen`, without the query's history; `untaken`, without all items that the user is known to have had.
        """
        return "untaken" if self.exclude_history == "all" else "unseen" if self.exclude_history else "catalogue"

    @property
    def recalls(self) -> list[str]:
        """recall@K over interactions."""
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
        """The one in bits; all others are shares."""
        return f"novelty_at_{self.retrieved_at}"

    @property
    def index_recall(self) -> str:
        """The index's recall, of the model under evaluation only."""
        return f"index_recall_at_{self.retrieved_at}"

    @property
    def filtered_recalls(self) -> list[str]:
        """The same for filters that a share of the items pass."""
        return [f"filtered_recall_{100 * share:g}_percent_at_{self.retrieved_at}" for share in self.filtered_at]

    @property
    def searched(self) -> list[str]:
        """The recalls of the retriever, which is asked some of the queries."""
        return [self.index_recall, *self.filtered_recalls]

    @property
    def coverage(self) -> str:
        """The only one that is not a mean."""
        return f"coverage_at_{self.retrieved_at}"

    @property
    def ranked(self) -> list[str]:
        """The statistics of ranks alone, which the next day measures."""
        return [*self.by_interaction, *(f"{name}_at_{k}" for name in ("query_recall", "ndcg") for k in self.recall_at)]

    @property
    def names(self) -> list[str]:
        """All statistics of the model."""
        return [*self.by_interaction, *self.by_query, *self.searched, self.coverage]

    @property
    def columns(self) -> list[str]:
        """The columns of `components.evaluator.statistics.added`: the counts that means are over, then the sums."""
        filtered = [FILTERED_QUERIES, *self.filtered_recalls] if self.filtered_at else []
        searched = [SEARCHED_QUERIES, self.index_recall]
        return [INTERACTIONS, QUERIES, *self.by_interaction, *self.by_query, *searched, *filtered]


def denominator(name: str) -> str:
    """Return the count that a mean is over."""
    if name.startswith("filtered_recall_"):
        return FILTERED_QUERIES
    if name.startswith("index_recall_"):
        return SEARCHED_QUERIES
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
