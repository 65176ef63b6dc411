"""The step that carries counts of items, pairs and users from day to day, for the baselines that models are compared with.

A baseline that knew only the window would lose to a model that has seen every day.
"""

from typing import Any

import apache_beam as beam
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, component_spec, standard_artifacts
from tfx.utils import io_utils

from components import recorded
from components.artifacts import Counts
from components.counts import files
from components.counts.counting import Carry, Count
from components.counts.files import PARTS, THROUGH, TRAINING, Description
from components.counts.settings import CountsSettings
from components.decoded import ReadExamples
from components.example_gen.cleaning import to_bytes
from components.example_gen.interactions import EVAL_SPLIT, TRAIN_SPLIT
from components.example_gen.sources import MICROSECONDS_A_DAY
from schemas.features import FeatureSpec


class CounterSpec(component_spec.ComponentSpec):
    """Parameters, inputs and outputs of the Counter."""

    PARAMETERS = {
        "settings": component_spec.ExecutionParameter(type=str),
        "feature_spec": component_spec.ExecutionParameter(type=str),
        "day": component_spec.ExecutionParameter(type=int),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "base_counts": component_spec.ChannelParameter(type=Counts, optional=True),
    }
    OUTPUTS = {"counts": component_spec.ChannelParameter(type=Counts)}


class CounterExecutor(base_beam_executor.BaseBeamExecutor):
    """Counts interactions newer than the base, and adds the base."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Override of TFX's method.

        Raises:
            UserError: the base is incomplete.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = CountsSettings.model_validate_json(exec_properties["settings"])
        spec = FeatureSpec.model_validate_json(exec_properties["feature_spec"])
        span = exec_properties["day"]
        counts = artifact_utils.get_single_instance(output_dict["counts"])
        base = through_folder(input_dict.get("base_counts") or [])
        since = (files.check(base).span + 1) * MICROSECONDS_A_DAY if base else 0
        written = f"{counts.uri}/written.txt"
        with self._make_beam_pipeline() as pipeline:
            counted = [
                pipeline
                | f"Read[{split}]" >> ReadExamples(input_dict["examples"], split)
                | f"Count[{split}]"
                >> beam.ParDo(Count(folder, spec.history_feature, span, since, settings.half_life_days))
                for split, folder in ((TRAIN_SPLIT, TRAINING), (EVAL_SPLIT, THROUGH))
            ]
            # Parts in which nothing was counted are carried over, too.
            parts = [
                ((kind, part), (THROUGH, to_bytes(files.SCHEMAS[kind].empty_table())))
                for kind in PARTS
                for part in range(PARTS[kind])
            ]
            _ = (
                (*counted, pipeline | "Parts" >> beam.Create(parts))
                | beam.Flatten()
                | "BringTogether" >> beam.GroupByKey()
                | "Carry" >> beam.ParDo(Carry(settings, span, base, counts.uri))
                | "AsText" >> beam.MapTuple(lambda folder, file: "\t".join([folder, *map(str, file)]))
                | "List" >> beam.io.WriteToText(written, shard_name_template="")
            )
        found: dict[str, dict[str, tuple[int, str]]] = {THROUGH: {}, TRAINING: {}}
        for line in io_utils.read_string_file(written).splitlines():
            folder, name, size, digest = line.split("\t")
            found[folder][name] = (int(size), digest)
        for folder, listed in found.items():
            files.write_description(f"{counts.uri}/{folder}", Description(span, settings.half_life_days, listed))
        fileio.remove(written)
        counts.set_int_custom_property(recorded.SPAN, span)


class Counter(base_beam_component.BaseBeamComponent):
    """Carries the counts of items, pairs and users over to a day.

    Args:
        examples: interactions, splits `train` and `eval`; only those newer than the base are counted.
        base_counts: the counts of an earlier day; if the channel is empty, counting starts with the window.
        settings: how much is kept, and how it decays.
        spec: the dataset's features.
        day: the day of the run, in days since 1970-01-01.

    Output `counts`: see `components.counts.files`.
    """

    SPEC_CLASS = CounterSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(CounterExecutor)

    def __init__(
        self,
        examples: types.BaseChannel,
        base_counts: types.BaseChannel,
        settings: CountsSettings,
        spec: FeatureSpec,
        day: int,
    ) -> None:
        super().__init__(
            CounterSpec(
                examples=examples,
                base_counts=base_counts,
                settings=settings.model_dump_json(),
                feature_spec=spec.model_dump_json(),
                day=day,
                counts=types.Channel(type=Counts),
            )
        )


def through_folder(base_counts: list[types.Artifact]) -> str | None:
    """Return a channel's folder of counts through its whole day; None if the channel is empty."""
    return f"{base_counts[0].uri}/{THROUGH}" if base_counts else None
