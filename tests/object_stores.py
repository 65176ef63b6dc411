"""Emulators of object stores that others wrote, moto for s3 and gcp-storage-emulator for gs: a process with an empty bucket."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.environments import environment
from tests.waiting import PATIENCE

BUCKET = "bucket"
SCHEMES = ("s3", "gs")


@contextmanager
def emulated(scheme: str) -> Iterator[str]:
    """Start a store, name it in the environment, and yield the address of its bucket."""
    programs = environment("object-stores") / "bin"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = f"127.0.0.1:{port}"
    command, variables, bucket = {
        "s3": (
            [programs / "moto_server", "--host", "127.0.0.1", "--port", str(port)],
            {
                "AWS_ENDPOINT_URL_S3": f"http://{host}",
                "AWS_ACCESS_KEY_ID": "id",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            },
            urllib.request.Request(f"http://{host}/{BUCKET}", method="PUT"),
        ),
        "gs": (
            [programs / "gcp-storage-emulator", "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"],
            {"STORAGE_EMULATOR_HOST": f"http://{host}"},
            urllib.request.Request(
                f"http://{host}/storage/v1/b?project=p",
                data=b'{"name": "%s"}' % BUCKET.encode(),
                headers={"Content-Type": "application/json"},
            ),
        ),
    }[scheme]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _ask(bucket, process)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            yield f"{scheme}://{BUCKET}"
    finally:
        process.terminate()
        process.wait()


def _ask(request: urllib.request.Request, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE):
                return
        except (OSError, urllib.error.URLError) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"the store's emulator does not answer (status {process.poll()})") from error
            time.sleep(0.1)


def put(address: str, content: bytes) -> None:
    """Write a file."""
    from components import object_store

    system, path = object_store.file_system(address)
    with system.open_output_stream(path, compression=None) as file:
        file.write(content)
