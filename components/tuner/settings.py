"""Settings of `ndr tune`."""

from typing import Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from schemas.declaration import Declaration
from schemas.located_yaml import FaultsError

LINEAR = "linear"
Share = tuple[float, float]


class TunerSettings(Declaration):
    """The searched settings and their ranges. A range with equal ends is not searched.

    Attributes:
        temperature: of `trainer.softmax.temperature`, on a logarithmic scale.
        strength: of `trainer.softmax.strength`; not searched if the loss is not corrected by log Q.
        learning_rate: of `trainer.learning_rate`, as multiples of the configured one, on a logarithmic scale.
        masked: of `tables.X.masked` in features.yaml, one value for all tables with equal masks.
        uniform_negatives: values of `trainer.softmax.uniform_negatives`, besides the configured one.
        layers: the widths of both towers' layers before the last, besides the configured ones; an empty list is a linear tower.
        epochs: of a run that starts from scratch: the maximum; the search finds the best number.
        reduction: after 1, `reduction`, `reduction` squared, ... epochs one trial in `reduction` continues: those with the best
            recall so far (successive halving).
        interactions: about the number of held-out interactions that compare trials; if the day has more, whole users are drawn.
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
