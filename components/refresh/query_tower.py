"""The step that exports a trained query tower anew, where it looks features up in the catalogue that it was exported with."""

import tensorflow_transform as tft
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts

from components.artifacts import QueryTower, split_patterns, warm_start_folder
from components.trainer.export import export_tower
from components.trainer.settings import TrainerSettings
from components.trainer.trained import TrainedTowers, lookup_in
from components.transform.model_inputs import ModelInputs
from schemas.features import FeatureSpec


@component
def QueryTowerExport(
    model: InputArtifact[standard_artifacts.Model],
    transform_graph: InputArtifact[standard_artifacts.TransformGraph],
    catalogue: InputArtifact[standard_artifacts.Examples],
    query_tower: OutputArtifact[QueryTower],
    trainer: Parameter[str],
    feature_spec: Parameter[str],
) -> None:
    """Restore a model from its checkpoint, and export its query tower as the Trainer does, with another catalogue.

    Args:
        model: the Trainer's.
        transform_graph: that it was trained behind.
        catalogue: the new one, to look features up in.
        query_tower: the output: a SavedModel in the folder `query_tower`.
        trainer: `TrainerSettings` as JSON.
        feature_spec: the dataset's features, as JSON.
    """
    spec = FeatureSpec.model_validate_json(feature_spec)
    transform_output = tft.TFTransformOutput(transform_graph.uri)
    lookup = lookup_in(split_patterns(catalogue), spec, transform_output)
    settings = TrainerSettings.model_validate_json(trainer)
    restored = TrainedTowers(spec, settings, transform_output, warm_start_folder(model.uri), lookup).model
    inputs = ModelInputs(spec, transform_output, lookup)
    export_tower(restored.query_tower, spec.raw_query, inputs, query_tower.uri, restored.repeat_bonus)
