"""The index as FAISS builds, keeps and searches it: by inner product, over all items or by lists of them (IVF)."""

import os
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from tfx.dsl.io import fileio

from components.indexer import files
from components.indexer.settings import Plan
from schemas.errors import UserError

FILE = "index.faiss"
TRAINING_ITEMS_A_LIST = 64  # a centroid is a mean: of more items it is hardly another, and k-means takes as much longer


class InvertedLists(NamedTuple):
    """How an IVF divides the items.

    Attributes:
        centroids: [lists, width] float32; an item is in the list whose centroid has the largest inner product with it.
        sizes: [lists] int64, items in each.
        order: [items] int64 rows, list after list, ascending in each.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    order: NDArray[np.int64]


class FaissIndex:
    """Finds the items whose embeddings have the largest inner products with a query's.

    Args:
        index: FAISS's, of the metric inner product; its n-th vector is that of row n.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @property
    def lists(self) -> InvertedLists | None:
        """How the items are divided; None where they are not."""
        if not isinstance(self._index, faiss.IndexIVF):
            return None
        kept: Any = self._index.invlists
        sizes = np.array([kept.list_size(number) for number in range(kept.nlist)])
        rows = [faiss.rev_swig_ptr(kept.get_ids(number), int(size)) for number, size in enumerate(sizes) if size]
        return InvertedLists(self._index.quantizer.reconstruct_n(0, kept.nlist), sizes, np.concatenate(rows))

    def look_at(self, probes: int) -> None:
        """Makes searches look at so many lists, from now on and where the index is loaded."""
        if isinstance(self._index, faiss.IndexIVF):
            self._index.nprobe = probes

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Finds the nearest items of each query.

        Args:
            queries: [batch, width].
            k: how many.

        Returns:
            [batch, k] rows of `components.indexer.files.ItemEmbeddings`, the best first; -1 where no more were found.

        Raises:
            ValueError: the queries are of another width, or k is less than 1.
        """
        width = self._index.d
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(f"queries: expected the shape [batch, {width}], received {list(queries.shape)}")
        if k < 1:
            raise ValueError(f"k: expected at least 1, received {k}")
        rows: NDArray[np.int64] = self._index.search(np.ascontiguousarray(queries, np.float32), k)[1]
        return rows

    def write(self, folder: str) -> None:
        """Leaves the index in a folder, without what says that it is whole."""
        path = os.path.join(folder, FILE)
        with fileio.open(f"{path}.unfinished", "wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]  # its stubs lack it
        fileio.rename(f"{path}.unfinished", path, overwrite=True)


def build(embeddings: NDArray[np.float32], plan: Plan, seed: int) -> FaissIndex:
    """Builds an index; the same arguments give the same one, to the byte, whatever the number of threads.

    Args:
        embeddings: [items, width], at least one.
        plan: what to build; where it does not say how many lists to look at, `FaissIndex.look_at` must.
        seed: of the k-means that finds the lists, and of the items that it is shown.
    """
    width = embeddings.shape[1]
    if plan.lists is None:
        index: faiss.Index = faiss.IndexFlatIP(width)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, plan.lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = plan.probes or 1
        index.cp.seed = seed
        index.cp.max_points_per_centroid = TRAINING_ITEMS_A_LIST
        index.cp.min_points_per_centroid = (
            1  # FAISS warns of fewer than 39; how many there are is the catalogue's matter
        )
        index.train(embeddings)
    index.add(embeddings)
    return FaissIndex(index)


def load(folder: str) -> FaissIndex:
    """Loads the index of a folder that the Indexer wrote.

    Raises:
        UserError: there is no whole index, or not the one that is described there.
    """
    described = files.read_description(folder)
    path = os.path.join(folder, FILE)
    mend = "Remove its folder and run the day again."
    if not fileio.exists(path):
        raise UserError(f"{path}: no such file, which belongs to the index. {mend}")
    try:
        with fileio.open(path, "rb") as file:
            index = faiss.read_index(faiss.PyCallbackIOReader(file.read))  # type: ignore[attr-defined]
    except RuntimeError as error:
        raise UserError(f"{path}: expected an index of FAISS, found something else: {error}. {mend}") from error
    if (index.ntotal, index.d) != (described.items, described.width):
        raise UserError(
            f"{path}: expected {described.items} items of width {described.width}, found {index.ntotal} of {index.d}. {mend}"
        )
    return FaissIndex(index)
