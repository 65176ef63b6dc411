"""What has to lie ready before interactions are ranked: the embeddings of the catalogue, and of the items as new."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import apache_beam as beam

from components.evaluator import facts
from components.evaluator.as_new import AsNew
from components.evaluator.catalogue import Places
from components.evaluator.facts import Facts, GatherFacts
from components.evaluator.interactions import Window
from components.evaluator.names import CANDIDATE
from components.evaluator.settings import EvaluatorSettings
from components.indexer.embedding import EmbedCatalogue
from ndr_client.served import ITEM_TOWER, QUERY_TOWER
from schemas.features import FeatureSpec

MakePipeline = Callable[[], beam.Pipeline]


@dataclass(frozen=True)
class Task:
    """What is to be ranked, and by what.

    Attributes:
        interactions: patterns of gzipped TFRecords of tf.Examples.
        catalogue: the same of the catalogue, an item an example.
        models: the folder with the towers of `CANDIDATE` and, where there is one, of `BASELINE`.
        counts: the folders of `components.counts.files` that say what is known.
        has_rows: the uri of the model whose vocabularies say which ids were known before the day; None without one.
        settings: what is measured.
        spec: the dataset's features.
        window: which of the interactions are ranked.
        most: how many of them, at most; of more, whole users are drawn. None for all.
        index: the folder of the candidate's embeddings of the items as they are served, where it has an index; and
        retriever: the SavedModel that searches it.
        is_served: whether the items are those of `catalogue` as they are served, not as they were known before the day.
        query_tower: what embeds the candidate's queries; None is what is served.
    """

    interactions: Sequence[str]
    catalogue: Sequence[str]
    models: Mapping[str, str]
    counts: Sequence[str]
    has_rows: str | None
    settings: EvaluatorSettings
    spec: FeatureSpec
    window: Window
    most: int | None = None
    index: str | None = None
    retriever: str | None = None
    is_served: bool = True
    query_tower: str | None = None


class Prepared(NamedTuple):
    """What lies ready.

    Attributes:
        places: where everything lies.
        facts: what is known of the interactions.
        window: which of them are ranked, with the share of the users that is drawn.
    """

    places: Places
    facts: Facts
    window: Window


def prepare(task: Task, make_pipeline: MakePipeline, working: str) -> Prepared:
    """Gathers what is asked for before anything is ranked, and embeds what is not embedded.

    Args:
        task: what is to be ranked.
        make_pipeline: makes a Beam pipeline, which is run here.
        working: a folder to write to; the caller removes it.

    Raises:
        UserError: a tower cannot be loaded.
    """
    settings, spec, window = task.settings, task.spec, task.window
    item_folders = {name: os.path.join(working, name) for name in task.models}
    if task.index and task.is_served:
        item_folders[CANDIDATE] = task.index
    query_towers = {name: os.path.join(folder, QUERY_TOWER) for name, folder in task.models.items()}
    if task.query_tower:
        query_towers[CANDIDATE] = task.query_tower
    places = Places(
        catalogue=tuple(task.catalogue),
        counts=tuple(task.counts),
        facts=os.path.join(working, "facts.json"),
        item_folders=item_folders,
        query_towers=query_towers,
        as_new=os.path.join(working, "as_new"),
        has_rows=task.has_rows,
        retriever=task.retriever,
        index=task.index,
    )
    catalogue = list(task.catalogue)
    towers = {name: os.path.join(folder, ITEM_TOWER) for name, folder in task.models.items()}
    most_values = {name: each.most for name, each in settings.slices.items() if not each.edges}
    with make_pipeline() as pipeline:
        _ = pipeline | "Facts" >> GatherFacts(task.interactions, window, most_values, places.facts)
        for name, folder in item_folders.items():
            if folder != task.index:
                _ = pipeline | f"Embed[{name}]" >> EmbedCatalogue(catalogue, towers[name], folder)
    found = facts.read(places.facts)
    share = 1.0 if task.most is None else min(1.0, task.most / max(1, found.interactions))
    drawn = AsNew(spec, window.span, settings.as_new.share(round(share * found.interactions)))
    with make_pipeline() as pipeline:
        _ = pipeline | "EmbedAsNew" >> EmbedCatalogue(catalogue, towers[CANDIDATE], places.as_new, drawn)
    return Prepared(places, found, replace(window, share=share))
