"""The Ranker's output: held-out interactions with their ranks, and their sums.

Split `eval`, an example for each interaction:

    candidate_id, query_id, timestamp, reward   of the held-out interaction
    _rank_by_SCORER         `[above, tied]`, int64; see `components.evaluator.ranking.Ranks`. For items as new only if the
                            interaction's item is one
    _true_items             `[distinct items of its query, interactions of the query with this item]`, int64
    _user_group             below USER_GROUPS, int64; an interval leaves out one group at a time
    _by_SLICE               its value of each slice; see `components.evaluator.names`

Split `sums`, an example for all interactions of a user group with the same value in every slice, which the Evaluator adds up:

    _sums_by_SCORER         float64, little-endian, as bytes: `components.evaluator.statistics.added` of the interactions, summed
    _retrieved_by_SCORER    the catalogue rows of the scorer's first `retrieved_at` items for all of the queries, int64
    _items                  the size of the catalogue, int64
    _user_group, _by_SLICE  as above

The scorers are those of `components.evaluator.names`. Features of the data begin with a letter, the pipeline's own here with
an underscore.
"""

from components.counts.files import USER_PARTITIONS

SUMS_SPLIT = "sums"
TRUE_ITEMS = "_true_items"
USER_GROUP = "_user_group"
CATALOGUE_SIZE = "_items"
USER_GROUPS = USER_PARTITIONS


def rank_feature(scorer: str) -> str:
    """Return the feature with the rank of the true item."""
    return f"_rank_by_{scorer}"


def sums_feature(scorer: str) -> str:
    """Return the feature with the sums."""
    return f"_sums_by_{scorer}"


def retrieved_feature(scorer: str) -> str:
    """Return the feature with the retrieved items."""
    return f"_retrieved_by_{scorer}"
