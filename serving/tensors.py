"""Converts NumPy arrays to TensorFlow's TensorProto and back, for server and client; text is an array of bytes objects."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.errors import invalid
from serving.settings import Limits

# For each dtype, NumPy's, and the field that holds its values where they are not packed.
_FORMS: dict[int, tuple[np.dtype[Any], str]] = {
    types_pb2.DT_STRING: (np.dtype(object), "string_val"),
    types_pb2.DT_FLOAT: (np.dtype(np.float32), "float_val"),
    types_pb2.DT_DOUBLE: (np.dtype(np.float64), "double_val"),
    types_pb2.DT_INT32: (np.dtype(np.int32), "int_val"),
    types_pb2.DT_INT64: (np.dtype(np.int64), "int64_val"),
    types_pb2.DT_BOOL: (np.dtype(np.bool_), "bool_val"),
}
_DTYPES = {form[0]: dtype for dtype, form in _FORMS.items()}
MOST_DIMENSIONS = 32  # NumPy's limit is twice that


@dataclass(frozen=True)
class Spec:
    """A signature's declaration of an input.

    Attributes:
        dtype: NumPy's dtype.
        shape: -1 for any size; None for any rank.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None

    def check(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Compare a tensor with its declaration.

        Raises:
            RequestError: INVALID_ARGUMENT, they differ.
        """
        if dtype != self.dtype:
            raise invalid(f"{name}: expected the dtype {_named(self.dtype)}, received {_named(dtype)}")
        declared = self.shape
        if declared is None:
            fits = len(shape) <= MOST_DIMENSIONS
        else:
            fits = len(shape) == len(declared) and all(d in (-1, size) for size, d in zip(shape, declared, strict=True))
        if not fits:
            wanted = "any" if declared is None else ", ".join("?" if size < 0 else str(size) for size in declared)
            received = list(shape) if len(shape) <= MOST_DIMENSIONS else f"{len(shape)} dimensions"
            raise invalid(f"{name}: expected the shape [{wanted}], received {received}")


def dtype_of(code: int) -> np.dtype[Any]:
    """Return NumPy's dtype for one of TensorFlow's.

    Raises:
        RequestError: INVALID_ARGUMENT, it is not served.
    """
    if code not in _FORMS:
        expected = ", ".join(types_pb2.DataType.Name(number) for number in _FORMS)
        raise invalid(f"expected a dtype of {expected}, received {code}")
    return _FORMS[code][0]


def to_proto(array: NDArray[Any]) -> tensor_pb2.TensorProto:
    """Pack an array with one entry of a repeated field for each value, like TF Serving.

    Raises:
        KeyError: its dtype is not served.
    """
    proto = tensor_pb2.TensorProto(dtype=_DTYPES[array.dtype])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _FORMS[proto.dtype][1]).extend(array.ravel().tolist())
    return proto


def from_proto(proto: tensor_pb2.TensorProto, name: str, spec: Spec, limits: Limits) -> NDArray[Any]:
    """Unpack an array, which may be read-only. Its dtype, shape and size are checked before anything is unpacked.

    Args:
        proto: values packed, listed, or fewer than the shape has; then the last one is repeated.
        name: the tensor's name in errors.
        spec: the signature's declaration.
        limits: of a request.

    Raises:
        RequestError: INVALID_ARGUMENT, shape, dtype and values contradict each other, the signature or the limits.
    """
    dtype, field = dtype_of(proto.dtype), _FORMS[proto.dtype][1]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"tensor parsing error: {name}: expected a shape of known sizes, received {list(shape)[:8]}")
    spec.check(name, dtype, shape)
    count = math.prod(shape)
    if count > limits.values:
        raise invalid(
            f"tensor parsing error: {name}: expected a shape of at most {limits.values} values, received {list(shape)}"
        )
    if proto.tensor_content:
        if dtype.hasobject or len(proto.tensor_content) != count * dtype.itemsize:
            raise _disagree(name, shape, f"{len(proto.tensor_content)} bytes")
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    values = getattr(proto, field)
    missing = count - len(values)
    if missing < 0:
        raise _disagree(name, shape, f"{len(values)} values")
    sent = list(values)
    last: Any = sent[-1] if sent else b"" if dtype.hasobject else 0
    if dtype.hasobject and missing * len(last) > limits.request_bytes:
        raise invalid(
            f"tensor parsing error: {name}: expected texts of at most {limits.request_bytes} bytes, each repetition counted"
        )
    array = np.empty(count, dtype)
    array[: len(sent)] = sent
    array[len(sent) :] = last
    return array.reshape(shape)


def _disagree(name: str, shape: tuple[int, ...], received: str) -> Exception:
    return invalid(f"tensor parsing error: {name}: expected what the shape {list(shape)} holds, received {received}")


def _named(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.hasobject else dtype.name
