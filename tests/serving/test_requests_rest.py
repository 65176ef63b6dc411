"""The same over REST: the two forms of a request, and what is refused with TF Serving's status and words."""

import base64
import http.client
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from serving import json_tensors
from serving.errors import RequestError
from serving.servable import Signature
from serving.server import EmbeddedServer
from serving.settings import Limits
from serving.tensors import Spec
from tests.serving.tiny import DAY, example

Ask = Callable[..., tuple[int, Any]]
VERSION = f"{DAY:%Y%m%d}001"
ROW = {"angle": 0.6, "past": ["a"], "k": 2, "exclude": [""]}


@pytest.fixture
def ask(served: EmbeddedServer) -> Ask:
    def send(path: str, content: Any = None, method: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", served.rest_port, timeout=900)
        body = content if isinstance(content, bytes) or content is None else json.dumps(content)
        connection.request(method or ("GET" if body is None else "POST"), path, body)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, json.loads(text) if response.getheader("Content-Type", "").startswith("app") else text

    return send


@pytest.mark.parametrize("path", ["/v1/models/retriever", f"/v1/models/retriever/versions/{VERSION}"])
def test_rows_are_answered_by_rows(ask: Ask, path: str) -> None:
    status, answer = ask(f"{path}:predict", {"instances": [ROW, {**ROW, "angle": 2.1, "exclude": ["one-4"]}]})
    assert status == 200
    first, second = answer["predictions"]
    assert first["item_ids"] == ["one-1", "one-2"] and second["item_ids"] == ["one-3", "one-2"]
    np.testing.assert_allclose(first["scores"], [math.cos(0.1), math.cos(0.4)], rtol=1e-6)
    # A float32 as short as it can be told: 0.99500418, not 0.9950041770935059.
    assert len(str(first["scores"][0])) <= 10


def test_columns_are_answered_by_columns(ask: Ask) -> None:
    columns = {"angle": [0.6], "past": [["a"]], "k": [1], "exclude": [["one-1"]]}
    status, answer = ask("/v1/models/retriever:predict", {"signature_name": "serving_default", "inputs": columns})
    assert (status, answer["outputs"]["item_ids"]) == (200, [["one-2"]])


def test_lists_of_texts_may_be_left_out(ask: Ask) -> None:
    """Regression: a request without `exclude`, which few need, was refused."""
    bare = {"angle": 0.6, "k": 2}
    status, answer = ask("/v1/models/retriever:predict", {"instances": [bare, bare]})
    assert (status, [row["item_ids"] for row in answer["predictions"]]) == (200, [["one-1", "one-2"]] * 2)
    # Beside a row that has them, too.
    status, answer = ask("/v1/models/retriever:predict", {"instances": [bare, {**ROW, "exclude": ["one-1"]}]})
    assert (status, [row["item_ids"][0] for row in answer["predictions"]]) == (200, ["one-1", "one-2"])
    status, answer = ask("/v1/models/retriever:predict", {"inputs": {"angle": [0.6], "k": [1]}})
    assert (status, answer["outputs"]["item_ids"]) == (200, [["one-1"]])
    status, _ = ask("/v1/models/retriever:predict", {"instances": [{**bare, "exlude": ["one-1"]}]})
    assert status == 400


def test_an_only_input_and_output_needs_no_name(ask: Ask) -> None:
    packed = {"b64": base64.b64encode(example(2.0, feature="number")).decode()}
    for form, answers in (("instances", "predictions"), ("inputs", "outputs")):
        content = {"signature_name": "serving_examples", form: [packed]}
        status, answer = ask("/v1/models/item_tower:predict", content)
        assert status == 200
        np.testing.assert_allclose(answer[answers], [[math.cos(1.0), math.sin(1.0)]], rtol=1e-6)


def test_nan_round_trips(ask: Ask) -> None:
    status, answer = ask("/v1/models/item_tower:predict", b'{"instances": [NaN, Infinity]}')
    assert status == 200 and all(math.isnan(value) for row in answer["predictions"] for value in row)


DEEP = b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
P = "/v1/models/item_tower:predict"
BAD = {
    "no JSON": (P, b"{", 400, "JSON Parse error: "),
    "no text": (P, b"\xff\xfe", 400, "JSON Parse error: "),
    "nothing": (P, b"", 400, "JSON Parse error: "),
    "too deep": (P, DEEP, 400, "JSON Parse error: "),
    "deep": (P, {"instances": json.loads("[" * 60 + "]" * 60)}, 400, "number: JSON Value: a list of 1 is not of expected"),
    "a list": (P, [1], 400, "JSON Value: a list of 1 Is not object"),
    "no rows": (P, {"instances": []}, 400, "No values in 'instances' array"),
    "rows that are none": (P, {"instances": 3}, 400, "JSON Value: 3 Expecting 'instances' to be an list/array"),
    "neither form": (P, {}, 400, "Missing 'inputs' or 'instances' key"),
    "both forms": (P, {"inputs": [1.0], "instances": [1.0]}, 400, "expected only one of 'inputs' or 'instances' keys"),
    "a signature that is no name": (P, {"signature_name": 3, "inputs": []}, 400, "'signature_name' key must be a string"),
    "unknown signature": (
        P, {"signature_name": "none", "inputs": []}, 400, 'Serving signature name: "none" not found in signature def',
    ),
    "text for a number": (
        P, {"instances": ["1"]}, 400, 'number: JSON Value: "1" is not of expected type: float32',
    ),
    "truth for a number": (P, {"instances": [True]}, 400, "number: JSON Value: true is not of expected type: float32"),
    "too large a number": (P, {"instances": [1e39]}, 400, "Cannot convert JSON value: 1e+39 to float32 without loss"),
    "a number of 400 digits": (P, b'{"instances": [1' + b"0" * 400 + b"]}", 400, "Cannot convert JSON value: 1000"),
    "ragged rows": (
        P, {"instances": [[1.0], [1.0, 2.0]]}, 400,
        "number: expected lists of one size at each level, a list of 1 here, received a list of 2",
    ),
    "wrong shape": (P, {"instances": [[1.0]]}, 400, "number: expected the shape [?], received [1, 1]"),
    "null": (P, {"instances": [None]}, 400, "number: JSON Value: null is not of expected type: float32"),
    "missing feature": (
        "/v1/models/query_tower:predict", {"instances": [{"past": ["a"]}]}, 400,
        "Failed to process element: 0 of 'instances' list. JSON object: a dict of 1 keys must be equal to: angle,past",
    ),
    "missing column": (
        "/v1/models/query_tower:predict", {"inputs": {"past": [["a"]]}}, 400,
        "Missing named input: angle in 'inputs' object.",
    ),
    "unknown column": (P, {"inputs": {"number": [1.0], "x": []}}, 400, "JSON object: does not have named input: x"),
    "no names": (
        "/v1/models/query_tower:predict", {"instances": [1.0]}, 400, "instances is a plain value/list, but expecting",
    ),
    "no base 64": (
        P, {"signature_name": "serving_examples", "instances": [{"b64": "?"}]}, 400, "examples: Unable to base64 decode",
    ),
    "k of 0": ("/v1/models/retriever:predict", {"instances": [{**ROW, "k": 0}]}, 400, "k: expected at least 1"),
    "an optional list that is none, beside a row without it": (
        "/v1/models/retriever:predict", {"instances": [{**ROW, "exclude": 5}, {"angle": 0.6, "k": 1}]}, 400,
        "exclude: JSON Value: 5 is not of expected type: string",
    ),
    "k that is no int32": (
        "/v1/models/retriever:predict", {"instances": [{**ROW, "k": 1 << 31}]}, 400,
        "k: JSON Value: 2147483648 is not of expected type: int32",
    ),
    "unknown model": ("/v1/models/none:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(none)"),
    "unknown version": (
        "/v1/models/retriever/versions/7:predict", {"instances": [1]}, 404,
        "Servable not found for request: Specific(retriever, 7)",
    ),
    "a version beyond all": (
        f"/v1/models/retriever/versions/{1 << 64}:predict", {"instances": [1]}, 400, "Failed to convert version: 18446",
    ),
    "a version of 5,000 digits": (f"/v1/models/retriever/versions/{'1' * 5000}", None, 400, "Failed to convert version: 1"),
    "another method": ("/v1/models/retriever:classify", {}, 400, "Malformed request: POST /v1/models/retriever:classify"),
    "a place of two lines": ("/v2%0A", None, 400, "Malformed request: GET /v2\n"),
    "another place": ("/v2", None, 400, "Malformed request: GET /v2"),
    "a status of none": ("/v1/models/none", None, 404, "Could not find any versions of model none"),
    "metadata of none": ("/v1/models/none/metadata", None, 404, "Servable not found for request: Latest(none)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_invalid_requests_get_tf_servings_status(ask: Ask, case: str) -> None:
    path, content, status, words = BAD[case]
    found, answer = ask(path, content)
    assert found == status and words in answer["error"]
    assert len(answer["error"]) <= 1000
    assert ask(P, {"instances": [1.0]})[0] == 200


def test_a_body_that_is_too_large_is_refused(ask: Ask) -> None:
    status, answer = ask(P, b" " * ((4 << 20) + 1))
    assert (status, answer["error"]) == (413, "expected a body of at most 4194304 bytes")
    assert ask(P, {"instances": [1.0]})[0] == 200


def test_a_megabyte_of_text_is_taken(ask: Ask) -> None:
    status, answer = ask("/v1/models/retriever:predict", {"instances": [{**ROW, "past": ["x" * (1 << 20)]}]})
    assert (status, answer["predictions"][0]["item_ids"]) == (200, ["one-1", "one-2"])


def test_the_status_and_the_metadata(ask: Ask) -> None:
    status, answer = ask("/v1/models/retriever")
    state = {"version": VERSION, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert (status, answer) == (200, {"model_version_status": [state]})
    assert ask(f"/v1/models/retriever/versions/{VERSION}") == (200, answer)
    status, answer = ask("/v1/models/item_tower/metadata")
    assert status == 200 and answer["model_spec"] == {"name": "item_tower", "version": VERSION}
    number = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["number"]
    assert (number["dtype"], number["tensor_shape"]) == ("DT_FLOAT", {"dim": [{"size": "-1"}]})


def test_text_that_is_not_utf_8_has_no_form_in_json_unless_its_name_says_bytes() -> None:
    raw = np.array([b"\xff"], object)
    with pytest.raises(RequestError, match="ids: expected UTF-8, which JSON needs"):
        json_tensors.write({"ids": raw}, by_rows=False)
    assert json.loads(json_tensors.write({"ids_bytes": raw}, by_rows=False)) == {"outputs": [{"b64": "/w=="}]}


@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_a_float32_round_trips(array: NDArray[np.float32]) -> None:
    told = json.loads(json_tensors.write({"x": array}, by_rows=True))["predictions"]
    assert np.array_equal(np.array(told, np.float32), array)


def test_ages_that_are_left_out_are_not_known() -> None:
    lists = (-1, -1)
    inputs = {"past": Spec(np.dtype(object), lists), "past_ages": Spec(np.dtype(np.float32), lists)}
    signature = Signature.__new__(Signature)
    signature.inputs = inputs
    rows = [{"past": ["a", "b"]}, {"past": ["c", "d"], "past_ages": [3, 2]}]
    found = json_tensors.read({"instances": rows}, lambda name: signature, Limits()).inputs["past_ages"]
    assert found.tolist() == [[pytest.approx(np.nan, nan_ok=True)] * 2, [3.0, 2.0]]
    by_columns = json_tensors.read({"inputs": {"past": [["a", "b"]]}}, lambda name: signature, Limits()).inputs
    assert by_columns["past_ages"].shape == (1, 0) and by_columns["past"].tolist() == [[b"a", b"b"]]
    signature.inputs = {**inputs, "weights": Spec(np.dtype(np.float32), lists)}
    with pytest.raises(RequestError, match="Missing named input: weights"):
        json_tensors.read({"inputs": {"past": [["a"]]}}, lambda name: signature, Limits())
