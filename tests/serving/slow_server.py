"""A process that serves a model which takes its time, and is asked to end while a request is in flight; says how that went."""

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import grpc

from ndr_client import Client
from serving.server import EmbeddedServer, ServerSettings
from serving.settings import Limits, ServerConfig

push_folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
settings = ServerSettings(port=0, rest_port=0, config=ServerConfig(limits=Limits(drain_seconds=8.0)))
server = EmbeddedServer(push_folder, settings)


def ask() -> None:
    while server.versions.live is None:
        time.sleep(0.05)
    if gc.get_freeze_count() > 100_000:
        print("no collection looks through TensorFlow", flush=True)
    batcher = server.versions.get("item_tower", None).signature("serving_default")._batcher
    run = batcher._run

    def slow(inputs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
        return run(inputs)

    batcher._run = slow
    with Client(f"127.0.0.1:{server.port}", timeout=60.0) as client:
        try:
            client.embed("item_tower", {"number": [1.0]})
            print("answered", flush=True)
        except grpc.RpcError as error:
            print(error.code().name, flush=True)


asking = threading.Thread(target=ask, daemon=True)
asking.start()
server.run()
asking.join(10)
if not server.has_ended:
    os._exit(0)
