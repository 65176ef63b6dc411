"""A model as the Trainer leaves it, but untrained: both towers behind a transform that hashes every id, and the checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.tf_metadata import schema_utils
from tfx import types
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from components.analysis import files as analysis_files
from components.analysis.vocabulary import Known
from components.artifacts import warm_start_folder
from components.trainer import warm_start
from components.trainer.export import export_tower
from components.trainer.inputs import catalogue_inputs, lookup_for_queries
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.transform import raw_features
from components.transform.component import write_graph
from components.transform.model_inputs import ModelInputs
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

FIXED = {CANDIDATE_ID: tf.string, QUERY_ID: tf.string, TIMESTAMP: tf.int64, REWARD: tf.float32}


def trainer_settings(towers: dict[str, list[int]], seed: int = 0) -> TrainerSettings:
    return TrainerSettings.model_validate({"towers": towers, "seed": seed, "frequency": {"buckets": 16}})


Adjust = Callable[[TwoTowerModel, Callable[[dict[str, Any]], dict[str, Any]]], None]
"""Gives a model other weights; it is also given the transform, from raw features to the towers' inputs."""


def export(
    spec: FeatureSpec,
    towers: dict[str, list[int]],
    folder: Path,
    seed: int = 0,
    adjust: Adjust | None = None,
    catalogue: str = "",
) -> types.Artifact:
    """Of the catalogue, the pattern of its files: what queries are looked up in, where features of theirs are."""
    analysis_files.write(str(folder / "analysis"), {name: Known() for name in spec.tables}, {}, span=0)
    dtypes = {**raw_features.dtypes(spec.features), **FIXED}
    schema = schema_utils.schema_from_feature_spec({n: tf.io.VarLenFeature(dtype) for n, dtype in dtypes.items()})
    config = {"feature_spec": spec.model_dump_json(), "analysis": str(folder / "analysis")}
    io_utils.write_pbtxt_file(str(folder / "schema.pbtxt"), schema)
    write_graph(str(folder / "transform"), str(folder / "schema.pbtxt"), config)
    rows = {name: table.hash_buckets for name, table in spec.tables.items()}
    settings = trainer_settings(towers, seed)
    model = build_model(spec, rows, settings)
    transform = tft.TFTransformOutput(str(folder / "transform"))
    transformed = ModelInputs(spec, transform)
    parsed = {name: tf.io.VarLenFeature(dtype) for name, dtype in dtypes.items()}
    inputs = transformed(tf.io.parse_example([tf.train.Example().SerializeToString()], parsed))
    lookup = lookup_for_queries(spec, catalogue_inputs([catalogue], spec, transform)) if catalogue else None
    queries = ModelInputs(spec, transform, lookup)
    model.query_tower(lookup.of_query(spec, inputs) | inputs if lookup else inputs)  # makes the layers' weights
    model.item_tower(inputs)
    if adjust:
        adjust(model, transformed)
    export_tower(model.query_tower, spec.raw_query, queries, str(folder / "Format-Serving"), model.repeat_bonus)
    export_tower(model.item_tower, spec.item, transformed, str(folder / "Format-Serving"))
    model.compile(optimizer=build_optimizer(settings))
    shape = warm_start.shape(spec, settings)
    warm_start.save(TrainingState(model), shape, str(folder / "analysis"), warm_start_folder(str(folder)))
    made = standard_artifacts.Model()
    made.uri = str(folder)
    return made
