"""The step that exports a trained query tower anew, where it looks features up in the catalogue that it was exported with."""

from typing import Any

import tensorflow_transform as tft
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components.artifacts import QueryTower, split_patterns, warm_start_folder
from components.trainer.export import export_tower
from components.trainer.settings import TrainerSettings
from components.trainer.trained import TrainedTowers, lookup_in
from components.transform.model_inputs import ModelInputs
from schemas.features import FeatureSpec


class QueryTowerSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the QueryTowerExport."""

    PARAMETERS = {
        "trainer": component_spec.ExecutionParameter(type=str),
        "feature_spec": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"query_tower": component_spec.ChannelParameter(type=QueryTower)}


class QueryTowerExecutor(base_executor.BaseExecutor):
    """Restores the model from its checkpoint, and exports its query tower as the Trainer does."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Run the step; TFX calls it."""
        self._log_startup(input_dict, output_dict, exec_properties)
        spec = FeatureSpec.model_validate_json(exec_properties["feature_spec"])
        transform_output = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
        lookup = lookup_in(
            split_patterns(artifact_utils.get_single_instance(input_dict["catalogue"])), spec, transform_output
        )
        model = TrainedTowers(
            spec,
            TrainerSettings.model_validate_json(exec_properties["trainer"]),
            transform_output,
            warm_start_folder(artifact_utils.get_single_uri(input_dict["model"])),
            lookup,
        ).model
        folder = artifact_utils.get_single_uri(output_dict["query_tower"])
        inputs = ModelInputs(spec, transform_output, lookup)
        export_tower(model.query_tower, spec.raw_query, inputs, folder, model.repeat_bonus)


class QueryTowerExport(base_component.BaseComponent):
    """The query tower of a trained model, with another catalogue to look features up in.

    Args:
        model: the Trainer's.
        transform_graph: that it was trained behind.
        catalogue: the new one.
        trainer: the Trainer's settings.
        spec: the dataset's features.

    Output `query_tower`: a SavedModel in the folder `query_tower`.
    """

    SPEC_CLASS = QueryTowerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(QueryTowerExecutor)

    def __init__(
        self,
        model: types.BaseChannel,
        transform_graph: types.BaseChannel,
        catalogue: types.BaseChannel,
        trainer: TrainerSettings,
        spec: FeatureSpec,
    ) -> None:
        super().__init__(
            QueryTowerSpec(
                model=model,
                transform_graph=transform_graph,
                catalogue=catalogue,
                trainer=trainer.model_dump_json(),
                feature_spec=spec.model_dump_json(),
                query_tower=types.Channel(type=QueryTower),
            )
        )
