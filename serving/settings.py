"""Settings of serving: limits, authentication, and logs. Imports nothing heavy."""

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from schemas.declaration import Declaration
from schemas.errors import UserError
from schemas.secret import SecretSource


class Limits(Declaration):
    """The limits of the embedded server. Anything beyond is refused at once, before it is unpacked or run.

    Attributes:
        request_bytes: of a gRPC message or an unpacked REST body; gRPC's own default.
        rows: of a request.
        values: of a request: over all inputs, and rows times the values of the longest feature, because rows are padded to one
            length; of an answer: rows times the largest k.
        items: the largest k.
        comparisons: of a batch: rows x (k + excluded) x (excluded + 1), the bytes that the retriever needs to exclude items.
        calls: concurrent requests that are received or answered, for gRPC and REST each.
        running: requests that wait for a model or run, gRPC and REST together.
        connections: open connections, for gRPC and REST each.
        receive_seconds: for a TLS handshake, for the headers, and for the body of a request.
        idle_seconds: the time after which a REST connection without a request, or one that does not read its answer, is closed.
        drain_seconds: how long to wait for running requests once the server is asked to end.
    """

    request_bytes: PositiveInt = 4 << 20
    rows: PositiveInt = 4096
    values: PositiveInt = 1 << 20
    items: PositiveInt = 10_000
    comparisons: PositiveInt = 1 << 28
    calls: PositiveInt = 256
    running: PositiveInt = 128
    connections: PositiveInt = 1024
    receive_seconds: PositiveFloat = 10.0
    idle_seconds: PositiveFloat = 75.0
    drain_seconds: NonNegativeFloat = 10.0


class TlsSettings(Declaration):
    """TLS for gRPC and REST. Files are PEM.

    Attributes:
        certificate: the server's, with the certificates that sign it up to the root's.
        key: its private key.
        client_ca: the authority of the certificates that clients must show; None to ask for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def read(self, name: str) -> bytes:
        """Read one of the files.

        Raises:
            UserError: it cannot be read.
        """
        path: Path = getattr(self, name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"server.tls.{name}: {path} cannot be read: {error.strerror}.") from error


class AccessLogSettings(Declaration):
    """A line of JSON for each request, or for a share of them; errors of the server are always logged.

    Attributes:
        share: the share of requests to log, from 0 (none) to 1.
        path: the file, relative to the root; rotated. None for standard error.
        file_bytes: the maximum size of a file; the newest `files` of them are kept.
        files: the number of files to keep.
    """

    share: float = Field(default=0.0, ge=0.0, le=1.0)
    path: Path | None = None
    file_bytes: PositiveInt = 64 << 20
    files: PositiveInt = 5


class RequestLogSettings(Declaration):
    """A sample of the answered queries, as tf.Examples; see `serving.request_log`.

    Attributes:
        share: the share of requests whose queries are logged, from 0 (none) to 1.
        path: the folder, relative to the root.
        file_bytes: the size after which a file is complete.
        file_seconds: the time after which a file with at least one query is complete.
        total_bytes: of all complete files; the oldest are removed first.
        days: the age after which a file is removed.
    """

    share: float = Field(default=0.0, ge=0.0, le=1.0)
    path: Path = Path("requests")
    file_bytes: PositiveInt = 16 << 20
    file_seconds: PositiveFloat = 60.0
    total_bytes: PositiveInt = 1 << 30
    days: PositiveFloat = 7.0


class HistorySettings(Declaration):
    """Where `ndr serve --histories` stores the users' histories.

    Attributes:
        path: the SQLite file, relative to the root.
        users: the number of users to keep, those with the newest interactions.
    """

    path: Path = Path("histories.sqlite")
    users: PositiveInt = 1_000_000


ServingTensorFlow = Literal["2.19", "2.20", "2.21"]


class ServerConfig(Declaration):
    """Settings of `ndr serve` for the embedded server, and the release of TensorFlow that TF Serving has.

    Attributes:
        tensorflow: the serving release. A version with operations that it lacks is not pushed. 2.19 is that of the newest TF
            Serving; the embedded server has the installed one.
        limits: of the embedded server.
        tls: None to serve without.
        token: the source of the token that requests must carry, as `authorization: Bearer TOKEN`; None for none.
        stale_seconds: how long a newer version may be in the push folder without being loaded before the server reports that it is
            not ready. None for never: an old version is better than none if all replicas have the same fault.
        unknown_ids_share: the share of requests whose ids are looked up in the vocabularies, for the metric of unknown ones.
        access_log: a line for each request.
        request_log: a sample of queries.
        histories: of each user, for `ndr serve --histories`.
    """

    tensorflow: ServingTensorFlow = "2.19"
    limits: Limits = Limits()
    tls: TlsSettings | None = None
    token: SecretSource | None = None
    stale_seconds: PositiveFloat | None = None
    unknown_ids_share: float = Field(default=0.1, ge=0.0, le=1.0)
    access_log: AccessLogSettings = AccessLogSettings()
    request_log: RequestLogSettings = RequestLogSettings()
    histories: HistorySettings = HistorySettings()

    def read_token(self) -> str | None:
        """Read the token that requests must carry, without blanks around it; None for none.

        Raises:
            UserError: it is missing, cannot be read, or has characters that a header cannot carry.
        """
        if self.token is None:
            return None
        token = self.token.read("server.token").strip(" \t\r\n")
        if not re.fullmatch(r"[!-~]+", token):
            source = (
                "the environment variable that server.token.env"
                if self.token.env
                else "the file that server.token.file"
            )
            raise UserError(
                f"server.token: expected printable ASCII without spaces in {source} names, found something else."
            )
        return token
