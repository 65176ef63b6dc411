"""How long a person waits for the commands that read ML Metadata, when it has a thousand runs.

The runs are copies of the last one of a root on which something was run, each with a day and artifacts of its own; the commands are
processes of their own, as a person starts them.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from benchmarks import common
from pipeline import config as configuration
from pipeline.arguments import MOVIELENS_CONFIG
from pipeline.config import Config
from pipeline.records import NODE_CONTEXT, RUN_CONTEXT, connect, connection

FIRST = date(2024, 1, 1)
COMMANDS = {
    "runs": ["runs"],
    "runs --json": ["runs", "--json"],
    "show DAY": ["show", "{day}"],
    "artifacts": ["artifacts"],
    "artifacts --type Model --json": ["artifacts", "--type", "Model", "--json"],
    "lineage ARTIFACT": ["lineage", "{artifact}"],
    "diff DAY DAY": ["diff", "{first}", "{day}"],
}


class Copies:
    """Writes the last run of one store into another again and again.

    Args:
        source: has the run.
        target: is empty.
    """

    def __init__(self, source: MetadataStore, target: MetadataStore) -> None:
        self._target = target
        self._run = max(source.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
        self._executions = sorted(source.get_executions_by_context(self._run.id), key=lambda each: each.id)
        self._events = source.get_events_by_execution_ids([each.id for each in self._executions])
        self._artifacts = source.get_artifacts_by_id(sorted({event.artifact_id for event in self._events}))
        self._types: dict[int, int] = {}
        for types, put in (
            (source.get_context_types(), target.put_context_type),
            (source.get_execution_types(), target.put_execution_type),
            (source.get_artifact_types(), target.put_artifact_type),
        ):
            for each in types:
                number = each.id
                each.ClearField("id")
                self._types[number] = put(each)
        self._nodes = {
            execution.id: self._node(context)
            for execution in self._executions
            for context in source.get_contexts_by_execution(execution.id)
            if context.type == NODE_CONTEXT
        }

    def add(self, day: date) -> None:
        """Add a run of a day."""
        artifacts = [self._copy(each, uri=f"{each.uri}-{day}") for each in self._artifacts]
        executions = [self._copy(each, name=f"{each.name}-{day}") for each in self._executions]
        run = self._copy(self._run, name=f"{day}.{self._run.name.partition('.')[2]}")
        place = {each.id: number for number, each in enumerate(self._artifacts)}
        turn = {each.id: number for number, each in enumerate(self._executions)}
        edges = [
            (turn[event.execution_id], place[event.artifact_id], mlmd.Event(type=event.type, path=event.path))
            for event in self._events
        ]
        made, _, _ = self._target.put_lineage_subgraph(executions, artifacts, [run], edges)
        nodes = [
            mlmd.Association(execution_id=number, context_id=self._nodes[each.id])
            for each, number in zip(self._executions, made, strict=True)
        ]
        self._target.put_attributions_and_associations([], nodes)

    def _node(self, context: mlmd.Context) -> int:
        found = self._target.get_context_by_type_and_name(NODE_CONTEXT, context.name)
        return found.id if found else self._target.put_contexts([self._copy(context, name=context.name)])[0]

    def _copy(self, each: Any, **changed: str) -> Any:
        copied = type(each)()
        copied.CopyFrom(each)
        copied.ClearField("id")
        copied.type_id = self._types[each.type_id]
        for name, value in changed.items():
            setattr(copied, name, value)
        return copied


@contextmanager
def filled(source: Config, runs: int) -> Iterator[Path]:
    """Make a root with a number of runs."""
    with tempfile.TemporaryDirectory() as folder:
        target = configuration.load(MOVIELENS_CONFIG, [f"root={folder}"])
        copies = Copies(connect(connection(source)), connect(connection(target)))
        for number in range(runs):
            copies.add(FIRST + timedelta(days=number))
        yield Path(folder)


def timed(command: list[str]) -> tuple[float, float]:
    """Measure a command, in seconds of wall clock and of processor time."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline.cli", *command], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Fill a store, and measure the commands."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("--root", default="var", help="where something was run")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    source = configuration.load(MOVIELENS_CONFIG, [f"root={arguments.root}"])
    figures = []
    with filled(source, arguments.runs) as root:
        last = FIRST + timedelta(days=arguments.runs - 1)
        size = (root / "metadata.sqlite").stat().st_size / 1e6
        names = {"day": str(last), "first": str(FIRST), "artifact": str(_last_artifact(root))}
        for title, command in COMMANDS.items():
            call = [*(part.format(**names) for part in command), "--set", f"root={root}"]
            rounds = [timed(call) for _ in range(arguments.rounds)]
            clock, processor = (statistics.median(values) for values in zip(*rounds, strict=True))
            figures.append({"command": title, "seconds": clock, "processor_seconds": processor})
    common.show(
        f"{arguments.runs} runs, an SQLite file of {size:.0f} MB",
        ["command", "seconds", "processor seconds"],
        [[each["command"], f"{each['seconds']:.2f}", f"{each['processor_seconds']:.2f}"] for each in figures],
    )
    headline = {each["command"]: each["processor_seconds"] for each in figures}
    common.conclude(arguments.json, {"runs": arguments.runs, "rounds": arguments.rounds}, figures, headline)


def _last_artifact(root: Path) -> int:
    known = connect(connection(configuration.load(MOVIELENS_CONFIG, [f"root={root}"])))
    return max(artifact.id for artifact in known.get_artifacts_by_type("PushedModel"))


if __name__ == "__main__":
    main()
