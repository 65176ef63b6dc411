"""tf.train.Examples without TensorFlow."""

from collections.abc import Mapping, Sequence
from numbers import Real

from google.protobuf.message import DecodeError

from ndr_client import protocol_pb2 as protocol

Value = str | bytes | int | float
"""A feature's value: text for an id, even if it looks like a number; a number for a number."""


def texts(serialized: bytes, name: str) -> list[bytes]:
    """Return the texts of a feature of a serialised Example; empty if it has none.

    Raises:
        ValueError: it is not an Example.
    """
    try:
        feature = protocol.Example.FromString(serialized).features.feature
    except DecodeError as error:
        raise ValueError(f"expected a serialised tf.train.Example, received {serialized[:40]!r}") from error
    return list(feature[name].texts.value) if name in feature else []


def example(features: Mapping[str, Value | Sequence[Value]]) -> bytes:
    """Serialise a query or an item as a tf.train.Example.

    Example:
        example({"user_id": "13", "history": ["242", "302"], "age": 25})

    Args:
        features: by name a value, or a list for several. An empty or omitted feature is missing.

    Raises:
        TypeError: the values of a feature are not all text or all numbers.
    """
    message = protocol.Example()
    for name, content in features.items():
        values = [content] if isinstance(content, str | bytes | int | float) else list(content)
        feature = message.features.feature[name]
        if all(isinstance(value, str | bytes) for value in values):
            feature.texts.value.extend(value.encode() if isinstance(value, str) else value for value in values)
        elif all(isinstance(value, Real) for value in values):  # includes NumPy's numbers
            feature.floats.value.extend(values)
        else:
            kinds = ", ".join(sorted({type(value).__name__ for value in values}))
            raise TypeError(f"{name}: expected values that are all text or all numbers, received {kinds}")
        if not values:
            del message.features.feature[name]
    return message.SerializeToString(deterministic=True)
