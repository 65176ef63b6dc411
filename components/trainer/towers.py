"""The query tower and the item tower, over embedding tables that they share by name."""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from components.trainer.history_attention import HistoryAttention
from components.transform.recency import recency_weights
from schemas.features import (
    AGES_SUFFIX,
    WEIGHTS_SUFFIX,
    Feature,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    NumberFeature,
    TextFeature,
    VectorFeature,
)

LAYER_STRIDE = 1 << 40  # between the seeds of two layers' dropout
TABLE = "table"  # the name of a table's weights

Parts = Callable[[int, int], int]
"""Maps the numbers of a table's rows and columns to its number of shards."""


def undivided(rows: int, width: int) -> int:
    """Return 1: one shard holds the whole table."""
    return 1


class EmbeddingTable(tf_keras.layers.Layer):
    """Rows of learned vectors; the row -1 (no id) is the zero vector.

    Args:
        rows: the number of rows.
        width: the number of values in a row.
        seed: of the initial values, which also depend on the number of shards.
        name: the table's name.
        parts: the number of shards, each a variable; parameter servers hold some each.

    Attributes:
        parts: [rows of the shard, width] each, rows in order; the first ones have one more row if the division has a remainder.
    """

    def __init__(self, rows: int, width: int, seed: int, name: str, parts: int = 1) -> None:
        super().__init__(name=name)
        self.width = width
        self.parts = []
        for shard in range(parts):
            # A row has a norm of about 1 whatever its width, so that wide and narrow tables have equal influence.
            initializer = tf_keras.initializers.RandomNormal(stddev=width**-0.5, seed=seed + shard)
            shape = (rows // parts + (shard < rows % parts), width)
            # In a graph the operation reuses its buffer; eagerly, each operation would allocate another table.
            self.parts.append(self.add_weight(TABLE, shape=shape, initializer=_in_a_graph(initializer)))

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        """Map int64 rows of any shape [...] to vectors [..., width]."""
        is_known = rows >= 0
        present = tf.where(is_known, rows, tf.zeros_like(rows))
        # Shards divide the rows as ours do: in order, the first ones with one more.
        vectors = tf.nn.embedding_lookup(self.parts, present)
        return vectors * tf.cast(is_known, vectors.dtype)[..., tf.newaxis]


def _in_a_graph(initializer: tf_keras.initializers.Initializer) -> Callable[..., tf.Tensor]:
    compiled = tf.function(initializer, autograph=False)
    return lambda shape, dtype=None: compiled(shape, dtype)


class Tower(tf_keras.Model):
    """Embeds, pools, concatenates, transforms by an MLP and L2-normalises (paper, section 3).

    Args:
        features: the tower's features by name.
        tables: the embedding tables by name; both towers are given the same ones.
        widths: of the dense layers; all but the last are ReLU. None normalises the concatenated features themselves.
        seed: of the initial values.
        name: `query_tower` or `item_tower`.
        mixed_precision: computes the dense layers in bfloat16, with float32 weights.
        dropout: the share of a hidden layer's values that training drops.
    """

    def __init__(
        self,
        features: Mapping[str, Feature],
        tables: Mapping[str, EmbeddingTable],
        widths: tuple[int, ...],
        seed: int,
        name: str,
        mixed_precision: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(name=name)
        self._dropout = dropout
        self.features = dict(features)
        self.tables = dict(tables)
        attending = {n: f for n, f in features.items() if isinstance(f, HistoryFeature) and f.encoder == "attention"}
        self._seeds = {name: _seed(features, feature.table) for name, feature in attending.items()}
        self.attentions = {
            name: HistoryAttention(
                tables[feature.table].width,
                self._seeds[name] is not None,
                feature.has_ages,
                name,
            )
            for name, feature in attending.items()
        }
        self.dense_layers = [
            tf_keras.layers.Dense(
                width,
                activation="relu" if position < len(widths) - 1 else None,
                kernel_initializer=tf_keras.initializers.GlorotUniform(seed=seed + position),
                dtype="mixed_bfloat16" if mixed_precision else None,
            )
            for position, width in enumerate(widths)
        ]

    def call(self, inputs: Mapping[str, tf.Tensor], noise: tf.Tensor | None = None) -> tf.Tensor:
        """Map model inputs by name (see `components.transform.preprocessing`) to [batch, width] float32 unit vectors.

        Args:
            inputs: see above.
            noise: [2] int64, the seed of dropout: a new one each step, and the same if the step is repeated. None for no
                dropout.
        """
        hidden = tf.concat([self._represent(name, feature, inputs) for name, feature in self.features.items()], axis=1)
        for position, layer in enumerate(self.dense_layers):
            hidden = layer(hidden)
            if noise is not None and position < len(self.dense_layers) - 1:
                hidden = tf.nn.experimental.stateless_dropout(
                    hidden, self._dropout, noise + [position * LAYER_STRIDE, 0]
                )
        return tf.math.l2_normalize(tf.cast(hidden, tf.float32), axis=1)

    @tf.autograph.experimental.do_not_convert  # AutoGraph cannot read a match statement; nothing here depends on a tensor
    def _represent(self, name: str, feature: Feature, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        values = inputs[name]
        match feature:
            case NumberFeature():
                return values[:, tf.newaxis]
            case VectorFeature():
                return values
            case IdFeature():
                return self.tables[feature.table](values)
            case HistoryFeature():
                vectors, prior = self.tables[feature.table](values), recency_weights(values >= 0, feature.half_life)
                if name not in self.attentions:
                    return pool(vectors, prior, "mean")
                seed = self._seeds[name]
                return self.attentions[name](
                    vectors,
                    prior,
                    inputs[name + AGES_SUFFIX] if feature.has_ages else None,
                    None if seed is None else self.tables[feature.table](inputs[seed]),
                )
            case IdsFeature() | TextFeature():
                return pool(self.tables[feature.table](values), inputs[name + WEIGHTS_SUFFIX], feature.pooling)


def _seed(features: Mapping[str, Feature], table: str) -> str | None:
    """Return the first feature that is an id of a table; None if there is none."""
    return next((n for n, f in features.items() if isinstance(f, IdFeature) and f.table == table), None)


def pool(vectors: tf.Tensor, weights: tf.Tensor, pooling: str) -> tf.Tensor:
    """Pool [batch, values, width] by weights [batch, values] to the weighted sum or mean; zeros if there is nothing to pool."""
    total = tf.einsum("bvw,bv->bw", vectors, weights)
    if pooling == "sum":
        return total
    return tf.math.divide_no_nan(total, tf.reduce_sum(tf.abs(weights), axis=1, keepdims=True))


def build_tables(
    rows: Mapping[str, int], widths: Mapping[str, int], seed: int, parts: Parts = undivided
) -> dict[str, EmbeddingTable]:
    """Build an embedding table for every name, each with its own seed."""
    names: list[Any] = sorted(rows)
    return {
        name: EmbeddingTable(rows[name], widths[name], seed + 1000 * i, name, parts(rows[name], widths[name]))
        for i, name in enumerate(names, 1)
    }
