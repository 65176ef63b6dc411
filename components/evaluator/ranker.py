"""The step before the Evaluator: held-out interactions with the place of their item among the whole catalogue, by every scorer.

The Evaluator that follows is TFX's own; it adds these up to metrics by TFMA.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils, path_utils

from components.artifacts import ItemIndex, Retriever
from components.evaluator.facts import GatherFacts, user_part
from components.evaluator.held_out import Places, RankHeldOut
from components.evaluator.names import BASELINE, CANDIDATE
from components.evaluator.settings import EvaluatorSettings
from components.example_gen.catalogue import CATALOGUE_SPLIT
from components.example_gen.interactions import EVAL_SPLIT, TRAIN_SPLIT
from components.example_gen.ordered import WriteInOrder
from components.indexer.embedding import EmbedCatalogue
from components.progress import progress
from ndr_client.served import ITEM_TOWER, QUERY_TOWER, RETRIEVER
from schemas.features import QUERY_ID, FeatureSpec

WORKING = ".working"
# What no place depends on: a model that is judged anew by other limits is not ranked anew.
JUDGED = {"recall_at", "limits", "below_popularity", "minimum_index_recall"}


class RankerSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the Ranker."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "feature_spec": component_spec.ExecutionParameter(type=str),
        "day": component_spec.ExecutionParameter(type=int),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "index": component_spec.ChannelParameter(type=ItemIndex),
        "retriever": component_spec.ChannelParameter(type=Retriever),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {"ranked_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class RankerExecutor(base_beam_executor.BaseBeamExecutor):
    """Gathers what training says of items and users, embeds the catalogue with the last blessed model, then ranks."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Called by TFX."""
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = EvaluatorSettings.model_validate_json(exec_properties["settings"])
        spec = FeatureSpec.model_validate_json(exec_properties["feature_spec"])
        ranked = artifact_utils.get_single_instance(output_dict["ranked_examples"])
        ranked.split_names = artifact_utils.encode_split_names([EVAL_SPLIT])
        working = os.path.join(ranked.uri, WORKING)
        training, held_out, catalogue = (
            [io_utils.all_files_pattern(uri) for uri in artifact_utils.get_split_uris(input_dict[key], split)]
            for key, split in (("examples", TRAIN_SPLIT), ("examples", EVAL_SPLIT), ("catalogue", CATALOGUE_SPLIT))
        )
        parts = sum(len(tf.io.gfile.glob(pattern)) for pattern in held_out)
        places = _places(input_dict, working)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline | "Training" >> ReadExamples(training),
                pipeline | "HeldOut" >> ReadExamples(held_out),
            ) | "Facts" >> GatherFacts(
                places.index,
                spec.history_feature,
                parts,
                settings.neighbours,
                {name: each.most for name, each in settings.slices.items() if not each.edges},
                places.facts,
            )
            for name, model in _models(input_dict).items():
                if name != CANDIDATE:  # which the Indexer embedded
                    tower = os.path.join(model, ITEM_TOWER)
                    _ = pipeline | f"Embed[{name}]" >> EmbedCatalogue(catalogue, tower, places.item_folders[name])
        progress("ranks the held-out interactions", 0.4)
        with self._make_beam_pipeline() as pipeline:
            _ = (
                pipeline
                | "HeldOut" >> ReadExamples(held_out)
                | "Part" >> beam.Map(_with_part, parts)
                | "BringTogether" >> beam.GroupByKey()
                | "Rank" >> beam.ParDo(RankHeldOut(places, settings, spec, exec_properties["day"]))
                | "Write" >> WriteInOrder(artifact_utils.get_split_uri([ranked], EVAL_SPLIT), parts)
            )
        fileio.rmtree(working)


class Ranker(base_beam_component.BaseBeamComponent):
    """Ranks held-out interactions among the whole catalogue.

    Args:
        examples: interactions, with a `train` split, which says what is popular and what goes together, and an `eval` split.
        catalogue: the catalogue of the day, split `catalogue`.
        model: the Trainer's model, with both towers.
        index: the Indexer's, of that model and that catalogue.
        retriever: the Indexer's, whose search is judged by what an exact one finds.
        baseline_model: the last blessed model, if the channel has one; it ranks the same catalogue, new items included, by its own
            towers.
        settings: what is measured.
        spec: the dataset's features.
        day: the run's, in days since 1970-01-01.

    Output `ranked_examples`: the eval split's examples with a reward above 0; see `components.evaluator.ranked`.
    """

    SPEC_CLASS = RankerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(RankerExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        model: types.BaseChannel,
        index: types.BaseChannel,
        retriever: types.BaseChannel,
        baseline_model: types.BaseChannel,
        settings: EvaluatorSettings,
        spec: FeatureSpec,
        day: int,
    ) -> None:
        super().__init__(
            RankerSpec(
                examples=examples,
                catalogue=catalogue,
                model=model,
                index=index,
                retriever=retriever,
                baseline_model=baseline_model,
                settings=settings.model_dump_json(exclude=JUDGED),
                feature_spec=spec.model_dump_json(),
                day=day,
                ranked_examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


class ReadExamples(beam.PTransform):
    """Serialised examples of gzipped TFRecords."""

    def __init__(self, patterns: Iterable[str]) -> None:
        super().__init__()
        self._patterns = list(patterns)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Called by Beam."""
        return pipeline | beam.Create(self._patterns) | beam.io.ReadAllFromTFRecord()


def _models(input_dict: Mapping[str, list[types.Artifact]]) -> dict[str, str]:
    """The folder of the towers of each model that ranks."""
    models = ((CANDIDATE, input_dict["model"]), (BASELINE, input_dict.get("baseline_model") or []))
    return {name: path_utils.serving_model_path(model.uri) for name, found in models for model in found}


def _places(input_dict: Mapping[str, list[types.Artifact]], working: str) -> Places:
    models = _models(input_dict)
    index = artifact_utils.get_single_uri(input_dict["index"])
    last_blessed = input_dict.get("baseline_model") or []
    return Places(
        facts=os.path.join(working, "facts"),
        index=index,
        retriever=os.path.join(artifact_utils.get_single_uri(input_dict["retriever"]), RETRIEVER),
        item_folders={name: index if name == CANDIDATE else os.path.join(working, name) for name in models},
        query_towers={name: os.path.join(folder, QUERY_TOWER) for name, folder in models.items()},
        last_blessed=last_blessed[0].uri if last_blessed else None,
    )


def _with_part(serialized: bytes, parts: int) -> tuple[int, bytes]:
    user = tf.train.Example.FromString(serialized).features.feature[QUERY_ID].bytes_list.value[0]
    return user_part(user, parts), serialized
