"""The feature specification: the features of a row, the tower that each feeds, and the embedding tables that they share."""

import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from ndr_client.served import EXCLUDE, WHERE, K
from schemas import located_yaml

CANDIDATE_ID = "candidate_id"
QUERY_ID = "query_id"
TIMESTAMP = "timestamp"
REWARD = "reward"
TITLE = "title"
EVENT_KIND = "event_kind"
SEEN_THROUGH = "seen_through"
RESERVED = (CANDIDATE_ID, QUERY_ID, TIMESTAMP, REWARD, TITLE, SEEN_THROUGH, K, EXCLUDE, WHERE)
"""Features of every interaction besides the declared ones: the raw item id, the raw user id, the time (int64, microseconds since
1970-01-01 UTC) and the example weight in [0, 1]; with kinds of events also `EVENT_KIND`. A catalogue entry has its title; a row of
an earlier table has the last day that sees it (`components.example_gen.point_in_time`); a request to the retriever has the number
of items, the items to exclude, and the conditions to meet."""

WEIGHTS_SUFFIX = "_weights"
FINGERPRINT_SUFFIX = "_fingerprint"
AGES_SUFFIX = "_ages"
MASKED_ITEMS = 0.1
"""The default share of items whose id training hides; benchmarks/README.md compares other shares."""
FILE_NAME = "features.yaml"
NAME_EXPECTED = (
    "expected a name of the letters a to z, digits and underscores, starting with a letter, and not a Python keyword"
)


OBJECT_STORE = re.compile(r"(s3|gs)://([^/@?#*\[\]{}\s]+)(/.*)?", re.DOTALL)
"""The address of a place in an object store: scheme, bucket, and key."""

Fault = tuple[located_yaml.KeyPath, str]


def address_fault(value: object) -> str | None:
    """Say what is wrong with an address given instead of a local path. It is not shown, because it may contain credentials."""
    scheme, sign, _ = str(value).partition("://")
    if sign and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return f"expected a path of this machine, received an address, {scheme}://...; mount it and name its folder"
    return None


class Declaration(BaseModel):
    """A frozen model that rejects unknown keys: a misspelt key is a fault, never a default. Paths are local."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _names_no_address(cls, given: Any) -> Any:
        """Reject an address: as a `Path`, s3://bucket/x would be a folder named `s3:`."""
        faults: list[Fault] = [
            ((name,), reason)
            for name, field in cls.model_fields.items()
            if isinstance(given, dict) and Path in (field.annotation, *get_args(field.annotation))
            if (reason := address_fault(given.get(name)))
        ]
        if faults:
            raise located_yaml.FaultsError(faults)
        return given


class Vocabulary(Declaration):
    """Which ids get rows of their own: those that are frequent enough over all days so far, where older days count less.

    Attributes:
        min_count: an id is admitted when its rounded count reaches this; before, it uses an out-of-vocabulary bucket or the mask.
            It is removed when its count falls below half of this, so that tables do not grow forever.
        max_size: the maximum number of ids, the most frequent first. The same number of other ids is counted as candidates.
        half_life_days: the number of days after which an occurrence counts half, by the data's days. None: counts never decay, so
            ids leave only for lack of space.
    """

    min_count: PositiveInt = 1
    max_size: PositiveInt = 1_000_000
    half_life_days: PositiveFloat | None = 90.0


class Table(Declaration):
    """An embedding table, shared by all features that name it.

    Attributes:
        width: the number of values in a row.
        vocabulary: the ids with rows of their own; None hashes every id.
        hash_buckets: the number of rows shared by hash: by all ids without a vocabulary, else by ids outside it.
        masked: the share of ids that training hides, a new random choice each time, in features of kind `id` with a column. The
            model learns to do without them, from one more row, the mask; the mask also serves ids without a row of their own, such
            as those of new items. 0 for no mask. Defaults to `MASKED_ITEMS` for the table of the items' own ids, if it has a
            vocabulary, and to 0 for others. Histories and derived ids are not masked.
    """

    width: PositiveInt
    vocabulary: Vocabulary | None = None
    hash_buckets: PositiveInt
    masked: float | None = Field(default=None, ge=0.0, lt=1.0)


class IdFeature(Declaration):
    """One id, or none.

    Attributes:
        table: the embedding table.
        column: the column of the data; by default the feature's own name.
        derive: instead of a column: `last_in_history` is the newest id of the history with the same table;
            `hour_of_day` (0 to 23) and `day_of_week` (0 is Monday) come from the interaction's UTC time.
        changes: for features of the catalogue or the users' table: whether the value may differ between daily tables. An
            interaction gets the value of the newest table that does not include its own day. False takes the value from the newest
            table of the run; if no feature changes, earlier tables are not read. An item's own id never changes. The same holds for
            other kinds of features.
    """

    kind: Literal["id"]
    table: str
    column: str | None = None
    changes: bool = True
    derive: Literal["last_in_history", "hour_of_day", "day_of_week"] | None = None


class IdsFeature(Declaration):
    """Several ids, pooled to one vector by a weighted sum or mean.

    Attributes:
        table: the embedding table.
        column: the column of the data; by default the feature's own name.
        changes: as in `id`.
        max_values: the maximum number of ids; the first are kept.
        separator: separates the values in a text column; a list column of Parquet needs none.
        weights: a column with as many numbers as ids; by default every weight is 1.
        pooling: `sum` of weight times row, or that sum divided by the sum of absolute weights (`mean`).
    """

    kind: Literal["ids"]
    table: str
    column: str | None = None
    changes: bool = True
    max_values: PositiveInt
    separator: str = Field(default="|", min_length=1, max_length=1)
    weights: str | None = None
    pooling: Literal["sum", "mean"] = "mean"


class HistoryFeature(Declaration):
    """The last k items that the user interacted with, averaged (paper, section 5: the watch history), or pooled by attention.

    There may be several, for example one of purchases and one of views.

    Attributes:
        table: the embedding table.
        last: k. A shorter history is averaged over its items; an empty one gives the zero vector.
        column: a column with the logged history, oldest first; None derives it from the user's strictly earlier interactions
            within the window that the run reads.
        separator: separates the values in a text column.
        events: for a derived history, the kinds of event (`interactions.event`) to include, such as purchases; empty for all.
        half_life: in items: an item this many positions further back has half the weight in the mean. None for equal weights.
        encoder: `mean`, or `attention`: a learned weight for each item, by its row, its position, and its age; see
            `components.trainer.history_attention`. A derived history then carries the items' ages under `NAME_ages`.
        repeats: whether the model learns a score bonus, positive or negative, for items in this history; see
            `components.trainer.repeats`. Evaluation, the retriever and clients add it to their scores.
    """

    kind: Literal["history"]
    table: str
    last: PositiveInt
    column: str | None = None
    separator: str = Field(default="|", min_length=1, max_length=1)
    events: tuple[str, ...] = ()
    half_life: PositiveFloat | None = None
    encoder: Literal["mean", "attention"] = "mean"
    repeats: bool = False

    @property
    def has_ages(self) -> bool:
        """Whether rows and requests may carry the age of each item, in seconds, beside the items."""
        return self.encoder == "attention" and self.column is None


class NumberFeature(Declaration):
    """A number, or none (replaced by the mean of the training data).

    Attributes:
        column: the column of the data; by default the feature's own name.
        changes: as in `id`.
        scale: `zscore`: zero mean and unit variance; `log`: the same after log(1 + x), for x >= 0; `none`: unchanged.
    """

    kind: Literal["number"]
    column: str | None = None
    changes: bool = True
    scale: Literal["zscore", "log", "none"] = "zscore"


class VectorFeature(Declaration):
    """A vector of numbers, such as the embedding of a text or an image, or none (replaced by zeros, with a flag).

    Attributes:
        size: the length; a row with another length is a fault.
        column: the column of the data; by default the feature's own name.
        changes: as in `id`.
        separator: separates the numbers in a text column, which may be in brackets; a list column of Parquet needs none.
        normalise: `l2` divides by the length, so that only the direction counts; `none` leaves the numbers unchanged.
    """

    kind: Literal["vector"]
    size: PositiveInt
    column: str | None = None
    changes: bool = True
    separator: str = Field(default="|", min_length=1, max_length=1)
    normalise: Literal["l2", "none"] = "l2"


class TextFeature(Declaration):
    """A text, or none: its words and their character n-grams, hashed to rows of a table and pooled like ids.

    Texts are normalised: upper and lower case, composed and compatible Unicode characters are equal. A word is a sequence of
    letters, marks and digits.

    Attributes:
        table: the embedding table, without a vocabulary.
        column: the column of the data; by default the feature's own name.
        changes: as in `id`.
        words: whether whole words are tokens.
        ngrams: lengths of the character n-grams of words, with a mark at each end; an empty list for none.
        max_values: the maximum number of tokens; words come first.
        pooling: as in `ids`, each token with weight 1.
    """

    kind: Literal["text"]
    table: str
    column: str | None = None
    changes: bool = True
    words: bool = True
    ngrams: tuple[Annotated[int, Field(ge=1, le=16)], ...] = (3,)
    max_values: PositiveInt = 64
    pooling: Literal["sum", "mean"] = "mean"


class LookedUpFeature(Declaration):
    """A feature of the items in another query feature, looked up in the catalogue.

    Rows and requests carry only the ids. An item missing from the catalogue gives the zero vector.

    Attributes:
        of: a feature of the query whose ids are items: of kind `id`, such as the seed, or `history`, over
            whose items the mean is taken.
        feature: a feature of the item, of any kind. Both share its table.
    """

    kind: Literal["looked_up"]
    of: str
    feature: str


_Raw = IdFeature | IdsFeature | HistoryFeature | NumberFeature | VectorFeature | TextFeature
Feature = Annotated[_Raw, Field(discriminator="kind")]
QueryFeature = Annotated[_Raw | LookedUpFeature, Field(discriminator="kind")]
Embedded = IdFeature | IdsFeature | HistoryFeature | TextFeature
Numeric = NumberFeature | VectorFeature


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


class FeatureSpec(Declaration):
    """The features of a row, and how each is used.

    Attributes:
        interactions: the columns of the log.
        catalogue: the columns of the catalogue.
        users: the columns of the users' table; None without one.
        tables: the embedding tables by name; features that name the same table share its rows.
        query: the query tower's features by name.
        item: the item tower's features by name.
    """

    interactions: InteractionColumns
    catalogue: CatalogueColumns
    users: UserColumns | None = None
    tables: dict[str, Table]
    query: dict[str, QueryFeature] = Field(min_length=1)
    item: dict[str, Feature] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        faults = list(_faults(self))
        if faults:
            raise located_yaml.FaultsError(faults)
        return self

    @property
    def features(self) -> dict[str, Feature]:
        """Both towers' features by name, without looked-up ones."""
        return {**self.raw_query, **self.item}

    @property
    def raw_query(self) -> dict[str, Feature]:
        """The query features that rows and requests carry."""
        return {name: f for name, f in self.query.items() if not isinstance(f, LookedUpFeature)}

    @property
    def logged_query(self) -> dict[str, Feature]:
        """The query features that are columns of the log, or derived from it."""
        return {name: f for name, f in self.raw_query.items() if name not in self.user_features}

    @property
    def user_features(self) -> dict[str, Feature]:
        """The query features that are columns of the users' table."""
        names = self.users.features if self.users else ()
        return {name: f for name, f in self.raw_query.items() if name in names}

    @property
    def looked_up(self) -> dict[str, LookedUpFeature]:
        """The query features that are looked up in the catalogue."""
        return {name: f for name, f in self.query.items() if isinstance(f, LookedUpFeature)}

    @property
    def query_inputs(self) -> dict[str, Feature]:
        """The query features as inputs of the tower; looked-up features have the kind of what is looked up.

        For the items of a history, ids and tokens of all items are concatenated, with weights that turn their sum into the mean.
        """
        return {name: self._as_input(f) if isinstance(f, LookedUpFeature) else f for name, f in self.query.items()}

    def _as_input(self, feature: LookedUpFeature) -> Feature:
        of, item = self.query[feature.of], self.item[feature.feature]
        if not isinstance(of, HistoryFeature) or not isinstance(item, Embedded):
            return item
        values = 1 if isinstance(item, IdFeature | HistoryFeature) else item.max_values
        return IdsFeature(kind="ids", table=item.table, max_values=of.last * values, pooling="sum")

    @property
    def kept_in_catalogue(self) -> dict[str, VectorFeature | TextFeature]:
        """The item's vectors and texts, by name: training looks them up by the item's id; interactions do not repeat them."""
        return {name: f for name, f in self.item.items() if isinstance(f, VectorFeature | TextFeature)}

    @property
    def of_interactions(self) -> dict[str, Feature]:
        """The features that interactions hold: the query's, and the item's that are joined."""
        return {name: f for name, f in self.features.items() if name not in self.kept_in_catalogue}

    @property
    def id_features(self) -> list[str]:
        """The item tower's features that are the item's own id."""
        return [
            name
            for name, feature in self.item.items()
            if isinstance(feature, IdFeature | IdsFeature) and (feature.column or name) == self.catalogue.item
        ]

    @property
    def content_features(self) -> list[str]:
        """The item tower's other features, which describe an item."""
        return [name for name in self.item if name not in self.id_features]

    @property
    def changing_item_features(self) -> list[str]:
        """The item tower's features that may differ between catalogues."""
        return [name for name in self.content_features if getattr(self.item[name], "changes", False)]

    @property
    def of_newest(self) -> "FeatureSpec":
        """The same for who reads the newest catalogue alone, where nothing changes from one to another."""
        item = {
            name: feature.model_copy(update={"changes": False}) if hasattr(feature, "changes") else feature
            for name, feature in self.item.items()
        }
        return self.model_copy(update={"item": item})

    @property
    def changing_looked_up(self) -> list[str]:
        """The looked-up query features that may change."""
        return [name for name, each in self.looked_up.items() if each.feature in self.changing_item_features]

    @property
    def changing_user_features(self) -> list[str]:
        """The features of the users' table that may differ between tables."""
        return [name for name, feature in self.user_features.items() if getattr(feature, "changes", False)]

    @property
    def masked_tables(self) -> dict[str, float]:
        """The tables with a mask, and the share of ids that training hides."""
        own = self.id_table(self.item, self.catalogue.item)
        shares = {}
        for name, table in self.tables.items():
            by_default = MASKED_ITEMS if name == own and table.vocabulary else 0.0
            shares[name] = by_default if table.masked is None else table.masked
        return {name: share for name, share in shares.items() if share > 0.0}

    @property
    def masked_features(self) -> dict[str, str]:
        """The features with masked ids, and the table of each."""
        return {
            name: feature.table
            for name, feature in self.features.items()
            if isinstance(feature, IdFeature) and not feature.derive and feature.table in self.masked_tables
        }

    @property
    def query_tables(self) -> dict[str, str]:
        """The embedding table of each query feature that consists of ids."""
        embedded = {name: f for name, f in self.query.items() if isinstance(f, Embedded)}
        return {name: f.table for name, f in embedded.items() if not isinstance(f, TextFeature)}

    @property
    def repeating(self) -> dict[str, HistoryFeature]:
        """The histories with a learned bonus for repeated items, by name."""
        return {name: f for name, f in self.query.items() if isinstance(f, HistoryFeature) and f.repeats}

    @property
    def aged_histories(self) -> list[str]:
        """The histories that carry the ages of their items, under `NAME_ages`."""
        return [name for name, f in self.query.items() if isinstance(f, HistoryFeature) and f.has_ages]

    @property
    def fingerprinted(self) -> set[str]:
        """The query features whose item ids are model inputs too, besides their rows."""
        return {each.of for each in self.looked_up.values()} | {*self.repeating}

    @property
    def derived_histories(self) -> dict[str, HistoryFeature]:
        """The histories derived from the user's earlier interactions, by name; those of all kinds of event first."""
        derived = {n: f for n, f in self.query.items() if isinstance(f, HistoryFeature) and f.column is None}
        return dict(sorted(derived.items(), key=lambda each: bool(each[1].events)))

    @property
    def has_events(self) -> bool:
        """Whether interactions have a kind of event (`EVENT_KIND`)."""
        return self.interactions.event is not None

    @property
    def history(self) -> tuple[str, HistoryFeature] | None:
        """The first derived history, one of all kinds of event if there is one, with its name."""
        return next(iter(self.derived_histories.items()), None)

    @property
    def history_feature(self) -> str | None:
        """The name of the query's history: the derived one, or else the first logged one."""
        names = [name for name, feature in self.query.items() if isinstance(feature, HistoryFeature)]
        return self.history[0] if self.history else names[0] if names else None

    def id_table(self, features: Mapping[str, Feature], column: str) -> str | None:
        """Return the embedding table of a column's id, such as the item's own; None if a tower has no such feature."""
        return next(
            (
                f.table
                for name, f in features.items()
                if isinstance(f, IdFeature) and not f.derive and (f.column or name) == column
            ),
            None,
        )

    def counted_features(self, table: str) -> list[str]:
        """Return the features whose values make up a table's vocabulary.

        Histories and features derived from them repeat the candidates of other interactions, so they are looked up in the table but
        not counted if another feature feeds it. Texts are hashed, so they are not counted.
        """
        sharing = {
            n: f
            for n, f in self.features.items()
            if isinstance(f, Embedded) and not isinstance(f, TextFeature) and f.table == table
        }
        primary = [
            n
            for n, f in sharing.items()
            if not isinstance(f, HistoryFeature) and not (isinstance(f, IdFeature) and f.derive == "last_in_history")
        ]
        return primary or list(sharing)


def load(folder: Path) -> FeatureSpec:
    """Read a dataset folder's `features.yaml`.

    Raises:
        schemas.errors.UserError: with the file, the line and the reason of every fault.
    """
    return located_yaml.validate(FeatureSpec, located_yaml.read(Path(folder) / FILE_NAME))


def _faults(spec: FeatureSpec) -> Iterator[Fault]:
    used = {f.table for f in spec.features.values() if isinstance(f, Embedded)}
    for table in sorted(set(spec.tables) - used):
        yield ("tables", table), "feeds no feature; remove it or name it in a feature's `table`"
    yield from ((("tables", name), NAME_EXPECTED) for name in spec.tables if not is_name(name))
    for name, declared in spec.tables.items():
        if declared.masked and declared.vocabulary is None:
            reason = "needs a vocabulary: without one no id has a row of its own to hide"
            yield ("tables", name, "masked"), reason
        elif declared.masked and name not in spec.masked_features.values():
            yield ("tables", name, "masked"), "no feature of kind `id` with a column of its own has this table"
    for name in sorted(set(spec.query) & set(spec.item)):
        yield ("item", name), f"the query has a feature {name} too; rename one of them, with `column: {name}`"
    for tower, features in (("query", spec.query), ("item", spec.item)):
        for name, feature in features.items():
            yield from (((tower, name), reason) for reason in _feature_faults(spec, tower, name, feature))
    for number, name in enumerate(spec.users.features if spec.users else ()):
        of_user = spec.query.get(name)
        if not isinstance(of_user, IdFeature | IdsFeature | Numeric | TextFeature) or getattr(of_user, "derive", None):
            reason = "expected a feature of the query of kind id, ids, number, vector or text that is not derived"
            yield ("users", "features", number), f"{reason}, received {name!r}"
    for name, column in spec.catalogue.filters.items():
        yield from ((("catalogue", "filters", name), reason) for reason in _filter_faults(spec, name, column))
    of_kinds: dict[frozenset[str], str] = {}
    for name, history in spec.derived_histories.items():
        kinds = frozenset(history.events)
        if kinds in of_kinds:
            reason = (
                f"{of_kinds[kinds]} is derived already; name the `column` of this logged history, or other `events`"
            )
            yield ("query", name), reason
        of_kinds.setdefault(kinds, name)


def is_name(name: str) -> bool:
    """Return whether TensorFlow accepts it as a signature's argument and a scope; the pipeline's names begin with an underscore."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None and not keyword.iskeyword(name)


def _feature_faults(spec: FeatureSpec, tower: str, name: str, feature: Feature | LookedUpFeature) -> Iterator[str]:
    weighted = {
        n: f
        for n, f in {**spec.query, **spec.item}.items()
        if isinstance(f, IdsFeature | TextFeature | LookedUpFeature)
    }
    weights = [other + WEIGHTS_SUFFIX for other in weighted]
    fingerprints = [each + FINGERPRINT_SUFFIX for each in spec.fingerprinted]
    ages = [each + AGES_SUFFIX for each in spec.aged_histories]
    of_events = [EVENT_KIND] if spec.has_events else []
    if name in (*RESERVED, *weights, *fingerprints, *ages, *of_events):
        yield "this name is taken by the pipeline itself; choose another, with `column` for the data's name"
    if not is_name(name):
        yield f"{NAME_EXPECTED}; `column` can give the data's name"
    if isinstance(feature, LookedUpFeature):
        yield from _looked_up_faults(spec, feature)
    if isinstance(feature, Embedded) and feature.table not in spec.tables:
        known = ", ".join(sorted(spec.tables)) or "none"
        yield f"the table {feature.table!r} is not declared under `tables` (there: {known})"
    if not getattr(feature, "changes", True) and tower == "query" and name not in spec.user_features:
        yield "`changes: false` is only for features of the catalogue and the users' table; leave it out"
    if isinstance(feature, TextFeature):
        if not (feature.words or feature.ngrams):
            yield "expected `words`, `ngrams` or both, found neither"
        if feature.table in spec.tables and spec.tables[feature.table].vocabulary:
            yield f"words and n-grams are hashed; name a table without `vocabulary` instead of {feature.table!r}"
    if isinstance(feature, HistoryFeature) and tower == "item":
        yield "a history belongs to the query; move it there"
    if isinstance(feature, HistoryFeature) and feature.events:
        yield from _event_faults(spec, feature)
    if isinstance(feature, IdFeature) and feature.derive:
        if feature.column:
            yield "give either `column` or `derive`, not both"
        if tower == "item":
            yield f"`derive: {feature.derive}` belongs to the query; move the feature there"
        if feature.derive == "last_in_history" and spec.history is None:
            yield "`derive: last_in_history` needs a feature of kind history without a `column`"


def _filter_faults(spec: FeatureSpec, name: str, column: FilterColumn) -> Iterator[str]:
    if not is_name(name):
        yield f"{NAME_EXPECTED}; `column` can give the data's name"
    weights = [other + WEIGHTS_SUFFIX for other, f in spec.item.items() if isinstance(f, IdsFeature | TextFeature)]
    if name in (*RESERVED, *weights):
        yield "this name is taken by the pipeline itself; choose another, with `column` for the data's name"
    feature = spec.item.get(name)
    if feature is None:
        return
    own = feature.column or name, getattr(feature, "separator", None) or column.separator
    if feature.kind != column.kind or own != (column.column or name, column.separator):
        written = f"kind: {feature.kind}" + (f", column: {feature.column}" if feature.column else "")
        written += f", separator: {feature.separator!r}" if isinstance(feature, IdsFeature) else ""
        yield f"the item's feature of this name is {{{written}}}; give the filter the same declaration, or another name"


def _event_faults(spec: FeatureSpec, feature: HistoryFeature) -> Iterator[str]:
    if feature.column:
        yield "give either `column` or `events`, not both: a logged history holds what was logged"
    event = spec.interactions.event
    if event is None:
        yield "`events` needs `interactions.event`, which names the column of the kind of event"
        return
    for kind in feature.events:
        if kind not in event.weights:
            known = ", ".join(event.weights)
            yield f"events: expected kinds with a weight in `interactions.event` ({known}), received {kind!r}"
        elif event.weights[kind] == 0.0 and not event.zero_in_history:
            yield f"events: {kind!r} has weight 0, so it is in no history; set `zero_in_history: true` beside the weights"


def _looked_up_faults(spec: FeatureSpec, feature: LookedUpFeature) -> Iterator[str]:
    of_items = [
        name
        for name, f in spec.query.items()
        if isinstance(f, HistoryFeature) or (isinstance(f, IdFeature) and f.derive in (None, "last_in_history"))
    ]
    if feature.of not in of_items:
        known = ", ".join(of_items) or "none"
        yield f"of: expected a feature of the query whose ids are items, of kind id or history ({known}), received {feature.of!r}"
    if feature.feature not in spec.item:
        yield f"feature: expected a feature of the item ({', '.join(spec.item)}), received {feature.feature!r}"
