"""Retrieval by a vector search in this process: a tower over gRPC, and FAISS here, always of one version."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from ndr_client import served
from ndr_client.client import Client, Found, Rows
from ndr_client.manifests import Manifests

try:
    import faiss
    import pyarrow as pa
except ImportError as error:
    raise ImportError(f"FaissClient needs more than Client: pip install 'ndr-client[faiss]' ({error})") from error

CHECK_SECONDS = 1.0
IDS_COLUMN = "candidate_id"


class VersionError(Exception):
    """No version can be searched: none is both pushed and served, or the index of one is damaged."""


@dataclass(frozen=True)
class Index:
    """A version's index.

    Attributes:
        version: of the push.
        faiss: by inner product; its row n is the item `ids[n]`.
        ids: [items] bytes objects, ascending.
    """

    version: int
    faiss: faiss.Index
    ids: NDArray[Any]

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """[queries, k] scores, the best first, and rows; -1 where there are no more."""
        scores, rows = self.faiss.search(np.ascontiguousarray(queries), k)
        return scores, rows

    def rows(self, ids: NDArray[Any]) -> NDArray[np.int64]:
        """The rows of ids, of any shape; -1 for what is not in the index."""
        places = np.minimum(np.searchsorted(self.ids, ids.ravel()), len(self.ids) - 1)
        return np.where(self.ids[places] == ids.ravel(), places, -1).reshape(ids.shape)

    def with_repeated(
        self, queries: NDArray[np.float32], k: int, repeated: NDArray[Any], bonuses: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """As `search`, with what histories add to the scores of their items, which are found whatever lists they are in.

        Args:
            queries: [queries, width].
            k: how many.
            repeated: [queries, entries] ids, each once; b"" for none.
            bonuses: [queries, entries], what is added.
        """
        scores, rows = self.search(queries, k + repeated.shape[1])
        own = self.rows(repeated)
        vectors = self.faiss.reconstruct_batch(np.maximum(own, 0).ravel()).reshape(*own.shape, -1)
        own_scores = np.where(own >= 0, np.einsum("qw,qew->qe", queries, vectors) + bonuses, -np.inf)
        is_own = (rows[:, :, np.newaxis] == own[:, np.newaxis, :]).any(axis=2) | (rows < 0)
        all_rows = np.concatenate([np.where(is_own, -1, rows), own], axis=1)
        all_scores = np.concatenate([np.where(is_own, -np.inf, scores), own_scores], axis=1)
        order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(all_scores, order, axis=1), np.take_along_axis(all_rows, order, axis=1)


class FaissClient:
    """Embeds by the towers of a server, and searches the index of the same version. Safe to be used by many threads.

    It takes the newest version that is whole in the push folder and that the server has loaded, names that version in what it
    asks, and moves on once there is a newer one.

    Args:
        client: what asks the server.
        push_folder: that the server serves, or a copy that is kept up to date.
        check_seconds: how long an index is used before a newer one is looked for.
        label: of the version that is searched, such as "stable"; None for the newest.
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
        self._index: Index | None = None
        self._checked = -check_seconds

    def for_queries(self, rows: Rows, k: int) -> Found:
        """The items nearest to queries, with what their histories add to the scores, as the retriever finds them.

        Args:
            rows: the queries.
            k: how many items.

        Raises:
            VersionError: no version is both pushed with an index and loaded by the server, or an index is damaged.
            grpc.RpcError: the server cannot answer.
        """
        return self._find(served.QUERY_TOWER, rows, k)

    def like_items(self, rows: Rows, k: int) -> Found:
        """The items nearest to items, which are the first to be found where they are in the index; else as `for_queries`."""
        return self._find(served.ITEM_TOWER, rows, k)

    def _find(self, tower: str, rows: Rows, k: int) -> Found:
        index = self._current()
        try:
            answer = self._client.embed(tower, rows, index.version)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            index = self._current(at_once=True)  # the server let that version go since it was last looked
            answer = self._client.embed(tower, rows, index.version)
        queries = answer.outputs[served.EMBEDDING]
        if served.REPEATED in answer.outputs:
            repeated = (answer.outputs[name] for name in (served.REPEATED, served.BONUSES))
            scores, found = index.with_repeated(queries, k, *repeated)
        else:
            scores, found = index.search(queries, k)
        none = found < 0
        ids = np.where(none, served.NO_ITEM.encode(), index.ids[found])
        return Found(ids, np.where(none, np.float32(served.NO_SCORE), scores), index.version, self._label)

    def _current(self, at_once: bool = False) -> Index:
        with self._lock:
            now = time.monotonic()
            if self._index is None or at_once or now - self._checked >= self._check_seconds:
                self._index, self._checked = self._newest(), now
            return self._index

    def _newest(self) -> Index:
        towers = (served.QUERY_TOWER, served.ITEM_TOWER)
        available = set.intersection(*(set(self._client.available(tower, self._label)) for tower in towers))
        for pushed in reversed(self._manifests.read()):
            if pushed.version in available and served.INDEX in pushed.parts:
                if self._index is not None and self._index.version == pushed.version:
                    return self._index
                if faults := pushed.faults([served.INDEX]):
                    raise VersionError(f"{self._push_folder}: {'; '.join(faults)}. Push again.")
                return _load(pushed.version, pushed.parts[served.INDEX])
        raise VersionError(
            f"{self._push_folder}: expected a version with an index that the server has loaded, which are "
            f"{sorted(available) or 'none'}; found none. Push one, and see that the server watches this folder."
        )


def _load(version: int, folder: Path) -> Index:
    try:
        index = faiss.read_index(str(folder / "index.faiss"))
        with pa.memory_map(str(folder / "ids.arrow")) as source:
            ids = pa.ipc.open_file(source).read_all().column(IDS_COLUMN).to_numpy()
    except (RuntimeError, OSError, pa.ArrowInvalid, KeyError) as error:
        raise VersionError(
            f"{folder}: expected index.faiss and ids.arrow, found something else: {error}. Push again."
        ) from error
    if index.ntotal != len(ids):
        raise VersionError(
            f"{folder}: expected an id for each of {index.ntotal} vectors, found {len(ids)}. Push again."
        )
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()  # where the vector of each item is, for those of histories
    return Index(version, index, ids)
