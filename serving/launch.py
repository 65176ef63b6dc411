"""`ndr serve`: TF Serving where it is installed, else the embedded server."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from components.pusher import tf_serving
from serving import manifests, ports

TF_SERVING = "tensorflow_model_server"
POLL_SECONDS = 1


def serve(push_folder: Path, port: int, rest_port: int, embedded: bool, say: Callable[[str], None]) -> None:
    """Serves a push folder until the process is asked to end.

    TF Serving takes this process's place, so that signals reach it.

    Args:
        push_folder: see `components.pusher.versions`; an empty one is waited for.
        port: of gRPC.
        rest_port: of REST.
        embedded: takes the embedded server even where TF Serving is installed.
        say: is told what is going on, a sentence at a time.

    Raises:
        UserError: a port cannot be had.
    """
    for number, option in ((port, "--port"), (rest_port, "--rest-port")):
        ports.check_free(number, option)  # the servers tell late of one that is taken, TF Serving in its log alone
    if not manifests.read(push_folder):
        say(f"Nothing was pushed to {push_folder} yet: waits for a first version.")
    program = None if embedded else shutil.which(TF_SERVING)
    if program:
        _become_tf_serving(program, push_folder, port, rest_port, say)
    from serving.server import EmbeddedServer, ServerSettings  # TensorFlow, which TF Serving's start need not wait for

    server = EmbeddedServer(push_folder, ServerSettings(port=port, rest_port=rest_port))
    why = "as asked" if embedded else f"no {TF_SERVING} on the PATH"
    say(
        f"Embedded server ({why}): gRPC at localhost:{port}, REST at http://localhost:{rest_port}/v1/models. Ctrl-C ends it."
    )
    server.run()


def _become_tf_serving(program: str, push_folder: Path, port: int, rest_port: int, say: Callable[[str], None]) -> None:
    while not (pushed := manifests.read(push_folder)):
        time.sleep(POLL_SECONDS)
    folder = push_folder.parent / "tf_serving"
    folder.mkdir(exist_ok=True)
    models = folder / "models.config"
    models.write_text(tf_serving.model_config(str(push_folder), pushed[-1].models), encoding="utf-8")
    batching = folder / "batching.config"
    batching.write_text(tf_serving.batching_parameters(), encoding="utf-8")
    say(f"{program} at localhost:{port} (gRPC) and http://localhost:{rest_port}/v1/models (REST), as {models} says.")
    os.execv(
        program,
        [
            program,
            f"--port={port}",
            f"--rest_api_port={rest_port}",
            f"--model_config_file={models}",
            "--enable_batching=true",
            f"--batching_parameters_file={batching}",
            f"--file_system_poll_wait_seconds={POLL_SECONDS}",
        ],
    )
