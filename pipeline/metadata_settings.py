"""Where ML Metadata is kept. The password of a database server never stands in the configuration."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from schemas.errors import UserError
from schemas.features import Declaration

PORTS = {"mysql": 3306, "postgresql": 5432}


class PasswordSource(Declaration):
    """Where a password is read from; one of the two.

    Attributes:
        env: an environment variable that holds it.
        file: a file whose first line it is, such as a mounted secret.
    """

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected one of env, the name of an environment variable, and file, the path of a file")
        return self

    def read(self) -> str:
        """The password.

        Raises:
            UserError: it is not there, or empty.
        """
        # Neither name is shown: it may be the password itself, written in the wrong place.
        if self.env is not None:
            password, where = os.environ.get(self.env, ""), "the environment variable that metadata.password.env names"
        else:
            where = "the file that metadata.password.file names"
            try:
                password = (self.file or Path()).read_text(encoding="utf-8").partition("\n")[0]
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
                raise UserError(f"metadata.password: {where} cannot be read: {reason}.") from error
        if not password:
            raise UserError(f"metadata.password: expected the database's password in {where}, found nothing.")
        return password


class SqliteSettings(Declaration):
    """A file below the root: for one machine."""

    store: Literal["sqlite"] = "sqlite"


class ServerSettings(Declaration):
    """A database server, for steps on many machines. The database is there; its tables are made by the first to connect.

    Attributes:
        store: `mysql`, for MariaDB too, or `postgresql`.
        host: the server's name or address.
        port: by default the one that such servers have.
        database: its name.
        user: who may create tables in it, and read and write them.
        password: where the user's password is read from.
        encrypted: whether the connection is, by TLS, without which it is refused then. Whether the server is the right one is
            not checked: ml-metadata's driver accepts any certificate. Its driver of PostgreSQL has no TLS.
    """

    store: Literal["mysql", "postgresql"]
    host: str = Field(min_length=1)
    port: PositiveInt = Field(default_factory=lambda given: PORTS[given["store"]], le=65535)
    database: str = Field(default="metadata", min_length=1)
    user: str = Field(min_length=1)
    password: PasswordSource
    encrypted: bool = False

    @model_validator(mode="after")
    def _driver_has_tls(self) -> Self:
        if self.encrypted and self.store == "postgresql":
            raise ValueError(
                "expected store: mysql beside encrypted: true, as ml-metadata's driver of PostgreSQL has no TLS; use a network "
                "that encrypts, or MariaDB"
            )
        return self


MetadataSettings = SqliteSettings | ServerSettings
