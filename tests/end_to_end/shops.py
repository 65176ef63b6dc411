"""The shop that whole runs are tried on, and the command line as a person uses it."""

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

PROJECT = Path(__file__).resolve().parents[2]
SHOP = Path(__file__).parent / "shop" / "shop.yaml"
PLAIN = (
    Path(__file__).parent / "plain_shop"
)  # a dataset over the same files, without texts, vectors and what is looked up
DAY = date(2026, 11, 24)
YESTERDAY = DAY - timedelta(days=1)
# What takes little time and leaves nothing out: two days are two runs, the second of which goes on from the first.
SETTINGS = ["data.window_days=1", "data.catch_up_days=2", "trainer.epochs=3", "trainer.checkpoint_steps=4"]
TOWERS = ("query_tower", "item_tower")
KINDS, ITEMS_A_KIND = 10, 20


def ndr(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)


def runs(arguments: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ndr("runs", "--json", *arguments).stdout)
    return found


def arguments(root: Path) -> list[str]:
    settings = [f"root={root}", *SETTINGS]
    return ["--config", str(SHOP), *(part for setting in settings for part in ("--set", setting))]


def towers(root: Path) -> dict[str, bytes]:
    """What every file of every visible tower holds, but the graphs, whose bytes differ from process to process."""
    folders = [folder for tower in TOWERS for folder in (root / "serving" / tower).glob("*")]
    return {
        str(path.relative_to(root)): b"" if path.suffix == ".pb" else path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def write_shop(root: Path) -> None:
    """Visitors who stick to one kind of item: what they bought tells what they buy next. Three days of them, up to DAY.

    Two more items are blocked. Every second visitor is a member of a club. On DAY every third item has become dearer, and some look
    otherwise.
    """
    (root / "data").mkdir()
    write_items(root, DAY - timedelta(days=2), dearer=0)
    write_items(root, DAY, dearer=1)
    (root / "data" / "visitors").mkdir()
    members = "\n".join(["visitor,club", *(f"v {visitor},gold" for visitor in range(0, 300, 2)), "new member,gold", ""])
    (root / "data" / "visitors" / f"{DAY - timedelta(days=2)}.csv").write_text(members)
    for back in range(3):
        write_sales(root, DAY - timedelta(days=back))


def write_items(root: Path, day: date, dearer: int) -> None:
    """A day's catalogue."""
    lines = ["sku;name;tags;price;gone;looks"]
    for number in range(KINDS * ITEMS_A_KIND):
        kind = number // ITEMS_A_KIND
        looks = f"{kind} {number % 7} {1 + dearer}" if number % 11 else ""
        price = number + 0.5 + (dearer if number % 3 == 0 else 0)
        lines.append(f"s{number};Item {number} 🐜;kind{kind} {'new' if number % 2 else 'old'};{price};0;{looks}")
    lines += ["gone 0;Item no more;kind0 old;1;1;1 2 3", "gone 1;Item no more;kind1 new;1;1;"]
    (root / "data" / "items").mkdir(exist_ok=True)
    (root / "data" / "items" / f"{day}.csv").write_text("\n".join(lines) + "\n")


def write_sales(root: Path, day: date, rows: int = 3000, seed: int = 0) -> None:
    """A day of the shop's log; written again with another seed, it is another one."""
    chance = random.Random(f"{day} {seed}")
    lines = ["visitor;sku;bought_at"]
    for second in range(rows):
        visitor = chance.randrange(300)
        item = visitor % KINDS * ITEMS_A_KIND + chance.randrange(ITEMS_A_KIND)
        lines.append(f"v {visitor};s{item};{day}T{second // 125:02d}:{second % 60:02d}:{second % 59:02d}")
    path = root / "data" / "sales" / f"{day:%Y/%m}" / f"{day:%d}.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))


class Forks:
    """`ndr` in processes that have TFX loaded from the start; see `forking.py`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outputs: dict[int, dict[str, str]] = {}
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "forking.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT)}, start_new_session=True,
        )  # fmt: skip

    def start(self, *command: str, fault: str = "", program: str = "ndr") -> int:
        """Starts a command, killed where `fault` says; returns its process's number."""
        outputs = {name: str(self._folder / f"{uuid4().hex}.{name}") for name in ("stdout", "stderr")}
        process = self._ask({"program": program, "command": command, "fault": fault, **outputs})
        self._outputs[process] = outputs
        return process

    def end(self, process: int) -> subprocess.CompletedProcess[str]:
        """Waits for a command that was started."""
        status = self._ask({"wait": process})
        stdout, stderr = (Path(path).read_text() for path in self._outputs.pop(process).values())
        return subprocess.CompletedProcess([], status, stdout, stderr)

    def has_ended(self, process: int) -> bool:
        """Whether a command that was started only waits for `end`."""
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    def __call__(self, *command: str, fault: str = "", program: str = "ndr") -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return self.end(self.start(*command, fault=fault, program=program))

    def close(self) -> None:
        """Ends the process that the others are forks of, and what a test that failed left stopped."""
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()

    def _ask(self, request: dict[str, Any]) -> int:
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())


class Undisturbed:
    """What is left of the shop's two days, run one after the other; not to be changed.

    Attributes:
        root: where they were run. It has been moved away: whoever runs the second day once more, begins there with `begin_again`.
        left: the root after the second day, for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.left = folder / "left"
        self._first = folder / "first_day"
        self._runs = folder / "runs.json"

    @property
    def is_made(self) -> bool:
        return self._runs.exists()

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Of both days."""
        found: list[dict[str, Any]] = json.loads(self._runs.read_text())
        return found

    def make(self, forks: Forks) -> None:
        for folder in (self.root, self.left, self._first):  # of another attempt, which failed
            shutil.rmtree(folder, ignore_errors=True)
        self.root.mkdir()
        write_shop(self.root)
        for day in (YESTERDAY, DAY):
            answer = forks("run", "--date", day.isoformat(), *arguments(self.root))
            assert answer.returncode == 0, answer.stdout + answer.stderr
            if day == YESTERDAY:
                shutil.copytree(self.root, self._first, symlinks=True)
        found = runs(arguments(self.root))
        self.root.rename(self.left)
        self._runs.write_text(json.dumps(found))

    def begin_again(self) -> Path:
        """The root as it was after the first day, at its place: a run's artifacts are known by their paths."""
        shutil.copytree(self._first, self.root, symlinks=True)
        return self.root
