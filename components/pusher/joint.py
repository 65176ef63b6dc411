"""The step that pushes all parts of a blessed model under one version."""

import json
import math
import os
from datetime import date
from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.types.standard_component_specs import MODEL_BLESSING_KEY
from tfx.utils import json_utils, proto_utils

from components import recorded
from components.artifacts import Artifacts, ItemIndex, QueryTower, Retriever, query_tower_folder
from components.evaluator.names import ALL, CANDIDATE
from components.indexer import faiss_index
from components.indexer.files import DESCRIPTION, IDS, read_description
from components.pusher import labels
from components.pusher.files import Source
from components.pusher.versions import PushFolder
from ndr_client.served import INDEX, ITEM_TOWER, QUERY_TOWER, shard_names

DAY_KEY = "day"
LABEL_KEY = "label"
REFRESHES_KEY = "refreshes"
RETRIEVER_KEY = "retriever"
INDEX_KEY = "index"
EVALUATION_KEY = "evaluation"
INDEX_FILES = (faiss_index.FILE, DESCRIPTION, IDS)  # what a vector service needs; not the embeddings themselves


class JointPusherSpec(standard_component_specs.PusherSpec):
    """That of TFX's Pusher, and what else makes up a version."""

    INPUTS = {
        **standard_component_specs.PusherSpec.INPUTS,
        RETRIEVER_KEY: component_spec.ChannelParameter(type=Retriever),
        INDEX_KEY: component_spec.ChannelParameter(type=ItemIndex),
        EVALUATION_KEY: component_spec.ChannelParameter(type=standard_artifacts.ModelEvaluation),
        QUERY_TOWER: component_spec.ChannelParameter(type=QueryTower, optional=True),
    }


class JointExecutor(executor.Executor):
    """Pushes the parts of a blessed model to the push folder, and TF Serving's configuration beside them.

    A model that is not blessed, or that a rollback took back, is recorded as not pushed: when nothing of its day changed, the
    cache hands out the blessing of then, and to push it again would undo the rollback without a word.
    """

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Push the version; TFX calls this."""
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        folder = PushFolder(destination.filesystem.base_directory)
        folder.recover()  # whether or not there is something new to push
        if not self.CheckBlessing(input_dict) or _is_withdrawn(input_dict):
            self._MarkNotPushed(pushed)
            return
        custom_config = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        model = self.GetModelPath(input_dict)
        retriever, index = (artifact_utils.get_single_uri(input_dict[key]) for key in (RETRIEVER_KEY, INDEX_KEY))
        (query_tower,) = input_dict.get(QUERY_TOWER) or [None]
        sources = sources_of(model, retriever, index, query_tower)
        run = str(self._context.pipeline_run_id) if self._context else ""
        # Before the version is visible, so that whoever sees it finds the configuration.
        labels.configure(folder, sources)
        if base := custom_config[REFRESHES_KEY]:
            manifest = folder.refresh(sources, base, run)
            labels.move_from(folder, base, manifest.version)
        else:
            day = date.fromisoformat(custom_config[DAY_KEY])
            manifest = folder.push(sources, day, run, model, _metrics(input_dict))
            if label := custom_config[LABEL_KEY]:
                labels.assign(folder, label, manifest.version)
        pushed.set_string_custom_property(recorded.PARTS, json.dumps(folder.places(manifest), sort_keys=True))
        self._MarkPushed(pushed, pushed_destination=folder.root, pushed_version=str(manifest.version))


class JointPusher(base_component.BaseComponent):
    """Pushes what belongs together under one version, all or nothing.

    Args:
        model: the Trainer's model, with both towers.
        retriever: the Indexer's.
        index: the Indexer's.
        evaluation: the Evaluator's, whose metrics go into the manifest.
        model_blessing: the Evaluator's; without it nothing is pushed.
        infra_blessing: the InfraValidator's; without it nothing is pushed.
        destination: the push folder, a path or an address.
        day: the UTC day of the run.
        label: that the version is given; None for no label.
        refreshes: the live version that is pushed anew, over a newer catalogue; None for a day's own. A refresh has the labels of
            what it takes the place of.
        query_tower: of a refresh that has one of its own; None where the model's is pushed.
    """

    SPEC_CLASS = JointPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(JointExecutor)

    def __init__(
        self,
        model: types.BaseChannel,
        retriever: types.BaseChannel,
        index: types.BaseChannel,
        evaluation: types.BaseChannel,
        model_blessing: types.BaseChannel,
        infra_blessing: types.BaseChannel,
        destination: str,
        day: date,
        label: str | None,
        refreshes: int | None = None,
        query_tower: types.BaseChannel | None = None,
    ) -> None:
        filesystem = pusher_pb2.PushDestination.Filesystem(base_directory=destination)
        super().__init__(
            JointPusherSpec(
                model=model,
                model_blessing=model_blessing,
                retriever=retriever,
                index=index,
                evaluation=evaluation,
                infra_blessing=infra_blessing,
                push_destination=pusher_pb2.PushDestination(filesystem=filesystem),
                custom_config=json_utils.dumps({DAY_KEY: day.isoformat(), LABEL_KEY: label, REFRESHES_KEY: refreshes}),
                query_tower=query_tower,
                pushed_model=types.Channel(type=standard_artifacts.PushedModel),
            )
        )


def sources_of(towers: str, retriever: str, index: str, query_tower: types.Artifact | None) -> dict[str, Source]:
    """Return the place of each component of a version.

    Args:
        towers: the folder of the model's towers.
        retriever: the folder of the retrievers.
        index: the folder of the index.
        query_tower: of a refresh that has one of its own.
    """
    described = read_description(index)
    folders = (
        {INDEX: index}
        if described.shards == 1
        else {name: os.path.join(index, name) for name in shard_names(INDEX, described.shards)}
    )
    return {
        QUERY_TOWER: Source(query_tower_folder(towers, query_tower)),
        ITEM_TOWER: Source(os.path.join(towers, ITEM_TOWER)),
        **{name: Source(os.path.join(retriever, name)) for name in described.retrievers},
        **{name: Source(folder, INDEX_FILES) for name, folder in folders.items()},
    }


def _metrics(inputs: Artifacts) -> dict[str, float]:
    """Return the model's metrics over all interactions, without intervals and without NaN."""
    evaluation = artifact_utils.get_single_instance(inputs[EVALUATION_KEY])
    metrics = json.loads(evaluation.get_string_custom_property(recorded.METRICS)).get(ALL, {}).get(CANDIDATE, {})
    return {name: value for name, (value, *_) in metrics.items() if math.isfinite(value)}


def _is_withdrawn(inputs: Artifacts) -> bool:
    blessing = artifact_utils.get_single_instance(inputs[MODEL_BLESSING_KEY])
    return bool(blessing.get_int_custom_property(recorded.WITHDRAWN))
