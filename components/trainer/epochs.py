"""The input of training, epoch by epoch: for processes that train in step, and for workers that do not wait for each other."""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import tensorflow as tf

from components.trainer.examples import Number, Task, TrainingExamples, no_stretches
from components.trainer.inputs import Masks, as_it_is, looked_up, uniform_draws, with_uniform_items
from components.transform.catalogue_lookup import CatalogueLookup, Inputs
from schemas.features import FeatureSpec

Held = Mapping[str, Inputs]
KNOWN, LOOKUP = "known", "lookup"


class Epochs(Protocol):
    """Batches of training; how an epoch is divided says which rows are in which, not who takes them."""

    def batches(self, epoch: int, skip: int, division: int, process: int, processes: int) -> tf.data.Dataset:
        """Return a process's rows of an epoch's batches, each a `Batch`; see `TrainingExamples.batches`."""

    def tasks(self, epoch: int, skip: int, steps: int, at_most: int) -> Iterator[Task]:
        """Divide some steps of an epoch; see `TrainingExamples.tasks`."""

    def held(self) -> Held:
        """Return the arrays that `of_task` needs, which may be large: each worker is sent them once."""

    def of_task(self, task: Task, held: Held) -> tf.data.Dataset:
        """Return a task's batches, each a `Batch`; called in a graph of a worker, for all its tasks."""


class EpochsOfExamples:
    """The examples of the training split, completed by what the catalogue has.

    Args:
        examples: the training split.
        seed: of the first epoch; the others have the next ones.
        spec: the dataset's features.
        lookup: see `looked_up`.
        known: the items of uniform draws; see `known_items`.
        draws: the number of draws for a batch.
        masks: masks of the features whose ids are hidden in some draws.

    Attributes:
        examples: see above.
    """

    def __init__(
        self,
        examples: TrainingExamples,
        seed: int,
        spec: FeatureSpec,
        lookup: CatalogueLookup | None,
        known: Inputs | None,
        draws: int,
        masks: Masks,
    ) -> None:
        self.examples, self._seed, self._spec, self._lookup = examples, seed, spec, lookup
        self._known, self._draws, self._masks = known, draws, masks

    def batches(self, epoch: int, skip: int, division: int, process: int, processes: int) -> tf.data.Dataset:
        """See `Epochs`."""
        seed = self._seed + epoch
        own = self.examples.batches(seed, skip, division, process, processes)
        return self._complete(own, seed, skip, process, processes, self._lookup, self._known)

    def tasks(self, epoch: int, skip: int, steps: int, at_most: int) -> Iterator[Task]:
        """See `Epochs`."""
        return self.examples.tasks(self._seed + epoch, skip, steps, at_most)

    def held(self) -> Held:
        """See `Epochs`."""
        return {KNOWN: self._known or {}, LOOKUP: self._lookup.arrays if self._lookup else {}}

    def of_task(self, task: Task, held: Held) -> tf.data.Dataset:
        """See `Epochs`."""
        lookup = self._lookup.over(held[LOOKUP]) if self._lookup else None
        batches = self.examples.of_task(task)
        return self._complete(batches, task.seed, task.first + task.skip, 0, 1, lookup, held[KNOWN])

    def _complete(
        self,
        batches: tf.data.Dataset,
        seed: Number,
        skip: Number,
        process: int,
        processes: int,
        lookup: CatalogueLookup | None,
        known: Inputs | None,
    ) -> tf.data.Dataset:
        draws = None
        if known:
            draws = rows_of(uniform_draws(known, self._draws, seed, self._masks, skip), process, processes)
        return with_uniform_items(looked_up(self._spec, batches, lookup), draws)


class OwnBatches:
    """The batches of a caller who has them: each process takes its rows of all, each task those of its steps.

    Args:
        make: returns an epoch's batches, given its number and the number of batches to skip; with parameter servers these are
            tensors of a graph.
    """

    def __init__(self, make: Callable[[Number, Number], tf.data.Dataset]) -> None:
        self._make = make

    def batches(self, epoch: int, skip: int, division: int, process: int, processes: int) -> tf.data.Dataset:
        """See `Epochs`."""
        return rows_of(self._make(epoch, skip), process, processes)

    def tasks(self, epoch: int, skip: int, steps: int, at_most: int) -> Iterator[Task]:
        """See `Epochs`."""
        for first in range(skip, skip + steps, at_most):
            yield Task(no_stretches(), no_stretches(), epoch, first, 0, min(at_most, skip + steps - first), 0)

    def held(self) -> Held:
        """See `Epochs`."""
        return {}

    def of_task(self, task: Task, held: Held) -> tf.data.Dataset:
        """See `Epochs`."""
        return self._make(task.seed, task.first).take(task.steps)


def rows_of(batches: tf.data.Dataset, process: int, processes: int) -> tf.data.Dataset:
    """Select one process's rows of batches; the shapes stay static."""
    if processes == 1:
        return batches

    def own(rows: tf.Tensor) -> tf.Tensor:
        count = rows.shape[0] // processes
        return rows[process * count : (process + 1) * count]

    return batches.map(as_it_is(lambda batch: tf.nest.map_structure(own, batch)))
