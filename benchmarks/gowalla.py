"""A public yardstick: the project's towers, trainer and loss on a public split, beside what was published for it.

The folder has `train.txt` and `test.txt`; a line is a user and the user's items, separated by blanks. A query is a user's id and an
item is its id, each with a row of its own, as in the published matrix factorisation. Nothing but train says anything of them.
As there, the items that the user has in train are no negatives.

The number of epochs is chosen by Recall@20 on a tenth of each user's items in train, which is left out of it for that: the last of
each line, as test may go on where train ends; where lines are sorted by id, and so have no order of their own, a random tenth. Then
a model is trained on all of train with what was chosen, and judged by test. The protocol is the papers': all items that
the user does not have in train are ranked, recall and NDCG are means over the users that have test items.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from scipy import sparse

from benchmarks import common
from components.evaluator.expectation import discounted_gain, hit_probability, ideal_gain
from components.evaluator.query_items import Excluded
from components.evaluator.ranking import Ranks, rank_by_embedding, rank_by_score
from components.trainer.epochs import OwnBatches
from components.trainer.inputs import uniform_draws, with_uniform_items
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import one_device
from components.trainer.training import Training, train
from components.transform.missing import NO_ITEM
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, FINGERPRINT_SUFFIX, REWARD, FeatureSpec

K = 20
FOLDER = Path("var/data/gowalla")
TRAIN, TEST = "train.txt", "test.txt"
LEFT_OUT = 0.1  # of each user's items, to choose by
WIDTH = 64  # the published models'
TEMPERATURE, NEGATIVES_WEIGHT = 0.08, 1.22  # BSL's, on Gowalla
EPOCHS, EVERY, PATIENCE = 80, 2, 10  # at most; between two readings of what was left out; of them without a better one
LEARNING_RATE = 0.7
ADAGRAD_START = 6.4e-6  # over the width: a gradient has as much less in each of its values as it has more of them
USER, ITEM, HAS = "user", "item", "has"
MOST = 128  # of a user's items that are no negatives; drawn at random from those of users who have more
CHUNK = 8192  # rows that are embedded at once
Z = 1.96  # of a 95 % interval

Counts: TypeAlias = tuple[int, ...]
"""Users, items, interactions in train, interactions in test."""

PUBLISHED: Mapping[Counts, Mapping[str, tuple[float, float]]] = {  # Recall@20 and NDCG@20
    (29_858, 40_981, 810_128, 217_242): {  # gowalla_m1 in the BARS benchmark's table
        "SimpleX": (0.1872, 0.1557),
        "UltraGCN": (0.1862, 0.1580),
        "GF-CF": (0.1849, 0.1518),
        "MF-CCL": (0.1837, 0.1493),
        "LightGCN": (0.1820, 0.1547),
        "YoutubeDNN": (0.1754, 0.1473),
        "SLIM": (0.1699, 0.1382),
        "MF-BPR": (0.1627, 0.1378),
        "ItemCF": (0.1570, 0.1214),
        # By BSL's authors' logs, whose models were chosen on test.
        "LightGCN + BSL, chosen on test": (0.1892, 0.1590),
        "MF + BSL, chosen on test": (0.1882, 0.1584),
        "MF + softmax, chosen on test": (0.1759, 0.1395),
    },
    (29_858, 40_988, 810_128, 217_336): {  # Gowalla split at random (SL@K, KDD 2025, table 2)
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
    users, items = (_numbered(word for pair in pairs for word in pair[column]) for column in (0, 1))

    def matrix(pair: tuple[list[str], list[str]]) -> Matrix:
        rows, columns = (
            np.array([ids[word] for word in words]) for ids, words in zip((users, items), pair, strict=True)
        )
        return _ones(rows, columns, (len(users), len(items)))

    found = Split(*map(matrix, pairs))
    if twice := found.train.multiply(found.test).nnz:
        raise UserError(
            f"{folder / TEST}: {twice} of its interactions are in {TRAIN} too; expected each in one of them."
        )
    return found


def _numbered(words: Iterable[str]) -> dict[str, int]:
    """Give each distinct word a number; words that are numbers keep their order."""
    return {word: number for number, word in enumerate(sorted(set(words), key=lambda word: (len(word), word)))}


def _pairs(path: Path) -> tuple[list[str], list[str]]:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    users = [words[0] for words in lines for _ in words[1:]]
    if not users:
        raise UserError(
            f"{path} has no interactions; expected lines of a user and the user's items, separated by blanks."
        )
    return users, [word for words in lines for word in words[1:]]


def _ones(rows: NDArray[np.int64], columns: NDArray[np.int64], shape: tuple[int, int]) -> Matrix:
    """Return a matrix that keeps the order of each row's columns; a repeated column stays at its first position."""
    first = np.sort(np.unique(rows * shape[1] + columns, return_index=True)[1])
    order = first[np.argsort(rows[first], kind="stable")]
    ends = np.concatenate([[0], np.cumsum(np.bincount(rows[order], minlength=shape[0]))])
    return sparse.csr_array((np.ones(len(order), np.float32), columns[order], ends), shape=shape)


def cut(matrix: Matrix, random: np.random.Generator) -> Split:
    """Leave out a tenth of each user's items to choose settings by: the last, or a random one where lines are sorted by id."""
    rows, columns = _coordinates(matrix)
    if matrix.has_sorted_indices:
        columns = columns[np.lexsort((random.random(len(rows)), rows))]
    lengths = np.diff(matrix.indptr)
    kept = lengths - np.maximum(np.floor(LEFT_OUT * lengths), lengths > 1).astype(np.int64)
    out = np.arange(len(rows)) - matrix.indptr[rows] >= kept[rows]
    return Split(*(_ones(rows[chosen], columns[chosen], matrix.shape) for chosen in (~out, out)))


def _coordinates(matrix: Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[nonzeros] rows, ascending, and columns, in the order of the lines."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices.astype(np.int64)


class Inputs:
    """The towers' inputs, from train alone.

    Args:
        matrix: of what is trained on.
        seed: of the order of interactions, and of the draws.
        draws: items drawn uniformly for each batch.
    """

    def __init__(self, matrix: Matrix, seed: int, draws: int) -> None:
        self.matrix = matrix
        self._random = np.random.default_rng(seed)
        self._draws = draws
        self._has = tf.constant(self._items_of_users())

    def batches(self, size: int) -> tf.data.Dataset:
        """Return an epoch's shuffled batches."""
        order = self._random.permutation(self.matrix.nnz)
        users, items = (values[order] for values in _coordinates(self.matrix))
        rows = {USER: users, ITEM: items, CANDIDATE_ID: items, REWARD: np.ones(len(users), np.float32)}
        catalogue = {name: tf.range(self.matrix.shape[1], dtype=tf.int64) for name in (ITEM, CANDIDATE_ID)}
        drawn = uniform_draws(catalogue, self._draws, int(self._random.integers(2**31)))
        batches = tf.data.Dataset.from_tensor_slices(rows).batch(size, drop_remainder=True)
        return with_uniform_items(batches.map(self._with_items), drawn)

    def _with_items(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**batch, HAS + FINGERPRINT_SUFFIX: tf.gather(self._has, batch[USER])}

    def _items_of_users(self) -> NDArray[np.int64]:
        """Return [users, MOST] items that each user has."""
        found = np.full((self.matrix.shape[0], MOST), NO_ITEM, np.int64)
        for user, of_user in enumerate(np.split(self.matrix.indices, self.matrix.indptr[1:-1])):
            drawn = self._random.permutation(of_user)[:MOST]
            found[user, : len(drawn)] = drawn
        return found


def feature_spec(width: int) -> FeatureSpec:
    """Declare a row for each user and for each item."""
    return FeatureSpec.model_validate(
        {
            "interactions": {"user": "user", "item": "item", "time": "none"},
            "catalogue": {"item": "item"},
            "tables": {name: {"width": width, "hash_buckets": 1} for name in (USER, ITEM)},
            "query": {
                USER: {"kind": "id", "table": USER},
                HAS: {"kind": "history", "table": ITEM, "last": MOST, "encoder": "none", "negatives": False},
            },
            "item": {ITEM: {"kind": "id", "table": ITEM}},
        }
    )


def settings(options: argparse.Namespace, items: int) -> TrainerSettings:
    """Return the trainer's settings for a number of items."""
    return TrainerSettings.model_validate(
        {
            "towers": {"query": [], "item": []},
            "batch_size": options.batch_size,
            "learning_rate": LEARNING_RATE,
            "adagrad_start": ADAGRAD_START / options.width,
            "softmax": {
                "temperature": options.temperature,
                "negatives_weight": options.negatives_weight,
                "uniform_negatives": options.draws,
                "in_batch_negatives": False,
                "top_share": min(K / items, 0.5),
                "top_temperature": options.top_temperature,
            },
            "seed": options.seed,
        }
    )


def fit(inputs: Inputs, trainer: TrainerSettings, width: int, epochs: int) -> Iterator[TwoTowerModel]:
    """Train with the project's own trainer; yield the model after each epoch."""
    tf_keras.backend.clear_session()  # else the graphs and tables of every model before stay in memory
    gc.collect()
    tf_keras.utils.set_random_seed(trainer.seed)
    size = min(trainer.batch_size, inputs.matrix.nnz)
    users, items = inputs.matrix.shape
    model = build_model(feature_spec(width), {USER: users, ITEM: items}, trainer, items)
    model.compile(optimizer=build_optimizer(trainer))
    model.make_weights(next(iter(inputs.batches(size))))
    state = TrainingState(model)
    for _ in range(epochs):
        with tempfile.TemporaryDirectory() as folder:
            own = OwnBatches(lambda epoch, skip: inputs.batches(size))
            training = Training(own, inputs.matrix.nnz // size, trainer, f"{folder}/unfinished")
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


def judge(model: TwoTowerModel, matrix: Matrix, to_find: Matrix) -> Quality:
    """Rank the test items among all items that the user does not have in train."""
    users, true_rows = _coordinates(to_find)
    queries, items = (
        np.concatenate(
            [
                tower({name: tf.constant(rows)}).numpy()
                for rows in np.split(np.arange(count), range(CHUNK, count, CHUNK))
            ]
        )
        for tower, name, count in zip((model.query_tower, model.item_tower), (USER, ITEM), to_find.shape, strict=True)
    )
    return quality(rank_by_embedding(queries[users], items, true_rows, seen(matrix, users)), to_find)


def popularity(matrix: Matrix, to_find: Matrix) -> Quality:
    """Of the same ranking for everyone."""
    users, true_rows = _coordinates(to_find)
    return quality(rank_by_score(matrix.sum(axis=0).astype(np.float64), true_rows, seen(matrix, users)), to_find)


def seen(matrix: Matrix, users: NDArray[np.int64]) -> Excluded:
    """Return the items that each query's user has already."""
    rows = matrix[users]
    return Excluded(rows.indptr.astype(np.int64), rows.indices.astype(np.int64))


def choose(matrix: Matrix, options: argparse.Namespace) -> tuple[int, dict[int, float]]:
    """Return the number of epochs with the best Recall@K on items left out of train, and Recall@K by epoch."""
    kept, left_out = cut(matrix, np.random.default_rng(options.seed))
    if not left_out.nnz:
        raise UserError(f"No user has two items in {TRAIN}, of which one could be left out to choose by.")
    recalls: dict[int, float] = {}
    best = 0
    trainer = settings(options, matrix.shape[1])
    for epoch, model in enumerate(
        fit(Inputs(kept, options.seed, options.draws), trainer, options.width, options.epochs), 1
    ):
        if epoch % EVERY and epoch < options.epochs:
            continue
        recalls[epoch] = judge(model, kept, left_out).recall
        say(f"epoch {epoch}: recall@{K} {recalls[epoch]:.4f} of what was left out")
        best = max(recalls, key=recalls.__getitem__)
        if epoch - best >= PATIENCE * EVERY:
            break
    return best, recalls


def say(words: str) -> None:
    """Progress."""
    print(words, flush=True)


Row = Quality | tuple[float, float]


def beside_published(rows: Mapping[str, Quality], counts: Counts) -> Mapping[str, Row]:
    """Add the published results for the split with these counts, if any, to the measured ones."""
    return {**rows, **PUBLISHED.get(counts, {})}


def show(rows: Mapping[str, Row], counts: Counts) -> None:
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
    trainer = settings(options, split.train.shape[1])
    epochs, recalls = choose(split.train, options)
    say(f"chosen: {epochs} epochs; now all of train")
    *_, model = fit(Inputs(split.train, options.seed, options.draws), trainer, options.width, epochs)
    ours = judge(model, split.train, split.test)
    seconds = time.monotonic() - begun
    rows = {f"ours, width {options.width}": ours, "popularity": popularity(split.train, split.test)}
    counts = (*split.train.shape, split.train.nnz, split.test.nnz)
    show(beside_published(rows, counts), counts)
    common.conclude(
        options.json,
        {
            "folder": str(options.folder),
            "counts": counts,
            "trainer": trainer.model_dump(mode="json"),
            "epochs": epochs,
        },
        {
            "recall_by_epoch": recalls,
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
    arguments.add_argument("--temperature", type=positive, default=TEMPERATURE, help="of the softmax")
    arguments.add_argument("--epochs", type=positive_int, default=EPOCHS, help="at most")
    arguments.add_argument("--width", type=positive_int, default=WIDTH, help="of the embeddings")
    arguments.add_argument("--batch-size", type=positive_int, default=2048)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--draws", type=positive_int, default=1024, help="uniform negatives of a batch")
    arguments.add_argument(
        "--negatives-weight", type=positive, default=NEGATIVES_WEIGHT, help="trainer.softmax.negatives_weight"
    )
    arguments.add_argument("--top-temperature", type=positive, default=0.5, help="trainer.softmax.top_temperature")
    try:
        run(arguments.parse_args())
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
