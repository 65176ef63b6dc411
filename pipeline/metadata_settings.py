"""Where ML Metadata is kept. The password of a database server never stands in the configuration."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline import tls_tunnel
from schemas.errors import UserError
from schemas.features import Declaration

PORTS = {"mysql": 3306, "postgresql": 5432}
FILES = ("ca", "certificate", "key")


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


class TlsSettings(Declaration):
    """How a database server is verified.

    Attributes:
        ca: PEM file of who signed the server's certificate; by default those whom the system trusts.
        check_host: whether the certificate has to be one of `metadata.host`. A server that made its own has none.
        certificate: PEM file that shows the server who we are, if it asks.
        key: PEM file of its key, if that is not in the same file.
    """

    ca: Path | None = None
    check_host: bool = True
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _key_has_its_certificate(self) -> Self:
        if self.key and not self.certificate:
            raise ValueError("expected a certificate beside key, found none")
        return self

    def files(self) -> tuple[Path | None, ...]:
        """The files, in the order of `FILES`."""
        return self.ca, self.certificate, self.key


class ServerSettings(Declaration):
    """A database server, for steps on many machines. The database is there; its tables are made by the first to connect.

    Attributes:
        store: `mysql`, for MariaDB too, or `postgresql`.
        host: the server's name or address.
        port: by default the one that such servers have.
        database: its name.
        user: who may create tables in it, and read and write them.
        password: where the user's password is read from.
        tls: for an encrypted connection to a server that proves who it is (`tls: {}` for a certificate that the system trusts);
            without it the connection is in the clear.
    """

    store: Literal["mysql", "postgresql"]
    host: str = Field(min_length=1)
    port: PositiveInt = Field(default_factory=lambda given: PORTS[given["store"]], le=65535)
    database: str = Field(default="metadata", min_length=1)
    user: str = Field(min_length=1)
    password: PasswordSource
    tls: TlsSettings | None = None

    def way(self) -> tls_tunnel.Way:
        """Where a tunnel to the server leads.

        Raises:
            UserError: a file of `tls` cannot be read, or holds no PEM.
        """
        assert self.tls
        ca, certificate, key = (None if path is None else str(path.absolute()) for path in self.tls.files())
        way = tls_tunnel.Way(self.store, self.host, self.port, ca, self.tls.check_host, certificate, key)
        try:
            way.context()
        except OSError as error:  # ssl.SSLError is one
            named = ", ".join(f"{name} {path}" for name, path in zip(FILES, self.tls.files(), strict=True) if path)
            raise UserError(f"metadata.tls: expected PEM files ({named}), found: {error.strerror or error}.") from error
        return way


MetadataSettings = SqliteSettings | ServerSettings
