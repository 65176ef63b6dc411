"""The items that may be retrieved on a day, as examples, and as a table to join interactions with."""

from collections.abc import Collection, Iterable, Iterator
from datetime import date, timedelta
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from tfx import types
from tfx.dsl.components.base import executor_spec
from tfx.types import artifact_utils

from components import utc
from components.artifacts import Artifacts
from components.example_gen import sources
from components.example_gen.accounting import SHOWN_EXAMPLES, Accounting
from components.example_gen.cleaning import ACCOUNTING, FILE, ROW, Cleaning, before_rows, from_bytes
from components.example_gen.columns import BLOCKED, catalogue_columns, columns_of
from components.example_gen.day_driver import Request
from components.example_gen.examples import partitions, serialized_examples
from components.example_gen.keyed import Ingestion, KeyedDriver, KeyedExampleGen, KeyedExecutor
from components.example_gen.point_in_time import Divided, Tables, divide
from components.example_gen.split_names import BLOCKED_SPLIT, CATALOGUE_SPLIT, EARLIER_SPLIT, JUDGED_SPLIT
from schemas.features import CANDIDATE_ID, FeatureSpec


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
        selection = sources.newest_files(source, request.day, "catalogue", first)
        columns = catalogue_columns(spec)
        cleaning = Cleaning(
            source,
            columns,
            key=CANDIDATE_ID,
            partitions=partitions(selection.files),
            max_id_bytes=request.settings.max_id_bytes,
            start=sources.start_of_newest(selection.files),
        )
        judged = first_held_out(request, first or request.day)
        changing = columns_of(spec.changing_item_features, columns)
        tables = Tables(sources.table_days(selection.files), changing, judged)
        finish = FinishCatalogue(before_rows(selection.files, source), spec.catalogue.item, tables=tables)
        return Ingestion("catalogue", selection, cleaning, finish, [*splits_of(spec), *tables.splits], judged=judged)


class CatalogueDriver(OfCatalogue, KeyedDriver):
    """The driver of the CatalogueExampleGen."""


class CatalogueExecutor(OfCatalogue, KeyedExecutor):
    """Reads, cleans and writes the catalogue."""


class CatalogueExampleGen(KeyedExampleGen):
    """Ingests the catalogue of a day.

    Output `examples`, split `catalogue`: an example for each item, with `candidate_id`, the item tower's raw features and,
    if the specification names it, `title`. If it names a blocking column, blocked items are in a separate split,
    `blocked`. If there are catalogues of earlier days and features change, the split `earlier` has those of their entries
    that interactions see (`components.example_gen.point_in_time`), and `judged` those of `catalogue` as held-out interactions see
    them.
    """

    DRIVER_CLASS = CatalogueDriver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(CatalogueExecutor)


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
        mask = pc.is_in(pa.array(range(rows.num_rows)), first.column("_at_min"))
        is_kept = mask.to_numpy(zero_copy_only=False)
        repeated = rows.filter(pc.invert(mask))
        accounting.drop(
            f"{self._id_column}: an id that an earlier row has",
            repeated.num_rows,
            places(repeated, self._files),
            before=int((days[~is_kept] < max(self._tables.days, default=0)).sum()),
        )
        rows, days = rows.filter(mask), days[is_kept]
        if self._tables.has_earlier:
            is_newest = days == max(self._tables.days)
            divided = divide(rows, days, is_newest, self._key, self._tables.changing, self._tables.judged)
            yield from earlier_entries(divided, accounting, self._tables.splits, self._split)
            rows = divided.newest
        yield from entries(rows, accounting, self._split)


def first_held_out(request: Request, first: date) -> int:
    """Return the first day with held-out interactions, in days since 1970-01-01, given the first day of the window."""
    held_out = request.day - timedelta(days=(request.settings.split.hours - 1) // 24)
    return utc.span(max(first, held_out))


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


def places(rows: pa.Table, files: list[str]) -> list[str]:
    """Return the places of the first few rows, given the beginning of a place by the number of its file."""
    few = rows.slice(0, SHOWN_EXAMPLES)
    numbers = zip(few.column(FILE).to_pylist(), few.column(ROW).to_pylist(), strict=True)
    return [f"{files[file]} {row}" for file, row in numbers]
