"""The training split in shuffled batches: all of them, a process's rows of each, or those of some steps."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray

from components.trainer.inputs import Masks, as_it_is, fixed_features, masked
from components.transform.catalogue_lookup import Inputs
from schemas.features import REWARD

WINDOW_EXAMPLES = 100_000
WINDOWS_SHUFFLED = 1_000  # if windows are kept in memory
EXAMPLES_PARSED = 1024  # at once
FILES_SIDE_BY_SIDE = 16
SHARE_STRIDE = 1 << 32  # between the numbers of two shares' windows
Number: TypeAlias = int | tf.Tensor
"""A tensor is an int64, of a graph."""


class Stretches(NamedTuple):
    """Rows of files, a stretch of each.

    Attributes:
        paths: [files] str.
        skips: [files] int64, the rows before a stretch.
        takes: [files] int64, the rows of a stretch.
    """

    paths: NDArray[np.str_] | tf.Tensor
    skips: NDArray[np.int64] | tf.Tensor
    takes: NDArray[np.int64] | tf.Tensor


def no_stretches() -> Stretches:
    """Return no rows of no files."""
    return Stretches(np.array([], np.str_), np.array([], np.int64), np.array([], np.int64))


class Task(NamedTuple):
    """Some steps in a row of an epoch, which read only their own rows.

    Attributes:
        stretches: the rows of the task and of the steps that are passed over.
        fill: rows of which some fill up the last step.
        seed: the epoch's.
        first: the number of the first step of the stretches in the epoch.
        skip: the steps that are passed over.
        steps: the steps that are taken.
        missing: the rows that the last step lacks.
    """

    stretches: Stretches
    fill: Stretches
    seed: Number
    first: Number
    skip: Number
    steps: Number
    missing: Number


class TrainingExamples:
    """The training split in shuffled batches of model inputs by name.

    Shuffling single examples costs more than reading them, and parsing them one by one many times as much. So examples are read and
    parsed by the thousand, from files in turn, and the rows of a window of some 100,000 are shuffled at once. The windows of an
    epoch are shuffled too: by the order of files, or directly if they are kept in memory.

    Every batch has exactly `batch_size` rows, because a smaller last one would have fewer negatives. The last one is filled up
    with other examples of the epoch with reward 0: they are negatives of the others, and are not learnt twice.

    Args:
        files: the rows of each gzipped TFRecord of transformed tf.Examples, by its path.
        transform_output: describes the examples; features without a fixed shape are not read, since interactions lack them.
        batch_size: rows in a batch, no more than the files have.
        kept: whether the first epoch keeps them in memory for the others; see `parsed_bytes`.
        window: the minimum number of examples that are shuffled together.
        masks: masks of the features whose ids are hidden in some rows.

    Attributes:
        steps: the number of batches.
        kept: the shares that are kept in memory, by the number of shares and their own.
    """

    def __init__(
        self,
        files: Mapping[str, int],
        transform_output: tft.TFTransformOutput,
        batch_size: int,
        kept: bool = False,
        window: int = WINDOW_EXAMPLES,
        masks: Masks | None = None,
    ) -> None:
        self._paths = np.array(list(files))
        self._rows = np.array(list(files.values()), np.int64)
        self._examples = int(self._rows.sum())
        self._spec = fixed_features(transform_output)
        self._batch_size = batch_size
        self._masks = masks or {}
        self._window_steps = -(-window // batch_size)  # whole batches, so that each is a slice
        self._is_kept = kept
        self.kept: dict[tuple[int, int], tf.data.Dataset] = {}
        self.steps = -(-self._examples // batch_size)

    def batches(
        self, seed: int, skip: int = 0, division: int = 1, process: int = 0, processes: int = 1
    ) -> tf.data.Dataset:
        """Return one process's rows of an epoch's batches; the same seed and division always give the same batches.

        The examples are divided into shares, of consecutive rows, and a batch has as many rows of each. A process reads the
        shares that its rows are from.

        Args:
            seed: of the order; differs between epochs.
            skip: the number of batches to skip at the beginning.
            division: the number of shares; batches can be divided by it.
            process: the number of the process.
            processes: how many there are; they have as many rows of a batch.
        """
        of_share, of_process = self._batch_size // division, self._batch_size // processes
        shares = range(process * division // processes, -(-(process + 1) * division // processes))
        begin = process * of_process - shares.start * of_share

        @as_it_is
        def own(*rows: Inputs) -> dict[str, tf.Tensor]:
            return {
                name: tf.concat([each[name] for each in rows], axis=0)[begin : begin + of_process] for name in rows[0]
            }

        return tf.data.Dataset.zip(*(self._share(seed, division, number) for number in shares)).map(own).skip(skip)

    def tasks(self, seed: int, skip: int, steps: int, at_most: int) -> Iterator[Task]:
        """Divide some steps of an epoch into tasks, of consecutive rows of the epoch's files; the seed says where the first begins.

        The rows of a task are shuffled, and no others with them, so an example's negatives are of rows near it. Files have their
        rows in random order.

        Args:
            seed: of the epoch.
            skip: the number of the first step.
            steps: their number.
            at_most: the steps of a task; the tasks of an epoch begin at its multiples.
        """
        while steps > 0:
            first = skip - skip % at_most
            last = min(first + at_most, self.steps)
            taken = min(last - skip, steps)
            begin, end = (min(step * self._batch_size, self._examples) for step in (first, last))
            missing = (last - first) * self._batch_size - (end - begin)
            yield Task(
                self._from_anywhere(seed, begin, end),
                self._from_anywhere(seed, 0, missing),
                seed,
                first,
                skip - first,
                taken,
                missing,
            )
            skip, steps = skip + taken, steps - taken

    def of_task(self, task: Task) -> tf.data.Dataset:
        """Return a task's batches; it may consist of a graph's tensors."""
        rows = self._batch_size
        windows, fill = self._windows(task.stretches, self._window_steps * rows), self._windows(task.fill, rows)
        return self._batches(windows, fill, task.seed, task.first, rows, task.missing).skip(task.skip).take(task.steps)

    def _share(self, seed: int, division: int, number: int) -> tf.data.Dataset:
        """Return a share's rows of all batches."""
        begin, end = (self._examples * each // division for each in (number, number + 1))
        rows = self._batch_size // division
        if not self._is_kept:
            stretches = self._stretches(seed, begin, end)
            windows, fill = (self._windows(stretches, count) for count in (self._window_steps * rows, rows))
        else:
            if (division, number) not in self.kept:
                unshuffled = self._windows(self._stretches(0, begin, end), self._window_steps * rows)
                self.kept[division, number] = unshuffled.cache()
            windows = fill = self.kept[division, number].shuffle(WINDOWS_SHUFFLED, seed=seed)
        return self._batches(windows, fill, seed, number * SHARE_STRIDE, rows, self.steps * rows - (end - begin))

    def _stretches(self, seed: int, begin: int, end: int, of_first: int = 0) -> Stretches:
        """Return consecutive rows of the epoch's order of files, given the number of its first row."""
        order = np.random.default_rng(seed).permutation(len(self._paths))
        ends = np.cumsum(self._rows[order]) + of_first
        begins = ends - self._rows[order]
        skips, lasts = np.maximum(begin - begins, 0), np.minimum(end, ends) - begins
        has_rows = lasts > skips
        return Stretches(self._paths[order][has_rows], skips[has_rows], (lasts - skips)[has_rows])

    def _from_anywhere(self, seed: int, begin: int, end: int) -> Stretches:
        """Return consecutive rows of the epoch's order of files, counted from a row that the seed says, around its end."""
        first = int(np.random.default_rng(seed).integers(self._examples))
        begin, end = begin + first, end + first
        parts = [
            self._stretches(seed, max(begin, around), min(end, around + self._examples), around)
            for around in (0, self._examples)
        ]
        return Stretches(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _windows(self, stretches: Stretches, rows: int) -> tf.data.Dataset:
        @as_it_is
        def records(path: tf.Tensor, skip: tf.Tensor, take: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(path, compression_type="GZIP").skip(skip).take(take).batch(EXAMPLES_PARSED)

        read = tf.data.Dataset.from_tensor_slices(tuple(stretches)).interleave(
            records, cycle_length=FILES_SIDE_BY_SIDE, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        parsed = read.map(
            as_it_is(lambda batch: tf.io.parse_example(batch, self._spec)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return parsed.rebatch(rows)

    def _batches(
        self,
        windows: tf.data.Dataset,
        fill: tf.data.Dataset,
        seed: Number,
        number: Number,
        rows: int,
        missing: Number,
    ) -> tf.data.Dataset:
        """Shuffle each window, and return batches of `rows`; the last one lacks `missing` and is filled up.

        Args:
            windows: see `_windows`.
            fill: others of the epoch, to fill up with; the first element is read.
            seed: of the order.
            number: of the first window; no other of the epoch has the same.
            rows: in a batch.
            missing: rows of the last one.
        """

        @as_it_is
        def shuffled(number: tf.Tensor, window: Inputs) -> dict[str, tf.Tensor]:
            order = tf.range(tf.shape(window[REWARD])[0])
            order = tf.random.experimental.stateless_shuffle(order, tf.stack([tf.cast(seed, tf.int64), number]))
            return masked(
                {name: tf.gather(values, order) for name, values in window.items()}, self._masks, seed, number
            )

        @as_it_is
        def filling(window: Inputs) -> dict[str, tf.Tensor]:
            # Of windows in memory the first may be that which has the fewest rows.
            again = tf.range(tf.cast(missing, tf.int32)) % tf.shape(window[REWARD])[0]
            chosen = {name: tf.gather(values, again) for name, values in window.items()}
            return {**chosen, REWARD: tf.zeros_like(chosen[REWARD])}

        epoch = windows.enumerate(number).map(shuffled)
        first = fill.take(tf.minimum(tf.cast(missing, tf.int64), 1)).enumerate(number).map(shuffled)
        return epoch.concatenate(first.map(filling)).rebatch(rows, drop_remainder=True)
