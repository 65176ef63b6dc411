"""The items that may be retrieved on a day, as examples, and as a table to join interactions with."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray
from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils
from tfx_bsl.coders import example_coder

from components.artifacts import Artifacts
from components.example_gen import sources
from components.example_gen.accounting import SHOWN_EXAMPLES, Accounting
from components.example_gen.cleaning import ACCOUNTING, FILE, ROW, Cleaning, before_rows, from_bytes
from components.example_gen.columns import BLOCKED, catalogue_columns, columns_of
from components.example_gen.day_driver import Request
from components.example_gen.examples import partitions, serialized_examples
from components.example_gen.keyed import BASE_MODEL, OUTPUTS, PARAMETERS, Ingestion, KeyedDriver, KeyedExecutor
from components.example_gen.point_in_time import EARLIER_SPLIT, JUDGED_SPLIT, Divided, Tables, Versions, divide
from components.example_gen.settings import ExampleGenSettings
from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT
from components.records import read_records
from schemas.features import CANDIDATE_ID, SEEN_THROUGH, FeatureSpec


class CatalogueSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the CatalogueExampleGen."""

    PARAMETERS = PARAMETERS
    INPUTS = BASE_MODEL
    OUTPUTS = OUTPUTS


class OfCatalogue:
    """How the catalogue becomes examples."""

    @staticmethod
    def ingestion(request: Request, inputs: Artifacts) -> Ingestion:
        """Describe how the catalogue of a day becomes examples.

        Raises:
            UserError: there is no catalogue.
        """
        source, spec = request.settings.catalogue_source, request.spec
        first = sources.first_to_see(
            request.settings, request.day, bool(inputs.get("base_model")), spec.changing_item_features
        )
        found = sources.newest_files(source, request.day, "catalogue", first)
        columns = catalogue_columns(spec)
        cleaning = Cleaning(
            source,
            columns,
            key=CANDIDATE_ID,
            partitions=partitions(found.files),
            max_id_bytes=request.settings.max_id_bytes,
            start=sources.start_of_newest(found.files),
        )
        judged = first_held_out(request, first or request.day)
        changing = columns_of(spec.changing_item_features, columns)
        tables = Tables(sources.table_days(found.files), changing, judged)
        finish = FinishCatalogue(before_rows(found.files, source), spec.catalogue.item, tables=tables)
        return Ingestion("catalogue", found, cleaning, finish, [*splits_of(spec), *tables.splits], judged=judged)


class CatalogueDriver(OfCatalogue, KeyedDriver):
    """The driver of the CatalogueExampleGen."""


class CatalogueExecutor(OfCatalogue, KeyedExecutor):
    """Reads, cleans and writes the catalogue."""


class CatalogueExampleGen(base_beam_component.BaseBeamComponent):
    """Ingests the catalogue of a day.

    Args:
        settings: the catalogue's place.
        spec: its columns.
        day: the UTC day.
        base_model: the model that training continues from, if that decides how many days become examples.

    Output `examples`, split `catalogue`: an example for each item, with `candidate_id`, the item tower's raw features and,
    if the specification names it, `title`. If it names a blocking column, blocked items are in a separate split,
    `blocked`. If there are catalogues of earlier days and features change, the split `earlier` has those of their entries
    that interactions see (`components.example_gen.point_in_time`), and `judged` those of `catalogue` as held-out interactions see
    them.
    """

    SPEC_CLASS = CatalogueSpec
    DRIVER_CLASS = CatalogueDriver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(CatalogueExecutor)

    def __init__(
        self, settings: ExampleGenSettings, spec: FeatureSpec, day: date, base_model: types.BaseChannel | None = None
    ) -> None:
        examples = types.Channel(type=standard_artifacts.Examples)
        super().__init__(
            CatalogueSpec(**Request.parameters(settings, spec, day), base_model=base_model, examples=examples)
        )


def judged_split(catalogue: types.Artifact) -> str:
    """Return the split with the items as held-out interactions see them."""
    splits = artifact_utils.decode_split_names(catalogue.split_names)
    return JUDGED_SPLIT if JUDGED_SPLIT in splits else CATALOGUE_SPLIT


class FinishCatalogue(beam.DoFn):
    """Maps (partition, parts of it) to serialised examples; of entries with the same id the first is kept.

    Args:
        files: by the file's number, the beginning of a row's place.
        id_column: the id's name in the data, for the accounting.
        key: the output column of the id.
        split: the split of items that are not blocked.
        tables: the table of each file.
    """

    def __init__(
        self,
        files: list[str],
        id_column: str,
        key: str = CANDIDATE_ID,
        split: str = CATALOGUE_SPLIT,
        tables: Tables | None = None,
    ) -> None:
        self._files = files
        self._id_column = id_column
        self._key = key
        self._split = split
        self._tables = tables or Tables()

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        """Override of Beam's method."""
        rows = from_bytes(list(element[1]))
        accounting = Accounting()
        days = self._tables.of(rows.column(FILE).to_numpy())
        first = (
            rows.append_column("_at", pa.array(range(rows.num_rows)))
            .append_column("_day", pa.array(days))
            .group_by([self._key, "_day"])
            .aggregate([("_at", "min")])
        )
        kept = pc.is_in(pa.array(range(rows.num_rows)), first.column("_at_min"))
        is_kept = kept.to_numpy(zero_copy_only=False)
        repeated = rows.filter(pc.invert(kept))
        accounting.drop(
            f"{self._id_column}: an id that an earlier row has",
            repeated.num_rows,
            places(repeated, self._files),
            before=int((days[~is_kept] < max(self._tables.days, default=0)).sum()),
        )
        rows, days = rows.filter(kept), days[is_kept]
        if self._tables.has_earlier:
            is_newest = days == max(self._tables.days)
            divided = divide(rows, days, is_newest, self._key, self._tables.changing, self._tables.judged)
            yield from earlier_entries(divided, accounting, self._tables.splits, self._split)
            rows = divided.newest
        yield from entries(rows, accounting, self._split)


def first_held_out(request: Request, first: date) -> int:
    """Return the first day with held-out interactions, in days since 1970-01-01, given the first day of the window."""
    held_out = request.day - timedelta(days=(request.settings.split.hours - 1) // 24)
    return sources.span(max(first, held_out))


def splits_of(spec: FeatureSpec) -> list[str]:
    """Return the splits of a catalogue."""
    return [CATALOGUE_SPLIT, *([BLOCKED_SPLIT] if spec.catalogue.blocked else [])]


def entries(rows: pa.Table, accounting: Accounting, split: str = CATALOGUE_SPLIT) -> Iterator[Any]:
    """Yield Beam's outputs for clean rows, one for each id: examples by split, unblocked ones in `split`, and the accounting."""
    for name, chosen in _splits(rows, split):
        accounting.splits[name] = chosen.num_rows
        yield from _examples(name, chosen)
    yield beam.pvalue.TaggedOutput(ACCOUNTING, accounting)


def earlier_entries(
    divided: Divided, accounting: Accounting, splits: Collection[str], split: str = CATALOGUE_SPLIT
) -> Iterator[Any]:
    """Yield Beam's outputs for entries of earlier tables that interactions see, and for judged ones; see `entries`."""
    accounting.splits[EARLIER_SPLIT] = divided.earlier.num_rows
    yield from _examples(EARLIER_SPLIT, divided.earlier)
    if JUDGED_SPLIT in splits:
        yield from _examples(JUDGED_SPLIT, next(_splits(divided.judged, split))[1])


def _examples(split: str, rows: pa.Table) -> Iterator[Any]:
    for examples in serialized_examples(rows):
        yield beam.pvalue.TaggedOutput(split, examples)


def _splits(rows: pa.Table, split: str) -> Iterator[tuple[str, pa.Table]]:
    """Divide clean entries by split, unblocked ones in `split`."""
    if BLOCKED not in rows.column_names:
        yield split, rows
        return
    blocked = pc.not_equal(pc.fill_null(rows.column(BLOCKED), 0.0), 0.0)
    yield split, rows.filter(pc.invert(blocked))
    yield BLOCKED_SPLIT, rows.filter(blocked)


class CatalogueTable:
    """All known items, including blocked ones, in memory: their ids and features.

    Attributes:
        rows: an Arrow table with `candidate_id` and the item features, a row for each item; followed by those of earlier
            catalogues.
        blocked: [items] bool.
    """

    def __init__(self, rows: pa.Table, blocked: NDArray[np.bool_]) -> None:
        self.blocked = blocked
        self.rows, self._ids, self._versions = versioned(rows, CANDIDATE_ID, len(blocked))

    @classmethod
    def load(cls, examples_uri: str, without: Collection[str] = ()) -> "CatalogueTable":
        """Read the examples that CatalogueExampleGen wrote.

        Args:
            examples_uri: the URI of the Examples artifact.
            without: features that are not kept in memory.
        """
        rows, sizes = read_rows(examples_uri, CANDIDATE_ID, [CATALOGUE_SPLIT, BLOCKED_SPLIT, EARLIER_SPLIT])
        rows = rows.drop_columns([name for name in rows.column_names if name in without])
        return cls(rows, np.arange(sizes[0] + sizes[1]) >= sizes[0])

    def positions(self, ids: pa.Array) -> pa.Array:
        """Map [rows] binary ids to [rows] int32 rows of the table; null if the catalogue lacks the item."""
        return pc.index_in(ids, value_set=self._ids)

    def features(self, positions: pa.Array, names: list[str], days: NDArray[np.int64]) -> pa.Table:
        """Return the named features of items at [rows] positions, as interactions of [rows] days since 1970-01-01 see them."""
        places = self._versions.places(positions.to_numpy().astype(np.int64), days)
        return self.rows.select([name for name in names if name in self.rows.column_names]).take(pa.array(places))


def versioned(rows: pa.Table, key: str, newest: int) -> tuple[pa.Table, pa.Array, Versions]:
    """Prepare rows of the newest table, followed by earlier ones, for lookups.

    Args:
        rows: with `SEEN_THROUGH` if there are earlier ones.
        key: the column of the id.
        newest: the number of rows of the newest table.

    Returns:
        The rows without `SEEN_THROUGH`; the newest table's ids; and the lookup of the row that an interaction sees.
    """
    ids = rows.column(key).combine_chunks()
    if SEEN_THROUGH not in rows.column_names:
        return rows, ids, Versions(newest, np.zeros(0, np.int64), np.zeros(0, np.int64))
    through = pc.list_flatten(rows.column(SEEN_THROUGH).combine_chunks()).to_numpy()
    items = pc.index_in(ids.slice(newest), value_set=ids.slice(0, newest)).to_numpy().astype(np.int64)
    return rows.drop_columns([SEEN_THROUGH]), ids.slice(0, newest), Versions(newest, items, through)


def read_rows(examples_uri: str, key: str, splits: Sequence[str]) -> tuple[pa.Table, list[int]]:
    """Read examples as a table, with one value of the key in each row and a list for each other feature.

    Args:
        examples_uri: the URI of the Examples artifact.
        key: the feature of the id.
        splits: the splits to read; a missing one has no rows.

    Returns:
        The rows, and the number of rows of each split.
    """
    parts = [_read(os.path.join(examples_uri, f"Split-{split}")) for split in splits]
    batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch([each for part in parts for each in part])
    # A feature without values in all entries comes without a type; interactions then come without it too.
    batch = batch.select([field.name for field in batch.schema if not pa.types.is_null(field.type)])
    value_types = {pa.large_binary(): pa.binary(), pa.float32(): pa.float32(), pa.int64(): pa.int64()}
    lists = [pa.list_(value_types[field.type.value_type]) for field in batch.schema]
    rows = pa.Table.from_batches([batch]).cast(pa.schema(list(zip(batch.schema.names, lists, strict=True))))
    ids = pa.array(rows.column(key).combine_chunks().flatten()).cast(pa.binary())
    return rows.set_column(rows.column_names.index(key), key, ids), [len(part) for part in parts]


def _read(folder: str) -> list[bytes]:
    return list(read_records(sorted(tf.io.gfile.glob(io_utils.all_files_pattern(folder)))))


def places(rows: pa.Table, files: list[str]) -> list[str]:
    """Return the places of the first few rows, given the beginning of a place by the number of its file."""
    few = rows.slice(0, SHOWN_EXAMPLES)
    numbers = zip(few.column(FILE).to_pylist(), few.column(ROW).to_pylist(), strict=True)
    return [f"{files[file]} {row}" for file, row in numbers]
