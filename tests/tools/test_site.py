"""The site: what it has of the code is whole. `make docs`, which CI runs, builds it strictly."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import jsonschema
import markdown
import pytest
import yaml

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """tools/site_hooks.py, which MkDocs loads by its path."""
    spec = importlib.util.spec_from_file_location("site_hooks", PROJECT / "tools" / "site_hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["site_hooks"] = module
    spec.loader.exec_module(module)
    return module


def test_every_key_has_a_description(hooks: ModuleType) -> None:
    silent = {
        f"{model.__name__}.{key}"
        for path in hooks.SCHEMAS.values()
        for model in hooks.models(hooks.imported(path))
        for key in set(model.model_fields) - set(hooks.attributes(model))
    }
    assert silent == set()


def test_every_model_of_a_configuration_has_its_section(hooks: ModuleType) -> None:
    for page, path in (("configuration", "pipeline.config.Config"), ("features-keys", "schemas.features.FeatureSpec")):
        text = (PROJECT / "docs" / f"{page}.md").read_text()
        shown = {hooks.imported(name) for name in hooks.KEYS.findall(text)}
        assert shown == set(hooks.models(hooks.imported(path)))


@pytest.mark.parametrize("name", ["movielens", "movielens-daily"])
def test_editors_are_given_a_schema_that_takes_our_own_files(hooks: ModuleType, name: str) -> None:
    configuration = yaml.safe_load((PROJECT / "pipeline" / "configs" / f"{name}.yaml").read_text())
    configuration = json.loads(json.dumps(configuration, default=str))  # to an editor a date is a text
    schema = json.loads(json.dumps(hooks.described(hooks.SCHEMAS["configuration.schema.json"])))
    jsonschema.validate(configuration, schema)
    assert "the artifacts of the newest" in schema["$defs"]["RetentionSettings"]["properties"]["days"]["description"]
    with pytest.raises(jsonschema.ValidationError, match="'trainr' was unexpected"):
        jsonschema.validate({**configuration, "trainr": {}}, schema)


def test_every_command_is_there_with_its_options(hooks: ModuleType) -> None:
    commands = hooks.commands()
    assert "## `ndr kubeflow" in commands and "--newest-within" in commands and str(PROJECT) not in commands


def test_the_page_of_the_loss_has_the_example() -> None:
    """Regression: a formatter of Python took the line that includes the file for a comparison, and the page showed that line."""
    page = (PROJECT / "docs" / "python.md").read_text()
    shown = markdown.markdown(
        page,
        extensions=["pymdownx.superfences", "pymdownx.snippets"],
        extension_configs={"pymdownx.snippets": {"base_path": [str(PROJECT / "docs")], "check_paths": True}},
    )
    assert "InBatchSoftmax" in shown and "adagrad" in shown.lower() and "--8" not in shown
