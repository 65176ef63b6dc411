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
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray
from tfx.types import standard_artifacts

from benchmarks import common
from components.decoded import decode, lists, single
from components.evaluator.ranked import rank_feature
from components.evaluator.ranking import Ranks
from components.example_gen.catalogue import CatalogueExecutor
from components.example_gen.day_driver import Request
from components.example_gen.interactions import InteractionExecutor
from pipeline import config as configuration
from pipeline.records import Records, connection
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP

EPOCH = date(1970, 1, 1)
MICROSECONDS_A_DAY = 86_400_000_000
NOT_RANKED = -1


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
        """Select some of the interactions."""
        return Interactions(
            [self.examples[row] for row in rows],
            self.users[rows],
            self.items[rows],
            self.times[rows],
            self.histories.take(pa.array(rows)),
        )


class Ranked(NamedTuple):
    """Held-out interactions as the pipeline ranked them.

    Attributes:
        users: [interactions] bytes.
        items: [interactions] bytes.
        ranks: by scorer, where it ranks each one's item; NOT_RANKED where it does not.
    """

    users: NDArray[np.object_]
    items: NDArray[np.object_]
    ranks: dict[str, Ranks]


class Day(NamedTuple):
    """A day's run.

    Attributes:
        training: the serialised examples of its training split.
        held_out: the serialised examples of its other split.
        ids: of the catalogue's items.
        catalogue: the serialised examples of the items.
        analysis: the folder of the vocabularies.
    """

    training: list[bytes]
    held_out: list[bytes]
    ids: pa.Array
    catalogue: list[bytes]
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
        """Run an `ndr` command.

        Raises:
            SystemExit: it did not end well.
        """
        settings = [part for setting in self.settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "pipeline.cli", *words, "--config", str(self.config), *settings]
        status = subprocess.run(command, check=False).returncode
        if status:
            raise SystemExit(status)

    def day(self, day: date) -> Day:
        """Read what a day's last complete run left."""
        uris = self.records.example_uris(self._run(day))
        catalogue = read(f"{uris['catalogue']}/Split-catalogue/*")
        return Day(
            read(f"{uris['interactions']}/Split-train/*"),
            read(f"{uris['interactions']}/Split-eval/*"),
            single(decode(catalogue).column(CANDIDATE_ID)).cast(pa.binary()),
            catalogue,
            self._made(day, "Analysis", "Analyzer"),
        )

    def ranked(self, day: date) -> Ranked:
        """Read how a day's last complete run ranked what it held out."""
        return read_ranked(self._made(day, "Examples", "Ranker"))

    def _run(self, day: date) -> str:
        run = self.records.last_complete(self.resolved.name, day)
        assert run is not None, f"{day} is not complete"
        return run.run

    def _made(self, day: date, artifact_type: str, by: str) -> str:
        uris = self.records.artifact_uris(self._run(day), artifact_type)
        return next(uri for uri in uris if f"/{by}/" in uri)


def read_ranked(folder: str) -> Ranked:
    """Ranked examples; see `components.evaluator.ranked`."""
    rows = decode(read(f"{folder}/Split-eval/*"))
    prefix = rank_feature("")
    ranks = {}
    for name in (name for name in rows.schema.names if name.startswith(prefix)):
        places = np.full((rows.num_rows, 2), NOT_RANKED)
        column = rows.column(name)
        there = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False) > 0
        places[there] = pc.list_flatten(column).to_numpy().reshape(-1, 2)
        ranks[name.removeprefix(prefix)] = Ranks(places[:, 0], np.maximum(places[:, 1], 0))
    users, items = (single(rows.column(name)).to_numpy(zero_copy_only=False) for name in (QUERY_ID, CANDIDATE_ID))
    return Ranked(users, items, ranks)


def ingest(config: configuration.Config, day: date, folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Take logs and a catalogue through the steps that make examples of them, where that has not been done.

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
        common.executor(CatalogueExecutor).Do({}, {"examples": [catalogue]}, parameters)
        common.executor(InteractionExecutor).Do({"catalogue": [catalogue]}, {"examples": [made]}, parameters)
        unfinished.rename(folder)
    return read(f"{folder}/interactions/Split-*/*"), read(f"{folder}/catalogue/Split-catalogue/*")


def read(pattern: str) -> list[bytes]:
    """Return the serialised examples of gzipped TFRecords."""
    files = tf.data.Dataset.list_files(pattern, shuffle=False)
    return list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())


def interactions(serialized: Sequence[bytes], history: str | None) -> Interactions:
    """Those with a reward.

    Args:
        serialized: raw tf.Examples.
        history: the feature that holds the query's history.
    """
    whole = decode(serialized)
    kept = np.flatnonzero(single(whole.column(REWARD)).to_numpy() > 0.0)
    rows = whole.take(pa.array(kept))
    users, items, times = (
        single(rows.column(name)).to_numpy(zero_copy_only=False) for name in (QUERY_ID, CANDIDATE_ID, TIMESTAMP)
    )
    examples = [serialized[row] for row in kept.tolist()]
    everything = Interactions(examples, users, items, times, lists(rows, history))
    return everything.chosen(np.array(sorted(range(len(kept)), key=lambda n: (users[n], times[n], items[n])), np.int64))
