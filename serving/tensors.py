"""NumPy arrays as TensorFlow's TensorProto and back, for both ends of the wire; text is an array of bytes objects."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2, types_pb2

from serving.errors import invalid

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
MOST_VALUES = 1 << 26  # a few bytes may claim any shape, and the last value then stands for all that are missing


def dtype_of(code: int) -> np.dtype[Any]:
    """NumPy's dtype for one of TensorFlow's.

    Raises:
        RequestError: INVALID_ARGUMENT, it is none that is served.
    """
    if code not in _FORMS:
        known = ", ".join(types_pb2.DataType.Name(each) for each in _FORMS)
        raise invalid(f"expected a dtype of {known}, received {code}")
    return _FORMS[code][0]


def to_proto(array: NDArray[Any]) -> tensor_pb2.TensorProto:
    """Packs an array, a value a field's entry, as TF Serving answers.

    Raises:
        KeyError: its dtype is none that is served.
    """
    proto = tensor_pb2.TensorProto(dtype=_DTYPES[array.dtype])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    getattr(proto, _FORMS[proto.dtype][1]).extend(array.ravel().tolist())
    return proto


def from_proto(proto: tensor_pb2.TensorProto, name: str) -> NDArray[Any]:
    """Unpacks an array, which may be read-only.

    Args:
        proto: values packed, listed, or fewer than the shape asks for, the last of which then stands for the rest.
        name: what the tensor is called in errors.

    Raises:
        RequestError: INVALID_ARGUMENT, shape, dtype and values do not agree.
    """
    dtype, field = dtype_of(proto.dtype), _FORMS[proto.dtype][1]
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = math.prod(shape)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape) or count > MOST_VALUES:
        raise invalid(
            f"tensor parsing error: {name}: expected a shape of at most {MOST_VALUES} values, received {shape}"
        )
    if proto.tensor_content:
        if dtype.hasobject or len(proto.tensor_content) != count * dtype.itemsize:
            raise _disagree(name, shape, f"{len(proto.tensor_content)} bytes")
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    given = list(getattr(proto, field))
    if len(given) > count:
        raise _disagree(name, shape, f"{len(given)} values")
    missing = given[-1:] or [b"" if dtype.hasobject else dtype.type(0)]
    return np.array(given + missing * (count - len(given)), dtype).reshape(shape)


def _disagree(name: str, shape: tuple[int, ...], received: str) -> Exception:
    return invalid(f"tensor parsing error: {name}: expected what the shape {list(shape)} holds, received {received}")
