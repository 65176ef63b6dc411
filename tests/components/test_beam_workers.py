"""Who runs a step by Beam is no matter: one process, several, or workers that a job server sends the work to leave the same bytes.

`test_indexer.py` and `test_ranker.py` have the same of theirs, `test_evaluator.py` of its metrics.
"""

import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tfx import types
from tfx.dsl.components.base import base_beam_executor
from tfx.types import standard_artifacts

from benchmarks import logs
from benchmarks.logs import FIRST_DAY, World, write
from components import utc
from components.analysis.component import Analyzer
from components.artifacts import Analysis
from components.example_gen import examples
from components.example_gen.catalogue import CatalogueExecutor
from components.example_gen.day_driver import Request
from components.example_gen.interactions import InteractionExecutor
from components.records import read_records
from components.transform.component import AnalysedTransform
from components.transform.file_rows import FILE_ROWS, rows_of_files
from pipeline import config as configuration
from pipeline.beam_settings import JobServerSettings, RunnerSettings, WorkerSettings
from schemas import contract
from tests.engines import ENGINES, Engine, flink_cluster, needs_flink, worker_pool

PROJECT = Path(__file__).parents[2]
CONFIG = PROJECT / "benchmarks" / "service" / "service.yaml"
PARTITIONS = 7
LOCAL = RunnerSettings()
THREADS = RunnerSettings(options=("--direct_num_workers=2", "--direct_running_mode=multi_threading"))
PROCESSES = RunnerSettings(workers=2)
JOB_SERVER = RunnerSettings(
    options=(
        "--runner=PortableRunner",
        "--job_endpoint=embed",
        "--environment_type=LOOPBACK",
        f"--setup_file={PROJECT / 'setup.py'}",
    ),
)


class Steps:
    """The steps that bring a day's logs to the Trainer."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._config = configuration.load(CONFIG, [f"root={root}"])
        self._spec = self._config.feature_spec()
        self._day = FIRST_DAY + timedelta(days=1)

    def catalogue(self, runner: RunnerSettings) -> types.Artifact:
        return self._run(CatalogueExecutor, runner, {}, standard_artifacts.Examples, "examples", self._request)

    def interactions(self, runner: RunnerSettings, catalogue: types.Artifact) -> types.Artifact:
        # As on a day that continues from an earlier model: the window is the day alone.
        inputs = {"catalogue": [catalogue]}
        return self._run(InteractionExecutor, runner, inputs, standard_artifacts.Examples, "examples", self._request)

    def analysis(self, runner: RunnerSettings, interactions: types.Artifact) -> types.Artifact:
        properties = {"feature_spec": self._spec.model_dump_json(), "day": utc.span(self._day)}
        inputs = {"examples": [interactions], "base_model": []}
        return self._run(Analyzer.EXECUTOR_SPEC.executor_class, runner, inputs, Analysis, "analysis", properties)

    def transformed(
        self, runner: RunnerSettings, interactions: types.Artifact, analysis: types.Artifact
    ) -> types.Artifact:
        schema = standard_artifacts.Schema()
        schema.uri = str(self._folder("schema"))
        declared = contract.load(self._config.dataset, self._spec).interactions
        (Path(schema.uri) / "schema.pbtxt").write_text(str(declared))
        properties = {"feature_spec": self._spec.model_dump_json()}
        graph = standard_artifacts.TransformGraph()
        graph.uri = str(self._folder("graph"))
        inputs = {"examples": [interactions], "schema": [schema], "analysis": [analysis]}
        return self._run(
            AnalysedTransform.EXECUTOR_SPEC.executor_class, runner, inputs, standard_artifacts.Examples, "transformed_examples",
            properties, {"transform_graph": [graph]},
        )  # fmt: skip

    @property
    def _request(self) -> dict[str, Any]:
        return Request.parameters(self._config.data, self._spec, self._day)

    def _run(
        self,
        executor: Callable[[Any], Any],
        runner: RunnerSettings,
        inputs: dict[str, list[types.Artifact]],
        kind: type[types.Artifact],
        key: str,
        properties: dict[str, Any],
        more: dict[str, list[types.Artifact]] | None = None,
    ) -> types.Artifact:
        made = kind()
        made.uri = str(self._folder(key))
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=runner.arguments, tmp_dir=str(self._folder("tmp")), unique_id="1"
        )
        executor(context).Do(inputs, {key: [made], **(more or {})}, properties)
        return made

    def _folder(self, name: str) -> Path:
        folder = self._root / "out" / f"{len(list((self._root / 'out').glob('*')))}-{name}"
        folder.mkdir(parents=True)
        return folder


def files(artifact: types.Artifact) -> dict[str, bytes]:
    root = Path(artifact.uri)
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    """A day of 3,000 interactions in six files, in enough partitions that workers take them in another order."""
    root = tmp_path_factory.mktemp("service")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "ROWS_A_FILE", 500)
        write(World(users=150, items=300, days=2), [500, 3000], root / "data")
        read = (root / "data" / "interactions").rglob("*.parquet")  # the day before too, for histories
        size = sum(path.stat().st_size for path in read)
        patch.setattr(examples, "PARTITION_BYTES", -(-size // PARTITIONS))
        yield Steps(root)


@pytest.fixture(scope="module")
def catalogue(steps: Steps) -> types.Artifact:
    return steps.catalogue(LOCAL)


@pytest.fixture(scope="module")
def interactions(steps: Steps, catalogue: types.Artifact) -> types.Artifact:
    made = steps.interactions(LOCAL, catalogue)
    assert sum(name.startswith("Split-train/") for name in files(made)) == PARTITIONS
    return made


def test_threads_write_the_same_as_one_process(
    steps: Steps, catalogue: types.Artifact, interactions: types.Artifact
) -> None:
    assert files(steps.catalogue(THREADS)) == files(catalogue)
    assert files(steps.interactions(THREADS, catalogue)) == files(interactions)
    analyses = [steps.analysis(runner, interactions) for runner in (LOCAL, THREADS)]
    assert files(analyses[0]) == files(analyses[1])
    one, two = (steps.transformed(runner, interactions, analyses[0]) for runner in (LOCAL, THREADS))
    assert files(one) == files(two)
    rows = rows_of_files([f"{one.uri}/Split-train/*"])
    assert len(rows) == PARTITIONS and (Path(one.uri) / FILE_ROWS).exists()
    assert rows == {path: len(list(read_records([path]))) for path in rows}


def test_several_processes_write_the_same_as_one(
    steps: Steps, catalogue: types.Artifact, interactions: types.Artifact
) -> None:
    assert files(steps.interactions(PROCESSES, catalogue)) == files(interactions)


def test_a_job_server_is_given_the_project_and_its_workers_leave_the_same(
    steps: Steps, catalogue: types.Artifact, interactions: types.Artifact, tmp_path: Path
) -> None:
    # Beam's own job server, in this process: the protocol is that of Flink's and Spark's, the workers are called back.
    assert files(steps.interactions(JOB_SERVER, catalogue)) == files(interactions)


@pytest.mark.parametrize("server", [*ENGINES, pytest.param(flink_cluster, marks=needs_flink)])
def test_an_engine_and_workers_of_a_pool_leave_the_same(
    steps: Steps, catalogue: types.Artifact, interactions: types.Artifact, tmp_path: Path, server: Engine
) -> None:
    with server(tmp_path / "engine.log") as endpoint, worker_pool(tmp_path / "pool.log") as pool:
        engine = RunnerSettings(job_server=JobServerSettings(endpoint=endpoint, workers=WorkerSettings(address=pool)))
        assert files(steps.interactions(engine, catalogue)) == files(interactions)


def test_setup_file_ships_everything_that_workers_import(tmp_path: Path) -> None:
    # As Beam builds it from --setup_file, and as a worker installs it, but for the dependencies.
    build = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    modules = [p for room in ("components", "pipeline", "schemas", "serving") for p in (PROJECT / room).rglob("*.py")]
    data = [
        path
        for kind in ("schemas/*/*.yaml", "schemas/*/*.pbtxt", "pipeline/configs/*.yaml")
        for path in PROJECT.glob(kind)
    ]
    assert data
    needed = [*modules, *data]
    assert {str(path.relative_to(PROJECT)) for path in needed} <= inside
    assert not any(name.startswith("tests/") for name in inside)
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(target), str(built)], check=True, capture_output=True)
    code = "import components.evaluator.expectation as e, schemas.features as f; print(e.__file__, f.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=target,
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(target)},
    )
    assert all(Path(path).is_relative_to(target) for path in found.stdout.split())
