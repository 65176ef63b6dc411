"""Retrieval with a vector search in this process: a tower over gRPC, and FAISS here, always of one version."""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from ndr_client import examples, served
from ndr_client.client import Client, Found, Rows, Texts
from ndr_client.conditions import Columns, IdColumn, NumberColumn
from ndr_client.manifests import Manifests
from ndr_client.merging import merged

try:
    import faiss
    import pyarrow as pa
    import pyarrow.compute as pc
except ImportError as error:
    raise ImportError(f"FaissClient needs more than Client: pip install 'ndr-client[faiss]' ({error})") from error

CHECK_SECONDS = 1.0
TUNED_AT = 100  # the number of best items of which the probed lists hold enough; the retriever's default
IDS_COLUMN = "candidate_id"


class VersionError(Exception):
    """No version can be searched: none is both pushed and served, or an index is damaged."""


@dataclass(frozen=True)
class Index:
    """A version's index.

    Attributes:
        version: the pushed version.
        faiss: by inner product; its row n is the item `ids[n]`.
        ids: [items] bytes objects, ascending.
        columns: the columns that items are filtered by.
    """

    version: int
    faiss: faiss.Index
    ids: NDArray[Any]
    columns: Columns = field(default_factory=lambda: Columns({}))

    def search(
        self, queries: NDArray[np.float32], k: int, passing: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return [queries, k] scores, the best first, and rows; -1 for none.

        Args:
            queries: [queries, width].
            k: the number of items.
            passing: [items], the items that may be found. A query is compared with all of them if they are few, or if the probed
                lists have fewer than k of them. None for all items.
        """
        queries = np.ascontiguousarray(queries)
        if passing is None:
            params = (
                self._probing(self._probes(k, self.faiss.ntotal)) if isinstance(self.faiss, faiss.IndexIVF) else None
            )
            scores, rows = self.faiss.search(queries, k, params=params)
            return scores, rows
        selector: Any = faiss.IDSelectorBitmap(np.packbits(passing, bitorder="little"))  # type: ignore[call-arg,arg-type]
        if not isinstance(self.faiss, faiss.IndexIVF):
            scores, rows = self.faiss.search(queries, k, params=faiss.SearchParameters(sel=selector))  # type: ignore[call-arg]
            return scores, rows
        left, lists = int(passing.sum()), self.faiss.nlist
        probes = self._probes(k, left)
        is_little = left * lists <= probes * len(passing)

        def search(some: NDArray[np.float32], probes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            scores, rows = self.faiss.search(some, k, params=self._probing(probes, sel=selector))
            return scores, rows

        scores, rows = search(queries, lists if is_little else probes)
        short = np.flatnonzero((rows >= 0).sum(axis=1) < min(k, left))
        if len(short) and not is_little:
            scores[short], rows[short] = search(queries[short], lists)
        return scores, rows

    def _probes(self, k: int, left: int) -> int:
        """Return the number of lists to probe for k of the items that are left."""
        index: Any = self.faiss
        depth = k * index.ntotal / max(left, 1)  # of the first k that are left, among all
        if depth > max(served.DEEPEST_SHARE * index.ntotal, TUNED_AT):
            return int(index.nlist)
        return min(int(index.nlist), math.ceil(index.nprobe * max(1.0, depth / TUNED_AT) ** served.PROBE_GROWTH))

    def _probing(self, probes: int, **selected: Any) -> Any:
        return faiss.SearchParametersIVF(nprobe=probes, **selected)  # type: ignore[call-arg]

    def rows(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """Return the rows of ids, of any shape; -1 for ids that are not in the index."""
        places = np.minimum(np.searchsorted(self.ids, ids.ravel()), len(self.ids) - 1)
        return np.where(self.ids[places] == ids.ravel(), places, -1).reshape(ids.shape)

    def with_repeated(
        self,
        queries: NDArray[np.float32],
        k: int,
        repeated: NDArray[Any],
        bonuses: NDArray[np.float32],
        passing: NDArray[np.bool_] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Search with the bonuses of histories on the scores of their items, which are found whatever lists they are in.

        Args:
            queries: [queries, width].
            k: the number of items.
            repeated: [queries, entries] ids, each once; b"" for none.
            bonuses: [queries, entries], the bonuses.
            passing: as in `search`.
        """
        scores, rows = self.search(queries, k + repeated.shape[1], passing)
        repeated_rows = self.rows(repeated)
        vectors = self.faiss.reconstruct_batch(np.maximum(repeated_rows, 0).ravel()).reshape(*repeated_rows.shape, -1)
        may_be = repeated_rows >= 0 if passing is None else (repeated_rows >= 0) & passing[repeated_rows]
        own_scores = np.where(may_be, np.einsum("qw,qew->qe", queries, vectors) + bonuses, -np.inf)
        is_own = (rows[:, :, np.newaxis] == repeated_rows[:, np.newaxis, :]).any(axis=2) | (rows < 0)
        all_rows = np.concatenate([np.where(is_own, -1, rows), np.where(may_be, repeated_rows, -1)], axis=1)
        all_scores = np.concatenate([np.where(is_own, -np.inf, scores), own_scores], axis=1)
        order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(all_scores, order, axis=1), np.take_along_axis(all_rows, order, axis=1)


class FaissClient:
    """Embeds with a server's towers, and searches the index of the same version. Thread-safe.

    It uses the newest version that is complete in the push folder and loaded by the server, names that version in its
    requests, and moves on when there is a newer one.

    Args:
        client: asks the server.
        push_folder: the folder that the server serves, or an up-to-date copy.
        check_seconds: how long an index is used before looking for a newer one.
        label: the label of the version to search, such as "stable"; None for the newest.
    """

    def __init__(
        self, client: Client, push_folder: Path, check_seconds: float = CHECK_SECONDS, label: str | None = None
    ) -> None:
        self._client = client
        self._label = label
        self._push_folder = push_folder
        self._manifests = Manifests(push_folder)
        self._check_seconds = check_seconds
        self._lock = threading.Lock()
        self._shards: list[Index] = []
        self._checked = -check_seconds

    def for_queries(self, rows: Rows, k: int, where: Texts | None = None) -> Found:
        """Find the items nearest to queries, with the bonuses of their histories, as the retriever does.

        Args:
            rows: the queries.
            k: the number of items.
            where: as in `Client.retrieve`.

        Raises:
            ValueError: a condition is invalid, or `where` was given with Examples.
            VersionError: no version is both pushed with an index and loaded by the server, or an index is damaged.
            grpc.RpcError: the server cannot answer.
        """
        return self._find(served.QUERY_TOWER, rows, k, where)

    def like_items(self, rows: Rows, k: int, where: Texts | None = None) -> Found:
        """Find the items nearest to items, which come first themselves if they are in the index; otherwise as `for_queries`."""
        return self._find(served.ITEM_TOWER, rows, k, where)

    def _find(self, tower: str, rows: Rows, k: int, where: Texts | None) -> Found:
        if isinstance(rows, Sequence):
            if where is not None:
                raise ValueError(f"where: expected None beside Examples, which have a feature {served.WHERE} for it")
            where = [examples.texts(example, served.WHERE) for example in rows]
        shards = self._current()
        try:
            answer = self._client.embed(tower, rows, shards[0].version)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            shards = self._current(at_once=True)  # the server has unloaded that version since
            answer = self._client.embed(tower, rows, shards[0].version)
        size = len(answer.outputs[served.EMBEDDING])
        wanted = [tuple(conditions) for conditions in where] if where is not None else [()] * size
        if len(wanted) != size:
            raise ValueError(f"where: expected conditions for each of {size} rows, received {len(wanted)}")
        answers = [_answer(index, answer.outputs, k, wanted) for index in shards]
        ids, scores = answers[0] if len(shards) == 1 else merged(answers, np.full(size, k, np.int32))
        return Found(ids, scores, shards[0].version, self._label)

    def _current(self, at_once: bool = False) -> list[Index]:
        with self._lock:
            now = time.monotonic()
            if not self._shards or at_once or now - self._checked >= self._check_seconds:
                self._shards, self._checked = self._newest(), now
            return self._shards

    def _newest(self) -> list[Index]:
        """Return the index of the newest version, or that of each shard."""
        towers = (served.QUERY_TOWER, served.ITEM_TOWER)
        available = set.intersection(*(set(self._client.available(tower, self._label)) for tower in towers))
        for pushed in reversed(self._manifests.read()):
            names = served.names_of(served.INDEX, pushed.parts)
            if pushed.version in available and pushed.parts.keys() >= {*names}:
                if self._shards and self._shards[0].version == pushed.version:
                    return self._shards
                if faults := pushed.faults(names):
                    raise VersionError(f"{self._push_folder}: {'; '.join(faults)}. Push again.")
                return [_load(pushed.version, pushed.parts[name]) for name in names]
        raise VersionError(
            f"{self._push_folder}: expected a version with an index that the server has loaded, which are "
            f"{sorted(available) or 'none'}; found none. Push one, and see that the server watches this folder."
        )


def columns_of(table: pa.Table) -> Columns:
    """Read the columns that items are filtered by.

    Args:
        table: a row for each item; lists of ids, and numbers.
    """
    columns: dict[str, IdColumn | NumberColumn] = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if pa.types.is_list(column.type):
            values = pc.list_flatten(column).to_numpy(zero_copy_only=False)
            columns[name] = IdColumn(values, pc.list_parent_indices(column).to_numpy(), len(column))
        else:
            columns[name] = NumberColumn(column.to_numpy(zero_copy_only=False).astype(np.float32))
    return Columns(columns)


def _answer(
    index: Index, outputs: dict[str, NDArray[Any]], k: int, wanted: list[tuple[Any, ...]]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return [batch, k] ids and scores, given the tower's outputs and each query's conditions."""
    scores, positions = np.zeros((len(wanted), k), np.float32), np.full((len(wanted), k), -1)
    for conditions in dict.fromkeys(wanted):
        some = np.array([asked == conditions for asked in wanted])
        of_some = {name: values[some] for name, values in outputs.items()}
        passing = index.columns.passing(conditions) if any(conditions) else None
        scores[some], positions[some] = _search(index, of_some, k, passing)
    none = positions < 0
    return np.where(none, served.NO_ITEM.encode(), index.ids[positions]), np.where(
        none, np.float32(served.NO_SCORE), scores
    )


def _search(
    index: Index, outputs: dict[str, NDArray[Any]], k: int, passing: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    if served.REPEATED not in outputs:
        return index.search(outputs[served.EMBEDDING], k, passing)
    queries, repeated, bonuses = (outputs[name] for name in (served.EMBEDDING, served.REPEATED, served.BONUSES))
    return index.with_repeated(queries, k, repeated, bonuses, passing)


def _load(version: int, folder: Path) -> Index:
    try:
        index = faiss.read_index(str(folder / "index.faiss"))
        with pa.memory_map(str(folder / "ids.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
            ids = table.column(IDS_COLUMN).to_numpy()
            columns = columns_of(table.drop_columns([IDS_COLUMN]))
    except (RuntimeError, OSError, pa.ArrowInvalid, KeyError) as error:
        raise VersionError(
            f"{folder}: expected index.faiss and ids.arrow, found something else: {error}. Push again."
        ) from error
    if index.ntotal != len(ids):
        raise VersionError(
            f"{folder}: expected an id for each of {index.ntotal} vectors, found {len(ids)}. Push again."
        )
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()  # gives access to the vector of each item, for those of histories
    return Index(version, index, ids, columns)
