"""A whole day of growing size, as a person runs it: seconds, memory and bytes of every step.

For each size, `benchmarks.logs` writes two days of logs for `benchmarks/service`. The first is a tenth as long, and is run so that
the second is a day like any other: it continues from a model and has one to beat. Users grow with the interactions, the catalogue
does not. The second day is `ndr run` in a process of its own. Times are those of its executions in ML Metadata. Memory is what
the process and its children have resident, looked at ten times a second; pages that two of them share count twice. Processor
seconds are theirs too: where other work is on the machine, they say more than the clock. Where an engine does the work, `--beside`
names its processes, which then count too. Bytes are those of the artifacts that a step wrote.

A step's fixed cost is where the line through its two smallest sizes meets no interactions at all.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import psutil
from ml_metadata.proto import metadata_store_pb2 as mlmd

from benchmarks import common
from benchmarks.floor import floors
from benchmarks.logs import FIRST_DAY, Log, World, write
from pipeline import config as configuration
from pipeline.config import Config
from pipeline.records import Records, Store, connection

CONFIG = Path(__file__).parent / "service" / "service.yaml"
MILLION = 1_000_000
INTERACTIONS_A_USER = 20
DAY_BEFORE = 0.1
SAMPLE_SECONDS = 0.1
CHECKED = 5_000  # interactions of which the expected recall is worked out
REST = "(start and end)"
KEYS = {"seconds": "seconds", "processor_seconds": "processor", "peak_gib": "peak_gib"}  # of the headline
LEAST_SHARE = (
    0.01  # of the day's processor seconds: of a step with less the ratio to its floor is one of two small numbers
)


@dataclass(frozen=True)
class Step:
    """What a step took.

    Attributes:
        name: the node's; REST is what was before the first, between them, and after the last.
        seconds: from its execution's beginning to its end.
        processor: seconds of the processor's cores.
        peak_gib: the most memory that was resident meanwhile.
        written: bytes of the artifacts that it made.
    """

    name: str
    seconds: float
    processor: float
    peak_gib: float
    written: int


class Watch:
    """What processes and their children take, over time, until the first of them ends.

    Args:
        processes: their numbers.
    """

    def __init__(self, processes: Sequence[int]) -> None:
        self._processes = list(map(psutil.Process, processes))
        self._ended = threading.Event()
        self._samples: list[tuple[float, int, float]] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def taken(self, begun: float, ended: float) -> tuple[float, float]:
        """Return the most memory, in GiB, and the processor seconds between two times, in seconds since 1970-01-01."""
        at, resident, processor = np.array(self._samples).T
        between = resident[(at >= begun) & (at <= ended)]
        first, last = np.interp([begun, ended], at, processor)
        return float(between.max(initial=0.0)) / common.GIB, float(last - first)

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            try:
                tree = [each for process in self._processes for each in (process, *process.children(recursive=True))]
            except psutil.NoSuchProcess:
                return
            taken = [_taken(process) for process in tree]
            self._samples.append((time.time(), sum(size for size, _ in taken), sum(seconds for _, seconds in taken)))


def _taken(process: psutil.Process) -> tuple[int, float]:
    """Resident bytes, and the processor seconds of the process and of the children that it has outlived."""
    try:
        with process.oneshot():
            return process.memory_info().rss, sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0, 0.0


def measure(
    root: Path, interactions: int, items: int, settings: list[str], is_first: bool = False, beside: Sequence[int] = ()
) -> dict[str, Any]:
    """Run two days of a size, and measure the second.

    Args:
        root: an empty folder.
        interactions: of the second day.
        items: of the catalogue, by the end of it.
        settings: `--set KEY=VALUE` each.
        is_first: whether there is no day before the one that is measured.
        beside: numbers of an engine's processes.
    """
    before = [] if is_first else [max(1000, int(DAY_BEFORE * interactions))]
    world = World(max(1, interactions // INTERACTIONS_A_USER), items, days=len(before) + 1)
    logs = write(world, [*before, interactions], root / "data")
    arguments = ["--config", str(CONFIG), "--set", f"root={root}"]
    arguments += [part for setting in settings for part in ("--set", setting)]
    config = configuration.load(CONFIG, [f"root={root}", *settings])
    for number, _ in enumerate(before):
        _run(number, arguments, beside)
    last = len(before)
    begun = time.time()
    watch = _run(last, arguments, beside)
    ended = time.time()
    steps = _steps(config, last, watch)
    seconds = ended - begun
    peak, processor = watch.taken(begun, ended)
    rest = Step(
        REST, seconds - sum(step.seconds for step in steps), processor - sum(step.processor for step in steps), 0.0, 0
    )
    run = Records(connection(config)).last_complete(config.name, _day(last))
    assert run is not None
    some = np.random.default_rng(0).choice(interactions, min(CHECKED, interactions), replace=False)
    checked = Log._make(values[some] for values in logs[last])
    return {
        "interactions": interactions,
        "users": world.users,
        "seconds": seconds,
        "processor": processor,
        "peak_gib": peak,
        "log_bytes": _bytes(root / "data" / "interactions" / str(_day(last))),
        "steps": [asdict(step) for step in (*steps, rest)],
        "floors": floors(*(root / "data" / kind / str(_day(last)) for kind in ("interactions", "catalogue"))),
        "recall": run.recall,
        "expected_recall": {k: world.expected_recall(last, checked, k) for k in config.evaluator.recall_at},
        "version": run.version,
    }


def _run(day: int, arguments: list[str], beside: Sequence[int]) -> Watch:
    command = [sys.executable, "-m", "pipeline.cli", "run", "--date", str(_day(day)), *arguments]
    with subprocess.Popen(command) as process, Watch([process.pid, *beside]) as watch:
        if process.wait():
            raise SystemExit(process.returncode)
    return watch


def _day(number: int) -> date:
    return FIRST_DAY + timedelta(days=number)


def _steps(config: Config, day: int, watch: Watch) -> list[Step]:
    """Read ML Metadata's record of a day's run."""
    records, store = Records(connection(config)), Store(connection(config))
    run = records.last_complete(config.name, _day(day))
    assert run is not None
    steps = []
    for step in run.steps:
        execution = records.attempts(run.run, step.node)[-1]
        begun, ended = execution.create_time_since_epoch / 1000, execution.last_update_time_since_epoch / 1000
        made = [
            event.artifact_id
            for event in store.get_events_by_execution_ids([execution.id])
            if event.type == mlmd.Event.OUTPUT
        ]
        written = sum(_bytes(Path(artifact.uri)) for artifact in store.get_artifacts_by_id(made)) if made else 0
        peak, processor = watch.taken(begun, ended)
        steps.append(Step(step.node, ended - begun, processor, peak, written))
    return steps


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def growth(interactions: Sequence[int], seconds: Sequence[float]) -> float:
    """How much faster seconds grew than interactions, from the second last size to the last: 1 is as fast."""
    return (seconds[-1] / seconds[-2]) / (interactions[-1] / interactions[-2])


def fixed_and_unit(interactions: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Return the line through the first two sizes: seconds without any interactions, and for each million of them."""
    unit = (seconds[1] - seconds[0]) / (interactions[1] - interactions[0])
    return seconds[0] - unit * interactions[0], unit * MILLION


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--interactions", type=int, nargs="+", default=[100_000, 1_000_000, 5_000_000])
    arguments.add_argument("--items", type=int, default=50_000, help="of the catalogue")
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/pipeline"), help="of the runs; emptied")
    arguments.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configuration")
    arguments.add_argument("--first", action="store_true", help="measures a first day, with none before it")
    arguments.add_argument("--beside", type=int, nargs="+", default=[], help="numbers of an engine's processes")
    options = arguments.parse_args()
    settings = {
        "items": options.items,
        "interactions_a_user": INTERACTIONS_A_USER,
        "day_before": 0.0 if options.first else DAY_BEFORE,
        "set": options.set,
    }
    sizes: list[dict[str, Any]] = []
    for interactions in sorted(options.interactions):
        root = options.root.absolute() / str(interactions)
        if root.exists():
            rmtree(root)
        sizes.append(measure(root, interactions, options.items, options.set, options.first, options.beside))
        # After each size, as the next one takes many times as long.
        _show(sizes)
        common.conclude(options.json, settings, sizes, headline(sizes))


def headline(sizes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the named numbers of all sizes."""
    of = {size["interactions"]: size for size in sizes}
    found: dict[str, float] = {}
    if MILLION in of:
        found |= {f"{key}_1m": of[MILLION][name] for key, name in KEYS.items()}
        if 5 * MILLION in of:
            pair = [of[MILLION], of[5 * MILLION]]
            found["growth_1m_to_5m"] = growth([MILLION, 5 * MILLION], [size["seconds"] for size in pair])
            found |= {"seconds_5m": pair[1]["seconds"], "peak_gib_5m": pair[1]["peak_gib"]}
    found["worst_ratio_to_floor"] = max(ratios(sizes[-1]).values())
    return found


def ratios(size: dict[str, Any]) -> dict[str, float]:
    """Return how many times its floor each step takes in processor seconds, of those that take a share of the day to speak of."""
    return {
        step["name"]: step["processor"] / size["floors"][step["name"]]
        for step in size["steps"]
        if step["name"] in size["floors"] and step["processor"] >= LEAST_SHARE * size["processor"]
    }


def _show(sizes: list[dict[str, Any]]) -> None:
    names = [step["name"] for step in sizes[0]["steps"]]
    of_step = [{step["name"]: step for step in size["steps"]} for size in sizes]
    interactions = [size["interactions"] for size in sizes]
    columns = ["", *(f"{count:,}" for count in interactions)]
    for title, key in (("seconds", "seconds"), ("processor seconds", "processor")):
        rows = []
        for name in (*names, None):
            found = [
                size[key] if name is None else steps[name][key] for size, steps in zip(sizes, of_step, strict=True)
            ]
            row = [name or "the day", *(f"{value:.1f}" for value in found)]
            if len(sizes) > 1:
                fixed, unit = fixed_and_unit(interactions, found)
                row += [f"{fixed:.1f}", f"{unit:.1f}", f"{growth(interactions, found):.2f}"]
            rows.append(row)
        common.show(title, [*columns, *(["fixed", "a million", "growth"] if len(sizes) > 1 else [])], rows)
    of_floors = [[name, *(f"{size['floors'][name]:.2f}" for size in sizes)] for name in sizes[0]["floors"]]
    common.show("processor seconds of the arithmetic alone (benchmarks.floor)", columns, of_floors)
    of_ratios = [ratios(size) for size in sizes]
    common.show(
        "times the arithmetic alone",
        columns,
        [[name, *(f"{each[name]:.1f}" if name in each else "" for each in of_ratios)] for name in sizes[0]["floors"]],
    )
    peaks = [[name, *(f"{steps[name]['peak_gib']:.2f}" for steps in of_step)] for name in names[:-1]]
    common.show("most memory, GiB", columns, [*peaks, ["the day", *(f"{size['peak_gib']:.2f}" for size in sizes)]])
    written = [[name, *(f"{steps[name]['written'] / 1e6:.1f}" for steps in of_step)] for name in names[:-1]]
    common.show("written, MB", columns, [["the log", *(f"{size['log_bytes'] / 1e6:.1f}" for size in sizes)], *written])
    recalls = [
        [f"recall@{k}", *(f"{size['recall'][k]:.4f} of {size['expected_recall'][k]:.4f}" for size in sizes)]
        for k in sizes[0]["recall"]
    ]
    common.show("recall, of what is expected of a scorer that knows the truth", columns, recalls)


if __name__ == "__main__":
    main()
