"""A search for better settings on one day's data: Optuna's sampler proposes, and successive halving stops bad trials.

A trial trains a model from scratch on the day's training split, and ranks the held-out users after each epoch, which also finds
the best number of epochs. Completed trials are in a journal, with their hits: a killed search resumes after the last completed
trial, and a killed trial starts again with the same settings.
"""

import gc
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tf_keras
from numpy.typing import NDArray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from components.evaluator.ranked import USER_GROUPS
from components.evaluator.statistics import Mean
from components.progress import progress
from components.trainer.day import TrainingDay
from components.trainer.held_out import HeldOut
from components.trainer.model import TwoTowerModel
from components.trainer.settings import TrainerSettings
from components.trainer.strategies import one_device
from components.trainer.training import train
from components.tuner.settings import LINEAR, TunerSettings
from components.tuner.trial import Trial
from components.whole_files import aside
from schemas.errors import UserError
from schemas.features import FeatureSpec

JOURNAL = "journal.log"
SCRATCH = "scratch"
CONFIGURED = "configured"
SEEDED = 10  # random trials before the sampler learns from them
MASKED = "tables.*.masked"
TEMPERATURE, STRENGTH = "trainer.softmax.temperature", "trainer.softmax.strength"
LEARNING_RATE, NEGATIVES = "trainer.learning_rate", "trainer.softmax.uniform_negatives"
LAYERS = "trainer.towers"
Values = dict[str, float | int | str]


@dataclass(frozen=True)
class Gain:
    """The gain of the best trial over the current settings, for the users that had no part in the choice.

    Attributes:
        trial: the best trial's number.
        epochs: the epochs after which it was best.
        before: recall@K of the current settings, with their own epochs.
        after: the best trial's.
        difference: `after` minus `before`.
        lower: lower end of the 95 % interval of the difference; None if all users are in one group.
        upper: upper end of the interval.
    """

    trial: int
    epochs: int
    before: float
    after: float
    difference: float
    lower: float | None
    upper: float | None


class Search:
    """A search, new or resumed.

    Args:
        day: the training data.
        held_out: the data that compares trials.
        trainer: the current settings, of a run that starts from scratch.
        settings: the ranges of the search.
        k: the K of recall@K.
        folder: the folder of the search's state; the same for the same search.
    """

    def __init__(
        self,
        day: TrainingDay,
        held_out: HeldOut,
        trainer: TrainerSettings,
        settings: TunerSettings,
        k: int,
        folder: Path,
    ) -> None:
        self._day, self._held_out, self._trainer, self._settings, self._k = day, held_out, trainer, settings, k
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))),
            study_name=CONFIGURED,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=settings.reduction),
        )
        # With another seed than before, or the first draws would repeat.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=trainer.seed + len(self._study.trials), n_startup_trials=SEEDED
        )
        if not self._study.trials:
            self._study.enqueue_trial(self._current())
        for trial in self._study.get_trials(states=[TrialState.RUNNING]):  # it was killed
            self._study.tell(trial.number, state=TrialState.FAIL)
            self._study.enqueue_trial(trial.params, user_attrs={"instead_of": trial.number})

    @property
    def trials(self) -> list[Trial]:
        """The completed trials, oldest first."""
        return [_read(trial) for trial in self._study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]

    def run(self, seconds: float, ended: Callable[[Trial], None]) -> None:
        """Run trials until the time is over, including that of earlier attempts. The current settings are always tried.

        Args:
            seconds: time for all trials together.
            ended: called with each trial at its end.
        """
        while (left := seconds - sum(trial.seconds for trial in self.trials)) > 0 or not self.trials:
            progress(f"{len(self.trials)} trials", max(0.0, 1.0 - left / seconds))
            number = self._try(self._study.ask(), time.monotonic() + left)
            ended(_read(self._study.trials[number]))

    def _try(self, trial: optuna.Trial, deadline: float) -> int:
        """Run a trial to its end, or until just after the deadline; return its number."""
        started = time.monotonic()
        values = self._chosen(trial)
        is_current = values == self._current()
        curve: list[float] = []

        def is_enough(epoch: int, model: TwoTowerModel) -> bool:
            hits = self._held_out.hits(model, self._k)
            _write(self._hits_file(trial.number, epoch + 1), hits[~self._held_out.chooses])
            curve.append(float(hits[self._held_out.chooses].mean()))
            trial.set_user_attr("curve", curve)
            trial.report(curve[-1], epoch + 1)
            if is_current and epoch + 1 < self._trainer.epochs:
                return False
            return time.monotonic() > deadline or (not is_current and trial.should_prune())

        try:
            self._train(values, is_enough)
        except UserError:  # it diverged, which is a result
            trial.set_user_attr("diverged", True)
            curve.clear()
        trial.set_user_attr("seconds", time.monotonic() - started)
        is_whole = bool(curve) and (is_current or len(curve) == self._epochs)
        self._study.tell(
            trial, max(curve) if is_whole else None, TrialState.COMPLETE if is_whole else TrialState.PRUNED
        )
        return trial.number

    def gain(self) -> Gain:
        """Compute the best trial's gain over the current settings."""
        current = next(trial for trial in self.trials if trial.values == self._current())
        best = max(self.trials, key=lambda trial: (trial.best if trial.best is not None else -1.0, -trial.number))
        before = self._hits(current.number, min(self._trainer.epochs, len(current.curve)))
        after = self._hits(best.number, best.epochs)
        groups = self._held_out.groups[~self._held_out.chooses]
        counts = np.bincount(groups, minlength=USER_GROUPS).astype(np.float64)
        sums = np.bincount(groups, after - before, USER_GROUPS).astype(np.float64)
        difference, lower, upper = Mean.of(sums, counts).interval()
        assert difference is not None
        return Gain(best.number, best.epochs, float(before.mean()), float(after.mean()), difference, lower, upper)

    def configured(self, values: Values, epochs: int) -> dict[str, Any]:
        """Return a trial's values that differ from the current settings, by the name of the setting, as YAML values."""
        spec, trainer = self._applied(values)
        changed: dict[str, Any] = {}
        softmax, current = trainer.softmax, self._trainer.softmax
        for name, now, before in (
            (TEMPERATURE, softmax.temperature, current.temperature),
            (STRENGTH, softmax.strength, current.strength),
            (NEGATIVES, softmax.uniform_negatives, current.uniform_negatives),
            (LEARNING_RATE, trainer.learning_rate, self._trainer.learning_rate),
            (f"{LAYERS}.query", list(trainer.towers.query), list(self._trainer.towers.query)),
            (f"{LAYERS}.item", list(trainer.towers.item), list(self._trainer.towers.item)),
            ("trainer.catch_up.epochs", epochs, self._trainer.epochs),
        ):
            if now != before:
                changed[name] = now
        for name, share in spec.masked_tables.items():
            if share != self._day.spec.masked_tables[name]:
                changed[f"tables.{name}.masked"] = share
        return changed

    @property
    def current_epochs(self) -> int:
        """The epochs of the current settings."""
        return self._trainer.epochs

    @property
    def _epochs(self) -> int:
        return max(self._settings.epochs, self._trainer.epochs)

    def _train(self, values: Values, is_enough: Callable[[int, TwoTowerModel], bool]) -> None:
        spec, trainer = self._applied(values)
        tf_keras.backend.clear_session()
        gc.collect()
        tf_keras.utils.set_random_seed(trainer.seed)
        devices = one_device()
        scratch = self._folder / SCRATCH
        shutil.rmtree(scratch, ignore_errors=True)  # of a killed trial
        model, state, training = self._day.training(spec, trainer, str(scratch / "unfinished"), devices)
        train(model, state, training, str(scratch), devices, lambda epoch: is_enough(epoch, model))
        shutil.rmtree(scratch)

    def _applied(self, values: Values) -> tuple[FeatureSpec, TrainerSettings]:
        trainer, spec = self._trainer, self._day.spec
        softmax = {
            name.rpartition(".")[2]: values[name] for name in (TEMPERATURE, STRENGTH, NEGATIVES) if name in values
        }
        changed: dict[str, Any] = {"softmax": trainer.softmax.model_copy(update=softmax), "epochs": self._epochs}
        changed["checkpoint_steps"] = 1 << 40  # a killed trial starts again
        if LEARNING_RATE in values:
            changed["learning_rate"] = values[LEARNING_RATE]
        layers = values.get(LAYERS, CONFIGURED)
        if layers != CONFIGURED:
            widths = self._widths(() if layers == LINEAR else tuple(json.loads(str(layers))))
            changed["towers"] = trainer.towers.model_copy(update={"query": widths, "item": widths})
        if MASKED in values:
            tables = {
                name: table.model_copy(update={"masked": values[MASKED]}) if name in spec.masked_tables else table
                for name, table in spec.tables.items()
            }
            spec = spec.model_copy(update={"tables": tables})
        return spec, trainer.model_copy(update=changed)

    def _current(self) -> Values:
        trainer, settings = self._trainer, self._settings
        values: Values = {}
        if _is_range(settings.temperature):
            values[TEMPERATURE] = trainer.softmax.temperature
        if self._has_strength:
            values[STRENGTH] = trainer.softmax.strength
        if _is_range(settings.learning_rate):
            values[LEARNING_RATE] = trainer.learning_rate
        if self._has_masks:
            values[MASKED] = max(self._day.spec.masked_tables.values())
        if settings.uniform_negatives:
            values[NEGATIVES] = trainer.softmax.uniform_negatives
        if settings.layers:
            values[LAYERS] = CONFIGURED
        return values

    def _chosen(self, trial: optuna.Trial) -> Values:
        settings, current = self._settings, self._current()
        values: Values = {}
        for name, (low, high), by_logarithm in (
            (TEMPERATURE, settings.temperature, True),
            (STRENGTH, settings.strength, False),
            (LEARNING_RATE, tuple(bound * self._trainer.learning_rate for bound in settings.learning_rate), True),
            (MASKED, settings.masked, False),
        ):
            if name in current:  # whose own value may be outside the range
                ends = min(low, float(current[name])), max(high, float(current[name]))
                values[name] = trial.suggest_float(name, *ends, log=by_logarithm)
        if NEGATIVES in current:
            softmax = self._trainer.softmax
            several = {*settings.uniform_negatives, softmax.uniform_negatives}
            if not softmax.in_batch_negatives:
                several -= {0}
            values[NEGATIVES] = trial.suggest_categorical(NEGATIVES, sorted(several))
        if LAYERS in current:
            configured = {self._trainer.towers.query, self._trainer.towers.item}
            others = [layers for layers in settings.layers if configured != {self._widths(layers)}]
            names = [json.dumps(list(layers)) if layers else LINEAR for layers in others]
            values[LAYERS] = trial.suggest_categorical(LAYERS, [CONFIGURED, *names])
        return values

    def _widths(self, hidden: tuple[int, ...]) -> tuple[int, ...]:
        """Return the widths of a tower's layers with these hidden ones: its embeddings keep their width."""
        return (*hidden, self._trainer.towers.ends(self._day.spec)[1])

    @property
    def _has_strength(self) -> bool:
        return _is_range(self._settings.strength) and self._trainer.softmax.correction == "logq"

    @property
    def _has_masks(self) -> bool:
        return _is_range(self._settings.masked) and bool(self._day.spec.masked_features)

    def _hits_file(self, trial: int, epoch: int) -> Path:
        return self._folder / f"hits-{trial}-{epoch}.npy"

    def _hits(self, trial: int, epoch: int) -> NDArray[np.float64]:
        return np.load(self._hits_file(trial, epoch))


def _is_range(ends: tuple[float, float]) -> bool:
    return ends[0] < ends[1]


def _read(trial: FrozenTrial) -> Trial:
    attributes = trial.user_attrs
    state = "complete" if trial.state == TrialState.COMPLETE else "stopped"
    return Trial(
        trial.number,
        dict(trial.params),
        "diverged" if attributes.get("diverged") else state,
        tuple(attributes.get("curve", ())),
        float(attributes.get("seconds", 0.0)),
    )


def _write(path: Path, values: NDArray[np.float64]) -> None:
    with aside(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, values)
