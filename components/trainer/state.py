"""Everything that training goes on from, under names that outlive a vocabulary: weights, optimizer slots, frequencies."""

from collections.abc import Iterator

import tensorflow as tf

from components.trainer.model import TwoTowerModel


class TrainingState:
    """A model's state, with the optimizer's.

    Args:
        model: built and compiled.

    Attributes:
        rows: for each embedding table, the table and its optimizer slots, each [rows of the table, ...].
        rest: all other weights and their slots, by name.
        checkpoint: saves and restores all of it.
    """

    def __init__(self, model: TwoTowerModel) -> None:
        model.optimizer.build(model.trainable_variables)
        slots = _slots(model)
        self.rows = {
            name: [layer.table, *slots[layer.table.ref()]]
            for tower in (model.query_tower, model.item_tower)
            for name, layer in tower.tables.items()
        }
        of_tables = {variables[0].ref() for variables in self.rows.values()}
        self.rest = {
            f"{name}:{position}": variable
            for name, weight in _weights(model)
            if weight.ref() not in of_tables
            for position, variable in enumerate([weight, *slots[weight.ref()]])
        }
        self.rest["iterations"] = model.optimizer.iterations
        self.checkpoint = tf.train.Checkpoint(rows=self.rows, rest=self.rest, frequency=model.frequency)

    @property
    def fixed(self) -> tf.train.Checkpoint:
        """What a checkpoint has in the same shape whatever the vocabularies are."""
        return tf.train.Checkpoint(rest=self.rest, frequency=self.checkpoint.frequency)


def row_key(table: str, position: int) -> str:
    """The name under which a checkpoint of `TrainingState` keeps a table (position 0) or one of its slots."""
    return f"rows/{table}/{position}/.ATTRIBUTES/VARIABLE_VALUE"


def _weights(model: TwoTowerModel) -> Iterator[tuple[str, tf.Variable]]:
    """The trainable weights that are not embedding tables, with names."""
    for tower in (model.query_tower, model.item_tower):
        for position, layer in enumerate(tower.dense_layers):
            yield from ((f"{tower.name}:{position}:{kind}", getattr(layer, kind)) for kind in ("kernel", "bias"))
    yield from (("loss", variable) for variable in model.retrieval_loss.trainable_variables)


def _slots(model: TwoTowerModel) -> dict[object, list[tf.Variable]]:
    """Each weight's slots; Keras keeps them behind the step, those of a weight side by side."""
    weights = model.trainable_variables
    slots = model.optimizer.variables[1:]
    each = len(slots) // len(weights)
    return {weight.ref(): slots[each * position : each * (position + 1)] for position, weight in enumerate(weights)}
