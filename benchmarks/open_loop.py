"""Requests at a fixed rate, whether or not the last was answered, while versions are pushed and the server is attacked.

A latency counts from when the request was due, so that a stall is seen by all whom it would have met.
"""

import asyncio
import os
import time
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import attacks

CHANNELS = 8
LEVEL_FROM = 5  # the push from which on memory should be level
KEPT = 5  # pushes, as retention keeps them
ATTACK_SECONDS = 2.0  # between two attacks


def fire(port: int, requests: list[bytes], rate: float, seconds: float, control: Connection) -> None:
    """Run the clients' process: send when each request was due, the seconds until its answer, and the failures."""
    control.send(asyncio.run(_fire(port, requests, rate, seconds)))


async def _fire(
    port: int, requests: list[bytes], rate: float, seconds: float
) -> tuple[list[tuple[float, float]], list[str]]:
    import grpc

    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(CHANNELS)]
    calls = [channel.unary_unary(attacks.METHOD) for channel in channels]
    answered: list[tuple[float, float]] = []
    failures: list[str] = []
    begin = time.perf_counter() + 1.0

    async def ask(number: int) -> None:
        due = begin + number / rate
        try:
            await calls[number % CHANNELS](requests[number % len(requests)], timeout=30)
            answered.append((due - begin, time.perf_counter() - due))
        except grpc.RpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")

    tasks = set()
    for number in range(int(rate * seconds)):
        pause = begin + number / rate - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(ask(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for channel in channels:
        await channel.close()
    return answered, failures


def attack(port: int, rest_port: int, push_folder: Path, seconds: float, control: Connection) -> None:
    """Run the attacker's process: send the number of attacks, and what was wrong with the answers."""
    ways = attacks.requests(port, rest_port, push_folder)
    end = time.monotonic() + seconds
    done, wrong = 0, []
    while time.monotonic() < end:
        try:
            ways[done % len(ways)]()
        except Exception as error:
            wrong.append(f"attack {done % len(ways)}: {error!r}")
        done += 1
        time.sleep(ATTACK_SECONDS)
    control.send((done, wrong))


def measure(
    source: Path, push_folder: Path, server: Any, ports: tuple[int, int], requests: list[bytes], options: Any,
    context: SpawnContext,
) -> dict[str, Any]:  # fmt: skip
    """Compute the figures of one open loop.

    Args:
        source: a version, see `attacks.push`.
        push_folder: that the server watches, with version 1 in it.
        server: its process.
        ports: of gRPC and REST.
        requests: serialised, taken in turn.
        options: `rate` requests a second for `open_seconds`, in which there are `pushes`.
        context: of the processes.
    """
    told, tells = context.Pipe(duplex=False)
    attacked, attacks_told = context.Pipe(duplex=False)
    port, rest_port = ports
    clients = context.Process(target=fire, args=(port, requests, options.rate, options.open_seconds, tells))
    attacker = context.Process(target=attack, args=(port, rest_port, push_folder, options.open_seconds, attacks_told))
    clients.start()
    if options.attacks:
        attacker.start()
    resident = []
    pause = options.open_seconds / options.pushes
    for number in range(options.pushes):
        begun = time.monotonic()
        if options.attacks and number % 4 == 1:
            attacks.damaged_push(source, push_folder, 10 * number + 15)
        attacks.push(source, push_folder, 10 * number + 20)
        for old in (10 * (number - KEPT) + 15, 10 * (number - KEPT) + 20):
            attacks.remove(push_folder, old)
        time.sleep(max(0.0, pause - (time.monotonic() - begun)))
        resident.append(_resident_mb(server.pid))
    answered, failures = told.recv()
    clients.join()
    done, wrong = attacked.recv() if options.attacks else (0, [])
    latencies = 1000 * np.array([seconds for _, seconds in answered])
    p50, p99, p999, longest = (float(np.quantile(latencies, share)) for share in (0.5, 0.99, 0.999, 1.0))
    growth = float(np.mean(resident[-3:]) - resident[min(LEVEL_FROM, len(resident)) - 1])
    return {
        "requests": len(latencies) + len(failures), "failed": len(failures), "failures": failures[:5],
        "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": longest, "over_50_ms": int((latencies > 50).sum()),
        "rss_mb": resident, "rss_growth_mb": growth, "attacks": done, "wrong_answers": wrong,
        "load": os.getloadavg(),
    }  # fmt: skip


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
