"""What is measured, on which slices, and what a model must reach to be blessed."""

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, NonNegativeFloat, PositiveInt, model_validator

from components.evaluator import names
from components.evaluator.names import (
    AS_NEW,
    BASELINES,
    COOCCURRENCE,
    FILTERED_AT,
    ITEM_AGE,
    STRONGEST,
    Statistics,
    gain_name,
)
from schemas.features import EVENT_KIND, Declaration, FeatureSpec, NumberFeature, TextFeature, VectorFeature
from schemas.located_yaml import FaultsError, KeyPath


class SliceSettings(Declaration):
    """How a declared feature makes slices.

    Attributes:
        edges: of a number's slices, ascending: `[25, 50]` gives `<25`, `25-50` (25 but not 50) and `>=50`. None for ids, each of
            which is a slice.
        most: the slices of the ids that most held-out interactions have; all others are together in `(other)`.
    """

    edges: tuple[FiniteFloat, ...] = ()
    most: PositiveInt = 20

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise FaultsError([(("edges",), f"expected ascending numbers, received {list(self.edges)}")])
        return self


class AsNewSettings(Declaration):
    """Which share of the catalogue is ranked as if it had just arrived.

    An item is drawn by a digest of its id and the day. The share grows until about `interactions` of the ranked interactions are
    with drawn items, within its bounds.

    Attributes:
        interactions: how many interactions with such items are wanted.
        least: the smallest share.
        most: the greatest; items that are all ranked as new compete with each other, as they would not on a day like any other.
    """

    interactions: PositiveInt = 1000
    least: float = Field(default=0.02, ge=0.0, le=1.0)
    most: float = Field(default=0.2, ge=0.0, le=1.0)

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.least > self.most:
            raise FaultsError([(("least",), f"expected at most `most`, {self.most}; received {self.least}")])
        return self

    def share(self, interactions: int) -> float:
        """The share of the catalogue to draw where so many interactions are ranked."""
        return min(self.most, max(self.least, self.interactions / max(1, interactions)))


class Limit(Declaration):
    """What a metric must reach over all held-out interactions, or on a slice of them.

    It is judged on the estimate, not on its interval, unless it says `beyond_noise`. Where no interaction falls into the slice,
    there is nothing to judge: that is said with the run, and does not keep a model from being blessed. Limits of change are not
    looked at where there is no last blessed model.

    Attributes:
        metric: a name that `components.evaluator.names` lists, such as `recall_at_50`.
        slice: which slice, by name and value, such as `{item_popularity: tail}`; several must all hold. None for all interactions.
            `{item_age: as_new}` holds recall@K or MRR of the items that are ranked as new to it.
        at_least: the floor.
        at_most: the ceiling.
        fall_at_most: by how much it may be below that of the last blessed model on the same interactions and catalogue.
        rise_at_most: by how much it may be above.
        beyond_noise: of a change: whether only the whole 95 % interval beyond the limit misses it. A change of which there is no
            interval, as the interactions are of a single group of users, misses nothing.
    """

    metric: str
    slice: dict[str, str] = {}
    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None
    fall_at_most: NonNegativeFloat | None = None
    rise_at_most: NonNegativeFloat | None = None
    beyond_noise: bool = False

    @property
    def of_new_items(self) -> bool:
        """Whether it is on items as new, which is a scorer, not a slice of the interactions."""
        return self.slice.get(ITEM_AGE) == AS_NEW

    @property
    def changes(self) -> bool:
        """Whether it limits the distance from the last blessed model."""
        return self.fall_at_most is not None or self.rise_at_most is not None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.at_least is None and self.at_most is None and not self.changes:
            raise FaultsError([((), "expected at_least, at_most, fall_at_most or rise_at_most; received none of them")])
        if self.fall_at_most is not None and self.rise_at_most is not None:
            raise FaultsError([((), "give fall_at_most and rise_at_most in a limit each")])
        if self.beyond_noise and not self.changes:
            reason = "expected fall_at_most or rise_at_most, as it is of a change; received neither"
            raise FaultsError([(("beyond_noise",), reason)])
        return self


class EvaluatorSettings(Declaration):
    """Metrics, slices and limits.

    Attributes:
        recall_at: the K of recall@K and NDCG@K.
        retrieved_at: how many retrieved items are looked at for the catalogue's coverage, their popularity and novelty, and the
            index's recall.
        exclude_history: ranks each held-out item among the catalogue without the items in the query's history (true), or without
            everything that the user is known to have had (all): for services that do not show what was seen. The names of the
            metrics say which of the candidate sets was ranked.
        neighbours: how many items the co-occurrence baseline keeps for each item.
        slices: declared features by which metrics are sliced, besides those of `components.evaluator.names` and, where the
            interactions have kinds of events, `event_kind`.
        beat: the baselines to beat; the strongest of them on a slice is the one with the greatest value of the metric there.
        below_popularity: what becomes of a model whose recall@K is below that of the strongest baseline of `beat` for any K of
            `recall_at`.
        below_last_blessed: what becomes of a model whose recall@K on the same interactions is below that of the last blessed model,
            and the whole 95 % interval of the difference with it, for any K of `recall_at`: training on must make no model worse.
        as_new: which items are ranked as if they had just arrived.
        next_day_interactions: by about how many interactions of the next day a model is judged; of a day with more, whole users are
            drawn by a digest.
        filtered_at: which shares of the items the filters let through with which the recall of filtered search is measured, where
            `features.yaml` declares filters; by default those of `components.evaluator.names.FILTERED_AT`.
        minimum_index_recall: the share of the exact top `retrieved_at` that the index must find; below, the model is not blessed.
        limits: what else must be reached.
    """

    recall_at: tuple[PositiveInt, ...] = Field(default=(10, 50, 100, 300), min_length=1)
    retrieved_at: PositiveInt = 50
    exclude_history: bool | Literal["all"] = False
    neighbours: PositiveInt = 200
    slices: dict[str, SliceSettings] = {}
    beat: tuple[Literal["popularity", "recent_popularity", "taken_before", "cooccurrence"], ...] = Field(
        default=("popularity", "recent_popularity"), min_length=1
    )
    below_popularity: Literal["refuse", "bless"] = "refuse"
    below_last_blessed: Literal["refuse", "bless"] = "refuse"
    filtered_at: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] | None = None
    minimum_index_recall: float = Field(default=0.9, ge=0.0, le=1.0)
    limits: tuple[Limit, ...] = ()
    as_new: AsNewSettings = AsNewSettings()
    next_day_interactions: PositiveInt = 200_000

    def of(self, spec: FeatureSpec) -> "EvaluatorSettings":
        """These, with a slice for each kind of event where there are kinds, and filtered search where there are filters."""
        update: dict[str, Any] = {"filtered_at": self._filtered_at if spec.catalogue.filters else ()}
        if spec.interactions.event is not None:
            of_events = self.slices.get(EVENT_KIND, SliceSettings(most=len(spec.interactions.event.weights)))
            update["slices"] = {**self.slices, EVENT_KIND: of_events}
        return self.model_copy(update=update)

    @property
    def _filtered_at(self) -> tuple[float, ...]:
        return FILTERED_AT if self.filtered_at is None else self.filtered_at

    @property
    def statistics(self) -> Statistics:
        """What is measured of each scorer."""
        return Statistics(self.recall_at, self.retrieved_at, self.exclude_history, self.filtered_at or ())

    @model_validator(mode="after")
    def _limits_what_is_measured(self) -> Self:
        statistics = replace(self.statistics, filtered_at=self._filtered_at)
        gains = [gain_name(name, over) for name in statistics.recalls for over in (*BASELINES, STRONGEST)]
        of_all, of_new_items = [*statistics.names, *gains], statistics.by_interaction
        known = {**names.SLICES, EVENT_KIND: None, **dict.fromkeys(self.slices)}
        faults: list[tuple[KeyPath, str]] = []
        for number, limit in enumerate(self.limits):
            place: KeyPath = ("limits", number)
            measured = of_new_items if limit.of_new_items else of_all
            if limit.metric not in measured:
                reason = f"expected one of {', '.join(measured)}; received {limit.metric!r}"
                faults.append(((*place, "metric"), reason))
            if limit.metric in (statistics.index_recall, *statistics.filtered_recalls) and limit.changes:
                reason = "the last blessed model has no index of today's catalogue to compare with; give at_least"
                faults.append(((*place, "metric"), reason))
            if limit.beyond_noise and limit.metric not in (*statistics.by_interaction, *statistics.by_query):
                reason = f"the change of {limit.metric} has no interval; expected a limit without beyond_noise"
                faults.append(((*place, "beyond_noise"), reason))
            if limit.of_new_items and limit.changes:
                reason = "the last blessed model does not rank items as new; give at_least or at_most"
                faults.append(((*place, "slice", ITEM_AGE), reason))
            for name, value in limit.slice.items():
                if limit.of_new_items and name == ITEM_AGE:
                    continue
                if name not in known:
                    reason = f"there is no such slice (there: {', '.join(known)}); declare it under evaluator.slices"
                    faults.append(((*place, "slice", name), reason))
                elif (values := known[name]) and value not in values:
                    values = (*values, AS_NEW) if name == ITEM_AGE else values
                    reason = f"expected one of {', '.join(values)}; received {value!r}"
                    faults.append(((*place, "slice", name), reason))
        faults += [
            (("slices", name), "the pipeline's own slices have this name")
            for name in self.slices
            if name in names.SLICES
        ]
        if faults:
            raise FaultsError(faults)
        return self

    def faults(self, spec: FeatureSpec) -> list[tuple[KeyPath, str]]:
        """What does not fit a dataset's features: the key path below `evaluator`, and the reason."""
        found: list[tuple[KeyPath, str]] = []
        event = spec.interactions.event
        if not spec.catalogue.filters:
            reason = "features.yaml declares no `catalogue.filters`, so no filtered search is measured"
            found += [(("filtered_at",), reason)] if self.filtered_at else []
            filtered = replace(self.statistics, filtered_at=self._filtered_at).filtered_recalls
            found += [
                (("limits", n, "metric"), reason) for n, each in enumerate(self.limits) if each.metric in filtered
            ]
        for number, limit in enumerate(self.limits):
            kind = limit.slice.get(EVENT_KIND)
            if kind is not None and (event is None or not event.weights.get(kind)):
                weighed = [each for each, weight in event.weights.items() if weight] if event else []
                expected = (
                    f"expected a kind of event that weighs something ({', '.join(weighed) or 'none is declared'})"
                )
                found.append((("limits", number, "slice", EVENT_KIND), f"{expected}, received {kind!r}"))
        for name, each in self.slices.items():
            feature = spec.features.get(name)
            if name == EVENT_KIND and event and not each.edges:
                continue
            if feature is None:
                found.append((("slices", name), f"no such feature (there: {', '.join(spec.features)})"))
            elif isinstance(feature, VectorFeature | TextFeature):
                found.append((("slices", name), f"{name} is a {feature.kind}; slices are of ids or numbers"))
            elif isinstance(feature, NumberFeature) != bool(each.edges):
                need = (
                    "a number: give its edges" if isinstance(feature, NumberFeature) else "no number: it has no edges"
                )
                found.append((("slices", name), f"{name} is {need}"))
        if spec.history_feature is None:
            if self.exclude_history is True:
                found.append((("exclude_history",), "the query has no feature of kind history"))
            if COOCCURRENCE in self.beat:
                found.append((("beat",), "co-occurrence needs a feature of kind history in the query"))
            found += [
                (("limits", number, "metric"), "co-occurrence needs a feature of kind history in the query")
                for number, limit in enumerate(self.limits)
                if limit.metric.endswith(gain_name("", COOCCURRENCE))
            ]
        return found
