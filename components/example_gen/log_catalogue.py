"""Makes a catalogue from the log: every item so far, with the newest values of its columns."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from components import ragged, utc
from components.artifacts import Artifacts
from components.example_gen import sources
from components.example_gen.accounting import Accounting
from components.example_gen.catalogue import earlier_entries, entries, first_held_out, splits_of
from components.example_gen.cleaning import FILE, ROW, Cleaning, from_bytes, parted
from components.example_gen.columns import BLOCKED, TYPES, Column, catalogue_columns, columns_of
from components.example_gen.day_driver import Request
from components.example_gen.examples import partitions
from components.example_gen.keyed import OUTPUTS, PARAMETERS, Ingestion, KeyedDriver, KeyedExecutor
from components.example_gen.lookups import read_rows
from components.example_gen.point_in_time import DAYS, divide
from components.example_gen.settings import ExampleGenSettings
from components.example_gen.sources import Window
from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT, EARLIER_SPLIT, JUDGED_SPLIT
from components.resolver.earlier import BASE_CATALOGUE_KEY
from components.utc import MICROSECONDS_A_DAY, microseconds
from schemas.features import CANDIDATE_ID, SEEN_THROUGH, TIMESTAMP, WEIGHTS_SUFFIX, FeatureSpec

SECONDS_A_DAY = 86_400.0
CARRIED = -1  # instead of a file's number


class LogCatalogueSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the LogCatalogueExampleGen."""

    PARAMETERS = PARAMETERS
    INPUTS = {BASE_CATALOGUE_KEY: component_spec.ChannelParameter(type=standard_artifacts.Examples, optional=True)}
    OUTPUTS = OUTPUTS


class OfLog:
    """How a catalogue is made from the log."""

    @staticmethod
    def ingestion(request: Request, inputs: Artifacts) -> Ingestion:
        """Select the part of the log to read: what is newer than an earlier day's catalogue; without one, a first run's window.

        Raises:
            UserError: the day has no log, or it cannot be read.
        """
        settings, spec = request.settings, request.spec
        base: Sequence[types.Artifact] = inputs.get(BASE_CATALOGUE_KEY) or []
        most = Window.of(settings, request.day, goes_on=False, has_history=spec.history is not None)
        first = utc.day_of(base[0].span + 1) if base else most.history_start
        selection = sources.log_files(settings, first, request.day)
        after = microseconds(request.day) + MICROSECONDS_A_DAY
        keys, columns = spec.interactions, catalogue_columns(spec)
        cleaning = Cleaning(
            settings.interactions,
            [
                *columns,
                Column(TIMESTAMP, keys.time, "time", time_unit=keys.time_unit, required=True),
            ],
            key=CANDIDATE_ID,
            partitions=partitions(selection.files),
            max_id_bytes=settings.max_id_bytes,
            time_range=(microseconds(first), after),
            closed=tuple(filter(_is_closed(settings), range(utc.span(first), utc.span(request.day)))),
            latest=int((time.time() + SECONDS_A_DAY) * 1_000_000),
        )
        carried = Carried(base[0].uri, cleaning) if base else None
        if not spec.changing_item_features:
            return Ingestion("catalogue", selection, cleaning, NewestOfItems(), splits_of(spec), carried)
        window = Window.of(settings, request.day, goes_on=bool(base), has_history=False)
        judged = first_held_out(request, window.start)
        changing = columns_of(spec.changing_item_features, columns)
        finish = NewestOfItems(changing, judged, utc.span(most.start))
        splits = [*splits_of(spec), EARLIER_SPLIT, JUDGED_SPLIT]
        return Ingestion("catalogue", selection, cleaning, finish, splits, carried, judged)


def _is_closed(settings: ExampleGenSettings) -> Callable[[int], bool]:
    """Return a function that tells whether a span is a closed day."""
    return lambda span: settings.is_closed(utc.day_of(span))


class LogCatalogueDriver(OfLog, KeyedDriver):
    """The driver of the LogCatalogueExampleGen."""


class LogCatalogueExecutor(OfLog, KeyedExecutor):
    """Reads the log's new days, and writes the newest values of all items."""


class LogCatalogueExampleGen(base_beam_component.BaseBeamComponent):
    """Makes the catalogue of a day from the log, and from the catalogue of an earlier day.

    An item keeps the newest value of a column that is missing in its newest row.

    Args:
        settings: the place of the log.
        spec: its columns.
        day: the UTC day.
        base_catalogue: the output of an earlier day; if the channel is empty, the catalogue has the items of a first run's window.

    Output `examples`: as in `components.example_gen.catalogue.CatalogueExampleGen`.
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
    """Maps (partition, parts of it) to serialised examples, one for each item, with the newest present value of each column.

    If features change, the values of an item at the end of a day are a table's row of that day; which of them interactions
    see is the same as for daily catalogues (`components.example_gen.point_in_time`).

    Args:
        changing: the columns that interactions see as they were before their own day.
        judged: the first day with held-out interactions, in days since 1970-01-01.
        first: the first day whose interactions are read.
    """

    def __init__(self, changing: Collection[str] = (), judged: int | None = None, first: int = 0) -> None:
        self._changing = changing
        self._judged = judged
        self._first = first

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        """Override of Beam's method."""
        rows = from_bytes(list(element[1]))
        accounting = Accounting()
        days = rows.column(TIMESTAMP).to_numpy() // MICROSECONDS_A_DAY
        known = known_of_items(rows, days if self._changing else np.zeros_like(days))
        newest = known.rows
        if self._changing:
            divided = divide(known.rows, known.days, known.is_newest, CANDIDATE_ID, self._changing, self._judged)
            seen = pc.greater_equal(divided.earlier.column(SEEN_THROUGH), self._first)
            divided = divided._replace(earlier=divided.earlier.filter(seen))
            yield from earlier_entries(divided, accounting, [JUDGED_SPLIT])
            newest = divided.newest
        yield from entries(newest, accounting)


class Known(NamedTuple):
    """The known values of items, by item and then by day.

    Attributes:
        rows: a row for each item and each day on which it was logged.
        days: [rows] int64.
        is_newest: [rows] bool, whether a row is its item's last.
    """

    rows: pa.Table
    days: NDArray[np.int64]
    is_newest: NDArray[np.bool_]


def known_of_items(rows: pa.Table, days: NDArray[np.int64]) -> Known:
    """Return the newest present value of each column at the end of each day on which an item was logged.

    Args:
        rows: of the log, by file and row; ties are resolved in that order.
        days: [rows], ascending.
    """
    items = rows.column(CANDIDATE_ID).combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((rows.column(TIMESTAMP).to_numpy(), items))
    rows, items, days = rows.take(pa.array(order)).combine_chunks(), items[order], days[order]
    ends_item = np.append(np.diff(items) != 0, [True] * bool(len(items)))
    ends = np.flatnonzero(ends_item | np.append(np.diff(days) != 0, [True] * bool(len(days))))
    begins = np.searchsorted(items, items[ends])  # the first rows of these items
    columns = dict(zip(rows.column_names, (column.combine_chunks() for column in rows.columns), strict=True))

    def newest(column: pa.Array) -> pa.Array:
        is_there = (
            ragged.lengths(column) > 0
            if pa.types.is_list(column.type)
            else column.is_valid().to_numpy(zero_copy_only=False)
        )
        positions = np.maximum.accumulate(np.where(is_there, np.arange(len(column)), -1))[ends]
        return pa.array(positions, mask=positions < begins)

    values = {
        # Ids and their weights come from one row.
        name: column.take(newest(columns.get(name.removesuffix(WEIGHTS_SUFFIX), column)))
        for name, column in columns.items()
        if name not in (TIMESTAMP, FILE, ROW)
    }
    return Known(pa.table(values), days[ends], ends_item[ends])


class Carried(beam.PTransform):
    """Reads the catalogue of an earlier day as (partition, Arrow IPC of rows older than those of the log).

    Args:
        examples_uri: the URI of its Examples artifact.
        cleaning: of the log's rows, whose form these get.
    """

    def __init__(self, examples_uri: str, cleaning: Cleaning) -> None:
        super().__init__()
        self._examples_uri = examples_uri
        self._cleaning = cleaning

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Override of Beam's method."""
        return pipeline | beam.Create([self._examples_uri]) | beam.ParDo(_ReadCarried(self._cleaning))


@beam.typehints.with_output_types(beam.typehints.Tuple[int, bytes])
class _ReadCarried(beam.DoFn):
    """Maps the URI of an Examples artifact to (partition, Arrow IPC)."""

    def __init__(self, cleaning: Cleaning) -> None:
        self._cleaning = cleaning

    def process(self, element: str) -> Iterator[tuple[int, bytes]]:
        """Override of Beam's method."""
        yield from parted(carried_rows(element, self._cleaning.columns), self._cleaning)


def carried_rows(examples_uri: str, columns: Sequence[Column]) -> pa.Table:
    """Read the items of an earlier day, in the form of clean rows of the log.

    A column that the earlier day lacked, or had with another kind, has no values.

    Args:
        examples_uri: the URI of the Examples artifact.
        columns: of the rows.
    """
    splits = [CATALOGUE_SPLIT, BLOCKED_SPLIT, EARLIER_SPLIT]
    table, (listed, blocked, _) = read_rows(examples_uri, CANDIDATE_ID, splits)
    places = np.arange(table.num_rows)
    of_its_own = {
        CANDIDATE_ID: table.column(CANDIDATE_ID).combine_chunks(),
        TIMESTAMP: pa.array(_known_since(table, listed + blocked) * MICROSECONDS_A_DAY),
        BLOCKED: pa.array(((places >= listed) & (places < listed + blocked)).astype(np.float32)),
    }
    values = {
        column.name: of_its_own[column.name]
        if column.name in of_its_own
        else _as_cleaned(table, column.name, TYPES[column.kind])
        for column in columns
    }
    values[ROW] = pa.array(places)
    values[FILE] = pa.array(np.full(table.num_rows, CARRIED, np.int32))
    return pa.table(values)


def _known_since(table: pa.Table, newest: int) -> NDArray[np.int64]:
    """Return [rows], days since 1970-01-01 on which the rows came; for an item's first row any day before the next.

    Args:
        table: the newest rows, followed by the earlier ones with `SEEN_THROUGH`: the days on which the next ones came.
        newest: the number of newest rows.
    """
    since = np.zeros(table.num_rows, np.int64)
    if SEEN_THROUGH not in table.column_names:
        return since
    through = np.append(np.full(newest, DAYS), pc.list_flatten(table.column(SEEN_THROUGH).combine_chunks()).to_numpy())
    items = table.column(CANDIDATE_ID).combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((through, items))
    follows = order[1:][np.diff(items[order]) == 0]
    since[follows] = through[order[:-1][np.diff(items[order]) == 0]]
    return since


def _as_cleaned(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """Convert a feature's lists to the form of a clean row: lists, or single values."""
    if name in table.column_names:
        lists = table.column(name).combine_chunks()
        if lists.type == kind:
            return lists
        if lists.type.value_type == kind:
            lengths = ragged.lengths(lists)
            return lists.flatten().take(pa.array(np.cumsum(lengths) - lengths, mask=lengths == 0))
    return pa.nulls(table.num_rows, kind)
