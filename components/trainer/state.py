"""The state that training continues from, under names that do not depend on a vocabulary: weights, optimizer slots, frequencies."""

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from components.trainer.model import TwoTowerModel

REPEATS = "repeats"
ATTENTION = "attention"
VALUE = ".ATTRIBUTES/VARIABLE_VALUE"  # the suffix of a variable's name in a checkpoint


class TrainingState:
    """A model's state, including the optimizer's.

    Args:
        model: built and compiled.

    Attributes:
        rows: for each embedding table, the table and its optimizer slots, each [rows of the table, ...]. One in shards is a
            `ShardedVariable`, which a checkpoint stores as one.
        rest: all other weights and their slots, by name.
        checkpoint: saves and restores all of it.
    """

    def __init__(self, model: TwoTowerModel) -> None:
        model.optimizer.build(model.trainable_variables)
        slots = _slots(model)
        tables = {**model.query_tower.tables, **model.item_tower.tables}
        self.rows = {
            name: [
                _whole(shards) for shards in zip(*([shard, *slots[shard.ref()]] for shard in layer.parts), strict=True)
            ]
            for name, layer in tables.items()
        }
        of_tables = {shard.ref() for layer in tables.values() for shard in layer.parts}
        self.rest = {
            f"{name}:{position}": variable
            for name, weight in _weights(model)
            if weight.ref() not in of_tables
            for position, variable in enumerate([weight, *slots[weight.ref()]])
        }
        self.rest["iterations"] = model.optimizer.iterations
        self.checkpoint = tf.train.Checkpoint(rows=self.rows, rest=self.rest, frequency=model.frequency)

    def fixed(self, reader: Any) -> tf.train.Checkpoint:
        """Return the part of a checkpoint whose shapes do not depend on the vocabularies.

        Leaves out repeat bonuses and history attention if the checkpoint's model did not have
        them.
        """
        rest = {
            name: variable
            for name, variable in self.rest.items()
            if name.partition(":")[0] not in (REPEATS, ATTENTION) or reader.has_tensor(f"rest/{name}/{VALUE}")
        }
        return tf.train.Checkpoint(rest=rest, frequency=self.checkpoint.frequency)


def row_key(table: str, position: int) -> str:
    """Return the name under which a checkpoint of `TrainingState` stores a table (position 0) or one of its slots."""
    return f"rows/{table}/{position}/{VALUE}"


def parts_of(variable: tf.Variable) -> list[tf.Variable]:
    """Return the shards of one of `TrainingState.rows`, in the order of rows."""
    return getattr(variable, "variables", [variable])


def _whole(shards: Sequence[tf.Variable]) -> tf.Variable:
    return shards[0] if len(shards) == 1 else tf.__internal__.distribute.ShardedVariable(list(shards))


def _weights(model: TwoTowerModel) -> Iterator[tuple[str, tf.Variable]]:
    """Yield the trainable weights that are not embedding tables, with names."""
    for tower in (model.query_tower, model.item_tower):
        for position, layer in enumerate(tower.dense_layers):
            yield from ((f"{tower.name}:{position}:{kind}", getattr(layer, kind)) for kind in ("kernel", "bias"))
    for history, layer in model.query_tower.attentions.items():
        yield from ((f"{ATTENTION}:{history}:{kind}", weight) for kind, weight in layer.learned.items())
    if model.repeat_bonus:
        for history, learned in model.repeat_bonus.learned.items():
            yield from ((f"{REPEATS}:{history}:{kind}", weight) for kind, weight in learned.items())
    yield from (("loss", variable) for variable in model.retrieval_loss.trainable_variables)


def _slots(model: TwoTowerModel) -> dict[object, list[tf.Variable]]:
    """Map each weight to its slots; Keras lists them after the step, those of a weight side by side."""
    weights = model.trainable_variables
    slots = model.optimizer.variables[1:]
    per_weight = len(slots) // len(weights)
    return {
        weight.ref(): slots[per_weight * position : per_weight * (position + 1)]
        for position, weight in enumerate(weights)
    }
