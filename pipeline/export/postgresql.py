"""PostgreSQL with pgvector: a table for each version, a view of the live one, and a table of what there is.

A version's table is created, filled, indexed and checked in the transaction that replaces the view. If anything fails, or the
process is killed, the server undoes all of it. An advisory lock admits one export at a time.

    VIEW               the live version: `version`, `candidate_id`, `embedding`, and the filter columns
    VIEW_KEY           the items of a version
    VIEW_exports       the versions, and which is live
"""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from typing import Any

import numpy as np
import pg8000.native
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Config
from pipeline.export.copied import chunks
from pipeline.export.settings import WIDEST_HNSW, PostgreSQLSettings
from pipeline.export.store import EMBEDDING, VERSION, Answers, Exported, Items, Store
from pipeline.records import POSTGRESQL_REFUSALS
from schemas.errors import PassingError, UserError
from schemas.features import CANDIDATE_ID

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 6 * 3600.0  # the longest wait for an answer, such as that a large index is built
LOCK_SECONDS = 10  # to wait for readers of the view, whom new readers queue behind meanwhile
# SQLSTATE
LOCKED, NO_RIGHTS, DISK_FULL, DEPENDED_ON, NO_TEXT = "55P03", "42501", "53100", "2BP01", "22021"
PASSING = ("08", "53", "57")  # classes: connection, resources, operator intervention
NAME_BYTES = 63  # of an identifier; PostgreSQL cuts longer ones


@contextmanager
def opened(config: Config, writes: bool) -> Iterator[Store]:
    """Connect to the configured database; see `pipeline.export.stores.opened`."""
    settings = config.export.postgresql
    if settings is None:
        raise UserError(
            "export.postgresql: expected host, database, user and password of the database to export to, found none."
        )
    with _reported(settings), _connected(settings) as connection:
        store = PostgreSQL(connection, settings, config.indexer.recall_target, config.indexer.exact_below)
        if writes:
            store.begin()
        yield store


class PostgreSQL(Store):
    """See the module.

    Args:
        connection: to the database.
        settings: of the store.
        recall_target: the share of the exact first items that an approximate search must find.
        exact_below: the number of items below which search is exact, for `index: auto`.
    """

    def __init__(
        self,
        connection: pg8000.native.Connection,
        settings: PostgreSQLSettings,
        recall_target: float,
        exact_below: int,
    ) -> None:
        self._connection, self._settings = connection, settings
        self._recall_target, self._exact_below = recall_target, exact_below
        self._view, self._exports = _quoted(settings.namespace, settings.view), self._table("exports")

    @property
    def place(self) -> str:
        """Override."""
        return place(self._settings)

    def begin(self) -> None:
        """Start a transaction as the only export, and prepare the schema.

        Raises:
            UserError: the schema or the extension is missing.
            PassingError: another export is writing.
        """
        run, settings = self._connection.run, self._settings
        if not self._one("SELECT to_regnamespace(:name) IS NOT NULL", name=_quoted(settings.namespace)):
            raise UserError(
                f"{self.place} has no schema {settings.namespace!r}. CREATE SCHEMA it, or name another: "
                "export.postgresql.namespace."
            )
        of_extension = (
            "SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'"
        )
        namespaces = run(of_extension)
        if not namespaces:
            raise UserError(
                f"{self.place} lacks the extension vector (pgvector). Install it on the server (Debian: postgresql-N-pgvector), "
                "then as a user who may: CREATE EXTENSION vector"
            )
        run(f"SET search_path TO {_quoted(settings.namespace)}, {_quoted(namespaces[0][0])}")
        run(f"SET lock_timeout TO '{LOCK_SECONDS}s'")
        if not self._one("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))", name=f"ndr {self._view}"):
            raise PassingError(f"{self.place}: another export is writing to {self._view}. Wait for it to end.")
        run("BEGIN")
        run(
            f"CREATE TABLE IF NOT EXISTS {self._exports} (key text PRIMARY KEY, version bigint NOT NULL, day date NOT NULL, "
            "items bigint NOT NULL, width integer NOT NULL, exported_at timestamptz NOT NULL, live boolean NOT NULL)"
        )

    def exported(self) -> list[Exported]:
        """Override."""
        if not self._exists(self._exports):
            return []
        rows = self._connection.run(
            f"SELECT key, version, day::text, items, width, exported_at, live FROM {self._exports} ORDER BY exported_at, key"
        )
        exports = (Exported(**dict(zip(Exported.model_fields, row, strict=True))) for row in rows)
        return [
            exported.model_copy(update={"exported_at": exported.exported_at.astimezone(UTC)}) for exported in exports
        ]

    def put(self, items: Items) -> None:
        """Override."""
        run, table, width = self._connection.run, self._table(items.key), items.embeddings.shape[1]
        names = items.columns.column_names
        if long := [name for name in names if len(name) > NAME_BYTES]:
            raise UserError(
                f"catalogue.filters: expected names of at most {NAME_BYTES} bytes, as PostgreSQL has; found {long[0]}."
            )
        is_approximate = self._settings.index == "hnsw" or (
            self._settings.index == "auto" and len(items.ids) >= self._exact_below
        )
        if is_approximate and width > WIDEST_HNSW:
            raise UserError(
                f"export.postgresql.index: pgvector indexes at most {WIDEST_HNSW} dimensions, and version {items.version} has "
                f"{width}. Set index: none, or train narrower towers."
            )
        is_list = [pa.types.is_list(items.columns.schema.field(name).type) for name in names]
        columns = [
            f'{CANDIDATE_ID} text COLLATE "C" NOT NULL',
            f"{EMBEDDING} vector({width}) NOT NULL",
            *(
                f"{_quoted(name)} {'text[] NOT NULL' if lists else 'real'}"
                for name, lists in zip(names, is_list, strict=True)
            ),
        ]
        run(f"CREATE TABLE {table} ({', '.join(columns)})")
        run(f"COPY {table} FROM STDIN WITH (FORMAT binary)", stream=chunks(items))
        # After the rows, which is faster than with each.
        run(f"ALTER TABLE {table} ADD PRIMARY KEY ({CANDIDATE_ID})")
        for name, lists in zip(names, is_list, strict=True):
            run(f"CREATE INDEX ON {table} USING {'gin' if lists else 'btree'} ({_quoted(name)})")
        if is_approximate:
            run(f"CREATE INDEX ON {table} USING hnsw ({EMBEDDING} vector_ip_ops)")
        run(f"ANALYZE {table}")
        described = f"ndr: items of version {items.version}, {items.day}; unit vectors, compared by inner product (<#>)"
        run(f"COMMENT ON TABLE {table} IS {pg8000.native.literal(described)}")
        run(
            f"INSERT INTO {self._exports} VALUES (:key, :version, :day, :items, :width, clock_timestamp(), false)",
            key=items.key, version=items.version, day=items.day, items=len(items.ids), width=width,
        )  # fmt: skip

    def search(self, key: str, queries: NDArray[np.float32], k: int) -> Answers:
        """Override."""
        self._connection.run(f"SET LOCAL hnsw.ef_search TO {self._settings.ef_search}")
        # k is written out: with a parameter the planner would guess how many rows are wanted.
        asked = self._connection.prepare(
            f"SELECT {CANDIDATE_ID}, -({EMBEDDING} <#> :query ::vector) FROM {self._table(key)} "
            f"ORDER BY {EMBEDDING} <#> :query ::vector LIMIT {int(k)}"
        )
        answers = []
        for query in queries.tolist():
            rows = asked.run(query=json.dumps(query))
            answers.append(([row[0] for row in rows], [float(row[1]) for row in rows]))
        asked.close()
        return answers

    def minimum_recall(self, key: str) -> float:
        """Override."""
        return self._recall_target if self._is_approximate(key) else 1.0

    def advice(self, key: str) -> str:
        """Override."""
        if self._is_approximate(key):
            return "Raise export.postgresql.ef_search, or set export.postgresql.index: none."
        return (
            f"If its table {self._table(key)} is from an earlier export, drop it and delete its row of {self._exports}."
        )

    def flip(self, key: str, version: int) -> None:
        """Override."""
        run, table = self._connection.run, self._table(key)
        wanted = [[VERSION, "bigint"], *self._columns(table)]
        if self._exists(self._view) and self._columns(self._view) != wanted:
            run(f"DROP VIEW {self._view}")  # another width, or other filters
        run(f"CREATE OR REPLACE VIEW {self._view} AS SELECT {int(version)}::bigint AS {VERSION}, t.* FROM {table} t")
        described = (
            f"ndr: version {version}; embed queries by its query tower; {EMBEDDING} <#> query is minus the score"
        )
        run(f"COMMENT ON VIEW {self._view} IS {pg8000.native.literal(described)}")
        for reader in self._settings.readers:
            run(f"GRANT SELECT ON {self._view} TO {_quoted(reader)}")
        run(f"UPDATE {self._exports} SET live = (key = :key) WHERE live OR key = :key", key=key)
        run(f"UPDATE {self._exports} SET version = :version WHERE key = :key", key=key, version=version)
        run("COMMIT")

    def remove(self, key: str) -> bool:
        """Override."""
        run = self._connection.run
        run("BEGIN")
        try:
            run(f"DROP TABLE IF EXISTS {self._table(key)}")
        except pg8000.native.DatabaseError as error:
            if _code(error) != LOCKED:
                raise
            run("ROLLBACK")
            return False
        run(f"DELETE FROM {self._exports} WHERE key = :key", key=key)
        run("COMMIT")
        return True

    def _is_approximate(self, key: str) -> bool:
        indexes = "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am a ON a.oid = relam"
        return bool(
            self._one(f"{indexes} WHERE indrelid = to_regclass(:name) AND amname = 'hnsw'", name=self._table(key))
        )

    def _columns(self, relation: str) -> list[list[str]]:
        """Return name and type of each column."""
        return self._connection.run(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(:name) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            name=relation,
        )

    def _exists(self, relation: str) -> bool:
        return bool(self._one("SELECT to_regclass(:name) IS NOT NULL", name=relation))

    def _one(self, statement: str, **values: Any) -> Any:
        return self._connection.run(statement, **values)[0][0]

    def _table(self, suffix: str) -> str:
        return _quoted(self._settings.namespace, f"{self._settings.view}_{suffix}")


def place(settings: PostgreSQLSettings) -> str:
    """Describe the database, without the password."""
    return (
        f"PostgreSQL database {settings.database} on {settings.host}:{settings.port}{' by TLS' if settings.tls else ''}"
    )


@contextmanager
def _connected(settings: PostgreSQLSettings) -> Iterator[pg8000.native.Connection]:
    password = settings.password.read("export.postgresql.password")
    tls: ssl.SSLContext | bool = False
    if settings.tls:
        tls = settings.tls.way("postgresql", settings.host, settings.port, "export.postgresql.tls").context()
    with socket.create_connection((settings.host, settings.port), CONNECT_SECONDS) as way:
        way.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        way.settimeout(STATEMENT_SECONDS)
        connection = pg8000.native.Connection(
            settings.user, host=settings.host, database=settings.database, password=password, sock=way, ssl_context=tls,
            application_name="ndr export",
        )  # fmt: skip
        try:
            yield connection
        finally:  # the server undoes a transaction that has not ended
            with suppress(pg8000.native.Error, OSError):
                connection.close()


@contextmanager
def _reported(settings: PostgreSQLSettings) -> Iterator[None]:
    """Turn errors of the connection and the server into sentences."""
    where = place(settings)
    try:
        yield
    except ssl.SSLError as error:
        reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error.reason or error
        raise UserError(f"{where} is not trusted: {reason}. See export.postgresql.tls.") from error
    except pg8000.native.DatabaseError as error:
        raise _refusal(where, settings, error) from None
    except (pg8000.native.InterfaceError, OSError) as error:
        reason = str(error.__cause__ or error)
        if "refuses SSL" in reason:
            raise UserError(f"{where} is not trusted: the server has no TLS. See export.postgresql.tls.") from error
        raise PassingError(
            f"{where} cannot be reached, or went away: {reason}. What is live there stays. Check export.postgresql.host and "
            "port, and that the server runs; then run the same command again."
        ) from error


def _refusal(where: str, settings: PostgreSQLSettings, error: pg8000.native.DatabaseError) -> UserError:
    """Explain an error of the server. What is live stays, as its transaction is undone."""
    code, words = _code(error), error.args[0].get("M", "") if isinstance(error.args[0], dict) else str(error)
    if code in POSTGRESQL_REFUSALS and code != NO_RIGHTS:
        return UserError(
            f"{where} refuses: {words}. Check export.postgresql's user, database and password; tls is for a server that needs TLS."
        )
    if code == NO_RIGHTS:
        return UserError(
            f"{where} refuses: {words}. The user {settings.user} must own what it exports: GRANT USAGE, CREATE ON SCHEMA "
            f"{settings.namespace} TO it, and let nobody else create {settings.view} there."
        )
    if code == DISK_FULL:
        return UserError(
            f"{where} has a full disk. What is live there stays. Make room, and run the same command again."
        )
    if code == LOCKED:
        return PassingError(
            f"{where}: a reader or another session held {settings.view} for {LOCK_SECONDS} s. What is live stays. "
            "Run the same command again."
        )
    if code == DEPENDED_ON:
        return UserError(
            f"{where}: {words}. The version has other columns, so its view is made anew: drop what depends on it first."
        )
    if code == NO_TEXT:
        return UserError(f"{where} refuses: {words}. PostgreSQL's texts hold no such ids.")
    return (PassingError if code[:2] in PASSING else UserError)(f"{where} refuses: {words}. What is live there stays.")


def _code(error: pg8000.native.DatabaseError) -> str:
    fields = error.args[0]
    return str(fields.get("C", "")) if isinstance(fields, dict) else ""


def _quoted(*names: str) -> str:
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)
