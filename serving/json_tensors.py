"""Predict over REST: converts JSON to arrays and back, in TF Serving's two forms.

    {"signature_name": NAME, "instances": [{INPUT: VALUE, ...}, ...]}   row by row, answered with {"predictions": [...]}
    {"signature_name": NAME, "inputs": {INPUT: [VALUE, ...], ...}}      column by column, answered with {"outputs": ...}

A list of texts, such as `exclude`, may be omitted, also in single rows; it is then empty, which TF Serving does not allow. So may
the ages of a history's items, which are then unknown. A model's only input or output needs no name. Bytes are {"b64": TEXT}; so are
outputs whose names end in `_bytes`.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from ndr_client import json_text
from schemas.features import AGES_SUFFIX
from serving.errors import RequestError, invalid
from serving.servable import Signature
from serving.settings import Limits
from serving.tensors import Spec

BASE64 = "b64"
BYTES_SUFFIX = "_bytes"
DEEPEST = 32  # levels of lists, NumPy's limit being twice that
_SHOWN = 80  # characters of a value, in an error


@dataclass(frozen=True)
class JsonRequest:
    """A parsed request.

    Attributes:
        signature: the name of its signature; empty for the default.
        inputs: its arrays.
        by_rows: whether it had `instances`, and the answer gets that form.
    """

    signature: str
    inputs: dict[str, NDArray[Any]]
    by_rows: bool


def parse(body: bytes, limits: Limits) -> Any:
    """Parse JSON. Its values are counted before it is parsed, because parsing blocks every other thread.

    Args:
        body: NaN, Infinity and -Infinity are numbers.
        limits: of a request.

    Raises:
        RequestError: INVALID_ARGUMENT, it has too many values, is nested too deeply, or is not JSON.
    """
    values = sum(map(body.count, (b",", b"[", b"{")))  # not fewer than the values
    if values > limits.values:
        raise invalid(f"expected a body with at most {limits.values} of the signs , [ and {{, received {values}")
    try:
        return json_text.parse(body)
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error


def read(content: Any, signature_of: Callable[[str], Signature], limits: Limits) -> JsonRequest:
    """Read a request.

    Args:
        content: its JSON.
        signature_of: finds a signature by its name, which may be empty.
        limits: of a request.

    Raises:
        RequestError: INVALID_ARGUMENT, with the place.
    """
    if not isinstance(content, dict):
        raise invalid(f"JSON Value: {_shown(content)} Is not object")
    name = content.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    if "instances" in content and "inputs" in content:
        raise invalid("expected only one of 'inputs' or 'instances' keys to exist")
    signature = signature_of(name)
    if "instances" in content:
        return JsonRequest(name, _from_rows(content["instances"], signature, limits), True)
    if "inputs" in content:
        return JsonRequest(name, _from_columns(content["inputs"], signature), False)
    raise invalid("Missing 'inputs' or 'instances' key")


def write(outputs: Mapping[str, NDArray[Any]], by_rows: bool) -> str:
    """Write an answer, row by row, because a large answer at once would block every other thread.

    Raises:
        RequestError: FAILED_PRECONDITION, a text is not UTF-8, and JSON has no other form for it.
    """
    if by_rows:
        columns = {name: _rows(name, array) for name, array in outputs.items()}
        rows = (
            next(iter(columns.values()))
            if len(columns) == 1
            else [_object(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        )
        return _object({"predictions": _list(rows)})
    written = {
        name: _list(_rows(name, array)) if array.ndim else json.dumps(_values(name, array))
        for name, array in outputs.items()
    }
    return _object({"outputs": next(iter(written.values())) if len(written) == 1 else _object(written)})


def _rows(name: str, array: NDArray[Any]) -> list[str]:
    return [json.dumps(_values(name, np.asarray(row, array.dtype))) for row in array]


def _list(written: Iterable[str]) -> str:
    return f"[{', '.join(written)}]"


def _object(written: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{json.dumps(name)}: {value}' for name, value in written.items())}}}"


def _from_rows(instances: Any, signature: Signature, limits: Limits) -> dict[str, NDArray[Any]]:
    if not isinstance(instances, list):
        raise invalid(f"JSON Value: {_shown(instances)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid("No values in 'instances' array")
    required = sorted(name for name, spec in signature.inputs.items() if not _is_optional(name, spec))
    if not _is_named(instances[0]):
        return {_only_input(signature, "instances"): _column(_only_input(signature, "instances"), instances, signature)}
    for number, row in enumerate(instances):
        if not _is_named(row) or not set(required) <= row.keys() <= signature.inputs.keys():
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {_shown(row)} "
                f"keys must be equal to: {','.join(sorted(signature.inputs))}"
            )
    return {
        name: _column(name, _with_empty(name, instances, spec, limits), signature)
        for name, spec in sorted(signature.inputs.items())
    }


def _is_optional(name: str, spec: Spec) -> bool:
    """Return whether it is a list in each row, which may be empty: of texts, or of ages."""
    return spec.shape == (-1, -1) and (spec.dtype == object or name.endswith(AGES_SUFFIX))


def _with_empty(name: str, rows: list[Any], spec: Spec, limits: Limits) -> list[Any]:
    """Complete a column: rows that lack it get as many empty texts, or NaN, as the others have values."""
    first: Any = next((row[name] for row in rows if name in row), [])
    width = len(first) if isinstance(first, list) else 0
    if len(rows) * width > limits.values:  # a long list would be repeated in each incomplete row
        raise invalid(f"{name}: expected at most {limits.values} values, received {len(rows)} rows of {width}")
    empty: Any = "" if spec.dtype == object else float("nan")
    return [row[name] if name in row else [empty] * width for row in rows]


def _from_columns(inputs: Any, signature: Signature) -> dict[str, NDArray[Any]]:
    if not _is_named(inputs):
        return {_only_input(signature, "inputs"): _column(_only_input(signature, "inputs"), inputs, signature)}
    for name, spec in signature.inputs.items():
        if name not in inputs and not _is_optional(name, spec):
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    for name in inputs:
        if name not in signature.inputs:
            raise invalid(f"JSON object: does not have named input: {name}")
    rows = max((len(column) for column in inputs.values() if isinstance(column, list)), default=0)
    return {name: _column(name, inputs.get(name, [[]] * rows), signature) for name in signature.inputs}


def _only_input(signature: Signature, key: str) -> str:
    if len(signature.inputs) != 1:
        raise invalid(f"{key} is a plain value/list, but expecting an object as multiple input tensors required")
    return next(iter(signature.inputs))


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() != {BASE64}


def _column(name: str, values: Any, signature: Signature) -> NDArray[Any]:
    """Convert nested lists of one size at each level, with values of one kind, to an array."""
    spec = signature.inputs[name]
    shape: list[int] = []
    inner = values
    while isinstance(inner, list) and len(shape) < DEEPEST:
        shape.append(len(inner))
        inner = inner[0] if inner else None
    leaves = [_leaf(name, value, spec.dtype) for value in _leaves(name, values, shape)]
    spec.check(name, spec.dtype, tuple(shape))
    return np.array(leaves, spec.dtype).reshape(shape)


def _leaves(name: str, value: Any, shape: list[int]) -> Iterator[Any]:
    if not shape:
        yield value
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        received = f"a list of {len(value)}" if isinstance(value, list) else _shown(value)
        raise invalid(
            f"{name}: expected lists of one size at each level, a list of {shape[0]} here, received {received}"
        )
    for element in value:
        yield from _leaves(name, element, shape[1:])


def _leaf(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    match dtype.kind, value:
        case "O", str():
            return value.encode("utf-8", "surrogatepass")
        case "O", {"b64": str(text)} if len(value) == 1:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise invalid(f"{name}: Unable to base64 decode {_shown(text)}") from error
        case "b", bool():
            return value
        case "i", int() if not isinstance(value, bool) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            return value
        case "f", int() | float() if not isinstance(value, bool):
            if abs(value) > float(np.finfo(dtype).max) and value not in (float("inf"), float("-inf")):
                raise invalid(f"Cannot convert JSON value: {_shown(value)} to {dtype.name} without loss of precision.")
            return float(value)
    wanted = "string" if dtype.kind == "O" else dtype.name
    raise invalid(f"{name}: JSON Value: {_shown(value)} is not of expected type: {wanted}")


def _values(name: str, array: NDArray[Any]) -> Any:
    if array.dtype == np.float32:  # the shortest text that is this float32, not the double nearest to it
        return array.astype(str).astype(np.float64).tolist()
    if array.dtype != object:
        return array.tolist()
    flat = np.array([_text(name, value) for value in array.ravel()], object)
    return flat.reshape(array.shape).tolist()


def _text(name: str, value: bytes) -> Any:
    if name.endswith(BYTES_SUFFIX):
        return {BASE64: base64.b64encode(value).decode()}
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            grpc.StatusCode.FAILED_PRECONDITION,
            f"{name}: expected UTF-8, which JSON needs, found {value[:_SHOWN]!r}. Ask over gRPC.",
        ) from error


def _shown(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, list | dict) else f"a {type(value).__name__} of {len(value)}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
