"""The last measurement of skew, as `ndr skew` leaves it for the report. TFDV is not imported."""

import json
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UserError

FILE = "skew.json"


@dataclass(frozen=True)
class FeatureSkew:
    """How far a feature is, as it is served, from what was trained on.

    Attributes:
        distance: the largest change of a value's share of all values (L-infinity norm) for ids, the Jensen-Shannon divergence to
            base 2 for numbers; None where one side has no value.
        limit: the largest that is allowed; None for no limit.
        trained: the share of training examples that have a value.
        served: the share of served queries that have one.
        trained_items: of a history, the mean number of items in training; None of what is no history.
        served_items: the same when it is served.
    """

    distance: float | None
    limit: float | None
    trained: float
    served: float
    trained_items: float | None = None
    served_items: float | None = None

    @property
    def items_words(self) -> str:
        """The mean numbers of items of a history."""
        return "" if self.trained_items is None else f"{self.trained_items:.1f}, {self.served_items:.1f}"

    @property
    def is_beyond(self) -> bool:
        """Whether there is a limit that it does not keep to; a feature that one side lacks does not."""
        if self.limit is None:
            return False
        return self.distance > self.limit if self.distance is not None else bool(self.trained or self.served)

    @property
    def fault(self) -> str:
        """What was expected and what was found, where it is beyond its limit."""
        if self.distance is None:
            return (
                f"expected values on both sides, found them in {self.trained:.1%} of the training examples and "
                f"{self.served:.1%} of the served queries."
            )
        return f"expected a distance of at most {self.limit:g}, found {self.distance:.4f}."


@dataclass(frozen=True)
class Skew:
    """A measurement.

    Attributes:
        measured: when, ISO 8601 in UTC.
        version: the live one.
        queries: that were served.
        features: of the query tower.
        least_history: the limit below which training's histories are too short; see `components.example_validator.settings`.
    """

    measured: str
    version: int
    queries: int
    features: dict[str, FeatureSkew]
    least_history: float | None = None

    def furthest_first(self) -> list[tuple[str, FeatureSkew]]:
        """The features, those without a distance last."""
        return sorted(
            self.features.items(), key=lambda each: -(each[1].distance if each[1].distance is not None else -1.0)
        )

    def cautions(self) -> list[str]:
        """A sentence for each history that is much shorter in training than when it is served."""
        return [
            f"{name}: in training histories have {each.trained_items:.1f} items on average, served ones {each.served_items:.1f}. "
            "Let more days be read for them (data.history_days, data.window_days)."
            for name, each in self.features.items()
            if each.trained_items is not None and each.served_items is not None
            if self.least_history is not None and each.trained_items < self.least_history * each.served_items
        ]

    def faults(self) -> list[str]:
        """A sentence for each feature that is beyond its limit."""
        return [f"{name}: {each.fault}" for name, each in self.furthest_first() if each.is_beyond]


def read(root: Path) -> Skew:
    """The last measurement.

    Raises:
        UserError: there is none yet, or the file is damaged.
    """
    try:
        kept = json.loads((root / FILE).read_text(encoding="utf-8"))
        return Skew(**{**kept, "features": {name: FeatureSkew(**each) for name, each in kept["features"].items()}})
    except FileNotFoundError as error:
        raise UserError("What is served was not compared with what was trained on: ndr skew.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{root / FILE}: expected what ndr skew writes, found something else: {error}.") from error
