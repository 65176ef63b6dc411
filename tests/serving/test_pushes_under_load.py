"""Versions come and go under constant load: no request fails, and no answer is of two versions."""

import base64
import http.client
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ndr_client import Client, FaissClient, Found
from serving.batching import Arrays
from serving.server import EmbeddedServer
from serving.settings import Limits, ServerConfig
from tests.serving.tiny import ANY_PORT, Pushes, Serve, example
from tests.waiting import wait_for

CLIENTS, PUSHES, ROLLBACKS = 64, 20, 5


@dataclass
class Load:
    """What threads were told, and what went wrong, while they asked again and again."""

    answers: list[Found] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def has_more_than(self, answers: int) -> bool:
        return len(self.answers) > answers

    def ask_until_ended(self, ask: Callable[[], Found]) -> None:
        while not self.ended.wait(0.1):  # loading needs the processors too
            try:
                self.answers.append(ask())
            except Exception as error:
                self.errors.append(error)


def test_64_clients_see_20_pushes_and_5_rollbacks_without_a_failure_or_a_mixture(serve: Serve, pushes: Pushes) -> None:
    labels = [f"push{number}" for number in range(PUSHES)]
    for label in labels:
        pushes.model(label)
    expected = {pushes.push("first"): "first"}
    server = serve(pushes.root)
    load = Load()
    clients = [Client(f"127.0.0.1:{server.port}", timeout=900) for _ in range(8)]
    faiss = [FaissClient(client, pushes.root, check_seconds=0.1) for client in clients]
    asks = [
        lambda number=number: (
            clients[number % 8].retrieve([example(0.6)], 1 + number % 3)
            if number % 8
            else faiss[number // 8].for_queries([example(0.6)], 3)
        )
        for number in range(CLIENTS)
    ]
    threads = [threading.Thread(target=load.ask_until_ended, args=(ask,)) for ask in asks]
    for thread in threads:
        thread.start()
    for number, label in enumerate(labels):
        expected[pushes.push(label)] = label
        if number % (PUSHES // ROLLBACKS) == 3:
            pushes.retain(3)
            back = labels[number - 1]
            expected[pushes.push(back)] = back
        wait_for(lambda: server.versions.live == max(expected))
        wait_for(partial(load.has_more_than, len(load.answers) + CLIENTS))
    load.ended.set()
    for thread in threads:
        thread.join()
    for client in clients:
        client.close()
    assert not load.errors, load.errors[:3]
    assert len(expected) == 1 + PUSHES + ROLLBACKS
    versions = set()
    for answer in load.answers:
        versions.add(answer.version)
        expected_label = expected[answer.version].encode()
        assert {item.rpartition(b"-")[0] for item in answer.item_ids[0]} == {expected_label}
    # A rollback follows a push at once, so that a version in between may never have been asked.
    assert len(versions) > PUSHES and max(expected) in versions


class Held:
    """A server with a REST request whose model waits."""

    def __init__(self, pushes: Pushes, drain_seconds: float) -> None:
        pushes.push("one")
        limits = Limits(drain_seconds=drain_seconds)
        self.server = EmbeddedServer(pushes.root, replace(ANY_PORT, config=ServerConfig(limits=limits)))
        self.server.__enter__()
        wait_for(lambda: self.server.versions.live)
        signature = self.server.versions.get("retriever", None).signature("serving_examples")
        assert signature is not None and signature._batcher is not None
        self.go, self._run = threading.Event(), signature._batcher._run
        signature._batcher._run = self._wait
        self.found: list[Any] = []
        self.asking = threading.Thread(target=self._ask)
        self.asking.start()
        wait_for(lambda: self.server._front.running == 1)
        self.ending = threading.Thread(target=self.server.__exit__, args=(None, None, None))
        self.ending.start()

    def _wait(self, inputs: Arrays) -> Arrays:
        self.go.wait(900)
        return self._run(inputs)

    def _ask(self) -> None:
        inputs = {"examples": [{"b64": base64.b64encode(example(0.6)).decode()}], "k": [1]}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.rest_port, timeout=900)
        connection.request(
            "POST", "/v1/models/retriever:predict", json.dumps({"signature_name": "serving_examples", "inputs": inputs})
        )
        try:
            self.found.append(json.loads(connection.getresponse().read())["outputs"]["item_ids"])
        except (http.client.HTTPException, OSError) as error:
            self.found.append(error)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_server_asked_to_end_answers_running_requests_and_takes_no_others(pushes: Pushes) -> None:
    held = Held(pushes, 60.0)
    wait_for(lambda: refuses(held.server.rest_port) and refuses(held.server.port))
    held.ending.join(0.2)
    assert held.ending.is_alive()
    held.go.set()
    held.asking.join()
    held.ending.join()
    assert held.found == [[["one-1"]]]


def test_a_server_that_may_not_wait_ends_beside_a_running_request(pushes: Pushes) -> None:
    """Regression: aiohttp took a drain of no seconds for one without an end, and waited twice for any other."""
    held = Held(pushes, 0.0)
    held.ending.join(900)
    assert not held.ending.is_alive()
    held.asking.join()
    assert isinstance(held.found[0], http.client.RemoteDisconnected | ConnectionError)
    held.go.set()
