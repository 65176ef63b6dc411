"""Reads serialised tf.Examples as Arrow tables, without TensorFlow's graph."""

from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.types import artifact_utils
from tfx.utils import io_utils
from tfx_bsl.coders import example_coder

from components import (
    beam_memory,  # noqa: F401  # which makes small pipelines cheap
    ragged,
)
from components.records import read_batches
from schemas.features import REWARD

BATCH = 16_384


class ExampleFiles(beam.PTransform):
    """Lists files of examples, one for each worker to take.

    Args:
        examples: the artifacts.
        split: the split to read.
    """

    def __init__(self, examples: list[types.Artifact], split: str) -> None:
        super().__init__()
        self._folders = artifact_utils.get_split_uris(examples, split)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Override of Beam's method."""
        patterns = map(io_utils.all_files_pattern, self._folders)
        paths = [path for pattern in patterns for path in sorted(tf.io.gfile.glob(pattern))]
        return pipeline | "Files" >> beam.Create(paths) | "Spread" >> beam.Reshuffle()


class ReadExamples(ExampleFiles):
    """Reads serialised examples from gzipped TFRecords, in lists of at most `BATCH`, each from one file.

    Beam's own source reads them in Python, and passes them on one by one.
    """

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Override of Beam's method."""
        return super().expand(pipeline) | "Read" >> beam.FlatMap(read)


def read(path: str) -> Iterator[list[bytes]]:
    """Yield a file's serialised examples, in lists of at most `BATCH`."""
    return read_batches([path], BATCH)


def decoder(types: Mapping[str, int]) -> example_coder.ExamplesToRecordBatchDecoder:
    """Return a decoder of some features, as lists, given a `schema_pb2.FeatureType` of each; it passes over the others."""
    schema = schema_pb2.Schema()
    for name, type_ in types.items():
        schema.feature.add(name=name, type=type_).value_count.min = 0
    return example_coder.ExamplesToRecordBatchDecoder(schema.SerializeToString())


def decode(serialized: Sequence[bytes]) -> pa.RecordBatch:
    """Decode serialised tf.Examples to a column for each feature, of lists."""
    return example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(list(serialized))


def rewarded(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Select the interactions with a reward above 0, which retrieval should find."""
    return rows.filter(pc.greater(single(rows.column(REWARD)), 0.0))


def single(column: pa.Array) -> pa.Array:
    """Flatten a column of lists with one value each."""
    return pc.list_flatten(column)


def lists(rows: pa.RecordBatch, feature: str | None) -> pa.ListArray:
    """Return a feature's values, a list for each row; empty lists if no row has a value, or `feature` is None."""
    if feature is None or feature not in rows.schema.names or pa.types.is_null(rows.schema.field(feature).type):
        return ragged.from_lengths([0] * rows.num_rows, pa.array([], pa.binary()))
    column = rows.column(feature)
    values = pc.list_flatten(column)
    values = values.cast(pa.binary()) if pa.types.is_large_binary(values.type) else values
    return ragged.from_lengths(ragged.lengths(column), values)
