"""Connections to ML Metadata: an SQLite file, a MySQL or MariaDB server, or a PostgreSQL server."""

import logging
import time
from collections.abc import Callable
from typing import Any

from ml_metadata import MetadataStore, errors
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import tls_tunnel
from pipeline.config import Config
from pipeline.metadata_settings import ServerSettings
from schemas.errors import PassingError, UserError

# Seconds between attempts: a restarting database server is back within them.
PATIENCE = (0.5, 1.0, 2.0, 4.0, 8.0)
DRIVER_TIMEOUT = 10  # seconds
# Errors of a call whose server went away.
GONE = (errors.InternalError, errors.AbortedError, errors.UnavailableError)
BUSY_WORDS = "Concurrent writes aborted"
SCHEMA_WORDS = "MLMD database version"
# Errors of MySQL's and PostgreSQL's drivers that retries cannot fix: no rights, a missing database, TLS on one side only.
MYSQL_REFUSALS = {1044, 1045, 1049, 1698, 3159, tls_tunnel.MYSQL_TLS_REFUSED}
POSTGRESQL_REFUSALS = {"28000", "28P01", "3D000", "42501", tls_tunnel.POSTGRESQL_TLS_REFUSED}


def connection(config: Config) -> mlmd.ConnectionConfig:
    """Return the connection to a configuration's ML Metadata. It holds the password: do not log, compile or store it.

    Raises:
        UserError: the password, or a certificate, is not where the configuration says.
    """
    target = mlmd.ConnectionConfig()
    settings = config.metadata
    if not isinstance(settings, ServerSettings):
        target.sqlite.filename_uri = str(config.metadata_path)
        target.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        return target
    # To a MySQL client "localhost" is a socket file, whatever the port; here it is a machine like any other.
    host = "127.0.0.1" if settings.host == "localhost" else settings.host
    password = settings.password.read("metadata.password")
    port = settings.port
    if settings.tls:
        host, port = tls_tunnel.LOOPBACK, tls_tunnel.opened(settings.way())
    # A misspelt database must not be created: the day would start from scratch, without an earlier model.
    if settings.store == "mysql":
        target.mysql.host, target.mysql.port, target.mysql.database = host, port, settings.database
        target.mysql.user, target.mysql.password, target.mysql.skip_db_creation = settings.user, password, True
    else:
        from pipeline.records.postgresql import quoted

        server = target.postgresql
        server.host, server.port, server.dbname = host, str(port), settings.database
        server.user, server.password, server.skip_db_creation = settings.user, quoted(password), True
    return target


def has_begun(config: Config) -> bool:
    """Return whether there can be records, without creating a missing file."""
    return isinstance(config.metadata, ServerSettings) or config.metadata_path.exists()


def connect(to: mlmd.ConnectionConfig) -> MetadataStore:
    """Connect, and wait for a restarting database server.

    Raises:
        PassingError: the server cannot be reached.
        UserError: it rejects the user, lacks the database, or holds something other than this version's ML Metadata.
    """
    for pause in PATIENCE:
        try:
            return connect_once(to)
        except PassingError as error:
            logging.getLogger(__name__).warning("%s Tries again in %s s.", error, pause)
            time.sleep(pause)
    return connect_once(to)


class Store:
    """A connection that is renewed after a server went away and came back.

    Only for calls that may be repeated: reads, and writes of objects with an id.

    Args:
        to: the connection's configuration.

    Raises:
        PassingError: as `connect`.
        UserError: as `connect`.
    """

    def __init__(self, to: mlmd.ConnectionConfig) -> None:
        self._to = to
        self._store = connect(to)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            try:
                return getattr(self._store, name)(*arguments, **options)
            except GONE:
                self._store = connect(self._to)
                return getattr(self._store, name)(*arguments, **options)

        return call


def connect_once(to: mlmd.ConnectionConfig) -> MetadataStore:
    """Connect once, without waiting.

    Raises:
        PassingError, UserError: as `connect`.
    """
    from pipeline.records.postgresql import PostgreSQLStore

    try:
        if to.WhichOneof("config") == "postgresql":
            return PostgreSQLStore(to)
        return MetadataStore(to)
    except (errors.StatusError, RuntimeError) as error:
        raise _refusal(to, error) from error


def _refusal(to: mlmd.ConnectionConfig, error: Exception) -> UserError:
    """Explain why there is no connection. ML Metadata itself reports faults of a file, but hardly any of a server."""
    if SCHEMA_WORDS in str(error):
        return UserError(
            f"{place(to)} holds ML Metadata of another version: {error} Use the ndr that wrote it, or upgrade the database "
            "as ML Metadata's documentation says, with a copy of it at hand."
        )
    if BUSY_WORDS in str(error):
        return PassingError(f"{place(to)} is locked by other processes, which did not release it. Try again.")
    kind = to.WhichOneof("config")
    if kind == "sqlite":
        reason = str(error).removeprefix("Error when executing query: ").partition(" query: ")[0]
        return UserError(
            f"{place(to)}: expected ML Metadata's SQLite file, found something else: {reason}. "
            "Move it away, or name another root: --set root=DIR."
        )
    reason, is_final = _ask_mysql(to.mysql) if kind == "mysql" else _ask_postgresql(to.postgresql)
    if is_final:
        return UserError(
            f"{place(to)} refuses: {reason}. Check metadata.user, metadata.database and the password, and that the database was "
            "made and the user has all rights on it. metadata.tls is for a server that requires TLS."
        )
    return PassingError(
        f"{place(to)} cannot be reached: {reason or error}. Check metadata.host and metadata.port, and that the server runs."
    )


def place(to: mlmd.ConnectionConfig) -> str:
    """Describe the store, without the password."""
    match to.WhichOneof("config"):
        case "mysql":
            server = tls_tunnel.behind(to.mysql.host, to.mysql.port)
            return f"The MySQL server {server}, database {to.mysql.database},"
        case "postgresql":
            server = tls_tunnel.behind(to.postgresql.host, int(to.postgresql.port))
            return f"The PostgreSQL server {server}, database {to.postgresql.dbname},"
    return str(to.sqlite.filename_uri)


def _ask_mysql(server: mlmd.MySQLDatabaseConfig) -> tuple[str, bool]:
    """Ask the server itself: return its refusal, empty if it accepts; and whether it would refuse again."""
    import pymysql

    try:
        pymysql.connect(
            host=server.host, port=server.port, database=server.database, user=server.user, password=server.password,
            connect_timeout=DRIVER_TIMEOUT, ssl_disabled=True,
        ).close()  # fmt: skip
    except pymysql.MySQLError as error:
        code, words = (*error.args, "")[:2]
        return str(words or code), code in MYSQL_REFUSALS
    return "", False


def _ask_postgresql(server: mlmd.PostgreSQLDatabaseConfig) -> tuple[str, bool]:
    """Ask a PostgreSQL server; see `_ask_mysql`."""
    import pg8000.native

    from pipeline.records.postgresql import ask

    try:
        with ask(server):
            pass
    except pg8000.native.DatabaseError as error:
        fields = error.args[0]
        return fields.get("M", str(fields)), fields.get("C") in POSTGRESQL_REFUSALS
    except pg8000.native.InterfaceError as error:
        return f"{error.__cause__ or error}", False
    return "", False
