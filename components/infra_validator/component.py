"""The step that serves a version before it is pushed: it refuses one that cannot be loaded, or answers unlike the trained model.

TFX's InfraValidator starts TF Serving in Docker or on Kubernetes, and checks that it loads. This one starts the embedded server,
with real sockets, and compares every answer. Its output is TFX's InfraBlessing, which TFX's Pusher respects.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from numpy.typing import NDArray
from tfx import types
from tfx.components.infra_validator import executor as tfx_infra_validator
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components import recorded
from components.artifacts import ItemIndex, QueryTower, Retriever, split_patterns, warm_start_folder
from components.example_gen.interactions import EVAL_SPLIT
from components.example_gen.split_names import CATALOGUE_SPLIT
from components.indexer import files, filter_columns
from components.indexer.embedding import candidate_id
from components.indexer.shards import WHOLE, Shard, shards_of
from components.infra_validator.conditions import conditions, with_condition
from components.infra_validator.parity import Parity
from components.infra_validator.serving_tensorflow import lacking_faults
from components.progress import progress
from components.pusher.files import Source
from components.pusher.joint import sources_of
from components.pusher.versions import PushFolder
from components.trainer.settings import TrainerSettings
from components.trainer.trained import TrainedTowers, lookup_in
from ndr_client import Client
from ndr_client.faiss_client import columns_of
from ndr_client.served import (
    EMBEDDING,
    EXAMPLES,
    EXAMPLES_SIGNATURE,
    INDEX,
    ITEM_IDS,
    ITEM_TOWER,
    QUERY_TOWER,
    SCORES,
    K,
)
from schemas.features import FeatureSpec
from serving.server import EmbeddedServer, ServerSettings
from serving.settings import Limits, ServerConfig, ServingTensorFlow

BATCH = 256
CHECKED_ITEMS = 2048  # of the catalogue; the same tower embedded all of them in the same way
RETRIEVED = 100
UNBOUNDED = ServerConfig(
    limits=Limits(request_bytes=1 << 30, values=1 << 30, comparisons=1 << 40, receive_seconds=600.0)
)
TIMEOUT_SECONDS = 600.0  # for a batch over a large catalogue, on a busy machine


class InfraValidatorSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the InfraValidator."""

    PARAMETERS = {
        "trainer": component_spec.ExecutionParameter(type=str),
        "feature_spec": component_spec.ExecutionParameter(type=str),
        "day": component_spec.ExecutionParameter(type=str),
        "tensorflow": component_spec.ExecutionParameter(type=str),
        "least_recall": component_spec.ExecutionParameter(type=float, optional=True),
    }
    INPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "index": component_spec.ChannelParameter(type=ItemIndex),
        "retriever": component_spec.ChannelParameter(type=Retriever),
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        QUERY_TOWER: component_spec.ChannelParameter(type=QueryTower, optional=True),
    }
    OUTPUTS = {"blessing": component_spec.ChannelParameter(type=standard_artifacts.InfraBlessing)}


class InfraValidatorExecutor(base_executor.BaseExecutor):
    """Pushes to a temporary folder, serves that, and sends queries."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Override of TFX's method."""
        self._log_startup(input_dict, output_dict, exec_properties)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        with TemporaryDirectory() as folder:
            faults = _faults(input_dict, exec_properties, Path(folder))
        mark = tfx_infra_validator._mark_not_blessed if faults else tfx_infra_validator._mark_blessed
        mark(blessing)
        blessing.set_string_custom_property(recorded.REFUSED, json.dumps(faults))


class InfraValidator(base_component.BaseComponent):
    """Tries the version that would be pushed.

    Args:
        model: the Trainer's model.
        transform_graph: the transform graph that the model was trained with.
        index: the Indexer's index.
        retriever: the Indexer's retriever.
        examples: interactions; every query of the split `eval` is sent.
        catalogue: the day's catalogue.
        trainer: the Trainer's settings.
        spec: the dataset's features.
        day: the UTC day.
        tensorflow: the release that serves.
        query_tower: of a refresh that has one of its own; None where the model's is served.
        least_recall: the share of the exact first items that the retriever must find for the queries; None where another step sees
            to that.

    Output `blessing`: TFX's InfraBlessing, with a property `refused`, a JSON list of sentences.
    """

    SPEC_CLASS = InfraValidatorSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(InfraValidatorExecutor)

    def __init__(
        self,
        model: types.BaseChannel,
        transform_graph: types.BaseChannel,
        index: types.BaseChannel,
        retriever: types.BaseChannel,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        trainer: TrainerSettings,
        spec: FeatureSpec,
        day: date,
        tensorflow: ServingTensorFlow,
        query_tower: types.BaseChannel | None = None,
        least_recall: float | None = None,
    ) -> None:
        super().__init__(
            InfraValidatorSpec(
                model=model,
                transform_graph=transform_graph,
                index=index,
                retriever=retriever,
                examples=examples,
                catalogue=catalogue,
                trainer=trainer.model_dump_json(),
                feature_spec=spec.model_dump_json(),
                day=day.isoformat(),
                tensorflow=tensorflow,
                query_tower=query_tower,
                least_recall=least_recall,
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )


def _faults(input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], folder: Path) -> list[str]:
    """List why the version must not be pushed; empty if it may be.

    Args:
        input_dict: TFX's argument.
        exec_properties: TFX's argument.
        folder: an empty folder, for the version.
    """
    model = artifact_utils.get_single_instance(input_dict["model"])
    index = artifact_utils.get_single_uri(input_dict["index"])
    sources = sources_of(path_utils.serving_model_path(model.uri), input_dict)
    progress("serves the version as it would be pushed", 0.1)
    PushFolder(str(folder)).push(
        sources, date.fromisoformat(exec_properties["day"]), run="", model=model.uri, metrics={}
    )
    described = files.read_description(index)
    spec = FeatureSpec.model_validate_json(exec_properties["feature_spec"])
    trained, faults = None, list[str]()
    # One retriever after another, so that a shard is in memory at a time.
    for name, shard in zip(described.retrievers, shards_of(len(described.retrievers)), strict=True):
        number = None if shard == WHOLE else shard.number
        with EmbeddedServer(folder, ServerSettings(port=0, rest_port=0, config=UNBOUNDED, shard=number)) as server:
            server.versions.refresh()
            if server.versions.live is None:
                return sorted({state.message for part in sources for state in server.versions.states(part).values()})
            if lacking := _lacking(sources, described.retrievers, exec_properties["tensorflow"]):
                return lacking
            trained = trained or _trained(input_dict, exec_properties, spec)
            with Client(f"127.0.0.1:{server.port}", timeout=TIMEOUT_SECONDS) as client:
                faults += _differences(_Asked(client, name), shard, index, trained, spec, input_dict, exec_properties)
    return list(dict.fromkeys(faults))


def _lacking(sources: Mapping[str, Source], retrievers: Sequence[str], tensorflow: ServingTensorFlow) -> list[str]:
    """List the operations that a version has and the release that serves it has not."""
    return [
        f"{part}: {fault}"
        for part in (QUERY_TOWER, ITEM_TOWER, *retrievers)
        for fault in lacking_faults(Path(sources[part].folder), tensorflow)
    ]


def _trained(
    input_dict: dict[str, list[types.Artifact]], exec_properties: dict[str, Any], spec: FeatureSpec
) -> TrainedTowers:
    transform_output = tft.TFTransformOutput(artifact_utils.get_single_uri(input_dict["transform_graph"]))
    return TrainedTowers(
        spec,
        TrainerSettings.model_validate_json(exec_properties["trainer"]),
        transform_output,
        warm_start_folder(artifact_utils.get_single_uri(input_dict["model"])),
        lookup_in(split_patterns(artifact_utils.get_single_instance(input_dict["catalogue"])), spec, transform_output),
    )


@dataclass(frozen=True)
class _Asked:
    """A served retriever.

    Attributes:
        client: asks its server.
        name: its name.
    """

    client: Client
    name: str

    def __call__(self, examples: list[bytes], k: int) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
        """Return the ids and the scores of the first k items of queries."""
        inputs = {EXAMPLES: np.array(examples, object), K: np.full(len(examples), k, np.int32)}
        outputs = self.client.predict(self.name, EXAMPLES_SIGNATURE, inputs).outputs
        return outputs[ITEM_IDS], outputs[SCORES]


def _differences(
    asked: _Asked,
    shard: Shard,
    index: str,
    trained: TrainedTowers,
    spec: FeatureSpec,
    input_dict: dict[str, list[types.Artifact]],
    exec_properties: dict[str, Any],
) -> list[str]:
    """Compare the towers and a retriever with the trained model; return a sentence for each kind of difference.

    Args:
        asked: the retriever.
        shard: the items that it has.
        index: the folder of the index.
        trained: the trained towers.
        spec: the dataset's features.
        input_dict: TFX's argument.
        exec_properties: TFX's argument.
    """
    items = files.read(index, shard)
    described = files.read_description(index if shard == WHOLE else f"{index}/{shard.name(INDEX)}")
    is_exact, vectors = described.kind == "flat", described.settings["vectors"]
    parity = Parity(items, is_exact, vectors, least_recall=exec_properties.get("least_recall"))
    filtered = list[str]()
    k = min(RETRIEVED, len(items.ids))
    progress("sends every held-out query", 0.4)
    for examples in _batches(input_dict["examples"], EVAL_SPLIT):
        queries = trained.embed_queries(examples)
        parity.queries(asked.client.embed(QUERY_TOWER, examples).outputs[EMBEDDING], queries)
        parity.retrieved(*asked(examples, k), queries, k, trained.repeats_of(examples))
    if filters := spec.catalogue.filters:
        progress("asks with conditions", 0.8)
        columns = filter_columns.read(_patterns(input_dict["catalogue"], CATALOGUE_SPLIT), filters, items.ids, shard)
        for examples in islice(_batches(input_dict["examples"], EVAL_SPLIT), 1):
            filtered += _filtered(asked, trained, examples, items, columns, is_exact, vectors)
    for examples in islice(_batches(input_dict["catalogue"], CATALOGUE_SPLIT), CHECKED_ITEMS // BATCH):
        if own := [each for each in examples if shard.has(candidate_id(each))]:
            served = asked.client.embed(ITEM_TOWER, own).outputs[EMBEDDING]
            parity.items([candidate_id(each) for each in own], served, trained.embed_items(own))
    return [*parity.faults(), *filtered]


def _filtered(
    asked: _Asked,
    trained: TrainedTowers,
    examples: list[bytes],
    items: files.ItemEmbeddings,
    columns: pa.Table,
    is_exact: bool,
    vectors: str,
) -> Iterator[str]:
    """Ask the same queries with each condition; yield a sentence for each kind of difference."""
    queries, repeats, meets = trained.embed_queries(examples), trained.repeats_of(examples), columns_of(columns)
    for condition in conditions(columns):
        rows = np.flatnonzero(meets.passing([condition]))
        if not len(rows):
            continue
        those = files.ItemEmbeddings([items.ids[row] for row in rows], items.embeddings[rows])
        parity = Parity(those, is_exact, vectors, finds_all=True)
        k = min(RETRIEVED, len(rows))
        parity.retrieved(*asked(with_condition(examples, condition), k), queries, k, repeats)
        yield from (
            f"{fault}, asked with {condition} of the {len(rows):,} items that meet it" for fault in parity.faults()
        )


def _batches(examples: list[types.Artifact], split: str) -> Iterator[list[bytes]]:
    """Yield serialised examples of a split, `BATCH` at a time."""
    paths = sorted(path for pattern in _patterns(examples, split) for path in tf.io.gfile.glob(pattern))
    for batch in tf.data.TFRecordDataset(paths, compression_type="GZIP").batch(BATCH).as_numpy_iterator():
        yield batch.tolist()


def _patterns(examples: list[types.Artifact], split: str) -> list[str]:
    return [io_utils.all_files_pattern(uri) for uri in artifact_utils.get_split_uris(examples, split)]
