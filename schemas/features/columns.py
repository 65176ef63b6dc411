"""The columns of the data that are not themselves features: of interactions, of the catalogue, and of users."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from schemas.declaration import Declaration


class RewardColumn(Declaration):
    """A column from which the reward is computed.

    Attributes:
        column: its name in the data.
        scale: `linear`: value / `over`; `log`: log(1 + value) / log(1 + `over`), for values with a long tail.
        over: the value that gets the full reward of 1: a number, or the name of a column, such as the length of a video.
        clip: whether larger values get the reward 1; without it they are faults of their row, as negative values always are.
    """

    column: str
    scale: Literal["linear", "log"] = "linear"
    over: PositiveFloat | str = 1.0
    clip: bool = False

    @property
    def whole(self) -> float:
        """`over`, if it is a number."""
        return 1.0 if isinstance(self.over, str) else self.over


class EventColumn(Declaration):
    """Kinds of events, such as views and purchases. Metrics are sliced by them, as `event_kind=purchase`.

    Attributes:
        column: the column of the kind, a text.
        weights: in [0, 1], by kind; multiplied with the reward. A kind that is not listed is a fault of its row.
        zero_in_history: whether events of weight 0 are in histories. By default they are counted as filtered, and dropped.
    """

    column: str
    weights: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    zero_in_history: bool = False


class InteractionColumns(Declaration):
    """The columns of an interaction that are not themselves features.

    Attributes:
        user: the column of the user's id.
        item: the column of the item's id.
        time: the column of its time.
        time_unit: the format of the time column: `s`, `ms`, `us` or `ns` since 1970-01-01 UTC, or `iso` for ISO 8601 text
            (UTC if it names no zone). A timestamp column of Parquet needs none.
        reward: the column of the example weight in [0, 1], or how to compute it from a column; None gives every interaction weight
            1.
        event: the kind of event, which has a weight of its own.
    """

    user: str
    item: str
    time: str
    time_unit: Literal["s", "ms", "us", "ns", "iso"] = "s"
    reward: str | RewardColumn | None = None
    event: EventColumn | None = None

    @property
    def reward_rule(self) -> RewardColumn:
        """How the reward is computed, if there is one."""
        return RewardColumn(column=self.reward or "") if not isinstance(self.reward, RewardColumn) else self.reward


class FilterColumn(Declaration):
    """A column of the catalogue that requests may filter by, such as the countries of an item; see `components.indexer.filters`.

    If the item has a feature of the filter's name, that is the filter, and the two must agree.

    Attributes:
        kind: `id`, one id or none; `ids`, several; `number`, which can also be filtered by a range.
        column: the column of the data; by default the filter's own name.
        separator: for `ids`, separates the values in a text column; a list column of Parquet needs none.
    """

    kind: Literal["id", "ids", "number"]
    column: str | None = None
    separator: str = Field(default="|", min_length=1, max_length=1)


class CatalogueColumns(Declaration):
    """The columns of a catalogue entry that are not themselves features.

    Attributes:
        item: the column of the item's id, which occurs in the catalogue once.
        title: the title that `ndr recommend` shows beside the id.
        blocked: a column of numbers or booleans; items where it is neither 0 nor missing are known (interactions with them are
            trained on, and they are in histories) but never retrieved or used in evaluation. None blocks nothing.
        filters: the columns that requests may filter by, by name.
    """

    item: str
    title: str | None = None
    blocked: str | None = None
    filters: dict[str, FilterColumn] = {}


class UserColumns(Declaration):
    """The users' table.

    Attributes:
        user: the column of the user's id, as in the interactions.
        features: the query features whose columns are in this table; interactions get them by the user's id.
    """

    user: str
    features: tuple[str, ...] = Field(min_length=1)
