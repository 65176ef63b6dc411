"""`ndr serve` with a model that takes its time, asked to end while a request is in flight; prints how that went."""

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import grpc

import serving.server
from ndr_client import Client
from schemas.features import FeatureSpec
from serving import launch
from serving.batching import Arrays
from serving.settings import Limits, ServerConfig

push_folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
SPEC = FeatureSpec.model_validate({
    "interactions": {"user": "user", "item": "item", "time": "at"},
    "catalogue": {"item": "item"},
    "tables": {"item": {"width": 4, "hash_buckets": 8}},
    "query": {"angle": {"kind": "number"}},
    "item": {"item": {"kind": "id", "table": "item"}},
})  # fmt: skip


class Asked(serving.server.EmbeddedServer):
    """Asks itself, and is asked to end by the request."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._asking = threading.Thread(target=self._ask, daemon=True)
        self._asking.start()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._asking.join(900)

    def _ask(self) -> None:
        while self.versions.live is None:
            time.sleep(0.05)
        if gc.get_freeze_count() > 100_000:
            print("no collection looks through TensorFlow", flush=True)
        signature = self.versions.get("item_tower", None).signature("serving_default")
        assert signature is not None and signature._batcher is not None
        run = signature._batcher._run

        def slow(inputs: Arrays) -> Arrays:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(seconds)
            return run(inputs)

        signature._batcher._run = slow
        with Client(f"127.0.0.1:{self.port}", timeout=900.0) as client:
            try:
                client.embed("item_tower", {"number": [1.0]})
                print("answered", flush=True)
            except grpc.RpcError as error:
                print(error.code().name, flush=True)


config = ServerConfig(limits=Limits(drain_seconds=8.0))
with mock.patch.object(serving.server, "EmbeddedServer", Asked):
    launch.serve(
        str(push_folder), launch.Where("127.0.0.1", 0, 0), True, push_folder, config, SPEC, None, lambda words: None
    )
