"""The names of scorers, metrics and slices. Nothing heavy is imported: a configuration is checked by them before anything runs.

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
    coverage_at_R       the share of the catalogue that is retrieved for any of the queries

Places with equal scores are taken in all orders (`components.evaluator.expectation`).

Slices, whatever the dataset:

    item_popularity   its item by the share of the training interactions: the `head` has the first half of them, the `torso` those
                      up to nine tenths, the `tail` the rest, with the items that have none
    item_age          `fresh` where nothing of the item is known from before the day: no training interaction, and no row of its own
                      in the last blessed model; else `known`
    user              `new` where nothing of the user is: no training interaction before the day, no history that reaches back
                      before the window, and no row; else `known`
    history_length    how many items the query's history has

and, of the declared features that the configuration names, each value. All rank the same candidates: those of the whole catalogue,
not only the slice's items.
"""

from collections.abc import Mapping
from dataclasses import dataclass

CANDIDATE = "candidate"
BASELINE = "baseline"
POPULARITY = "popularity"
COOCCURRENCE = "cooccurrence"

INTERACTIONS = "interactions"
QUERIES = "queries"


def gain_name(statistic: str, over: str) -> str:
    """The name of a statistic of the model, less that of another scorer on the same interactions."""
    return f"{statistic}_over_{over}"


@dataclass(frozen=True)
class Statistics:
    """The names of what is measured, and its numbers for an interaction.

    Attributes:
        recall_at: the K.
        retrieved_at: R.
        without_history: whether the items of a query's history were left out of what was ranked.
    """

    recall_at: tuple[int, ...]
    retrieved_at: int
    without_history: bool = False

    @property
    def candidates(self) -> str:
        """The candidate set's name, which is part of every metric's: `catalogue` or `unseen` (the catalogue less the history)."""
        return "unseen" if self.without_history else "catalogue"

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
    def coverage(self) -> str:
        """The one that is no mean."""
        return f"coverage_at_{self.retrieved_at}"

    @property
    def names(self) -> list[str]:
        """Everything that is measured of the model."""
        return [*self.by_interaction, *self.by_query, self.index_recall, self.coverage]

    @property
    def columns(self) -> list[str]:
        """What `components.evaluator.statistics.added` gives: the counts that means are over, then the sums."""
        return [INTERACTIONS, QUERIES, *self.by_interaction, *self.by_query, self.index_recall]


def denominator(name: str) -> str:
    """What a mean is over."""
    return INTERACTIONS if name.startswith("recall_at_") or name == "mrr" else QUERIES


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
