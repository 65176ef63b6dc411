"""TFX's Trainer with two more inputs: the catalogue, for mixed negatives, and the analysis, by whose ids rows are moved."""

import hashlib
import os
from typing import Any

from tfx import types
from tfx.components.trainer import executor, fn_args_utils
from tfx.dsl.components.base import base_component, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import trainer_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.types.standard_component_specs import TrainerSpec
from tfx.utils import io_utils, json_utils

from components import recorded
from components.artifacts import Analysis, Artifacts, warm_start_folder
from components.example_gen.split_names import (
    BLOCKED_SPLIT,
    CATALOGUE_SPLIT,
    EARLIER_SPLIT,
    EVAL_SPLIT,
    JUDGED_SPLIT,
    TRAIN_SPLIT,
)

CATALOGUE_KEY = "catalogue"
CATALOGUE_FILES = "catalogue_files"
EARLIER_FILES = "earlier_files"
JUDGED_FILES = "judged_files"
JUDGED_DAY = "judged_day"
BLOCKED_FILES = "blocked_files"
ANALYSIS_KEY = "analysis"
HELD_OUT_KEY = "held_out"
HELD_OUT_FILES = "held_out_files"
WARM_START = "warm_start"
UNFINISHED = "unfinished"


class RetrievalTrainerSpec(component_spec.ComponentSpec):
    """TFX's spec, with the catalogue and the analysis."""

    PARAMETERS = TrainerSpec.PARAMETERS
    INPUTS = {
        **TrainerSpec.INPUTS,
        CATALOGUE_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples),
        ANALYSIS_KEY: component_spec.ChannelParameter(type=Analysis),
        HELD_OUT_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True),
    }
    OUTPUTS = TrainerSpec.OUTPUTS
    TYPE_ANNOTATION = TrainerSpec.TYPE_ANNOTATION


class RetrievalTrainerExecutor(executor.GenericExecutor):
    """TFX's executor; passes the step's other inputs to the user function in `custom_config`.

    - `catalogue_files`: the patterns of the catalogue's files.
    - `held_out_files`: the patterns of the raw held-out interactions' files, if training reads them.
    - `blocked_files`: the patterns of items that are known, but blocked.
    - `earlier_files`: the patterns of earlier catalogues, if interactions see them.
    - `judged_files`: the patterns of the catalogue as known before `judged_day` (days since 1970-01-01), the first held-out day.
    - `analysis`: the folder of `components.analysis.files`.
    - `warm_start`: the folder to write for the next day's training.
    - `unfinished`: a folder for intermediate checkpoints, the same for every attempt at the same training.

    `base_model` of the arguments is the folder of the earlier day's model to continue from, or None.
    """

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Override of TFX's method."""
        super().Do(input_dict, output_dict, exec_properties)
        custom_config = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        model = artifact_utils.get_single_instance(output_dict[standard_component_specs.MODEL_KEY])
        model.set_int_custom_property(recorded.SPAN, custom_config[recorded.SPAN])
        model.set_string_custom_property(recorded.SHAPE, custom_config[recorded.SHAPE])
        goes_on = bool(input_dict.get(standard_component_specs.BASE_MODEL_KEY))
        model.set_int_custom_property(recorded.CONTINUES, int(goes_on))
        unfinished = _unfinished_folder(input_dict, output_dict, exec_properties)
        if fileio.exists(unfinished):
            fileio.rmtree(unfinished)

    def _GetFnArgs(
        self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]
    ) -> fn_args_utils.FnArgs:
        arguments = super()._GetFnArgs(input_dict, output_dict, exec_properties)
        (catalogue,) = input_dict[CATALOGUE_KEY]
        files = {
            split: [io_utils.all_files_pattern(artifact_utils.get_split_uri([catalogue], split))]
            for split in artifact_utils.decode_split_names(catalogue.split_names)
        }
        base = input_dict.get(standard_component_specs.BASE_MODEL_KEY)
        arguments.base_model = warm_start_folder(base[0].uri) if base else None
        arguments.custom_config = {
            **arguments.custom_config,
            CATALOGUE_FILES: files[CATALOGUE_SPLIT],
            BLOCKED_FILES: files.get(BLOCKED_SPLIT, []),
            EARLIER_FILES: files.get(EARLIER_SPLIT, []),
            JUDGED_FILES: files.get(JUDGED_SPLIT, files[CATALOGUE_SPLIT]),
            JUDGED_DAY: catalogue.get_int_custom_property(recorded.JUDGED_DAY),
            HELD_OUT_FILES: [
                io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], EVAL_SPLIT))
                for examples in input_dict.get(HELD_OUT_KEY) or []
            ],
            ANALYSIS_KEY: artifact_utils.get_single_uri(input_dict[ANALYSIS_KEY]),
            WARM_START: warm_start_folder(
                artifact_utils.get_single_uri(output_dict[standard_component_specs.MODEL_KEY])
            ),
            UNFINISHED: _unfinished_folder(input_dict, output_dict, exec_properties),
        }
        return arguments


def _unfinished_folder(
    input_dict: Artifacts,
    output_dict: Artifacts,
    exec_properties: dict[str, Any],
) -> str:
    """Return a folder beside the step's artifacts, named by a digest of its inputs, which all attempts have in common."""
    inputs = sorted(f"{key} {artifact.uri}" for key, artifacts in input_dict.items() for artifact in artifacts)
    parameters = sorted(f"{key} {value}" for key, value in exec_properties.items())
    digest = hashlib.sha256("\n".join([*inputs, *parameters]).encode()).hexdigest()[:16]
    node = artifact_utils.get_single_uri(output_dict[standard_component_specs.MODEL_KEY]).rsplit("/", 2)[0]
    return os.path.join(node, UNFINISHED, digest)


class RetrievalTrainer(base_component.BaseComponent):
    """Trains on the `train` split.

    Args:
        run_fn: the import path of the user function.
        examples: transformed interactions.
        catalogue: the day's items, raw.
        transform_graph: the output of Transform.
        analysis: the output of the Analyzer.
        base_model: the model that training continues from; the channel may be empty.
        statistics: the interactions' statistics, which give their number.
        held_out: raw interactions, whose `eval` split is used for early stopping; None without early stopping.
        custom_config: arguments of the user function, JSON types only. `span` and `shape` are set on the model artifact.
    """

    SPEC_CLASS = RetrievalTrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(RetrievalTrainerExecutor)

    def __init__(
        self,
        run_fn: str,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        transform_graph: types.BaseChannel,
        analysis: types.BaseChannel,
        base_model: types.BaseChannel,
        statistics: types.BaseChannel,
        custom_config: dict[str, Any],
        held_out: types.BaseChannel | None = None,
    ) -> None:
        super().__init__(
            RetrievalTrainerSpec(
                held_out=held_out,
                run_fn=run_fn,
                examples=examples,
                catalogue=catalogue,
                transform_graph=transform_graph,
                analysis=analysis,
                base_model=base_model,
                statistics=statistics,
                train_args=trainer_pb2.TrainArgs(splits=[TRAIN_SPLIT]),
                eval_args=trainer_pb2.EvalArgs(splits=[TRAIN_SPLIT]),
                custom_config=json_utils.dumps(custom_config),
                model=types.Channel(type=standard_artifacts.Model),
                model_run=types.Channel(type=standard_artifacts.ModelRun),
            )
        )
