"""Nearest neighbours by the items' features without the id: recommends items similar to the history."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray
from scipy import sparse

from components.decoded import decode, lists
from components.evaluator.block_search import TIE
from components.evaluator.cooccurrence import weights_by_age
from components.evaluator.positions import positions
from components.evaluator.query_items import Excluded, not_counted
from components.evaluator.ranking import Ranks
from components.indexer.embedding import read_serialized
from components.transform.text import tokens
from schemas.features import CANDIDATE_ID, FeatureSpec, NumberFeature, TextFeature, VectorFeature

BLOCK_VALUES = 1 << 24  # queries times items, or features
MOST_QUERIES = 256


class Content(NamedTuple):
    """The features of items as vectors.

    Attributes:
        vectors: [items, features] float32, of ids, words and numbers.
        dense: [items, values] float32, of vector features. A row of both together has length 1, or 0 for an
            item without features other than its id.
    """

    vectors: sparse.csr_array
    dense: NDArray[np.float32]

    @classmethod
    def read(cls, catalogue: Sequence[str], ids: pa.Array, spec: FeatureSpec) -> "Content":
        """Read the features of the item tower, except the id.

        Each id and each word is a dimension with the weight log(items / items that have it); a number is one dimension,
        standardised, 0 if missing. A vector has the weight of a value that one item has.

        Args:
            catalogue: patterns of gzipped TFRecords of tf.Examples, one for each item.
            ids: the catalogue's ids, in the order of the rows.
            spec: the dataset's features.
        """
        batches = [decode(serialized) for serialized in read_serialized(catalogue)]
        rows = np.concatenate([positions(batch.column(CANDIDATE_ID), ids) for batch in batches])
        size, width = len(ids), 0
        entries = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
        dense = [np.zeros((size, 0), np.float32)]
        for name in spec.content_features:
            values = _together([lists(batch, name) for batch in batches if batch.num_rows])
            of_row, feature = rows[pc.list_parent_indices(values).to_numpy()], spec.item[name]
            if isinstance(feature, NumberFeature):
                numbers = _standardised(pc.list_flatten(values).to_numpy(zero_copy_only=False), feature)
                entries.append((of_row, np.full(len(of_row), width), numbers))
                width += 1
                continue
            if isinstance(feature, VectorFeature):
                numbers = pc.list_flatten(values).to_numpy(zero_copy_only=False).reshape(-1, feature.size)
                block = np.zeros((size, feature.size), np.float32)
                block[of_row[:: feature.size]] = np.log(size) * _unit(numbers)
                dense.append(block)
                continue
            flat = pc.list_flatten(values)
            if isinstance(feature, TextFeature):
                found_words = tokens(tf.constant(flat.to_pylist(), tf.string), words=True, ngrams=())
                of_row = of_row[found_words.indices.numpy()[:, 0]]
                flat = pa.array(found_words.values.numpy(), pa.binary())
            encoded = flat.dictionary_encode()
            pairs = np.unique(of_row * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False))
            of_row, codes = np.divmod(pairs, max(1, len(encoded.dictionary)))
            weight = np.log(size / np.maximum(1, np.bincount(codes, minlength=len(encoded.dictionary))))
            entries.append((of_row, width + codes, weight[codes]))
            width += len(encoded.dictionary)
        of_rows, columns, values = (np.concatenate(arrays) for arrays in zip(*entries, strict=True))
        together = np.concatenate(dense, axis=1)
        squares = np.bincount(of_rows, np.square(values), minlength=size) + np.square(together).sum(axis=1)
        length = np.where(squares > 0, np.sqrt(squares), 1.0)
        unit = (values / length[of_rows]).astype(np.float32)
        vectors = sparse.csr_array((unit, (of_rows, columns)), shape=(size, max(1, width)))
        unit_dense: NDArray[np.float32] = (together / length[:, np.newaxis]).astype(np.float32)
        return cls(vectors, unit_dense)

    def rank(self, histories: Excluded, true_rows: NDArray[np.int64], excluded: Excluded | None) -> Ranks:
        """Rank each query's true item by its similarity to the weighted mean of the history.

        Without a history, all items are equal.

        Args:
            histories: the rows of each query's history, oldest first; newer ones have more weight.
            true_rows: [queries], the row of each query's true item.
            excluded: items that are not ranked.
        """
        number, (size, width) = len(true_rows), self.vectors.shape
        lengths = np.diff(histories.offsets)
        weights = weights_by_age(histories)
        shares = weights / np.bincount(np.repeat(np.arange(number), lengths), weights, minlength=number).repeat(lengths)
        seen = sparse.csr_array((shares.astype(np.float32), histories.rows, histories.offsets), shape=(number, size))
        queries, dense_queries = seen @ self.vectors, seen @ self.dense
        left_out = not_counted(true_rows, size, excluded)
        counts = np.zeros((2, number), np.int64)
        block = max(1, min(MOST_QUERIES, BLOCK_VALUES // max(size, width, self.dense.shape[1])))
        for start in range(0, number, block):
            end = min(start + block, number)
            scores = self.vectors @ queries[start:end].T.toarray() + self.dense @ dense_queries[start:end].T
            true = scores[true_rows[start:end], np.arange(end - start)]
            scores[left_out.of(start, end)] = -np.inf
            counts[0, start:end] = np.count_nonzero(scores > true + np.float32(TIE), axis=0)
            counts[1, start:end] = np.count_nonzero(scores >= true - np.float32(TIE), axis=0)
        return Ranks(counts[0], counts[1] - counts[0])


def _together(chunks: Sequence[pa.ListArray]) -> pa.ListArray:
    """Concatenate lists; a batch without values has lists without a type."""
    kind = next((chunk.type for chunk in chunks if len(chunk.values)), pa.list_(pa.binary()))
    nothing = pa.array([], kind.value_type)
    typed = [chunk if len(chunk.values) else pa.ListArray.from_arrays(chunk.offsets, nothing) for chunk in chunks]
    return pa.concat_arrays(typed)


def _unit(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale [rows, values] to rows of length 1; rows of zeros stay."""
    wide = numbers.astype(np.float64)
    lengths = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    return wide / np.where(lengths > 0, lengths, 1.0)


def _standardised(numbers: NDArray[np.float32], feature: NumberFeature) -> NDArray[np.float64]:
    finite = np.where(np.isfinite(numbers), numbers, np.nan).astype(np.float64)
    scaled = np.log1p(np.maximum(finite, 0.0)) if feature.scale == "log" else finite
    finite = scaled[np.isfinite(scaled)]
    deviation = finite.std() if len(finite) else 0.0
    return np.nan_to_num((scaled - finite.mean()) / deviation) if deviation else np.zeros(len(scaled))
