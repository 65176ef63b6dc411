"""The whole of a `features.yaml`, and what its readers ask of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from schemas import located_yaml
from schemas.declaration import Declaration
from schemas.features.columns import CatalogueColumns, InteractionColumns, UserColumns
from schemas.features.faults import faults
from schemas.features.kinds import (
    MASKED_ITEMS,
    Embedded,
    Feature,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    LookedUpFeature,
    NumberFeature,
    QueryFeature,
    Table,
    TextFeature,
    VectorFeature,
)

FILE_NAME = "features.yaml"


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
        if problems := list(faults(self)):
            raise located_yaml.FaultsError(problems)
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
        """The query features that are inputs of the tower; looked-up features have the kind of what is looked up.

        For the items of a history, ids and tokens of all items are concatenated, with weights that turn their sum into the mean.
        """
        return {
            name: self._as_input(f) if isinstance(f, LookedUpFeature) else f
            for name, f in self.query.items()
            if name not in self.unseen_histories
        }

    def _as_input(self, feature: LookedUpFeature) -> Feature:
        of, item = self.query[feature.of], self.item[feature.feature]
        if not isinstance(of, HistoryFeature) or not isinstance(item, Embedded):
            return item
        values = 1 if isinstance(item, IdFeature | HistoryFeature) else item.max_values
        return IdsFeature(kind="ids", table=item.table, max_values=of.last * values, pooling="sum")

    def width(self, features: Mapping[str, Feature]) -> int:
        """Return the number of values of a tower's features side by side, as its first layer sees them."""
        return sum(map(self._width, features.values()))

    def _width(self, feature: Feature) -> int:
        match feature:
            case NumberFeature():
                return 1
            case VectorFeature():
                return feature.size + 1  # its flag
            case _:
                return self.tables[feature.table].width

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
        return [name for name, feature in self.looked_up.items() if feature.feature in self.changing_item_features]

    @property
    def changing_user_features(self) -> list[str]:
        """The features of the users' table that may differ between tables."""
        return [name for name, feature in self.user_features.items() if getattr(feature, "changes", False)]

    @property
    def masked_tables(self) -> dict[str, float]:
        """The tables with a mask, and the share of ids that training hides."""
        item_table = self.id_table(self.item, self.catalogue.item)
        shares = {}
        for name, table in self.tables.items():
            by_default = MASKED_ITEMS if name == item_table and table.vocabulary else 0.0
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
    def unseen_histories(self) -> list[str]:
        """The histories that are no inputs of the query tower."""
        return [name for name, f in self.query.items() if isinstance(f, HistoryFeature) and f.encoder == "none"]

    @property
    def not_negatives(self) -> list[str]:
        """The histories whose items are no negatives of their query."""
        return [name for name, f in self.query.items() if isinstance(f, HistoryFeature) and not f.negatives]

    @property
    def aged_histories(self) -> list[str]:
        """The histories that carry the ages of their items, under `NAME_ages`."""
        return [name for name, f in self.query.items() if isinstance(f, HistoryFeature) and f.has_ages]

    @property
    def fingerprinted(self) -> set[str]:
        """The query features whose item ids are model inputs too, besides their rows."""
        return {feature.of for feature in self.looked_up.values()} | {*self.repeating, *self.not_negatives}

    @property
    def derived_histories(self) -> dict[str, HistoryFeature]:
        """The histories derived from the user's earlier interactions, by name; those of all kinds of event first."""
        derived = {n: f for n, f in self.query.items() if isinstance(f, HistoryFeature) and f.column is None}
        return dict(sorted(derived.items(), key=lambda entry: bool(entry[1].events)))

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
