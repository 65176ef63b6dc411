"""Embeds the whole catalogue to identical files, whatever the runner and its number of workers."""

import heapq
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.digests import digest, partition_of
from components.indexer import files
from components.kept import Kept
from components.records import read_batches
from components.trainer.export import load_tower
from components.whole_files import write_whole
from ndr_client.served import BONUSES, EMBEDDING, EXAMPLES_SIGNATURE, REPEATED
from schemas.features import CANDIDATE_ID

BATCH = 512
PARTITION_BYTES = 1 << 20  # of compressed examples: some ten thousand items, which a worker holds with their embeddings

Item = tuple[bytes, bytes]
"""An item's id and its serialised example."""


class Queries(NamedTuple):
    """Queries embedded by their tower.

    Attributes:
        embeddings: [batch, width] float32.
        repeated: [batch, entries] ids of items to which the queries' histories give bonuses, b"" for none.
        bonuses: [batch, entries] float32, the bonuses. No entries without repeats.
    """

    embeddings: NDArray[np.float32]
    repeated: NDArray[np.object_]
    bonuses: NDArray[np.float32]


class LoadedTower:
    """A served tower, loaded once per process and shared by its workers.

    Args:
        folder: the folder of its SavedModel.
    """

    def __init__(self, folder: str) -> None:
        self._tower: Kept[Any] = Kept(lambda: load_tower(folder))

    @property
    def width(self) -> int:
        """The width of the embeddings.

        Raises:
            UserError: the tower cannot be loaded.
        """
        return int(self._tower.get().signatures[EXAMPLES_SIGNATURE].structured_outputs[EMBEDDING].shape[1])

    def embed(self, examples: list[bytes]) -> NDArray[np.float32]:
        """Embed [batch] serialised tf.Examples to [batch, width] unit vectors.

        Raises:
            UserError: the tower cannot be loaded.
        """
        embeddings: NDArray[np.float32] = self._outputs(examples)[EMBEDDING].numpy()
        return embeddings

    def embed_queries(self, examples: list[bytes]) -> Queries:
        """Embed queries, with the bonuses of their histories."""
        outputs = self._outputs(examples)
        if REPEATED not in outputs:
            nothing = np.zeros((len(examples), 0))
            return Queries(outputs[EMBEDDING].numpy(), nothing.astype(object), nothing.astype(np.float32))
        return Queries(*(outputs[name].numpy() for name in (EMBEDDING, REPEATED, BONUSES)))

    def _outputs(self, examples: list[bytes]) -> dict[str, tf.Tensor]:
        outputs: dict[str, tf.Tensor] = self._tower.get().signatures[EXAMPLES_SIGNATURE](tf.constant(examples))
        return outputs


class EmbedCatalogue(beam.PTransform):
    """Embeds a catalogue with an item tower and writes `items-*.arrow`; see `components.indexer.files`.

    The last bit of TensorFlow's results may depend on the rest of a batch, and Beam's bundles have any size. So a digest of the ids
    divides the items into partitions, more for a larger catalogue, and each is embedded in the order of its ids, in
    batches of `BATCH`. A worker holds one partition at a time.

    Args:
        catalogue: patterns of gzipped TFRecords of tf.Examples, one for each item.
        tower: the folder of the item tower's SavedModel.
        folder: destination.
        prepare: yields, for a serialised example, the item's id and the example to embed, or nothing to leave it out; by default
            each example unchanged.
        shards: the number of shards; each consists of whole partitions.
    """

    def __init__(
        self,
        catalogue: list[str],
        tower: str,
        folder: str,
        prepare: Callable[[bytes], Iterable[Item]] | None = None,
        shards: int = 1,
    ) -> None:
        super().__init__()
        self._catalogue = catalogue
        self._shards = shards
        self._tower = LoadedTower(tower)
        self._folder = folder
        self._prepare = prepare or _as_it_is

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Override of Beam's method.

        Raises:
            UserError: the tower cannot be loaded.
        """
        # Loads the tower here, before Beam would wrap an error.
        width = self._tower.width
        paths = matching_paths(self._catalogue)
        size = sum(tf.io.gfile.stat(path).length for path in paths)
        partitions = self._shards * max(1, -(-size // (PARTITION_BYTES * self._shards)))
        items = (
            pipeline
            | "Files" >> beam.Create(paths)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read_items, self._prepare, partitions)
        )
        # Includes partitions without items.
        every_partition = pipeline | "Parts" >> beam.Create([(partition, None) for partition in range(partitions)])
        return (
            (items, every_partition)
            | beam.Flatten()
            | "BringTogether" >> beam.GroupByKey()
            | "EmbedAndWrite" >> beam.Map(_embed_partition, self._tower, self._folder, partitions, width)
        )


class EmbedSomeQueries(beam.PTransform):
    """Embeds the queries of some interactions and writes them as NumPy's `.npy`, [queries, width] float32.

    A digest of the examples selects them: the same on any number of workers.

    Args:
        interactions: patterns of gzipped TFRecords of tf.Examples.
        count: the maximum number of queries.
        tower: the folder of the query tower's SavedModel.
        path: the file's path.
    """

    def __init__(self, interactions: list[str], count: int, tower: str, path: str) -> None:
        super().__init__()
        self._interactions = interactions
        self._count = count
        self._tower = LoadedTower(tower)
        self._path = path

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Override of Beam's method."""
        return (
            pipeline
            | "InteractionFiles" >> beam.Create(matching_paths(self._interactions))
            | "Spread" >> beam.Reshuffle()
            | "SomeOfFile" >> beam.FlatMap(_smallest, self._count)
            | "Some" >> beam.combiners.Top.Smallest(self._count)
            | "EmbedQueries" >> beam.Map(_embed_queries, self._tower, self._path)
        )


def candidate_id(serialized: bytes) -> bytes:
    """Return the item id of a serialised interaction or catalogue entry."""
    example = tf.train.Example.FromString(serialized)
    value: bytes = example.features.feature[CANDIDATE_ID].bytes_list.value[0]
    return value


def read_serialized(patterns: Sequence[str]) -> Iterator[list[bytes]]:
    """Read the serialised examples of gzipped TFRecords, some thousands at a time, many times as fast as Beam."""
    return read_batches(matching_paths(patterns))


def matching_paths(patterns: Sequence[str]) -> list[str]:
    """Return the files that match the patterns, in order."""
    return [path for pattern in patterns for path in sorted(tf.io.gfile.glob(pattern))]


def _as_it_is(example: bytes) -> list[Item]:
    return [(candidate_id(example), example)]


def _read_items(path: str, prepare: Callable[[bytes], Iterable[Item]], partitions: int) -> Iterator[tuple[int, Item]]:
    for examples in read_serialized([path]):
        for example in examples:
            for item, prepared in prepare(example):
                yield partition_of(item, partitions), (item, prepared)


def _embed_partition(
    element: tuple[int, Iterable[Item | None]], tower: LoadedTower, folder: str, partitions: int, width: int
) -> None:
    partition, items = element
    ordered = sorted(item for item in items if item)
    files.write_partition(folder, partition, partitions, width, _embedded(ordered, tower))


def _smallest(path: str, count: int) -> list[Item]:
    """Return the examples of a file with the smallest digests, after these."""
    examples = (example for several in read_serialized([path]) for example in several)
    return heapq.nsmallest(count, ((digest(example, 16), example) for example in examples))


def _embed_queries(chosen: list[Item], tower: LoadedTower, path: str) -> None:
    content = io.BytesIO()
    np.save(content, np.concatenate([embeddings for _, embeddings in _embedded(chosen, tower)]))
    write_whole(path, content.getvalue())


def _embedded(items: list[Item], tower: LoadedTower) -> Iterator[tuple[list[bytes], NDArray[np.float32]]]:
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        yield [item for item, _ in batch], tower.embed([example for _, example in batch])
