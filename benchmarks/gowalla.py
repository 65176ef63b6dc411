"""A public yardstick: the project's towers, loss and estimator on a split of the LightGCN papers, beside what was published.

The folder has `train.txt` and `test.txt`; a line is a user and the user's items, separated by blanks. The order of a line means
nothing. Nothing but train says anything of the items: an item is its own row, its number of users, and a vector, the item's part of
the leading singular vectors of train; a query is the mean of the vectors of the user's items. In the terms of `features.yaml` these
are an `id`, a `number` and a `vector` of the catalogue, and a vector that is `looked_up` for a history. The vectors are this
benchmark's own computation, and so is that an example is shown them without what its own user contributed: otherwise training
would see the item to be found in them, and test would not.

Settings are judged with `--judge random` or `--judge end` by a tenth of each user's items that is left out of train, drawn or from
the end of the line; test is read without it. The protocol is the papers': all items that the user does not have in train are
ranked, recall and NDCG are means over the users that have test items.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import common
from components.evaluator.expectation import discounted_gain, hit_probability, ideal_gain
from components.evaluator.ranking import Excluded, Ranks, rank_by_embedding, rank_by_score
from components.trainer.inputs import Batch
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import one_device
from components.trainer.training import Training, train
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec

K = 20
FOLDER = Path("../shared/data/gowalla")
TRAIN, TEST = "train.txt", "test.txt"
LEFT_OUT = 0.1  # of each user's items, to judge settings by
WIDTH = 64  # the published models'
TEMPERATURE = 0.1
EPOCHS = 4
LEARNING_RATE = 0.7
ADAGRAD_START = 6.4e-6  # over the width: a gradient has as much less in each of its values as it has more of them
END_SHARE = 0.02  # of the learning rate, which falls by a cosine
TAKEN, VECTOR, USERS = "taken", "vector", "users"
VECTOR_SIZE = 256
ITERATIONS = 3  # of the singular vectors' computation
SPARE = 20  # columns of it that are not kept
OF_USER = -0.5  # the power of a user's items that weighs the user's interactions
OF_ITEM = -0.25  # the power of an item's users that weighs the item's
SHORT = 0.05, 0.3  # a vector shorter than this share of this quantile of lengths is not brought to length 1
TINY = 1e-30
CHUNK = 1024  # rows whose inputs are in memory at once
Z = 1.96  # of a 95 % interval

PUBLISHED: Mapping[
    tuple[int, ...], Mapping[str, tuple[float, float]]
] = {  # Recall@20 and NDCG@20, by the split's counts
    (29_858, 40_981, 810_128, 217_242): {  # the BARS benchmark's table for gowalla_m1
        "SimpleX": (0.1872, 0.1557),
        "UltraGCN": (0.1862, 0.1580),
        "GF-CF": (0.1849, 0.1518),
        "MF-CCL": (0.1837, 0.1493),
        "LightGCN": (0.1820, 0.1547),
        "YoutubeDNN": (0.1754, 0.1473),
        "SLIM": (0.1699, 0.1382),
        "MF-BPR": (0.1627, 0.1378),
        "ItemCF": (0.1570, 0.1214),
        "LightGCN + BSL, chosen on test": (0.1892, 0.1590),  # its authors' logs
        "MF + BSL, chosen on test": (0.1882, 0.1584),
    },
    (29_858, 40_988, 810_128, 217_336): {  # SL@K, KDD 2025, table 2
        "LightGCN + SL@20": (0.2128, 0.1729),
        "MF + SL@20": (0.2121, 0.1709),
        "MF + PSL": (0.2089, 0.1647),
        "MF + BSL": (0.2071, 0.1630),
        "MF + softmax": (0.2064, 0.1624),
        "MF + BPR": (0.1355, 0.1111),
    },
}

Matrix: TypeAlias = sparse.csr_array
"""[users, items] of ones: who has which item; a row's columns are in the order of its line."""


class Split(NamedTuple):
    """What is trained on and what is to be found."""

    train: Matrix
    test: Matrix


def read(folder: Path) -> Split:
    """Read a split; ids may be any words.

    Raises:
        UserError: a file that cannot be read, or has no interactions.
    """
    pairs = [_pairs(folder / name) for name in (TRAIN, TEST)]
    users, items = (np.unique(np.concatenate([pair[column] for pair in pairs])) for column in (0, 1))

    def matrix(pair: tuple[NDArray[np.str_], NDArray[np.str_]]) -> Matrix:
        rows, columns = np.searchsorted(users, pair[0]), np.searchsorted(items, pair[1])
        return _ones(rows, columns, (len(users), len(items)))

    found = Split(*map(matrix, pairs))
    if twice := found.train.multiply(found.test).nnz:
        raise UserError(
            f"{folder / TEST}: {twice} of its interactions are in {TRAIN} too; expected each in one of them."
        )
    return found


def _pairs(path: Path) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    users = [words[0] for words in lines for _ in words[1:]]
    if not users:
        raise UserError(
            f"{path} has no interactions; expected lines of a user and the user's items, separated by blanks."
        )
    return np.array(users), np.array([word for words in lines for word in words[1:]])


def _ones(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> Matrix:
    """Return a matrix that keeps the order of each row's columns; a repeated column stays at its first position."""
    first = np.sort(np.unique(rows * shape[1] + columns, return_index=True)[1])
    order = first[np.argsort(rows[first], kind="stable")]
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows[order], minlength=shape[0]))])
    return sparse.csr_array((np.ones(len(order), np.float32), columns[order], ends), shape=shape)


def shuffled(matrix: Matrix, random: np.random.Generator) -> Matrix:
    """Return the same with the items of each user in an order that is drawn."""
    rows, columns = _coordinates(matrix)
    order = np.lexsort((random.random(len(rows)), rows))
    return sparse.csr_array((matrix.data, columns[order], matrix.indptr), shape=matrix.shape)


def cut(matrix: Matrix) -> Split:
    """Leave out the last item of each user, to choose settings by."""
    rows, columns = _coordinates(matrix)
    lengths = np.diff(matrix.indptr)
    kept = lengths - np.maximum(np.floor(LEFT_OUT * lengths), lengths > 1).astype(np.int64)
    out = np.arange(len(rows)) - matrix.indptr[rows] >= kept[rows]
    return Split(*(_ones(rows[chosen], columns[chosen], matrix.shape) for chosen in (~out, out)))


def _coordinates(matrix: Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[nonzeros] rows, ascending, and columns, in the order of the lines."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices.astype(np.int64)


class Vectors:
    """The leading singular vectors of train, such that the items' are weighted sums of the users'.

    With R the matrix of train, each interaction weighed by the powers of its user's items and of its item's users, and R = U S V',
    an item's vector is its row of V S, which is R' U; a query's is the sum of those of the user's items, weighed by their users.
    What a user contributes to an item's vector is one term of that sum, and can be left out.

    Args:
        matrix: train.
        size: of a vector.
        seed: of the start of the computation (subspace iteration; Halko, Martinsson and Tropp, 2011).
    """

    def __init__(self, matrix: Matrix, size: int, seed: int) -> None:
        of_users, of_items = (np.maximum(matrix.sum(axis=axis), 1.0).astype(np.float32) for axis in (1, 0))
        self._user_weights, self._item_weights = of_users**OF_USER, of_items**OF_ITEM
        of_item = matrix @ sparse.diags_array(self._item_weights)
        weighed = (sparse.diags_array(self._user_weights) @ of_item).tocsr()
        transposed = weighed.T.tocsr()
        columns = min(size + SPARE, *matrix.shape)
        basis = np.random.default_rng(seed).standard_normal((matrix.shape[0], columns), np.float32)
        for _ in range(ITERATIONS):
            basis = np.linalg.qr(weighed @ (transposed @ basis))[0]
        found = transposed @ basis
        self._users = basis @ np.linalg.svd(found.T @ found)[0][:, :size]  # U
        self._items = transposed @ self._users
        self._sums = of_item @ self._items
        self._own_shares = self._user_weights * (of_item @ self._item_weights)
        self._shortest = [_shortest(each) for each in (self._items, self._sums)]

    def of_items(self, items: NDArray[np.int64], users: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return [items, size] vectors of length 1, without what these users, one for each item, contributed."""
        vectors = self._items[items]
        if users is not None:
            weights = self._user_weights[users] * self._item_weights[items]
            vectors = vectors - weights[:, np.newaxis] * self._users[users]
        return _of_length_1(vectors, self._shortest[0])

    def of_users(self, users: NDArray[np.int64], items: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return [users, size] sums of the vectors of a user's items, of length 1, without these items, one for each user.

        What the user contributed to the vectors is left out of them.
        """
        sums, own_shares = self._sums[users], self._own_shares[users]
        if items is not None:
            weights = self._item_weights[items]
            sums = sums - weights[:, np.newaxis] * self._items[items]
            own_shares = own_shares - weights**2 * self._user_weights[users]
        return _of_length_1(sums - own_shares[:, np.newaxis] * self._users[users], self._shortest[1])


def _shortest(vectors: NDArray[np.float32]) -> float:
    quantile, share = SHORT
    return max(float(share * np.quantile(np.linalg.norm(vectors, axis=1), quantile)), TINY)


def _of_length_1(vectors: NDArray[np.float32], shortest: float) -> NDArray[np.float32]:
    """Divide by the lengths; what is next to nothing, as an item that only the example's user has, stays so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, shortest)).astype(np.float32)


class Inputs:
    """The towers' inputs, from train alone.

    Args:
        matrix: of what is trained on.
        seed: of the order of interactions.
    """

    def __init__(self, matrix: Matrix, seed: int) -> None:
        self.matrix = matrix
        self._random = np.random.default_rng(seed)
        self._users, self._items = _coordinates(matrix)
        self.vector_size = min(VECTOR_SIZE, *matrix.shape)
        self._vectors = Vectors(matrix, self.vector_size, seed)
        counts = matrix.sum(axis=0)
        logarithms = np.log1p(counts)
        centred = logarithms - np.average(logarithms, weights=counts)
        self._counts = (centred / (logarithms.std() or 1.0)).astype(np.float32)

    def batches(self, size: int) -> tf.data.Dataset:
        """Return an epoch's shuffled batches."""
        one = next(self._epoch(size))
        signature = Batch({name: tf.TensorSpec(each.shape, each.dtype) for name, each in one.interactions.items()}, {})
        return tf.data.Dataset.from_generator(lambda: self._epoch(size), output_signature=signature).prefetch(2)

    def _epoch(self, size: int) -> Iterator[Batch]:
        order = self._random.permutation(len(self._users))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            users, items = self._users[chosen], self._items[chosen]
            interactions = {
                **self.of_users(users, items),
                **self.of_items(items, users),
                CANDIDATE_ID: items,
                REWARD: np.ones(size, np.float32),
            }
            yield Batch(interactions, {})

    def of_users(self, users: NDArray[np.int64], items: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
        """Return the query tower's inputs; in training without the items that are to be found."""
        return {TAKEN: self._vectors.of_users(users, items)}

    def of_items(self, items: NDArray[np.int64], users: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
        """Return the item tower's inputs; in training without what their users contributed."""
        return {VECTOR: self._vectors.of_items(items, users), USERS: self._counts[items]}


def feature_spec(vector_size: int) -> FeatureSpec:
    """Both towers' features."""
    vector = {"kind": "vector", "size": vector_size}
    return FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "none"},
            "catalogue": {"item": "item"},
            "tables": {},
            "query": {TAKEN: vector},
            "item": {VECTOR: vector, USERS: {"kind": "number", "scale": "log"}},
        }
    )


def settings(options: argparse.Namespace) -> TrainerSettings:
    """Return the trainer's settings."""
    return TrainerSettings.model_validate(
        {
            "towers": {"query": [options.width], "item": [options.width]},
            "batch_size": options.batch_size,
            "epochs": options.epochs,
            "learning_rate": LEARNING_RATE,
            "adagrad_start": ADAGRAD_START / options.width,
            "schedule": {"kind": "cosine", "end_share": END_SHARE},
            "softmax": {"temperature": options.temperature},
            "seed": options.seed,
        }
    )


def fit(inputs: Inputs, trainer: TrainerSettings) -> TwoTowerModel:
    """Train with the project's own trainer."""
    tf_keras.utils.set_random_seed(trainer.seed)
    size = min(trainer.batch_size, inputs.matrix.nnz)
    steps = inputs.matrix.nnz // size
    model = build_model(feature_spec(inputs.vector_size), {}, trainer)
    model.compile(optimizer=build_optimizer(trainer, steps * trainer.epochs))
    model.make_weights(next(iter(inputs.batches(size))))
    with tempfile.TemporaryDirectory() as folder:
        training = Training(lambda epoch, skip: inputs.batches(size), steps, trainer, f"{folder}/unfinished")
        train(model, TrainingState(model), training, folder, one_device())
    return model


class Quality(NamedTuple):
    """Means over users, each with half of its 95 % interval."""

    recall: float
    recall_error: float
    gain: float
    gain_error: float


def quality(ranks: Ranks, to_find: Matrix) -> Quality:
    """Recall@K and NDCG@K of each user's set of items, in the order of the matrix."""
    users, _ = _coordinates(to_find)
    number = np.diff(to_find.indptr)
    judged = number > 0
    hits = np.bincount(users, hit_probability(*ranks, K), minlength=len(number))[judged] / number[judged]
    ideal = np.array([ideal_gain(count, K) for count in range(number.max() + 1)])[number[judged]]
    gains = np.bincount(users, discounted_gain(*ranks, K), minlength=len(number))[judged] / ideal

    def mean(values: NDArray[np.float64]) -> tuple[float, float]:
        return float(values.mean()), float(Z * values.std() / np.sqrt(len(values)))

    return Quality(*mean(hits), *mean(gains))


def judge(model: TwoTowerModel, inputs: Inputs, to_find: Matrix) -> Quality:
    """Rank the test items among all items that the user does not have in train."""
    users, true_rows = _coordinates(to_find)
    queries, items = (
        np.concatenate(
            [
                tower({name: tf.constant(values) for name, values in of(rows).items()}).numpy()
                for rows in np.split(np.arange(count), range(CHUNK, count, CHUNK))
            ]
        )
        for tower, of, count in zip(
            (model.query_tower, model.item_tower), (inputs.of_users, inputs.of_items), to_find.shape, strict=True
        )
    )
    return quality(rank_by_embedding(queries[users], items, true_rows, seen(inputs.matrix, users)), to_find)


def popularity(matrix: Matrix, to_find: Matrix) -> Quality:
    """Of the same ranking for everyone."""
    users, true_rows = _coordinates(to_find)
    return quality(rank_by_score(matrix.sum(axis=0).astype(np.float64), true_rows, seen(matrix, users)), to_find)


def seen(matrix: Matrix, users: NDArray[np.int64]) -> Excluded:
    """Return the items that each query's user has already."""
    rows = matrix[users]
    return Excluded(rows.indptr.astype(np.int64), rows.indices.astype(np.int64))


def judged_by(split: Split, options: argparse.Namespace) -> Split:
    """Return what to train on and what to find: the split itself, or a part of train."""
    if options.judge == "test":
        return split
    random = np.random.default_rng(options.seed)
    part = cut(shuffled(split.train, random) if options.judge == "random" else split.train)
    if not part.test.nnz:
        raise UserError(f"No user has two items in {TRAIN}, of which one could be left out to judge by.")
    return part


def say(words: str) -> None:
    """Progress."""
    print(words, flush=True)


Row = Quality | tuple[float, float]


def beside_published(rows: Mapping[str, Quality], counts: tuple[int, ...]) -> Mapping[str, Row]:
    """Add the published results for the split with these counts, if any, to the measured ones."""
    return {**rows, **PUBLISHED.get(counts, {})}


def show(rows: Mapping[str, Row], counts: tuple[int, ...]) -> None:
    """Print the table, the best first."""
    users, items, trained, tested = counts
    shown = [
        [name, f"{row.recall:.4f} ± {row.recall_error:.4f}", f"{row.gain:.4f} ± {row.gain_error:.4f}"]
        if isinstance(row, Quality)
        else [name, *(f"{value:.4f}" for value in row)]
        for name, row in sorted(rows.items(), key=lambda named: -named[1][0])
    ]
    title = (
        f"{users:,} users, {items:,} items, {trained:,} interactions in train, {tested:,} in test; ± is 95 % over users"
    )
    common.show(title, ["", f"Recall@{K}", f"NDCG@{K}"], shown)


def run(options: argparse.Namespace) -> None:
    """Train and judge."""
    if not options.folder.is_dir():
        say(f"Skipped: {options.folder} is no folder. Give one with a {TRAIN} and a {TEST} as the argument.")
        return
    begun = time.monotonic()
    split = judged_by(read(options.folder), options)
    inputs = Inputs(split.train, options.seed)
    model = fit(inputs, settings(options))
    ours = judge(model, inputs, split.test)
    seconds = time.monotonic() - begun
    rows = {f"ours, width {options.width}": ours, "popularity": popularity(split.train, split.test)}
    counts = (*split.train.shape, split.train.nnz, split.test.nnz)
    show(beside_published(rows, counts), counts)
    common.conclude(
        options.json,
        {
            "folder": str(options.folder),
            "judge": options.judge,
            "counts": counts,
            "trainer": settings(options).model_dump(mode="json"),
            "vectors": {"size": VECTOR_SIZE, "of_user": OF_USER, "of_item": OF_ITEM},
        },
        {
            "measured": {name: row._asdict() for name, row in rows.items()},
            "published": PUBLISHED.get(counts, {}),
        },
        {"recall_at_20": ours.recall, "ndcg_at_20": ours.gain, "seconds": seconds},
    )


def positive(text: str) -> float:
    """Return a finite number above 0."""
    if not 0.0 < (number := float(text)) < float("inf"):
        raise ValueError
    return number


def positive_int(text: str) -> int:
    """Return a whole number above 0."""
    return int(positive(str(int(text))))


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("folder", type=Path, nargs="?", default=FOLDER, help="of train.txt and test.txt")
    arguments.add_argument("--judge", choices=("test", "random", "end"), default="test", help="what is to be found")
    arguments.add_argument("--temperature", type=positive, default=TEMPERATURE, help="trainer.softmax.temperature")
    arguments.add_argument("--epochs", type=positive_int, default=EPOCHS, help="passes over train")
    arguments.add_argument("--width", type=positive_int, default=WIDTH, help="of the embeddings")
    arguments.add_argument("--batch-size", type=positive_int, default=2048)
    arguments.add_argument("--seed", type=int, default=0)
    try:
        run(arguments.parse_args())
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
