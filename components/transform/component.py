"""The step that makes the graph from raw features to model inputs, and transforms the training interactions with it.

The graph is TensorFlow Transform's. Everything that it needs to know about the whole data comes from the Analyzer, so the graph is
made without reading the data; TFX's own Transform would read the interactions for possible analyses.
"""

import os
from functools import partial
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import impl_helper
from tensorflow_transform.tf_metadata import metadata_io, schema_utils
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components.artifacts import Analysis
from components.example_gen.interactions import TRAIN_SPLIT
from components.transform.examples import TransformFiles
from components.transform.preprocessing import preprocessing_fn
from schemas.features import FeatureSpec


class AnalysedTransformSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the Transform."""

    PARAMETERS = {"feature_spec": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "analysis": component_spec.ChannelParameter(type=Analysis),
    }
    OUTPUTS = {
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "transformed_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }


class AnalysedTransformExecutor(base_beam_executor.BaseBeamExecutor):
    """Makes the graph, then the model inputs."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Override of TFX's method."""
        self._log_startup(input_dict, output_dict, exec_properties)
        graph = artifact_utils.get_single_uri(output_dict["transform_graph"])
        analysis = artifact_utils.get_single_uri(input_dict["analysis"])
        schema = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        write_graph(graph, schema, {"feature_spec": exec_properties["feature_spec"], "analysis": analysis})
        transformed = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        transformed.split_names = artifact_utils.encode_split_names([TRAIN_SPLIT])
        raw = artifact_utils.get_split_uri(input_dict["examples"], TRAIN_SPLIT)
        written = artifact_utils.get_split_uri([transformed], TRAIN_SPLIT)
        spec = FeatureSpec.model_validate_json(exec_properties["feature_spec"])
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Files" >> beam.Create(sorted(tf.io.gfile.glob(io_utils.all_files_pattern(raw))))
                | "Spread" >> beam.Reshuffle()
                | "Transform" >> beam.ParDo(TransformFiles(graph, spec, written))
            )


class AnalysedTransform(base_beam_component.BaseBeamComponent):
    """Transforms the `train` split of examples.

    Args:
        examples: raw interactions; `transformed_examples` has files of the same names.
        schema: the interactions' schema.
        analysis: the output of the Analyzer.
        spec: the dataset's features.

    Output `transform_graph` has the form of TFX's Transform, `transformed_examples` has the split `train`.
    """

    SPEC_CLASS = AnalysedTransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(AnalysedTransformExecutor)

    def __init__(
        self, examples: types.BaseChannel, schema: types.BaseChannel, analysis: types.BaseChannel, spec: FeatureSpec
    ) -> None:
        super().__init__(
            AnalysedTransformSpec(
                examples=examples,
                schema=schema,
                analysis=analysis,
                feature_spec=spec.model_dump_json(),
                transform_graph=types.Channel(type=standard_artifacts.TransformGraph),
                transformed_examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


def write_graph(folder: str, schema: str, config: dict[str, Any]) -> None:
    """Write TensorFlow Transform's output.

    Args:
        folder: destination.
        schema: the path of the raw features' schema.
        config: the arguments of `components.transform.preprocessing`.
    """
    metadata = tft.DatasetMetadata(io_utils.SchemaReader().read(schema))
    metadata_io.write_metadata(metadata, os.path.join(folder, tft.TFTransformOutput.RAW_METADATA_DIR))
    features = schema_utils.schema_as_feature_spec(metadata.schema).feature_spec
    sparse = {name: tf.SparseTensorSpec([None, None], feature.dtype) for name, feature in features.items()}
    impl_helper.analyze_in_place(partial(preprocessing_fn, custom_config=config), False, features, sparse, folder)
