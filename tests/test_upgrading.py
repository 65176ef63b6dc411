"""docs/upgrading.md against the code and the installed packages: what it lists is used and exists, and what is used is listed."""

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "upgrading.md"
ROOMS = ("benchmarks", "components", "ndr_client", "pipeline", "schemas", "serving")
FILES = [path for room in ROOMS for path in sorted((PROJECT / room).rglob("*.py")) if not path.stem.endswith("_pb2")]
# Of the packages whose private parts we use, what their documentation is about.
DOCUMENTED = {
    "apache_beam": ("options.pipeline_options", "pvalue", "transforms.window"),
    "kfp": ("compiler", "dsl", "kubernetes"),
    "ml_metadata": ("errors", "proto.metadata_store_pb2"),
    "tensorflow": (),
    "tensorflow_data_validation": (),
    "tensorflow_model_analysis": (),
    "tensorflow_transform": ("beam",),
    "tf_keras": (),
    "tfx": ("v1",),
    "tfx_bsl": (),
}
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace"}  # of the standard library, in spite of their names


@dataclass(frozen=True)
class Row:
    """A row of the page's tables."""

    names: tuple[str, ...]
    places: tuple[Path, ...]
    test: Path

    @cached_property
    def files(self) -> set[Path]:
        return {file for place in self.places for file in (place.rglob("*.py") if place.is_dir() else [place])}


def rows() -> list[Row]:
    cells = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    quoted = [[re.findall("`([^`]+)`", cell) for cell in row] for row in cells]
    return [Row(tuple(n), tuple(PROJECT / each for each in p), PROJECT / t[-1]) for n, p, _, t in quoted]


ROWS = rows()
NAMES = {name: row for row in ROWS for name in row.names}


def private_modules(path: Path) -> Iterator[str]:
    """The modules of other packages that a file imports and that are not documented."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package in DOCUMENTED and rest and not rest.startswith(DOCUMENTED[package]):
                module = module_of(name)
                if module != package:
                    yield module


@cache
def module_of(name: str) -> str:
    """The longest part of a dotted name that is a module, by the files of its package: nothing is imported."""
    package, *rest = name.split(".")
    spec = importlib.util.find_spec(package)
    assert spec and spec.submodule_search_locations, f"{package} is not installed"
    folder = Path(spec.submodule_search_locations[0])
    found = [package]
    for part in rest:
        if not ((folder / part).is_dir() or list(folder.glob(f"{part}.py")) or list(folder.glob(f"{part}.*.so"))):
            break
        found.append(part)
        folder /= part
    return ".".join(found)


def private_names(path: Path) -> Iterator[str]:
    """The names beginning with an underscore that a file uses and does not define; of others than `self`, that no file defines."""
    own, ours = defined(path), set().union(*map(defined, FILES))
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            known = own if ast.unparse(node.value) in ("self", "super()") else ours
            if node.attr not in known | PUBLIC:
                yield ast.unparse(node)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def defined(path: Path) -> set[str]:
    """The functions, classes and attributes that a file defines."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def test_what_is_used_is_listed() -> None:
    missing = []
    for path in FILES:
        listed = {name for name, row in NAMES.items() if path in row.files}
        attributes = {name.rpartition(".")[2] for name in listed}
        missing += [f"{path}: {name}" for name in private_modules(path) if name not in listed]
        missing += [f"{path}: {name}" for name in private_names(path) if name.rpartition(".")[2] not in attributes]
    assert missing == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.names[0])
def test_what_is_listed_is_used_where_the_page_says(row: Row) -> None:
    words = {file: set(re.findall(r"\w+", file.read_text())) for file in row.files}
    last = {name.rpartition(".")[2] for name in row.names}
    assert last <= set().union(*words.values())
    idle = [place for place in row.places if not any(last & words[f] for f in row.files if f.is_relative_to(place))]
    assert idle == [] and row.test.exists()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_listed_exists(name: str) -> None:
    module = module_of(name)
    found: Any = importlib.import_module(module)
    for attribute in name.removeprefix(module).split(".")[1:]:
        if inspect.isclass(found) and not hasattr(found, attribute):  # it is set on the object
            sources = "".join(inspect.getsource(kind) for kind in found.__mro__[:-1] if kind.__module__ != "builtins")
            assert re.search(rf"\bself\.{attribute}\b", sources), f"{found} sets no {attribute}"
            return
        found = getattr(found, attribute)
