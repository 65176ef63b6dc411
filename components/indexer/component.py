"""The step that embeds the whole catalogue of the day and builds the index over it, and the retriever that searches it."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import recorded
from components.artifacts import CatalogueChanges, ItemIndex, QueryTower, Retriever, query_tower_folder
from components.example_gen.split_names import CATALOGUE_SPLIT, TRAIN_SPLIT
from components.indexer import files
from components.indexer.building import Building, build, read_queries, stitch
from components.indexer.embedding import EmbedCatalogue, EmbedSomeQueries
from components.indexer.settings import IndexerSettings
from components.indexer.shards import WHOLE, shards_of
from components.progress import progress
from components.refresh.changes import changed_pattern, read_gone
from ndr_client.served import ITEM_TOWER, QUERY_TOWER
from schemas.errors import UserError
from schemas.features import FilterColumn

FILTERS = TypeAdapter(dict[str, FilterColumn])


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
    """Embeds by Beam, then builds in one process, which holds all embeddings, or each shard of them by Beam."""

    def Do(
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
        catalogue = artifact_utils.get_split_uris(input_dict["catalogue"], CATALOGUE_SPLIT)
        building = Building(
            catalogue=[io_utils.all_files_pattern(uri) for uri in catalogue],
            filters=FILTERS.validate_json(exec_properties.get("filters") or "{}"),
            settings=settings,
            query_tower=query_tower_folder(model, next(iter(input_dict.get(QUERY_TOWER) or []), None)),
            index=artifact.uri,
            retriever=artifact_utils.get_single_uri(output_dict["retriever"]),
        )
        item_tower = os.path.join(model, ITEM_TOWER)
        if input_dict.get("base_index"):
            self._renew(input_dict, item_tower, artifact.uri, settings.shards)
        else:
            with self._make_beam_pipeline() as pipeline:
                _ = pipeline | EmbedCatalogue(building.catalogue, item_tower, artifact.uri, shards=settings.shards)
        if settings.shards == 1:
            description = build(building, lambda: self._some_queries(input_dict, building), WHOLE)
        else:
            description = self._build_shards(input_dict, building)
        shown = {name: value for name, value in asdict(description).items() if name not in ("width", "settings")}
        artifact.set_string_custom_property(recorded.INDEX, json.dumps(shown, sort_keys=True))

    def _build_shards(self, input_dict: dict[str, list[types.Artifact]], building: Building) -> files.Description:
        """Build the shards by Beam, each on one of the workers."""
        settings, shards = building.settings, shards_of(building.settings.shards)
        queries = os.path.join(building.index, "queries.npy")
        if settings.kind != "flat":
            self._embed_queries(input_dict, building, queries)
        progress(f"builds {settings.shards} shards of the index", 0.5)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(shards)
                | "Spread" >> beam.Reshuffle()
                | "Build" >> beam.Map(lambda shard: build(building, partial(read_queries, queries), shard))
            )
        if fileio.exists(queries):
            fileio.remove(queries)
        if settings.stitched:
            stitch(building)
        description = files.summed_up([files.read_description(building.folder(shard)) for shard in shards])
        files.write_description(building.index, description)
        return description

    def _renew(self, input_dict: dict[str, list[types.Artifact]], tower: str, folder: str, shards: int) -> None:
        """Write the embeddings of a changed catalogue; only new and changed items are embedded."""
        base, changes = (artifact_utils.get_single_uri(input_dict[key]) for key in ("base_index", "changes"))
        if (base_shards := files.read_description(base).shards) != shards:
            raise UserError(
                f"indexer.shards: expected {base_shards}, as in the version that is refreshed, received {shards}. Run a day first."
            )
        embedded, gone = os.path.join(folder, "changed"), read_gone(changes)
        with self._make_beam_pipeline() as pipeline:
            _ = pipeline | EmbedCatalogue([changed_pattern(changes)], tower, embedded, shards=shards)
        for shard in shards_of(shards):
            files.write_renewed(folder, files.read(base, shard), gone, files.read(embedded, shard), shard)
        fileio.rmtree(embedded)

    def _embed_queries(self, input_dict: dict[str, list[types.Artifact]], building: Building, path: str) -> None:
        """Embed queries of the training split."""
        training = artifact_utils.get_split_uris(input_dict["examples"], TRAIN_SPLIT)
        patterns = [io_utils.all_files_pattern(uri) for uri in training]
        with self._make_beam_pipeline() as pipeline:
            _ = pipeline | EmbedSomeQueries(patterns, building.settings.tuning_queries, building.query_tower, path)

    def _some_queries(self, input_dict: dict[str, list[types.Artifact]], building: Building) -> NDArray[np.float32]:
        """Return [queries, width] embeddings of queries of the training split."""
        path = os.path.join(building.index, "queries.npy")
        self._embed_queries(input_dict, building, path)
        queries = read_queries(path)
        fileio.remove(path)
        return queries


class Indexer(base_beam_component.BaseBeamComponent):
    """The index of a day, and the retriever over it.

    Args:
        model: the Trainer's model, with both towers.
        catalogue: the catalogue of the day, split `catalogue`.
        examples: interactions; queries of the split `train` say which items belong together, and how many lists must be probed.
        settings: what is built.
        filters: the catalogue's columns that requests may ask for.
        query_tower: of a refresh that has one of its own; None where the model's is served.
        base_index: of a refresh, the index of the version that is refreshed, with the embeddings of the same item tower.
        changes: of a refresh, what its catalogue changes of that version's.

    Output `index`: see `components.indexer.files`; its property `index` says, as JSON, `items`, `kind`, `lists`, `probes` and
    `recall`. Output `retriever`: see `components.indexer.retriever`; one, or one for each shard.
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
