"""The last search for settings, which `ndr tune` stores for the report. Does not import TensorFlow."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.tuner.trial import Trial
from components.whole_files import write_aside
from schemas.errors import UserError

FILE = "tuning.json"


@dataclass(frozen=True)
class Tuning:
    """A search over one day's data.

    Attributes:
        date: the UTC day, ISO 8601.
        run: the run whose data it used.
        ended: the time of its end, ISO 8601 in UTC.
        k: the K of recall@K.
        interactions: the number of held-out interactions in the half that chooses, and in the other half.
        trials: the completed trials, oldest first.
        best: the number of the best trial, by the half that chooses.
        epochs: the epochs after which it was best.
        before: recall@K of the current settings, on the other half.
        after: the best trial's.
        difference: `after` minus `before`.
        lower: lower end of the 95 % interval of the difference; None if all users are in one group.
        upper: upper end of the interval.
        changes: the best trial's settings that differ from the current ones, by name.
    """

    date: str
    run: str
    ended: str
    k: int
    interactions: tuple[int, int]
    trials: tuple[Trial, ...]
    best: int
    epochs: int
    before: float
    after: float
    difference: float
    lower: float | None
    upper: float | None
    changes: dict[str, Any]

    @property
    def is_better(self) -> bool:
        """Whether the best trial is significantly better."""
        return self.lower is not None and self.lower > 0.0

    def best_first(self, most: int) -> list[Trial]:
        """Return the best `most` trials, and that of the current settings."""
        ranked = sorted(self.trials, key=lambda trial: -(trial.best if trial.best is not None else -1.0))
        return [*ranked[:most], *(trial for trial in ranked[most:] if not trial.number)]

    @property
    def verdict(self) -> str:
        """The outcome, in a sentence."""
        within = "" if self.lower is None else f" [{self.lower:+.4f}, {self.upper:+.4f}]"
        measured = f"recall@{self.k} {self.after:.4f}, {self.difference:+.4f}{within}"
        whom = f"on the {self.interactions[1]:,} held-out interactions that had no part in the choice"
        if not self.changes:
            return f"No trial beats the current settings: recall@{self.k} {self.before:.4f} {whom}."
        if self.is_better:
            return f"Trial {self.best} is better than the current settings: {measured} {whom}."
        return (
            f"No trial is significantly better than the current settings: the best, {self.best}, has {measured} {whom}."
        )


def write(root: Path, tuning: Tuning) -> Path:
    """Store a search for the report; the file gets its name once it is complete."""
    path = root / FILE
    write_aside(path, json.dumps(asdict(tuning), indent=2) + "\n")
    return path


def read(root: Path) -> Tuning:
    """Read the last search.

    Raises:
        UserError: there is none yet, or the file is damaged.
    """
    try:
        content = json.loads((root / FILE).read_text(encoding="utf-8"))
        trials = tuple(Trial(**{**trial, "curve": tuple(trial["curve"])}) for trial in content["trials"])
        return Tuning(**{**content, "trials": trials, "interactions": tuple(content["interactions"])})
    except FileNotFoundError as error:
        raise UserError("There was no search for better settings yet: ndr tune.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{root / FILE}: expected the output of ndr tune, found something else: {error}.") from error
