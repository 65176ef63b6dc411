"""ML Metadata in PostgreSQL, with two faults of ml-metadata 1.21 kept from it.

It quotes a text with a backslash so that PostgreSQL refuses the statement: here the text is kept with other signs in its place.
And it makes indexes on the texts of properties, which take some 8,000 bytes at most, where a run's metrics are longer: nothing here
looks properties up by their text, so they are dropped.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pg8000.native
from google.protobuf.message import Message
from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

DRIVER_TIMEOUT = 10  # seconds
SIGN = "\N{SYMBOL FOR ESCAPE}"
INDEXES = ("idx_artifact_property_string", "idx_execution_property_string", "idx_context_property_string")


class PostgreSQLStore(metadata_store.MetadataStore):
    """ML Metadata's store, which takes every text.

    Args:
        to: where it is.

    Raises:
        ml_metadata.errors.StatusError: as ML Metadata's store.
    """

    def __init__(self, to: mlmd.ConnectionConfig) -> None:
        super().__init__(to)
        try:
            with ask(to.postgresql) as connection:
                for index in INDEXES:
                    connection.run(f"DROP INDEX IF EXISTS {index}")
        except pg8000.native.Error as error:
            raise errors.UnavailableError(str(error)) from error

    def _call_method(self, method_name: str, request: Message, response: Message) -> None:
        kept = type(request)()
        kept.CopyFrom(request)
        _each_text(kept, encoded)
        super()._call_method(method_name, kept, response)
        _each_text(response, decoded)


@contextmanager
def ask(server: mlmd.PostgreSQLDatabaseConfig) -> Iterator[pg8000.native.Connection]:
    """A connection of our own.

    Raises:
        pg8000.native.DatabaseError: the server refuses it.
        pg8000.native.InterfaceError: the server cannot be reached.
    """
    connection = pg8000.native.Connection(
        host=server.host, port=int(server.port), database=server.dbname, user=server.user,
        password=unquoted(server.password), timeout=DRIVER_TIMEOUT,
    )  # fmt: skip
    try:
        yield connection
    finally:
        connection.close()


def quoted(value: str) -> str:
    """As libpq takes any text; ML Metadata pastes what it is given into `password=...` and the like."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def unquoted(value: str) -> str:
    """What was `quoted`."""
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def encoded(text: str) -> str:
    """The text without backslashes."""
    return text.replace(SIGN, f"{SIGN}0").replace("\\", f"{SIGN}1")


def decoded(text: str) -> str:
    """What was `encoded`."""
    return text.replace(f"{SIGN}1", "\\").replace(f"{SIGN}0", SIGN)


def _each_text(message: Message, change: Callable[[str], str]) -> None:
    """Changes every text in a message; not the names of properties."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if field.is_repeated:
                value[:] = [change(text) for text in value]
            else:
                setattr(message, field.name, change(value))
        elif field.type == field.TYPE_MESSAGE:
            for each in _messages(field, value):
                _each_text(each, change)


def _messages(field: Any, value: Any) -> list[Message]:
    if not field.is_repeated:
        return [value]
    if not field.message_type.GetOptions().map_entry:
        return list(value)
    of_messages = field.message_type.fields_by_name["value"].type == field.TYPE_MESSAGE
    return list(value.values()) if of_messages else []
