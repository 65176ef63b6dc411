"""ML Metadata's properties as Python values."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from ml_metadata.proto import metadata_store_pb2 as mlmd


def values_of(artifact: mlmd.Artifact | None) -> dict[str, Any]:
    """Return an artifact's properties by name, those that its type declares and its own; empty for None.

    The names and shapes stand in `components.recorded`.
    """
    return {} if artifact is None else {**values(artifact.properties), **values(artifact.custom_properties)}


def values(properties: Mapping[str, mlmd.Value]) -> dict[str, Any]:
    """Convert properties, sorted by name."""
    plain = {}
    for name, value in properties.items():
        kind = value.WhichOneof("value")
        if kind:
            held = getattr(value, kind)
            plain[name] = MessageToDict(held) if kind in ("struct_value", "proto_value") else held
    return dict(sorted(plain.items()))
