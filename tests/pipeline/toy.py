"""A pipeline of real TFX nodes that cost nothing: three texts, and a Pusher that takes the longest."""

import time
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx import v1 as tfx
from tfx.dsl.compiler import compiler
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.proto.orchestration import pipeline_pb2
from tfx.types import standard_artifacts

from pipeline import day_run

WRITERS = ("One", "Two", "Three")


@component
def Writer(  # noqa: N802
    text: Parameter[str], gate: Parameter[str], written: OutputArtifact[standard_artifacts.Examples]
) -> None:
    """Says that it runs, waits for the gate to open, and writes the text."""
    Path(f"{gate}.waits").touch()
    while not Path(gate).exists():
        time.sleep(0.02)
    (Path(written.uri) / "text").write_text(text)


@component
def Longest(  # noqa: N802
    one: InputArtifact[standard_artifacts.Examples],
    two: InputArtifact[standard_artifacts.Examples],
    three: InputArtifact[standard_artifacts.Examples],
    pushed: OutputArtifact[standard_artifacts.PushedModel],
) -> None:
    """Takes the longest of three texts."""
    texts = [(Path(each.uri) / "text").read_text() for each in (one, two, three)]
    (Path(pushed.uri) / "text").write_text(max(texts, key=len))


def compiled(root: Path, run_id: str) -> pipeline_pb2.Pipeline:
    """The pipeline of one run; a writer's gate is the file of its name below the root."""
    writers = [Writer(text=name, gate=str(root / name)).with_id(name) for name in WRITERS]
    inputs = {name.lower(): writer.outputs["written"] for name, writer in zip(WRITERS, writers, strict=True)}
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="toy",
        pipeline_root=str(root / "pipeline_root"),
        enable_cache=True,
        components=[*writers, Longest(**inputs).with_id("Pusher")],
    )
    made: pipeline_pb2.Pipeline = compiler.Compiler().compile(pipeline)
    day_run.name_run(made, run_id)
    return made


def launch(root: str, run_id: str, name: str, to: str) -> None:
    """Runs a node, in whatever process, by the connection of ML Metadata in hexadecimal digits."""
    day_run.launch(compiled(Path(root), run_id), name, mlmd.ConnectionConfig.FromString(bytes.fromhex(to)))
