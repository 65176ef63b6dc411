"""Prepares ranking: gathers facts, and embeds the catalogue and the items as new."""

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
    """What to rank, and by which models.

    Attributes:
        interactions: patterns of gzipped TFRecords of tf.Examples.
        catalogue: the same for the catalogue, one for each item.
        models: the folder with the towers of `CANDIDATE` and, if there is one, of `BASELINE`.
        counts: the folders of `components.counts.files` with the known counts.
        has_rows: the uri of the model whose vocabularies tell which ids were known before the day; None without one.
        settings: the evaluator's settings.
        spec: the dataset's features.
        window: selects the interactions.
        most: the maximum number to rank; if there are more, whole users are drawn. None for all.
        index: the folder of the candidate's embeddings of the items as served, if it has an index.
        retrievers: the SavedModels that search it, one or one for each shard.
        is_served: whether `catalogue` has the items as served, rather than as known before the day.
        query_tower: embeds the candidate's queries; None for the served one.
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
    retrievers: Sequence[str] = ()
    is_served: bool = True
    query_tower: str | None = None


class Prepared(NamedTuple):
    """The prepared inputs.

    Attributes:
        places: where the inputs lie.
        facts: of the interactions.
        window: selects the interactions, with the share of the users that is drawn.
    """

    places: Places
    facts: Facts
    window: Window


def prepare(task: Task, make_pipeline: MakePipeline, working: str) -> Prepared:
    """Gather the facts that ranking needs, and embed what is not embedded yet.

    Args:
        task: what to rank.
        make_pipeline: makes a Beam pipeline, which is run here.
        working: a temporary folder; the caller removes it.

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
        retrievers=tuple(task.retrievers),
        index=task.index,
    )
    catalogue = list(task.catalogue)
    towers = {name: os.path.join(folder, ITEM_TOWER) for name, folder in task.models.items()}
    most_values = {name: declared.most for name, declared in settings.slices.items() if not declared.edges}
    with make_pipeline() as pipeline:
        _ = pipeline | "Facts" >> GatherFacts(task.interactions, window, most_values, places.facts)
        for name, folder in item_folders.items():
            if folder != task.index:
                _ = pipeline | f"Embed[{name}]" >> EmbedCatalogue(catalogue, towers[name], folder)
    gathered = facts.read(places.facts)
    share = 1.0 if task.most is None else min(1.0, task.most / max(1, gathered.interactions))
    drawn = AsNew(spec, window.span, settings.as_new.share(round(share * gathered.interactions)))
    with make_pipeline() as pipeline:
        _ = pipeline | "EmbedAsNew" >> EmbedCatalogue(catalogue, towers[CANDIDATE], places.as_new, drawn)
    return Prepared(places, gathered, replace(window, share=share))
