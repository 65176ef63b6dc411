"""Limits on how far a day's interactions may differ from the previous span's."""

from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from schemas.declaration import Declaration
from schemas.located_yaml import FaultsError


class ValidationSettings(Declaration):
    """Limits on the change from the previous span to this one, each for the train split and the eval split.

    By default only `least_volume` is checked. A span's statistics cover its whole window: with `window_days: 7` a day with only new
    values moves a share by only a seventh, and the limits must be accordingly lower.

    Attributes:
        drift: by feature, the maximum distance of its distribution from the previous span's; from 0 (equal) to 1 (disjoint), so
            that a limit of 1 or more stops nothing. For `id`, `ids` and `history` it is the largest change of any value's share of
            all values (L-infinity norm): 0.1 stops when a value goes from 20 % to more than 30 %. With more than 1000 distinct
            values, shares are those among the 1000 most frequent. For `number` it is the Jensen-Shannon divergence, to base 2, of
            the two
            histograms: two equal halves that become 6 to 4 are 0.007 apart, 9 to 1 is 0.15, all in one is 0.31. Examples without a
            value count for neither; the schema's `min_fraction` limits these. Choose it above the maximum difference between good
            days.
        least_volume: the minimum number of examples, as a share of the previous span's: 0.5 stops when more than half are missing.
            None for no limit. Choose it below the quietest day of the week after the busiest. The default stops a day with less
            than a twentieth, which is a truncated delivery rather than a quiet day.
        most_volume: the maximum number of examples, as a share of the previous span's: 2 stops when they more than double, for
            example because rows were logged twice. None for no limit.
        least_history: the minimum mean length of training's histories, as a share of that of the held-out, the previous
            span's, and the served ones. Below it the run, and `ndr skew`, warn; nothing stops. None for no warning.
        skew: by query feature, the maximum distance of served queries from training, measured like `drift`; beyond it
            `ndr skew` exits with status 1. It stops no run.
    """

    drift: dict[str, PositiveFloat] = {}
    least_volume: float | None = Field(default=0.05, ge=0)
    most_volume: float | None = Field(default=None, gt=0)
    least_history: float | None = Field(default=0.5, ge=0, le=1)
    skew: dict[str, PositiveFloat] = {}

    @model_validator(mode="after")
    def _leaves_room_between_the_volumes(self) -> Self:
        if self.least_volume is not None and self.most_volume is not None and self.most_volume < self.least_volume:
            reason = f"expected at least least_volume ({self.least_volume:g}), received {self.most_volume:g}"
            raise FaultsError([(("most_volume",), reason)])
        return self
