"""What every benchmark does around its measurements: arguments, the machine, interleaved timing, the JSON file, tables."""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

GIB = 1 << 30


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments that every benchmark takes."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--json", type=Path, help="where settings, figures and the headline are written")
    return arguments


def movielens_argument(arguments: argparse.ArgumentParser) -> None:
    """Add `--data`, a folder of `ndr data movielens`, which must exist."""

    def folder(text: str) -> Path:
        path = Path(text).absolute()
        if not (path / "interactions").is_dir():
            raise argparse.ArgumentTypeError(
                f"expected MovieLens below {path}, found no folder `interactions`. First: ndr data movielens --set root=DIR, "
                "and --data DIR/data/movielens"
            )
        return path

    arguments.add_argument("--data", type=folder, default="var/data/movielens", help="of `ndr data movielens`")


def executor(kind: type[Any], workers: int = 1) -> Any:
    """Return the executor of a step on the runner that the pipeline uses; Beam's own default looks for another one first."""
    from tfx.dsl.components.base import base_beam_executor

    from pipeline.beam_settings import RunnerSettings

    arguments = RunnerSettings(workers=workers).arguments
    return kind(base_beam_executor.BaseBeamExecutor.Context(beam_pipeline_args=arguments))


def conclude(path: Path | None, settings: Mapping[str, Any], figures: Any, headline: Mapping[str, float]) -> None:
    """Show the headline, and write everything to a path if given."""
    show("headline", ["", "value"], [[name, f"{value:.4g}"] for name, value in headline.items()])
    if path:
        content = {"machine": machine(), "settings": settings, "figures": figures, "headline": headline}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """Where the figures were measured."""
    import tensorflow as tf

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
    }


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Time each call in each round, in seconds, in turns so that a change of the machine's speed affects all of them.

    Args:
        calls: each must return only once its work is done.
        rounds: how often each is timed.
        warm_up: how often each runs before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warm_up, rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if number >= 0:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def key(words: str) -> str:
    """Words as a key of the headline: `co-occurrence` to `co_occurrence`."""
    return "_".join(words.lower().replace(",", "").replace("-", " ").split())


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def peak_gib() -> float:
    """Return the peak resident memory of this process, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all but the first column are right-aligned."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if os.isatty(1) else 150).print(table)
