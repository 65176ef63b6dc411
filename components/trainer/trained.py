"""Restores a trained model from the checkpoint for the next day, to compare a served model with it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray

from components.analysis import files
from components.trainer.inputs import catalogue_inputs, lookup_for_queries
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.repeats import RepeatBonus, Repeats
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.towers import Tower
from components.trainer.warm_start import CHECKPOINT
from components.transform import raw_features
from components.transform.catalogue_lookup import CatalogueLookup
from components.transform.model_inputs import ModelInputs
from schemas.features import Feature, FeatureSpec


def lookup_in(
    catalogue: Sequence[str], spec: FeatureSpec, transform_output: tft.TFTransformOutput
) -> CatalogueLookup | None:
    """Read a catalogue for the features that a query tower looks up; None if there are none.

    Args:
        catalogue: patterns of its raw files, including those of blocked items.
        spec: which feature feeds which tower.
        transform_output: of the day.
    """
    return lookup_for_queries(spec, catalogue_inputs(catalogue, spec, transform_output)) if spec.looked_up else None


class TrainedTowers:
    """Both towers as training left them, with the transform that they were trained with.

    Args:
        spec: the features of each tower.
        settings: the trainer's settings.
        transform_output: the day's transform graph.
        folder: the folder that `components.trainer.warm_start.save` wrote.
        lookup: the lookup of the query features in the catalogue, if there are any.

    Attributes:
        model: the model with all its weights, on one device.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        settings: TrainerSettings,
        transform_output: tft.TFTransformOutput,
        folder: str,
        lookup: CatalogueLookup | None = None,
    ) -> None:
        self.model = build_model(spec, files.table_rows(folder, spec), settings)
        self.model.compile(optimizer=build_optimizer(settings))
        queries, items = ModelInputs(spec, transform_output, lookup), ModelInputs(spec, transform_output)
        self._queries = _in_a_graph(self.model.query_tower, spec.raw_query, queries)
        self._items = _in_a_graph(self.model.item_tower, spec.item, items)
        bonus = self.model.repeat_bonus
        self._repeats = bonus and _in_a_graph(bonus, spec.raw_query, queries)
        for embed in (self._queries, self._items):
            embed.get_concrete_function()  # creates the layers' weights
        state = TrainingState(self.model)
        read = state.checkpoint.read(os.path.join(folder, CHECKPOINT))
        read.assert_existing_objects_matched().expect_partial()

    def embed_queries(self, examples: list[bytes]) -> NDArray[np.float32]:
        """Embed [batch] serialised raw tf.Examples to [batch, width]."""
        return self._queries(tf.constant(examples)).numpy()

    def repeats_of(self, examples: list[bytes]) -> Repeats | None:
        """Return the bonuses of the histories in [batch] serialised raw tf.Examples, as NumPy; None without repeats."""
        return self._repeats and Repeats(*(tensor.numpy() for tensor in self._repeats(tf.constant(examples))))

    def embed_items(self, examples: list[bytes]) -> NDArray[np.float32]:
        """Embed [batch] serialised raw tf.Examples to [batch, width]."""
        return self._items(tf.constant(examples)).numpy()


def _in_a_graph(tower: Tower | RepeatBonus, features: Mapping[str, Feature], transform: ModelInputs) -> Any:
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    @tf.autograph.experimental.do_not_convert
    def embed(examples: tf.Tensor) -> tf.Tensor:
        return tower(transform(raw_features.parse_examples(examples, features)))

    return embed
