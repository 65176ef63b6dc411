"""A day's training data, read once for any number of models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow_transform as tft

from components.analysis import files
from components.trainer import frequencies
from components.trainer.epochs import EpochsOfExamples
from components.trainer.examples import TrainingExamples
from components.trainer.held_out import HeldOut, read_held_out
from components.trainer.inputs import (
    as_known_on,
    catalogue_inputs,
    known_items,
    lookup_for_queries,
    lookup_for_training,
    masks_of,
    parsed_bytes,
)
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import Devices
from components.trainer.training import Training
from components.transform.catalogue_lookup import CatalogueLookup, Inputs
from components.transform.file_rows import rows_of_files
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, FeatureSpec

GIB = 1 << 30


@dataclass(frozen=True)
class Places:
    """Where a day's training data lies.

    Attributes:
        transform_graph: the folder of Transform's graph.
        analysis: the folder of `components.analysis.files`.
        train: patterns of the transformed interactions' files.
        catalogue: patterns of the catalogue's files, raw.
        blocked: patterns of items that are known, but blocked.
        examples: the number of interactions.
        earlier: patterns of earlier catalogues, if interactions see them; see `components.example_gen.point_in_time`.
        judged: patterns of the catalogue as known before `judged_day`, if it differs.
        judged_day: the first held-out day, in days since 1970-01-01.
    """

    transform_graph: str
    analysis: str
    train: tuple[str, ...]
    catalogue: tuple[str, ...]
    blocked: tuple[str, ...]
    examples: int
    earlier: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    judged_day: int | None = None

    @property
    def ranked(self) -> tuple[str, ...]:
        """Patterns of the catalogue's files as held-out interactions see it."""
        return self.judged or self.catalogue


class TrainingDay:
    """A day's training data.

    Args:
        places: where the data lies.
        spec: the dataset's features.
    """

    def __init__(self, places: Places, spec: FeatureSpec) -> None:
        self.places = places
        self.spec = spec
        self.transform_output = tft.TFTransformOutput(places.transform_graph)
        self.rows = files.table_rows(places.analysis, spec)

    @cached_property
    def files(self) -> dict[str, int]:
        """The rows of each file of the training split.

        Raises:
            UserError: some are missing.
        """
        rows = rows_of_files(self.places.train)
        if (examples := sum(rows.values())) != self.places.examples:
            raise UserError(
                f"{', '.join(self.places.train)}: expected {self.places.examples} examples, received {examples}. Remove this "
                "output of Transform, and run the day again."
            )
        return rows

    @cached_property
    def catalogue(self) -> Inputs:
        """The item tower's inputs of all retrievable items, as held-out interactions see them.

        With the newest catalogue's values, a count of the day's events would tell uniform draws from positives.
        """
        return catalogue_inputs(self.places.ranked, self.spec, self.transform_output)

    @cached_property
    def known(self) -> Inputs:
        """The items that uniform negatives are drawn from."""
        seen, _ = frequencies.count_items(self.places.train, frequencies.step(self.places.examples))
        return known_items(self.catalogue, seen, masks_of(self.spec, self.rows), self.spec.id_features)

    @cached_property
    def items(self) -> Inputs | None:
        """The inputs of all items that queries or interactions look up; None if they look up nothing."""
        if not (self.spec.kept_in_catalogue or self.spec.looked_up):
            return None
        patterns = [*self.places.catalogue, *self.places.blocked, *self.places.earlier]
        return catalogue_inputs(patterns, self.spec, self.transform_output, has_versions=bool(self.places.earlier))

    @cached_property
    def lookup(self) -> CatalogueLookup | None:
        """The item inputs that interactions do not repeat."""
        return lookup_for_training(self.spec, self.items) if self.items else None

    def lookup_of_queries(self, day: int | None) -> CatalogueLookup | None:
        """Return the query tower's lookup as interactions of a day see it; None for the newest catalogue."""
        return lookup_for_queries(self.spec, as_known_on(self.spec, self.items, day)) if self.items else None

    def held_out(self, patterns: Sequence[str], most: int, excludes_history: bool = False) -> HeldOut:
        """Read the held-out interactions, with the catalogue as the first held-out day sees it.

        Args:
            patterns: patterns of the raw files.
            most: about the number to read; if the day has more, whole users are drawn.
            excludes_history: whether items in a query's history are not ranked.

        Raises:
            UserError: there are no held-out interactions.
        """
        lookup = self.lookup_of_queries(self.places.judged_day)
        not_ranked = self.places.ranked if excludes_history else None
        return read_held_out(patterns, most, self.spec, self.transform_output, lookup, self.catalogue, not_ranked)

    def batch_size(self, settings: TrainerSettings, devices: Devices) -> int:
        """Return the rows of a global batch: those asked for, or all if there are fewer.

        Raises:
            UserError: the devices cannot share the rows evenly.
        """
        return _shared_evenly("examples", min(settings.batch_size, self.places.examples), devices)

    def training(
        self,
        spec: FeatureSpec,
        settings: TrainerSettings,
        unfinished: str,
        devices: Devices,
        go_on: Callable[[TrainingState], None] = lambda state: None,
    ) -> tuple[TwoTowerModel, TrainingState, Training]:
        """Make a model in the scope of the devices' strategy, with its state and its training.

        Args:
            spec: the day's specification; only the masked shares may differ.
            settings: the trainer's settings.
            unfinished: the folder of intermediate checkpoints.
            devices: the devices to train on.
            go_on: moves an earlier model's state into the untrained one.

        Raises:
            UserError: the devices cannot share a batch evenly.
        """
        examples, batch_size = self.places.examples, self.batch_size(settings, devices)
        uniform_negatives = _shared_evenly("softmax.uniform_negatives", settings.softmax.uniform_negatives, devices)
        masks = masks_of(spec, self.rows)
        fits = examples * parsed_bytes(self.transform_output) <= settings.kept_gib * GIB
        in_memory = settings.epochs > 1 and fits and devices.has_weights  # else other machines read them
        known = self.known if uniform_negatives else None  # read before the strategy's scope, and kept
        source = TrainingExamples(self.files, self.transform_output, batch_size, in_memory, masks=masks)
        epochs = EpochsOfExamples(source, settings.seed, spec, self.lookup, known, uniform_negatives, masks)
        with devices.strategy.scope():
            catalogue_size = known[CANDIDATE_ID].shape[0] if known else 0
            model = build_model(spec, self.rows, settings, catalogue_size, devices.parts)
            optimizer = build_optimizer(settings, settings.epochs * source.steps)
            model.compile(optimizer=optimizer, jit_compile=settings.jit_compile)
            (first,) = epochs.tasks(0, 0, 1, 1)  # which keeps nothing in memory
            model.make_weights(next(iter(epochs.of_task(first, epochs.held()))))
            state = TrainingState(model)
            go_on(state)
            model.frequency.count_batches_of(batch_size)
        return model, state, Training(epochs, source.steps, settings, unfinished, batch_size=batch_size)


def _shared_evenly(name: str, rows: int, devices: Devices) -> int:
    """Round `rows` down to a multiple of the replicas.

    Raises:
        UserError: there are fewer rows than replicas.
    """
    shared = rows - rows % devices.replicas
    if rows and not shared:
        raise UserError(
            f"trainer.strategy: expected at least one of {rows} {name} for each of {devices.replicas} replicas."
        )
    return shared
