"""Settings of ML Metadata's store. The password of a database server is never part of the configuration."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from pipeline import tls_tunnel
from schemas.declaration import Declaration
from schemas.errors import UserError
from schemas.secret import SecretSource

PORTS = {"mysql": 3306, "postgresql": 5432}
FILES = ("ca", "certificate", "key")


class SqliteSettings(Declaration):
    """A file below the root, for one machine."""

    store: Literal["sqlite"] = "sqlite"


class TlsSettings(Declaration):
    """How a database server is authenticated.

    Attributes:
        ca: PEM file of trusted certificate authorities; by default those of the system.
        check_host: whether the certificate must name `host`. A self-signed one does not.
        certificate: PEM file of the client's certificate, if the server asks for one.
        key: PEM file of its key, if it is not in the same file.
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

    def way(self, store: str, host: str, port: int, key: str) -> tls_tunnel.Way:
        """Return a way to a server.

        Args:
            store: `mysql` or `postgresql`.
            host: the server's name or address.
            port: the server's port.
            key: that of these settings in the configuration, for messages.

        Raises:
            UserError: a file cannot be read, or is not PEM.
        """
        files = self.ca, self.certificate, self.key
        ca, certificate, private = (None if path is None else str(path.absolute()) for path in files)
        way = tls_tunnel.Way(store, host, port, ca, self.check_host, certificate, private)
        try:
            way.context()
        except OSError as error:  # includes ssl.SSLError
            named = ", ".join(f"{name} {path}" for name, path in zip(FILES, files, strict=True) if path)
            raise UserError(f"{key}: expected PEM files ({named}), found: {error.strerror or error}.") from error
        return way


class ServerSettings(Declaration):
    """A database server, for steps on many machines. The database must exist; the first connection creates its tables.

    Attributes:
        store: `mysql`, for MariaDB too, or `postgresql`.
        host: the server's name or address.
        port: by default the standard port of such servers.
        database: its name.
        user: a user who may create, read and write tables in it.
        password: the source of the user's password.
        tls: for an encrypted connection to an authenticated server (`tls: {}` to trust the system's authorities); without it the
            connection is not encrypted.
    """

    store: Literal["mysql", "postgresql"]
    host: str = Field(min_length=1)
    port: PositiveInt = Field(default_factory=lambda validated: PORTS[validated["store"]], le=65535)
    database: str = Field(default="metadata", min_length=1)
    user: str = Field(min_length=1)
    password: SecretSource
    tls: TlsSettings | None = None

    def way(self) -> tls_tunnel.Way:
        """Return the tunnel to the server.

        Raises:
            UserError: a file of `tls` cannot be read, or is not PEM.
        """
        assert self.tls
        return self.tls.way(self.store, self.host, self.port, "metadata.tls")


MetadataSettings = SqliteSettings | ServerSettings
