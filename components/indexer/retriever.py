"""The retriever: the query tower joined to a search over the catalogue, as one SavedModel (paper, section 5).

It consists of the served tower, so it embeds a query exactly like the tower alone, and of TensorFlow's own operations
only. Three signatures return `item_ids`, string [batch, k], and `scores`, float32 [batch, k], inner products, the best first:

    serving_default      a named tensor for each raw feature of the query, as for the tower; `k`, `exclude` and `where`
    serving_examples     `examples`, string [batch], serialised tf.Examples, with features `exclude` and `where`; `k`
    serving_embeddings   `embedding`, float32 [batch, width], of a query or, for similar items, of an item; `k`, `exclude`, `where`

`k`, int32 [batch], is the number of items for each query, from 1 to `indexer.k_limit`. `exclude`, string [batch, n], has the ids of
items to leave out, such as those already watched; empty texts are ignored. `where`, string [batch, n], has the conditions that
items must meet (`components.indexer.filters`); empty texts are ignored. Without filters in `features.yaml` there is no such input.
Rows are as wide as the largest k of the batch; places beyond a query's own k or the found items have an empty id and the
score -2.

Among equal scores of an exact search, the lower id comes first.

With repeat bonuses (`components.trainer.repeats`), the first two signatures add them, and score the items of the history
whatever lists they are in. An embedding alone has no history, so `serving_embeddings` adds nothing.
"""

import os
from typing import Any

import pyarrow as pa
import tensorflow as tf

from components.indexer.filters import Filters, Passing
from components.indexer.search import Found, Search
from components.indexer.settings import IndexerSettings
from components.indexer.stitched import first
from components.trainer.export import load_tower
from components.trainer.warmup import write_warmup
from components.transform.missing import NO_ITEM
from components.transform.preprocessing import fingerprint
from ndr_client.served import (
    BONUSES,
    EMBEDDING,
    EMBEDDINGS_SIGNATURE,
    EXAMPLES_SIGNATURE,
    EXCLUDE,
    ITEM_IDS,
    NO_SCORE,
    REPEATED,
    RETRIEVER,
    SCORES,
    TENSORS_SIGNATURE,
    WHERE,
    K,
)

K_LIMIT = IndexerSettings().k_limit


class Retriever(tf.Module):
    """A query tower and a search; see the module.

    Args:
        tower: the query tower's SavedModel, loaded.
        search: the search over the catalogue's embeddings.
        ids: the catalogue's item ids, in the order of those embeddings, ascending.
        columns: the filter columns, in the same order (`components.indexer.filter_columns`); None for no filters.
        k_limit: the maximum of k.
    """

    def __init__(
        self,
        tower: tf.Module,
        search: Search,
        ids: list[bytes],
        columns: pa.Table | None = None,
        k_limit: int = K_LIMIT,
    ) -> None:
        super().__init__(name=RETRIEVER)
        self._k_limit = k_limit
        self.tower = tower
        self.search = search
        self.filters = None if columns is None else Filters(columns, ids, search.order)
        self.ids = tf.Variable([ids[row] for row in search.order], trainable=False, name="ids")
        self.fingerprints = tf.Variable(fingerprint(self.ids), trainable=False, name="fingerprints")
        by_tensors, by_examples = (tower.signatures[name] for name in (TENSORS_SIGNATURE, EXAMPLES_SIGNATURE))
        features = by_tensors.structured_input_signature[1]
        width = by_tensors.structured_outputs[EMBEDDING].shape[1]
        if REPEATED in by_tensors.structured_outputs:
            order = tf.argsort(self.fingerprints)
            self.ascending = tf.Variable(tf.gather(self.fingerprints, order), trainable=False, name="ascending")
            self.ascending_rows = tf.Variable(order, trainable=False, name="ascending_rows")
            self.places = tf.Variable(search.order.astype("int32"), trainable=False, name="places")
        self._find, self._find_passing, self._passing = self._traced(width)
        k_spec = tf.TensorSpec([None], tf.int32, name=K)
        texts = (EXCLUDE,) if self.filters is None else (EXCLUDE, WHERE)
        wanted = {K: k_spec, **{name: tf.TensorSpec([None, None], tf.string, name=name) for name in texts}}

        @tf.function(autograph=False, input_signature=[{**features, **wanted}])
        def retrieve_by_tensors(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            asked = by_tensors(**{name: tensors[name] for name in features})
            return self._retrieve(asked, tensors)

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="examples"), k_spec])
        def retrieve_by_examples(examples: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
            parsed = tf.io.parse_example(examples, {name: tf.io.VarLenFeature(tf.string) for name in (EXCLUDE, WHERE)})
            dense = {name: tf.sparse.to_dense(values) for name, values in parsed.items()}
            return self._retrieve(by_examples(examples=examples), {K: k, **dense})

        embedding_spec = tf.TensorSpec([None, width], tf.float32, name=EMBEDDING)

        @tf.function(autograph=False, input_signature=[{EMBEDDING: embedding_spec, **wanted}])
        def retrieve_by_embeddings(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            embedding = tensors[EMBEDDING]
            with tf.control_dependencies([tf.debugging.assert_all_finite(embedding, "embedding: expected numbers")]):
                return self._retrieve({EMBEDDING: tf.identity(embedding)}, tensors)

        self.served = {
            TENSORS_SIGNATURE: retrieve_by_tensors.get_concrete_function(),
            EXAMPLES_SIGNATURE: retrieve_by_examples.get_concrete_function(),
            EMBEDDINGS_SIGNATURE: retrieve_by_embeddings.get_concrete_function(),
        }

    def _traced(self, width: int) -> tuple[Any, Any, Any]:
        """Return the search without and with filters, and the filters: traced once for all signatures."""
        queries = tf.TensorSpec([None, width], tf.float32), tf.TensorSpec([], tf.int32)
        find = tf.function(self.search, autograph=False, input_signature=queries)
        if self.filters is None:
            return find, None, None
        where = tf.TensorSpec([None, None], tf.string)
        passing = tf.function(self.filters, autograph=False, input_signature=[where])
        shapes = Passing(
            tf.TensorSpec([None, len(self.search.order)], tf.bool), *(tf.TensorSpec([None], tf.int32) for _ in range(2))
        )
        return find, tf.function(self.search, autograph=False, input_signature=[*queries, shapes]), passing

    def _retrieve(self, asked: dict[str, tf.Tensor], wanted: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Answer queries.

        Args:
            asked: the tower's outputs for the queries.
            wanted: `k`, `exclude` and, with filters or for Examples, `where`.
        """
        queries, k, exclude = asked[EMBEDDING], wanted[K], wanted[EXCLUDE]
        where = wanted.get(WHERE, exclude[:, :0])
        checks = [
            tf.debugging.assert_positive(tf.shape(queries)[0], "expected at least one query"),
            tf.debugging.assert_positive(k, "k: expected at least 1"),
            tf.debugging.assert_less_equal(k, self._k_limit, f"k: expected at most {self._k_limit} (indexer.k_limit)"),
            tf.debugging.assert_equal(tf.shape(k)[0], tf.shape(queries)[0], "k: expected one for each query"),
            tf.debugging.assert_equal(tf.shape(exclude)[0], tf.shape(queries)[0], "exclude: expected a row a query"),
            tf.debugging.assert_equal(tf.shape(where)[0], tf.shape(queries)[0], "where: expected a row a query"),
        ]
        if self.filters is None:
            no_filters = "where: expected no conditions, as features.yaml declares no catalogue.filters"
            checks.append(tf.debugging.assert_equal(tf.reduce_all(where == ""), True, no_filters))
        with tf.control_dependencies(checks):
            most = tf.minimum(tf.reduce_max(tf.concat([k, [1]], axis=0)), tf.shape(self.ids)[0])
            where = tf.identity(where)
        if self.filters is None:
            hits = self._best(asked, most, exclude, None)
        else:
            hits = tf.cond(
                tf.reduce_all(where == ""),
                lambda: self._best(asked, most, exclude, None),
                lambda: self._best(asked, most, exclude, self._passing(where)),
            )
        is_valid = (hits.scores > NO_SCORE) & (tf.range(most) < k[:, tf.newaxis])
        ids = tf.gather(self.ids.read_value(), tf.maximum(hits.rows, 0))
        return {
            ITEM_IDS: tf.where(is_valid, ids, tf.constant("")),
            SCORES: tf.where(is_valid, hits.scores, NO_SCORE),
        }

    def _best(self, asked: dict[str, tf.Tensor], most: tf.Tensor, exclude: tf.Tensor, passing: Passing | None) -> Found:
        """Return [batch, most] items that pass and are not excluded."""
        queries = asked[EMBEDDING]
        unwanted = _fingerprints(exclude)
        repeated = _fingerprints(asked[REPEATED]) if REPEATED in asked else unwanted[:, :0]
        apart = tf.concat([unwanted, repeated], axis=1)
        # Retrieve as many more as could be left out, so that enough remain.
        k = tf.minimum(most + tf.shape(apart)[1], tf.shape(self.ids)[0])
        hits = self._find(queries, k) if passing is None else self._find_passing(queries, k, passing)
        hits = self._without(hits, apart)
        if REPEATED in asked:
            again = self._without(self._repeated(queries, repeated, asked[BONUSES]), unwanted)
            if passing is not None:
                again = Found(tf.where(passing.of_rows(again.rows), again.scores, NO_SCORE), again.rows)
            return first(Found(*(tf.concat(pair, axis=1) for pair in zip(hits, again, strict=True))), self.places, most)
        scores, places = tf.math.top_k(hits.scores, most)
        return Found(scores, tf.gather(hits.rows, places, batch_dims=1))

    def _without(self, hits: Found, unwanted: tf.Tensor) -> Found:
        """Give `NO_SCORE` to found items with these fingerprints, [batch, n]."""
        candidates = tf.gather(self.fingerprints.read_value(), tf.maximum(hits.rows, 0))
        is_unwanted = tf.reduce_any(candidates[:, :, tf.newaxis] == unwanted[:, tf.newaxis, :], axis=2)
        return Found(tf.where(is_unwanted, NO_SCORE, hits.scores), hits.rows)

    def _repeated(self, queries: tf.Tensor, repeated: tf.Tensor, bonuses: tf.Tensor) -> Found:
        """Score the items with these fingerprints, [batch, n], with their bonuses; `NO_SCORE` for unknown items."""
        ascending = self.ascending.read_value()
        places = tf.searchsorted(ascending, tf.reshape(repeated, [-1]))
        places = tf.reshape(tf.minimum(places, tf.size(ascending) - 1), tf.shape(repeated))
        is_known = tf.gather(ascending, places) == repeated
        rows = tf.gather(self.ascending_rows.read_value(), places)
        return Found(tf.where(is_known, self.search.scores(queries, rows) + bonuses, NO_SCORE), rows)


def _fingerprints(ids: tf.Tensor) -> tf.Tensor:
    """Map string ids to int64 fingerprints, `NO_ITEM` for an empty one."""
    return tf.where(ids == "", tf.constant(NO_ITEM, tf.int64), fingerprint(ids))


def export_retriever(
    query_tower: str,
    search: Search,
    ids: list[bytes],
    folder: str,
    columns: pa.Table | None = None,
    k_limit: int = K_LIMIT,
    name: str = RETRIEVER,
) -> None:
    """Write the retriever's SavedModel, with warm-up requests, to `folder/name`.

    Args:
        query_tower: the folder of its SavedModel.
        search: the search over the catalogue's embeddings.
        ids: in the order of those embeddings, ascending.
        folder: destination.
        columns: the filter columns; see `Retriever`.
        k_limit: the maximum of k.
        name: the name under which it is served.
    """
    retriever = Retriever(load_tower(query_tower), search, ids, columns, k_limit)
    target = os.path.join(folder, name)
    tf.saved_model.save(retriever, target, signatures=retriever.served)
    write_warmup(target, name, retriever.served)
