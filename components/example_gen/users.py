"""The users' features on a day, as examples, and as a table to join interactions with."""

from tfx.dsl.components.base import executor_spec

from components.artifacts import Artifacts
from components.example_gen import sources
from components.example_gen.catalogue import FinishCatalogue
from components.example_gen.cleaning import Cleaning, before_rows
from components.example_gen.columns import columns_of, user_columns
from components.example_gen.day_driver import Request
from components.example_gen.examples import partitions
from components.example_gen.keyed import Ingestion, KeyedDriver, KeyedExampleGen, KeyedExecutor
from components.example_gen.point_in_time import Tables
from components.example_gen.settings import SourceSettings
from components.example_gen.split_names import USERS_SPLIT
from schemas.errors import UserError
from schemas.features import QUERY_ID


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
        selection = sources.newest_files(source, request.day, "users", first)
        columns = user_columns(request.spec)
        cleaning = Cleaning(
            source,
            columns,
            key=QUERY_ID,
            partitions=partitions(selection.files),
            max_id_bytes=request.settings.max_id_bytes,
            start=sources.start_of_newest(selection.files),
        )
        tables = Tables(sources.table_days(selection.files), columns_of(changing, columns))
        finish = FinishCatalogue(before_rows(selection.files, source), columns[0].source, QUERY_ID, USERS_SPLIT, tables)
        return Ingestion("users", selection, cleaning, finish, [USERS_SPLIT, *tables.splits])


class UserDriver(OfUsers, KeyedDriver):
    """The driver of the UserExampleGen."""


class UserExecutor(OfUsers, KeyedExecutor):
    """Reads, cleans and writes the users."""


class UserExampleGen(KeyedExampleGen):
    """Ingests the users' table of a day.

    Output `examples`, split `users`: an example for each user, with `query_id` and the raw features of the specification. If
    there are tables of earlier days and features change, the split `earlier` has those of their entries that interactions see.
    """

    DRIVER_CLASS = UserDriver
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(UserExecutor)


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
