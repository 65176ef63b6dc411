"""Softmax cross-entropy of a batch against many candidates, a block of rows at a time.

Written plainly, the [queries, candidates] logits are stored and read several times over, forward and backward. Here a block of rows
spans all columns, and value and gradients come from one pass over it with one exponential a logit, because the loss is a scalar:

- the column bias is a further column of the candidates, so the product already holds the corrected logits;
- a column of ones beside the candidates gives the sums of the softmax in the product that the gradient needs anyway;
- nothing is kept for the backward pass but gradients of the size of the embeddings.

Memory is O(queries * width + block * candidates).
"""

from typing import Any, NamedTuple

import tensorflow as tf

# A row's exponentials must neither overflow when they are summed, float32 ending at e^88, nor all vanish, at e^-87.
LARGEST_EXPONENT = 60.0
WIDEST_RANGE = 140.0
LARGEST_SHARE = 0.999999


class Candidates(NamedTuple):
    """The columns of the softmax.

    Attributes:
        embeddings: [candidates, width] float32.
        ids: [candidates] int64. Where a row's own id occurs in another column it is an accidental hit, and left out.
        bias: [candidates] float32, added to the logits of a column: minus the log of its expected count. Not differentiated.
        users: [candidates] int64, who took it. A column of the row's own user is left out too; None leaves none out for that.
    """

    embeddings: tf.Tensor
    ids: tf.Tensor
    bias: tf.Tensor
    users: tf.Tensor | None = None


def cross_entropy(
    queries: tf.Tensor,
    candidates: Candidates,
    positives: tf.Tensor,
    weights: tf.Tensor,
    inverse_temperature: tf.Tensor,
    positive_left_out: bool,
    block_rows: int,
    negatives_weight: float | None = None,
) -> tf.Tensor:
    """The weighted sum of the rows' cross-entropies; differentiable once.

    With logits s_ij = <u_i, v_j> * inverse_temperature, and C_i the columns without accidental hits of row i's positive p, and
    without those of the row's user but p where the columns have users:

    - with the positive in the softmax (paper, section 3):
      loss_i = log sum_{j in C_i} exp(s_ij + bias_j) - s_ip - bias_p.
    - left out of it (Khrylchenko et al., RecSys 2025): the positive was not sampled, so it is not corrected; the
      negatives estimate the rest of the full softmax's sum, and the row weighs as much as the full softmax would move it:
      loss_i = stop_gradient(1 - P_i) * (log Z_i - s_ip), where P_i = sigmoid(s_ip - log Z_i) and
      Z_i = (1 - Q_p) / |C_i - p| * sum_{j in C_i - p} exp(s_ij) / Q_j, with Q_j = exp(-bias_j) / columns.
    - with a weight w of the negatives (BSL; Wu et al., ICDE 2024), which is the ratio of the positives' temperature to theirs:
      loss_i = w * log sum_{j in C_i - p} exp(s_ij + bias_j) - s_ip - bias_p.

    A row without negatives has loss 0.

    Args:
        queries: [queries, width] float32.
        candidates: the columns.
        positives: [queries] int32, the column of each row's positive.
        weights: [queries] float32, at least 0.
        inverse_temperature: scalar float32.
        positive_left_out: which of the first two losses.
        block_rows: rows a block.
        negatives_weight: w of the third loss; None for one of the others.

    Returns:
        Scalar float32.
    """

    @tf.custom_gradient
    def scalar(u: tf.Tensor, v: tf.Tensor, scale: tf.Tensor):  # type: ignore[no-untyped-def]
        loss, u_gradient, v_gradient = _forward_and_backward(
            u * scale,
            candidates._replace(embeddings=v),
            positives,
            weights,
            positive_left_out,
            block_rows,
            negatives_weight,
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return (
                upstream * scale * u_gradient,
                upstream * v_gradient,
                upstream * tf.reduce_sum(u * u_gradient),
            )

        return loss, gradient

    return scalar(queries, candidates.embeddings, inverse_temperature)


class _Rows(NamedTuple):
    """What the loss needs of each row, beside the candidates.

    Attributes:
        queries: [rows, width] float32, times the inverse temperature.
        positive_embeddings: [rows, width] float32.
        places: [rows] int32, the same for equal ids of positives.
        users: [rows] int32, the same for equal users; without users those of one user.
        biases: [rows] float32, of the positives.
        negatives: [rows] float32, how many columns are neither the positive nor an accidental hit.
        weights: [rows] float32.
    """

    queries: tf.Tensor
    positive_embeddings: tf.Tensor
    places: tf.Tensor
    users: tf.Tensor
    biases: tf.Tensor
    negatives: tf.Tensor
    weights: tf.Tensor

    def in_blocks(self, blocks: int | tf.Tensor, block: int) -> "_Rows":
        """As [blocks, block, ...], with rows that weigh nothing behind."""
        more = blocks * block - (self.weights.shape[0] or tf.shape(self.weights)[0])
        padded = (tf.pad(part, [[0, more]] + [[0, 0]] * (len(part.shape) - 1)) for part in self)
        return _Rows(*(tf.reshape(part, [blocks, block, *part.shape[1:]]) for part in padded))

    def block(self, number: tf.Tensor) -> "_Rows":
        """One of them."""
        return _Rows(*(tf.gather(part, number) for part in self))


def _forward_and_backward(
    queries: tf.Tensor,
    candidates: Candidates,
    positives: tf.Tensor,
    weights: tf.Tensor,
    positive_left_out: bool,
    block_rows: int,
    negatives_weight: float | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The loss, and its gradients by the queries (already times the inverse temperature) and by the candidates."""
    count, width = queries.shape[0] or tf.shape(queries)[0], queries.shape[1]
    columns = candidates.ids.shape[0] or tf.shape(candidates.ids)[0]
    block = min(block_rows, queries.shape[0] or block_rows)
    blocks = -(-count // block)
    places, equal = _places(candidates.ids)
    users = tf.zeros_like(places) if candidates.users is None else _places(candidates.users)[0]
    rows = _Rows(
        queries=queries,
        positive_embeddings=tf.gather(candidates.embeddings, positives),
        places=tf.gather(places, positives),
        users=tf.gather(users, positives),
        biases=tf.gather(candidates.bias, positives),
        negatives=tf.cast(columns - tf.gather(equal, positives), tf.float32),
        weights=weights,
    ).in_blocks(blocks, block)
    shift, is_narrow = _shift(queries, candidates)
    biased = tf.concat([candidates.embeddings, (candidates.bias - shift)[:, tf.newaxis]], axis=1)
    summed = _with_ones(candidates.embeddings)

    def step(number: tf.Tensor, total: tf.Tensor, by_candidates: tf.Tensor, by_rows: tf.TensorArray) -> tuple[Any, ...]:
        own = rows.block(number)
        # The positive is left out with its accidental hits, and comes back by itself where it belongs to the softmax.
        left_out = own.places[:, tf.newaxis] == places
        if candidates.users is not None:
            left_out |= own.users[:, tf.newaxis] == users
            own = own._replace(negatives=tf.reduce_sum(tf.cast(~left_out, tf.float32), axis=1))
        logits = tf.where(left_out, tf.float32.min, tf.matmul(_with_ones(own.queries), biased, transpose_b=True))
        similarity = tf.reduce_sum(own.queries * own.positive_embeddings, axis=1)
        corrected = similarity + own.biases - shift
        # Beside a positive that is not in the sum, all negatives may be too small to be added up.
        lower_bound = corrected if negatives_weight is None else tf.where(own.negatives > 0.0, tf.float32.min, 0.0)
        highest, logits = tf.cond(
            is_narrow, lambda: (tf.zeros([block]), logits), lambda: _below_highest(logits, lower_bound)
        )
        exponentials = tf.exp(logits)
        sums = tf.matmul(exponentials, summed)  # [block, width + 1], the softmax's own sums in the last column
        weight = 1.0
        if negatives_weight is not None:
            of_positive, weight = tf.zeros([block]), negatives_weight
            has_negatives = own.negatives > 0.0
            log_sum = tf.math.log(tf.where(has_negatives, sums[:, width], 1.0)) + highest + shift
            losses, effective = weight * log_sum - corrected - shift, tf.where(has_negatives, own.weights, 0.0)
        elif positive_left_out:
            of_positive = tf.zeros([block])
            losses, effective = _without_positive(own, similarity, sums[:, width], shift + highest, columns)
        else:
            of_positive = tf.exp(corrected - highest)
            losses = tf.math.log(sums[:, width] + of_positive) - (corrected - highest)
            effective = own.weights
        shares = tf.math.divide_no_nan(weight * effective, sums[:, width] + of_positive)
        by_positive = shares * of_positive - effective
        by_queries = shares[:, tf.newaxis] * sums[:, :width] + by_positive[:, tf.newaxis] * own.positive_embeddings
        return (
            number + 1,
            total + tf.reduce_sum(effective * losses),
            by_candidates + tf.matmul(exponentials, shares[:, tf.newaxis] * own.queries, transpose_a=True),
            by_rows.write(number, tf.concat([by_queries, by_positive[:, tf.newaxis]], axis=1)),
        )

    by_rows = tf.TensorArray(tf.float32, blocks, element_shape=[block, width + 1])
    _, total, by_candidates, by_rows = tf.while_loop(
        lambda number, *_: number < blocks,
        step,
        (0, 0.0, tf.zeros_like(candidates.embeddings), by_rows),
        parallel_iterations=1,
    )
    by_rows = tf.reshape(by_rows.stack(), [-1, width + 1])[:count]
    towards_positives = by_rows[:, width:] * queries
    by_candidates = tf.tensor_scatter_nd_add(by_candidates, positives[:, tf.newaxis], towards_positives)
    return total, by_rows[:, :width], by_candidates


def _places(ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[ids] int32, the place of each among all in ascending order, and how many are equal to it.

    Equal ids have equal places; 32 bits are compared faster than 64.
    """
    ascending = tf.sort(ids)
    places = tf.searchsorted(ascending, ids, side="left")
    return places, tf.searchsorted(ascending, ids, side="right") - places


def _without_positive(
    rows: _Rows, similarity: tf.Tensor, sums: tf.Tensor, shift: tf.Tensor, columns: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """[rows] losses of the softmax that leaves the positive out, and [rows] weights with which they and their gradients count."""
    columns = tf.cast(columns, tf.float32)
    share = tf.minimum(tf.exp(-rows.biases) / columns, LARGEST_SHARE)  # Q of the positive
    log_sum = tf.math.log(tf.where(sums > 0.0, sums, 1.0)) + shift
    log_rest = log_sum + tf.math.log1p(-share) + tf.math.log(columns / tf.maximum(rows.negatives, 1.0))
    losses = log_rest - similarity
    has_negatives = tf.cast(sums > 0.0, tf.float32)
    return losses, rows.weights * has_negatives * tf.sigmoid(losses)  # 1 - sigmoid(-x) is sigmoid(x)


def _shift(queries: tf.Tensor, candidates: Candidates) -> tuple[tf.Tensor, tf.Tensor]:
    """What all logits can be lowered by at once; and whether that is enough, or rows need a maximum of their own."""
    bound = tf.reduce_max(tf.norm(queries, axis=1)) * tf.reduce_max(tf.norm(candidates.embeddings, axis=1))
    highest, lowest = tf.reduce_max(candidates.bias), tf.reduce_min(candidates.bias)
    return bound + highest - LARGEST_EXPONENT, 2.0 * bound + highest - lowest < WIDEST_RANGE


def _below_highest(logits: tf.Tensor, lower_bound: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[rows] the highest logit of each row, at least the lower bound, and the logits less that."""
    highest = tf.maximum(tf.reduce_max(logits, axis=1), lower_bound)
    return highest, logits - highest[:, tf.newaxis]


def _with_ones(rows: tf.Tensor) -> tf.Tensor:
    return tf.pad(rows, [[0, 0], [0, 1]], constant_values=1.0)
