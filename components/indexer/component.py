"""The step that embeds the whole catalogue of the day and builds the index over it, and the retriever that searches it."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components.artifacts import CatalogueChanges, ItemIndex, QueryTower, Retriever, query_tower_folder
from components.example_gen.interactions import TRAIN_SPLIT
from components.example_gen.split_names import CATALOGUE_SPLIT
from components.indexer import faiss_index, files, filter_columns
from components.indexer.embedding import EmbedCatalogue, EmbedSomeQueries
from components.indexer.faiss_index import FaissIndex
from components.indexer.retriever import export_retriever
from components.indexer.search import ExactSearch, ListSearch
from components.indexer.settings import IndexerSettings, Plan
from components.indexer.tuning import tune
from components.progress import progress
from components.refresh.changes import changed_pattern, read_gone
from ndr_client.served import ITEM_TOWER, QUERY_TOWER
from schemas.features import FilterColumn

FILTERS = TypeAdapter(dict[str, FilterColumn])
INDEX_PROPERTY = "index"
# For more than so many times the items that the lists are tuned for, a query is compared with all of them.
DEEPEST = 5


class IndexerSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the Indexer."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "filters": component_spec.ExecutionParameter(type=str, optional=True),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        QUERY_TOWER: component_spec.ChannelParameter(type=QueryTower, optional=True),
        "base_index": component_spec.ChannelParameter(type=ItemIndex, optional=True),
        "changes": component_spec.ChannelParameter(type=CatalogueChanges, optional=True),
    }
    OUTPUTS = {
        "index": component_spec.ChannelParameter(type=ItemIndex),
        "retriever": component_spec.ChannelParameter(type=Retriever),
    }


class IndexerExecutor(base_beam_executor.BaseBeamExecutor):
    """Embeds by Beam, then builds in one process, which holds all embeddings."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Build the index and the retriever; TFX calls this.

        Raises:
            UserError: a tower cannot be loaded, the embeddings are not finite, or there are more lists than items.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = IndexerSettings.model_validate_json(exec_properties["settings"])
        artifact = artifact_utils.get_single_instance(output_dict["index"])
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))
        query_tower = query_tower_folder(model, input_dict)
        catalogue = artifact_utils.get_split_uris(input_dict["catalogue"], CATALOGUE_SPLIT)
        patterns = [io_utils.all_files_pattern(uri) for uri in catalogue]
        if input_dict.get("base_index"):
            self._renew(input_dict, os.path.join(model, ITEM_TOWER), artifact.uri)
        else:
            with self._make_beam_pipeline() as pipeline:
                _ = pipeline | EmbedCatalogue(patterns, os.path.join(model, ITEM_TOWER), artifact.uri)
        items = files.read(artifact.uri)
        filters = FILTERS.validate_json(exec_properties.get("filters") or "{}")
        columns = filter_columns.read(patterns, filters, items.ids) if filters else None
        plan = settings.plan(len(items.ids))
        progress(f"{len(items.ids):,} items embedded, builds the index ({plan.kind})", 0.5)
        index = faiss_index.build(items.embeddings, plan, settings.seed)
        search, recall = _search(items.embeddings, index, plan, settings), None
        if isinstance(search, ListSearch) and not plan.probes:
            queries = self._some_queries(input_dict, settings.tuning_queries, query_tower, artifact.uri)
            recall = _tune(search, items.embeddings, queries, settings)
            plan = replace(plan, probes=search.probes)
            index.look_at(search.probes)
        if recall is not None and recall < settings.recall_target and settings.kind == "auto":
            progress(f"{plan.probes} of {plan.lists} lists find {recall:.3f}: exact search instead", 0.8)
            plan, recall = Plan("flat"), None
            index = faiss_index.build(items.embeddings, plan, settings.seed)
            search = _search(items.embeddings, index, plan, settings)
        index.write(artifact.uri)
        files.write_ids(artifact.uri, items.ids, columns)
        progress("builds the retriever", 0.9)
        retriever = artifact_utils.get_single_uri(output_dict["retriever"])
        export_retriever(query_tower, search, items.ids, retriever, columns, settings.k_limit)
        description = files.Description(
            items=len(items.ids),
            width=items.embeddings.shape[1],
            recall=recall,
            settings=settings.model_dump(),
            **asdict(plan),
        )
        files.write_description(artifact.uri, description)
        shown = {name: value for name, value in asdict(description).items() if name not in ("width", "settings")}
        artifact.set_string_custom_property(INDEX_PROPERTY, json.dumps(shown, sort_keys=True))

    def _renew(self, input_dict: dict[str, list[types.Artifact]], tower: str, folder: str) -> None:
        """Write the embeddings of a changed catalogue; only new and changed items are embedded."""
        base, changes = (artifact_utils.get_single_uri(input_dict[key]) for key in ("base_index", "changes"))
        embedded = os.path.join(folder, "changed")
        with self._make_beam_pipeline() as pipeline:
            _ = pipeline | EmbedCatalogue([changed_pattern(changes)], tower, embedded)
        files.write_renewed(folder, files.read(base), read_gone(changes), files.read(embedded))
        fileio.rmtree(embedded)

    def _some_queries(
        self, input_dict: dict[str, list[types.Artifact]], count: int, query_tower: str, folder: str
    ) -> NDArray[np.float32]:
        """Return [queries, width] embeddings of queries of the training split."""
        path = os.path.join(folder, "queries.npy")
        training = artifact_utils.get_split_uris(input_dict["examples"], TRAIN_SPLIT)
        with self._make_beam_pipeline() as pipeline:
            patterns = [io_utils.all_files_pattern(uri) for uri in training]
            _ = pipeline | EmbedSomeQueries(patterns, count, query_tower, path)
        with fileio.open(path, "rb") as file:
            queries: NDArray[np.float32] = np.load(io.BytesIO(file.read()))
        fileio.remove(path)
        return queries


def _search(
    embeddings: NDArray[np.float32], index: FaissIndex, plan: Plan, settings: IndexerSettings
) -> ExactSearch | ListSearch:
    """Return the search of a plan; a plan without probes gives one that probes the nearest list."""
    lists = index.lists
    if lists is None:
        return ExactSearch(embeddings)
    return ListSearch(embeddings, lists, plan.probes or 1, DEEPEST * settings.recall_at, settings.vectors)


def _tune(
    search: ListSearch, embeddings: NDArray[np.float32], queries: NDArray[np.float32], settings: IndexerSettings
) -> float:
    k, target, lists = settings.recall_at, settings.recall_target, search.bounds.shape[1]
    progress(f"tunes to a recall@{k} of {target:g}", 0.7)
    found = tune(search, embeddings, queries, k, target, settings.most_probes(lists))
    progress(f"{search.probes} of {lists} lists find {found:.3f} of the exact first {k}", 0.8)
    return found


class Indexer(base_beam_component.BaseBeamComponent):
    """The index of a day, and the retriever over it.

    Args:
        model: the Trainer's model, with both towers.
        catalogue: the catalogue of the day, split `catalogue`.
        examples: interactions; queries of the split `train` say how many lists must be looked at.
        settings: what is built.
        filters: the catalogue's columns that requests may ask for.
        query_tower: of a refresh that has one of its own; None where the model's is served.
        base_index: of a refresh, the index of the version that is refreshed, with the embeddings of the same item tower.
        changes: of a refresh, what its catalogue changes of that version's.

    Output `index`: see `components.indexer.files`; its property `index` says, as JSON, `items`, `kind`, `lists`, `probes` and
    `recall`. Output `retriever`: see `components.indexer.retriever`.
    """

    SPEC_CLASS = IndexerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(IndexerExecutor)

    def __init__(
        self,
        model: types.BaseChannel,
        catalogue: types.BaseChannel,
        examples: types.BaseChannel,
        settings: IndexerSettings,
        filters: Mapping[str, FilterColumn],
        query_tower: types.BaseChannel | None = None,
        base_index: types.BaseChannel | None = None,
        changes: types.BaseChannel | None = None,
    ) -> None:
        super().__init__(
            IndexerSpec(
                model=model,
                catalogue=catalogue,
                examples=examples,
                query_tower=query_tower,
                base_index=base_index,
                changes=changes,
                settings=settings.model_dump_json(),
                filters=FILTERS.dump_json(dict(filters)).decode(),
                index=types.Channel(type=ItemIndex),
                retriever=types.Channel(type=Retriever),
            )
        )
