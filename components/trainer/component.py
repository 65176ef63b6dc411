"""TFX's Trainer, given the catalogue too: mixed negatives are drawn from it."""

from typing import Any

from tfx import types
from tfx import v1 as tfx
from tfx.components.trainer import executor, fn_args_utils
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.types.standard_component_specs import TrainerSpec
from tfx.utils import io_utils, json_utils

from components.example_gen.catalogue import CATALOGUE_SPLIT

CATALOGUE_KEY = "catalogue"
CATALOGUE_FILES = "catalogue_files"


class RetrievalTrainerSpec(component_spec.ComponentSpec):
    """TFX's, and the catalogue."""

    PARAMETERS = TrainerSpec.PARAMETERS
    INPUTS = {**TrainerSpec.INPUTS, CATALOGUE_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = TrainerSpec.OUTPUTS
    TYPE_ANNOTATION = TrainerSpec.TYPE_ANNOTATION


class RetrievalTrainerExecutor(executor.GenericExecutor):
    """TFX's executor; `custom_config` tells the user function the patterns of the catalogue's files under `catalogue_files`."""

    def _GetFnArgs(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> fn_args_utils.FnArgs:
        arguments = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        folders = artifact_utils.get_split_uris(input_dict[CATALOGUE_KEY], CATALOGUE_SPLIT)
        files = [io_utils.all_files_pattern(folder) for folder in folders]
        arguments.custom_config = {**arguments.custom_config, CATALOGUE_FILES: files}
        return arguments


class RetrievalTrainer(base_component.BaseComponent):
    """Trains on the `train` split.

    Args:
        run_fn: the import path of the user function.
        examples: transformed interactions.
        catalogue: the day's items, raw.
        transform_graph: Transform's.
        statistics: of the interactions; says how many there are.
        custom_config: what the user function is told; JSON can hold it.
    """

    SPEC_CLASS = RetrievalTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(RetrievalTrainerExecutor)

    def __init__(
        self,
        run_fn: str,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        transform_graph: types.BaseChannel,
        statistics: types.BaseChannel,
        custom_config: dict[str, Any],
    ) -> None:
        super().__init__(
            RetrievalTrainerSpec(
                run_fn=run_fn,
                examples=examples,
                catalogue=catalogue,
                transform_graph=transform_graph,
                statistics=statistics,
                train_args=tfx.proto.TrainArgs(splits=["train"]),
                eval_args=tfx.proto.EvalArgs(splits=["train"]),
                custom_config=json_utils.dumps(custom_config),
                model=types.Channel(type=standard_artifacts.Model),
                model_run=types.Channel(type=standard_artifacts.ModelRun),
            )
        )
