"""Settings of the index, and of the number of lists that a search probes."""

import math
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from schemas.declaration import Declaration
from schemas.errors import UserError
from schemas.located_yaml import FaultsError, KeyPath

LISTS_A_ROOT = 4  # times the square root of the items: then comparing a query with all centroids costs about as much as a few lists
LARGEST_SHARE = 0.25  # of the lists: a search that probes more is hardly faster than an exact one


@dataclass(frozen=True)
class Plan:
    """An index for a catalogue of known size.

    Attributes:
        kind: `flat` or `ivf`.
        lists: the number of lists of an `ivf`; None for a `flat`.
        probes: the number of lists that a search probes; None for a `flat`, and for an `ivf` until it is tuned.
    """

    kind: Literal["flat", "ivf"]
    lists: int | None = None
    probes: int | None = None


class IndexerSettings(Declaration):
    """The index over the embeddings of the whole catalogue, and the retriever that searches it.

    Attributes:
        kind: `flat` compares a query with every item and is exact; `ivf` divides the items into lists by k-means and compares a
            query with those of the nearest lists; `auto` uses `flat` for catalogues below `exact_below`, and if
            a quarter of the lists would not reach `recall_target`.
        exact_below: the number of items, for `auto`.
        lists: for `ivf`, at most the number of items; 4 * sqrt(items) by default.
        probes: for `ivf`, the number of lists that a search probes, at most all. By default the fewest that reach `recall_target`.
        recall_target: the share of the exact first `recall_at` items that a search must find, on average over queries: the
            training split's that it is tuned on and, at the lower end of a 95 % interval, others.
        recall_at: the number of items that a search is tuned for; for more it probes more lists.
        tuning_queries: the number of queries it is tuned on.
        vectors: the format of an `ivf` retriever's embeddings: `float32`; `bfloat16` in half, `int8` in a quarter of the memory,
            with some loss of recall, which more probes make up in part. `index.faiss` always has float32.
        k_limit: the maximum number of items in a request to the retriever. At least the 100 that the
            InfraValidator uses.
        shards: the number of shards that a digest of the ids divides the items into. Each has an index of its own, which Beam
            builds without the others in memory, on an engine's workers if there is one. `exact_below`, `lists`, `probes` and
            `recall_target` apply to each.
        stitched: whether one retriever has all shards, for a server that holds them; otherwise each shard has its retriever,
            `retriever-0-of-4` and so on, and the client merges their answers.
        seed: of the k-means.
    """

    kind: Literal["auto", "flat", "ivf"] = "auto"
    exact_below: PositiveInt = 20_000
    lists: PositiveInt | None = None
    probes: PositiveInt | None = None
    recall_target: float = Field(default=0.95, gt=0.0, le=1.0)
    recall_at: PositiveInt = 100
    tuning_queries: PositiveInt = 1000
    vectors: Literal["float32", "bfloat16", "int8"] = "float32"
    k_limit: int = Field(default=10_000, ge=100)
    shards: PositiveInt = 1
    stitched: bool = True
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _is_of_one_index(self) -> Self:
        if not self.stitched and self.shards == 1:
            raise FaultsError([(("stitched",), "expected more than one of indexer.shards beside it, received 1")])
        if self.kind == "flat":
            reason = "a flat index has none; leave it out, or take kind: ivf"
            paths: list[KeyPath] = [(name,) for name in ("lists", "probes") if getattr(self, name) is not None]
            if self.vectors != "float32":
                paths.append(("vectors",))
                reason = "a flat index is exact and keeps float32; leave it out, or take kind: ivf"
            if paths:
                raise FaultsError([(path, reason) for path in paths])
        if self.lists and self.probes and self.probes > self.lists:
            raise FaultsError([(("probes",), f"expected at most the {self.lists} lists, received {self.probes}")])
        return self

    def plan(self, items: int) -> Plan:
        """Return the index for a number of items, at least one.

        Raises:
            UserError: there are more lists than items.
        """
        if self.kind == "flat" or (self.kind == "auto" and items < self.exact_below):
            return Plan("flat")
        if self.lists and self.lists > items:
            raise UserError(
                f"indexer.lists: expected at most the number of items in the catalogue, {items}, received {self.lists}. "
                "Leave it out: it then follows the catalogue."
            )
        lists = self.lists or min(items, round(LISTS_A_ROOT * math.sqrt(items)))
        return Plan("ivf", lists, self.probes and min(lists, self.probes))

    def most_probes(self, lists: int) -> int:
        """Return the maximum number of probes, given the number of lists."""
        return lists if self.kind == "ivf" else math.ceil(LARGEST_SHARE * lists)
