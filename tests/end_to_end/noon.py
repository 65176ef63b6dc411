"""The shop's catalogue at noon of the day after its last, and clients that ask a server without a pause while it is taken in."""

import threading
from datetime import timedelta
from pathlib import Path

import tensorflow as tf

from ndr_client import Client, Found
from tests.end_to_end.shops import DAY, ITEMS_A_KIND

CLIENTS = 64
NOON = DAY + timedelta(days=1)
GONE, BLOCKED, DEARER, NEWCOMERS = 5, 25, 45, 3
ITEMS_BEFORE = {f"s{number}" for number in range(200)}
ITEMS_NOW = ITEMS_BEFORE - {f"s{GONE}", f"s{BLOCKED}"} | {f"new{number}" for number in range(NEWCOMERS)}


def write_noon(root: Path) -> None:
    """An item is gone, one is blocked, one has become dearer, and three of the kind 3 are new."""
    header, *lines = (root / "data" / "items" / f"{DAY}.csv").read_text().splitlines()
    entries = {line.partition(";")[0]: line.split(";") for line in lines}
    del entries[f"s{GONE}"]
    entries[f"s{BLOCKED}"][4] = "1"
    entries[f"s{DEARER}"][3] = "300"
    for number in range(NEWCOMERS):
        values = [f"Newcomer {number}", "kind3 new", f"{60 + number}.5", "0", f"3 {number} 2"]
        entries[f"new{number}"] = [f"new{number}", *values]
    written = "\n".join([header, *map(";".join, entries.values())]) + "\n"
    (root / "data" / "items" / f"{NOON}.csv").write_text(written)


class Asking:
    """Clients that ask for all that there is, again and again, and what they were answered.

    Args:
        port: of the server's gRPC side.
    """

    def __init__(self, port: int) -> None:
        self.answers: list[Found] = []
        self.errors: list[Exception] = []
        self._ended = threading.Event()
        self._clients = [Client(f"127.0.0.1:{port}", timeout=900.0) for _ in range(8)]
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()

    def _ask(self, number: int) -> None:
        asked = query(f"s{number % 10 * ITEMS_A_KIND + 1}")
        while not self._ended.wait(1.0):  # the refresh needs the processors too
            try:
                self.answers.append(self._clients[number % 8].retrieve([asked], 300))
            except Exception as error:
                self.errors.append(error)


def query(bought: str) -> bytes:
    """Of a visitor who bought one item."""
    example = tf.train.Example()
    for name in ("bought", "latest"):
        example.features.feature[name].bytes_list.value.append(bought.encode())
    return example.SerializeToString()
