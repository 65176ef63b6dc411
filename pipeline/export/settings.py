"""Settings of `ndr export`: where versions are exported to. A password is never part of the configuration."""

from typing import Literal

from pydantic import Field, PositiveInt

from pipeline.metadata_settings import TlsSettings
from schemas.declaration import Declaration
from schemas.secret import SecretSource

WIDEST_HNSW = 2000  # dimensions; pgvector's limit for an index over its type `vector`


class ParquetSettings(Declaration):
    """A folder of Parquet files, a subfolder for each version.

    Attributes:
        folder: a path, relative to the root, or an object store address.
    """

    folder: str = Field(default="exported", min_length=1)


class PostgreSQLSettings(Declaration):
    """A PostgreSQL database with the extension pgvector, a table for each version and a view of the live one.

    Attributes:
        host: the server's name or address.
        port: the server's port.
        database: the database's name.
        user: a user who may create tables in the schema `namespace`.
        password: the source of the user's password.
        tls: for an encrypted connection to an authenticated server (`tls: {}` to trust the system's authorities); without it the
            connection is not encrypted.
        namespace: the existing schema for the tables and the view.
        view: the name of the view of the live version; tables have it as their prefix.
        readers: database roles that may read the view, granted with each version.
        index: `hnsw` builds an approximate index; `none` compares a query with every item and is exact; `auto` builds one
            if there are at least `indexer.exact_below` items.
        ef_search: the candidates of an approximate search (pgvector's `hnsw.ef_search`) with which a version is checked;
            applications must set the same.
    """

    host: str = Field(min_length=1)
    port: PositiveInt = Field(default=5432, le=65535)
    database: str = Field(min_length=1)
    user: str = Field(min_length=1)
    password: SecretSource
    tls: TlsSettings | None = None
    namespace: str = Field(default="public", min_length=1, max_length=63)
    view: str = Field(default="items", pattern=r"^[a-z_][a-z0-9_]*$", max_length=40)
    readers: tuple[str, ...] = ()
    index: Literal["auto", "hnsw", "none"] = "auto"
    ef_search: int = Field(default=200, ge=1, le=1000)


class ExportSettings(Declaration):
    """Stores that `ndr export` fills with the items of a pushed version.

    Attributes:
        parquet: for `ndr export parquet`.
        postgresql: for `ndr export postgresql`.
        keep: the number of newest versions that stay in a store; the live one always stays.
        queries: the number of queries whose answers must agree with exact search before a version becomes live in a store.
    """

    parquet: ParquetSettings = ParquetSettings()
    postgresql: PostgreSQLSettings | None = None
    keep: PositiveInt = 3
    queries: PositiveInt = 1000
