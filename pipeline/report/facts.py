"""Reads the page's content from ML Metadata and from the runs' outputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TypeVar

import pandas as pd
from google.protobuf.message import DecodeError
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components import recorded
from components.example_gen.split_names import TRAIN_SPLIT
from components.trainer.names import COUNTED, ESTIMATED, FREQUENCIES, LOSS_CURVE
from pipeline.config import Config
from pipeline.monitoring import skew_file
from pipeline.monitoring.skew_file import Skew
from pipeline.records import Artifact, Graph, Lineage, Records, Run, connection, has_begun
from pipeline.report.embedding_map import ItemMap, read_map
from pipeline.report.outcome import day_runs
from pipeline.tuning import file as tuning_file
from pipeline.tuning.file import Tuning
from schemas.errors import UserError

MOST_DAYS = 30
DRIFT_NODE = "InteractionDrift"

T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """Stands for something that cannot be shown; `why` is a sentence."""

    why: str


@dataclass(frozen=True)
class Distance:
    """How far a feature's distribution is from the previous span's; see `components.example_validator.settings`."""

    value: float
    limit: float


@dataclass(frozen=True)
class Frequencies:
    """Items per batch, counted and estimated; the n-th values of both belong to the same item."""

    counted: list[float]
    estimated: list[float]


@dataclass(frozen=True)
class Facts:
    """The page's content.

    Attributes:
        pipeline: its name.
        runs: all runs of the days shown, oldest first; not empty.
        days: each day's last run that had anything to do, by day.
        live: the version whose content is served, and its day; None if nothing is live.
        graphs: by run of `days`, its inputs and outputs.
        losses: by run of `days`, the mean loss of each epoch.
        drift: by run of `days`, the distance of each feature.
        skew: the last measurement of `ndr skew`.
        tuning: the last search of `ndr tune`.
        frequencies: by day, those of `seen_in` and of the day with the most training data: a quiet day has little to compare.
        items: the map of the items of `seen_in`.
        seen_in: the last of `days` that trained a model; None if none did.
    """

    pipeline: str
    runs: list[Run]
    days: list[Run]
    live: tuple[int, str] | Missing | None
    graphs: Mapping[str, Graph]
    losses: Mapping[str, list[float] | Missing]
    drift: Mapping[str, dict[str, Distance] | Missing]
    skew: Skew | Missing
    tuning: Tuning | Missing
    frequencies: Mapping[str, Frequencies | Missing]
    items: ItemMap | Missing
    seen_in: Run | None


def gather(config: Config, first: date | None, last: date | None) -> Facts:
    """Read the facts of a range of days.

    Args:
        config: the configuration.
        first: the first UTC day; by default the newest 30 days with runs, up to `last`.
        last: the last UTC day; by default the newest with a run.

    Raises:
        UserError: ML Metadata cannot be read, or has no run of these days.
    """
    runs = _runs(config, first, last)
    days = day_runs(runs)
    lineage = Lineage(connection(config))
    graphs = {run.run: lineage.of_run(run.run) for run in days}
    trained = [run for run in days if _made(graphs[run.run], "ModelRun")]
    seen_in = trained[-1] if trained else None
    nothing = Missing("No model was trained on these days.")
    return Facts(
        pipeline=config.name,
        runs=runs,
        days=days,
        live=or_missing("What is live", lambda: _live(config)),
        graphs=graphs,
        losses={run: or_missing("The loss", partial(read_losses, graph)) for run, graph in graphs.items()},
        drift={run: or_missing("The drift", partial(read_drift, graph)) for run, graph in graphs.items()},
        skew=or_missing("The skew", lambda: skew_file.read(config.root)),
        tuning=or_missing("The search for settings", lambda: tuning_file.read(config.root)),
        frequencies={
            run.date: or_missing("The frequencies", partial(read_frequencies, graphs[run.run]))
            for run in (seen_in, max(trained, key=_training_examples, default=None))
            if run
        },
        items=or_missing("The map", lambda: _map(config, graphs[seen_in.run])) if seen_in else nothing,
        seen_in=seen_in,
    )


def read_losses(graph: Graph) -> list[float]:
    """Read the mean loss of each epoch."""
    return pd.read_csv(place(graph, "ModelRun") / LOSS_CURVE)["loss"].astype(float).tolist()


def read_drift(graph: Graph) -> dict[str, Distance]:
    """Read the distance of each feature's training split from the previous span's; empty if no limit needs it."""
    path = place(graph, "ExampleAnomalies", DRIFT_NODE) / f"SplitPair-{TRAIN_SPLIT}_{TRAIN_SPLIT}" / "SchemaDiff.pb"
    if not path.exists():
        raise UserError("There was no day before to compare with.")
    anomalies = anomalies_pb2.Anomalies.FromString(path.read_bytes())
    return {
        ".".join(info.path.step): Distance(measured.value, measured.threshold)
        for info in anomalies.drift_skew_info
        for measured in info.drift_measurements
    }


def read_frequencies(graph: Graph) -> Frequencies:
    """Read the Trainer's frequencies."""
    path = place(graph, "ModelRun") / FREQUENCIES
    if not path.exists():
        raise UserError("The run's Trainer stored no frequencies; its code was older.")
    frame = pd.read_parquet(path)
    return Frequencies(frame[COUNTED].tolist(), frame[ESTIMATED].tolist())


def place(graph: Graph, kind: str, node: str = "") -> Path:
    """Return the folder of an artifact of a run.

    Raises:
        UserError: the run did not make it, or it is gone.
    """
    artifacts = _made(graph, kind, node)
    if not artifacts:
        raise UserError(f"The run made no {kind}.")
    path = Path(artifacts[-1].uri)
    if artifacts[-1].state == "deleted" or not path.exists():
        raise UserError(f"The run's {kind} was removed; retention keeps those of the newest days.")
    return path


def _runs(config: Config, first: date | None, last: date | None) -> list[Run]:
    all_runs = Records(connection(config)).runs() if has_begun(config) else []
    begin, end = (first or date.min).isoformat(), (last or date.max).isoformat()
    runs = [run for run in all_runs if begin <= run.date <= end and not run.is_refresh]
    if first is None:
        newest = sorted({run.date for run in runs})[-MOST_DAYS:]
        runs = [run for run in runs if run.date in newest]
    if not runs:
        others = (
            f"the runs that it knows are of {min(r.date for r in all_runs)} to {max(r.date for r in all_runs)}"
            if all_runs
            else "it knows none"
        )
        raise UserError(
            f"ML Metadata has no run of {first or 'the first day'} to {last or 'the last day'} to report on; {others}. "
            "First: ndr run --config ... --date ..."
        )
    return runs


def _made(graph: Graph, kind: str, node: str = "") -> list[Artifact]:
    """Return the artifacts of a type that a run's steps made, or the cache returned."""
    outputs = {edge.artifact for edge in graph.edges if edge.kind == "output"}
    return [
        artifact
        for id, artifact in graph.artifacts.items()
        if id in outputs and artifact.type == kind and node in ("", artifact.node)
    ]


def _training_examples(run: Run) -> int:
    return run.rows.get("interactions", {}).get("splits", {}).get(TRAIN_SPLIT, 0)


def _live(config: Config) -> tuple[int, str] | None:
    from components.pusher.versions import PushFolder  # imports TFX

    manifests = PushFolder(config.serving).manifests()
    return (manifests[-1].content, manifests[-1].day) if manifests else None


def _map(config: Config, graph: Graph) -> ItemMap:
    catalogues = [
        artifact.node
        for artifact in _made(graph, "Examples")
        if recorded.decoded(artifact.properties, recorded.ROWS).get("kind") == "catalogue"
    ]
    catalogue = place(graph, "Examples", catalogues[-1] if catalogues else "Catalogue")
    return read_map(place(graph, "ItemIndex"), catalogue, place(graph, "Analysis"), config.feature_spec())


def or_missing(what: str, read: Callable[[], T]) -> T | Missing:
    """Read something, or say why that fails: one part that fails does not fail the whole page."""
    try:
        return read()
    except UserError as error:
        return Missing(str(error))
    except (OSError, ValueError, KeyError, DecodeError) as error:
        return Missing(f"{what} cannot be read: {type(error).__name__}: {error}.")
