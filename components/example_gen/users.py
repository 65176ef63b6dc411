"""The users' features on a day, as examples, and as a table to join interactions with."""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from components.artifacts import Artifacts
from components.example_gen import sources
from components.example_gen.catalogue import FinishCatalogue, read_rows, versioned
from components.example_gen.cleaning import Cleaning, before_rows
from components.example_gen.columns import columns_of, user_columns
from components.example_gen.day_driver import Request
from components.example_gen.examples import partitions
from components.example_gen.keyed import BASE_MODEL, OUTPUTS, PARAMETERS, Ingestion, KeyedDriver, KeyedExecutor
from components.example_gen.point_in_time import EARLIER_SPLIT, Tables
from components.example_gen.settings import ExampleGenSettings, SourceSettings
from schemas.errors import UserError
from schemas.features import QUERY_ID, FeatureSpec

USERS_SPLIT = "users"


class UserSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the UserExampleGen."""

    PARAMETERS = PARAMETERS
    INPUTS = BASE_MODEL
    OUTPUTS = OUTPUTS


class OfUsers:
    """How the users' table becomes examples."""

    @staticmethod
    def ingestion(request: Request, inputs: Artifacts) -> Ingestion:
        """Describe how the users' table of a day becomes examples.

        Raises:
            UserError: there is no table, or the configuration does not say where it is.
        """
        source = source_of(request)
        goes_on, changing = bool(inputs.get("base_model")), request.spec.changing_user_features
        first = sources.first_to_see(request.settings, request.day, goes_on, changing)
        found = sources.newest_files(source, request.day, "users", first)
        columns = user_columns(request.spec)
        cleaning = Cleaning(
            source,
            columns,
            key=QUERY_ID,
            partitions=partitions(found.files),
            max_id_bytes=request.settings.max_id_bytes,
            start=sources.start_of_newest(found.files),
        )
        tables = Tables(sources.table_days(found.files), columns_of(changing, columns))
        finish = FinishCatalogue(before_rows(found.files, source), columns[0].source, QUERY_ID, USERS_SPLIT, tables)
        return Ingestion("users", found, cleaning, finish, [USERS_SPLIT, *tables.splits])


class UserDriver(OfUsers, KeyedDriver):
    """The driver of the UserExampleGen."""


class UserExecutor(OfUsers, KeyedExecutor):
    """Reads, cleans and writes the users."""


class UserExampleGen(base_beam_component.BaseBeamComponent):
    """Ingests the users' table of a day.

    Args:
        settings: the table's place.
        spec: its columns.
        day: the UTC day.
        base_model: the model that training continues from, if that decides how many days become examples.

    Output `examples`, split `users`: an example for each user, with `query_id` and the raw features of the specification. If
    there are tables of earlier days and features change, the split `earlier` has those of their entries that interactions see.
    """

    SPEC_CLASS = UserSpec
    DRIVER_CLASS = UserDriver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(UserExecutor)

    def __init__(
        self, settings: ExampleGenSettings, spec: FeatureSpec, day: date, base_model: types.BaseChannel | None = None
    ) -> None:
        examples = types.Channel(type=standard_artifacts.Examples)
        super().__init__(UserSpec(**Request.parameters(settings, spec, day), base_model=base_model, examples=examples))


class UserTable:
    """All known users, in memory.

    Args:
        examples_uri: the URI of the Examples artifact.
    """

    def __init__(self, examples_uri: str) -> None:
        rows, sizes = read_rows(examples_uri, QUERY_ID, [USERS_SPLIT, EARLIER_SPLIT])
        self._rows, self._ids, self._versions = versioned(rows, QUERY_ID, sizes[0])

    def positions(self, users: pa.Array) -> pa.Array:
        """Map [rows] binary ids to [rows] int32 rows of the table; null for an unknown user."""
        return pc.index_in(users, value_set=self._ids)

    def features(self, positions: pa.Array, days: NDArray[np.int64]) -> pa.Table:
        """Return the features of users at [rows] positions, as interactions of [rows] days see them; null for unknown users."""
        is_missing = positions.is_null().to_numpy(zero_copy_only=False)
        places = self._versions.places(positions.fill_null(0).to_numpy().astype(np.int64), days)
        return self._rows.drop_columns([QUERY_ID]).take(pa.array(places, mask=is_missing))


def source_of(request: Request) -> SourceSettings:
    """Return the place of the users' table.

    Raises:
        UserError: the configuration does not have it.
    """
    if request.settings.users is None:
        raise UserError(
            "data.users: expected the place of the users' table, because features.yaml has `users`; found nothing."
        )
    return request.settings.users
