"""The last skew measurement, which `ndr skew` stores for the report. Does not import TFDV."""

import json
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import UserError

FILE = "skew.json"


@dataclass(frozen=True)
class FeatureSkew:
    """How far a served feature is from the training data.

    Attributes:
        distance: the largest change of a value's share of all values (L-infinity norm) for ids, the Jensen-Shannon divergence to
            base 2 for numbers; None if one side has no value.
        limit: the largest allowed distance; None for no limit.
        trained: the share of training examples with a value.
        served: the share of served queries with a value.
        trained_items: the mean number of items of a history in training; None for other features.
        served_items: the same in served queries.
    """

    distance: float | None
    limit: float | None
    trained: float
    served: float
    trained_items: float | None = None
    served_items: float | None = None

    @property
    def items_words(self) -> str:
        """The mean numbers of items of a history, for a table."""
        return "" if self.trained_items is None else f"{self.trained_items:.1f}, {self.served_items:.1f}"

    @property
    def is_beyond(self) -> bool:
        """Whether it exceeds its limit; a feature missing on one side does."""
        if self.limit is None:
            return False
        return self.distance > self.limit if self.distance is not None else bool(self.trained or self.served)

    @property
    def fault(self) -> str:
        """The expected and the found value, if it exceeds its limit."""
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
        measured: the time, ISO 8601 in UTC.
        version: the live version.
        queries: the number of served queries.
        features: the features of the query tower.
        least_history: below this share, training's histories are too short; see `components.example_validator.settings`.
    """

    measured: str
    version: int
    queries: int
    features: dict[str, FeatureSkew]
    least_history: float | None = None

    def furthest_first(self) -> list[tuple[str, FeatureSkew]]:
        """Return the features by descending distance; those without a distance are last."""
        return sorted(
            self.features.items(), key=lambda entry: -(entry[1].distance if entry[1].distance is not None else -1.0)
        )

    def cautions(self) -> list[str]:
        """Return a sentence for each history that is much shorter in training than when served."""
        return [
            f"{name}: in training histories have {feature.trained_items:.1f} items on average, served ones "
            f"{feature.served_items:.1f}. Read more days for them (data.history_days, data.window_days)."
            for name, feature in self.features.items()
            if feature.trained_items is not None and feature.served_items is not None
            if self.least_history is not None and feature.trained_items < self.least_history * feature.served_items
        ]

    def faults(self) -> list[str]:
        """Return a sentence for each feature beyond its limit."""
        return [f"{name}: {feature.fault}" for name, feature in self.furthest_first() if feature.is_beyond]


def read(root: Path) -> Skew:
    """Read the last measurement.

    Raises:
        UserError: there is none yet, or the file is damaged.
    """
    try:
        content = json.loads((root / FILE).read_text(encoding="utf-8"))
        return Skew(
            **{**content, "features": {name: FeatureSkew(**feature) for name, feature in content["features"].items()}}
        )
    except FileNotFoundError as error:
        raise UserError("Served queries were not compared with training data yet: ndr skew.") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{root / FILE}: expected the output of ndr skew, found something else: {error}.") from error
