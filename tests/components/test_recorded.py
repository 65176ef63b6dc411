import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tfx.components.evaluator import constants
from tfx.components.example_gen import utils
from tfx.components.pusher import executor as pusher

from components import recorded

PROJECT = Path(__file__).parents[2]
FILES = [path for room in ("benchmarks", "components", "pipeline") for path in (PROJECT / room).rglob("*.py")]


def names(path: Path) -> Iterator[ast.expr]:
    """The names by which a module sets and gets the properties of artifacts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr.endswith("_custom_property"):
                yield node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("custom_properties"):
            yield node.slice


def test_the_code_takes_the_names_of_properties_from_one_place() -> None:
    found = [(path.relative_to(PROJECT), each) for path in FILES for each in names(path)]
    assert len(found) > 20
    assert [f"{path}:{each.lineno}: {each.value!r}" for path, each in found if isinstance(each, ast.Constant)] == []


def test_names_that_are_tfx_own() -> None:
    assert recorded.BLESSED == constants.ARTIFACT_PROPERTY_BLESSED_KEY
    assert recorded.BLESSED_MODEL == constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY
    assert (recorded.SPAN, recorded.FINGERPRINT) == (utils.SPAN_PROPERTY_NAME, utils.FINGERPRINT_PROPERTY_NAME)
    assert (recorded.PUSHED, recorded.VERSION) == (pusher._PUSHED_KEY, pusher._PUSHED_VERSION_KEY)


def test_json_is_decoded_and_empty_where_an_artifact_has_none() -> None:
    # An artifact of an older run has no such property; ML Metadata returns an empty text for one that was never set.
    assert recorded.decoded({recorded.REFUSED: '["too low"]'}, recorded.REFUSED) == ["too low"]
    assert recorded.decoded({}, recorded.REFUSED) == recorded.decoded({recorded.REFUSED: ""}, recorded.REFUSED) == []
    assert recorded.decoded({}, recorded.METRICS) == {}


def test_text_is_not_decoded() -> None:
    with pytest.raises(KeyError):
        recorded.decoded({}, recorded.CONTENT)
