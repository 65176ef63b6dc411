"""The step that serves a version before it is pushed: it refuses one that cannot be loaded, or answers unlike the trained model.

TFX's InfraValidator starts TF Serving in Docker or on Kubernetes, and checks that it loads. This one starts the embedded server,
with real sockets, and compares its answers. Its output is TFX's InfraBlessing, which TFX's Pusher respects.
"""

import json
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import tensorflow_transform as tft
from tfx.components.infra_validator import executor as tfx_infra_validator
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components import recorded
from components.artifacts import ItemIndex, QueryTower, Retriever, split_patterns, warm_start_folder
from components.example_gen.split_names import CATALOGUE_SPLIT, EVAL_SPLIT
from components.infra_validator.version import Version
from components.progress import progress
from components.pusher.joint import sources_of
from components.pusher.versions import PushFolder
from components.trainer.settings import TrainerSettings
from components.trainer.trained import TrainedTowers, lookup_in
from schemas.features import FeatureSpec


@component
def InfraValidator(
    model: InputArtifact[standard_artifacts.Model],
    transform_graph: InputArtifact[standard_artifacts.TransformGraph],
    index: InputArtifact[ItemIndex],
    retriever: InputArtifact[Retriever],
    examples: InputArtifact[standard_artifacts.Examples],
    catalogue: InputArtifact[standard_artifacts.Examples],
    blessing: OutputArtifact[standard_artifacts.InfraBlessing],
    trainer: Parameter[str],
    feature_spec: Parameter[str],
    day: Parameter[str],
    tensorflow: Parameter[str],
    query_tower: InputArtifact[QueryTower] = None,
    least_recall: Parameter[float] = None,
) -> None:
    """Push to a temporary folder, serve that, and send queries.

    Args:
        model: the Trainer's model.
        transform_graph: the transform graph that the model was trained with.
        index: the Indexer's index.
        retriever: the Indexer's retriever.
        examples: interactions; queries of the split `eval` are sent, at most `CHECKED_QUERIES`.
        catalogue: the day's catalogue.
        blessing: the output, TFX's InfraBlessing, with a property `refused`, a JSON list of sentences.
        trainer: `TrainerSettings` as JSON.
        feature_spec: the dataset's features, as JSON.
        day: the UTC day, ISO 8601.
        tensorflow: the release that serves.
        query_tower: of a refresh that has one of its own; None where the model's is served.
        least_recall: the share of the exact first items that the retriever must find for the queries; None where another step sees
            to that.
    """
    spec = FeatureSpec.model_validate_json(feature_spec)

    def trained() -> TrainedTowers:
        transform_output = tft.TFTransformOutput(transform_graph.uri)
        lookup = lookup_in(split_patterns(catalogue), spec, transform_output)
        settings = TrainerSettings.model_validate_json(trainer)
        return TrainedTowers(spec, settings, transform_output, warm_start_folder(model.uri), lookup)

    version = Version(
        sources_of(path_utils.serving_model_path(model.uri), retriever.uri, index.uri, query_tower),
        index.uri,
        trained,
        split_patterns(examples, EVAL_SPLIT),
        split_patterns(catalogue, CATALOGUE_SPLIT),
        spec.catalogue.filters,
        least_recall,
    )
    with TemporaryDirectory() as folder:
        progress("serves the version as it would be pushed", 0.1)
        PushFolder(folder).push(version.sources, date.fromisoformat(day), run="", model=model.uri, metrics={})
        faults = version.faults(Path(folder), tensorflow)
    mark = tfx_infra_validator._mark_not_blessed if faults else tfx_infra_validator._mark_blessed
    mark(blessing)
    blessing.set_string_custom_property(recorded.REFUSED, json.dumps(faults))
