"""Versions come and go under constant load: no request fails, and no answer is of two versions."""

import base64
import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tiny import ANY_PORT, Pushes, example

from ndr_client import Client, FaissClient, Found
from serving.server import EmbeddedServer

CLIENTS, PUSHES, ROLLBACKS = 64, 20, 5


@dataclass
class Load:
    """What threads were told, and what went wrong, while they asked without pause."""

    answers: list[Found] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def ask_until_ended(self, ask: Callable[[], Found]) -> None:
        while not self.ended.is_set():
            try:
                self.answers.append(ask())
            except Exception as error:
                self.errors.append(error)


def test_64_clients_see_20_pushes_and_5_rollbacks_without_a_failure_or_a_mixture(
    serve, pushes: Pushes, until: Callable[..., None]
) -> None:
    labels = [f"push{number}" for number in range(PUSHES)]
    for label in labels:
        pushes.model(label)
    expected = {pushes.push("first"): "first"}
    server = serve(pushes.root)
    load = Load()
    clients = [Client(f"127.0.0.1:{server.port}", timeout=30.0) for _ in range(8)]
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
        until(lambda: server.versions.live == max(expected), seconds=60.0)
        answered = len(load.answers)
        until(lambda answered=answered: len(load.answers) > answered + CLIENTS)
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
        label = expected[answer.version].encode()
        assert {item.rpartition(b"-")[0] for item in answer.item_ids[0]} == {label}
    # A rollback follows a push at once, so that a version in between may never have been asked.
    assert len(versions) > PUSHES and max(expected) in versions


def test_a_server_asked_to_end_answers_running_requests(pushes: Pushes, until: Callable[..., None]) -> None:
    pushes.push("one")
    server = EmbeddedServer(pushes.root, ANY_PORT)
    server.__enter__()
    until(lambda: server.versions.live)
    batcher = server.versions.get("retriever", None).signature("serving_examples")._batcher
    begun, go, run = threading.Event(), threading.Event(), batcher._run

    def slow(inputs):
        begun.set()
        go.wait(10)
        return run(inputs)

    batcher._run = slow
    found, body = (
        [],
        {
            "signature_name": "serving_examples",
            "inputs": {"examples": [{"b64": base64.b64encode(example(0.6)).decode()}], "k": [1]},
        },
    )
    by_rest = []

    def ask_by_rest() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        connection.request("POST", "/v1/models/retriever:predict", json.dumps(body))
        by_rest.append(json.loads(connection.getresponse().read())["outputs"]["item_ids"])

    with Client(f"127.0.0.1:{server.port}") as client:
        asking = threading.Thread(target=lambda: found.append(client.retrieve([example(0.6)], 1)))
        asking_by_rest = threading.Thread(target=ask_by_rest)
        asking.start()
        asking_by_rest.start()
        begun.wait(10)
        until(lambda: server._front.running == 2)
        ending = threading.Thread(target=server.__exit__, args=(None, None, None))
        ending.start()
        ending.join(0.2)
        assert ending.is_alive()
        go.set()
        asking.join()
        asking_by_rest.join()
        ending.join()
    assert [answer.item_ids.tolist() for answer in found] == [[[b"one-1"]]] and by_rest == [[["one-1"]]]
