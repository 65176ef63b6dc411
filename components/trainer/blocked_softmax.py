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

from components.trainer.repeats import Repeats

# A row's exponentials must neither overflow when they are summed, float32 ending at e^88, nor all vanish, at e^-87.
LARGEST_EXPONENT = 60.0
WIDEST_RANGE = 140.0
LARGEST_SHARE = 0.999999
NOTHING_LEFT = -1e30  # a bias, beside which a logit is nothing
HIDDEN = -2  # in the place of an id, which is not negative, and of none, which is -1


class Candidates(NamedTuple):
    """The columns of the softmax.

    Attributes:
        embeddings: [candidates, width] float32.
        ids: [candidates] int64. Where a row's own id occurs in another column it is an accidental hit, and left out.
        bias: [candidates] float32, added to the logits of a column: minus the log of its expected count. Not differentiated.
        users: [candidates] int64, who took it. A column of the row's own user is left out too; None leaves none out for that.
        hidden: [candidates] bool, whether the embedding was made without the item's id; asked for beside repeats alone.
    """

    embeddings: tf.Tensor
    ids: tf.Tensor
    bias: tf.Tensor
    users: tf.Tensor | None = None
    hidden: tf.Tensor | None = None


def cross_entropy(
    queries: tf.Tensor,
    candidates: Candidates,
    positives: tf.Tensor,
    weights: tf.Tensor,
    inverse_temperature: tf.Tensor,
    positive_left_out: bool,
    block_rows: int,
    negatives_weight: float | None = None,
    repeats: Repeats | None = None,
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

    A row without negatives has loss 0. With repeats, <u_i, v_j> is greater by the bonus that row i gives the item of column j,
    unless the item's id is hidden there: it is then taken for a new one, which no history has. All other copies of an item in the
    batch are one column, the first of them, that weighs as much as they do: the towers embed them alike, but for what is dropped
    at random.

    Args:
        queries: [queries, width] float32.
        candidates: the columns.
        positives: [queries] int32, the column of each row's positive.
        weights: [queries] float32, at least 0.
        inverse_temperature: scalar float32.
        positive_left_out: which of the first two losses.
        block_rows: rows a block.
        negatives_weight: w of the third loss; None for one of the others.
        repeats: what the rows add to the scores of some items; None adds nothing. Not beside the columns' users, as copies of an
            item are of several.

    Returns:
        Scalar float32.
    """

    @tf.custom_gradient
    def scalar(u: tf.Tensor, v: tf.Tensor, scale: tf.Tensor, bonuses: tf.Tensor):  # type: ignore[no-untyped-def]
        loss, u_gradient, v_gradient, bonus_gradient = _forward_and_backward(
            u * scale,
            candidates._replace(embeddings=v),
            positives,
            weights,
            positive_left_out,
            block_rows,
            negatives_weight,
            repeats and Repeats(repeats.ids, bonuses * scale),
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            by_scale = tf.reduce_sum(u * u_gradient) + tf.reduce_sum(bonuses * bonus_gradient)
            return (
                upstream * scale * u_gradient,
                upstream * v_gradient,
                upstream * by_scale,
                upstream * scale * bonus_gradient,
            )

        return loss, gradient

    bonuses = tf.zeros([queries.shape[0] or tf.shape(queries)[0], 0]) if repeats is None else repeats.bonuses
    return scalar(queries, candidates.embeddings, inverse_temperature, bonuses)


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
        bonuses: [rows] float32, what the row adds to its positive, times the inverse temperature.
    """

    queries: tf.Tensor
    positive_embeddings: tf.Tensor
    places: tf.Tensor
    users: tf.Tensor
    biases: tf.Tensor
    negatives: tf.Tensor
    weights: tf.Tensor
    bonuses: tf.Tensor

    def in_blocks(self, blocks: int | tf.Tensor, block: int) -> "_Rows":
        """As [blocks, block, ...], with rows that weigh nothing behind."""
        more = blocks * block - (self.weights.shape[0] or tf.shape(self.weights)[0])
        padded = (tf.pad(part, [[0, more]] + [[0, 0]] * (len(part.shape) - 1)) for part in self)
        return _Rows(*(tf.reshape(part, [blocks, block, *part.shape[1:]]) for part in padded))

    def block(self, number: tf.Tensor) -> "_Rows":
        """One of them."""
        return _Rows(*(tf.gather(part, number) for part in self))


class _Added(NamedTuple):
    """What is added to logits: entries of the repeats whose item has a column, which is often one in four.

    Attributes:
        entries: [added, 2] int64, the row and the place in it of each entry, by row.
        columns: [added] int32.
        bonuses: [added] float32, times the inverse temperature.
        starts: [blocks + 1] int32, where each block's begin.
    """

    entries: tf.Tensor
    columns: tf.Tensor
    bonuses: tf.Tensor
    starts: tf.Tensor

    @classmethod
    def of(cls, repeats: Repeats, columns: tf.Tensor, blocks: int | tf.Tensor, block: int) -> "_Added":
        """Of [rows, entries] repeats, and as many columns, -1 for none."""
        entries = tf.where(columns >= 0)
        starts = tf.searchsorted(entries[:, 0], tf.cast(tf.range(blocks + 1) * block, tf.int64))
        return cls(entries, tf.gather_nd(columns, entries), tf.gather_nd(repeats.bonuses, entries), starts)

    def block(self, number: tf.Tensor, block: int) -> tuple[tf.Tensor, tf.Tensor]:
        """A block's places in its [rows, columns], [added, 2] int32, and what is added there."""
        chosen = slice(self.starts[number], self.starts[number + 1])
        rows = tf.cast(self.entries[chosen, 0], tf.int32) - number * block
        return tf.stack([rows, self.columns[chosen]], axis=1), self.bonuses[chosen]


def _forward_and_backward(
    queries: tf.Tensor,
    candidates: Candidates,
    positives: tf.Tensor,
    weights: tf.Tensor,
    positive_left_out: bool,
    block_rows: int,
    negatives_weight: float | None,
    repeats: Repeats | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The loss, and its gradients by the queries, by the candidates and by the bonuses.

    Queries and bonuses are already times the inverse temperature.
    """
    count, width = queries.shape[0] or tf.shape(queries)[0], queries.shape[1]
    columns = candidates.ids.shape[0] or tf.shape(candidates.ids)[0]
    block = min(block_rows, queries.shape[0] or block_rows)
    blocks = -(-count // block)
    places, equal = _places(candidates.ids)
    users = tf.zeros_like(places) if candidates.users is None else _places(candidates.users)[0]
    bias, bonuses, own_bonuses, added = candidates.bias, tf.zeros([count, 0]), tf.zeros([count]), None
    if repeats is not None:
        bias, of_entries = _merged(candidates, repeats.ids)
        bonuses, added = repeats.bonuses, _Added.of(repeats, of_entries, blocks, block)
        own_ids = tf.where(candidates.hidden, tf.constant(HIDDEN, tf.int64), candidates.ids)
        is_own = tf.cast(repeats.ids == tf.gather(own_ids, positives)[:, tf.newaxis], tf.float32)
        own_bonuses = tf.reduce_sum(is_own * bonuses, axis=1)
    rows = _Rows(
        queries=queries,
        positive_embeddings=tf.gather(candidates.embeddings, positives),
        places=tf.gather(places, positives),
        users=tf.gather(users, positives),
        biases=tf.gather(candidates.bias, positives),
        negatives=tf.cast(columns - tf.gather(equal, positives), tf.float32),
        weights=weights,
        bonuses=own_bonuses,
    ).in_blocks(blocks, block)
    shift, is_narrow = _shift(queries, candidates.embeddings, bias, bonuses)
    biased = tf.concat([candidates.embeddings, (bias - shift)[:, tf.newaxis]], axis=1)
    summed = _with_ones(candidates.embeddings)

    def step(
        number: tf.Tensor, total: tf.Tensor, by_candidates: tf.Tensor, by_rows: tf.TensorArray, by_added: tf.TensorArray
    ) -> tuple[Any, ...]:
        own = rows.block(number)
        # The positive is left out with its accidental hits, and comes back by itself where it belongs to the softmax.
        left_out = own.places[:, tf.newaxis] == places
        if candidates.users is not None:
            left_out |= own.users[:, tf.newaxis] == users
            own = own._replace(negatives=tf.reduce_sum(tf.cast(~left_out, tf.float32), axis=1))
        logits = tf.matmul(_with_ones(own.queries), biased, transpose_b=True)
        similarity = tf.reduce_sum(own.queries * own.positive_embeddings, axis=1)
        if added is not None:
            at, of_added = added.block(number, block)
            # In place, which `tf.tensor_scatter_nd_add` is not: a copy of a block costs as much as all the rest of this.
            logits = tf.raw_ops.ScatterNdNonAliasingAdd(input=logits, indices=at, updates=of_added)
            similarity += own.bonuses
        logits = tf.where(left_out, tf.float32.min, logits)
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
        if added is not None:
            by_added = by_added.write(number, tf.gather(shares, at[:, 0]) * tf.gather_nd(exponentials, at))
        return (
            number + 1,
            total + tf.reduce_sum(effective * losses),
            by_candidates + tf.matmul(exponentials, shares[:, tf.newaxis] * own.queries, transpose_a=True),
            by_rows.write(number, tf.concat([by_queries, by_positive[:, tf.newaxis]], axis=1)),
            by_added,
        )

    by_rows = tf.TensorArray(tf.float32, blocks, element_shape=[block, width + 1])
    by_added = tf.TensorArray(tf.float32, blocks, element_shape=[None], infer_shape=False)
    _, total, by_candidates, by_rows, by_added = tf.while_loop(
        lambda number, *_: number < blocks,
        step,
        (0, 0.0, tf.zeros_like(candidates.embeddings), by_rows, by_added),
        parallel_iterations=1,
    )
    by_rows = tf.reshape(by_rows.stack(), [-1, width + 1])[:count]
    by_positives = by_rows[:, width:]
    by_candidates = tf.tensor_scatter_nd_add(by_candidates, positives[:, tf.newaxis], by_positives * queries)
    by_bonuses = tf.zeros_like(bonuses)
    if added is not None:
        by_bonuses = tf.tensor_scatter_nd_add(by_positives * is_own, added.entries, by_added.concat())
    return total, by_rows[:, :width], by_candidates, by_bonuses


def _merged(candidates: Candidates, entries: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes one column of an item's copies, but for those without its id.

    Were the copies kept apart, a history with a popular item would have to find hundreds of columns in every row.

    Args:
        candidates: the columns.
        entries: [rows, entries] int64 ids; -1 for none.

    Returns:
        The columns' biases, of the first copy with the log of their number, and so low for the others that nothing is left of them;
        and [rows, entries] int32, the columns of the entries' items, -1 where there is none.
    """
    numbers = tf.range(tf.size(candidates.ids))
    keys = tf.where(
        candidates.hidden, HIDDEN - tf.cast(numbers, tf.int64), candidates.ids
    )  # of hidden ones, each another
    order = tf.argsort(keys, stable=True)
    ascending = tf.gather(keys, order)
    start = tf.searchsorted(ascending, ascending, side="left")
    end = tf.searchsorted(ascending, ascending, side="right")
    merged = tf.gather(candidates.bias, order) + tf.math.log(tf.cast(end - start, tf.float32))
    bias = tf.gather(tf.where(start == numbers, merged, NOTHING_LEFT), tf.math.invert_permutation(order))
    places = tf.minimum(tf.searchsorted(ascending, tf.reshape(entries, [-1])), tf.size(ascending) - 1)
    places = tf.reshape(places, tf.shape(entries))
    columns = tf.where(tf.gather(ascending, places) == entries, tf.gather(order, places), -1)
    return bias, tf.ensure_shape(columns, entries.shape)


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


def _shift(
    queries: tf.Tensor, embeddings: tf.Tensor, bias: tf.Tensor, bonuses: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """What all logits can be lowered by at once; and whether that is enough, or rows need a maximum of their own."""
    bound = tf.reduce_max(tf.norm(queries, axis=1)) * tf.reduce_max(tf.norm(embeddings, axis=1))
    highest, lowest = tf.reduce_max(bias), tf.reduce_min(tf.where(bias > NOTHING_LEFT, bias, tf.float32.max))
    if bonuses.shape[1]:
        bound += tf.reduce_max(tf.abs(bonuses))
    return bound + highest - LARGEST_EXPONENT, 2.0 * bound + highest - lowest < WIDEST_RANGE


def _below_highest(logits: tf.Tensor, lower_bound: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[rows] the highest logit of each row, at least the lower bound, and the logits less that."""
    highest = tf.maximum(tf.reduce_max(logits, axis=1), lower_bound)
    return highest, logits - highest[:, tf.newaxis]


def _with_ones(rows: tf.Tensor) -> tf.Tensor:
    return tf.pad(rows, [[0, 0], [0, 1]], constant_values=1.0)
