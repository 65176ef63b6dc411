"""Searches for better settings on the data of a day that a run has prepared."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import tensorflow as tf
from rich.table import Table

import components
from components import recorded
from components.example_gen.split_names import (
    BLOCKED_SPLIT,
    CATALOGUE_SPLIT,
    EARLIER_SPLIT,
    EVAL_SPLIT,
    JUDGED_SPLIT,
    TRAIN_SPLIT,
)
from components.trainer.day import Places, TrainingDay
from components.tuner.search import Gain, Search
from components.tuner.trial import Trial, in_words
from pipeline import digests, lock
from pipeline.config import Config
from pipeline.records import Graph, Lineage, Records, connection, has_begun
from pipeline.report.facts import place
from pipeline.tuning import file
from pipeline.tuning.file import Tuning
from pipeline.tuning.records import TrialRecords
from pipeline.words import chosen_cutoff
from schemas.errors import UserError

assert components  # its import selects Keras 2
FOLDER = "tuning"
SHOWN = 10


def tune(config: Config, day: date, seconds: float, say: Callable[[str], None]) -> Tuning:
    """Search, or resume an interrupted search of the same data, code and settings.

    Args:
        config: `tuner` says what is searched.
        day: the day with the training and held-out data.
        seconds: time for all trials, including earlier attempts.
        say: called with a message for each completed trial.

    Raises:
        UserError: no run has completed the day, its outputs are gone, or it has no held-out interactions.
    """
    run = Records(connection(config)).last_complete(config.name, day) if has_begun(config) else None
    if run is None:
        raise UserError(f"No run has completed {day}, so there is no data to search on. First: ndr run --date {day}.")
    graph = Lineage(connection(config)).of_run(run.run)
    spec, trainer = config.feature_spec(), config.trainer.of_run(goes_on=False)
    places, held_out_files, used = _places(graph)
    k = chosen_cutoff(config.evaluator.recall_at)
    inputs = [
        places,
        trainer,
        config.tuner,
        spec,
        config.evaluator.exclude_history,
        k,
        digests.code(("components", "schemas")),
    ]
    digest = hashlib.sha256("\n".join(map(repr, inputs)).encode()).hexdigest()[:8]
    folder = config.root / FOLDER / f"{day}.{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    with lock.exclusive(folder):
        training = TrainingDay(places, spec)
        excludes = bool(config.evaluator.exclude_history)
        held_out = training.held_out(held_out_files, config.tuner.interactions, excludes)
        search = Search(training, held_out, trainer, config.tuner, k, folder)
        records = TrialRecords(connection(config), f"{config.name}.{folder.name}", used, k)
        if search.trials:
            say(f"Resumes an interrupted search after trial {search.trials[-1].number}.")
        for trial in search.trials:
            records.note(trial)

        def ended(trial: Trial) -> None:
            records.note(trial)
            say(_line(trial, k))

        search.run(seconds, ended)
        chosen = int(held_out.chooses.sum())
        tuning = _found(config, run.run, day, search, k, (chosen, len(held_out.chooses) - chosen))
        file.write(config.root, tuning)
        return tuning


def table(tuning: Tuning) -> Table:
    """Make a table of the best trials, the best first, and of the current settings."""
    shown = Table("trial", f"recall@{tuning.k}", "epochs", "", "settings", title=f"{len(tuning.trials)} trials over {tuning.date}",
                  title_justify="left")  # fmt: skip
    for trial in tuning.best_first(SHOWN):
        best = "" if trial.best is None else f"{trial.best:.4f}"
        shown.add_row(str(trial.number), best, str(len(trial.curve)), trial.state, trial.words)
    return shown


def difference(tuning: Tuning) -> list[str]:
    """Format the changes for copying: `--set` for the configuration, the key for features.yaml."""
    lines = []
    for name, value in tuning.changes.items():
        words = f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
        lines.append(f"features.yaml: {name}: {words}" if name.startswith("tables.") else f"--set '{name}={words}'")
    return lines


def _places(graph: Graph) -> tuple[Places, list[str], list[int]]:
    """Return the places of the training data, those of the held-out interactions, and the ids of the trials' inputs."""
    transformed = place(graph, "Examples", "Transform")
    catalogue = place(graph, "Examples", "Catalogue")
    interactions = place(graph, "Examples", "Interactions")
    transform_graph, analysis = place(graph, "TransformGraph"), place(graph, "Analysis")
    train = _files(transformed, TRAIN_SPLIT)
    examples = tf.data.TFRecordDataset(tf.io.gfile.glob(train), compression_type="GZIP").reduce(0, lambda n, _: n + 1)
    used = {str(path) for path in (transformed, catalogue, interactions, transform_graph, analysis)}
    return (
        Places(
            str(transform_graph),
            str(analysis),
            (train,),
            (_files(catalogue, CATALOGUE_SPLIT),),
            (_files(catalogue, BLOCKED_SPLIT),),
            int(examples),
            earlier=_there(catalogue, EARLIER_SPLIT),
            judged=_there(catalogue, JUDGED_SPLIT),
            judged_day=next(
                int(artifact.properties.get(recorded.JUDGED_DAY, 0)) or None
                for artifact in graph.artifacts.values()
                if artifact.uri == str(catalogue)
            ),
        ),
        [_files(interactions, EVAL_SPLIT)],
        [artifact.id for artifact in graph.artifacts.values() if artifact.uri in used],
    )


def _there(folder: Path, split: str) -> tuple[str, ...]:
    """Return the pattern of a split's files, if it has any."""
    pattern = _files(folder, split)
    return (pattern,) if tf.io.gfile.glob(pattern) else ()


def _files(folder: Path, split: str) -> str:
    return str(folder / f"Split-{split}" / "*")


def _found(config: Config, run: str, day: date, search: Search, k: int, interactions: tuple[int, int]) -> Tuning:
    gain: Gain = search.gain()
    trials = search.trials
    best = next(trial for trial in trials if trial.number == gain.trial)
    is_current = best.number == 0 and gain.epochs == search.current_epochs
    return Tuning(
        date=day.isoformat(),
        run=run,
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        k=k,
        interactions=interactions,
        trials=tuple(trials),
        best=gain.trial,
        epochs=gain.epochs,
        before=gain.before,
        after=gain.after,
        difference=gain.difference,
        lower=gain.lower,
        upper=gain.upper,
        changes={} if is_current else search.configured(best.values, gain.epochs),
    )


def _line(trial: Trial, k: int) -> str:
    recall = (
        "no epoch"
        if trial.best is None
        else f"recall@{k} {trial.best:.4f} after {trial.epochs} of {len(trial.curve)} epochs"
    )
    words = "the current settings" if trial.number == 0 else in_words(trial.values)
    return f"trial {trial.number:>3} {trial.state:<9}{recall}, {trial.seconds:.0f} s: {words}"
