"""What a ranked example holds: what the Ranker leaves and the Evaluator adds up.

    candidate_id, query_id, timestamp, reward   of the held-out interaction
    _rank_by_SCORER         `[above, tied]`, int64; see `components.evaluator.ranking.Ranks`
    _retrieved_by_SCORER    the catalogue rows of the scorer's first `retrieved_at` items, int64; fewer where there are fewer
    _retrieval_by_SCORER    `[popularity, novelty, index recall]` of those, float32; see `components.evaluator.names`
    _true_items             `[different items that its query has, interactions of the query with this item]`, int64
    _user_group             below USER_GROUPS, int64; what an interval leaves out together
    _items                  the size of the catalogue, int64
    _by_SLICE               its value of each slice; see `components.evaluator.names`

The scorers are those of `components.evaluator.names`. Features of the data begin with a letter, the pipeline's own here with
an underscore.
"""

TRUE_ITEMS = "_true_items"
USER_GROUP = "_user_group"
CATALOGUE_SIZE = "_items"
USER_GROUPS = 32


def rank_feature(scorer: str) -> str:
    """The feature with the place of the true item."""
    return f"_rank_by_{scorer}"


def retrieved_feature(scorer: str) -> str:
    """The feature with the retrieved items."""
    return f"_retrieved_by_{scorer}"


def retrieval_feature(scorer: str) -> str:
    """The feature with what is measured of the retrieved items."""
    return f"_retrieval_by_{scorer}"
