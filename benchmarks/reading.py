"""What does it cost to read files as people have them? Processor seconds, with and without what a source declares.

A CSV of a million invented interactions goes through the part of the ingestion that reads and cleans (`CleanFiles`), in this
process: plainly, with conditions, with other spellings, with a reward that is made of columns, and with all of these. No row is
left out by any of them, so that all do the same work behind it. Then the whole step (`InteractionExampleGen`) does so plainly and
with all of these, by Beam in this process. The machine is shared: processor seconds, medians of rounds in turn.
"""

import json
import random
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfx.types import standard_artifacts

from benchmarks import common
from components import recorded
from components.example_gen.catalogue import CatalogueExecutor
from components.example_gen.cleaning import CleanFiles, Cleaning
from components.example_gen.columns import interaction_columns
from components.example_gen.day_driver import Request
from components.example_gen.interactions import InteractionExecutor
from components.example_gen.settings import ExampleGenSettings, SourceSettings
from components.example_gen.sources import SourceFile
from components.utc import MICROSECONDS_A_DAY, microseconds
from schemas.features import FeatureSpec

DAY = date(2026, 11, 24)
ROWS, ITEMS = 1_000_000, 20_000
CLEANED, INGESTED = "read and cleaned", "ingested"
PARTITIONS = 4
PLAIN, CONDITIONS, SPELLINGS, REWARDS, EVERYTHING = (
    "plainly", "where", "null_values, trim", "reward over a column, event", "all of these",
)  # fmt: skip
SPEC: dict[str, Any] = {
    "catalogue": {"item": "sku"},
    "tables": {"sku": {"width": 4, "hash_buckets": 8}, "other": {"width": 2, "hash_buckets": 4}},
    "query": {"device": {"kind": "id", "table": "other"}, "age": {"kind": "number"}},
    "item": {"sku": {"kind": "id", "table": "sku"}},
}
KEYS = {"user": "user", "item": "sku", "time": "at", "time_unit": "s"}
MADE = {
    "reward": {"column": "seconds", "over": "length", "clip": True},
    "event": {"column": "event", "weights": {"play": 0.5, "download": 1}},
}
WHERE = {"where": [{"column": "event", "one_of": ["play", "download"]}, {"column": "user", "missing": False}]}
WORDS = {"null_values": ["NULL", "\\N"], "trim": True}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    PLAIN: ({"reward": "share"}, {}),
    CONDITIONS: ({"reward": "share"}, WHERE),
    SPELLINGS: ({"reward": "share"}, WORDS),
    REWARDS: (MADE, {}),
    EVERYTHING: (MADE, WHERE | WORDS),
}
"""By name, what the feature specification says of an interaction, and what the source says."""


def write_log(path: Path, rows: int) -> None:
    """Write the log: users, items, times, rewards, their columns, kinds of events and devices."""
    chance = random.Random(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.write("user,sku,at,share,seconds,length,event,device,age\n")
        start = microseconds(DAY) // 1_000_000
        for number in range(rows):
            length = chance.randrange(60, 600)
            share = chance.random()
            file.write(
                f"user{chance.randrange(100_000)},item{chance.randrange(ITEMS)},{start + number * 86_400 // rows},{share:.3f},"
                f"{int(share * length)},{length},{chance.choice(('play', 'download'))},phone,{chance.randrange(80)}\n"
            )


def clean(path: Path, way: str) -> int:
    """Read and clean the log in one of the ways; return the number of remaining rows."""
    keys, source = WAYS[way]
    spec = FeatureSpec.model_validate({**SPEC, "interactions": {**KEYS, **keys}})
    cleaning = Cleaning(
        SourceSettings(path=str(path), format="csv", **source),
        interaction_columns(spec),
        "candidate_id",
        PARTITIONS,
        1024,
        (microseconds(DAY), microseconds(DAY) + MICROSECONDS_A_DAY),
        keys=spec.interactions,
    )
    *_, counted = CleanFiles(cleaning).process((0, SourceFile(str(path), path.stat().st_size, 0.0, DAY)))
    accounting = counted.value
    return int(
        accounting.rows - sum(rows for rows, _ in accounting.dropped.values()) - sum(accounting.filtered.values())
    )


def ingest(path: Path, way: str) -> int:
    """Run the whole step in one of the ways; return the number of examples written."""
    keys, source = WAYS[way]
    spec = FeatureSpec.model_validate({**SPEC, "interactions": {**KEYS, **keys}})
    with TemporaryDirectory() as folder:
        catalogue = Path(folder) / "catalogue.csv"
        catalogue.write_text("sku\n" + "".join(f"item{number}\n" for number in range(ITEMS)), encoding="utf-8")
        settings = ExampleGenSettings.model_validate(
            {
                "interactions": {"path": str(path), "format": "csv", **source},
                "catalogue": {"path": str(catalogue), "format": "csv"},
            }
        )
        parameters = Request.parameters(settings, spec, DAY)
        items, examples = standard_artifacts.Examples(), standard_artifacts.Examples()
        items.uri, examples.uri = f"{folder}/items", f"{folder}/examples"
        common.executor(CatalogueExecutor).Do({}, {"examples": [items]}, parameters)
        common.executor(InteractionExecutor).Do({"catalogue": [items]}, {"examples": [examples]}, parameters)
        rows = json.loads(examples.get_string_custom_property(recorded.ROWS))
        return int(sum(rows["splits"].values()))


def in_turn(
    work: Callable[[Path, str], int], ways: Sequence[str], log: Path, rows: int, rounds: int
) -> dict[str, list[float]]:
    """Processor seconds of each way in each round, after one that warms up."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            begun = time.process_time()
            left = work(log, way)
            if left != rows:
                raise ValueError(f"{way}: expected all {rows} rows, {left} are left")
            if number:
                seconds[way].append(time.process_time() - begun)
    return seconds


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, default=ROWS, help="of the log")
    arguments.add_argument("--rounds", type=int, default=5, help="after one that warms up")
    arguments.add_argument("--whole-rounds", type=int, default=3, help="of the whole step")
    arguments.add_argument("--log", type=Path, default=Path("var/benchmarks/reading.csv"), help="that is written")
    options = arguments.parse_args()
    write_log(options.log, options.rows)
    parts = {
        CLEANED: in_turn(clean, list(WAYS), options.log, options.rows, options.rounds),
        INGESTED: in_turn(ingest, [PLAIN, EVERYTHING], options.log, options.rows, options.whole_rounds),
    }
    headline: dict[str, float] = {}
    rows = []
    for part, seconds in parts.items():
        for way, found in seconds.items():
            ratio = common.median([mine / plain for mine, plain in zip(found, seconds[PLAIN], strict=True)])
            rows.append([f"{part}, {way}", f"{common.median(found):.2f}", f"{ratio:.3f}"])
            if way != PLAIN:
                headline[f"{common.key(part)}_{common.key(way)}_of_plain"] = ratio
        headline[f"{common.key(part)}_seconds"] = common.median(seconds[PLAIN])
    common.show(f"{options.rows:,} rows of CSV", ["", "processor seconds", "of plainly"], rows)
    settings = {"rows": options.rows, "rounds": options.rounds, "whole_rounds": options.whole_rounds}
    common.conclude(options.json, settings, parts, headline)


if __name__ == "__main__":
    main()
