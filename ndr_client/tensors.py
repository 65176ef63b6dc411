"""Converts NumPy arrays to TensorFlow's tensors on the wire and back; text is an array of bytes objects."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ndr_client import protocol_pb2 as protocol

# For each dtype NumPy's, and the field that holds its values where they are not packed.
_FORMS: dict[protocol.DataType, tuple[np.dtype[Any], str]] = {
    protocol.STRING: (np.dtype(object), "strings"),
    protocol.FLOAT: (np.dtype("<f4"), "floats"),
    protocol.DOUBLE: (np.dtype("<f8"), "doubles"),
    protocol.INT32: (np.dtype("<i4"), "int32s"),
    protocol.INT64: (np.dtype("<i8"), "int64s"),
    protocol.BOOL: (np.dtype(np.bool_), "bools"),
}
_DTYPES = {form[0]: dtype for dtype, form in _FORMS.items()}


def to_array(values: ArrayLike) -> NDArray[Any]:
    """Return an array of a dtype that models take: text as bytes objects, and Python's own floats as float32.

    Raises:
        ValueError: the rows differ in length.
    """
    if isinstance(values, np.ndarray) and values.dtype.kind not in "OSU":
        return values
    array = np.array(values, object)  # NumPy's own bytes would lose trailing zeros
    if not array.size or any(isinstance(value, str | bytes) for value in array.flat):
        encoded = [value.encode() if isinstance(value, str) else value for value in array.flat]
        return np.array(encoded, object).reshape(array.shape)
    plain = np.array(array.tolist())
    return plain.astype(np.float32) if plain.dtype == np.float64 else plain


def to_message(values: ArrayLike) -> protocol.Tensor:
    """Pack values for a request.

    Raises:
        ValueError: no model takes their dtype, or the rows differ in length.
    """
    array = to_array(values)
    dtype = _DTYPES.get(array.dtype)
    if dtype is None:
        expected = ", ".join(str(kind) for kind in _DTYPES)
        raise ValueError(f"expected values of a dtype of {expected}, received {array.dtype}")
    message = protocol.Tensor(dtype=dtype)
    for size in array.shape:
        message.shape.dim.add(size=size)
    if array.dtype.hasobject:
        message.strings.extend(array.ravel().tolist())
    else:
        message.content = array.astype(_FORMS[dtype][0], copy=False).tobytes()
    return message


def to_values(message: protocol.Tensor, name: str) -> NDArray[Any]:
    """Unpack an answer; the array may be read-only.

    Args:
        message: values packed or listed, as many as its shape has.
        name: the tensor's name in errors.

    Raises:
        ValueError: shape, dtype and values contradict each other, or the client does not know the dtype.
    """
    if message.dtype not in _FORMS:
        expected = ", ".join(protocol.DataType.Name(number) for number in _FORMS)
        raise ValueError(f"{name}: expected a dtype of {expected}, received TensorFlow's number {message.dtype}")
    dtype, field = _FORMS[message.dtype]
    shape = tuple(dim.size for dim in message.shape.dim)
    count = math.prod(shape)
    if message.content:
        received = len(message.content) / dtype.itemsize
    else:
        received = len(getattr(message, field))
    if received != count or any(size < 0 for size in shape) or (message.content and dtype.hasobject):
        raise ValueError(f"{name}: expected the {count} values of the shape {list(shape)}, received {received:g}")
    if message.content:
        return np.frombuffer(message.content, dtype).reshape(shape)
    return np.array(list(getattr(message, field)), dtype).reshape(shape)
