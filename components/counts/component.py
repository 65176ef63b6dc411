"""The step that carries counts of items, pairs and users from day to day, for the baselines that models are compared with.

A baseline that knew only the window would lose to a model that has seen every day.
"""

import apache_beam as beam
from tfx import types
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components import recorded
from components.artifacts import Counts
from components.counts import files
from components.counts.counting import Carry, Count
from components.counts.files import PARTITIONS, THROUGH, TRAINING, Description
from components.counts.settings import CountsSettings
from components.decoded import ReadExamples
from components.example_gen.cleaning import to_bytes
from components.example_gen.split_names import EVAL_SPLIT, TRAIN_SPLIT
from components.utc import MICROSECONDS_A_DAY
from schemas.features import FeatureSpec


@component(use_beam=True)
def Counter(
    examples: InputArtifact[standard_artifacts.Examples],
    counts: OutputArtifact[Counts],
    settings: Parameter[str],
    feature_spec: Parameter[str],
    day: Parameter[int],
    base_counts: InputArtifact[Counts] = None,
    pipeline: BeamComponentParameter[beam.Pipeline] = None,
) -> None:
    """Count interactions newer than the base, and add the base.

    Args:
        examples: interactions, splits `train` and `eval`; only those newer than the base are counted.
        counts: the output; see `components.counts.files`.
        settings: `CountsSettings` as JSON: how much is kept, and how it decays.
        feature_spec: the dataset's features, as JSON.
        day: the span of the run, in days since 1970-01-01.
        base_counts: the counts of an earlier day; if the channel is empty, counting starts with the window.
        pipeline: TFX's.

    Raises:
        UserError: the base is incomplete.
    """
    counts_settings = CountsSettings.model_validate_json(settings)
    history = FeatureSpec.model_validate_json(feature_spec).history_feature
    base = through_folder([base_counts] if base_counts else [])
    since = (files.check(base).span + 1) * MICROSECONDS_A_DAY if base else 0
    written = f"{counts.uri}/written.txt"
    with pipeline:
        counted = [
            pipeline
            | f"Read[{split}]" >> ReadExamples([examples], split)
            | f"Count[{split}]" >> beam.ParDo(Count(folder, history, day, since, counts_settings.half_life_days))
            for split, folder in ((TRAIN_SPLIT, TRAINING), (EVAL_SPLIT, THROUGH))
        ]
        # Partitions in which nothing was counted are carried over, too.
        empty_tables = [
            ((kind, partition), (THROUGH, to_bytes(files.SCHEMAS[kind].empty_table())))
            for kind in PARTITIONS
            for partition in range(PARTITIONS[kind])
        ]
        _ = (
            (*counted, pipeline | "Parts" >> beam.Create(empty_tables))
            | beam.Flatten()
            | "BringTogether" >> beam.GroupByKey()
            | "Carry" >> beam.ParDo(Carry(counts_settings, day, base, counts.uri))
            | "AsText" >> beam.MapTuple(lambda folder, file: "\t".join([folder, *map(str, file)]))
            | "List" >> beam.io.WriteToText(written, shard_name_template="")
        )
    written_files: dict[str, dict[str, tuple[int, str]]] = {THROUGH: {}, TRAINING: {}}
    for line in io_utils.read_string_file(written).splitlines():
        folder, name, size, digest = line.split("\t")
        written_files[folder][name] = (int(size), digest)
    for folder, listed in written_files.items():
        files.write_description(f"{counts.uri}/{folder}", Description(day, counts_settings.half_life_days, listed))
    fileio.remove(written)
    counts.set_int_custom_property(recorded.SPAN, day)


def through_folder(base_counts: list[types.Artifact]) -> str | None:
    """Return a channel's folder of counts through its whole day; None if the channel is empty."""
    return f"{base_counts[0].uri}/{THROUGH}" if base_counts else None
