"""Settings of the data: its places and formats, and the held-out interactions."""

from datetime import date
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from schemas.declaration import OBJECT_STORE, Declaration, address_fault
from schemas.errors import UserError
from schemas.located_yaml import FaultsError

MOST_DAYS = 36_500
HISTORY_DAYS = 7  # a week: users who come every Saturday have a history
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
Scalar = bool | int | float | str
DATE_PARTS = ("{YYYY}", "{MM}", "{DD}")


class Condition(Declaration):
    """A condition that a row must meet to be read; others are counted as filtered.

    Attributes:
        column: a column of the data; it need not be declared as a feature.
        equals: the value, as text or number; exactly one of this and the following keys is given.
        not_equals: any other value, or none.
        one_of: one of these values.
        none_of: none of these values.
        above: a greater number.
        at_least: this number or a greater one.
        below: a smaller number.
        at_most: this number or a smaller one.
        starts_with: a text with this prefix.
        missing: whether the value is missing; `missing: false` selects rows that have one. A missing value meets neither the
            comparisons nor `equals`, `one_of` and `starts_with`.
    """

    column: str
    equals: Scalar | None = None
    not_equals: Scalar | None = None
    one_of: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None
    none_of: Annotated[tuple[Scalar, ...], Field(min_length=1)] | None = None
    above: int | float | None = None
    at_least: int | float | None = None
    below: int | float | None = None
    at_most: int | float | None = None
    starts_with: str | None = None
    missing: bool | None = None

    @property
    def operator(self) -> str:
        """The key that is given."""
        return next(name for name in type(self).model_fields if name != "column" and getattr(self, name) is not None)

    @property
    def value(self) -> Any:
        """Its value."""
        return getattr(self, self.operator)

    @property
    def reason(self) -> str:
        """The reason for leaving out a row that does not meet it, for the accounting."""
        value = ", ".join(map(str, self.value)) if isinstance(self.value, tuple) else str(self.value)
        return f"{self.column}: not {self.operator} {value}"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        names = [name for name in type(self).model_fields if name != "column"]
        named = [name for name in names if getattr(self, name) is not None]
        if len(named) != 1:
            reason = f"expected one of {', '.join(names)}, received {' and '.join(named) or 'none'}; each is a condition of its own"
            raise FaultsError([((), reason)])
        return self


class SourceSettings(Declaration):
    r"""Files of one kind.

    Attributes:
        path: a file, a folder or a glob, of this machine or of an object store (s3://bucket/folder, gs://bucket/folder; see
            docs/buckets.md); `{YYYY}`, `{MM}` and `{DD}` stand for the UTC day. Interactions at a path without them are one log,
            from which the window's days are selected by time. Of catalogues at a path with them, the newest one not after the day
            is used. Files whose names begin with `_` or `.` are skipped, and counted. A folder in a folder is a fault, unless the
            path ends in `/**`: then files are read at any depth.
        format: `csv` (with a header; gzip, bzip2 and Zstandard are unpacked) or `parquet`.
        delimiter: separates the columns of CSV.
        quoting: how CSV writes a quote within a quoted value: doubled (`double`, as RFC 4180 and Excel), after a backslash
            (`backslash`, as Spark), or not at all, because values are never quoted and a quote is an ordinary character
            (`none`, as Hive).
        quoted_newlines: whether a quoted value of CSV may span lines. If not, a quote that its line does not close is a
            fault, with the line; if so, a stray quote absorbs all rows up to the next one into its value, which cannot be
            told from a long text.
        null_values: texts that stand for a missing value, such as `\N` (Hive, MySQL), `NULL` or `NaN` (pandas), besides the empty
            one. Without this key, an id that is one of the usual spellings is a fault of its row; with it,
            every text that it does not list is an id.
        trim: whether blanks around ids and around the names of CSV's columns are removed. If not, an id with blanks around it
            is a fault of its row. If so, requests must send ids without them.
        where: conditions, all of which a row must meet to be read.
        success_marker: the name of a file that the writer of the data adds when it is complete. Data
            without it is not read.
    """

    path: str
    format: Literal["csv", "parquet"]
    delimiter: str = Field(default=",", pattern=r"^[\x01-\x7f]$")
    quoting: Literal["double", "backslash", "none"] = "double"
    quoted_newlines: bool = False
    null_values: tuple[str, ...] | None = None
    trim: bool = False
    where: tuple[Condition, ...] = ()
    success_marker: str | None = None

    @property
    def is_daily(self) -> bool:
        """Whether every day has its own path."""
        return DATE_PARTS[0] in self.path

    @property
    def counted_by(self) -> str:
        """The unit of row numbers: `line` of a text file, or `row`."""
        return "line" if self.format == "csv" else "row"

    @model_validator(mode="after")
    def _delimits(self) -> Self:
        if self.delimiter in '"\\\r\n':
            raise FaultsError(
                [
                    (
                        ("delimiter",),
                        f"expected a character that is no quote and no line's end, received {self.delimiter!r}",
                    )
                ]
            )
        return self

    @field_validator("path")
    @classmethod
    def _is_a_path_or_an_address(cls, path: str) -> str:
        if address_fault(path) and not OBJECT_STORE.fullmatch(path):
            raise ValueError(
                "expected a path of this machine, or an address s3://bucket/folder or gs://bucket/folder without credentials, "
                "which are the environment's matter"
            )
        return path

    @model_validator(mode="after")
    def _names_whole_dates(self) -> Self:
        present = [placeholder for placeholder in DATE_PARTS if placeholder in self.path]
        if present and len(present) < len(DATE_PARTS):
            reason = f"expected all of {', '.join(DATE_PARTS)} or none, received only {', '.join(present)}"
            raise FaultsError([(("path",), reason)])
        return self


class UserSplit(Declaration):
    """Holds out all interactions of a share of the day's users; another share each day, by a digest of user and day.

    A session is never on both sides, so the model is evaluated on users that it was not trained on that day. This predicts best how
    well the next day's users will be served.

    Attributes:
        share: of the users with interactions in the last `hours` hours before the end of the day.
        hours: 24 is the day itself.
    """

    by: Literal["user"]
    share: float = Field(default=0.1, gt=0, lt=1)
    hours: PositiveInt = 24


class TimeSplit(Declaration):
    """Holds out the newest interactions.

    The model is evaluated on interactions after all training data; sessions across the border are on both sides.

    Attributes:
        hours: the number of hours before the end of the day.
    """

    by: Literal["time"]
    hours: PositiveInt


class HashSplit(Declaration):
    """Holds out a random but repeatable share: the same interaction is always on the same side.

    The model is evaluated on interactions whose neighbours in the same session it was trained on. That flatters a model that
    memorises sessions, and says nothing about tomorrow; it tells whether training works.

    Attributes:
        share: of the interactions of the last `hours` hours before the end of the day.
        hours: 24 is the day itself.
    """

    by: Literal["hash"]
    share: float = Field(gt=0, lt=1)
    hours: PositiveInt = 24


FROM_LOG: Literal["from_log"] = "from_log"
Catalogue = Annotated[
    Annotated[SourceSettings, Tag("[files]")] | Annotated[Literal["from_log"], Tag("[log]")],
    Discriminator(lambda value: "[log]" if isinstance(value, str) else "[files]"),
]


class ExampleGenSettings(Declaration):
    """The data of a run's examples.

    Attributes:
        interactions: the logs.
        catalogue: the items that may be retrieved. `from_log` makes it from the log itself: every item in it since the window of
            the first run, each column with its newest present value; carried over from day to day.
        users: the users' table, if the feature specification has `users`; at a path with a day, the newest one not after the
            run's.
        first_day: the first day of the log; earlier days of a window are not expected. Every other day of
            the window must exist.
        closed: days without data: of the week (`saturday`), or dates. They are not run, nor expected or counted in any window;
            the next open day follows the one before them.
        window_days: the number of days, up to and including the run's, that become examples if training continues from an earlier
            model: 1 is the paper's way, more is a rolling window.
        catch_up_days: the same if training starts from scratch; `window_days` by default.
        history_days: the number of days before those that are read only for users' histories. By default, if a history is derived,
            as many as give the run's own day seven days before it: none before a window of eight days, seven before one of a
            single day. Of these default days, missing ones are skipped, and the run names them; an explicit number of days
            must exist. Each is read again every day: seven cost eight times the reading of one, and nothing in later steps.
        split: the interactions to hold out of training for evaluation.
        repeated: how to treat rows with the same user, item and time: `drop` counts all but one, the one with the greatest
            reward, as faults; `add_up` merges them into one with the sum of their rewards, at most 1; `keep` keeps them, for
            baskets that list an item twice.
        max_dropped_share: the run stops if more than this share of a source's rows is faulty.
        max_dropped_shares: limits for single reasons, whose rows then do not count towards the other limit; a reason as the run
            reports it, such as `sku: an item that the catalogue lacks`.
        max_id_bytes: a longer id is a fault.
    """

    interactions: SourceSettings
    catalogue: Catalogue
    users: SourceSettings | None = None
    first_day: date | None = None
    closed: tuple[Weekday | date, ...] = ()
    window_days: int = Field(default=1, ge=1, le=MOST_DAYS)
    catch_up_days: int | None = Field(default=None, ge=1, le=MOST_DAYS)
    history_days: int | None = Field(default=None, ge=0, le=MOST_DAYS)
    split: Annotated[UserSplit | TimeSplit | HashSplit, Field(discriminator="by")] = UserSplit(by="user")
    repeated: Literal["drop", "add_up", "keep"] = "drop"
    max_dropped_share: float = Field(default=0.01, ge=0, le=1)
    max_dropped_shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    max_id_bytes: PositiveInt = 1024

    @property
    def catalogue_source(self) -> SourceSettings:
        """The place of the catalogue.

        Raises:
            ValueError: it is made from the log.
        """
        if not isinstance(self.catalogue, SourceSettings):
            raise ValueError("a catalogue that is made from the log has no place of its own")
        return self.catalogue

    @property
    def has_other_window(self) -> bool:
        """Whether a run that starts from scratch has a different window from one that continues from an earlier model."""
        return self.catch_up_days not in (None, self.window_days)

    def history_before(self, days: int) -> int:
        """Return the number of days before a window that are read for histories, if a history is derived."""
        return max(0, HISTORY_DAYS - (days - 1)) if self.history_days is None else self.history_days

    def is_closed(self, day: date) -> bool:
        """Return whether a UTC day is closed."""
        return day in self.closed or WEEKDAYS[day.weekday()] in self.closed

    def check_open(self, day: date) -> None:
        """Raise a UserError for a closed day."""
        if self.is_closed(day):
            raise UserError(
                f"{day}, a {WEEKDAYS[day.weekday()].title()}, is closed: data.closed says that it has no data."
            )

    @model_validator(mode="after")
    def _has_days(self) -> Self:
        if set(WEEKDAYS) <= set(self.closed):
            raise FaultsError([(("closed",), "expected a day of the week that is not closed, received all seven")])
        return self

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        window = 24 * min(self.window_days, self.catch_up_days or self.window_days)
        if isinstance(self.split, TimeSplit) and self.split.hours >= window:
            reason = (
                f"holds out the whole window of {window} hours; expected fewer, so that something is left to train on"
            )
            raise FaultsError([(("split", "hours"), reason)])
        return self
