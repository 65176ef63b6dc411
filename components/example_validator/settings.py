"""How far a day's interactions may be from the previous span's before the run stops."""

from typing import Self

from pydantic import Field, PositiveFloat, model_validator

from schemas.features import Declaration
from schemas.located_yaml import FaultsError


class ValidationSettings(Declaration):
    """Limits for the change from the previous span to this one, of the train split and of the eval split each.

    But for `least_volume` nothing is compared unless it is asked for. A span's statistics are those of its whole window: with
    `window_days: 7` a day whose values are all new moves a share by a seventh only, and the limits must be as much lower.

    Attributes:
        drift: by feature, the largest distance of its distribution from the previous span's; from 0 (the same) to 1
            (nothing in common), so that a limit of 1 or more stops nothing. For `id`, `ids` and `history` it is the largest
            change of any value's share of all values (L-infinity norm): 0.1 stops when a value goes from a fifth to more
            than three tenths. Where there are more than 1000 distinct values, shares are those among the 1000 most
            frequent. For `number` it is the Jensen-Shannon divergence, to base 2, of the two histograms: equal halves
            that become 6 to 4 are 0.007 apart, 9 to 1 is 0.15, all in one is 0.31. Examples without a value count for
            neither; the schema's `min_fraction` is for those. Choose it above the most that days known to be good differ by.
        least_volume: the fewest examples, as a share of the previous span's: 0.5 stops when more than half are missing.
            None is no limit. Choose it below the quietest day of the week after the busiest. By default a day with less than a
            twentieth stops, which is a delivery that broke off rather than a quiet day.
        most_volume: the most examples, as a share of the previous span's: 2 stops when they more than double, as rows
            that were logged twice would. None is no limit.
        least_history: the shortest mean length of training's histories, as a share of that of the held-out ones, of the previous
            span's, and of those that are served. Below it the run, and `ndr skew`, say so; nothing stops. None says nothing.
        skew: by query feature, the largest distance of what is served from what was trained on, measured as `drift` is; beyond it
            `ndr skew` ends with status 1. No run stops for it.
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
