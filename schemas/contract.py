"""The TensorFlow Metadata schemas of a dataset, which constrain its interactions and its catalogue.

The feature specification lists the features; the schemas, in the dataset's folder, may constrain their values further:
domains, ranges, required presence. A first draft is derived from the specification.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from schemas.errors import UserError
from schemas.features import (
    AGES_SUFFIX,
    CANDIDATE_ID,
    EVENT_KIND,
    QUERY_ID,
    REWARD,
    TIMESTAMP,
    TITLE,
    WEIGHTS_SUFFIX,
    Feature,
    FeatureSpec,
    HistoryFeature,
    IdFeature,
    IdsFeature,
    NumberFeature,
    Numeric,
    TextFeature,
    VectorFeature,
)

INTERACTIONS_FILE = "interactions.pbtxt"
CATALOGUE_FILE = "catalogue.pbtxt"


@dataclass(frozen=True)
class Contract:
    """The two schemas of a dataset.

    Attributes:
        interactions: the schema of the training examples, including item features.
        catalogue: the schema of the catalogue's examples.
    """

    interactions: schema_pb2.Schema
    catalogue: schema_pb2.Schema


def draft(spec: FeatureSpec) -> Contract:
    """Derive what the specification implies: names, types, required features, and numbers of values."""
    interactions = schema_pb2.Schema()
    for name in (CANDIDATE_ID, QUERY_ID):
        _add(interactions, name, schema_pb2.BYTES, required=True, several=False)
    _add(interactions, TIMESTAMP, schema_pb2.INT, required=True, several=False)
    reward = _add(interactions, REWARD, schema_pb2.FLOAT, required=True, several=False)
    reward.float_domain.min, reward.float_domain.max = 0.0, 1.0
    if spec.has_events:
        _add(interactions, EVENT_KIND, schema_pb2.BYTES, required=True, several=False)
    _add_features(interactions, spec.features)
    catalogue = schema_pb2.Schema()
    _add(catalogue, CANDIDATE_ID, schema_pb2.BYTES, required=True, several=False)
    if spec.catalogue.title:
        _add(catalogue, TITLE, schema_pb2.BYTES, required=False, several=False)
    _add_features(catalogue, spec.item)
    for name, column in spec.catalogue.filters.items():
        if name not in spec.item:
            kind = schema_pb2.FLOAT if column.kind == "number" else schema_pb2.BYTES
            _add(catalogue, name, kind, required=False, several=column.kind == "ids")
    return Contract(interactions, catalogue)


def write_drafts(folder: Path, spec: FeatureSpec) -> list[Path]:
    """Write a first draft of each schema missing from the dataset's folder; existing ones are left alone.

    Returns:
        The files written.
    """
    drafted = draft(spec)
    written = []
    for name, schema in ((INTERACTIONS_FILE, drafted.interactions), (CATALOGUE_FILE, drafted.catalogue)):
        path = folder / name
        if not path.exists():
            path.write_text(text_format.MessageToString(schema), encoding="utf-8")
            written.append(path)
    return written


def load(folder: Path, spec: FeatureSpec) -> Contract:
    """Read a dataset's schemas; a missing one is replaced by its draft.

    Raises:
        UserError: a schema cannot be parsed, or contradicts the specification.
    """
    drafted = draft(spec)
    of_pipeline = {EVENT_KIND, *(name + AGES_SUFFIX for name in spec.aged_histories)}
    return Contract(
        _load(folder / INTERACTIONS_FILE, drafted.interactions, of_pipeline),
        _load(folder / CATALOGUE_FILE, drafted.catalogue, set()),
    )


def _load(path: Path, drafted: schema_pb2.Schema, of_pipeline: set[str]) -> schema_pb2.Schema:
    if not path.exists():
        return drafted
    try:
        schema = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise UserError(f"{path}:{error}: expected a TensorFlow Metadata schema as text proto.") from error
    # A schema may be older than the features that the pipeline itself adds to examples.
    written = _types(schema)
    schema.feature.extend(feature for feature in drafted.feature if feature.name in of_pipeline - written.keys())
    expected, declared = _types(drafted), _types(schema)
    faults = [f"lacks the feature {name}" for name in expected if name not in declared]
    faults += [f"has a feature {name}, which the specification does not" for name in declared if name not in expected]
    faults += [
        f"gives {name} the type {declared[name]}; the specification implies {expected[name]}"
        for name in expected
        if name in declared and declared[name] != expected[name]
    ]
    if faults:
        raise UserError("\n".join(f"{path}: {fault}" for fault in faults))
    return schema


def _types(schema: schema_pb2.Schema) -> dict[str, str]:
    return {feature.name: schema_pb2.FeatureType.Name(feature.type) for feature in schema.feature}


def _add_features(schema: schema_pb2.Schema, features: Mapping[str, Feature]) -> None:
    for name, feature in features.items():
        kind = schema_pb2.FLOAT if isinstance(feature, Numeric) else schema_pb2.BYTES
        several = not isinstance(feature, IdFeature | NumberFeature | TextFeature)
        added = _add(schema, name, kind, required=False, several=several)
        if isinstance(feature, VectorFeature):
            added.value_count.min = added.value_count.max = feature.size
        if isinstance(feature, IdsFeature) and feature.weights:
            _add(schema, name + WEIGHTS_SUFFIX, schema_pb2.FLOAT, required=False, several=True)
        if isinstance(feature, HistoryFeature) and feature.has_ages:
            _add(schema, name + AGES_SUFFIX, schema_pb2.FLOAT, required=False, several=True)


def _add(
    schema: schema_pb2.Schema, name: str, kind: "schema_pb2.FeatureType.ValueType", *, required: bool, several: bool
) -> schema_pb2.Feature:
    feature = schema.feature.add(name=name, type=kind)
    feature.presence.min_fraction = 1.0 if required else 0.0
    feature.value_count.min = 1
    if not several:
        feature.value_count.max = 1
    return feature
