"""Softmax cross-entropy of a batch against many candidates, a block of rows at a time.

A plain implementation stores the [queries, candidates] logits and reads them several times, forward and backward. Here a block of
rows spans all columns, and one pass with one exponential per logit gives both value and gradients, because the loss is a scalar:

- the column bias is one more column of the candidates, so the product already holds the corrected logits;
- a column of ones beside the candidates makes the product that the gradient needs also give the sums of the softmax;
- only gradients of the size of the embeddings are kept for the backward pass.

Memory is O(queries * width + block * candidates).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from components.trainer.repeats import Repeats

# A row's exponentials must neither overflow when summed (float32 ends at e^88) nor all underflow (at e^-87).
LARGEST_EXPONENT = 60.0
WIDEST_RANGE = 140.0
LARGEST_SHARE = 0.999999
NOTHING_LEFT = -1e30  # a bias that makes any logit vanish
HIDDEN = -2  # stands for a hidden id; ids are not negative, and -1 stands for no id


class Candidates(NamedTuple):
    """The columns of the softmax, or the rows' positives.

    Attributes:
        embeddings: [candidates, width] float32.
        ids: [candidates] int64. Another column with a row's own id is an accidental hit, and left out.
        bias: [candidates] float32, added to the logits of a column: minus the log of its expected count. Not differentiated.
        users: [candidates] int64, the user of each. Columns of the user of a row's positive are left out too; None leaves out none.
        hidden: [candidates] bool, whether the embedding was made without the item's id; needed only with repeats or taken items.
    """

    embeddings: tf.Tensor
    ids: tf.Tensor
    bias: tf.Tensor
    users: tf.Tensor | None = None
    hidden: tf.Tensor | None = None


def cross_entropy(
    queries: tf.Tensor,
    positives: Candidates,
    candidates: Candidates,
    weights: tf.Tensor,
    inverse_temperature: tf.Tensor,
    positive_left_out: bool,
    block_rows: int,
    negatives_weight: float | None = None,
    repeats: Repeats | None = None,
    taken: tf.Tensor | None = None,
) -> tf.Tensor:
    """Compute the weighted sum of the rows' cross-entropies; differentiable once.

    With logits s_ij = <u_i, v_j> * inverse_temperature, and C_i row i's positive p and the columns without its accidental hits,
    without the items that it has taken and, if columns have users, without other columns of the row's user; whether p is a column
    too makes no difference:

    - with the positive in the softmax (paper, section 3):
      loss_i = log sum_{j in C_i} exp(s_ij + bias_j) - s_ip - bias_p.
    - left out of it (Khrylchenko et al., RecSys 2025): the positive was not sampled, so it is not corrected; the negatives estimate
      the rest of the full softmax's sum, and the row is weighted by how much the full softmax would move it:
      loss_i = stop_gradient(1 - P_i) * (log Z_i - s_ip), where P_i = sigmoid(s_ip - log Z_i) and
      Z_i = (1 - Q_p) / n_i * sum_{j in C_i - p} exp(s_ij) / Q_j, with Q_j = exp(-bias_j) / columns and n_i the number of columns
      that p is not; taken ones count there, as draws of which nothing is added up, and those that `users` leaves out do not.
    - with a weight w of the negatives (BSL; Wu et al., ICDE 2024), the ratio of the positives' temperature to theirs:
      loss_i = w * log sum_{j in C_i - p} exp(s_ij + bias_j) - s_ip - bias_p.

    A row without negatives has loss 0. With repeats, <u_i, v_j> is increased by row i's bonus for the item of column j, unless the
    item's id is hidden there: then it stands for a new item, which is in no history, and which nobody has taken. With repeats or
    taken items, all other copies of an item in the batch are merged into the first of them, with the weight of all: the towers give
    them equal embeddings, apart from random dropout.

    Args:
        queries: [queries, width] float32.
        positives: [queries], in their order.
        candidates: the columns.
        weights: [queries] float32, not negative.
        inverse_temperature: scalar float32.
        positive_left_out: True for the second loss, False for the first.
        block_rows: rows in a block.
        negatives_weight: w of the third loss; None for one of the others.
        repeats: the rows' bonuses for some items; None for none. Cannot be combined with the columns' users, because copies of an
            item belong to several users.
        taken: [queries, entries] int64, ids of items that are no negatives of the query, though its positive may be one of them;
            NO_ITEM for none. None for no such items. Cannot be combined with the columns' users either.

    Returns:
        Scalar float32.
    """

    @tf.custom_gradient
    def scalar(u: tf.Tensor, p: tf.Tensor, v: tf.Tensor, scale: tf.Tensor, bonuses: tf.Tensor):  # type: ignore[no-untyped-def]
        loss, u_gradient, p_gradient, v_gradient, bonus_gradient = _forward_and_backward(
            u * scale,
            positives._replace(embeddings=p),
            candidates._replace(embeddings=v),
            weights,
            positive_left_out,
            block_rows,
            negatives_weight,
            repeats and Repeats(repeats.ids, bonuses * scale),
            taken,
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            by_scale = tf.reduce_sum(u * u_gradient) + tf.reduce_sum(bonuses * bonus_gradient)
            return (
                upstream * scale * u_gradient,
                upstream * p_gradient,
                upstream * v_gradient,
                upstream * by_scale,
                upstream * scale * bonus_gradient,
            )

        return loss, gradient

    bonuses = tf.zeros([queries.shape[0] or tf.shape(queries)[0], 0]) if repeats is None else repeats.bonuses
    return scalar(queries, positives.embeddings, candidates.embeddings, inverse_temperature, bonuses)


class _Rows(NamedTuple):
    """The loss's inputs for each row, besides the candidates.

    Attributes:
        queries: [rows, width] float32, multiplied by the inverse temperature.
        positive_embeddings: [rows, width] float32.
        places: [rows] int32, those of the columns with the positive's id; -1 for none.
        users: [rows] int32, the same of its user; without users all the same.
        biases: [rows] float32, of the positives.
        negatives: [rows] float32, the number of columns without the positive's id.
        weights: [rows] float32.
        bonuses: [rows] float32, the row's bonus for its positive, multiplied by the inverse temperature.
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
        """Reshape to [blocks, block, ...], padded with rows of weight 0."""
        more = blocks * block - (self.weights.shape[0] or tf.shape(self.weights)[0])
        padded = (tf.pad(tensor, [[0, more]] + [[0, 0]] * (len(tensor.shape) - 1)) for tensor in self)
        return _Rows(*(tf.reshape(tensor, [blocks, block, *tensor.shape[1:]]) for tensor in padded))

    def block(self, number: tf.Tensor) -> "_Rows":
        """Return block `number`."""
        return _Rows(*(tf.gather(tensor, number) for tensor in self))


class _Added(NamedTuple):
    """Numbers added to logits: those of the entries whose item has a column, often one in four.

    Attributes:
        entries: [added, 2] int64, the row and the position in it of each entry, by row.
        columns: [added] int32.
        numbers: [added] float32, bonuses multiplied by the inverse temperature.
        starts: [blocks + 1] int32, the first entry of each block.
    """

    entries: tf.Tensor
    columns: tf.Tensor
    numbers: tf.Tensor
    starts: tf.Tensor

    @classmethod
    def of(cls, numbers: tf.Tensor, columns: tf.Tensor, blocks: int | tf.Tensor, block: int) -> "_Added":
        """Select from [rows, entries] numbers those with a column; `columns` has the same shape, -1 for none."""
        entries = tf.where(columns >= 0)
        starts = tf.searchsorted(entries[:, 0], tf.cast(tf.range(blocks + 1) * block, tf.int64))
        return cls(entries, tf.gather_nd(columns, entries), tf.gather_nd(numbers, entries), starts)

    def to(self, logits: tf.Tensor, number: tf.Tensor, block: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Return a block's [rows, columns] logits with the numbers added, and where they were, [added, 2] int32."""
        chosen = slice(self.starts[number], self.starts[number + 1])
        rows = tf.cast(self.entries[chosen, 0], tf.int32) - number * block
        at = tf.stack([rows, self.columns[chosen]], axis=1)
        # In place, unlike `tf.tensor_scatter_nd_add`: copying a block costs as much as all the rest of this.
        return tf.raw_ops.ScatterNdNonAliasingAdd(input=logits, indices=at, updates=self.numbers[chosen]), at


def _forward_and_backward(
    queries: tf.Tensor,
    positives: Candidates,
    candidates: Candidates,
    weights: tf.Tensor,
    positive_left_out: bool,
    block_rows: int,
    negatives_weight: float | None,
    repeats: Repeats | None,
    taken: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compute the loss, and its gradients by the queries, the positives, the candidates and the bonuses.

    Queries and bonuses are already multiplied by the inverse temperature.
    """
    count, width = queries.shape[0] or tf.shape(queries)[0], queries.shape[1]
    columns = candidates.ids.shape[0] or tf.shape(candidates.ids)[0]
    block = min(block_rows, queries.shape[0] or block_rows)
    blocks = -(-count // block)
    places, own_places, equal = _places(candidates.ids, positives.ids)
    users, own_users = tf.zeros_like(places), tf.zeros_like(own_places)
    if candidates.users is not None:
        users, own_users, _ = _places(candidates.users, positives.users)
    bias, bonuses, own_bonuses, added, left = candidates.bias, tf.zeros([count, 0]), tf.zeros([count]), None, None
    if repeats is not None or taken is not None:
        merged = _Merged.of(candidates)
        bias = merged.bias
        if repeats is not None:
            bonuses, added = repeats.bonuses, _Added.of(repeats.bonuses, merged.columns(repeats.ids), blocks, block)
            own_ids = tf.where(positives.hidden, tf.constant(HIDDEN, tf.int64), positives.ids)
            is_own = tf.cast(repeats.ids == own_ids[:, tf.newaxis], tf.float32)
            own_bonuses = tf.reduce_sum(is_own * bonuses, axis=1)
        if taken is not None:
            left = _Added.of(tf.fill(tf.shape(taken), NOTHING_LEFT), merged.columns(taken), blocks, block)
    rows = _Rows(
        queries=queries,
        positive_embeddings=positives.embeddings,
        places=own_places,
        users=own_users,
        biases=positives.bias,
        negatives=tf.cast(columns - equal, tf.float32),
        weights=weights,
        bonuses=own_bonuses,
    ).in_blocks(blocks, block)
    shift, is_narrow = _shift(queries, (positives.embeddings, candidates.embeddings), (positives.bias, bias), bonuses)
    biased = tf.concat([candidates.embeddings, (bias - shift)[:, tf.newaxis]], axis=1)
    summed = _with_ones(candidates.embeddings)

    def step(
        number: tf.Tensor, total: tf.Tensor, by_candidates: tf.Tensor, by_rows: tf.TensorArray, by_added: tf.TensorArray
    ) -> tuple[Any, ...]:
        of_block = rows.block(number)
        # The positive is left out with its accidental hits, and added back if it belongs to the softmax.
        left_out = of_block.places[:, tf.newaxis] == places
        if candidates.users is not None:
            left_out |= of_block.users[:, tf.newaxis] == users
            of_block = of_block._replace(negatives=tf.reduce_sum(tf.cast(~left_out, tf.float32), axis=1))
        logits = tf.matmul(_with_ones(of_block.queries), biased, transpose_b=True)
        similarity = tf.reduce_sum(of_block.queries * of_block.positive_embeddings, axis=1)
        if added is not None:
            logits, at = added.to(logits, number, block)
            similarity += of_block.bonuses
        if left is not None:
            logits, _ = left.to(logits, number, block)
        logits = tf.where(left_out, tf.float32.min, logits)
        corrected = similarity + of_block.biases - shift
        # Without the positive in the sum, all negatives may be too small to be added up.
        lower_bound = corrected if negatives_weight is None else tf.fill([block], NOTHING_LEFT / 2.0)
        highest, logits = tf.cond(
            is_narrow, lambda: (tf.zeros([block]), logits), lambda: _below_highest(logits, lower_bound)
        )
        exponentials = tf.exp(logits)
        sums = tf.matmul(exponentials, summed)  # [block, width + 1], with the softmax's sums in the last column
        weight = 1.0
        if negatives_weight is not None:
            of_positive, weight = tf.zeros([block]), negatives_weight
            has_negatives = sums[:, width] > 0.0
            log_sum = tf.math.log(tf.where(has_negatives, sums[:, width], 1.0)) + highest + shift
            losses, effective = weight * log_sum - corrected - shift, tf.where(has_negatives, of_block.weights, 0.0)
        elif positive_left_out:
            of_positive = tf.zeros([block])
            losses, effective = _without_positive(of_block, similarity, sums[:, width], shift + highest, columns)
        else:
            of_positive = tf.exp(corrected - highest)
            losses = tf.math.log(sums[:, width] + of_positive) - (corrected - highest)
            effective = of_block.weights
        shares = tf.math.divide_no_nan(weight * effective, sums[:, width] + of_positive)
        by_positive = shares * of_positive - effective
        by_queries = shares[:, tf.newaxis] * sums[:, :width] + by_positive[:, tf.newaxis] * of_block.positive_embeddings
        if added is not None:
            by_added = by_added.write(number, tf.gather(shares, at[:, 0]) * tf.gather_nd(exponentials, at))
        return (
            number + 1,
            total + tf.reduce_sum(effective * losses),
            by_candidates + tf.matmul(exponentials, shares[:, tf.newaxis] * of_block.queries, transpose_a=True),
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
    by_bonuses = tf.zeros_like(bonuses)
    if added is not None:
        by_bonuses = tf.tensor_scatter_nd_add(by_positives * is_own, added.entries, by_added.concat())
    return total, by_rows[:, :width], by_positives * queries, by_candidates, by_bonuses


class _Merged(NamedTuple):
    """The columns with an item's copies merged into one, except copies without its id.

    With separate copies, a history with a popular item would have to find hundreds of columns in every row.

    Attributes:
        bias: [columns] float32: the first copy's is increased by the log of the number of copies, the others' are so low that they
            vanish.
        ascending: [columns] int64, the ids in order.
        order: [columns] int32, the column of each of them.
    """

    bias: tf.Tensor
    ascending: tf.Tensor
    order: tf.Tensor

    @classmethod
    def of(cls, candidates: Candidates) -> "_Merged":
        """Merge columns."""
        numbers = tf.range(tf.size(candidates.ids))
        # Every hidden id gets a different number.
        keys = tf.where(candidates.hidden, HIDDEN - tf.cast(numbers, tf.int64), candidates.ids)
        order = tf.argsort(keys, stable=True)
        ascending = tf.gather(keys, order)
        start = tf.searchsorted(ascending, ascending, side="left")
        copies = tf.cast(tf.searchsorted(ascending, ascending, side="right") - start, tf.float32)
        merged = tf.gather(candidates.bias, order) + tf.math.log(copies)
        bias = tf.gather(tf.where(start == numbers, merged, NOTHING_LEFT), tf.math.invert_permutation(order))
        return cls(bias, ascending, order)

    def columns(self, entries: tf.Tensor) -> tf.Tensor:
        """Map [rows, entries] int64 ids to int32, the column of each, -1 for an item without one."""
        places = tf.minimum(tf.searchsorted(self.ascending, tf.reshape(entries, [-1])), tf.size(self.ascending) - 1)
        places = tf.reshape(places, tf.shape(entries))
        found = tf.where(tf.gather(self.ascending, places) == entries, tf.gather(self.order, places), -1)
        return tf.ensure_shape(found, entries.shape)


def _places(ids: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return [ids] int32, the position of each id in ascending order; [wanted] the same, -1 for none, and the number of equal ids.

    Equal ids have equal positions; 32 bits compare faster than 64.
    """
    ascending = tf.sort(ids)
    of_wanted = tf.searchsorted(ascending, wanted, side="left")
    equal = tf.searchsorted(ascending, wanted, side="right") - of_wanted
    return tf.searchsorted(ascending, ids, side="left"), tf.where(equal > 0, of_wanted, -1), equal


def _without_positive(
    rows: _Rows, similarity: tf.Tensor, sums: tf.Tensor, shift: tf.Tensor, columns: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return [rows] losses of the softmax that leaves the positive out, and [rows] weights of the losses and their gradients."""
    columns = tf.cast(columns, tf.float32)
    share = tf.minimum(tf.exp(-rows.biases) / columns, LARGEST_SHARE)  # Q of the positive
    log_sum = tf.math.log(tf.where(sums > 0.0, sums, 1.0)) + shift
    log_rest = log_sum + tf.math.log1p(-share) + tf.math.log(columns / tf.maximum(rows.negatives, 1.0))
    losses = log_rest - similarity
    has_negatives = tf.cast(sums > 0.0, tf.float32)
    return losses, rows.weights * has_negatives * tf.sigmoid(losses)  # 1 - sigmoid(-x) is sigmoid(x)


def _shift(
    queries: tf.Tensor, embeddings: Sequence[tf.Tensor], biases: Sequence[tf.Tensor], bonuses: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return an amount to subtract from all logits, and whether it suffices, or each row needs its own maximum."""
    longest = tf.reduce_max([tf.reduce_max(tf.norm(several, axis=1)) for several in embeddings])
    bound = tf.reduce_max(tf.norm(queries, axis=1)) * longest
    bias = tf.concat(biases, axis=0)
    highest, lowest = tf.reduce_max(bias), tf.reduce_min(tf.where(bias > NOTHING_LEFT, bias, tf.float32.max))
    if bonuses.shape[1]:
        bound += tf.reduce_max(tf.abs(bonuses))
    return bound + highest - LARGEST_EXPONENT, 2.0 * bound + highest - lowest < WIDEST_RANGE


def _below_highest(logits: tf.Tensor, lower_bound: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return [rows] the highest logit of each row, at least the lower bound, and the logits minus it."""
    highest = tf.maximum(tf.reduce_max(logits, axis=1), lower_bound)
    return highest, logits - highest[:, tf.newaxis]


def _with_ones(rows: tf.Tensor) -> tf.Tensor:
    return tf.pad(rows, [[0, 0], [0, 1]], constant_values=1.0)
