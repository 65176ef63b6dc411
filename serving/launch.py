"""`ndr serve`: starts TF Serving if it is installed and may listen on all addresses, else the embedded server."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.pusher.tf_serving import BATCHING_CONFIG, MODEL_CONFIG, config_of_shard
from ndr_client.manifests import Manifests
from schemas.errors import UserError
from schemas.features import FeatureSpec
from serving import ports
from serving.settings import ServerConfig

if TYPE_CHECKING:
    from serving.histories import Histories

TF_SERVING = "tensorflow_model_server"
EVERY_ADDRESS = ("0.0.0.0", "::")
POLL_SECONDS = 1
CONFIG_POLL_SECONDS = 10


@dataclass(frozen=True)
class Where:
    """Where a server listens.

    Attributes:
        host: its address.
        port: of gRPC.
        rest_port: of REST.
    """

    host: str
    port: int
    rest_port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        every = ", which is every address of this machine" if self.host in EVERY_ADDRESS else ""
        return f"gRPC at {host}:{self.port}, REST at {host}:{self.rest_port}{every}"


def serve(
    push_folder: str,
    where: Where,
    embedded: bool,
    root: Path,
    config: ServerConfig,
    spec: FeatureSpec,
    log_of: Callable[[int], str | None] | None,
    say: Callable[[str], None],
    shard: int | None = None,
) -> None:
    """Serve a push folder until the process is asked to end.

    TF Serving replaces this process, so that signals reach it. It listens on all addresses, and its REST side has neither TLS
    nor a token, so it is started only if the user allows that.

    Args:
        push_folder: see `components.pusher.versions`; an empty one is waited for. Only TF Serving takes an object store's address.
        where: the addresses to listen on.
        embedded: use the embedded server even if TF Serving is installed.
        root: the folder that log paths of the embedded server are relative to.
        config: the settings of the embedded server.
        spec: the dataset's features.
        log_of: finds the folder of the log that a version's run read; None to keep no histories.
        say: called with each message.
        shard: the shard whose retriever is served; None for all retrievers of a version.

    Raises:
        UserError: a port is not available, or there is no TF Serving to serve an address.
    """
    for number, option in ((where.port, "--port"), (where.rest_port, "--rest-port")):
        # The servers report an occupied port late, TF Serving only in its log.
        ports.check_free(where.host, number, option)
    program, why = _tf_serving(where.host, embedded, config)
    if log_of and program:
        program, why = None, f"{TF_SERVING} keeps no histories"
    if "://" in push_folder:
        if program is None:
            raise UserError(
                f"{push_folder}: expected a folder, which is all that the embedded server reads ({why}). Keep a copy of it by "
                f"`ndr mirror {push_folder} DIR --every 30s` and serve that: --set pusher.destination=DIR."
            )
    elif not Manifests(Path(push_folder)).read():
        say(f"Nothing was pushed to {push_folder} yet: waits for a first version.")
    if program:
        _become_tf_serving(program, push_folder, where, MODEL_CONFIG if shard is None else config_of_shard(shard), say)
    # Imports TensorFlow, which TF Serving's start need not wait for.
    from serving.server import (
        EmbeddedServer,
        ServerSettings,
    )

    histories = _histories(root, config, spec, log_of) if log_of else None
    settings = ServerSettings(
        where.host,
        where.port,
        where.rest_port,
        tables=spec.query_tables,
        histories=histories,
        root=root,
        config=config,
        shard=shard,
    )
    server = EmbeddedServer(Path(push_folder), settings)
    encrypted = " by TLS" if config.tls else ""
    say(f"Embedded server ({why}): {where}{encrypted}. Ctrl-C ends it.")
    server.run()
    if not server.has_ended:  # a running model would block Python's exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _histories(root: Path, config: ServerConfig, spec: FeatureSpec, log_of: Callable[[int], str | None]) -> "Histories":
    from serving.histories import Histories

    try:
        return Histories(root / config.histories.path, spec, config.histories, log_of)
    except ValueError as error:
        raise UserError(f"--histories: {error}. Serve without.") from error


def _tf_serving(host: str, embedded: bool, config: ServerConfig) -> tuple[str | None, str]:
    """Return TF Serving's program, or why the embedded server is used."""
    program = shutil.which(TF_SERVING)
    if embedded:
        return None, "as asked"
    if program is None:
        return None, f"no {TF_SERVING} on the PATH"
    if host not in EVERY_ADDRESS:
        return None, f"{TF_SERVING} would listen on every address: --host 0.0.0.0"
    if config.tls or config.token:
        return None, f"{TF_SERVING} has no TLS and no token for REST"
    return program, ""


def _become_tf_serving(program: str, push_folder: str, where: Where, config: str, say: Callable[[str], None]) -> None:
    pushed = Manifests(Path(push_folder))
    while "://" not in push_folder and not pushed.read():
        time.sleep(POLL_SECONDS)
    models = f"{push_folder}/{config}"
    say(f"{program}: {where}, as {models} says.")
    os.execv(
        program,
        [
            program,
            f"--port={where.port}",
            f"--rest_api_port={where.rest_port}",
            f"--model_config_file={models}",
            "--enable_batching=true",
            f"--batching_parameters_file={push_folder}/{BATCHING_CONFIG}",
            f"--file_system_poll_wait_seconds={POLL_SECONDS}",
            f"--model_config_file_poll_wait_seconds={CONFIG_POLL_SECONDS}",
            "--allow_version_labels_for_unavailable_models=true",  # or it would not start: nothing is loaded yet
        ],
    )
