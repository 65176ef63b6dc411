"""The properties of artifacts in ML Metadata: the names and shapes of what steps record beside their files.

Steps write them and the commands read them by these names; nothing heavy is imported. Where the shape is JSON, the property is
text, and `decoded` reads it.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

SPAN = "span"
"""Examples, Model, Counts, NextDayJudgement: the day, in days since 1970-01-01. Of Examples it is TFX's own property."""

# Examples, by the steps of components.example_gen.
ROWS = "rows"
"""JSON: the rows read and dropped; see `components.example_gen.accounting.Accounting.to_json`."""
CONTENT = "content"
"""Text: the digest of the examples."""
FINGERPRINT = "input_fingerprint"
"""Text, by TFX's name: the names, sizes and times of the files that they were made from."""
FILES = "input_files"
"""JSON: the numbers of those files and of their folders, and the first and last; see `components.example_gen.sources.summary`."""
JUDGED_DAY = "judged_day"
"""The first held-out day, in days since 1970-01-01, of a catalogue whose items change from day to day; absent from others."""

# ExampleAnomalies, by the ExampleValidator.
HISTORIES = "histories"
"""JSON: the lengths of histories; see `components.example_validator.lengths.Lengths`."""

# Analysis, by the Analyzer.
TURNOVER = "turnover"
"""JSON: by embedding table, how the day changed its vocabulary; see `components.analysis.vocabulary.Turnover`."""

# Model, by the Trainer.
SHAPE = "shape"
"""Text: models of one shape can continue from each other; see `components.trainer.warm_start.shape`."""
CONTINUES = "goes_on"
"""1 if the model was trained from an earlier one, so on `data.window_days`; else 0."""

# ModelEvaluation, by the Evaluator; NextDayJudgement has METRICS too, InfraBlessing has REFUSED too.
METRICS = "metrics"
"""JSON: by slice, scorer and metric, the value and the ends of its 95 % interval; `components.evaluator.evaluation.in_short`."""
REFUSED = "refused"
"""JSON: a list with a sentence for each missed limit, or for each difference of the served model."""
NOT_JUDGED = "not_judged"
"""JSON: a list of the slices that have limits but no interactions."""
JUDGEMENT = "judgement"
"""NextDayJudgement. JSON: the evaluated models; see `components.next_day.record.Judgement`."""

# ModelBlessing, by the Evaluator; InfraBlessing has BLESSED too. The first two are TFX's own.
BLESSED = "blessed"
"""1 or 0."""
BLESSED_MODEL = "current_model_id"
"""The id of the Model artifact."""
WITHDRAWN = "withdrawn"
"""1 after `ndr push --rollback` withdrew the model; else 0 or absent."""

# ItemIndex, by the Indexer.
INDEX = "index"
"""JSON: the kind of index, its size and its recall."""

# CatalogueChanges, by the comparison of a refresh.
CHANGES = "changes"
"""JSON: the numbers of items that changed; see `components.refresh.changes.Changes`."""

# PushedModel, by the Pusher. The first two are TFX's own.
PUSHED = "pushed"
"""1 or 0."""
VERSION = "pushed_version"
"""Text: the version, if one was pushed."""
PARTS = "parts"
"""JSON: the folder of each pushed component, by its name."""

_EMPTY: Mapping[str, Callable[[], Any]] = {
    REFUSED: list,
    NOT_JUDGED: list,
    **dict.fromkeys((ROWS, FILES, HISTORIES, TURNOVER, METRICS, JUDGEMENT, INDEX, CHANGES, PARTS), dict),
}


def decoded(properties: Mapping[str, Any], name: str) -> Any:
    """Return a property that is JSON, decoded; an empty dictionary or list if the artifact does not have it.

    Args:
        properties: those of one artifact.
        name: REFUSED, NOT_JUDGED and so on.
    """
    return json.loads(properties[name]) if properties.get(name) else _EMPTY[name]()
