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
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from components.artifacts import Analysis
from components.example_gen.split_names import TRAIN_SPLIT
from components.transform.examples import TransformFiles
from components.transform.file_rows import write_file_rows
from components.transform.preprocessing import preprocessing_fn
from schemas.features import FeatureSpec


@component(use_beam=True)
def AnalysedTransform(
    examples: InputArtifact[standard_artifacts.Examples],
    schema: InputArtifact[standard_artifacts.Schema],
    analysis: InputArtifact[Analysis],
    transform_graph: OutputArtifact[standard_artifacts.TransformGraph],
    transformed_examples: OutputArtifact[standard_artifacts.Examples],
    feature_spec: Parameter[str],
    pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Make the graph, then the model inputs of the `train` split.

    Args:
        examples: raw interactions.
        schema: their schema.
        analysis: the output of the Analyzer.
        transform_graph: an output in the form of TFX's Transform.
        transformed_examples: an output with the split `train`, files of the names that `examples` has, and the rows of each.
        feature_spec: the dataset's features, as JSON.
        pipeline: TFX's.
    """
    config = {"feature_spec": feature_spec, "analysis": analysis.uri}
    write_graph(transform_graph.uri, io_utils.get_only_uri_in_dir(schema.uri), config)
    transformed_examples.split_names = artifact_utils.encode_split_names([TRAIN_SPLIT])
    raw, written = (
        artifact_utils.get_split_uri([artifact], TRAIN_SPLIT) for artifact in (examples, transformed_examples)
    )
    spec = FeatureSpec.model_validate_json(feature_spec)
    with pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create(sorted(tf.io.gfile.glob(io_utils.all_files_pattern(raw))))
            | "Spread" >> beam.Reshuffle()
            | "Transform" >> beam.ParDo(TransformFiles(transform_graph.uri, spec, written))
            | "Rows" >> beam.combiners.ToDict()
            | "WriteRows" >> beam.Map(write_file_rows, transformed_examples.uri)
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
