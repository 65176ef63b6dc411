"""Selects the items that meet a request's conditions, in plain TensorFlow operations, which stock TF Serving has.

A request has conditions, each a text, all of which an item must meet:

    country=de        the item's country is de; several conditions with one name: any of these values
    country!=us       it is not us; several: none of them
    price>=5          at least this number
    price<=20         at most this number

The names are those of `catalogue.filters` in `features.yaml`; everything after the operator is the value, including blanks and
signs. For an item with several values, one match is enough for `=`, and too much for `!=`. An item without a value passes only
`!=`. A value that no item has is no fault: nothing passes `=`. Numbers are compared as float32, like the catalogue's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from numpy.typing import NDArray

from components.indexer import filter_columns
from components.transform.missing import NO_ITEM
from components.transform.preprocessing import fingerprint
from ndr_client.conditions import ANY_OF, AT_LEAST, AT_MOST, NONE_OF, grammar
from ndr_client.served import WHERE

SAMPLE = "_sample"
"""A column of every retriever with filters, for measuring the recall of filtered search; see `filter_columns.sample`."""
MOST_FILTERS = 64
"""The maximum number of distinct lists of conditions in a batch: the rows that servers merge. Each takes a byte for every item."""
SHOWN_BYTES = 200  # of a refused condition


class Passing(NamedTuple):
    """The items that the conditions of a batch's queries let pass.

    Attributes:
        masks: [filters, items] bool, by the rows of the search.
        left: [filters] int32, the number of items that pass each.
        number: [batch] int32, the filter of each query.
    """

    masks: tf.Tensor
    left: tf.Tensor
    number: tf.Tensor

    def of_rows(self, rows: tf.Tensor) -> tf.Tensor:
        """Return whether [batch, n] rows pass their query's filter."""
        return tf.gather(tf.gather(self.masks, self.number), rows, batch_dims=1)


class Filters(tf.Module):
    """The filter columns, and the evaluation of conditions on them.

    Args:
        columns: a row for each item; see `components.indexer.filter_columns`.
        ids: the items' ids.
        order: the row in `columns` of each of the search's rows.
    """

    def __init__(self, columns: pa.Table, ids: Sequence[bytes], order: NDArray[np.int64]) -> None:
        super().__init__(name="filters")
        self._items = len(order)
        self.columns: dict[str, _Ids | _Numbers] = {SAMPLE: _Numbers(filter_columns.sample(ids)[order])}
        for name in columns.column_names:
            column = columns.column(name).combine_chunks().take(pa.array(order))
            if pa.types.is_list(column.type):
                self.columns[name] = _Ids(column)
            else:
                self.columns[name] = _Numbers(column.to_numpy(zero_copy_only=False).astype(np.float32))
        numbers = {name: isinstance(column, _Numbers) for name, column in self.columns.items()}
        self._grammar = grammar(numbers)

    def __call__(self, where: tf.Tensor) -> Passing:
        """Evaluate conditions.

        Args:
            where: [batch, n] conditions, at least one row; empty texts are ignored.

        Raises:
            InvalidArgumentError: at run time, if a condition is invalid, or the rows have more than `MOST_FILTERS` distinct lists.
        """
        written = tf.strings.join([tf.strings.as_string(tf.strings.length(where)), where], ":")  # no two lists alike
        _, number = tf.unique(tf.strings.reduce_join(written, axis=1))
        filters = tf.reduce_max(number) + 1
        first = tf.math.unsorted_segment_min(tf.range(tf.size(number)), number, filters)
        conditions = tf.gather(where, first)
        masks = tf.map_fn(
            self._mask, self._parsed(conditions), fn_output_signature=tf.TensorSpec([self._items], tf.bool)
        )
        return Passing(masks, tf.math.count_nonzero(masks, axis=1, dtype=tf.int32), number)

    def _parsed(self, conditions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Parse [filters, n] conditions to their names, operators and values."""
        flat = tf.reshape(conditions, [-1])
        is_valid = tf.strings.regex_full_match(flat, self._grammar.pattern) | (flat == "")
        wrong = tf.strings.substr(tf.boolean_mask(flat, ~is_valid)[:1], 0, SHOWN_BYTES)
        words = tf.strings.join([f"{WHERE}: expected {self._grammar.words}; received ", tf.strings.reduce_join(wrong)])
        too_many = f"{WHERE}: expected at most {MOST_FILTERS} different lists of conditions in a batch"
        checks = [
            tf.debugging.Assert(tf.reduce_all(is_valid), [words]),
            tf.debugging.assert_less_equal(tf.shape(conditions)[0], MOST_FILTERS, too_many),
        ]
        with tf.control_dependencies(checks):
            conditions = tf.identity(conditions)
        name, operator, value = (
            tf.strings.regex_replace(conditions, self._grammar.pattern, group) for group in self._grammar.groups
        )
        return name, operator, value

    def _mask(self, parsed: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Evaluate [n] names, operators and values to [items] bool."""
        names, operators, values = parsed
        passing = tf.ones([self._items], tf.bool)
        for name, column in self.columns.items():
            is_own = names == name

            def meets(column: "_Ids | _Numbers" = column, is_own: tf.Tensor = is_own) -> tf.Tensor:
                return column(tf.boolean_mask(operators, is_own), tf.boolean_mask(values, is_own))

            met = tf.cond(tf.reduce_any(is_own), meets, lambda: tf.ones([self._items], tf.bool))
            passing = passing & met
        return passing


class _Ids(tf.Module):
    """Items by their ids in a column: a slice of rows for each id.

    Args:
        column: [items] lists of binary.
    """

    def __init__(self, column: pa.ListArray) -> None:
        super().__init__()
        self._items = len(column)
        encoded = pc.list_flatten(column).dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        rows = pc.list_parent_indices(column).to_numpy()
        known = fingerprint(tf.constant(encoded.dictionary.to_pylist(), tf.string)).numpy()
        place = np.empty(len(known), np.int64)
        place[np.argsort(known)] = np.arange(len(known)) + 1
        places = place[codes]
        # The first entry is for no id, so that there is always one.
        sizes = np.bincount(places, minlength=len(known) + 1)
        ends = np.cumsum(sizes)
        self.known = tf.Variable(
            np.concatenate([[NO_ITEM], np.sort(known)]), trainable=False, name="known", dtype=tf.int64
        )
        bounds = np.stack([ends - sizes, ends]).astype(np.int32)
        self.bounds = tf.Variable(bounds, trainable=False, name="bounds")
        self.rows = tf.Variable(rows[np.argsort(places, kind="stable")].astype(np.int32), trainable=False, name="rows")

    def __call__(self, operators: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Evaluate [n] operators and values to [items] bool."""
        ids = fingerprint(values)
        known = self.known.read_value()
        places = tf.minimum(tf.searchsorted(known, ids), tf.size(known) - 1)
        places = tf.where(tf.gather(known, places) == ids, places, 0)

        def have(operator: str) -> tf.Tensor:
            chosen = tf.unique(tf.boolean_mask(places, operators == operator)).y  # an id may be repeated
            starts, ends = tf.unstack(tf.gather(self.bounds.read_value(), chosen, axis=1))
            entries = tf.ragged.range(starts, ends).flat_values
            rows = tf.gather(self.rows.read_value(), entries)
            nobody = tf.zeros([self._items], tf.bool)
            return tf.tensor_scatter_nd_update(nobody, rows[:, tf.newaxis], tf.ones_like(rows, tf.bool))

        wants_any = tf.reduce_any(operators == ANY_OF)
        any_of = tf.cond(wants_any, lambda: have(ANY_OF), lambda: tf.ones([self._items], tf.bool))
        none_of = tf.cond(
            tf.reduce_any(operators == NONE_OF), lambda: have(NONE_OF), lambda: tf.zeros([self._items], tf.bool)
        )
        return any_of & ~none_of


class _Numbers(tf.Module):
    """Items by their number in a column.

    Args:
        column: [items] float32; NaN if missing.
    """

    def __init__(self, column: NDArray[np.float32]) -> None:
        super().__init__()
        self.numbers = tf.Variable(column, trainable=False, name="numbers")

    def __call__(self, operators: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Evaluate [n] operators and values to [items] bool."""
        numbers = self.numbers.read_value()
        asked = tf.cast(tf.strings.to_number(values, tf.float64), tf.float32)
        infinite = tf.constant(np.inf, tf.float32)
        lowest = tf.reduce_max(tf.where(operators == AT_LEAST, asked, -infinite))
        highest = tf.reduce_min(tf.where(operators == AT_MOST, asked, infinite))
        has_range = tf.reduce_any((operators == AT_LEAST) | (operators == AT_MOST))
        in_range = ((numbers >= lowest) & (numbers <= highest)) | ~has_range

        def have(operator: str) -> tf.Tensor:
            # Sorted, so that the comparisons do not grow with the conditions; the last entry is for no condition.
            chosen = tf.concat([tf.sort(tf.boolean_mask(asked, operators == operator)), [np.nan]], axis=0)
            return tf.gather(chosen, tf.searchsorted(chosen[:-1], numbers)) == numbers

        return in_range & (have(ANY_OF) | ~tf.reduce_any(operators == ANY_OF)) & ~have(NONE_OF)
