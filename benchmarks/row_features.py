"""Measure the processor seconds that vectors, texts, looked-up features and a users' table add to ingestion.

The script ingests one generated day (`benchmarks.logs`) twice: as `benchmarks/service` declares it, and with more features. These
are a vector of 64 numbers and a text of each item, both looked up for the seed and over the history, and two columns of a users'
table. The steps are the pipeline's own. Each run has its own process, and the two kinds take turns.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks import common, logs
from schemas import located_yaml
from schemas.features import FILE_NAME, FeatureSpec

SERVICE = Path(__file__).parent / "service"
SIZE = 64  # of the vector
LOOKED_UP = {
    f"{prefix}_{name}": {"kind": "looked_up", "of": of, "feature": name}
    for prefix, of in (("seed", "latest"), ("past", "history"))
    for name in ("sound", "words", "categories")
}
KINDS = ("plain", "with all of these")


def specification(kind: str) -> FeatureSpec:
    """Return the service's specification, plain or with every measured feature."""
    spec = located_yaml.validate(FeatureSpec, located_yaml.read(SERVICE / FILE_NAME))
    if kind == "plain":
        return spec
    declared = spec.model_dump()
    declared["tables"] |= {"word": {"width": 16, "hash_buckets": 4096}, "country": {"width": 4, "hash_buckets": 64}}
    declared["item"] |= {
        "sound": {"kind": "vector", "size": SIZE},
        "words": {"kind": "text", "table": "word", "column": "title"},
    }
    declared["query"] |= {**LOOKED_UP, "country": {"kind": "id", "table": "country"}, "age": {"kind": "number"}}
    declared["users"] = {"user": "user", "features": ["country", "age"]}
    return FeatureSpec.model_validate(declared)


def write_data(folder: Path, interactions: int, users: int, items: int, days: int = 1) -> None:
    """Write days of logs, each with a catalogue that has vectors, and a users' table."""
    logs.write(logs.World(users, items, days), [interactions] * days, folder)
    chance = np.random.default_rng(0)
    for path in sorted((folder / "catalogue").glob("*/items.parquet")):
        catalogue = parquet.read_table(path)
        numbers = pa.array(chance.normal(size=catalogue.num_rows * SIZE).astype(np.float32))
        parquet.write_table(catalogue.append_column("sound", pa.FixedSizeListArray.from_arrays(numbers, SIZE)), path)
    known = pa.table(
        {
            "user": pa.array([f"u{number}" for number in range(users)]),
            "country": pa.array([f"c{number}" for number in chance.integers(40, size=users)]),
            "age": pa.array(chance.integers(15, 90, size=users)),
        }
    )
    parquet.write_table(known, folder / "users.parquet")


def ingest(kind: str, folder: Path, made: Path) -> dict[str, float]:
    """Ingest the data and return the processor seconds of each step, with its children. Call it in a new process."""
    from tfx.types import standard_artifacts

    from components.example_gen.catalogue import CatalogueExecutor
    from components.example_gen.day_driver import Request
    from components.example_gen.interactions import InteractionExecutor
    from components.example_gen.settings import ExampleGenSettings
    from components.example_gen.users import UserExecutor

    source = {"format": "parquet"}
    settings = ExampleGenSettings.model_validate(
        {
            "interactions": {"path": f"{folder}/interactions/{{YYYY}}-{{MM}}-{{DD}}", **source},
            "catalogue": {"path": f"{folder}/catalogue/{{YYYY}}-{{MM}}-{{DD}}", **source},
            "users": {"path": f"{folder}/users.parquet", **source},
        }
    )
    spec = specification(kind)
    parameters = Request.parameters(settings, spec, logs.FIRST_DAY)
    steps: Mapping[str, Any] = {
        "catalogue": CatalogueExecutor,
        **({"users": UserExecutor} if spec.users else {}),
        "interactions": InteractionExecutor,
    }
    inputs: dict[str, Any] = {}
    seconds = {}
    for name, executor in steps.items():
        examples = standard_artifacts.Examples()
        examples.uri = str(made / name)
        before = processor_seconds()
        common.executor(executor).Do(inputs if name == "interactions" else {}, {"examples": [examples]}, parameters)
        seconds[name] = processor_seconds() - before
        inputs[name] = [examples]
    return seconds


def measured(kind: str, folder: Path) -> dict[str, float]:
    """Call `ingest` in a new process."""
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-m", "benchmarks.row_features", "--ingest", kind, str(folder), made]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def main() -> None:
    """Run the command line."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ingest", nargs=3, metavar=("KIND", "DATA", "FOLDER"), help="one ingestion, in this process")
    arguments = parser.parse_args()
    if arguments.ingest:
        kind, data, made = arguments.ingest
        print(json.dumps(ingest(kind, Path(data), Path(made))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), arguments.interactions, arguments.users, arguments.items)
        rounds = [{kind: measured(kind, Path(folder)) for kind in KINDS} for _ in range(arguments.rounds)]
    ratio = statistics.median(_total(each[KINDS[1]]) / _total(each[KINDS[0]]) for each in rounds)
    steps = list(rounds[0][KINDS[1]])
    medians = {
        kind: {step: statistics.median(each[kind].get(step, 0.0) for each in rounds) for step in steps}
        for kind in KINDS
    }
    common.show(
        f"processor seconds of the ingestion of {arguments.interactions:,} interactions",
        ["step", *KINDS],
        [[step, *(f"{medians[kind][step]:.1f}" for kind in KINDS)] for step in steps],
    )
    told = {name: getattr(arguments, name) for name in ("interactions", "users", "items", "rounds")}
    common.conclude(arguments.json, told, rounds, {"ratio": ratio})


def _total(seconds: Mapping[str, float]) -> float:
    return sum(seconds.values())


def processor_seconds() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
