"""TFX's StatisticsGen for large Arrow batches."""

import json
import os
from typing import Any

import apache_beam as beam
import tensorflow_data_validation as tfdv
from tfx import types
from tfx.components import StatisticsGen
from tfx.components.statistics_gen.executor import DEFAULT_FILE_NAME
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_component_specs

from components.artifacts import Artifacts
from components.decoded import ExampleFiles, decode, read
from components.statistics_gen.combining import OfFile, Statistics


class ColumnStatisticsExecutor(base_beam_executor.BaseBeamExecutor):
    """Writes the statistics of each split."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Override of TFX's method."""
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict[standard_component_specs.EXAMPLES_KEY])
        statistics = artifact_utils.get_single_instance(output_dict[standard_component_specs.STATISTICS_KEY])
        excluded = json.loads(exec_properties[standard_component_specs.EXCLUDE_SPLITS_KEY])
        splits = [name for name in artifact_utils.decode_split_names(examples.split_names) if name not in excluded]
        statistics.split_names = artifact_utils.encode_split_names(splits)
        statistics.span = examples.span
        statistics_of = Statistics(tfdv.StatsOptions())
        with self._make_beam_pipeline() as pipeline:
            for split in splits:
                written = os.path.join(artifact_utils.get_split_uri([statistics], split), DEFAULT_FILE_NAME)
                _ = (
                    pipeline
                    | f"Files[{split}]" >> ExampleFiles([examples], split)
                    | f"AddUp[{split}]" >> beam.Map(_of_file, statistics_of)
                    | f"Merge[{split}]" >> beam.CombineGlobally(statistics_of)
                    | f"Write[{split}]" >> tfdv.WriteStatisticsToBinaryFile(written)
                )


def _of_file(path: str, statistics: Statistics) -> OfFile:
    return statistics.of_file(path, map(decode, read(path)))


class ColumnStatisticsGen(StatisticsGen):
    """Computes TFDV's statistics of examples like TFX's StatisticsGen, in a fraction of the time.

    Args:
        examples: the examples; all splits except the excluded ones.
        exclude_splits: the names of splits.

    Output `statistics`: in the form of StatisticsGen.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(ColumnStatisticsExecutor)

    def __init__(self, examples: types.BaseChannel, exclude_splits: list[str]) -> None:
        super().__init__(examples=examples, exclude_splits=exclude_splits)
