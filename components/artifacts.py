"""The project's own artifact types, and the places of its files in TFX's."""

import os

from tfx import types

SPAN_PROPERTY = "span"
SHAPE_PROPERTY = "shape"
WITHDRAWN_PROPERTY = "withdrawn"  # of a ModelBlessing: 1 after the model was rolled back
GOES_ON_PROPERTY = "goes_on"  # 1 if the model was trained from an earlier one, so on data.window_days


class Analysis(types.Artifact):
    """Vocabularies and scales; see `components.analysis.files`."""

    TYPE_NAME = "Analysis"


class Counts(types.Artifact):
    """Counts of items, pairs and users through a day; see `components.counts.files`. Its property `span` is the day."""

    TYPE_NAME = "Counts"


class NextDayJudgement(types.Artifact):
    """The ranking of a day by models of earlier days; see `components.evaluator.next_day`."""

    TYPE_NAME = "NextDayJudgement"


class ItemIndex(types.Artifact):
    """The embeddings of a day's whole catalogue and the index over them; see `components.indexer.files`."""

    TYPE_NAME = "ItemIndex"


class Retriever(types.Artifact):
    """The query tower joined to the index, a SavedModel in the folder `retriever`."""

    TYPE_NAME = "Retriever"


def warm_start_folder(model_uri: str) -> str:
    """Return the folder for the next day's training, beside a model's towers: checkpoint, vocabularies, scales, settings."""
    return os.path.join(model_uri, "warm_start")
