"""What is known of users on a day, as examples; and as a table to join interactions with."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components.example_gen import sources
from components.example_gen.catalogue import FinishCatalogue, read_rows
from components.example_gen.cleaning import Cleaning, before_rows
from components.example_gen.columns import user_columns
from components.example_gen.day_driver import DayDriver, Request
from components.example_gen.examples import check_files, conclude, generate, partitions
from components.example_gen.settings import ExampleGenSettings, SourceSettings
from schemas.errors import UserError
from schemas.features import QUERY_ID, FeatureSpec

USERS_SPLIT = "users"


class UserSpec(component_spec.ComponentSpec):
    """Parameters and outputs of the UserExampleGen."""

    PARAMETERS = {
        name: component_spec.ExecutionParameter(type=str)
        for name in (Request.SETTINGS, Request.FEATURE_SPEC, Request.DAY)
    }
    INPUTS: dict[str, Any] = {}
    OUTPUTS = {"examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class UserDriver(DayDriver):
    """The driver of the UserExampleGen."""

    def files(self, request: Request, inputs: Mapping[str, Sequence[types.Artifact]]) -> sources.Found:
        """The files of the day's users."""
        return sources.newest_files(source_of(request), request.day, "users")


class UserExecutor(base_beam_executor.BaseBeamExecutor):
    """Reads, cleans and writes the users."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX.

        Raises:
            UserError: the users' table is missing, cannot be read, or too much of it is at fault.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        request = Request(exec_properties)
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        source = source_of(request)
        found = sources.newest_files(source, request.day, "users")
        files = found.files
        cleaning = Cleaning(
            source,
            user_columns(request.spec),
            key=QUERY_ID,
            partitions=partitions(files),
            max_id_bytes=request.settings.max_id_bytes,
        )
        check_files(files, cleaning)
        column = cleaning.columns[0].source
        with self._make_beam_pipeline() as pipeline:
            finish = FinishCatalogue(before_rows(files, source), column, QUERY_ID, USERS_SPLIT)
            generate(pipeline, files, cleaning, finish, [USERS_SPLIT], examples)
        conclude(examples, "users", request.settings, found)


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
