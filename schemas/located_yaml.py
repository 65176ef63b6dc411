"""Reads YAML so that every error message can name the line."""

import copy
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from schemas.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
KeyPath = tuple[str | int, ...]
LARGEST_TEXT = 1 << 20  # characters
DEEPEST = 50  # levels of mappings and lists
MOST_VALUES = 100_000  # with aliases expanded: a few lines of them could stand for billions
SECRET = re.compile(r"passw|secret|token|credential|key", re.IGNORECASE)  # names whose values are not shown


class Loader(yaml.SafeLoader):
    """SafeLoader whose errors always name the line, even for a value such as 2026-02-30, where a constructor fails."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Override of PyYAML's method."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:
            raise yaml.constructor.ConstructorError(None, None, f"{node.value!r}: {error}", node.start_mark) from error


def parse(text: str) -> tuple[Any, yaml.Node | None]:
    """Parse YAML of a bounded size.

    Returns:
        The content, and its node; None for an empty text.

    Raises:
        yaml.YAMLError: it is not YAML, or too large.
    """
    if len(text) > LARGEST_TEXT:
        raise yaml.YAMLError(f"expected at most {LARGEST_TEXT:,} characters, found {len(text):,}")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(
                problem=f"nested more than {DEEPEST} deep", problem_mark=cast(yaml.Mark, event.start_mark)
            )
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is not None:
        _count(root, {}, set())
    return yaml.load(text, Loader), root


def _count(node: yaml.Node, counted: dict[int, int], within: set[int]) -> int:
    """Count the values below a node, with aliases expanded."""
    if id(node) in counted:
        return counted[id(node)]
    if id(node) in within:
        raise yaml.MarkedYAMLError(problem="a part of it contains itself", problem_mark=node.start_mark)
    children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
    count = 1
    if not isinstance(node, yaml.ScalarNode):
        count += sum(_count(child, counted, {*within, id(node)}) for child in children)
    if count > MOST_VALUES:
        words = f"expected at most {MOST_VALUES:,} values once aliases are written out"
        raise yaml.MarkedYAMLError(problem=words, problem_mark=node.start_mark)
    counted[id(node)] = count
    return count


class FaultsError(ValueError):
    """Raised by a model's validator for faults across its fields, so that each can name its line.

    Attributes:
        faults: the key path of each fault and its reason.
    """

    def __init__(self, faults: list[tuple[KeyPath, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{'.'.join(str(key) for key in path)}: {reason}" for path, reason in faults))


@dataclass(frozen=True)
class LocatedYaml:
    """The content of a YAML file, and the position of each part.

    Attributes:
        content: the file's mapping.
        lines: the line (from 1) of every key path in it.
        source: the file's name, as shown in messages.
        overridden: the key paths whose values came from `--set` instead.
    """

    content: dict[str, Any]
    lines: dict[KeyPath, int]
    source: str
    overridden: frozenset[KeyPath] = frozenset()

    def where(self, path: KeyPath) -> str:
        """Return `file:line` of a key path, or of its nearest existing parent, or `--set`."""
        if any(path[:length] in self.overridden for length in range(1, len(path) + 1)):
            return "--set"
        nearest = next((path[:length] for length in range(len(path), -1, -1) if path[:length] in self.lines), None)
        return self.source if nearest is None else f"{self.source}:{self.lines[nearest]}"


def read(path: Path) -> LocatedYaml:
    """Read a YAML mapping.

    Raises:
        UserError: the file is missing, is not UTF-8 or not YAML, is not a mapping, or repeats a key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}.") from error
    try:
        content, root = parse(text)
        located = list(_lines(root, ())) if isinstance(root, yaml.MappingNode) else []
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', error)}.") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: expected a mapping of keys to values at the top, found {type(content).__name__}.")
    lines: dict[KeyPath, int] = {}
    for key_path, line in located:
        if key_path in lines:
            name = ".".join(str(key) for key in key_path)
            raise UserError(f"{path}:{line}: {name} is given twice (first in line {lines[key_path]}). Keep one.")
        lines[key_path] = line
    return LocatedYaml(content, lines, str(path))


def override(located: LocatedYaml, path: KeyPath, value: Any) -> LocatedYaml:
    """Return a copy with another value at a key path; missing mappings along it are created.

    Raises:
        UserError: a part of the path is not a mapping.
    """
    content = copy.deepcopy(located.content)
    parent: dict[str | int, Any] = cast(dict[str | int, Any], content)
    for key in path[:-1]:
        parent = parent.setdefault(key, {})
        if not isinstance(parent, dict):
            name = ".".join(str(key) for key in path)
            raise UserError(
                f"--set {name}: {key} is not a mapping in {located.source}, so nothing can be set below it."
            )
    parent[path[-1]] = value
    return replace(located, content=content, overridden=located.overridden | {path})


def validate(model: type[Model], located: LocatedYaml, context: dict[str, Any] | None = None) -> Model:
    """Validate a YAML file's content with a model.

    Raises:
        UserError: one line for each fault: file, line, key path, what was expected and what came.
    """
    try:
        return model.model_validate(located.content, context=context)
    except ValidationError as error:
        raise UserError("\n".join(describe(error, located))) from error


def describe(error: ValidationError, located: LocatedYaml) -> Iterator[str]:
    """Yield one sentence for each fault."""
    for fault in error.errors():
        path = _path_in_file(fault["loc"], located)
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, FaultsError):
            yield from (_sentence(located, (*path, *inner), reason) for inner, reason in cause.faults)
            continue
        reason = fault["msg"].removeprefix("Value error, ")
        match fault["type"]:
            case "extra_forbidden":
                reason = "is not a known key"
            case "missing":
                reason = "is missing"
            case "value_error":
                pass
            case _:
                reason = f"{reason[0].lower()}{reason[1:]}{_received(path, fault['input'])}"
        yield _sentence(located, path, reason)


def _received(path: KeyPath, value: Any) -> str:
    """Say what was received, unless it may be, or contain, a misplaced secret."""
    if any(SECRET.search(str(key)) for key in path):
        return ""
    return f", received a {type(value).__name__}" if isinstance(value, dict | list) else f", received {value!r}"


def _sentence(located: LocatedYaml, path: KeyPath, reason: str) -> str:
    name = ".".join(str(key) for key in path)
    return ": ".join(phrase for phrase in (located.where(path), name, reason) if phrase)


def _path_in_file(loc: tuple[int | str, ...], located: LocatedYaml) -> KeyPath:
    """Return a validation path without the tags of unions, which neither the file nor `--set` contains."""
    overridden = {path[:length] for path in located.overridden for length in range(1, len(path) + 1)}
    path: KeyPath = ()
    for position, key in enumerate(loc):
        is_last = position == len(loc) - 1
        if (*path, key) in located.lines or (*path, key) in overridden or (is_last and not str(key).endswith("]")):
            path = (*path, key)
    return path


def _lines(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key: Hashable = (
                yaml.safe_load(key_node.value) if key_node.tag == "tag:yaml.org,2002:int" else key_node.value
            )
            key_path = (*path, key if isinstance(key, int) else str(key))
            yield key_path, key_node.start_mark.line + 1
            yield from _lines(value_node, key_path)
    elif isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield (*path, position), item.start_mark.line + 1
            yield from _lines(item, (*path, position))
