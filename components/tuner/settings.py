"""What `ndr tune` searches through."""

from typing import Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from schemas.features import Declaration
from schemas.located_yaml import FaultsError

LINEAR = "linear"
Share = tuple[float, float]


class TunerSettings(Declaration):
    """The settings that are searched for, and between which values. Where a range's ends are equal, the value is not searched for.

    Attributes:
        temperature: of `trainer.softmax.temperature`, by its logarithm.
        strength: of `trainer.softmax.strength`; not searched for where the loss is not corrected by log Q.
        learning_rate: of `trainer.learning_rate`, as multiples of the configured one, by its logarithm.
        masked: of `tables.X.masked` in features.yaml, of all tables that are masked alike.
        uniform_negatives: values of `trainer.softmax.uniform_negatives`, besides the configured one.
        layers: the widths of both towers' layers before the last, besides the configured ones; an empty list is a linear tower.
        epochs: of a run that starts anew: so many are trained at most; how many are best is found on the way.
        reduction: at 1, `reduction`, `reduction` squared, ... epochs one trial in so many goes on: those with the best figures so
            far (successive halving).
        interactions: a trial is judged by about so many held-out interactions; of a day with more, whole users are drawn.
    """

    temperature: tuple[PositiveFloat, PositiveFloat] = (0.02, 0.5)
    strength: Share = (0.0, 1.0)
    learning_rate: tuple[PositiveFloat, PositiveFloat] = (0.1, 10.0)
    masked: Share = (0.02, 0.5)
    uniform_negatives: tuple[NonNegativeInt, ...] = (0, 256, 1024)
    layers: tuple[tuple[PositiveInt, ...], ...] = ((), (128,), (256, 128))
    epochs: PositiveInt = 8
    reduction: int = Field(default=2, ge=2)
    interactions: PositiveInt = 20_000

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        for name in ("temperature", "strength", "learning_rate", "masked"):
            low, high = getattr(self, name)
            if low > high:
                raise FaultsError([((name,), f"expected the lower end first, received [{low}, {high}]")])
        for name, least, most in (("strength", 0.0, 1.0), ("masked", 1e-6, 0.999)):
            low, high = getattr(self, name)
            if low < least or high > most:
                raise FaultsError([((name,), f"expected shares from {least} to {most}, received [{low}, {high}]")])
        return self
