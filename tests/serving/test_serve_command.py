"""`ndr serve` as a person runs it: what it says, what it starts, and how it ends."""

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO

import grpc
import pytest

from ndr_client import Client, Tls
from pipeline import lock
from schemas.secret import SecretSource
from serving import launch
from serving.settings import ServerConfig
from tests.certificates import self_signed
from tests.serving.tiny import Pushes, example
from tests.waiting import wait_for

NDR = [sys.executable, "-m", "pipeline.cli", "serve"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(root: Path, *arguments: str, path: str = "/nowhere", error: IO[str] | None = None) -> subprocess.Popen[str]:
    """Starts the command; its log goes to `error`, or to where its output does."""
    command = ["env", "--default-signal=INT", *NDR, "--set", f"root={root}", *arguments]
    environment = {**os.environ, "PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=error or subprocess.STDOUT, text=True, env=environment
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "0"), "greater than or equal to 1"),
        (("--rest-port", "65536"), "less than or equal to 65535"),
        (("--port", "grpc"), "valid integer"),
        (("--port", "8501"), "received 8501 for both"),
    ],
)
def test_an_invalid_port_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    process = serve(tmp_path, *arguments)
    said = " ".join(process.communicate(timeout=900)[0].replace("│", " ").split())
    assert process.returncode == 2 and words in said


def test_a_port_in_use_is_named_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = serve(tmp_path, "--rest-port", str(port), "--port", str(free_port()))
        said = process.communicate(timeout=900)[0]
    assert process.returncode == 1
    assert said == f"Port {port} cannot be listened on: it is in use, or not allowed. Name another: --rest-port PORT.\n"


def test_the_embedded_server_waits_for_a_push_serves_it_and_ends_when_asked(template: Path, tmp_path: Path) -> None:
    pushes = Pushes(template, tmp_path)
    port, rest_port = free_port(), free_port()
    log = (tmp_path / "stderr").open("w")
    pem = self_signed(tmp_path)
    by_tls = [part for name in ("certificate", "key") for part in ("--set", f"server.tls.{name}={pem}")]
    process = serve(tmp_path, "--port", str(port), "--rest-port", str(rest_port), *by_tls, error=log)
    health, trusted = f"https://127.0.0.1:{rest_port}/healthz", ssl.create_default_context(cafile=str(pem))

    def status() -> int:
        try:
            return urllib.request.urlopen(health, timeout=900, context=trusted).status
        except urllib.error.HTTPError as error:
            return error.code
        except urllib.error.URLError:
            return 0

    wait_for(lambda: status() == 503)
    with lock.exclusive(tmp_path):  # a run may push while it serves
        pushes.push("one")
    wait_for(lambda: status() == 200)
    with Client(f"127.0.0.1:{port}", tls=Tls(pem)) as client:
        assert client.retrieve([example(0.6)], 1).item_ids.tolist() == [[b"one-1"]]
        with pytest.raises(grpc.RpcError, match="k: expected at least 1"):
            client.retrieve([example(0.6)], 0)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 0
    assert said.splitlines() == [
        f"Nothing was pushed to {tmp_path}/serving yet: waits for a first version.",
        f"Embedded server (no tensorflow_model_server on the PATH): gRPC at 127.0.0.1:{port}, REST at 127.0.0.1:{rest_port} "
        "by TLS. Ctrl-C ends it.",
    ]
    # What an operator reads, `kubectl logs` too, is on standard error, and in a file that is rotated.
    log.close()
    logged = (tmp_path / "stderr").read_text()
    assert "INFO serving.versions: version" in logged and "asked to end by SIGTERM" in logged
    # What a client does wrong is no news for the log, nor is it for TensorFlow's.
    assert "expected at least 1" not in logged
    assert "asked to end by SIGTERM" in (tmp_path / "logs" / "serve.log").read_text()


def test_a_request_in_flight_is_answered_within_the_drain_and_one_that_never_ends_does_not_hold_up_the_end(
    template: Path, tmp_path: Path
) -> None:
    """Once with a model that ends, once with one that does not: the process ends either way."""
    Pushes(template, tmp_path).push("one")
    for seconds, answered in ((2.0, True), (600.0, False)):
        done = subprocess.run(
            [sys.executable, "-m", "tests.serving.slow_server", str(tmp_path / "serving"), str(seconds)],
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said = "answered" if answered else "UNAVAILABLE"
        assert done.stdout.splitlines() == ["no collection looks through TensorFlow", said]


@pytest.fixture
def tf_serving(tmp_path: Path) -> Path:
    """Stands where TF Serving would: it tells how it was started, and by which process, and ends by the signal."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "tensorflow_model_server"
    program.write_text(f'#!/bin/sh\necho "$$ $@" > {tmp_path}/started.new\nmv {tmp_path}/started.new {tmp_path}/started\n'
                       "exec sleep 60\n")  # fmt: skip
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def test_tf_serving_takes_the_place_of_the_process_where_it_is_installed(
    template: Path, tmp_path: Path, tf_serving: Path
) -> None:
    port, rest_port = free_port(), free_port()
    ports = ("--port", str(port), "--rest-port", str(rest_port))
    process = serve(tmp_path, "--host", "0.0.0.0", *ports, path=str(tf_serving))
    time.sleep(1.5)  # it waits for something to serve
    assert process.poll() is None and not (tmp_path / "started").exists()
    Pushes(template, tmp_path).push("one")
    wait_for(lambda: (tmp_path / "started").exists())
    pid, *arguments = (tmp_path / "started").read_text().split()
    options = dict(argument.lstrip("-").split("=") for argument in arguments)
    assert int(pid) == process.pid
    assert options == {
        "port": str(port),
        "rest_api_port": str(rest_port),
        "model_config_file": f"{tmp_path}/serving/models.config",
        "enable_batching": "true",
        "batching_parameters_file": f"{tmp_path}/serving/batching.config",
        "file_system_poll_wait_seconds": "1",
        "model_config_file_poll_wait_seconds": "10",
        "allow_version_labels_for_unavailable_models": "true",
    }
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=900)
    assert process.returncode == -signal.SIGTERM


def test_an_address_that_nothing_here_can_serve_is_refused(tmp_path: Path) -> None:
    ports = ("--port", str(free_port()), "--rest-port", str(free_port()))
    process = serve(tmp_path, *ports, "--set", "pusher.destination=gs://bucket/serving")
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 1
    assert said.startswith("gs://bucket/serving: expected a folder") and "ndr mirror gs://bucket/serving DIR" in said


@pytest.mark.parametrize(
    ("host", "embedded", "config", "why"),
    [
        ("0.0.0.0", True, ServerConfig(), "as asked"),
        ("127.0.0.1", False, ServerConfig(), "tensorflow_model_server would listen on every address: --host 0.0.0.0"),
        (
            "0.0.0.0", False, ServerConfig(token=SecretSource(env="TOKEN")),
            "tensorflow_model_server has no TLS and no token for REST",
        ),
    ],
)  # fmt: skip
def test_the_embedded_server_is_started_where_tf_serving_would_not_do(
    monkeypatch: pytest.MonkeyPatch, tf_serving: Path, host: str, embedded: bool, config: ServerConfig, why: str
) -> None:
    monkeypatch.setenv("PATH", str(tf_serving))
    assert launch._tf_serving(host, embedded, config) == (None, why)
    assert launch._tf_serving("0.0.0.0", False, ServerConfig()) == (str(tf_serving / "tensorflow_model_server"), "")


def test_a_servers_addresses_are_printed() -> None:
    assert str(launch.Where("127.0.0.1", 1, 2)) == "gRPC at 127.0.0.1:1, REST at 127.0.0.1:2"
    every = "gRPC at [::]:1, REST at [::]:2, which is every address of this machine"
    assert str(launch.Where("::", 1, 2)) == every
