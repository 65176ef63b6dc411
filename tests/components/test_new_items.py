"""Items that nobody has taken yet, known by their content alone: vocabulary, transform, training and ranking of the steps."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.in_memory import Transform, analyse, embedded, trained
from components.evaluator.ranking import rank_by_embedding
from components.trainer.settings import TrainerSettings
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec
from tests.components.ranked_world import example

KINDS, OF_A_KIND = 10, 10
NEW = 2  # of each kind, the last ones
RARE = 2000  # items that were taken once, so that they have no row of their own: what their hash buckets learn is to be rare
INTERACTIONS = 8000
LIKED = 0.3  # of the interactions, the share that is with an item of the kind that is liked
SETTINGS = TrainerSettings.model_validate(
    {
        "towers": {"query": [16], "item": [16]},
        "batch_size": 200,
        "epochs": 6,
        "softmax": {"temperature": 0.1},
        "frequency": {"buckets": 4096},
    }
)


def spec(masked: float | None) -> FeatureSpec:
    return FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "at"},
            "catalogue": {"item": "item"},
            "tables": {
                "item": {"width": 16, "vocabulary": {"min_count": 2}, "hash_buckets": 4, "masked": masked},
                "kind": {"width": 8, "hash_buckets": 4096},
            },
            "query": {"likes": {"kind": "id", "table": "kind"}},
            "item": {"item": {"kind": "id", "table": "item"}, "kind": {"kind": "id", "table": "kind"}},
        }
    )


def ranked(folder: Path, masked: float | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where a query that likes a kind has each item of it, of those that are not rare; and which of the items are new."""
    random = np.random.default_rng(0)
    ids = np.arange(KINDS * OF_A_KIND)
    is_new = ids // KINDS >= OF_A_KIND - NEW
    likes = random.integers(0, KINDS, INTERACTIONS)
    # The first of a kind are the most popular.
    weights = np.where(is_new, 0.0, 1.0 / (1 + ids // KINDS))
    taken = random.choice(ids, INTERACTIONS, p=weights / weights.sum())
    taken = np.where(random.random(INTERACTIONS) < LIKED, taken // KINDS * KINDS + likes, taken)
    taken[:RARE] = len(ids) + np.arange(RARE)
    declared = spec(masked)

    def item(n: int) -> dict[str, list[object]]:
        return {"item": [b"item %d" % n], "kind": [b"kind %d" % (n % KINDS)], CANDIDATE_ID: [b"item %d" % n]}

    rows = [
        example(
            {
                **item(n),
                "likes": [b"kind %d" % liked],
                QUERY_ID: [b"%d" % number],
                TIMESTAMP: [number],
                REWARD: [1.0],
            }
        )
        for number, (n, liked) in enumerate(zip(taken.tolist(), likes.tolist(), strict=True))
    ]
    analyse(declared, rows, None, 20_000, str(folder))
    transform = Transform(declared, str(folder))
    catalogue = transform([example(item(n)) for n in ids.tolist()])
    model = trained(declared, SETTINGS, str(folder), transform(rows), catalogue)
    queries = transform([example({"likes": [b"kind %d" % (n % KINDS)], CANDIDATE_ID: [b""]}) for n in ids.tolist()])
    found = rank_by_embedding(*embedded(model, queries, catalogue), ids)
    return found.above, is_new


def test_an_item_that_is_known_by_its_content_alone_is_found(tmp_path: Path) -> None:
    above, is_new = ranked(tmp_path, masked=None)
    # A query's ten items are those of its kind: seven in a hundred of its interactions are with the mean one of the eight that are
    # known, where the most popular of another kind has two. All that is known of a new item is its kind, and it is among them.
    assert is_new.sum() == KINDS * NEW
    assert np.mean(above[is_new] < OF_A_KIND) == 1.0
    assert np.mean(above[~is_new] < OF_A_KIND) > 0.9
    assert above[is_new].mean() < 3.0


def test_without_masks_a_new_item_ranks_like_rare_ones(tmp_path: Path) -> None:
    """Nothing in training shows the tower an item without its id, and what hash buckets have learnt is that an item is rare."""
    above, is_new = ranked(tmp_path, masked=0.0)
    assert above[is_new].mean() > 3.5
    assert np.mean(above[~is_new] < OF_A_KIND) > 0.9
