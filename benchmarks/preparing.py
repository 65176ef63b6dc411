"""What preparing a day costs, from the logs to the model's inputs: seconds and processor seconds of each step.

One invented day (`benchmarks.logs`), declared as in `benchmarks/service`, goes through the executors of the pipeline's own steps,
one behind the other in this process, which has imported all that they need before.
"""

import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import common, logs
from benchmarks.row_features import SERVICE, processor_seconds
from schemas import contract, located_yaml
from schemas.features import FILE_NAME, FeatureSpec


def prepare(folder: Path, day: date, workers: int) -> dict[str, dict[str, float]]:
    """Run the steps on data that lies in a folder; seconds and processor seconds, children's included, of each."""
    from tfx.types import standard_artifacts

    from components import utc
    from components.analysis.component import Analyzer
    from components.artifacts import Analysis, Counts
    from components.counts.component import Counter
    from components.counts.settings import CountsSettings
    from components.example_gen.catalogue import CatalogueExecutor
    from components.example_gen.day_driver import Request
    from components.example_gen.interactions import InteractionExecutor
    from components.example_gen.settings import ExampleGenSettings
    from components.statistics_gen.component import ColumnStatisticsExecutor
    from components.transform.component import AnalysedTransform

    spec = located_yaml.validate(FeatureSpec, located_yaml.read(SERVICE / FILE_NAME))
    source = {"format": "parquet"}
    settings = ExampleGenSettings.model_validate(
        {
            "interactions": {"path": f"{folder}/interactions/{{YYYY}}-{{MM}}-{{DD}}", **source},
            "catalogue": {"path": f"{folder}/catalogue/{{YYYY}}-{{MM}}-{{DD}}", **source},
        }
    )
    measured: dict[str, dict[str, float]] = {}

    def artifact(kind: type[Any], name: str) -> Any:
        made = kind()
        made.uri = str(folder / "made" / name)
        Path(made.uri).mkdir(parents=True)
        return made

    def run(step: str, executor: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], told: Any) -> None:
        given = {name: [each] for name, each in inputs.items()}
        begun, used = time.perf_counter(), processor_seconds()
        common.executor(executor, workers).Do(given, {name: [each] for name, each in outputs.items()}, told)
        measured[step] = {"seconds": time.perf_counter() - begun, "processor_seconds": processor_seconds() - used}

    request = Request.parameters(settings, spec, day)
    declared = {"feature_spec": spec.model_dump_json(), "day": utc.span(day)}
    catalogue, examples = (artifact(standard_artifacts.Examples, name) for name in ("catalogue", "examples"))
    run("Catalogue", CatalogueExecutor, {}, {"examples": catalogue}, request)
    run("Interactions", InteractionExecutor, {"catalogue": catalogue}, {"examples": examples}, request)
    statistics = artifact(standard_artifacts.ExampleStatistics, "statistics")
    excluded = {"exclude_splits": "[]"}
    read = {"examples": examples}
    run("InteractionStatistics", ColumnStatisticsExecutor, read, {"statistics": statistics}, excluded)
    analysis = artifact(Analysis, "analysis")
    run("Analyzer", Analyzer.EXECUTOR_SPEC.executor_class, read, {"analysis": analysis}, declared)
    counting = {**declared, "settings": CountsSettings().model_dump_json()}
    run("Counter", Counter.EXECUTOR_SPEC.executor_class, read, {"counts": artifact(Counts, "counts")}, counting)
    schema = artifact(standard_artifacts.Schema, "schema")
    (Path(schema.uri) / "schema.pbtxt").write_text(str(contract.load(SERVICE, spec).interactions))
    made = {
        "transform_graph": artifact(standard_artifacts.TransformGraph, "graph"),
        "transformed_examples": artifact(standard_artifacts.Examples, "transformed"),
    }
    given = {"examples": examples, "schema": schema, "analysis": analysis}
    run(
        "Transform",
        AnalysedTransform.EXECUTOR_SPEC.executor_class,
        given,
        made,
        {"feature_spec": spec.model_dump_json()},
    )
    return measured


def main() -> None:
    """Run the command line."""
    parser = common.parser(__doc__ or "")
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=1, help="processes of Beam's local runner")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logs.write(logs.World(arguments.users, arguments.items, 1), [arguments.interactions], folder)
        measured = prepare(folder, logs.FIRST_DAY, arguments.workers)
    total = {key: sum(each[key] for each in measured.values()) for key in ("seconds", "processor_seconds")}
    common.show(
        f"preparing {arguments.interactions:,} interactions",
        ["step", "seconds", "processor seconds"],
        [
            [step, f"{each['seconds']:.1f}", f"{each['processor_seconds']:.1f}"]
            for step, each in {**measured, "all": total}.items()
        ],
    )
    told = {name: getattr(arguments, name) for name in ("interactions", "users", "items", "workers")}
    common.conclude(arguments.json, told, measured, {**total, "peak_gib": common.peak_gib()})


if __name__ == "__main__":
    main()
