"""The commands `ndr kubeflow ...`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from pipeline.arguments import MOVIELENS_CONFIG, ConfigOption, SetOption, reported

app = typer.Typer(help="Runs the pipeline on Kubeflow Pipelines 2.", no_args_is_help=True)


@app.callback()
def kubeflow() -> None:
    """Runs the pipeline on Kubeflow Pipelines 2."""


@app.command("compile")
def compile_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    config: ConfigOption = MOVIELENS_CONFIG,
    settings: SetOption = None,
) -> None:
    """Writes the pipeline as Kubeflow takes it. A run is given its day as `date`, and may be given `settings`."""
    from pipeline import config as configuration

    with reported():
        loaded = configuration.load(config, settings or [])
        from pipeline.terminal import quiet_terminal

        with TemporaryDirectory() as folder, quiet_terminal(Path(folder), "compile"):
            from pipeline.kubeflow import compiler

            text = compiler.compile_pipeline(loaded, config, settings or [])
        unfinished = output.with_name(f"{output.name}.unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(output)
        typer.echo(f"wrote {output}")
