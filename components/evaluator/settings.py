"""Settings of the evaluation: metrics, slices, and limits for a blessing."""

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
from schemas.declaration import Declaration
from schemas.features import EVENT_KIND, FeatureSpec, NumberFeature, TextFeature, VectorFeature
from schemas.located_yaml import FaultsError, KeyPath


class SliceSettings(Declaration):
    """How a declared feature is sliced.

    Attributes:
        edges: of a number's slices, ascending: `[25, 50]` gives `<25`, `25-50` (25 but not 50) and `>=50`. Empty for ids, where
            each id is a slice.
        most: the number of slices of ids, the most frequent in held-out interactions; all others form `(other)`.
    """

    edges: tuple[FiniteFloat, ...] = ()
    most: PositiveInt = 20

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise FaultsError([(("edges",), f"expected ascending numbers, received {list(self.edges)}")])
        return self


class AsNewSettings(Declaration):
    """The share of the catalogue that is ranked as if it had just arrived.

    An item is drawn by a digest of its id and the day. The share grows, within its bounds, until about `interactions` of the ranked
    interactions have drawn items.

    Attributes:
        interactions: the wanted number of interactions with such items.
        least: the minimum share.
        most: the maximum share; items ranked as new compete with each other, and on a normal day there are few of them.
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
        """Return the share of the catalogue to draw, given the number of ranked interactions."""
        return min(self.most, max(self.least, self.interactions / max(1, interactions)))


class Limit(Declaration):
    """What a metric must reach over all held-out interactions, or on a slice of them.

    The estimate is compared, not its interval, except with `beyond_noise`. A limit on a slice without interactions is not checked:
    the run says so, and the model may still be blessed. Change limits are not checked without a last blessed
    model.

    Attributes:
        metric: a name from `components.evaluator.names`, such as `recall_at_50`.
        slice: the slice, by name and value, such as `{item_popularity: tail}`; several must all apply. Empty for all interactions.
            `{item_age: as_new}` applies to recall@K or MRR of the items that are ranked as new.
        at_least: the minimum.
        at_most: the maximum.
        fall_at_most: the allowed decrease from the last blessed model on the same interactions and catalogue.
        rise_at_most: the allowed increase.
        beyond_noise: for a change: whether the limit is missed only if the whole 95 % interval is beyond it. A change without an
            interval, because all interactions are of one group of users, misses nothing.
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
        """Whether it applies to items as new, which is a scorer, not a slice of the interactions."""
        return self.slice.get(ITEM_AGE) == AS_NEW

    @property
    def changes(self) -> bool:
        """Whether it limits the change from the last blessed model."""
        return self.fall_at_most is not None or self.rise_at_most is not None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.at_least is None and self.at_most is None and not self.changes:
            raise FaultsError([((), "expected at_least, at_most, fall_at_most or rise_at_most; received none of them")])
        if self.fall_at_most is not None and self.rise_at_most is not None:
            raise FaultsError([((), "give fall_at_most and rise_at_most in separate limits")])
        if self.beyond_noise and not self.changes:
            reason = "expected fall_at_most or rise_at_most, as beyond_noise is about a change; received neither"
            raise FaultsError([(("beyond_noise",), reason)])
        return self


class EvaluatorSettings(Declaration):
    """Metrics, slices and limits.

    Attributes:
        recall_at: the K of recall@K and NDCG@K.
        retrieved_at: the number of retrieved items for coverage, popularity, novelty, and the
            index's recall.
        exclude_history: ranks each held-out item among the catalogue without the items in the query's history (true), or without
            all items that the user is known to have had (all): for services that do not show seen items. The names of the
            metrics include the candidate set.
        neighbours: the number of items that the co-occurrence baseline keeps for each item.
        slices: declared features by which metrics are sliced, besides those of `components.evaluator.names` and, if
            interactions have kinds of events, `event_kind`.
        beat: the baselines to beat; the strongest on a slice is the one with the greatest value of the metric there.
        below_popularity: whether to refuse or bless a model whose recall@K is below that of the strongest baseline of `beat` for
            any K of `recall_at`.
        below_last_blessed: whether to refuse or bless a model whose recall@K is significantly below that of the last blessed model
            on the same interactions (the whole 95 % interval of the difference is below 0), for any K of `recall_at`.
        as_new: the items to rank as if they had just arrived.
        next_day_interactions: about the number of the next day's interactions that evaluate a model; if the day has more, whole
            users are drawn by a digest.
        sampled_interactions: about the number of held-out interactions on which similar items, version skew and the index's
            recall are measured, each of which needs another search of the catalogue; if there are more, whole users are drawn by a
            digest.
        filtered_at: the shares of items that pass the filters with which the recall of filtered search is measured, if
            `features.yaml` declares filters; by default those of `components.evaluator.names.FILTERED_AT`.
        minimum_index_recall: the share of the exact top `retrieved_at` that the index must find for a blessing.
        limits: further limits.
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
    sampled_interactions: PositiveInt = 20_000

    def of(self, spec: FeatureSpec) -> "EvaluatorSettings":
        """Add a slice for each kind of event if there are kinds, and filtered search if there are filters."""
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
        """The statistics of each scorer."""
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
            if limit.metric in statistics.searched and limit.changes:
                reason = "the last blessed model has no index of today's catalogue to compare with; use at_least"
                faults.append(((*place, "metric"), reason))
            if limit.beyond_noise and limit.metric not in (*statistics.by_interaction, *statistics.by_query):
                reason = f"the change of {limit.metric} has no interval; expected a limit without beyond_noise"
                faults.append(((*place, "beyond_noise"), reason))
            if limit.of_new_items and limit.changes:
                reason = "the last blessed model does not rank items as new; use at_least or at_most"
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
        """List what contradicts a dataset's features: the key path below `evaluator`, and the reason."""
        faults: list[tuple[KeyPath, str]] = []
        event = spec.interactions.event
        if not spec.catalogue.filters:
            reason = "features.yaml declares no `catalogue.filters`, so no filtered search is measured"
            faults += [(("filtered_at",), reason)] if self.filtered_at else []
            filtered = replace(self.statistics, filtered_at=self._filtered_at).filtered_recalls
            faults += [
                (("limits", n, "metric"), reason) for n, limit in enumerate(self.limits) if limit.metric in filtered
            ]
        for number, limit in enumerate(self.limits):
            kind = limit.slice.get(EVENT_KIND)
            if kind is not None and (event is None or not event.weights.get(kind)):
                weighed = [event_name for event_name, weight in event.weights.items() if weight] if event else []
                expected = (
                    f"expected a kind of event with a weight above 0 ({', '.join(weighed) or 'none is declared'})"
                )
                faults.append((("limits", number, "slice", EVENT_KIND), f"{expected}, received {kind!r}"))
        for name, declared in self.slices.items():
            feature = spec.features.get(name)
            if name == EVENT_KIND and event and not declared.edges:
                continue
            if feature is None:
                faults.append((("slices", name), f"no such feature (there: {', '.join(spec.features)})"))
            elif isinstance(feature, VectorFeature | TextFeature):
                faults.append((("slices", name), f"{name} is a {feature.kind}; slices are of ids or numbers"))
            elif isinstance(feature, NumberFeature) != bool(declared.edges):
                need = (
                    "a number: give its edges" if isinstance(feature, NumberFeature) else "no number: it has no edges"
                )
                faults.append((("slices", name), f"{name} is {need}"))
        if spec.history_feature is None:
            if self.exclude_history is True:
                faults.append((("exclude_history",), "the query has no feature of kind history"))
            if COOCCURRENCE in self.beat:
                faults.append((("beat",), "co-occurrence needs a feature of kind history in the query"))
            faults += [
                (("limits", number, "metric"), "co-occurrence needs a feature of kind history in the query")
                for number, limit in enumerate(self.limits)
                if limit.metric.endswith(gain_name("", COOCCURRENCE))
            ]
        return faults
