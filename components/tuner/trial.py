"""A trial of a search for settings. Does not import TensorFlow: the report reads trials too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: from 0, which is the trial of the current settings.
        values: the chosen values, by the name of the setting.
        state: `complete`; `stopped`, by successive halving; or `diverged`.
        curve: recall@K after each epoch, for the half of the held-out users that chooses.
        seconds: its duration.
    """

    number: int
    values: dict[str, Any]
    state: str
    curve: tuple[float, ...]
    seconds: float

    @property
    def best(self) -> float | None:
        """The highest recall@K; None before the first epoch."""
        return max(self.curve, default=None)

    @property
    def epochs(self) -> int:
        """The number of epochs after which it was first best; 0 before the first epoch."""
        return 1 + self.curve.index(max(self.curve)) if self.curve else 0

    @property
    def words(self) -> str:
        """The chosen values, in a line."""
        return in_words(self.values) if self.number else "current settings"


def in_words(values: Mapping[str, Any]) -> str:
    """Format settings in a line."""
    return ", ".join(
        f"{name.removeprefix('trainer.').removeprefix('softmax.')} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    )
