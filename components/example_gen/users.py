"""What is known of users on a day, as examples; and as a table to join interactions with."""

from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tfx import types
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import component_spec, standard_artifacts

from components.example_gen import sources
from components.example_gen.catalogue import FinishCatalogue, read_rows
from components.example_gen.cleaning import Cleaning, before_rows
from components.example_gen.columns import user_columns
from components.example_gen.day_driver import Request
from components.example_gen.examples import partitions
from components.example_gen.keyed import OUTPUTS, PARAMETERS, Ingestion, Inputs, KeyedDriver, KeyedExecutor
from components.example_gen.settings import ExampleGenSettings, SourceSettings
from schemas.errors import UserError
from schemas.features import QUERY_ID, FeatureSpec

USERS_SPLIT = "users"


class UserSpec(component_spec.ComponentSpec):
    """Parameters and outputs of the UserExampleGen."""

    PARAMETERS = PARAMETERS
    INPUTS: dict[str, Any] = {}
    OUTPUTS = OUTPUTS


class OfUsers:
    """How the users' table becomes examples."""

    @staticmethod
    def ingestion(request: Request, inputs: Inputs) -> Ingestion:
        """How the users' table of a day becomes examples.

        Raises:
            UserError: there is none, or the configuration does not say where it lies.
        """
        source = source_of(request)
        found = sources.newest_files(source, request.day, "users")
        cleaning = Cleaning(
            source,
            user_columns(request.spec),
            key=QUERY_ID,
            partitions=partitions(found.files),
            max_id_bytes=request.settings.max_id_bytes,
        )
        finish = FinishCatalogue(before_rows(found.files, source), cleaning.columns[0].source, QUERY_ID, USERS_SPLIT)
        return Ingestion("users", found, cleaning, finish, [USERS_SPLIT])


class UserDriver(OfUsers, KeyedDriver):
    """The driver of the UserExampleGen."""


class UserExecutor(OfUsers, KeyedExecutor):
    """Reads, cleans and writes the users."""


class UserExampleGen(base_beam_component.BaseBeamComponent):
    """Ingests the users' table of a day.

    Args:
        settings: where it lies.
        spec: which columns it has.
        day: the UTC day.

    Output `examples`, split `users`: an example a user with `query_id` and the raw features that the specification names.
    """

    SPEC_CLASS = UserSpec
    DRIVER_CLASS = UserDriver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(UserExecutor)

    def __init__(self, settings: ExampleGenSettings, spec: FeatureSpec, day: date) -> None:
        examples = types.Channel(type=standard_artifacts.Examples)
        super().__init__(UserSpec(**Request.parameters(settings, spec, day), examples=examples))


class UserTable:
    """All users that are known, in memory.

    Args:
        examples_uri: of the Examples artifact.
    """

    def __init__(self, examples_uri: str) -> None:
        self._rows, _ = read_rows(examples_uri, QUERY_ID, [USERS_SPLIT])
        self._ids = self._rows.column(QUERY_ID).combine_chunks()

    def positions(self, users: pa.Array) -> pa.Array:
        """[rows] binary ids to [rows] int32 rows of the table; null where it has no such user."""
        return pc.index_in(users, value_set=self._ids)

    def features(self, positions: pa.Array) -> pa.Table:
        """The features of the users at [rows] positions; null where there is none."""
        return self._rows.drop_columns([QUERY_ID]).take(positions)


def source_of(request: Request) -> SourceSettings:
    """Where the users' table lies.

    Raises:
        UserError: the configuration does not say so.
    """
    if request.settings.users is None:
        raise UserError(
            "data.users: expected where the users' table lies, as features.yaml has `users`, found nothing."
        )
    return request.settings.users
