"""Which index is built, and how much of it a search looks at."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from schemas.errors import UserError
from schemas.features import Declaration
from schemas.located_yaml import FaultsError, KeyPath

# By the square root of the items: comparing a query with all centroids then costs about what a few lists do.
LISTS_A_ROOT = 4
LISTS_A_PROBE = 8


@dataclass(frozen=True)
class Plan:
    """An index for a catalogue of a known size.

    Attributes:
        kind: `flat` or `ivf`.
        lists: into how many lists an `ivf` divides the items; None of a `flat`.
        probes: how many of them a search looks at; None of a `flat`.
    """

    kind: Literal["flat", "ivf"]
    lists: int | None = None
    probes: int | None = None


class IndexerSettings(Declaration):
    """The nearest-neighbour index over the embeddings of the whole catalogue.

    Attributes:
        kind: `flat` compares a query with every item and is exact; `ivf` divides the items into lists by k-means and compares a
            query with those of the nearest lists; `auto` takes `flat` for catalogues below `exact_below`.
        exact_below: items; of `auto`.
        lists: of `ivf`, at most as many as there are items; 4 * sqrt(items) by default.
        probes: of `ivf`, how many lists a search looks at, all where there are fewer; an eighth of them by default. More find
            more of the true neighbours and take longer.
        seed: of the k-means.
    """

    kind: Literal["auto", "flat", "ivf"] = "auto"
    exact_below: PositiveInt = 20_000
    lists: PositiveInt | None = None
    probes: PositiveInt | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _is_of_one_index(self) -> Self:
        if self.kind == "flat":
            reason = "a flat index has none; leave it out, or take kind: ivf"
            given: list[KeyPath] = [(name,) for name in ("lists", "probes") if getattr(self, name) is not None]
            if given:
                raise FaultsError([(path, reason) for path in given])
        if self.lists and self.probes and self.probes > self.lists:
            raise FaultsError([(("probes",), f"expected at most the {self.lists} lists, received {self.probes}")])
        return self

    def plan(self, items: int) -> Plan:
        """The index for so many items, at least one.

        Raises:
            UserError: there are more lists than items.
        """
        if self.kind == "flat" or (self.kind == "auto" and items < self.exact_below):
            return Plan("flat")
        if self.lists and self.lists > items:
            raise UserError(
                f"indexer.lists: expected at most as many as the catalogue has items, {items}, received {self.lists}. "
                "Leave it out: it then follows the catalogue."
            )
        lists = self.lists or min(items, round(LISTS_A_ROOT * math.sqrt(items)))
        return Plan("ivf", lists, min(lists, self.probes or math.ceil(lists / LISTS_A_PROBE)))
