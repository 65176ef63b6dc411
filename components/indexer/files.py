"""What an index is on disk.

items-NUMBER-of-ALL.arrow  Arrow IPC: `candidate_id`, binary, and `embedding`, fixed_size_list<float32>[width]; a partition
index.faiss                the index over them; see `components.indexer.faiss_index`
ids.arrow                  Arrow IPC: `candidate_id`, binary; the n-th is the item of row n; and the columns that items are filtered
                           by, list<binary> for ids and float for numbers
index.json                 what it is; written last, so an index that has it is whole

Items are divided into partitions by a digest of their ids; those of a refresh also by whether they are embedded anew. The row of an
item, which is what an index answers with, is its place in the order of the ids (bytewise) over all partitions.

An index in N shards has a folder index-SHARD-of-N for each, with `index.faiss`, `ids.arrow` and `index.json`, over its own items:
those of the partitions whose numbers leave the remainder SHARD when divided by N. `index.json` beside these folders sums them up.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.indexer import on_disk as on_disk_arrays
from components.indexer.shards import WHOLE, Shard
from components.whole_files import write_whole
from ndr_client.served import RETRIEVER, shard_names
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID

EMBEDDING = "embedding"
DESCRIPTION = "index.json"
IDS = "ids.arrow"
GATHERED_ROWS = 1 << 20  # in a step from the partitions to the rows of a catalogue
PARTITION_NAME = re.compile(r"items-\d{5}-of-(\d{5})\.arrow")


@dataclass(frozen=True)
class ItemEmbeddings:
    """A whole catalogue; the item of row n is `ids[n]`.

    Attributes:
        ids: in ascending order.
        embeddings: [items, width] float32.
    """

    ids: list[bytes]
    embeddings: NDArray[np.float32]


@dataclass(frozen=True)
class Description:
    """What an index is.

    Attributes:
        kind: `flat` or `ivf`.
        items: how many are in it.
        width: of their embeddings.
        lists: into how many lists the items are divided; None where they are not.
        probes: how many lists a search looks at; None where there are none.
        recall: the share of the exact first `recall_at` items that such a search finds, on queries of the training split; None
            where it is exact, or the probes were set.
        settings: those of `components.indexer.settings` that it was built by.

    That of a divided index has sums over its shards, and the lowest recall.
    """

    kind: str
    items: int
    width: int
    lists: int | None
    probes: int | None
    recall: float | None
    settings: dict[str, Any]

    @property
    def shards(self) -> int:
        """The number of shards of the catalogue."""
        return int(self.settings.get("shards", 1))

    @property
    def retrievers(self) -> tuple[str, ...]:
        """The names of the retrievers that search it."""
        return shard_names(RETRIEVER, 1 if self.settings.get("stitched", True) else self.shards)


def summed_up(shards: Sequence[Description]) -> Description:
    """Describe a divided index."""
    recalls = [shard.recall for shard in shards if shard.recall is not None]
    divided = [shard for shard in shards if shard.kind == "ivf"]
    return replace(
        shards[0],
        kind="ivf" if divided else "flat",
        items=sum(shard.items for shard in shards),
        lists=sum(shard.lists or 0 for shard in divided) or None,
        probes=sum(shard.probes or 0 for shard in divided) or None,
        recall=min(recalls) if recalls else None,
    )


def write_partition(
    folder: str, partition: int, partitions: int, width: int, batches: Iterable[tuple[list[bytes], NDArray[np.float32]]]
) -> None:
    """Write a partition under a temporary name and rename it when complete.

    Args:
        folder: where to; it need not be there.
        partition: its number, from 0.
        partitions: how many there are.
        width: of the embeddings.
        batches: ids and their [batch, width] embeddings; none where the partition is empty.
    """
    schema = _schema(width)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for ids, embeddings in batches:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), width)
            writer.write_batch(pa.record_batch([pa.array(ids, pa.binary()), lists], schema=schema))
    fileio.makedirs(folder)
    write_whole(os.path.join(folder, _partition_name(partition, partitions)), sink.getvalue().to_pybytes())


def write_renewed(
    folder: str, base: ItemEmbeddings, gone: pa.Array, changed: ItemEmbeddings, shard: Shard = WHOLE
) -> None:
    """Write the embeddings of a shard that differs little from another: one partition for the items in common, one for the others.

    Args:
        folder: destination.
        base: of the other catalogue.
        gone: [items] binary, those whose embeddings are of no use any more; may be of other shards.
        changed: those that are in the place of some, and new ones.
        shard: the shard.
    """
    ids, width = pa.array(base.ids, pa.binary()), base.embeddings.shape[1]
    common = np.flatnonzero(~pc.is_in(ids, value_set=gone).to_numpy(zero_copy_only=False))
    partitions = 2 * shard.of
    write_partition(folder, shard.number, partitions, width, [(ids.take(common).to_pylist(), base.embeddings[common])])
    write_partition(folder, shard.of + shard.number, partitions, width, [(changed.ids, changed.embeddings)])


def read(folder: str, shard: Shard = WHOLE, on_disk: bool = False) -> ItemEmbeddings:
    """Read all partitions of a shard.

    Args:
        folder: of the partitions.
        shard: the shard; its rows are numbered from 0. By default the whole catalogue.
        on_disk: whether the embeddings stay on disk (`components.indexer.on_disk`); only the ids are in memory then. Otherwise the
            whole shard is, and beyond it only one partition, and none where they are on a local disk.

    Raises:
        UserError: a partition is missing, or is not one, or an embedding is not finite.
    """
    names = _partition_names(folder)
    if len(names) % shard.of:
        raise _unreadable(folder, f"partitions of {shard.of} shards, found {len(names)}")
    tables = [_read_partition(folder, name, on_disk) for name in names[shard.number :: shard.of]]
    widths = {table.schema.field(EMBEDDING).type.list_size for table in tables}
    if len(widths) > 1:
        raise _unreadable(folder, f"partitions with embeddings of one width, found {sorted(widths)}")
    ids = pa.chunked_array([chunk for table in tables for chunk in table.column(CANDIDATE_ID).chunks], pa.binary())
    order, width = pc.sort_indices(ids), widths.pop()
    embeddings = on_disk_arrays.empty(len(order), width) if on_disk else np.empty((len(order), width), np.float32)
    _gather(tables, order.to_numpy().astype(np.int64), embeddings)
    ascending = ids.take(order).to_pylist()
    _check_finite(folder, ascending, embeddings)
    return ItemEmbeddings(ascending, embeddings)


def write_ids(folder: str, ids: list[bytes], columns: pa.Table | None = None) -> None:
    """Write the ids and the filter columns in the order of the index's rows, for clients that search the index themselves."""
    table = pa.table({CANDIDATE_ID: pa.array(ids, pa.binary())})
    if columns is not None:
        for name in columns.column_names:
            table = table.append_column(name, columns.column(name))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    write_whole(os.path.join(folder, IDS), sink.getvalue().to_pybytes())


def read_ids(folder: str) -> pa.Table:
    """Read what `write_ids` wrote.

    Raises:
        UserError: it is missing, or is not Arrow IPC.
    """
    path = os.path.join(folder, IDS)
    if not fileio.exists(path):
        raise _unreadable(folder, f"an index, found no {IDS}")
    try:
        with fileio.open(path, "rb") as file:
            return pa.ipc.open_file(pa.BufferReader(file.read())).read_all()
    except pa.ArrowInvalid as error:
        raise _unreadable(folder, f"Arrow IPC in {IDS}, found something else: {error}") from error


def write_description(folder: str, description: Description) -> None:
    """Says what the index in a folder is, and that it is whole."""
    text = json.dumps(asdict(description), indent=2, sort_keys=True)
    write_whole(os.path.join(folder, DESCRIPTION), f"{text}\n".encode())


def read_description(folder: str) -> Description:
    """Read the description of the index in a folder.

    Raises:
        UserError: there is no whole index.
    """
    path = os.path.join(folder, DESCRIPTION)
    if not fileio.exists(path):
        raise _unreadable(folder, f"an index, found no {DESCRIPTION}, which is written last")
    try:
        return Description(**json.loads(io_utils.read_string_file(path)))
    except (ValueError, TypeError) as error:
        raise _unreadable(folder, f"{DESCRIPTION} to say what the index is, found something else: {error}") from error


def _schema(width: int) -> pa.Schema:
    return pa.schema([(CANDIDATE_ID, pa.binary()), (EMBEDDING, pa.list_(pa.float32(), width))])


def _partition_name(partition: int, partitions: int) -> str:
    return f"items-{partition:05d}-of-{partitions:05d}.arrow"


def _partition_names(folder: str) -> list[str]:
    names = fileio.listdir(folder) if fileio.isdir(folder) else []
    matches = {name: match for name in names if (match := PARTITION_NAME.fullmatch(name))}
    if not matches:
        raise _unreadable(folder, "items-*.arrow, found none")
    expected = {
        _partition_name(partition, int(match[1])) for match in matches.values() for partition in range(int(match[1]))
    }
    if len({match[1] for match in matches.values()}) > 1:
        raise _unreadable(folder, f"the partitions of one catalogue, found {', '.join(sorted(matches))}")
    if expected != matches.keys():
        raise _unreadable(
            folder, f"all partitions, found none of the name {', '.join(sorted(expected - matches.keys()))}"
        )
    return sorted(matches)


def _gather(tables: list[pa.Table], order: NDArray[np.int64], embeddings: NDArray[np.float32]) -> None:
    """Fill [items, width] with the embeddings of all tables, in the order of these positions among them.

    Writes from the first row to the last, and reads each sorted range so too: pages come from disk and go there once.
    """
    chunks = [chunk for table in tables for chunk in table.column(EMBEDDING).chunks]
    starts = np.cumsum([0, *map(len, chunks)])
    for first in range(0, len(order), GATHERED_ROWS):
        places = np.argsort(order[first : first + GATHERED_ROWS], kind="stable")
        wanted = order[first : first + GATHERED_ROWS][places]
        ends = np.searchsorted(wanted, starts)
        for number in np.flatnonzero(np.diff(ends)).tolist():
            of_chunk = slice(ends[number], ends[number + 1])
            vectors = chunks[number].flatten().to_numpy().reshape(-1, embeddings.shape[1])
            embeddings[first + places[of_chunk]] = vectors[wanted[of_chunk] - starts[number]]


def _read_partition(folder: str, name: str, on_disk: bool = False) -> pa.Table:
    path = os.path.join(folder, name)
    try:
        if "://" not in path:
            source = pa.memory_map(path)
        else:
            with fileio.open(path, "rb") as file:
                source = _copied(file) if on_disk else pa.BufferReader(file.read())
        table = pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid as error:
        raise _unreadable(folder, f"Arrow IPC in {name}, found something else: {error}") from error
    kind = table.schema.field(EMBEDDING).type if EMBEDDING in table.column_names else pa.null()
    if not pa.types.is_fixed_size_list(kind) or table.schema != _schema(kind.list_size):
        columns = ", ".join(f"{field.name}: {field.type}" for field in table.schema)
        raise _unreadable(folder, f"ids and embeddings in {name}, found {columns}")
    return table


def _copied(file: Any) -> pa.MemoryMappedFile:
    """Copy a file to a temporary one, which is mapped into memory and goes with the mapping."""
    with NamedTemporaryFile() as copied:
        shutil.copyfileobj(file, copied)
        copied.flush()
        return pa.memory_map(copied.name)


def _check_finite(folder: str, ids: list[bytes], embeddings: NDArray[np.float32]) -> None:
    # A sum takes in every value without a [items, width] array of truths, and is not finite once one of them is not.
    faulty = np.flatnonzero(~np.isfinite(embeddings.sum(axis=1)))
    if len(faulty):
        raise UserError(
            f"{folder}: expected finite embeddings, found others for {len(faulty):,} of {len(ids):,} items, the first of them "
            f"{ids[faulty[0]].decode(errors='backslashreplace')!r}. Look at the numbers that the catalogue has of it; "
            "limit them in the catalogue's schema, which then stops such a day before it is trained on."
        )


def _unreadable(folder: str, expected_and_found: str) -> UserError:
    return UserError(f"{folder}: expected {expected_and_found}. Remove that folder and run the day again.")
