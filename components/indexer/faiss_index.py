"""Builds, stores and searches the FAISS index: by inner product, over all items or by inverted lists (IVF)."""

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
TRAINING_ITEMS_A_LIST = 64  # a centroid is a mean: more items hardly change it, and k-means takes longer in proportion
ITERATIONS = 10  # of k-means, FAISS's own number for an IVF
SHARE_OF_ITEMS = 0.2  # among the queries that lists are made for: an item's embedding asks for similar items
LEAST = 1e-4  # times the greatest weight of a direction is the smallest, so that the stretch can be undone


class InvertedLists(NamedTuple):
    """The division of the items into the lists of an IVF.

    Attributes:
        centroids: [lists, width] float32; a query probes the lists whose centroids have the largest inner products with it.
        sizes: [lists] int64, the number of items in each.
        order: [items] int64 rows, list after list, ascending in each.
    """

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    order: NDArray[np.int64]


class FaissIndex:
    """Finds the items with the largest inner products with a query.

    Args:
        index: a FAISS index with the inner product metric; its n-th vector is that of row n.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @property
    def lists(self) -> InvertedLists | None:
        """The division into lists; None for a flat index."""
        if not isinstance(self._index, faiss.IndexIVF):
            return None
        inverted: Any = self._index.invlists
        sizes = np.array([inverted.list_size(number) for number in range(inverted.nlist)])
        rows = [faiss.rev_swig_ptr(inverted.get_ids(number), int(size)) for number, size in enumerate(sizes) if size]
        return InvertedLists(self._index.quantizer.reconstruct_n(0, inverted.nlist), sizes, np.concatenate(rows))

    @property
    def vectors(self) -> NDArray[np.float32]:
        """[items, width], the vector of each row; a copy."""
        if isinstance(self._index, faiss.IndexIVF):
            self._index.make_direct_map()
        copied: NDArray[np.float32] = self._index.reconstruct_n(0, self._index.ntotal)
        return copied

    def look_at(self, probes: int) -> None:
        """Set the number of lists that searches probe, here and wherever the index is loaded."""
        if isinstance(self._index, faiss.IndexIVF):
            self._index.nprobe = probes

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Find the nearest items of each query.

        Args:
            queries: [batch, width].
            k: the number of items.

        Returns:
            [batch, k] rows of `components.indexer.files.ItemEmbeddings`, the best first; -1 for none.

        Raises:
            ValueError: the queries have another width, or k is less than 1.
        """
        width = self._index.d
        if queries.ndim != 2 or queries.shape[1] != width:
            raise ValueError(f"queries: expected the shape [batch, {width}], received {list(queries.shape)}")
        if k < 1:
            raise ValueError(f"k: expected at least 1, received {k}")
        rows: NDArray[np.int64] = self._index.search(np.ascontiguousarray(queries, np.float32), k)[1]
        return rows

    def write(self, folder: str) -> None:
        """Write the index to a folder, without the file that marks it as complete."""
        path = os.path.join(folder, FILE)
        with fileio.open(f"{path}.unfinished", "wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]  # its stubs lack it
        fileio.rename(f"{path}.unfinished", path, overwrite=True)


def build(
    embeddings: NDArray[np.float32], plan: Plan, seed: int, queries: NDArray[np.float32] | None = None
) -> FaissIndex:
    """Build an index; the same arguments give an identical one, whatever the number of threads.

    Lists hold items whose inner products with queries are alike. Items of a trained model differ most in directions that
    queries hardly have, so k-means measures the distance between two items by the mean square of the difference of their inner
    products with the sampled queries.

    Args:
        embeddings: [items, width], at least one.
        plan: the kind of index; if it has no number of probes, set it with `FaissIndex.look_at`.
        seed: of the k-means, and of the sample of items for it.
        queries: [queries, width], a sample. Without one, FAISS makes the lists of the items alone.
    """
    width = embeddings.shape[1]
    if plan.lists is None:
        index: faiss.Index = faiss.IndexFlatIP(width)
        index.add(embeddings)
        return FaissIndex(index)
    quantizer = faiss.IndexFlatIP(width)
    ivf = faiss.IndexIVFFlat(quantizer, width, plan.lists, faiss.METRIC_INNER_PRODUCT)
    ivf.nprobe = plan.probes or 1
    if queries is None:
        ivf.cp.seed = seed
        ivf.cp.max_points_per_centroid = TRAINING_ITEMS_A_LIST
        ivf.cp.min_points_per_centroid = 1  # FAISS warns of fewer than 39; the catalogue decides the number
        ivf.train(embeddings)
        ivf.add(embeddings)
    else:
        centroids, list_of_item = _divided(embeddings, plan.lists, seed, queries)
        quantizer.add(centroids)
        ivf.is_trained = True
        untyped: Any = ivf
        untyped.add_core(len(embeddings), faiss.swig_ptr(embeddings), None, faiss.swig_ptr(list_of_item))
    return FaissIndex(ivf)


def _divided(
    embeddings: NDArray[np.float32], lists: int, seed: int, queries: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Divide items into lists by k-means in the metric of the queries: [lists, width] centroids, and [items] int64 lists."""
    moment = (1 - SHARE_OF_ITEMS) * _moment(queries) + SHARE_OF_ITEMS * _moment(embeddings)
    values, directions = np.linalg.eigh(moment)
    stretch = np.sqrt(np.maximum(values, LEAST * values.max()))
    stretched = embeddings @ (directions * stretch).astype(np.float32)
    means = faiss.Kmeans(
        embeddings.shape[1], lists, niter=ITERATIONS, seed=seed,
        max_points_per_centroid=TRAINING_ITEMS_A_LIST, min_points_per_centroid=1,
    )  # fmt: skip
    means.train(stretched)
    nearest: NDArray[np.int64] = means.index.search(stretched, 1)[1][:, 0]
    return (means.centroids @ (directions / stretch).T).astype(np.float32), np.ascontiguousarray(nearest)


def _moment(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the [width, width] second moment of vectors, of trace 1."""
    moment: NDArray[np.float64] = vectors.T.astype(np.float64) @ vectors
    return moment / max(np.trace(moment), np.finfo(np.float32).tiny)


def load(folder: str) -> FaissIndex:
    """Load the index that the Indexer wrote to a folder.

    Raises:
        UserError: there is no complete index, or it differs from its description.
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
