"""ML Metadata in PostgreSQL, with workarounds for two bugs in ml-metadata 1.21.

It quotes a text with a backslash so that PostgreSQL rejects the statement: here backslashes are stored as other characters.
And it indexes the texts of properties, up to some 8,000 bytes, but a run's metrics are longer: nothing here looks up properties
by their text, so the indexes are dropped.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pg8000.native
from google.protobuf.message import Message
from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2 as mlmd

DRIVER_TIMEOUT = 10  # seconds
SIGN = "\N{SYMBOL FOR ESCAPE}"
INDEXES = ("idx_artifact_property_string", "idx_execution_property_string", "idx_context_property_string")


class PostgreSQLStore(MetadataStore):
    """ML Metadata's store, accepting any text.

    Args:
        to: the connection.

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
        encoded_request = type(request)()
        encoded_request.CopyFrom(request)
        _each_text(encoded_request, encoded)
        super()._call_method(method_name, encoded_request, response)
        _each_text(response, decoded)


@contextmanager
def ask(server: mlmd.PostgreSQLDatabaseConfig) -> Iterator[pg8000.native.Connection]:
    """Open a connection of our own.

    Raises:
        pg8000.native.DatabaseError: the server rejects it.
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
    """Quote any text for libpq; ML Metadata pastes its values into `password=...` and the like."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def unquoted(value: str) -> str:
    """Undo `quoted`."""
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def encoded(text: str) -> str:
    """Encode a text without backslashes."""
    return text.replace(SIGN, f"{SIGN}0").replace("\\", f"{SIGN}1")


def decoded(text: str) -> str:
    """Undo `encoded`."""
    return text.replace(f"{SIGN}1", "\\").replace(f"{SIGN}0", SIGN)


def _each_text(message: Message, change: Callable[[str], str]) -> None:
    """Change every text in a message, but not the names of properties."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            if field.is_repeated:
                value[:] = [change(text) for text in value]
            else:
                setattr(message, field.name, change(value))
        elif field.type == field.TYPE_MESSAGE:
            for nested in _messages(field, value):
                _each_text(nested, change)


def _messages(field: Any, value: Any) -> list[Message]:
    if not field.is_repeated:
        return [value]
    if not field.message_type.GetOptions().map_entry:
        return list(value)
    of_messages = field.message_type.fields_by_name["value"].type == field.TYPE_MESSAGE
    return list(value.values()) if of_messages else []
