"""The database's scripts, by Debian's MariaDB and the rights that the image gives the user."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from tests.database_servers import DATABASE, USER, MariaDB
from tests.deploy.rendered import DEPLOY

LOGGED = "of root, as it stood in the log"
NEW = "n3w\"o\\ne%s$(x)`y '"
ROWS = [(1, "é \\ ' \" \n\x1a", bytes(range(256))), (2, None, b""), (3, "", None)]


class Deployed(MariaDB):
    """Its user has all rights on its database, and no other."""

    needs = ("mariadbd", "mariadb-install-db", "mariadb-dump", "mariadb")

    def make(self) -> None:
        super().make()
        statements = (self.folder / "init.sql").read_text()
        own = statements.replace("GRANT ALL ON *.*", f"GRANT ALL ON {DATABASE}.*")
        self._write("init.sql", f"{own}CREATE USER IF NOT EXISTS root@'%' IDENTIFIED BY '{LOGGED}';\n")


@pytest.fixture(scope="module")
def server() -> Iterator[Deployed]:
    made = Deployed()
    yield made
    made.close()


def run(script: str, server: Deployed, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A script with the variables that its manifest gives it, and this server's address."""
    environment = {
        "PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(server.port), "FOLDER": str(folder), "KEEP": "2",
        "PASSWORD_FILE": str(server.password_file), **variables,
    }  # fmt: skip
    return subprocess.run(
        ["bash", DEPLOY / "base" / script], env=environment, capture_output=True, text=True, check=False
    )


def rows(server: Deployed) -> list[tuple[object, ...]]:
    with connected(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM t ORDER BY id")
        return list(cursor.fetchall())


def connected(
    server: Deployed, password: str | None = None, user: str = USER
) -> "pymysql.Connection[pymysql.cursors.Cursor]":
    return pymysql.connect(
        host="127.0.0.1",
        port=server.port,
        user=user,
        password=password or server.password(),
        database=DATABASE,
        autocommit=True,
    )


def test_a_dump_restores_the_database_exactly(server: Deployed, tmp_path: Path) -> None:
    with connected(server) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY, words TEXT CHARACTER SET utf8mb4, bytes MEDIUMBLOB)")
        cursor.executemany("INSERT INTO t VALUES (%s, %s, %s)", ROWS)
    done = run("metadata/backup.sh", server, tmp_path)
    (dump,) = tmp_path.iterdir()
    assert (done.returncode, done.stdout) == (0, f"wrote {dump}, {dump.stat().st_size} bytes; 1 dumps are kept\n"), (
        done.stderr
    )
    assert dump.stat().st_mode & 0o077 == 0
    with connected(server) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM t WHERE id > 1")
        cursor.execute("CREATE TABLE made_later (id INT)")
    done = run("restore/restore.sh", server, tmp_path, DUMP="")
    assert (done.returncode, done.stdout) == (0, f"restores {dump}\nrestored {dump}\n"), done.stderr
    assert rows(server) == ROWS
    with connected(server) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        assert list(cursor.fetchall()) == [("t",)]


def test_a_dump_that_failed_is_not_kept_and_takes_none_away(server: Deployed, tmp_path: Path) -> None:
    old = [tmp_path / f"metadata-2026010{day}T000000Z.sql.gz" for day in (1, 2, 3)]
    for each in old:
        each.write_bytes(b"")
    failed = run("metadata/backup.sh", server, tmp_path, PORT="1")
    assert failed.returncode != 0 and "connect" in failed.stderr
    assert sorted(tmp_path.glob("*.gz")) == old
    (tmp_path / "wrong").write_text("another")
    failed = run("metadata/backup.sh", server, tmp_path, PASSWORD_FILE=str(tmp_path / "wrong"))
    assert failed.returncode != 0 and "Access denied" in failed.stderr
    assert sorted(tmp_path.glob("*.gz")) == old
    # The newest two are kept: the one of today, and the last of the old ones.
    assert run("metadata/backup.sh", server, tmp_path).returncode == 0
    kept = sorted(tmp_path.glob("metadata-*"))
    assert len(kept) == 2 and kept[0] == old[2]


@pytest.mark.parametrize("name", ["", "cut.sql.gz", "../t"])
def test_an_incomplete_dump_leaves_the_database_unchanged(server: Deployed, tmp_path: Path, name: str) -> None:
    if name.startswith("cut"):
        run("metadata/backup.sh", server, tmp_path)
        (dump,) = tmp_path.iterdir()
        (tmp_path / name).write_bytes(dump.read_bytes()[:-9])
    before = rows(server)
    failed = run("restore/restore.sh", server, tmp_path, DUMP=name)
    assert failed.returncode == 1 and "expected a whole dump, came:" in failed.stderr
    assert rows(server) == before


def test_the_password_is_the_secrets_after_a_restart(server: Deployed, tmp_path: Path) -> None:
    """Last, since it changes the server's."""
    old = server.password()
    server.password_file.write_text(NEW)
    init = tmp_path / "password.sql"
    done = run("metadata/password.sh", server, tmp_path, INIT_FILE=str(init))
    assert done.returncode == 0 and init.stat().st_mode & 0o077 == 0, done.stderr
    (server.folder / "init.sql").write_text(init.read_text())  # as --init-file names it
    server.stop()
    server.start()
    for user, password in ((USER, old), ("root", LOGGED)):
        with pytest.raises(pymysql.OperationalError, match="Access denied"):
            connected(server, password, user)
    connected(server).close()
