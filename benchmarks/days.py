"""Interactions, catalogues and towers as benchmarks read them: what a run left, or what the pipeline's first steps make of logs."""

import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.evaluator import facts
from components.example_gen.catalogue import CatalogueExecutor
from components.example_gen.day_driver import Request
from components.example_gen.interactions import InteractionExecutor
from components.indexer.embedding import LoadedTower
from ndr_client.served import ITEM_TOWER, QUERY_TOWER
from pipeline import config as configuration
from pipeline.metadata import Records
from pipeline.store import connection
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP

EPOCH = date(1970, 1, 1)
MICROSECONDS_A_DAY = 86_400_000_000
BATCH = 4096


class Interactions(NamedTuple):
    """Interactions with a reward, in the order of users, times and items.

    Attributes:
        examples: serialised raw tf.Examples.
        users: [interactions] bytes.
        items: [interactions] bytes.
        times: [interactions] int64, microseconds since 1970-01-01.
        histories: the items of each one's history, oldest first.
    """

    examples: list[bytes]
    users: NDArray[np.object_]
    items: NDArray[np.object_]
    times: NDArray[np.int64]
    histories: pa.ListArray

    def chosen(self, rows: NDArray[np.int64]) -> "Interactions":
        """Some of them."""
        return Interactions(
            [self.examples[row] for row in rows],
            self.users[rows],
            self.items[rows],
            self.times[rows],
            self.histories.take(pa.array(rows)),
        )


class Day(NamedTuple):
    """A day's run.

    Attributes:
        training: the serialised examples of its training split.
        held_out: the serialised examples of its other split.
        ids: of the catalogue's items.
        catalogue: the serialised examples of the items.
        model: the folder of the towers that it trained.
        analysis: the folder of the vocabularies.
    """

    training: list[bytes]
    held_out: list[bytes]
    ids: pa.Array
    catalogue: list[bytes]
    model: str
    analysis: str


class Pipeline(NamedTuple):
    """A pipeline on a root of its own.

    Attributes:
        config: the file of its configuration.
        settings: KEY=VALUE, the root among them.
    """

    config: Path
    settings: list[str]

    @property
    def resolved(self) -> configuration.Config:
        """The configuration."""
        return configuration.load(self.config, self.settings)

    @property
    def records(self) -> Records:
        """Its ML Metadata."""
        return Records(connection(self.resolved))

    def command(self, *words: str) -> None:
        """Runs an `ndr` command.

        Raises:
            SystemExit: it did not end well.
        """
        settings = [part for setting in self.settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "pipeline.cli", *words, "--config", str(self.config), *settings]
        status = subprocess.run(command, check=False).returncode
        if status:
            raise SystemExit(status)

    def day(self, day: date) -> Day:
        """Reads what a day's last complete run left."""
        records = self.records
        run = records.last_complete(self.resolved.name, day)
        assert run is not None, f"{day} is not complete"

        def made(artifact_type: str, by: str) -> str:
            return next(uri for uri in records.artifact_uris(run.run, artifact_type) if f"/{by}/" in uri)

        uris = records.example_uris(run.run)
        catalogue = read(f"{uris['catalogue']}/Split-catalogue/*")
        return Day(
            read(f"{uris['interactions']}/Split-train/*"),
            read(f"{uris['interactions']}/Split-eval/*"),
            facts.single(facts.decode(catalogue).column(CANDIDATE_ID)).cast(pa.binary()),
            catalogue,
            path_utils.serving_model_path(made("Model", "Trainer")),
            made("Analysis", "Analyzer"),
        )


def ingest(config: configuration.Config, day: date, folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Takes logs and a catalogue through the steps that make examples of them, where that has not been done.

    Args:
        config: says where they lie, and how many days are read.
        day: the last of the days.
        folder: destination.

    Returns:
        Serialised examples of the interactions, of both splits, and of the items.
    """
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")
        rmtree(unfinished, ignore_errors=True)
        parameters = Request.parameters(config.data, config.feature_spec(), day)
        catalogue, made = standard_artifacts.Examples(), standard_artifacts.Examples()
        catalogue.uri, made.uri = f"{unfinished}/catalogue", f"{unfinished}/interactions"
        CatalogueExecutor().Do({}, {"examples": [catalogue]}, parameters)
        InteractionExecutor().Do({"catalogue": [catalogue]}, {"examples": [made]}, parameters)
        unfinished.rename(folder)
    return read(f"{folder}/interactions/Split-*/*"), read(f"{folder}/catalogue/Split-catalogue/*")


def read(pattern: str) -> list[bytes]:
    """The serialised examples of gzipped TFRecords."""
    files = tf.data.Dataset.list_files(pattern, shuffle=False)
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())


def interactions(serialized: Sequence[bytes], history: str | None) -> Interactions:
    """Those with a reward.

    Args:
        serialized: raw tf.Examples.
        history: the feature that holds the query's history.
    """
    whole = facts.decode(serialized)
    kept = np.flatnonzero(facts.single(whole.column(REWARD)).to_numpy() > 0.0)
    rows = whole.take(pa.array(kept))
    users, items, times = (
        facts.single(rows.column(name)).to_numpy(zero_copy_only=False) for name in (QUERY_ID, CANDIDATE_ID, TIMESTAMP)
    )
    examples = [serialized[row] for row in kept.tolist()]
    everything = Interactions(examples, users, items, times, facts.lists(rows, history))
    return everything.chosen(np.array(sorted(range(len(kept)), key=lambda n: (users[n], times[n], items[n])), np.int64))


def embeddings(
    day: Day, asked: Interactions, catalogue: list[bytes]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """[interactions, width] and [items, width] by the towers that a day trained, as they are served.

    Args:
        day: whose towers.
        asked: the queries.
        catalogue: serialised examples of the items.
    """
    found = []
    for tower, examples in ((QUERY_TOWER, asked.examples), (ITEM_TOWER, catalogue)):
        served = LoadedTower(f"{day.model}/{tower}")
        found.append(np.concatenate([served.embed(examples[n : n + BATCH]) for n in range(0, len(examples), BATCH)]))
    return found[0], found[1]
