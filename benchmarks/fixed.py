"""What is paid however little there is to do: a toy day, a day with nothing to do, and one recommendation, in processor seconds.

A toy day is the second of two (`benchmarks.logs`), so that it continues from a model and has one to beat. It has all that
`benchmarks.row_features` adds to `benchmarks/service`: a vector, a text, what is looked up, a users' table. Then the same command
again, which finds the day done, and `ndr recommend`. Each is a process of its own, as a person starts it; its children count.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from benchmarks import common, logs, row_features
from schemas.features import FILE_NAME

CONFIG = row_features.SERVICE / "service.yaml"
DAYS = 2
KIND = row_features.KINDS[-1]


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        processor: seconds of the processor's cores, children included.
        elapsed: seconds by the clock.
    """

    processor: float
    elapsed: float


def costs(folder: Path, interactions: int, users: int, items: int, days: int) -> dict[str, Cost]:
    """Run the commands on an invented service.

    Args:
        folder: an empty one.
        interactions: of each day.
        users: of the service.
        items: of its catalogue.
        days: the last is measured.
    """
    row_features.write_data(folder / "data", interactions, users, items, days)
    spec = row_features.specification(KIND)
    (folder / FILE_NAME).write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_unset=True)))
    settings = [f"root={folder}", f"dataset={folder}", "data.users={path: data/users.parquet, format: parquet}"]
    options = ["--config", str(CONFIG), *(part for each in settings for part in ("--set", each))]
    *before, last = (str(logs.FIRST_DAY + timedelta(days=number)) for number in range(days))
    for day in before:
        ndr("run", "--date", day, *options)
    return {
        "toy day": ndr("run", "--date", last, *options),
        "nothing to do": ndr("run", "--date", last, *options),
        "recommend": ndr("recommend", "--user", "u0", *options),
    }


def ndr(*arguments: str) -> Cost:
    """Run a command to its end."""
    before, begun = _children(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline.cli", *arguments], check=True, stdout=sys.stderr, env=os.environ)
    return Cost(_children() - before, time.perf_counter() - begun)


def headline(found: dict[str, Cost]) -> dict[str, float]:
    """Return the named numbers, in processor seconds."""
    return {
        "toy_day_seconds": found["toy day"].processor,
        "nothing_to_do_seconds": found["nothing to do"].processor,
        "recommend_processor_seconds": found["recommend"].processor,
    }


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("--interactions", type=int, default=3000)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--days", type=int, default=DAYS, help="of which the last is measured")
    options = parser.parse_args(arguments)
    sizes = {name: getattr(options, name) for name in ("interactions", "users", "items", "days")}
    with tempfile.TemporaryDirectory() as folder:
        found = costs(Path(folder), **sizes)
    common.show(
        f"{options.interactions:,} interactions a day",
        ["command", "processor seconds", "seconds by the clock"],
        [[name, f"{cost.processor:.1f}", f"{cost.elapsed:.1f}"] for name, cost in found.items()],
    )
    common.conclude(options.json, sizes, {name: vars(cost) for name, cost in found.items()}, headline(found))


if __name__ == "__main__":
    main()
