"""The names of pushed models: folders and models, their signatures, inputs and outputs."""

from collections.abc import Iterable

QUERY_TOWER = "query_tower"
ITEM_TOWER = "item_tower"
RETRIEVER = "retriever"
MODELS = (QUERY_TOWER, ITEM_TOWER, RETRIEVER)  # the parts of a version that TensorFlow runs
INDEX = "index"


def shard_names(component: str, shards: int) -> tuple[str, ...]:
    """Return the names of a component's shards, such as retriever-0-of-2 and retriever-1-of-2; its own if there is one shard."""
    return (component,) if shards == 1 else tuple(f"{component}-{number}-of-{shards}" for number in range(shards))


def undivided(name: str) -> str:
    """Return the name of a component, given that of one of its shards."""
    return name.partition("-")[0]


def is_of_shard(name: str, shard: int) -> bool:
    """Return whether a component belongs to a shard; the towers belong to all."""
    return undivided(name) not in (RETRIEVER, INDEX) or name.startswith(f"{undivided(name)}-{shard}-of-")


def names_of(component: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a component that a version with any of them must have: its own, or those of all shards."""
    stored = next((name for name in names if undivided(name) == component), component)
    return (component,) if stored == component else shard_names(component, int(stored.rpartition("-")[2]))


def models_of(names: Iterable[str]) -> list[str]:
    """Return the components of a version that TensorFlow runs."""
    return [name for name in names if undivided(name) in MODELS]


TENSORS_SIGNATURE = "serving_default"
EXAMPLES_SIGNATURE = "serving_examples"
EMBEDDINGS_SIGNATURE = "serving_embeddings"

EXAMPLES = "examples"
K = "k"
EXCLUDE = "exclude"
WHERE = "where"
EMBEDDING = "embedding"
REPEATED = "repeated_items"
BONUSES = "repeated_bonuses"
ITEM_IDS = "item_ids"
SCORES = "scores"

NO_ITEM = ""  # pads a row with fewer items than the answer's width
NO_SCORE = -2.0  # below every inner product of unit vectors plus a bonus
PROBE_GROWTH = (
    0.75  # of the probed lists with a query's depth: measured, no depth finds less than the one that is tuned for
)
DEEPEST_SHARE = 0.1  # of all items: a query that is deeper is compared with all that pass
