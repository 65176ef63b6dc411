"""A version that would be pushed, served, and what it answers compared with what the trained model answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer import files, filter_columns
from components.indexer.embedding import candidate_id
from components.indexer.shards import WHOLE, Shard, shards_of
from components.infra_validator.conditions import conditions, with_condition
from components.infra_validator.parity import Parity
from components.infra_validator.serving_tensorflow import lacking_faults
from components.progress import progress
from components.pusher.files import Source
from components.trainer.trained import TrainedTowers
from ndr_client import Client
from ndr_client.faiss_client import columns_of
from ndr_client.served import (
    EMBEDDING,
    EXAMPLES,
    EXAMPLES_SIGNATURE,
    INDEX,
    ITEM_IDS,
    ITEM_TOWER,
    QUERY_TOWER,
    SCORES,
    K,
)
from schemas.features import FilterColumn
from serving.server import EmbeddedServer, ServerSettings
from serving.settings import Limits, ServerConfig, ServingTensorFlow

BATCH = 256
# Of the held-out ones: files hold users by their hashes, and examples in the order of theirs, so the first are a sample.
CHECKED_QUERIES = 16_384
CHECKED_ITEMS = 2048  # of the catalogue; the same tower embedded all of them in the same way
RETRIEVED = 100
UNBOUNDED = ServerConfig(
    limits=Limits(request_bytes=1 << 30, values=1 << 30, comparisons=1 << 40, receive_seconds=600.0)
)
TIMEOUT_SECONDS = 600.0  # for a batch over a large catalogue, on a busy machine


@dataclass(frozen=True)
class _Asked:
    """A served retriever.

    Attributes:
        client: asks its server.
        name: its name.
    """

    client: Client
    name: str

    def __call__(self, examples: list[bytes], k: int) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """Return the ids and the scores of the first k items of queries."""
        inputs = {EXAMPLES: np.array(examples, object), K: np.full(len(examples), k, np.int32)}
        outputs = self.client.predict(self.name, EXAMPLES_SIGNATURE, inputs).outputs
        return outputs[ITEM_IDS], outputs[SCORES]


@dataclass(frozen=True)
class Version:
    """A version that would be pushed.

    Attributes:
        sources: the place of each of its components.
        index: the folder of the index.
        load_trained: loads the trained towers, which its answers are compared with.
        queries: patterns of the held-out interactions' files.
        catalogue: patterns of the catalogue's files.
        filters: the columns that requests may filter by.
        least_recall: the share of the exact first items that the retriever must find; None for any.
    """

    sources: Mapping[str, Source]
    index: str
    load_trained: Callable[[], TrainedTowers]
    queries: Sequence[str]
    catalogue: Sequence[str]
    filters: Mapping[str, FilterColumn]
    least_recall: float | None

    @cached_property
    def trained(self) -> TrainedTowers:
        """The trained towers."""
        return self.load_trained()

    def faults(self, folder: Path, tensorflow: ServingTensorFlow) -> list[str]:
        """Serve the version, and list why it must not be pushed; empty if it may be.

        Args:
            folder: it was pushed to this one, for the trial.
            tensorflow: the release that will serve it.
        """
        retrievers, faults = files.read_description(self.index).retrievers, list[str]()
        # One retriever after another, so that a shard is in memory at a time.
        for name, shard in zip(retrievers, shards_of(len(retrievers)), strict=True):
            number = None if shard == WHOLE else shard.number
            with EmbeddedServer(folder, ServerSettings(port=0, rest_port=0, config=UNBOUNDED, shard=number)) as server:
                server.versions.refresh()
                if server.versions.live is None:
                    return sorted(
                        {state.message for name in self.sources for state in server.versions.states(name).values()}
                    )
                if lacking := self._lacking(retrievers, tensorflow):
                    return lacking
                with Client(f"127.0.0.1:{server.port}", timeout=TIMEOUT_SECONDS) as client:
                    faults += self._differences(_Asked(client, name), shard)
        return list(dict.fromkeys(faults))

    def _lacking(self, retrievers: Sequence[str], tensorflow: ServingTensorFlow) -> list[str]:
        """List the operations that the version has and the release that serves it has not."""
        return [
            f"{name}: {fault}"
            for name in (QUERY_TOWER, ITEM_TOWER, *retrievers)
            for fault in lacking_faults(Path(self.sources[name].folder), tensorflow)
        ]

    def _differences(self, asked: _Asked, shard: Shard) -> list[str]:
        """Compare the towers and a retriever with the trained model; return a sentence for each kind of difference.

        Args:
            asked: the retriever.
            shard: the items that it has.
        """
        items = files.read(self.index, shard)
        described = files.read_description(self.index if shard == WHOLE else f"{self.index}/{shard.name(INDEX)}")
        is_exact, vectors = described.kind == "flat", described.settings["vectors"]
        parity = Parity(items, is_exact, vectors, least_recall=self.least_recall)
        filtered = list[str]()
        k = min(RETRIEVED, len(items.ids))
        progress("sends held-out queries", 0.4)
        for examples in islice(_batches(self.queries), CHECKED_QUERIES // BATCH):
            queries = self.trained.embed_queries(examples)
            parity.queries(asked.client.embed(QUERY_TOWER, examples).outputs[EMBEDDING], queries)
            parity.retrieved(*asked(examples, k), queries, k, self.trained.repeats_of(examples))
        if self.filters:
            progress("asks with conditions", 0.8)
            columns = filter_columns.read(self.catalogue, self.filters, items.ids, shard)
            for examples in islice(_batches(self.queries), 1):
                filtered += self._filtered(asked, examples, items, columns, is_exact, vectors)
        for examples in islice(_batches(self.catalogue), CHECKED_ITEMS // BATCH):
            if of_shard := [example for example in examples if shard.has(candidate_id(example))]:
                served = asked.client.embed(ITEM_TOWER, of_shard).outputs[EMBEDDING]
                parity.items(
                    [candidate_id(example) for example in of_shard], served, self.trained.embed_items(of_shard)
                )
        return [*parity.faults(), *filtered]

    def _filtered(
        self,
        asked: _Asked,
        examples: list[bytes],
        items: files.ItemEmbeddings,
        columns: pa.Table,
        is_exact: bool,
        vectors: str,
    ) -> Iterator[str]:
        """Ask the same queries with each condition; yield a sentence for each kind of difference."""
        queries, repeats = self.trained.embed_queries(examples), self.trained.repeats_of(examples)
        meets = columns_of(columns)
        for condition in conditions(columns):
            rows = np.flatnonzero(meets.passing([condition]))
            if not len(rows):
                continue
            those = files.ItemEmbeddings([items.ids[row] for row in rows], items.embeddings[rows])
            parity = Parity(those, is_exact, vectors, finds_all=True)
            k = min(RETRIEVED, len(rows))
            parity.retrieved(*asked(with_condition(examples, condition), k), queries, k, repeats)
            yield from (
                f"{fault}, asked with {condition} of the {len(rows):,} items that meet it" for fault in parity.faults()
            )


def _batches(patterns: Sequence[str]) -> Iterator[list[bytes]]:
    """Yield serialised examples, `BATCH` at a time."""
    paths = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    for batch in tf.data.TFRecordDataset(paths, compression_type="GZIP").batch(BATCH).as_numpy_iterator():
        yield batch.tolist()
