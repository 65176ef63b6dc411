"""What a day gives to training, read once for however many models are trained on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import tensorflow as tf
import tensorflow_transform as tft

from components.analysis import files
from components.trainer import frequencies
from components.trainer.held_out import HeldOut, read_held_out
from components.trainer.inputs import (
    TrainingExamples,
    as_known_on,
    catalogue_inputs,
    known_items,
    looked_up,
    lookup_for_queries,
    lookup_for_training,
    masks_of,
    parsed_bytes,
    uniform_draws,
    with_uniform_items,
)
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import Devices
from components.trainer.training import Training
from components.transform.catalogue_lookup import CatalogueLookup, Inputs
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, FeatureSpec

GIB = 1 << 30


@dataclass(frozen=True)
class Places:
    """Where a day's data for training lies.

    Attributes:
        transform_graph: the folder of Transform's graph.
        analysis: the folder of `components.analysis.files`.
        train: patterns of the transformed interactions' files.
        catalogue: patterns of the catalogue's files, raw.
        blocked: of the items that are known, but blocked.
        examples: how many interactions there are.
        earlier: of earlier catalogues, where interactions see them; see `components.example_gen.point_in_time`.
        judged: of the catalogue as it was known before `judged_day`, where that is told apart.
        judged_day: the first day that is held out, in days since 1970-01-01.
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
        """Patterns of the catalogue's files as what is held out sees it."""
        return self.judged or self.catalogue


class TrainingDay:
    """A day's data for training.

    Args:
        places: where it lies.
        spec: the dataset's features.
    """

    def __init__(self, places: Places, spec: FeatureSpec) -> None:
        self.places = places
        self.spec = spec
        self.transform_output = tft.TFTransformOutput(places.transform_graph)
        self.rows = files.table_rows(places.analysis, spec)

    @cached_property
    def catalogue(self) -> Inputs:
        """The item tower's inputs of all items that may be retrieved, as what is held out sees them.

        Were they as the newest catalogue has them, a count of the day would tell uniform draws from what was taken.
        """
        return catalogue_inputs(self.places.ranked, self.spec, self.transform_output)

    @cached_property
    def known(self) -> Inputs:
        """What uniform negatives are drawn from."""
        seen, _ = frequencies.count_items(self.places.train, frequencies.step(self.places.examples))
        return known_items(self.catalogue, seen, masks_of(self.spec, self.rows), self.spec.id_features)

    @cached_property
    def items(self) -> Inputs | None:
        """The inputs of all items that queries and interactions look something up of; None where they look nothing up."""
        if not (self.spec.kept_in_catalogue or self.spec.looked_up):
            return None
        known = [*self.places.catalogue, *self.places.blocked, *self.places.earlier]
        return catalogue_inputs(known, self.spec, self.transform_output, has_versions=bool(self.places.earlier))

    @cached_property
    def lookup(self) -> CatalogueLookup | None:
        """What interactions do not repeat of their items."""
        return lookup_for_training(self.spec, self.items) if self.items else None

    def lookup_of_queries(self, day: int | None) -> CatalogueLookup | None:
        """What the query tower looks up, as interactions of a day see it; None is as the newest catalogue has it."""
        return lookup_for_queries(self.spec, as_known_on(self.spec, self.items, day)) if self.items else None

    def held_out(self, patterns: Sequence[str], most: int, excludes_history: bool = False) -> HeldOut:
        """The held-out interactions, as the first day that is held out sees the catalogue.

        Args:
            patterns: of their files, raw.
            most: about how many there are to be; of a day with more, whole users are drawn.
            excludes_history: whether what stands in a query's history is not ranked.

        Raises:
            UserError: nothing is held out.
        """
        lookup = self.lookup_of_queries(self.places.judged_day)
        not_ranked = self.places.ranked if excludes_history else None
        return read_held_out(patterns, most, self.spec, self.transform_output, lookup, self.catalogue, not_ranked)

    def batch_size(self, settings: TrainerSettings, devices: Devices) -> int:
        """The rows of a global batch: those that are asked for, or fewer where there are fewer.

        Raises:
            UserError: the devices cannot share them evenly.
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
        """A model, made in the scope of the devices' strategy, and what it is trained on.

        Args:
            spec: the day's, but for how much training hides of the ids.
            settings: the trainer's.
            unfinished: where checkpoints on the way are.
            devices: what is trained on.
            go_on: moves an earlier model's state into the untrained one.

        Raises:
            UserError: the devices cannot share a batch evenly.
        """
        examples, batch_size = self.places.examples, self.batch_size(settings, devices)
        steps_per_epoch = -(-examples // batch_size)
        uniform_negatives = _shared_evenly("softmax.uniform_negatives", settings.softmax.uniform_negatives, devices)
        masks = masks_of(spec, self.rows)
        fits = examples * parsed_bytes(self.transform_output) <= settings.kept_gib * GIB
        kept = settings.epochs > 1 and fits and devices.has_weights  # else they are read elsewhere
        known = self.known if uniform_negatives else None  # read before the strategy's scope, and kept
        lookup = self.lookup
        source = TrainingExamples(self.places.train, self.transform_output, batch_size, examples, kept, masks=masks)

        def batches(epoch: int, skip: int) -> tf.data.Dataset:
            seed = settings.seed + epoch
            draws = None
            if known:
                draws = uniform_draws(known, uniform_negatives, seed, masks).skip(skip)
            return with_uniform_items(looked_up(spec, source.batches(seed, skip), lookup), draws)

        with devices.strategy.scope():
            catalogue_size = known[CANDIDATE_ID].shape[0] if known else 0
            model = build_model(spec, self.rows, settings, catalogue_size, devices.parts)
            optimizer = build_optimizer(settings, settings.epochs * steps_per_epoch)
            model.compile(optimizer=optimizer, jit_compile=settings.jit_compile)
            model.make_weights(next(iter(batches(0, 0))))
            state = TrainingState(model)
            go_on(state)
            model.frequency.count_batches_of(batch_size)
        return model, state, Training(batches, steps_per_epoch, settings, unfinished)


def _shared_evenly(name: str, rows: int, devices: Devices) -> int:
    """So many rows, or somewhat fewer, so that each replica has as many.

    Raises:
        UserError: there are fewer than replicas.
    """
    shared = rows - rows % devices.replicas
    if rows and not shared:
        raise UserError(
            f"trainer.strategy: expected at least one of {rows} {name} for each of {devices.replicas} replicas."
        )
    return shared
