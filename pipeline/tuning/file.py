"""The last search for settings, as `ndr tune` leaves it for the report. TensorFlow is not imported."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.tuner.trial import Trial
from schemas.errors import UserError

FILE = "tuning.json"


@dataclass(frozen=True)
class Tuning:
    """A search over one day's data.

    Attributes:
        date: the UTC day, ISO 8601.
        run: whose data it was.
        ended: when, ISO 8601 in UTC.
        k: of recall@K.
        interactions: held-out ones, of the half that chooses and of the other.
        trials: those that ended, oldest first.
        best: the number of the trial that is best by the half that chooses.
        epochs: behind which it was.
        before: recall@K of the settings as they were, on the other half.
        after: the best trial's.
        difference: between both.
        lower: end of the 95 % interval of the difference; None where all users are of one group.
        upper: the other end.
        changes: what of the best trial differs from the settings as they were, by the name of the setting.
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
        """Whether the best trial is better beyond chance."""
        return self.lower is not None and self.lower > 0.0

    def best_first(self, most: int) -> list[Trial]:
        """The best so many trials, and that of the settings as they were."""
        ranked = sorted(self.trials, key=lambda trial: -(trial.best if trial.best is not None else -1.0))
        return [*ranked[:most], *(trial for trial in ranked[most:] if not trial.number)]

    @property
    def verdict(self) -> str:
        """What came of it, a sentence."""
        within = "" if self.lower is None else f" [{self.lower:+.4f}, {self.upper:+.4f}]"
        measured = f"recall@{self.k} {self.after:.4f}, {self.difference:+.4f}{within}"
        whom = f"on the {self.interactions[1]:,} held-out interactions that had no part in the choice"
        if not self.changes:
            return f"No trial is above the settings as they are: recall@{self.k} {self.before:.4f} {whom}."
        if self.is_better:
            return f"Trial {self.best} is better than the settings as they are: {measured} {whom}."
        return f"No trial is better than the settings as they are beyond chance: the best, {self.best}, has {measured} {whom}."


def write(root: Path, tuning: Tuning) -> Path:
    """Keeps a search for the report; the file has its name once it is whole."""
    path = root / FILE
    aside = path.with_name(f".{FILE}")
    aside.write_text(json.dumps(asdict(tuning), indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
    return path


def read(root: Path) -> Tuning:
    """The last search.

    Raises:
        UserError: there is none yet, or the file is damaged.
    """
    try:
        kept = json.loads((root / FILE).read_text(encoding="utf-8"))
        trials = tuple(Trial(**{**each, "curve": tuple(each["curve"])}) for each in kept["trials"])
        return Tuning(**{**kept, "trials": trials, "interactions": tuple(kept["interactions"])})
    except FileNotFoundError as error:
        raise UserError("No better settings were searched for yet: ndr tune.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{root / FILE}: expected what ndr tune writes, found something else: {error}.") from error
