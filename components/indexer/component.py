"""The step that embeds the whole catalogue of the day and builds the index over it."""

import json
import os
from dataclasses import asdict
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components.artifacts import ItemIndex
from components.example_gen.catalogue import CATALOGUE_SPLIT
from components.indexer import faiss_index, files
from components.indexer.embedding import EmbedCatalogue
from components.indexer.settings import IndexerSettings
from components.progress import progress
from components.trainer.export import ITEM_TOWER

INDEX_PROPERTY = "index"


class IndexerSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the Indexer."""

    PARAMETERS = {"settings": component_spec.ExecutionParameter(type=str)}
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"index": component_spec.ChannelParameter(type=ItemIndex)}


class IndexerExecutor(base_beam_executor.BaseBeamExecutor):
    """Embeds by Beam, then builds in one process, which holds all embeddings."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX.

        Raises:
            UserError: the item tower cannot be loaded, its embeddings are not finite, or there are more lists than items.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = IndexerSettings.model_validate_json(exec_properties["settings"])
        index = artifact_utils.get_single_instance(output_dict["index"])
        tower = os.path.join(
            path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"])), ITEM_TOWER
        )
        catalogue = artifact_utils.get_split_uris(input_dict["catalogue"], CATALOGUE_SPLIT)
        with self._make_beam_pipeline() as pipeline:
            _ = pipeline | EmbedCatalogue([io_utils.all_files_pattern(uri) for uri in catalogue], tower, index.uri)
        items = files.read(index.uri)
        count, width = items.embeddings.shape
        plan = settings.plan(count)
        progress(f"{count:,} items embedded, builds the index ({plan.kind})", 0.7)
        faiss_index.build(items.embeddings, plan, settings.seed).write(index.uri)
        files.write_description(
            index.uri, files.Description(items=count, width=width, settings=settings.model_dump(), **asdict(plan))
        )
        index.set_string_custom_property(INDEX_PROPERTY, json.dumps({"items": count, **asdict(plan)}, sort_keys=True))


class Indexer(base_beam_component.BaseBeamComponent):
    """The index of a day.

    Args:
        model: the Trainer's model; its item tower embeds.
        catalogue: the catalogue of the day, split `catalogue`.
        settings: what is built.

    Output `index`: see `components.indexer.files`; its property `index` says, as JSON, `items`, `kind`, `lists` and `probes`.
    """

    SPEC_CLASS = IndexerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(IndexerExecutor)

    def __init__(self, model: types.BaseChannel, catalogue: types.BaseChannel, settings: IndexerSettings) -> None:
        super().__init__(
            IndexerSpec(
                model=model,
                catalogue=catalogue,
                settings=settings.model_dump_json(),
                index=types.Channel(type=ItemIndex),
            )
        )
