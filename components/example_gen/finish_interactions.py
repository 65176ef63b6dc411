"""Interactions with their items' and users' features and their histories, split into trained and held out."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.example_gen.accounting import Accounting
from components.example_gen.catalogue import places
from components.example_gen.cleaning import ACCOUNTING, FILE, ROW, from_bytes
from components.example_gen.columns import EVENT
from components.example_gen.examples import serialized_examples
from components.example_gen.held_out import HeldOut, user_hashes
from components.example_gen.histories import histories
from components.example_gen.lookups import CatalogueTable, UserTable
from components.example_gen.sources import Window
from components.example_gen.split_names import EVAL_SPLIT, TRAIN_SPLIT
from components.kept import Kept
from components.utc import MICROSECONDS_A_DAY, MICROSECONDS_AN_HOUR, microseconds
from schemas.features import (
    AGES_SUFFIX,
    CANDIDATE_ID,
    EVENT_KIND,
    QUERY_ID,
    REWARD,
    TIMESTAMP,
    FeatureSpec,
    IdFeature,
)

HELD_OUT_BLOCKED = "held out, but blocked"  # in the accounting: neither trained on nor asked for
USER_UNKNOWN = "of a user whom the users' table lacks"  # in the accounting, of those in the other splits
THURSDAY = 3  # 1970-01-01 was one


class FinishInteractions(beam.DoFn):
    """Maps (partition, parts of it) to serialised examples in the outputs `train` and `eval`.

    All interactions of a user are in one partition.

    Args:
        held_out: selects the held-out interactions.
        spec: defines the derived features.
        window: the days.
        files: by the file's number, the beginning of a row's place.
        catalogue_uri: the URI of the catalogue's Examples artifact.
        repeated: how to treat rows with the same user, item and time.
        users_uri: the URI of the users' artifact; None without one.
    """

    def __init__(
        self,
        held_out: HeldOut,
        spec: FeatureSpec,
        window: Window,
        files: list[str],
        catalogue_uri: str,
        repeated: Literal["drop", "add_up", "keep"],
        users_uri: str | None = None,
    ) -> None:
        self._held_out = held_out
        self._spec = spec
        self._window = window
        self._files = files
        self._repeated = repeated
        self._catalogue = Kept(lambda: CatalogueTable.load(catalogue_uri, spec))
        self._users = Kept(lambda: UserTable(users_uri, spec)) if users_uri else None

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Any]:
        """Override of Beam's method."""
        _, tables = element
        accounting = Accounting()
        catalogue = self._catalogue.get()
        rows = self._known(from_bytes(list(tables)), catalogue, accounting)
        rows = self._distinct(rows, accounting)
        held_out = self._held_out.of(rows)
        rows = self._derive(rows, held_out)
        self._count_users(rows.filter(pa.array(self._held_out.in_hours(rows))), accounting)
        times = rows.column(TIMESTAMP).to_numpy()
        accounting.rows_of_day += int((times >= microseconds(self._window.day)).sum())
        in_window = times >= microseconds(self._window.start)
        rows, held_out = rows.filter(pa.array(in_window)), held_out[in_window]
        positions = catalogue.positions(rows.column(CANDIDATE_ID).combine_chunks())
        days = rows.column(TIMESTAMP).to_numpy() // MICROSECONDS_A_DAY
        for name, column in _columns(catalogue.features(positions, days)):
            rows = rows.append_column(name, column)
        if self._users:
            user_positions = self._users.get().positions(rows.column(QUERY_ID).combine_chunks())
            for name, column in _columns(self._users.get().features(user_positions, days)):
                rows = rows.append_column(name, column)
            if user_positions.null_count:
                accounting.splits[USER_UNKNOWN] = user_positions.null_count
        blocked = catalogue.blocked[positions.to_numpy()]
        if (held_out & blocked).any():
            accounting.splits[HELD_OUT_BLOCKED] = int((held_out & blocked).sum())
        for split, mask in ((TRAIN_SPLIT, ~held_out), (EVAL_SPLIT, held_out & ~blocked)):
            chosen = rows.filter(pa.array(mask))
            accounting.splits[split] = chosen.num_rows
            accounting.rewarded[split] = pc.sum(pc.greater(chosen.column(REWARD), 0.0)).as_py() or 0
            for examples in serialized_examples(chosen.combine_chunks()):
                yield beam.pvalue.TaggedOutput(split, examples)
        yield beam.pvalue.TaggedOutput(ACCOUNTING, accounting)

    def _count_users(self, rows: pa.Table, accounting: Accounting) -> None:
        """Count the users that could be held out."""
        rows = rows.filter(pc.greater(rows.column(REWARD), 0.0))
        if rows.num_rows:
            hashes = np.unique(user_hashes(rows, self._held_out.span))
            accounting.users, accounting.first_user = len(hashes), int(hashes[0])

    def _known(self, rows: pa.Table, catalogue: CatalogueTable, accounting: Accounting) -> pa.Table:
        """Select interactions with items of the catalogue."""
        unknown = pc.is_null(catalogue.positions(rows.column(CANDIDATE_ID).combine_chunks()))
        dropped = rows.filter(unknown)
        reason = f"{self._spec.interactions.item}: an item that the catalogue lacks"
        accounting.drop(reason, dropped.num_rows, places(dropped, self._files), before=self._before(dropped))
        return rows.filter(pc.invert(unknown))

    def _before(self, rows: pa.Table) -> int:
        """Count rows of days before the window."""
        return int((rows.column(TIMESTAMP).to_numpy() < microseconds(self._window.start)).sum())

    def _distinct(self, rows: pa.Table, accounting: Accounting) -> pa.Table:
        """Sort interactions by user and time, and treat repeated ones as declared."""
        users, items = (_codes(rows.column(name)) for name in (QUERY_ID, CANDIDATE_ID))
        times = rows.column(TIMESTAMP).to_numpy()
        rewards = rows.column(REWARD).to_numpy() if REWARD in rows.column_names else np.ones(len(times), np.float32)
        order = np.lexsort((-rewards, items, times, users))
        repeated = np.zeros(len(order), bool)
        repeated[1:] = np.logical_and.reduce([np.diff(key[order]) == 0 for key in (users, times, items)])
        if self._repeated == "keep":
            return rows.take(pa.array(order)).combine_chunks()
        first = rows.take(pa.array(order[~repeated])).combine_chunks()
        if self._repeated == "add_up":
            accounting.filter("added to another of the same user, item and time", int(repeated.sum()))
            if REWARD not in rows.column_names or not len(order):
                return first
            sums = np.minimum(np.add.reduceat(rewards[order], np.flatnonzero(~repeated)), np.float32(1))
            return first.set_column(first.column_names.index(REWARD), REWARD, pa.array(sums, pa.float32()))
        dropped = rows.take(pa.array(order[repeated]))
        reason = "rows with the user, item and time of another"
        first_few = places(dropped.sort_by([(FILE, "ascending"), (ROW, "ascending")]), self._files)
        way_out = (
            "Where a basket names an item twice, say `data.repeated: add_up` for one row of it, or `keep` for both."
        )
        accounting.drop(reason, dropped.num_rows, first_few, way_out, self._before(dropped))
        return first

    def _derive(self, rows: pa.Table, held_out: NDArray[np.bool_]) -> pa.Table:
        """Add derived features, and a reward of 1 if the data has none."""
        times = rows.column(TIMESTAMP).to_numpy()
        if REWARD not in rows.column_names:
            rows = rows.append_column(REWARD, pa.array(np.ones(rows.num_rows, np.float32)))
        derived: dict[str, pa.Array] = {
            "hour_of_day": _texts(times // MICROSECONDS_AN_HOUR % 24),
            "day_of_week": _texts((times // MICROSECONDS_A_DAY + THURSDAY) % 7),
        }
        candidates, users = rows.column(CANDIDATE_ID).combine_chunks(), _codes(rows.column(QUERY_ID))
        for name, feature in self._spec.derived_histories.items():
            history = histories(users, times, held_out, feature.last, _is_of_kinds(rows, feature.events))
            nothing = pa.array(history.lengths == 0)
            items = candidates.take(pa.array(history.positions))
            beside = {name: items}
            if feature.has_ages:
                beside[name + AGES_SUFFIX] = pa.array(history.ages(times))
            for column, values in beside.items():
                rows = rows.append_column(
                    column, pa.ListArray.from_arrays(pa.array(history.offsets), values, mask=nothing)
                )
            newest = candidates.take(pa.array(history.newest, mask=history.lengths == 0))
            derived.setdefault("last_in_history", newest)
        if self._spec.has_events:
            rows = rows.append_column(EVENT_KIND, rows.column(EVENT))
        for name, query_feature in self._spec.query.items():
            if isinstance(query_feature, IdFeature) and query_feature.derive:
                rows = rows.append_column(name, derived[query_feature.derive])
        return rows


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return a number for each distinct value."""
    codes: NDArray[np.int64] = column.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _is_of_kinds(rows: pa.Table, kinds: Sequence[str]) -> NDArray[np.bool_] | None:
    """Return [rows], whether an interaction is of some kinds of event; None for all kinds."""
    if not kinds:
        return None
    wanted = pa.array([kind.encode() for kind in kinds], pa.binary())
    is_of_kind: NDArray[np.bool_] = pc.is_in(rows.column(EVENT).cast(pa.binary()), value_set=wanted).to_numpy()
    return is_of_kind


def _texts(values: NDArray[np.int64]) -> pa.Array:
    return pa.array(values).cast(pa.string()).cast(pa.binary())


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    yield from zip(table.column_names, table.columns, strict=True)
