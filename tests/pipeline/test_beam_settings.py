"""Which runner a step's Beam pipelines get, and with how many workers."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
)
from tfx.dsl.components.base import executor_spec
from tfx.utils import dependency_utils

from pipeline import config as configuration
from pipeline.beam_settings import JobServerSettings
from pipeline.config import Config
from pipeline.create import create_pipeline
from schemas.errors import UserError

PROJECT = Path(__file__).parents[2]
CONFIG = Path(configuration.__file__).parent / "configs" / "movielens.yaml"
BEAM_STEPS = {
    "Catalogue", "Interactions", "CatalogueStatistics", "InteractionStatistics", "NextDay", "Counter", "Analyzer", "Transform",
    "Indexer", "Ranker", "RetrievalEvaluator",
}  # fmt: skip


def load(tmp_path: Path, *settings: str) -> Config:
    return configuration.load(CONFIG, [f"root={tmp_path}", *settings])


def runners(config: Config) -> dict[str, tuple[str, int, str]]:
    """By step: the runner, its workers and their mode, as Beam reads what TFX is given."""
    found = {}
    for component in create_pipeline(config, date(1998, 4, 22)).components:
        spec = getattr(component, "executor_spec", None)
        if isinstance(spec, executor_spec.BeamExecutorSpec):
            options = PipelineOptions([str(argument) for argument in spec.beam_pipeline_args])
            direct = options.view_as(DirectOptions)
            runner = options.view_as(StandardOptions).runner
            found[component.id] = runner, direct.direct_num_workers, direct.direct_running_mode
    return found


def test_every_step_runs_in_this_process_unless_told_otherwise(tmp_path: Path) -> None:
    assert runners(load(tmp_path)) == dict.fromkeys(BEAM_STEPS, ("FnApiRunner", 1, "in_memory"))


def test_workers_are_processes_and_a_step_may_have_its_own_runner(tmp_path: Path) -> None:
    transform = "{Transform: {job_server: {endpoint: 'flink:8099'}}}"
    found = runners(load(tmp_path, "beam.workers=4", f"beam.steps={transform}"))
    assert found.pop("Transform")[0] == "PortableRunner"
    assert found == dict.fromkeys(BEAM_STEPS - {"Transform"}, ("FnApiRunner", 4, "multi_processing"))


def test_workers_that_beams_image_starts_import_our_package_first() -> None:
    # By the function of Beam that starts them there, in a process that has nothing of ours yet.
    options = PipelineOptions(JobServerSettings(endpoint="localhost:8099").arguments).view_as(SetupOptions)
    told = {"PIPELINE_OPTIONS": json.dumps({"beam:option:beam_plugins:v1": options.beam_plugins})}
    code = f"""
import os, sys
from apache_beam.runners.worker.sdk_worker_main import create_harness
assert "components" not in sys.modules
create_harness({ {**told, "CONTROL_API_SERVICE_DESCRIPTOR": ""}!r}, dry_run=True)
assert os.environ["TF_USE_LEGACY_KERAS"] == "1"
"""
    own = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=own, check=True)


def test_an_engine_is_told_where_its_workers_are_and_how_many_share_the_work(tmp_path: Path) -> None:
    server = "{endpoint: 'flink:8099', artifact_endpoint: '[::1]:8098', parallelism: 200, workers: {address: 'localhost:50001'}}"
    config = load(tmp_path, f"beam.job_server={server}", "beam.steps={Ranker: {workers: 2}}")
    options = PipelineOptions(config.beam.of("Transform").arguments)
    portable = options.view_as(PortableOptions)
    assert (portable.job_endpoint, portable.artifact_endpoint) == ("flink:8099", "[::1]:8098")
    assert (portable.environment_type, portable.environment_config) == ("EXTERNAL", "localhost:50001")
    assert options.view_as(FlinkRunnerOptions).parallelism == 200
    assert [each.job_server.endpoint for each in config.beam.engines if each.job_server] == ["flink:8099"]


def test_the_last_of_an_option_counts(tmp_path: Path) -> None:
    config = load(tmp_path, "beam.workers=2", "beam.options=[--direct_running_mode=multi_threading]")
    assert runners(config)["Ranker"] == ("FnApiRunner", 2, "multi_threading")


def test_tfx_packs_nothing_for_workers_that_have_it(tmp_path: Path) -> None:
    """It would, in every step, for seconds each."""
    arguments = load(tmp_path).beam.arguments
    assert dependency_utils.make_beam_dependency_flags(arguments) == arguments


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "beam={job_server: {endpoint: 'flink:8099'}, workers: 3}",
            "counts the processes of this machine; an engine is given job_server.parallelism",
        ),
        ("beam.workers=0", "beam.workers"),
        ("beam.steps={Trainer: {workers: 2}}", "expected steps that Beam runs (Catalogue, Interactions, "),
        ("beam=[--runner=FlinkRunner]", "beam"),
        ("beam.job_server={endpoint: flink}", "beam.job_server.endpoint: expected HOST:PORT, received 'flink'"),
        ("beam.job_server={endpoint: 'http://flink:8099'}", "expected HOST:PORT, received 'http://flink:8099'"),
        (
            "beam.job_server={endpoint: 'flink:8099', workers: {address: pool}}",
            "address: expected HOST:PORT, received 'pool'",
        ),
        ("beam.job_server={endpoint: 'flink:8099', workers: {type: docker}}", "'external' or 'loopback'"),
    ],
)
def test_invalid_beam_settings_are_rejected(tmp_path: Path, setting: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        create_pipeline(load(tmp_path, setting), date(1998, 4, 22))
    assert words in str(refused.value)
