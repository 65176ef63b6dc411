"""Artifacts that TFX does not know, and what of the project's lies where in those that it does."""

import os

from tfx import types

SPAN_PROPERTY = "span"
SHAPE_PROPERTY = "shape"
WITHDRAWN_PROPERTY = "withdrawn"  # of a ModelBlessing: 1 where a rollback took the model back
GOES_ON_PROPERTY = "goes_on"  # 1 where a model was trained on from an earlier one, so on data.window_days


class Analysis(types.Artifact):
    """Vocabularies and scales; see `components.analysis.files`."""

    TYPE_NAME = "Analysis"


class Counts(types.Artifact):
    """Counts of items, pairs and users through a day; see `components.counts.files`. Its property `span` is the day."""

    TYPE_NAME = "Counts"


class NextDayJudgement(types.Artifact):
    """How models of earlier days rank a day; see `components.evaluator.next_day`."""

    TYPE_NAME = "NextDayJudgement"


class ItemIndex(types.Artifact):
    """The embeddings of a day's whole catalogue and the index over them; see `components.indexer.files`."""

    TYPE_NAME = "ItemIndex"


class Retriever(types.Artifact):
    """The query tower stitched to the index, a SavedModel in the folder `retriever`."""

    TYPE_NAME = "Retriever"


def warm_start_folder(model_uri: str) -> str:
    """What the next day's training goes on from, beside a model's towers: checkpoint, vocabularies, scales, settings."""
    return os.path.join(model_uri, "warm_start")
