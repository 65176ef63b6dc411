"""Embeddings of a model that the project's trainer made: of a catalogue, and of queries of the log that it was trained on.

The log is one of `benchmarks.logs`. Items have an id, a creator and categories, one of which says nothing; queries have a user and
the items of the last ten interactions. Model inputs are made from the log's numbers, without files.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks.logs import CATEGORIES_A_TOPIC, CREATORS_AN_ITEM, TOPICS, World
from components.trainer.inputs import Batch
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, WEIGHTS_SUFFIX, FeatureSpec

WIDTH, HISTORY, BATCH = 64, 10, 4096
USERS_AN_ITEM = 0.2
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {name: {"width": 32, "hash_buckets": 1} for name in ("user", "item", "creator", "category")},
        "query": {
            "user": {"kind": "id", "table": "user"},
            "past": {"kind": "history", "table": "item", "last": HISTORY},
        },
        "item": {
            "item": {"kind": "id", "table": "item"},
            "creator": {"kind": "id", "table": "creator"},
            "categories": {"kind": "ids", "table": "category", "max_values": 2},
        },
    }
)
NO_ID = -1


class Trained(NamedTuple):
    """Unit vectors of a trained model.

    Attributes:
        items: [items, WIDTH] float32.
        queries: [queries, WIDTH] float32, of the newest interactions.
    """

    items: NDArray[np.float32]
    queries: NDArray[np.float32]


def trained(items: int, queries: int, interactions: int) -> Trained:
    """Train a model for an epoch and embed.

    Args:
        items: of the catalogue.
        queries: that are embedded; they are not trained on.
        interactions: of the log, `queries` among them.
    """
    world = World(max(1, int(USERS_AN_ITEM * items)), items)
    log = world.log(0, interactions)
    past = _histories(log.users, log.items)
    chance = np.random.default_rng(0)
    noise = TOPICS * CATEGORIES_A_TOPIC + chance.integers(TOPICS * CATEGORIES_A_TOPIC, size=items)
    own = world.topics * CATEGORIES_A_TOPIC + chance.integers(CATEGORIES_A_TOPIC, size=items)
    creators = chance.integers(max(1, int(CREATORS_AN_ITEM * items)), size=items)
    rows = {
        "user": world.users,
        "item": items,
        "creator": int(creators.max()) + 1,
        "category": 2 * TOPICS * CATEGORIES_A_TOPIC,
    }
    categories = np.stack([own, noise], axis=1)

    def of_items(chosen: NDArray[np.int64]) -> dict[str, tf.Tensor]:
        inputs = {
            "item": chosen,
            "creator": creators[chosen],
            "categories": categories[chosen],
            f"categories{WEIGHTS_SUFFIX}": np.full((len(chosen), 2), 0.5, np.float32),
            CANDIDATE_ID: chosen,
        }
        return {name: tf.constant(values) for name, values in inputs.items()}

    def of_queries(chosen: NDArray[np.int64]) -> dict[str, tf.Tensor]:
        inputs = {"user": log.users[chosen], "past": past[chosen], QUERY_ID: log.users[chosen]}
        return {name: tf.constant(values) for name, values in inputs.items()}

    settings = TrainerSettings.model_validate({"towers": {"query": [128, WIDTH], "item": [128, WIDTH]}})
    model = build_model(SPEC, rows, settings)
    model.compile(optimizer=build_optimizer(settings))

    def batch(chosen: NDArray[np.int64]) -> Batch:
        rewards = {REWARD: tf.constant(log.rewards[chosen])}
        return Batch({**of_items(log.items[chosen]), **of_queries(chosen), **rewards}, {})

    order = chance.permutation(interactions - queries)
    model.make_weights(batch(order[:BATCH]))
    step = tf.function(model.train_step)
    for start in range(0, len(order) - BATCH + 1, BATCH):
        step(batch(order[start : start + BATCH]))
    towers = (
        (model.item_tower, of_items, np.arange(items)),
        (model.query_tower, of_queries, np.arange(interactions - queries, interactions)),
    )
    made = []
    for tower, inputs, chosen in towers:
        parts = (chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH))
        made.append(np.concatenate([tower(inputs(part)).numpy() for part in parts]))
    return Trained(*made)


def _histories(users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [interactions, HISTORY] items of the user's interactions before, the newest last; NO_ID if there are fewer."""
    order = np.argsort(users, kind="stable")
    of_user, in_order = users[order], items[order]
    past = np.full((len(users), HISTORY), NO_ID)
    for back in range(1, HISTORY + 1):
        is_same = of_user[back:] == of_user[:-back]
        past[order[back:][is_same], HISTORY - back] = in_order[:-back][is_same]
    return past
