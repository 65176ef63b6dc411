"""Adds up ranked interactions to cells: the interactions of a user group with the same value in every slice."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy import sparse

from components.evaluator.names import ALL, Statistics
from components.evaluator.ranking import Ranks
from components.evaluator.statistics import added


class Scored(NamedTuple):
    """The results of a scorer for some interactions.

    Attributes:
        rows: [ranked] int64, the numbers of the interactions that it ranked, ascending.
        ranks: [ranked], of their items.
        retrieval: [ranked, 4 or more] float64, see `components.evaluator.statistics.added`; zeros if not measured.
        retrieved: [ranked, k] int64 catalogue rows of its first items, -1 for none; k is 0 if not
            measured.
    """

    rows: NDArray[np.int64]
    ranks: Ranks
    retrieval: NDArray[np.float64]
    retrieved: NDArray[np.int64]

    @classmethod
    def of_ranks(cls, ranks: Ranks, rows: NDArray[np.int64] | None = None) -> "Scored":
        """Make it from ranks without retrieval; of all interactions, or of those in `rows`."""
        count = len(ranks.above)
        rows = np.arange(count) if rows is None else rows
        return cls(rows, ranks, np.zeros((count, 4)), np.zeros((count, 0), np.int64))

    @classmethod
    def concatenate(
        cls, of_batches: Sequence[Mapping[str, "Scored"]], batches: Sequence[NDArray[np.int64]]
    ) -> dict[str, "Scored"]:
        """Concatenate the results of several batches.

        Args:
            of_batches: by scorer; a scorer may be missing in a batch.
            batches: the numbers of the interactions in each batch.
        """
        pieces: dict[str, list[Scored]] = {}
        for of_batch, batch in zip(of_batches, batches, strict=True):
            for scorer, scored in of_batch.items():
                pieces.setdefault(scorer, []).append(scored._replace(rows=batch[scored.rows]))
        return {scorer: cls._together(several) for scorer, several in pieces.items()}

    @classmethod
    def _together(cls, several: Sequence["Scored"]) -> "Scored":
        rows, ranks, retrieval, retrieved = zip(*several, strict=True)
        above, tied = (np.concatenate(arrays) for arrays in zip(*ranks, strict=True))
        return cls(np.concatenate(rows), Ranks(above, tied), np.concatenate(retrieval), np.concatenate(retrieved))


class Cells(NamedTuple):
    """Sums of interactions with the same value in every slice.

    Attributes:
        slices: by slice, [cells] lists of its values, binary.
        sums: by scorer, [cells, columns] float64.
        retrieved: by scorer, [cells] lists of catalogue rows, int64.
    """

    slices: dict[str, pa.ListArray]
    sums: dict[str, NDArray[np.float64]]
    retrieved: dict[str, pa.ListArray]

    def by_slice(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Return [columns] sums by slice (`ALL`, `name=value`) and scorer."""
        sums_by_slice = {ALL: {scorer: sums.sum(axis=0) for scorer, sums in self.sums.items()}}
        for name, lists in self.slices.items():
            values = pc.list_flatten(lists).dictionary_encode()
            codes = values.indices.to_numpy(zero_copy_only=False)
            member = _one_hot(pc.list_parent_indices(lists).to_numpy(), codes, (len(lists), len(values.dictionary)))
            of_scorers = {scorer: member @ sums for scorer, sums in self.sums.items()}
            for code, value in enumerate(values.dictionary.to_pylist()):
                key = f"{name}={value.decode(errors='backslashreplace')}"
                sums_by_slice[key] = {scorer: sums[code] for scorer, sums in of_scorers.items()}
        return sums_by_slice


def add_up(
    statistics: Statistics,
    scored: Mapping[str, Scored],
    sets: NDArray[np.int64],
    slices: Mapping[str, pa.ListArray],
) -> Cells:
    """Add up the interactions of one user group.

    Args:
        statistics: names what is added up.
        scored: by scorer.
        sets: [interactions, 2], the number of distinct items of the interaction's query, and of its interactions with this item.
        slices: by slice, [interactions] lists of its values, binary, each value once.
    """
    cells, first = numbered(list(slices.values()), len(sets))
    sums, retrieved = {}, {}
    for scorer, of_scorer in scored.items():
        different, repeats = sets[of_scorer.rows].T
        values = added(statistics, of_scorer.ranks, different, repeats, of_scorer.retrieval)
        member = _one_hot(np.arange(len(of_scorer.rows)), cells[of_scorer.rows], (len(of_scorer.rows), len(first)))
        sums[scorer] = member @ values
        retrieved[scorer] = _sets_of_rows(cells[of_scorer.rows], of_scorer.retrieved, len(first))
    return Cells({name: lists.take(pa.array(first)) for name, lists in slices.items()}, sums, retrieved)


def numbered(columns: list[pa.ListArray], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign a number to each distinct combination of lists.

    Args:
        columns: [rows] lists each.
        count: the number of rows.

    Returns:
        [rows] the number of each row's combination, and [numbers] the first row with it.
    """
    numbers = np.zeros(count, np.int64)
    first = np.arange(count)[:1]
    for lists in columns:
        codes = pc.list_flatten(lists).dictionary_encode().indices.cast(pa.string())
        texts = pc.binary_join(pa.ListArray.from_arrays(lists.offsets, codes), " ").dictionary_encode()
        column_codes = texts.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        # Renumbered after each column, so that the product of many slices does not overflow.
        _, first, numbers = np.unique(
            numbers * max(1, len(texts.dictionary)) + column_codes, return_index=True, return_inverse=True
        )
    return numbers, first


def _one_hot(rows: NDArray[np.int64], codes: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_array:
    """Return [codes, rows], 1 where a row has the code."""
    return sparse.csr_array((np.ones(len(rows)), (codes, rows)), shape=shape[::-1])


def _sets_of_rows(cells: NDArray[np.int64], retrieved: NDArray[np.int64], count: int) -> pa.ListArray:
    """Return [cells] lists of the distinct rows that a cell's interactions retrieve."""
    numbers, items = np.repeat(cells, retrieved.shape[1]), retrieved.reshape(-1)
    numbers, items = numbers[items >= 0], items[items >= 0]
    size = int(items.max(initial=0)) + 1
    different = np.unique(numbers * size + items)
    offsets = np.searchsorted(different, np.arange(count + 1) * size)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(different % size, pa.int64()))
