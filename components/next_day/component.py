"""The step that evaluates models of earlier days on a day, before anything is trained on it."""

import json
import os
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components import recorded
from components.artifacts import Artifacts, Counts, NextDayJudgement, split_patterns
from components.counts.component import through_folder
from components.evaluator.evaluation import METRICS_FILE, in_short
from components.evaluator.next_day import judge_next_day
from components.evaluator.ranker import JUDGED
from components.evaluator.settings import EvaluatorSettings
from components.example_gen.catalogue import judged_split
from components.example_gen.split_names import EVAL_SPLIT, TRAIN_SPLIT
from components.next_day.record import Judgement
from components.progress import progress
from schemas.features import FeatureSpec

WORKING = ".working"
NO_MODEL = "no model of an earlier day was blessed"


class NextDaySpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of NextDay."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "feature_spec": component_spec.ExecutionParameter(type=str),
        "day": component_spec.ExecutionParameter(type=int),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "catalogue": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "earlier_model": component_spec.ChannelParameter(type=standard_artifacts.Model, optional=True),
        "counts": component_spec.ChannelParameter(type=Counts, optional=True),
    }
    OUTPUTS = {"judgement": component_spec.ChannelParameter(type=NextDayJudgement)}


class NextDayExecutor(base_beam_executor.BaseBeamExecutor):
    """Ranks all of a day with models of earlier days, if there are any."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Override of TFX's method.

        Raises:
            UserError: a tower cannot be loaded, or the counts of the day before are incomplete.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict["judgement"])
        artifact.set_int_custom_property(recorded.SPAN, exec_properties["day"])
        metrics, judgement = self._judge(input_dict, exec_properties, artifact.uri)
        io_utils.write_string_file(os.path.join(artifact.uri, METRICS_FILE), json.dumps(metrics))
        artifact.set_string_custom_property(recorded.METRICS, json.dumps(in_short(metrics)))
        artifact.set_string_custom_property(recorded.JUDGEMENT, judgement.to_json())

    def _judge(
        self, input_dict: Artifacts, exec_properties: dict[str, Any], folder: str
    ) -> tuple[dict[str, Any], Judgement]:
        models = input_dict.get("model") or []
        if not models:
            return {}, Judgement(reason=NO_MODEL)
        examples, catalogue = (artifact_utils.get_single_instance(input_dict[key]) for key in ("examples", "catalogue"))
        earlier = input_dict.get("earlier_model") or []
        counts = through_folder(input_dict.get("counts") or [])
        progress("ranks the day with models of earlier days", 0.0)
        working = os.path.join(folder, WORKING)
        judged = judge_next_day(
            interactions=[*split_patterns(examples, TRAIN_SPLIT), *split_patterns(examples, EVAL_SPLIT)],
            catalogue=split_patterns(catalogue, judged_split(catalogue)),
            model=models[0].uri,
            earlier_model=earlier[0].uri if earlier else None,
            counts=[counts] if counts else [],
            settings=EvaluatorSettings.model_validate_json(exec_properties["settings"]),
            spec=FeatureSpec.model_validate_json(exec_properties["feature_spec"]),
            span=exec_properties["day"],
            make_pipeline=self._make_beam_pipeline,
            working=working,
        )
        fileio.rmtree(working)
        return dict(judged.metrics), Judgement(
            model=models[0].id,
            model_span=models[0].get_int_custom_property(recorded.SPAN),
            earlier_model=earlier[0].id if earlier else 0,
            earlier_span=earlier[0].get_int_custom_property(recorded.SPAN) if earlier else 0,
            interactions=judged.interactions,
            ranked=judged.ranked,
            not_in_catalogue=judged.not_in_catalogue,
            reason="" if judged.ranked else "no interaction of the day has an item of its catalogue",
        )


class NextDay(base_beam_component.BaseBeamComponent):
    """Ranks all interactions of a day with models that were trained on none of them.

    Args:
        examples: interactions, splits `train` and `eval`; those of earlier days are ignored.
        catalogue: the catalogue of the day: split `judged`, as known before the day, or without it `catalogue`.
        model: the last blessed model before the day; if the channel is empty, the output says that nothing was evaluated.
        earlier_model: the one blessed before that, to see whether newer is better; may be missing.
        counts: those of the newest day before, for the baselines.
        settings: the evaluator's settings.
        spec: the dataset's features.
        day: the day of the run, in days since 1970-01-01.

    Output `judgement`: its property `metrics` is like an evaluation's (`candidate` is `model`, `baseline` is `earlier_model`);
    `judgement` names the evaluated models and the numbers of interactions; see `components.next_day.record`.
    """

    SPEC_CLASS = NextDaySpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(NextDayExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        catalogue: types.BaseChannel,
        model: types.BaseChannel,
        earlier_model: types.BaseChannel,
        counts: types.BaseChannel,
        settings: EvaluatorSettings,
        spec: FeatureSpec,
        day: int,
    ) -> None:
        super().__init__(
            NextDaySpec(
                examples=examples,
                catalogue=catalogue,
                model=model,
                earlier_model=earlier_model,
                counts=counts,
                settings=settings.model_dump_json(
                    exclude=(JUDGED | {"sampled_interactions"}) - {"next_day_interactions", "beat"}
                ),
                feature_spec=spec.model_dump_json(),
                day=day,
                judgement=types.Channel(type=NextDayJudgement),
            )
        )
