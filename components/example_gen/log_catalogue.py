"""A catalogue that nobody wrote: every item that the log has had so far, with the newest values of its columns."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from components.example_gen import sources
from components.example_gen.accounting import Accounting
from components.example_gen.catalogue import entries, read_rows, splits_of
from components.example_gen.cleaning import FILE, ROW, Cleaning, from_bytes, parted
from components.example_gen.columns import BLOCKED, TYPES, Column, catalogue_columns
from components.example_gen.day_driver import Request
from components.example_gen.examples import partitions
from components.example_gen.keyed import OUTPUTS, PARAMETERS, Ingestion, Inputs, KeyedDriver, KeyedExecutor
from components.example_gen.settings import ExampleGenSettings
from components.example_gen.sources import MICROSECONDS_A_DAY, Window, microseconds
from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT
from components.resolver.earlier import BASE_CATALOGUE_KEY
from schemas.features import CANDIDATE_ID, TIMESTAMP, WEIGHTS_SUFFIX, FeatureSpec

SECONDS_A_DAY = 86_400.0
CARRIED = -1  # in the place of a file's number
BEFORE_ALL = np.iinfo(np.int64).min  # the time of what is carried: all of the log that is read is newer


class LogCatalogueSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the LogCatalogueExampleGen."""

    PARAMETERS = PARAMETERS
    INPUTS = {BASE_CATALOGUE_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True)}
    OUTPUTS = OUTPUTS


class OfLog:
    """How a catalogue is made from the log."""

    @staticmethod
    def ingestion(request: Request, inputs: Inputs) -> Ingestion:
        """What is read of the log: what is newer than the catalogue of an earlier day; without one, a first run's window.

        Raises:
            UserError: the day has no log, or what lies there is unfit.
        """
        settings, spec = request.settings, request.spec
        base: Sequence[types.Artifact] = inputs.get(BASE_CATALOGUE_KEY) or []
        first = Window.of(settings, request.day, goes_on=False, has_history=spec.history is not None).history_start
        if base:
            first = sources.day_of(base[0].span + 1)
        found = sources.log_files(settings, first, request.day)
        after = microseconds(request.day) + MICROSECONDS_A_DAY
        keys = spec.interactions
        cleaning = Cleaning(
            settings.interactions,
            [
                *catalogue_columns(spec),
                Column(TIMESTAMP, keys.time, "time", time_unit=keys.time_unit, required=True),
            ],
            key=CANDIDATE_ID,
            partitions=partitions(found.files),
            max_id_bytes=settings.max_id_bytes,
            time_range=(microseconds(first), after),
            closed=tuple(filter(_is_closed(settings), range(sources.span(first), sources.span(request.day)))),
            latest=int((time.time() + SECONDS_A_DAY) * 1_000_000),
        )
        carried = Carried(base[0].uri, cleaning) if base else None
        return Ingestion("catalogue", found, cleaning, NewestOfItems(), splits_of(spec), carried)


def _is_closed(settings: ExampleGenSettings) -> Callable[[int], bool]:
    """Whether a span is a day that does not exist."""
    return lambda span: settings.is_closed(sources.day_of(span))


class LogCatalogueDriver(OfLog, KeyedDriver):
    """The driver of the LogCatalogueExampleGen."""


class LogCatalogueExecutor(OfLog, KeyedExecutor):
    """Reads the log's new days, and writes the newest values of all items."""


class LogCatalogueExampleGen(base_beam_component.BaseBeamComponent):
    """Makes the catalogue of a day from the log, and from the catalogue of an earlier day.

    A column that the item's newest row lacks keeps its newest value.

    Args:
        settings: where the log lies.
        spec: which columns it has.
        day: the UTC day.
        base_catalogue: the output of an earlier day; where the channel has none, the items of a first run's window are all.

    Output `examples`: as of `components.example_gen.catalogue.CatalogueExampleGen`.
    """

    SPEC_CLASS = LogCatalogueSpec
    DRIVER_CLASS = LogCatalogueDriver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(LogCatalogueExecutor)

    def __init__(
        self, settings: ExampleGenSettings, spec: FeatureSpec, day: date, base_catalogue: types.BaseChannel
    ) -> None:
        examples = types.Channel(type=standard_artifacts.Examples)
        inputs = {BASE_CATALOGUE_KEY: base_catalogue}
        super().__init__(LogCatalogueSpec(**Request.parameters(settings, spec, day), **inputs, examples=examples))


class NewestOfItems(beam.DoFn):
    """(partition, parts of it) to serialised examples, one an item, with the newest value of each column that is not missing."""

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        """Called by Beam."""
        yield from entries(newest_of_items(from_bytes(list(element[1]))), Accounting())


def newest_of_items(rows: pa.Table) -> pa.Table:
    """One row an item, of rows by file and row; what is equally new counts in that order."""
    order = np.argsort(rows.column(TIMESTAMP).to_numpy(), kind="stable")
    rows = rows.take(pa.array(order)).combine_chunks()
    encoded = rows.column(CANDIDATE_ID).combine_chunks().dictionary_encode()
    items = encoded.indices.to_numpy()

    def newest(column: pa.Array) -> pa.Array:
        present = np.flatnonzero(
            _lengths(column) if pa.types.is_list(column.type) else ~column.is_null().to_numpy(zero_copy_only=False)
        )
        positions = np.full(len(encoded.dictionary), -1)
        positions[items[present]] = present  # of several rows of an item the last stays
        return pa.array(positions, mask=positions < 0)

    columns = dict(zip(rows.column_names, (column.combine_chunks() for column in rows.columns), strict=True))
    values = {CANDIDATE_ID: encoded.dictionary}
    for name, column in columns.items():
        if name not in (CANDIDATE_ID, TIMESTAMP, FILE, ROW):
            ids = columns.get(name.removesuffix(WEIGHTS_SUFFIX), column)  # they and their weights are of one row
            values[name] = column.take(newest(ids))
    return pa.table(values)


class Carried(beam.PTransform):
    """The catalogue of an earlier day as (partition, Arrow IPC of rows that are older than all of the log's).

    Args:
        examples_uri: of its Examples artifact.
        cleaning: of the log's rows, which these are to be like.
    """

    def __init__(self, examples_uri: str, cleaning: Cleaning) -> None:
        super().__init__()
        self._examples_uri = examples_uri
        self._cleaning = cleaning

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Called by Beam."""
        return pipeline | beam.Create([self._examples_uri]) | beam.ParDo(_ReadCarried(self._cleaning))


@beam.typehints.with_output_types(beam.typehints.Tuple[int, bytes])
class _ReadCarried(beam.DoFn):
    """The address of an Examples artifact to (partition, Arrow IPC)."""

    def __init__(self, cleaning: Cleaning) -> None:
        self._cleaning = cleaning

    def process(self, element: str) -> Iterator[tuple[int, bytes]]:
        """Called by Beam."""
        yield from parted(carried_rows(element, self._cleaning.columns), self._cleaning)


def carried_rows(examples_uri: str, columns: Sequence[Column]) -> pa.Table:
    """The items of an earlier day, as rows of the log are once they are clean.

    A column that the earlier day did not have, or had in another kind, has no values.

    Args:
        examples_uri: of the Examples artifact.
        columns: of the rows.
    """
    found, sizes = read_rows(examples_uri, CANDIDATE_ID, [CATALOGUE_SPLIT, BLOCKED_SPLIT])
    of_its_own = {
        CANDIDATE_ID: found.column(CANDIDATE_ID).combine_chunks(),
        TIMESTAMP: pa.array(np.full(found.num_rows, BEFORE_ALL)),
        BLOCKED: pa.array((np.arange(found.num_rows) >= sizes[0]).astype(np.float32)),
    }
    values = {
        column.name: of_its_own[column.name]
        if column.name in of_its_own
        else _as_cleaned(found, column.name, TYPES[column.kind])
        for column in columns
    }
    values[ROW] = pa.array(np.arange(found.num_rows))
    values[FILE] = pa.array(np.full(found.num_rows, CARRIED, np.int32))
    return pa.table(values)


def _as_cleaned(found: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """A feature's lists as a clean row has them: lists too, or single values."""
    if name in found.column_names:
        lists = found.column(name).combine_chunks()
        if lists.type == kind:
            return lists
        if lists.type.value_type == kind:
            lengths = _lengths(lists)
            return lists.flatten().take(pa.array(np.cumsum(lengths) - lengths, mask=lengths == 0))
    return pa.nulls(found.num_rows, kind)


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    """[rows], how many values each has; a missing list has none."""
    lengths: NDArray[np.int64] = (
        pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return lengths
