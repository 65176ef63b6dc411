"""Processes of clusters, as forks of one that has TensorFlow and TFX loaded, which takes longer than all that they do."""

import json
import os
import socket
import sys
import traceback
from pathlib import Path
from signal import SIGKILL

from tests.forks import Forks


def run(tf_config: str, log: str, *words: str) -> None:
    """In the fork; does not return."""
    from benchmarks import workers
    from components.trainer import arguments, worker
    from components.trainer.run import run_fn
    from schemas.errors import PassingError
    from tests.components import strategy_contract

    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1), os.dup2(descriptor, 2)
    os.environ["TF_CONFIG"] = tf_config
    sys.argv = [sys.argv[0]]
    status = 0
    try:
        match words:
            case ("worker",):
                worker.main()
            case ("contract", name, root):
                strategy_contract.take_part(name, Path(root))
            case ("own_pace", root):
                strategy_contract.at_their_own_pace(Path(root))
            case ("count_steps", root):
                strategy_contract.count_steps(Path(root))
            case ("step", file):
                run_fn(arguments.from_json(Path(file).read_text()))
            case ("estimates", file):
                workers.write_ratios(Path(file), batches=1500)
    except SystemExit as end:
        status = int(end.code or 0)
    except PassingError as error:
        traceback.print_exc()
        status = error.status
    except BaseException:
        traceback.print_exc()
        status = 70
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


class Cluster:
    """Some processes on loopback, and what each is told to run.

    Args:
        forks: makes the processes.
        jobs: for each job what its processes run, a list each.
        logs: the beginning of their logs' paths.
    """

    def __init__(self, forks: Forks, jobs: dict[str, list[list[str]]], logs: Path) -> None:
        self._forks, self._jobs, self._logs = forks, jobs, logs
        self._addresses = {job: [f"127.0.0.1:{free_port()}" for _ in runs] for job, runs in jobs.items()}
        self._status: dict[int, int] = {}
        self._numbers = {
            (job, index): self._start(job, index) for job, runs in jobs.items() for index in range(len(runs))
        }

    def _start(self, job: str, index: int) -> int:
        tf_config = {"cluster": self._addresses, "task": {"type": job, "index": index}}
        words = (json.dumps(tf_config), str(self.log(job, index)), *self._jobs[job][index])
        return self._forks.start(*words, program="tests.components.strategy_processes:run")

    def log(self, job: str, index: int) -> Path:
        return self._logs.with_name(f"{self._logs.name}-{job}-{index}.log")

    def words(self, job: str, index: int) -> str:
        return self.log(job, index).read_text(errors="replace")[-4000:]

    def status(self, job: str, index: int) -> int | None:
        """The exit status; None while the process runs."""
        number = self._numbers[job, index]
        if number not in self._status:
            status = self._forks.poll(number)
            if status is None:
                return None
            self._status[number] = status
        return self._status[number]

    def faults(self) -> list[str]:
        """What those said that ended with another status than 0."""
        return [self.words(*key) for key in self._numbers if self.status(*key) not in (None, 0)]

    def signal(self, job: str, index: int, number: int) -> None:
        os.kill(self._numbers[job, index], number)

    def kill(self, job: str, index: int) -> None:
        if self.status(job, index) is None:
            self.signal(job, index, SIGKILL)
            while self.status(job, index) is None:
                pass

    def restart(self, job: str, index: int) -> None:
        self.kill(job, index)
        self._numbers[job, index] = self._start(job, index)

    def end(self) -> None:
        for key in self._numbers:
            self.kill(*key)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
