"""The project's own artifact types, and the places of its files in TFX's."""

import os

from tfx import types
from tfx.types import artifact_utils
from tfx.utils import io_utils

from ndr_client.served import QUERY_TOWER

Artifacts = dict[str, list[types.Artifact]]
"""A step's inputs or outputs, as TFX gives them to its executor: a list for each key."""


class Analysis(types.Artifact):
    """Vocabularies and scales; see `components.analysis.files`."""

    TYPE_NAME = "Analysis"


class Counts(types.Artifact):
    """Counts of items, pairs and users through a day; see `components.counts.files`."""

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


class CatalogueChanges(types.Artifact):
    """What a new catalogue changes of an earlier one; see `components.refresh.changes`."""

    TYPE_NAME = "CatalogueChanges"


class QueryTower(types.Artifact):
    """A query tower that was exported anew, a SavedModel in the folder `query_tower`."""

    TYPE_NAME = "QueryTower"


def split_patterns(examples: types.Artifact, split: str | None = None) -> list[str]:
    """Return the patterns of the files of a split, or of all splits; empty if there is no such split."""
    splits = artifact_utils.decode_split_names(examples.split_names)
    return [
        io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], name))
        for name in splits
        if split in (None, name)
    ]


def query_tower_folder(towers: str, query_tower: types.Artifact | None) -> str:
    """Return the folder of the query tower's SavedModel: the artifact's, if there is one, else the one beside the item tower."""
    return os.path.join(query_tower.uri if query_tower else towers, QUERY_TOWER)


def warm_start_folder(model_uri: str) -> str:
    """Return the folder for the next day's training, beside a model's towers: checkpoint, vocabularies, scales, settings."""
    return os.path.join(model_uri, "warm_start")
