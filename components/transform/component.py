"""TFX's Transform, given the analysis too: its graph looks ids up in vocabularies that outlive a window."""

import json
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.components.transform import executor
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import transform_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.types.standard_component_specs import TransformSpec
from tfx.utils import io_utils

from components.artifacts import Analysis
from components.example_gen.interactions import TRAIN_SPLIT
from components.example_gen.ordered import WriteInOrder

ANALYSIS_KEY = "analysis"


class AnalysedTransformSpec(component_spec.ComponentSpec):
    """TFX's, and the analysis."""

    PARAMETERS = TransformSpec.PARAMETERS
    INPUTS = {**TransformSpec.INPUTS, ANALYSIS_KEY: component_spec.ChannelParameter(type=Analysis)}
    OUTPUTS = TransformSpec.OUTPUTS
    TYPE_ANNOTATION = TransformSpec.TYPE_ANNOTATION


class AnalysedTransformExecutor(executor.Executor):
    """TFX's executor; `custom_config` tells the preprocessing function the folder of the analysis under `analysis`.

    What TFX wrote in Beam's order is then brought into ours.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        key = standard_component_specs.CUSTOM_CONFIG_KEY
        folder = artifact_utils.get_single_uri(input_dict[ANALYSIS_KEY])
        config = json.dumps({**json.loads(exec_properties[key]), ANALYSIS_KEY: folder})
        super().Do(input_dict, output_dict, {**exec_properties, key: config})
        raw = artifact_utils.get_split_uri(input_dict[standard_component_specs.EXAMPLES_KEY], TRAIN_SPLIT)
        written = artifact_utils.get_split_uri(
            output_dict[standard_component_specs.TRANSFORMED_EXAMPLES_KEY], TRAIN_SPLIT
        )
        ordered = f"{written}.ordered"
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | beam.Create([io_utils.all_files_pattern(written)])
                | beam.io.ReadAllFromTFRecord()
                | WriteInOrder(ordered, len(fileio.listdir(raw)))
            )
        fileio.rmtree(written)
        fileio.rename(ordered, written)


class AnalysedTransform(base_beam_component.BaseBeamComponent):
    """Transforms the `train` split of examples.

    Args:
        examples: raw interactions; `transformed_examples` are as many files.
        schema: of them.
        analysis: the Analyzer's.
        preprocessing_fn: the import path of the user function.
        custom_config: what the user function is told; JSON can hold it.
    """

    SPEC_CLASS = AnalysedTransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(AnalysedTransformExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        schema: types.BaseChannel,
        analysis: types.BaseChannel,
        preprocessing_fn: str,
        custom_config: dict[str, Any],
    ) -> None:
        transformed_examples = types.Channel(type=standard_artifacts.Examples)
        transformed_examples.matching_channel_name = standard_component_specs.EXAMPLES_KEY  # as many as come in
        super().__init__(
            AnalysedTransformSpec(
                examples=examples,
                schema=schema,
                analysis=analysis,
                preprocessing_fn=preprocessing_fn,
                splits_config=transform_pb2.SplitsConfig(analyze=[TRAIN_SPLIT], transform=[TRAIN_SPLIT]),
                disable_statistics=1,
                force_tf_compat_v1=0,
                custom_config=json.dumps(custom_config),
                transform_graph=types.Channel(type=standard_artifacts.TransformGraph),
                transformed_examples=transformed_examples,
            )
        )
