"""Where the data lies, how it is read, and which interactions are held out."""

from datetime import date
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from schemas.errors import UserError
from schemas.features import Declaration, address_fault
from schemas.located_yaml import FaultsError

MOST_DAYS = 36_500
HISTORY_DAYS = 7  # a week: who comes every Saturday has a history
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
Scalar = bool | int | float | str
DATE_PARTS = ("{YYYY}", "{MM}", "{DD}")


class Condition(Declaration):
    """What a row must meet to be read; the others are counted as filtered.

    Attributes:
        column: of the data; it need not be declared as a feature.
        equals: the value, as text or number; exactly one of this and of what follows is given.
        not_equals: any other value, or none.
        one_of: one of these values.
        none_of: none of these values.
        above: a greater number.
        at_least: this number or a greater one.
        below: a smaller number.
        at_most: this number or a smaller one.
        starts_with: a text that begins so.
        missing: whether there is no value; `missing: false` asks for rows that have one. A missing value meets neither the
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
        """Which of them is given."""
        return next(name for name in type(self).model_fields if name != "column" and getattr(self, name) is not None)

    @property
    def value(self) -> Any:
        """What it is given with."""
        return getattr(self, self.operator)

    @property
    def reason(self) -> str:
        """Why a row is left out that does not meet it, as the accounting has it."""
        value = ", ".join(map(str, self.value)) if isinstance(self.value, tuple) else str(self.value)
        return f"{self.column}: not {self.operator} {value}"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        names = [name for name in type(self).model_fields if name != "column"]
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            reason = f"expected one of {', '.join(names)}, received {' and '.join(given) or 'none'}; each is a condition of its own"
            raise FaultsError([((), reason)])
        return self


class SourceSettings(Declaration):
    r"""Files of one kind.

    Attributes:
        path: a file, a folder or a glob; `{YYYY}`, `{MM}` and `{DD}` stand for the UTC day. Interactions at a path without
            them are one log, of which the window's days are taken by their time. A catalogue at a path with them is
            the newest that is not after the day. Files whose names begin with `_` or `.` are passed over, and counted. A folder
            in a folder is a fault, but where the path ends in `/**`: then files are read at any depth.
        format: `csv` (with a header; gzip, bzip2 and Zstandard are unpacked) or `parquet`.
        delimiter: between the columns of CSV.
        quoting: how CSV writes a quote within a quoted value: doubled (`double`, as RFC 4180 and Excel), behind a backslash
            (`backslash`, as Spark), or not at all, as values are never quoted and a quote is a character like any other
            (`none`, as Hive).
        quoted_newlines: whether a quoted value of CSV may span lines. Without them a quote that its line does not close is a
            fault, with the line; with them, a stray quote takes the rows up to the next one into its value, which nothing
            can tell from a long text.
        null_values: texts that stand for a missing value, such as `\N` (Hive, MySQL), `NULL` or `NaN` (pandas), beside the empty
            one. Where the key is absent, an id that is one of the usual spellings is a fault of its row; where it is there,
            what it does not list is an id.
        trim: whether blanks around ids and around the names of CSV's columns are removed. Without it an id with blanks around
            is a fault of its row. Whoever asks for recommendations then has to send ids without them.
        where: conditions, all of which a row must meet to be read.
        success_marker: the name of a file that whoever writes the data leaves beside it when all of it is there. Data
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
        """Whether every day has a path of its own."""
        return DATE_PARTS[0] in self.path

    @property
    def counted_by(self) -> str:
        """What the numbers of rows count: `line` of a file of text, or `row`."""
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
    def _is_of_this_machine(cls, path: str) -> str:
        if reason := address_fault(path):
            raise ValueError(reason)
        return path

    @model_validator(mode="after")
    def _names_whole_dates(self) -> Self:
        present = [part for part in DATE_PARTS if part in self.path]
        if present and len(present) < len(DATE_PARTS):
            reason = f"expected all of {', '.join(DATE_PARTS)} or none, received only {', '.join(present)}"
            raise FaultsError([(("path",), reason)])
        return self


class UserSplit(Declaration):
    """Holds out everything that a share of the users did on the day; another share each day, by a digest of user and day.

    A session is never on both sides, so the model is judged on people that it was not trained on that day. This is what tells how
    the next day's people will be served.

    Attributes:
        share: of the users with interactions in the last `hours` hours before the end of the day.
        hours: 24 is the day itself.
    """

    by: Literal["user"]
    share: float = Field(default=0.1, gt=0, lt=1)
    hours: PositiveInt = 24


class TimeSplit(Declaration):
    """Holds out the newest interactions.

    The model is judged on what comes after all that it was trained on; sessions that the border cuts are on both sides.

    Attributes:
        hours: those of the last so many hours before the end of the day.
    """

    by: Literal["time"]
    hours: PositiveInt


class HashSplit(Declaration):
    """Holds out a random but repeatable share: the same interaction is always on the same side.

    The model is judged on interactions whose neighbours in the same session it was trained on. That flatters a model that remembers
    sessions, and says nothing about tomorrow; it tells whether the training works.

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
    """What becomes the examples of a run.

    Attributes:
        interactions: the logs.
        catalogue: the items that may be retrieved. `from_log` makes it from the log itself: every item that the log has had since
            the window of the first run, each column with the newest value that is not missing; carried on from day to day.
        users: the users' table, where the feature specification has `users`; at a path with a day, the newest that is not after the
            run's.
        first_day: the first day there is a log of; days of the window before it are not expected. Every other day of
            the window must be there.
        closed: days that do not exist: of the week (`saturday`), or dates. They are not run, nor expected or counted in any window;
            the day behind them follows the one before them.
        window_days: how many days, up to and including the run's, become examples where training goes on from an earlier
            model: 1 is the paper's way, more is a rolling window.
        catch_up_days: the same where it starts anew; `window_days` by default.
        history_days: how many days before those are read only for what users did in them. By default, where a history is derived,
            so many that the run's own day has the seven days before it: none behind a window of eight days, seven behind one of a
            single day. Of these the days that are not there yet are left out, and the run says which; days that are asked for by
            a number must be there. Each is read again every day: seven cost eight times the reading of one, and nothing behind it.
        split: which interactions are held out of training to judge the model on.
        repeated: what becomes of rows with the same user, item and time: `drop` counts all but one, that with the greatest
            reward, as faults; `add_up` makes one of them, whose reward is their sum, at most 1; `keep` leaves them, as a
            basket that names an item twice.
        max_dropped_share: when more than this share of a source's rows is at fault, the run stops.
        max_dropped_shares: a limit for a reason of its own, which then does not count towards the other; the reason as a run
            has it, such as `sku: an item that the catalogue lacks`.
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
        """Where the catalogue lies.

        Raises:
            ValueError: it is made from the log.
        """
        if not isinstance(self.catalogue, SourceSettings):
            raise ValueError("a catalogue that is made from the log lies nowhere")
        return self.catalogue

    @property
    def has_other_window(self) -> bool:
        """Whether a run that starts anew has another window than one that goes on from an earlier model."""
        return self.catch_up_days not in (None, self.window_days)

    def history_before(self, days: int) -> int:
        """How many days before a window of so many are read for histories, where a history is derived."""
        return max(0, HISTORY_DAYS - (days - 1)) if self.history_days is None else self.history_days

    def is_closed(self, day: date) -> bool:
        """Whether a UTC day is one that does not exist."""
        return day in self.closed or WEEKDAYS[day.weekday()] in self.closed

    def check_open(self, day: date) -> None:
        """Raises a UserError where a day does not exist."""
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
