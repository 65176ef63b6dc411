"""Configurations that would take the memory, or whose faults would show a secret."""

from pathlib import Path
from typing import Any

import pytest

from components.pusher.settings import PusherSettings
from pipeline import config
from schemas import located_yaml
from schemas.errors import UserError
from schemas.secret import SecretSource

SHOP = Path(__file__).parents[1] / "end_to_end" / "shop" / "shop.yaml"
# Ten lists, each of ten of the one before: ten billion values once the aliases are written out.
BILLION = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
TOO_MUCH = {
    "aliases of aliases": (BILLION, "not valid YAML: expected at most 100,000 values once aliases are written out"),
    "nesting": ("a: " + "[" * 100_000, ":1: not valid YAML: nested more than 50 deep"),
    "nested mappings": ("a: " + "{b: " * 50, ":1: not valid YAML: nested more than 50 deep"),
    "what holds itself": ("a: &a [*a]", ":1: not valid YAML: a part of it contains itself"),
    "a megabyte": ("a: " + "x" * (1 << 20), "expected at most 1,048,576 characters, found 1,048,579"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_yaml_is_bounded(tmp_path: Path, case: str) -> None:
    text, words = TOO_MUCH[case]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refusal:
        located_yaml.read(path)
    assert words in str(refusal.value) and len(str(refusal.value)) < 500


def test_a_setting_is_bounded_like_a_file() -> None:
    with pytest.raises(
        UserError, match=r"--set trainer\.epochs: the value is not valid YAML: nested more than 50 deep"
    ):
        config.load(SHOP, ["trainer.epochs=" + "[" * 1000])


def test_aliases_and_50_levels_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {b: 1}\nc: *a\n")
    assert located_yaml.read(path).content == {"a": {"b": 1}, "c": {"b": 1}}
    path.write_text("a: " + "[" * 49 + "]" * 49)
    assert str(located_yaml.read(path).content["a"]) == "[" * 49 + "]" * 49


SERVER = "store: mysql, host: here, user: ndr"
MISPLACED = [
    f"metadata={{{SERVER}, password: hunter2}}",
    f"metadata={{{SERVER}, password: [hunter2]}}",
    f"metadata={{{SERVER}, password: {{env: A, file: [hunter2]}}}}",
    "metadata={stor: mysql, password: {env: hunter2}}",
    "metadata=hunter2:",
    "metadata.password=[hunter2",
    'metadata.password="hunter2',
    "metadata.password=!!int hunter2",
    "server.token=hunter2",
    "pusher.destination=s3://id:hunter2@bucket/serving",
    "pusher.destination=S3://id:hunter2@bucket/serving",
]


@pytest.mark.parametrize("setting", MISPLACED)
def test_a_secret_in_the_wrong_place_is_not_shown(setting: str) -> None:
    with pytest.raises(UserError) as refusal:
        config.load(SHOP, [setting])
    assert "hunter2" not in str(refusal.value)
    assert "received" in str(refusal.value) or "expected" in str(refusal.value) or "valid" in str(refusal.value)


@pytest.mark.parametrize("source", [{"env": "hunter2"}, {"file": Path("hunter2")}])
def test_a_password_in_the_place_of_its_sources_name_is_not_shown(source: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"metadata\.password") as refusal:
        SecretSource(**source).read("metadata.password")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "setting",
    [
        "root=s3://id:hunter2@bucket/x",
        "dataset=gs://bucket/x",
        "root=file:///x",
    ],
)
def test_an_address_is_no_folder(setting: str) -> None:
    """Regression: s3://bucket/x became a folder of this machine, named `s3:`."""
    with pytest.raises(
        UserError, match=r"expected a path of this machine, received an address, (s3|gs|file)://"
    ) as refusal:
        config.load(SHOP, [setting])
    assert setting.partition("=")[0] in str(refusal.value) and "hunter2" not in str(refusal.value)


def test_other_values_are_shown() -> None:
    with pytest.raises(UserError, match="received 'many'"):
        config.load(SHOP, ["trainer.epochs=many"])
    assert PusherSettings(destination="s3://bucket/ser@ving").destination == "s3://bucket/ser@ving"
