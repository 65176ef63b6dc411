"""The kinds of features, and the embedding tables that they share."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from schemas.declaration import Declaration

MASKED_ITEMS = 0.1
"""The default share of items whose id training hides; benchmarks/README.md compares other shares."""


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
            `components.trainer.history_attention`. A derived history then carries the items' ages under `NAME_ages`. `none`: the
            tower does not see the history, which is there for `repeats`, `negatives` or looked-up features.
        repeats: whether the model learns a score bonus, positive or negative, for items in this history; see
            `components.trainer.repeats`. Evaluation, the retriever and clients add it to their scores.
        negatives: whether training teaches the query to score items in this history lower than its own. It need not where
            serving leaves out what a user has already.
    """

    kind: Literal["history"]
    table: str
    last: PositiveInt
    column: str | None = None
    separator: str = Field(default="|", min_length=1, max_length=1)
    events: tuple[str, ...] = ()
    half_life: PositiveFloat | None = None
    encoder: Literal["mean", "attention", "none"] = "mean"
    repeats: bool = False
    negatives: bool = True

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
