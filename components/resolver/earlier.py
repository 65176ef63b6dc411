"""TFX resolvers of the artifacts that a day continues from; they know the day, so a backfilled one never sees later artifacts."""

from typing import Any

import ml_metadata as mlmd
from tfx.dsl.components.common import resolver

from components import recorded
from components.artifacts import Artifacts

MODEL_KEY = "model"
BLESSING_KEY = "model_blessing"
STATISTICS_KEY = "statistics"
BASE_CATALOGUE_KEY = "base_catalogue"
BASE_COUNTS_KEY = "base_counts"
COUNTS_BEFORE_KEY = "counts_before"


class BlessedBefore(resolver.ResolverStrategy):
    """Resolves the blessed model of the newest day before a day, from the last run of that day; nothing if there is none.

    A model that was rolled back is no longer blessed.

    Args:
        span: the day, in days since 1970-01-01.
        shape: only models of this shape (see `components.trainer.warm_start.shape`); empty for any.
        skipped: the number of newest days with such a model to skip: 1 gives the model before the last blessed one.
    """

    def __init__(self, span: int, shape: str = "", skipped: int = 0) -> None:
        self._span = span
        self._shape = shape
        self._skipped = skipped

    def resolve_artifacts(self, store: mlmd.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Override of TFX's method; gets all artifacts under `model` and `model_blessing`."""
        blessed = {
            blessing.get_int_custom_property(recorded.BLESSED_MODEL): blessing
            for blessing in input_dict[BLESSING_KEY]
            if blessing.get_int_custom_property(recorded.BLESSED) == 1
            and not blessing.get_int_custom_property(recorded.WITHDRAWN)
        }
        models = [
            model
            for model in input_dict[MODEL_KEY]
            if model.id in blessed
            and model.has_custom_property(recorded.SPAN)  # older code wrote no span, nor a model to continue from
            and _span(model) < self._span
            and self._shape in ("", model.get_string_custom_property(recorded.SHAPE))
        ]
        days = sorted({_span(model) for model in models}, reverse=True)
        if len(days) <= self._skipped:
            return {MODEL_KEY: [], BLESSING_KEY: []}
        newest = max((m for m in models if _span(m) == days[self._skipped]), key=lambda model: model.id)
        return {MODEL_KEY: [newest], BLESSING_KEY: [blessed[newest.id]]}


class TrainedBefore(resolver.ResolverStrategy):
    """Resolves the statistics of the newest day before a day that a model was trained on; nothing if there is none.

    A day that validation stopped is no reference for the next one.

    Args:
        span: the day, in days since 1970-01-01.
        after_first_run: leaves out days whose model was trained from scratch: the window of a first run differs, so it cannot be
            compared with a day's.
    """

    def __init__(self, span: int, after_first_run: bool = False) -> None:
        self._span = span
        self._after_first_run = after_first_run

    def resolve_artifacts(self, store: mlmd.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Override of TFX's method; gets all artifacts under `statistics` and `model`."""
        trained = {
            _span(model)
            for model in input_dict[MODEL_KEY]
            if not self._after_first_run or model.get_int_custom_property(recorded.CONTINUES)
        }
        earlier = [s for s in input_dict[STATISTICS_KEY] if s.span < self._span and s.span in trained]
        newest = max(earlier, key=lambda statistics: (statistics.span, statistics.id), default=None)
        return {STATISTICS_KEY: [newest] if newest else [], MODEL_KEY: []}


class CatalogueBefore(resolver.ResolverStrategy):
    """Resolves the catalogue of the newest day before a day, from the last run of that day; nothing if there is none.

    Args:
        span: the day, in days since 1970-01-01.
    """

    def __init__(self, span: int) -> None:
        self._span = span

    def resolve_artifacts(self, store: mlmd.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Override of TFX's method; gets all catalogues under `base_catalogue`."""
        earlier = [examples for examples in input_dict[BASE_CATALOGUE_KEY] if examples.span < self._span]
        newest = max(earlier, key=lambda examples: (examples.span, examples.id), default=None)
        return {BASE_CATALOGUE_KEY: [newest] if newest else []}


class CountedBefore(resolver.ResolverStrategy):
    """Resolves the counts of earlier days: of the newest day before the day, and of the newest before its held-out hours.

    The first are the counts known on the evening before. A day adds to the second, so that no baseline knows held-out interactions;
    they are the same unless more than a day is held out.

    Args:
        span: the day, in days since 1970-01-01.
        held_out_hours: the number of held-out hours at the end of the day.
    """

    def __init__(self, span: int, held_out_hours: int) -> None:
        self._span = span
        self._held_out_days = -(-held_out_hours // 24)

    def resolve_artifacts(self, store: mlmd.MetadataStore, input_dict: Artifacts) -> Artifacts:
        """Override of TFX's method; gets all counts under each of both keys."""
        first = {BASE_COUNTS_KEY: self._span - self._held_out_days + 1, COUNTS_BEFORE_KEY: self._span}
        resolved = {}
        for key, before in first.items():
            earlier = [counts for counts in input_dict[key] if _span(counts) < before]
            newest = max(earlier, key=lambda counts: (_span(counts), counts.id), default=None)
            resolved[key] = [newest] if newest else []
        return resolved


def _span(artifact: Any) -> int:
    return artifact.get_int_custom_property(recorded.SPAN)
