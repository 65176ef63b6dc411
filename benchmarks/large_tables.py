"""What ten million ids cost: memory, time and loss, with Adagrad and with one sum a row (`trainer.optimizer: rowwise_adagrad`).

For each optimizer a process trains a first day and saves the state for the next one; another continues from it with a
vocabulary of which a tenth is new and all is in another order, and exports both towers. Batches come from memory; items by
Zipf's law, and users keep to the neighbourhood of an item, so that there is something to learn. Peaks of memory are of each phase
by itself.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import common
from components.analysis import files
from components.analysis.vocabulary import Known, entries
from components.trainer import warm_start
from components.trainer.inputs import Batch
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.towers import Tower
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec

OPTIMIZERS = ("adagrad", "rowwise_adagrad")
USERS, WIDTH, BATCH, BUCKETS = 100_000, 64, 4096, 1000
EVERY = 10  # of as many ids one is another the next day
DISTINCT = 50  # batches
FIGURES = ("peak_gib", "then_gib", "seconds")
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {
            "user": {"width": WIDTH, "hash_buckets": USERS},
            "item": {"width": WIDTH, "hash_buckets": BUCKETS, "vocabulary": {}, "masked": 0},
        },
        "query": {"user": {"kind": "id", "table": "user"}, "past": {"kind": "history", "table": "item", "last": 10}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)


class Size(NamedTuple):
    """How much is trained.

    Attributes:
        items: ids.
        steps: of the first day.
        batch: interactions of a step.
    """

    items: int
    steps: int
    batch: int


def settings(optimizer: str) -> TrainerSettings:
    """Return the Trainer's settings, with the defaults except for the optimizer."""
    return TrainerSettings.model_validate({"towers": {"query": [128, WIDTH], "item": [WIDTH]}, "optimizer": optimizer})


def batches(size: Size) -> list[Batch]:
    """Interactions of a user's neighbourhood, an item drawn by Zipf's law being the middle of it."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(DISTINCT):
        item = (random.zipf(1.2, size.batch) * 7919) % size.items
        user = item % USERS
        past = (item[:, np.newaxis] + random.integers(-3, 4, (size.batch, 10))) % size.items
        interactions = {
            "user": user,
            "past": past,
            "item": item,
            CANDIDATE_ID: item,
            REWARD: np.ones(size.batch, np.float32),
        }
        made.append(Batch({name: tf.constant(values) for name, values in interactions.items()}, {}))
    return made


class Phases:
    """Seconds and the peak of memory of each phase.

    Attributes:
        figures: by phase and figure.
    """

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}

    def run(self, name: str, call: Callable[[], Any]) -> Any:
        """Run a phase."""
        Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets the peak so far
        begun = time.perf_counter()
        result = call()
        self.figures[name] = {
            "seconds": time.perf_counter() - begun,
            "peak_gib": _status_gib("VmHWM"),
            "then_gib": _status_gib("VmRSS"),
        }
        return result


def _status_gib(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / common.GIB


def build(optimizer: str, size: Size) -> tuple[TwoTowerModel, TrainingState]:
    """Return a model with its slots."""
    chosen = settings(optimizer)
    model = build_model(SPEC, {"user": USERS, "item": size.items + BUCKETS}, chosen)
    model.compile(optimizer=build_optimizer(chosen))
    model.make_weights(batches(size)[0])
    return model, TrainingState(model)


def train(model: TwoTowerModel, size: Size, steps: int) -> dict[str, float]:
    """Train on the batches in turn; the loss is the mean of the last time that each was seen."""
    step = tf.function(model.train_step)
    order: Iterator[Batch] = iter(batches(size) * -(-steps // DISTINCT))
    step(next(order))
    begun = time.perf_counter()
    for number, batch in zip(range(1, steps), order, strict=False):
        if number == steps - DISTINCT:
            model.reset_metrics()
        step(batch)
    return {"examples_per_second": (steps - 1) * size.batch / (time.perf_counter() - begun), "loss": model.mean_loss()}


def write_analysis(folder: Path, ids: NDArray[np.int64]) -> str:
    """Return the vocabulary of a day, an id a row."""
    known = entries([b"%d" % one for one in ids], [1.0] * len(ids))
    files.write(str(folder), {"user": Known(), "item": Known(known)}, {}, span=0)
    return str(folder)


def first_day(folder: Path, optimizer: str, size: Size) -> dict[str, Any]:
    """Trains, and saves the state for the next day."""
    phases = Phases()
    model, state = phases.run("made", lambda: build(optimizer, size))
    trained = phases.run("trained", lambda: train(model, size, size.steps))
    shape = warm_start.shape(SPEC, settings(optimizer))
    phases.run("saved", lambda: warm_start.save(state, shape, str(folder / "first"), str(folder / "kept")))
    return {"phases": phases.figures, **trained}


def second_day(folder: Path, optimizer: str, size: Size) -> dict[str, Any]:
    """Continue from the day before, train a little, and export both towers without the transform and its lookup of ids."""
    phases = Phases()
    model, state = phases.run("made", lambda: build(optimizer, size))
    shape = warm_start.shape(SPEC, settings(optimizer))
    phases.run("restored", lambda: warm_start.restore(state, SPEC, shape, str(folder / "second"), str(folder / "kept")))
    phases.run("trained", lambda: train(model, size, max(size.steps // 10, DISTINCT + 1)))

    phases.run("query tower exported", lambda: export(model.query_tower, batches(size)[0], folder))
    phases.run("item tower exported", lambda: export(model.item_tower, batches(size)[0], folder))
    return {"phases": phases.figures}


def export(tower: Tower, batch: Batch, folder: Path) -> None:
    """Write a tower as a SavedModel."""
    module = tf.Module()
    module.tower = tower
    module.served = tf.function(lambda inputs: {"embedding": tower(inputs)})
    specs = {
        name: tf.TensorSpec([None, *values.shape[1:]], values.dtype) for name, values in batch.interactions.items()
    }
    tf.saved_model.save(module, str(folder / tower.name), signatures=module.served.get_concrete_function(specs))


DAYS = {"first": first_day, "second": second_day}


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--items", type=int, default=10_000_000, help="ids")
    arguments.add_argument("--steps", type=int, default=500, help=f"of the first day, more than {DISTINCT}")
    arguments.add_argument("--batch", type=int, default=BATCH, help="interactions of a step")
    for name in ("--day", "--optimizer", "--folder"):  # of a process that this one starts
        arguments.add_argument(name, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.day:
        size = Size(options.items, options.steps, options.batch)
        print(json.dumps(DAYS[options.day](Path(options.folder), options.optimizer, size)))
        return
    scratch_root = Path("var/benchmarks").absolute()  # not a /tmp that may be memory
    scratch_root.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=scratch_root) as scratch:
        ids = np.arange(options.items)
        write_analysis(Path(scratch) / "first", ids)
        ids[::EVERY] += options.items
        write_analysis(Path(scratch) / "second", np.random.default_rng(1).permutation(ids))
        for optimizer in OPTIMIZERS:
            figures[optimizer] = {day: in_a_process(day, optimizer, scratch, options) for day in DAYS}
            for made in ("kept", "query_tower", "item_tower"):
                shutil.rmtree(Path(scratch) / made)
    report(figures)
    common.conclude(
        options.json,
        {"items": options.items, "width": WIDTH, "batch": options.batch, "steps": options.steps},
        figures,
        headline(figures),
    )


def in_a_process(day: str, optimizer: str, folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of a day."""
    command = ["--day", day, "--optimizer", optimizer, "--folder", folder]
    command += ["--items", str(options.items), "--steps", str(options.steps), "--batch", str(options.batch)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large_tables", *command],
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout.splitlines()[-1])


def report(figures: dict[str, dict[str, Any]]) -> None:
    """Tables for people."""
    rows = [
        [
            f"{day} day, {phase}",
            *(f"{figures[o][day]['phases'][phase][figure]:.2f}" for o in OPTIMIZERS for figure in FIGURES),
        ]
        for day in DAYS
        for phase in figures[OPTIMIZERS[0]][day]["phases"]
    ]
    common.show("phases", ["", *(f"{o}: {figure}" for o in OPTIMIZERS for figure in FIGURES)], rows)
    common.show(
        "training",
        ["", "examples/s", "loss"],
        [
            [o, f"{figures[o]['first']['examples_per_second']:,.0f}", f"{figures[o]['first']['loss']:.4f}"]
            for o in OPTIMIZERS
        ],
    )


def headline(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return the figures that are compared from run to run."""
    named: dict[str, float] = {}
    for optimizer, days in figures.items():
        phases = [phase for day in days.values() for phase in day["phases"].values()]
        named[f"peak_gib_{optimizer}"] = max(phase["peak_gib"] for phase in phases)
        named[f"trained_gib_{optimizer}"] = days["first"]["phases"]["trained"]["peak_gib"]
        named[f"restored_gib_{optimizer}"] = days["second"]["phases"]["restored"]["peak_gib"]
        named[f"exported_gib_{optimizer}"] = days["second"]["phases"]["query tower exported"]["peak_gib"]
        named[f"examples_per_second_{optimizer}"] = days["first"]["examples_per_second"]
        named[f"loss_{optimizer}"] = days["first"]["loss"]
    return named


if __name__ == "__main__":
    main()
