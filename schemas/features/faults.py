"""What contradicts in a specification whose parts are each valid."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from schemas.declaration import Fault
from schemas.features.columns import FilterColumn
from schemas.features.kinds import (
    Embedded,
    Feature,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    LookedUpFeature,
    Numeric,
    TextFeature,
)
from schemas.features.names import (
    AGES_SUFFIX,
    EVENT_KIND,
    FINGERPRINT_SUFFIX,
    NAME_EXPECTED,
    RESERVED,
    WEIGHTS_SUFFIX,
    is_name,
)

if TYPE_CHECKING:  # a specification lists its faults when it is made
    from schemas.features.specification import FeatureSpec


def faults(spec: "FeatureSpec") -> Iterator[Fault]:
    """List what contradicts: a key path and a reason each."""
    unseen = spec.unseen_histories
    used = {f.table for name, f in spec.features.items() if isinstance(f, Embedded) and name not in unseen}
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
    if not {*spec.query} - {*unseen}:
        yield ("query",), "expected a feature that the tower sees, found histories with `encoder: none` alone"
    if spec.repeating:
        reason = "needs negatives, to learn whether items are taken again; leave out one of the two"
        for name in spec.not_negatives:
            yield ("query", name, "negatives"), f"`repeats: true` ({', '.join(spec.repeating)}) {reason}"
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


def _feature_faults(spec: "FeatureSpec", tower: str, name: str, feature: Feature | LookedUpFeature) -> Iterator[str]:
    weighted = {
        n: f
        for n, f in {**spec.query, **spec.item}.items()
        if isinstance(f, IdsFeature | TextFeature | LookedUpFeature)
    }
    weights = [weighted_name + WEIGHTS_SUFFIX for weighted_name in weighted]
    fingerprints = [fingerprinted + FINGERPRINT_SUFFIX for fingerprinted in spec.fingerprinted]
    ages = [aged + AGES_SUFFIX for aged in spec.aged_histories]
    of_events = [EVENT_KIND] if spec.has_events else []
    if name in (*RESERVED, *weights, *fingerprints, *ages, *of_events):
        yield "this name is taken by the pipeline itself; choose another, with `column` for the data's name"
    if not is_name(name):
        yield f"{NAME_EXPECTED}; `column` can give the data's name"
    if isinstance(feature, LookedUpFeature):
        yield from _looked_up_faults(spec, feature)
    if isinstance(feature, Embedded) and feature.table not in spec.tables:
        tables = ", ".join(sorted(spec.tables)) or "none"
        yield f"the table {feature.table!r} is not declared under `tables` (there: {tables})"
    if not getattr(feature, "changes", True) and tower == "query" and name not in spec.user_features:
        yield "`changes: false` is only for features of the catalogue and the users' table; leave it out"
    if isinstance(feature, TextFeature):
        if not (feature.words or feature.ngrams):
            yield "expected `words`, `ngrams` or both, found neither"
        if feature.table in spec.tables and spec.tables[feature.table].vocabulary:
            yield f"words and n-grams are hashed; name a table without `vocabulary` instead of {feature.table!r}"
    if isinstance(feature, HistoryFeature) and tower == "item":
        yield "a history belongs to the query; move it there"
    if name in spec.unseen_histories and name not in spec.fingerprinted:
        yield "nothing uses this history: with `encoder: none` expected `repeats: true`, `negatives: false` or looked-up features"
    if isinstance(feature, HistoryFeature) and feature.events:
        yield from _event_faults(spec, feature)
    if isinstance(feature, IdFeature) and feature.derive:
        if feature.column:
            yield "give either `column` or `derive`, not both"
        if tower == "item":
            yield f"`derive: {feature.derive}` belongs to the query; move the feature there"
        if feature.derive == "last_in_history" and spec.history is None:
            yield "`derive: last_in_history` needs a feature of kind history without a `column`"


def _filter_faults(spec: "FeatureSpec", name: str, column: FilterColumn) -> Iterator[str]:
    if not is_name(name):
        yield f"{NAME_EXPECTED}; `column` can give the data's name"
    weights = [
        weighted_name + WEIGHTS_SUFFIX
        for weighted_name, f in spec.item.items()
        if isinstance(f, IdsFeature | TextFeature)
    ]
    if name in (*RESERVED, *weights):
        yield "this name is taken by the pipeline itself; choose another, with `column` for the data's name"
    feature = spec.item.get(name)
    if feature is None:
        return
    declared = feature.column or name, getattr(feature, "separator", None) or column.separator
    if feature.kind != column.kind or declared != (column.column or name, column.separator):
        written = f"kind: {feature.kind}" + (f", column: {feature.column}" if feature.column else "")
        written += f", separator: {feature.separator!r}" if isinstance(feature, IdsFeature) else ""
        yield f"the item's feature of this name is {{{written}}}; give the filter the same declaration, or another name"


def _event_faults(spec: "FeatureSpec", feature: HistoryFeature) -> Iterator[str]:
    if feature.column:
        yield "give either `column` or `events`, not both: a logged history holds what was logged"
    event = spec.interactions.event
    if event is None:
        yield "`events` needs `interactions.event`, which names the column of the kind of event"
        return
    for kind in feature.events:
        if kind not in event.weights:
            kinds = ", ".join(event.weights)
            yield f"events: expected kinds with a weight in `interactions.event` ({kinds}), received {kind!r}"
        elif event.weights[kind] == 0.0 and not event.zero_in_history:
            yield f"events: {kind!r} has weight 0, so it is in no history; set `zero_in_history: true` beside the weights"


def _looked_up_faults(spec: "FeatureSpec", feature: LookedUpFeature) -> Iterator[str]:
    of_items = [
        name
        for name, f in spec.query.items()
        if isinstance(f, HistoryFeature) or (isinstance(f, IdFeature) and f.derive in (None, "last_in_history"))
    ]
    if feature.of not in of_items:
        choices = ", ".join(of_items) or "none"
        yield f"of: expected a feature of the query whose ids are items, of kind id or history ({choices}), received {feature.of!r}"
    if feature.feature not in spec.item:
        yield f"feature: expected a feature of the item ({', '.join(spec.item)}), received {feature.feature!r}"
