"""Transforms raw interactions with Transform's graph: one output file for each input file, in the same shuffled order."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft

from components import ragged
from components.encoded import encode
from components.kept import Kept
from components.records import read_batches, write_records
from components.transform.graph import TransformGraph
from schemas.features import FeatureSpec

BATCH = 8192


class TransformFiles(beam.DoFn):
    """Transforms gzipped TFRecords of raw examples, given by address, to files of the same names with model inputs.

    Emits the name of each file with the number of its rows.

    Args:
        graph: the folder of Transform's graph.
        spec: names the features that interactions lack, so that nothing is computed for them.
        folder: destination.
    """

    def __init__(self, graph: str, spec: FeatureSpec, folder: str) -> None:
        self._transform = Kept(lambda: transform_of(tft.TFTransformOutput(graph), spec.kept_in_catalogue))
        self._folder = folder

    def process(self, element: str) -> Iterator[tuple[str, int]]:
        """Override of Beam's method."""
        transform = self._transform.get()
        batches = (transform(batch) for batch in read_batches([element], BATCH))
        examples = (example for batch in batches for example in encode(batch).to_pylist())
        name = element.rpartition("/")[2]
        yield name, write_records(os.path.join(self._folder, name), examples)


def transform_of(output: tft.TFTransformOutput, without: Iterable[str]) -> Callable[[Sequence[bytes]], pa.RecordBatch]:
    """Return a function from [batch] serialised raw examples to their model inputs, traced once for any number of rows.

    Args:
        output: the output of Transform.
        without: raw features that no example has.
    """
    graph = TransformGraph.of(output)
    parsed = {name: tf.io.VarLenFeature(dtype) for name, dtype in graph.inputs.items() if name not in without}

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string)])
    def transformed(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return graph(tf.io.parse_example(examples, parsed))

    def to_rows(examples: Sequence[bytes]) -> pa.RecordBatch:
        inputs = transformed(tf.constant(examples, tf.string))
        return _rows({name: values.numpy() for name, values in inputs.items()})

    return to_rows


def _rows(inputs: dict[str, np.ndarray]) -> pa.RecordBatch:
    """Convert model inputs, [batch] or [batch, values] each, to columns; the latter become lists."""
    columns = []
    for values in inputs.values():
        column = pa.array(values.reshape(-1))
        if values.ndim > 1:
            column = ragged.of_width(column, values.shape[1])
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, list(inputs))
