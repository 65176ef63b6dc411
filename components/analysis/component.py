"""Computes the vocabularies and scales that Transform needs, carried over from day to day.

TensorFlow Transform's own analyzers see only one window. A model that is trained day after day needs stable rows for ids of earlier
days while these may recur, and numbers at the scale that its weights were trained with.
"""

import json
import os
from dataclasses import asdict

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components import recorded
from components.analysis import files
from components.analysis.statistics import MOMENTS, Count, Measure, add_moments
from components.analysis.vocabulary import LOOKUPS, Known, admit, entries
from components.artifacts import Analysis, warm_start_folder
from components.decoded import ReadExamples
from components.example_gen.split_names import EVAL_SPLIT, TRAIN_SPLIT
from components.whole_files import write_whole
from schemas.features import FeatureSpec

COUNTS = "counts"
MOMENTS_FILE = "moments.json"


@component(use_beam=True)
def Analyzer(
    examples: InputArtifact[standard_artifacts.Examples],
    analysis: OutputArtifact[Analysis],
    feature_spec: Parameter[str],
    day: Parameter[int],
    base_model: InputArtifact[standard_artifacts.Model] = None,
    pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Count what is new, add it to the counts of earlier days, and decide which ids enter and leave the vocabularies.

    Args:
        examples: interactions. The split `train` is analysed; ids of `eval` are counted for the next days.
        analysis: the output; see `components.analysis.files`. Its property `turnover`, JSON, describes the changes of each table.
        feature_spec: the dataset's features, as JSON: the features of each vocabulary, and its rules.
        day: the span of the run, in days since 1970-01-01.
        base_model: the model that training continues from, whose vocabularies, counts and scales are carried over; a first day has
            none.
        pipeline: TFX's.
    """
    spec = FeatureSpec.model_validate_json(feature_spec)
    base = warm_start_folder(base_model.uri) if base_model else None
    # Counts of older code belong to the newest window with each id.
    counted_through = (files.read_span(base) or day - 1) if base else -1
    counts = os.path.join(analysis.uri, COUNTS)
    fileio.makedirs(counts)
    with pipeline:
        measured = {
            split: pipeline
            | f"Read[{split}]" >> ReadExamples([examples], split)
            | f"Measure[{split}]"
            >> beam.ParDo(Measure(spec, day, counted_through + 1, split)).with_outputs(MOMENTS, main="ids")
            for split in (TRAIN_SPLIT, EVAL_SPLIT)
        }
        _ = (
            [outputs["ids"] for outputs in measured.values()]
            | "OfBoth" >> beam.Flatten()
            | "Count" >> beam.CombinePerKey(Count())
            | "WriteCounts" >> beam.Map(_write_counts, counts)
        )
        _ = (
            measured[TRAIN_SPLIT][MOMENTS]
            | "AddMoments" >> beam.CombinePerKey(add_moments)
            | "AsText" >> beam.MapTuple(lambda name, moments: json.dumps([name, moments.mean, moments.deviation]))
            | "WriteMoments" >> beam.io.WriteToText(os.path.join(counts, MOMENTS_FILE), shard_name_template="")
        )
    known, turnover = {}, {}
    for name, table in spec.tables.items():
        # A new table starts empty; the Trainer decides whether training may continue from that model.
        previous = files.read_known(base, name) if base and files.has_table(base, name) else Known()
        known[name], turnover[name] = admit(
            previous,
            day - counted_through,
            _read_counts(counts, name, TRAIN_SPLIT),
            _read_counts(counts, name, EVAL_SPLIT),
            table.vocabulary,
            table.hash_buckets,
        )
    scales = {
        name: (mean, deviation)
        for name, mean, deviation in map(
            json.loads, io_utils.read_string_file(os.path.join(counts, MOMENTS_FILE)).splitlines()
        )
    }
    # Scales do not change after training: a scale that moved with each day's data would move all embeddings.
    scales |= files.read_scales(base) if base else {}
    files.write(analysis.uri, known, scales, day)
    fileio.rmtree(counts)
    analysis.set_string_custom_property(
        recorded.TURNOVER, json.dumps({name: asdict(of_table) for name, of_table in sorted(turnover.items())})
    )


def _write_counts(counts: tuple[tuple[str, str], pa.Table], folder: str) -> None:
    (table, split), counted = counts
    sink = pa.BufferOutputStream()
    parquet.write_table(counted, sink)
    write_whole(os.path.join(folder, f"{split}_{table}"), sink.getvalue().to_pybytes())


def _read_counts(folder: str, table: str, split: str) -> pd.DataFrame:
    path = os.path.join(folder, f"{split}_{table}")
    if not fileio.exists(path):  # no interaction has such an id
        return entries([], []).assign(**{LOOKUPS: np.zeros(0, np.int64)})
    with fileio.open(path, "rb") as file:
        counted: pd.DataFrame = parquet.read_table(pa.BufferReader(file.read())).to_pandas().set_index("token")
    return counted
