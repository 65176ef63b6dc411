"""The layers of CONTRIBUTING.md, by the import statements in the code, those inside functions included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOMS = ("components", "ndr_client", "pipeline", "schemas", "serving")
SERVED_BY = "components.infra_validator"  # serves what would be pushed
HEAVY = ("apache_beam", "kfp", "tensorflow_transform", "tfx", "tfx_bsl")
# The paper's parts, for other people's Keras models (docs/python.md).
FOR_OTHERS = ("components.trainer.frequency", "components.trainer.loss")
MODEL_CODE = (
    *FOR_OTHERS,
    *(f"components.trainer.{name}" for name in ("blocked_softmax", "history_attention", "model", "repeats", "towers")),
)


def imported(module: str) -> Iterator[str]:
    """The modules that a module's own code imports, with the packages that hold them; `from a import b` gives `a` and `a.b`."""
    path = PROJECT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: expected absolute imports"
            names = [f"{node.module}.{each.name}" for each in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: number + 1]) for number in range(len(parts)))


def modules(room: str) -> list[str]:
    """All modules of a room."""
    files = [path.relative_to(PROJECT).with_suffix("") for path in sorted((PROJECT / room).rglob("*.py"))]
    return [".".join(file.parts).removesuffix(".__init__") for file in files]


def reached(module: str) -> dict[str, str]:
    """All that importing a module may import of other packages, by their names, each with the module of ours that does."""
    ours = {each for room in ROOMS for each in modules(room)}
    waiting, seen = [module], {module}
    others: dict[str, str] = {}
    while waiting:
        current = waiting.pop()
        for name in imported(current):
            if name in ours:
                waiting += [] if name in seen else [name]
                seen.add(name)
            elif name.partition(".")[0] not in ROOMS:
                others.setdefault(name.partition(".")[0], current)
    return others


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("ndr_client", {"components", "pipeline", "schemas", "serving"}),
        ("schemas", {"components", "pipeline", "serving"}),
        ("components", {"pipeline"}),
    ],
)
def test_a_room_imports_only_those_below_it(room: str, forbidden: set[str]) -> None:
    broken = [
        f"{module} imports {name}"
        for module in modules(room)
        for name in imported(module)
        if name.partition(".")[0] in forbidden
    ]
    assert broken == []


def test_only_the_infra_validator_imports_serving() -> None:
    importers = {module for module in modules("components") if any(n.startswith("serving") for n in imported(module))}
    assert importers and all(module.startswith(SERVED_BY) for module in importers)


def test_the_record_is_reached_by_its_face() -> None:
    face = {"pipeline.records", "pipeline.records.handle"}  # the handle imports TFX, the face does not
    inside = set(modules("pipeline/records")) - face
    outside = [module for room in ROOMS for module in modules(room) if not module.startswith("pipeline.records")]
    assert (
        inside
        and [f"{module} imports {name}" for module in outside for name in imported(module) if name in inside] == []
    )


def test_model_code_does_not_import_tfx() -> None:
    assert {module: name for module in MODEL_CODE for name in imported(module) if name.startswith("tfx")} == {}


@pytest.mark.parametrize("module", FOR_OTHERS)
def test_the_loss_and_the_estimator_import_nothing_heavy(module: str) -> None:
    assert {name: importer for name, importer in reached(module).items() if name in HEAVY} == {}
