"""A trial of a search for settings. TensorFlow is not imported: the report reads trials too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: from 0, which is that of the settings as they are.
        values: what was chosen, by the name of the setting.
        state: `complete`; `stopped`, by successive halving; or `diverged`.
        curve: recall@K behind each epoch, of the half of the held-out users that chooses.
        seconds: how long it took.
    """

    number: int
    values: dict[str, Any]
    state: str
    curve: tuple[float, ...]
    seconds: float

    @property
    def best(self) -> float | None:
        """The highest recall@K; None where there is none."""
        return max(self.curve, default=None)

    @property
    def epochs(self) -> int:
        """Behind how many epochs it was best, the first time; 0 where there is none."""
        return 1 + self.curve.index(max(self.curve)) if self.curve else 0

    @property
    def words(self) -> str:
        """What was chosen, in a line."""
        return in_words(self.values) if self.number else "as they are"


def in_words(values: Mapping[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(
        f"{name.removeprefix('trainer.').removeprefix('softmax.')} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    )
