"""Processes that cost no imports: `ndr`, for tests of what a command does and not of its process; and functions."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

PROJECT = Path(__file__).resolve().parents[1]


class Forks:
    """Starts processes that have TFX loaded; see `forking.py`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outputs: dict[int, dict[str, str]] = {}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forking"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)}, start_new_session=True,
        )  # fmt: skip

    def start(self, *command: str, fault: str = "", program: str = "ndr") -> int:
        """Starts a command, killed where `fault` says; returns its process's number.

        A program is `ndr`, `run_node`, or a function as MODULE:NAME, of the words of the command.
        """
        outputs = {name: str(self._folder / f"{uuid4().hex}.{name}") for name in ("stdout", "stderr")}
        process = self._ask({"program": program, "command": command, "fault": fault, **outputs})
        assert process is not None
        self._outputs[process] = outputs
        return process

    def end(self, process: int) -> subprocess.CompletedProcess[str]:
        """Waits for a command that was started."""
        status = self._ask({"wait": process})
        assert status is not None
        stdout, stderr = (Path(path).read_text() for path in self._outputs.pop(process).values())
        return subprocess.CompletedProcess([], status, stdout, stderr)

    def poll(self, process: int) -> int | None:
        """The exit status of a process that was started, negative where a signal ended it; once, and None while it runs."""
        return self._ask({"poll": process})

    def has_ended(self, process: int) -> bool:
        """Whether a command that was started only waits for `end`."""
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def __call__(self, *command: str, fault: str = "", program: str = "ndr") -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return self.end(self.start(*command, fault=fault, program=program))

    def runs(self, arguments: list[str]) -> list[dict[str, Any]]:
        """What `ndr runs` knows of a configuration."""
        found: list[dict[str, Any]] = json.loads(self("runs", "--json", *arguments).stdout)
        return found

    def close(self) -> None:
        """Ends the process that the others are forks of, and what a test that failed left stopped."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def _ask(self, request: dict[str, Any]) -> int | None:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: int | None = json.loads(self._server.stdout.readline())
        return answer
