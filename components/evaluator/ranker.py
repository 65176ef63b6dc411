"""The step before the Evaluator: ranks the item of each held-out interaction among the whole catalogue, by every scorer.

The Evaluator that follows is TFX's own; it adds the ranks up to metrics with TFMA.
"""

import os
from typing import Any

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import path_utils

from components.artifacts import Artifacts, Counts, ItemIndex, Retriever, split_patterns
from components.counts.files import THROUGH, TRAINING
from components.evaluator.held_out import RankHeldOut
from components.evaluator.interactions import ReadByGroup, Window
from components.evaluator.names import BASELINE, CANDIDATE
from components.evaluator.preparing import Task, prepare
from components.evaluator.ranked import SUMS_SPLIT, USER_GROUPS
from components.evaluator.settings import EvaluatorSettings
from components.example_gen.catalogue import judged_split
from components.example_gen.ordered import WriteInOrder
from components.example_gen.split_names import CATALOGUE_SPLIT, EVAL_SPLIT
from components.indexer.files import read_description
from components.progress import progress
from components.trainer.export import judged_tower
from schemas.features import FeatureSpec

WORKING = ".working"
# Sums do not depend on these: changed limits do not require a new ranking.
JUDGED = {"limits", "beat", "below_popularity", "minimum_index_recall", "next_day_interactions"}


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
        "counts": component_spec.ChannelParameter(type=Counts),
        "base_counts": component_spec.ChannelParameter(type=Counts, optional=True),
        "baseline_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
    }
    OUTPUTS = {"ranked_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class RankerExecutor(base_beam_executor.BaseBeamExecutor):
    """Embeds the catalogue with the last blessed model, and items as new with the candidate, then ranks."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Override of TFX's method."""
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = EvaluatorSettings.model_validate_json(exec_properties["settings"])
        spec = FeatureSpec.model_validate_json(exec_properties["feature_spec"])
        ranked = artifact_utils.get_single_instance(output_dict["ranked_examples"])
        ranked.split_names = artifact_utils.encode_split_names([EVAL_SPLIT, SUMS_SPLIT])
        working = os.path.join(ranked.uri, WORKING)
        task = _task(input_dict, settings, spec, exec_properties["day"])
        places, _, window = prepare(task, self._make_beam_pipeline, working)
        progress("ranks the held-out interactions", 0.4)
        with self._make_beam_pipeline() as pipeline:
            examples = (
                pipeline
                | "HeldOut" >> ReadByGroup(task.interactions, window)
                | "Rank"
                >> beam.ParDo(RankHeldOut(places, settings, spec, window.span)).with_outputs(
                    SUMS_SPLIT, main=EVAL_SPLIT
                )
            )
            for split in (EVAL_SPLIT, SUMS_SPLIT):
                folder = artifact_utils.get_split_uri([ranked], split)
                _ = examples[split] | f"Write[{split}]" >> WriteInOrder(folder, USER_GROUPS)
        fileio.rmtree(working)


class Ranker(base_beam_component.BaseBeamComponent):
    """Ranks held-out interactions among the whole catalogue.

    Args:
        examples: interactions, with an `eval` split.
        catalogue: the catalogue of the day: split `judged`, as known before the day, or without it `catalogue`.
        model: the Trainer's model, with both towers.
        index: the Indexer's index of that model and catalogue.
        retriever: the Indexer's retriever, whose search is compared with exact search.
        baseline_model: the last blessed model, if the channel has one; it ranks the same catalogue, including new items, with its
            own towers.
        counts: the day's counts, of which those added by the training split are used.
        base_counts: those of an earlier day, if the channel has them, for all days before.
        settings: the evaluator's settings.
        spec: the dataset's features.
        day: the day of the run, in days since 1970-01-01.

    Output `ranked_examples`: the eval split's examples with a reward above 0, and their sums; see `components.evaluator.ranked`.
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
        counts: types.BaseChannel,
        base_counts: types.BaseChannel,
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
                counts=counts,
                base_counts=base_counts,
                settings=settings.model_dump_json(exclude=JUDGED),
                feature_spec=spec.model_dump_json(),
                day=day,
                ranked_examples=types.Channel(type=standard_artifacts.Examples),
            )
        )


def _task(input_dict: Artifacts, settings: EvaluatorSettings, spec: FeatureSpec, span: int) -> Task:
    examples, catalogue = (artifact_utils.get_single_instance(input_dict[key]) for key in ("examples", "catalogue"))
    judged = judged_split(catalogue)
    baseline = input_dict.get("baseline_model") or []
    candidate = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))
    models = dict(zip((CANDIDATE, BASELINE), [*input_dict["model"], *baseline], strict=False))
    index = artifact_utils.get_single_uri(input_dict["index"])
    retrievers = read_description(index).retrievers
    return Task(
        interactions=split_patterns(examples, EVAL_SPLIT),
        catalogue=split_patterns(catalogue, judged),
        models={name: path_utils.serving_model_path(model.uri) for name, model in models.items()},
        counts=[
            *(os.path.join(artifact.uri, THROUGH) for artifact in input_dict.get("base_counts") or []),
            *(os.path.join(artifact.uri, TRAINING) for artifact in input_dict["counts"]),
        ],
        has_rows=baseline[0].uri if baseline else None,
        settings=settings,
        spec=spec,
        window=Window(span),
        index=index,
        retrievers=[os.path.join(artifact_utils.get_single_uri(input_dict["retriever"]), name) for name in retrievers],
        is_served=judged == CATALOGUE_SPLIT,
        query_tower=judged_tower(candidate),
    )
