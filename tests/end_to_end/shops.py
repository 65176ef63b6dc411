"""The shop that whole runs are tried on, and the command line as a person uses it."""

import gzip
import json
import random
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tests.forks import Forks

SHOP = Path(__file__).parent / "shop" / "shop.yaml"
# A dataset over the same files, without texts, vectors and what is looked up.
PLAIN = Path(__file__).parent / "plain_shop"
DAY = date(2026, 11, 24)
YESTERDAY = DAY - timedelta(days=1)
# Little time, but every part: two days are two runs, and the second continues from the first.
SETTINGS = ["data.window_days=1", "data.catch_up_days=2", "trainer.epochs=3", "trainer.checkpoint_steps=4"]
TOWERS = ("query_tower", "item_tower")
KINDS, ITEMS_A_KIND = 10, 20


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


def write_sales(root: Path, day: date, rows: int = 3000, seed: int = 0) -> Path:
    """A day of the shop's log, in a file; written again with another seed, it is another one."""
    chance = random.Random(f"{day} {seed}")
    lines = ["visitor;sku;bought_at"]
    for second in range(rows):
        visitor = chance.randrange(300)
        item = visitor % KINDS * ITEMS_A_KIND + chance.randrange(ITEMS_A_KIND)
        lines.append(f"v {visitor};s{item};{day}T{second // 125:02d}:{second % 60:02d}:{second % 59:02d}")
    path = root / "data" / "sales" / f"{day:%Y/%m}" / f"{day:%d}.csv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return path


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
        found = forks.runs(arguments(self.root))
        self.root.rename(self.left)
        self._runs.write_text(json.dumps(found))

    def begin_again(self) -> Path:
        """The root as it was after the first day, at its place: a run's artifacts are known by their paths."""
        shutil.copytree(self._first, self.root, symlinks=True)
        return self.root
