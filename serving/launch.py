"""`ndr serve`: TF Serving where it is installed, else the embedded server."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from components.pusher.tf_serving import BATCHING_CONFIG, MODEL_CONFIG
from ndr_client.manifests import Manifests
from schemas.errors import UserError
from serving import ports

TF_SERVING = "tensorflow_model_server"
POLL_SECONDS = 1
CONFIG_POLL_SECONDS = 10


def serve(push_folder: str, port: int, rest_port: int, embedded: bool, say: Callable[[str], None]) -> None:
    """Serves a push folder until the process is asked to end.

    TF Serving takes this process's place, so that signals reach it.

    Args:
        push_folder: see `components.pusher.versions`; an empty one is waited for. Only TF Serving takes an address.
        port: of gRPC.
        rest_port: of REST.
        embedded: takes the embedded server even where TF Serving is installed.
        say: is told what is going on, a sentence at a time.

    Raises:
        UserError: a port cannot be had, or an address has no TF Serving to serve it.
    """
    for number, option in ((port, "--port"), (rest_port, "--rest-port")):
        ports.check_free(number, option)  # the servers tell late of one that is taken, TF Serving in its log alone
    program = None if embedded else shutil.which(TF_SERVING)
    if "://" in push_folder:
        if program is None:
            raise UserError(
                f"{push_folder}: expected a folder, which is all that the embedded server reads. Install {TF_SERVING}, or "
                "serve a copy of it: --set pusher.destination=DIR."
            )
    elif not Manifests(Path(push_folder)).read():
        say(f"Nothing was pushed to {push_folder} yet: waits for a first version.")
    if program:
        _become_tf_serving(program, push_folder, port, rest_port, say)
    from serving.server import EmbeddedServer, ServerSettings  # TensorFlow, which TF Serving's start need not wait for

    server = EmbeddedServer(Path(push_folder), ServerSettings(port=port, rest_port=rest_port))
    why = "as asked" if embedded else f"no {TF_SERVING} on the PATH"
    say(
        f"Embedded server ({why}): gRPC at localhost:{port}, REST at http://localhost:{rest_port}/v1/models. Ctrl-C ends it."
    )
    server.run()


def _become_tf_serving(program: str, push_folder: str, port: int, rest_port: int, say: Callable[[str], None]) -> None:
    pushed = Manifests(Path(push_folder))
    while "://" not in push_folder and not pushed.read():
        time.sleep(POLL_SECONDS)
    models = f"{push_folder}/{MODEL_CONFIG}"
    say(f"{program} at localhost:{port} (gRPC) and http://localhost:{rest_port}/v1/models (REST), as {models} says.")
    os.execv(
        program,
        [
            program,
            f"--port={port}",
            f"--rest_api_port={rest_port}",
            f"--model_config_file={models}",
            "--enable_batching=true",
            f"--batching_parameters_file={push_folder}/{BATCHING_CONFIG}",
            f"--file_system_poll_wait_seconds={POLL_SECONDS}",
            f"--model_config_file_poll_wait_seconds={CONFIG_POLL_SECONDS}",
            "--allow_version_labels_for_unavailable_models=true",  # or it would not start: nothing is loaded yet
        ],
    )
