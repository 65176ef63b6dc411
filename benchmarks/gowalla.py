"""A public yardstick: the project's towers, loss and estimator on a split of the LightGCN papers, beside what was published.

The folder has `train.txt` and `test.txt`; a line is a user and the user's items, separated by blanks; the last is taken as the
newest. Both towers share one table of items. A query is the items that stand before the one that is to be found, the newer the more
of it; an item is its own row and those of the items that it has most users in common with. Nothing but train says anything of them.
With `--unordered` the order of a line means nothing: it is drawn anew in each epoch, and a query is the user's other items.

The temperature and the number of epochs are chosen by Recall@20 on the last tenth of each user's items in train, which is left out
of it for that; where lines have no order, by one that is drawn. Then a model is trained on all of train with what was chosen, and
judged by test. The protocol is the papers': all items that the user does not have in train are ranked, recall and NDCG are means
over the users that have test items.
"""

import argparse
import gc
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
from components.evaluator.query_items import Excluded
from components.evaluator.ranking import Ranks, rank_by_embedding, rank_by_score
from components.trainer.inputs import Batch
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import one_device
from components.trainer.training import Training, train
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, REWARD, WEIGHTS_SUFFIX, FeatureSpec

K = 20
FOLDER = Path("var/data/gowalla")
TRAIN, TEST = "train.txt", "test.txt"
LEFT_OUT = 0.1  # of each user's items, to choose by
WIDTH = 64  # the published models'
TEMPERATURES = (0.08, 0.1, 0.125)
EPOCHS = 6
LEARNING_RATE = 0.7
ADAGRAD_START = 6.4e-6  # over the width: a gradient has as much less in each of its values as it has more of them
HISTORY, OWN, NEIGHBOURS = "history", "item", "neighbours"
HISTORY_VALUES = 24  # the newest of a history, in training; all of it where a query is judged
NEIGHBOUR_VALUES = 32
RECENCY = -0.5  # the power of how far back an item of a history is
SEEN_BY_MANY = -0.25  # the power of an item's users that weighs it in a history
ACTIVE = -0.5  # the power of a user's items that weighs the user in what two items have in common
COMMON = -0.5  # the power of an item's users that weighs the item in it
CHUNK = 1024  # rows whose inputs are in memory at once
Z = 1.96  # of a 95 % interval

PUBLISHED_COUNTS = (29_858, 40_981, 810_128, 217_242)
PUBLISHED = {  # Recall@20 and NDCG@20 in the BARS benchmark's table for gowalla_m1
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


def neighbours(matrix: Matrix) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the items with the most users in common with each item.

    A user with few items says more than one with many, and so does an item with few users.

    Returns:
        [items, NEIGHBOUR_VALUES] rows of items, -1 where there are no more, and their weights.
    """
    of_users, of_items = (np.maximum(matrix.sum(axis=axis), 1.0) for axis in (1, 0))
    scaled = matrix @ sparse.diags_array(of_items**COMMON)
    transposed = (sparse.diags_array(of_users**ACTIVE) @ scaled).T.tocsr()
    rows = np.full((matrix.shape[1], NEIGHBOUR_VALUES), -1)
    weights = np.zeros(rows.shape, np.float32)
    for start in range(0, len(rows), CHUNK):
        shared = (transposed[start : start + CHUNK] @ scaled).tocsr()
        for item, (first, after) in enumerate(zip(shared.indptr[:-1], shared.indptr[1:], strict=True), start):
            others = shared.indices[first:after] != item
            columns, values = shared.indices[first:after][others], shared.data[first:after][others]
            best = np.argsort(-values, kind="stable")[:NEIGHBOUR_VALUES]
            rows[item, : len(best)], weights[item, : len(best)] = columns[best], values[best]
    return rows, weights


class Inputs:
    """The towers' inputs, from train alone.

    Args:
        matrix: of what is trained on.
        seed: of the order of interactions.
        ordered: whether a line is in the order of time.
    """

    def __init__(self, matrix: Matrix, seed: int, ordered: bool = True) -> None:
        self.matrix = matrix
        self._ordered = ordered
        self._random = np.random.default_rng(seed)
        self._users, self._items = _coordinates(matrix)
        self._lengths = np.diff(matrix.indptr)
        self._weights = (np.maximum(matrix.sum(axis=0), 1.0) ** SEEN_BY_MANY).astype(np.float32)
        self._neighbours = neighbours(matrix)

    def batches(self, size: int) -> tf.data.Dataset:
        """Return an epoch's shuffled batches."""
        signature = Batch(
            {
                HISTORY: tf.TensorSpec([size, HISTORY_VALUES], tf.int64),
                HISTORY + WEIGHTS_SUFFIX: tf.TensorSpec([size, HISTORY_VALUES], tf.float32),
                OWN: tf.TensorSpec([size], tf.int64),
                NEIGHBOURS: tf.TensorSpec([size, NEIGHBOUR_VALUES], tf.int64),
                NEIGHBOURS + WEIGHTS_SUFFIX: tf.TensorSpec([size, NEIGHBOUR_VALUES], tf.float32),
                CANDIDATE_ID: tf.TensorSpec([size], tf.int64),
                REWARD: tf.TensorSpec([size], tf.float32),
            },
            {},
        )
        return tf.data.Dataset.from_generator(lambda: self._epoch(size), output_signature=signature).prefetch(2)

    def _epoch(self, size: int) -> Iterator[Batch]:
        if not self._ordered:
            self._items = _coordinates(shuffled(self.matrix, self._random))[1]
        order = self._random.permutation(len(self._users))
        for start in range(0, len(order) - size + 1, size):
            chosen = order[start : start + size]
            users, items = self._users[chosen], self._items[chosen]
            yield Batch(
                {
                    **self._before(users, chosen - self.matrix.indptr[users], HISTORY_VALUES),
                    **self.of_items(items),
                    CANDIDATE_ID: items,
                    REWARD: np.ones(size, np.float32),
                },
                {},
            )

    def _before(self, users: NDArray[np.int64], ends: NDArray[np.int64], values: int) -> dict[str, NDArray[Any]]:
        """Return the history of each user before a place in it: the newest first, weighed by how far back they are.

        Without an order, what stands behind the place comes behind what stands before it, and all weigh alike.
        """
        ages = np.arange(1, values + 1)
        places, lengths = ends[:, np.newaxis] - ages, self._lengths[users][:, np.newaxis]
        there = places >= 0
        if not self._ordered:
            there = ages < lengths + (
                ends[:, np.newaxis] == lengths
            )  # a place behind the line leaves nothing of it out
            places %= np.maximum(lengths, 1)
        items = self._items[np.where(there, self.matrix.indptr[users][:, np.newaxis] + places, 0)]
        recency = ages ** (RECENCY if self._ordered else 0.0)
        weights = np.where(there, self._weights[items] * recency, 0.0).astype(np.float32)
        return {HISTORY: np.where(there, items, -1), HISTORY + WEIGHTS_SUFFIX: weights}

    def of_users(self, users: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the query tower's inputs, of whole histories."""
        lengths = self._lengths[users]
        return self._before(users, lengths, int(lengths.max(initial=1)))

    def of_items(self, items: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the item tower's inputs."""
        rows, weights = self._neighbours
        return {OWN: items, NEIGHBOURS: rows[items], NEIGHBOURS + WEIGHTS_SUFFIX: weights[items]}


def feature_spec(width: int) -> FeatureSpec:
    """Both towers' features; one table of items is shared by all of them."""
    several = {"kind": "ids", "table": "items", "weights": "weights"}
    return FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "none"},
            "catalogue": {"item": "item"},
            "tables": {"items": {"width": width, "hash_buckets": 1}},
            "query": {HISTORY: {**several, "max_values": HISTORY_VALUES}},
            "item": {OWN: {"kind": "id", "table": "items"}, NEIGHBOURS: {**several, "max_values": NEIGHBOUR_VALUES}},
        }
    )


def settings(options: argparse.Namespace, temperature: float) -> TrainerSettings:
    """Return the trainer's settings for one temperature."""
    return TrainerSettings.model_validate(
        {
            "towers": {"query": [options.width], "item": [options.width]},
            "batch_size": options.batch_size,
            "learning_rate": LEARNING_RATE,
            "adagrad_start": ADAGRAD_START / options.width,
            "softmax": {"temperature": temperature, "negatives_weight": options.negatives_weight},
            "seed": options.seed,
        }
    )


def fit(inputs: Inputs, trainer: TrainerSettings, epochs: int) -> Iterator[TwoTowerModel]:
    """Train with the project's own trainer; yield the model after each epoch."""
    tf_keras.backend.clear_session()  # else the graphs and tables of every model before stay in memory
    gc.collect()
    tf_keras.utils.set_random_seed(trainer.seed)
    size = min(trainer.batch_size, inputs.matrix.nnz)
    items = inputs.matrix.shape[1]
    width = trainer.towers.item[-1]
    model = build_model(feature_spec(width), {"items": items}, trainer, items)
    model.compile(optimizer=build_optimizer(trainer))
    model.make_weights(next(iter(inputs.batches(size))))
    state = TrainingState(model)
    for _ in range(epochs):
        with tempfile.TemporaryDirectory() as folder:
            training = Training(
                lambda epoch, skip: inputs.batches(size), inputs.matrix.nnz // size, trainer, f"{folder}/unfinished"
            )
            train(model, state, training, folder, one_device())
        yield model


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


class Choice(NamedTuple):
    """What the cut was best with."""

    temperature: float
    epochs: int


def choose(matrix: Matrix, options: argparse.Namespace) -> tuple[Choice, dict[str, list[float]]]:
    """Return the temperature and the epochs with the best Recall@K on items left out of train; all that was tried."""
    ordered = matrix if options.ordered else shuffled(matrix, np.random.default_rng(options.seed))
    kept, left_out = cut(ordered)
    if not left_out.nnz:
        raise UserError(f"No user has two items in {TRAIN}, of which one could be left out to choose by.")
    inputs = Inputs(kept, options.seed, options.ordered)
    tried: dict[str, list[float]] = {}
    for temperature in options.temperatures:
        recalls = tried.setdefault(str(temperature), [])
        for model in fit(inputs, settings(options, temperature), options.epochs):
            recalls.append(judge(model, inputs, left_out).recall)
            say(f"temperature {temperature}, epoch {len(recalls)}: recall@{K} {recalls[-1]:.4f} of what was left out")
    best = max(
        (recall, -epoch, temperature)
        for temperature in options.temperatures
        for epoch, recall in enumerate(tried[str(temperature)], 1)
    )
    return Choice(best[2], -best[1]), tried


def say(words: str) -> None:
    """Progress."""
    print(words, flush=True)


Row = Quality | tuple[float, float]


def beside_published(rows: Mapping[str, Quality], counts: tuple[int, ...]) -> Mapping[str, Row]:
    """Add the published results for the split with these counts, if any, to the measured ones."""
    return {**rows, **PUBLISHED} if counts == PUBLISHED_COUNTS else rows


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
    """Chooses, trains, and reads test."""
    if not options.folder.is_dir():
        say(f"Skipped: {options.folder} is no folder. Give one with a {TRAIN} and a {TEST} as the argument.")
        return
    begun = time.monotonic()
    split = read(options.folder)
    choice, tried = choose(split.train, options)
    say(f"chosen: temperature {choice.temperature}, {choice.epochs} epochs; now all of train")
    inputs = Inputs(split.train, options.seed, options.ordered)
    *_, model = fit(inputs, settings(options, choice.temperature), choice.epochs)
    ours = judge(model, inputs, split.test)
    seconds = time.monotonic() - begun
    rows = {f"ours, width {options.width}": ours, "popularity": popularity(split.train, split.test)}
    counts = (*split.train.shape, split.train.nnz, split.test.nnz)
    show(beside_published(rows, counts), counts)
    common.conclude(
        options.json,
        {
            "folder": str(options.folder),
            "counts": counts,
            "trainer": settings(options, choice.temperature).model_dump(mode="json"),
            "epochs": choice.epochs,
            "ordered": options.ordered,
            "history_values": HISTORY_VALUES,
            "neighbour_values": NEIGHBOUR_VALUES,
            "powers": {"recency": RECENCY, "seen_by_many": SEEN_BY_MANY, "active": ACTIVE, "common": COMMON},
        },
        {"tried": tried, "measured": {name: row._asdict() for name, row in rows.items()}, "published": PUBLISHED},
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
    arguments.add_argument("--temperatures", type=positive, nargs="+", default=TEMPERATURES, help="to choose from")
    arguments.add_argument("--epochs", type=positive_int, default=EPOCHS, help="at most")
    arguments.add_argument("--width", type=positive_int, default=WIDTH, help="of the embeddings")
    arguments.add_argument("--batch-size", type=positive_int, default=2048)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument(
        "--unordered", dest="ordered", action="store_false", help="the order of a line means nothing"
    )
    arguments.add_argument("--negatives-weight", type=positive, help="trainer.softmax.negatives_weight")
    try:
        run(arguments.parse_args())
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
