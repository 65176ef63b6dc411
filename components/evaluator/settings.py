"""What is measured, and what a model must reach to be blessed."""

from typing import Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from schemas.features import Declaration
from schemas.located_yaml import FaultsError


class EvaluatorSettings(Declaration):
    """Metrics and limits.

    Attributes:
        recall_at: the K of recall@K.
        minimum_recall: a floor for recall@K, by K. A model below any of them is not blessed.
        maximum_fall: by how much recall@K may be below that of the last blessed model on the same interactions and catalogue,
            by K. It is not looked at where there is no such model.
        minimum_gain_over_popularity: a floor for recall@K of the model less that of popularity, by K.
    """

    recall_at: tuple[PositiveInt, ...] = Field(default=(10, 50, 100), min_length=1)
    minimum_recall: dict[PositiveInt, float] = {}
    minimum_gain_over_popularity: dict[PositiveInt, float] = {}
    maximum_fall: dict[PositiveInt, NonNegativeFloat] = {}

    @model_validator(mode="after")
    def _has_limits_for_what_is_measured(self) -> Self:
        measured = ", ".join(str(k) for k in self.recall_at)
        faults: list[tuple[tuple[str | int, ...], str]] = [
            ((limits, k), f"recall@{k} is not measured; name one of recall_at ({measured})")
            for limits in ("minimum_recall", "minimum_gain_over_popularity", "maximum_fall")
            for k in getattr(self, limits)
            if k not in self.recall_at
        ]
        if faults:
            raise FaultsError(faults)
        if not self.minimum_recall and not self.minimum_gain_over_popularity:
            reason = (
                "give at least one limit here or under minimum_gain_over_popularity: without any, nothing is blessed"
            )
            raise FaultsError([(("minimum_recall",), reason)])
        return self
