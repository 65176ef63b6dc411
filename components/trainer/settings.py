"""What a person tunes of the model and its training."""

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from schemas.features import Declaration
from schemas.located_yaml import FaultsError


class TowerSettings(Declaration):
    """The layers over the embeddings of each tower.

    Attributes:
        query: widths of the query tower's layers; all but the last are ReLU. The last is the embedding's width.
        item: the same of the item tower.
    """

    query: tuple[PositiveInt, ...] = Field(min_length=1)
    item: tuple[PositiveInt, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _meet_in_one_space(self) -> Self:
        if self.query[-1] != self.item[-1]:
            reason = f"expected the query tower's last width, {self.query[-1]}, received {self.item[-1]}"
            raise FaultsError([(("item",), reason)])
        return self


class TrainerSettings(Declaration):
    """How the towers are trained.

    Attributes:
        towers: the towers' layers.
        batch_size: interactions a step; each is a negative for the others.
        epochs: passes over the window's training split.
        optimizer: `adagrad` is the paper's.
        learning_rate: of the optimizer.
        temperature: divides the inner product of the L2-normalised embeddings.
        seed: of weights and of the order of examples.
    """

    towers: TowerSettings
    batch_size: PositiveInt = 1024
    epochs: PositiveInt = 1
    optimizer: Literal["adagrad", "adam"] = "adagrad"
    learning_rate: PositiveFloat = 0.1
    temperature: PositiveFloat = 0.05
    seed: int = 0
