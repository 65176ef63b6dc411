"""What the site has besides docs/: pages from elsewhere in the repository, the command line as Typer knows it, and JSON Schemas."""

import functools
import html
import importlib
import inspect
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.cli import get_docs_for_click

PROJECT = Path(__file__).resolve().parent.parent
BAR = "&#124;"  # a | would end a table's cell
OWN = {"components", "pipeline", "schemas", "serving"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
ELSEWHERE = ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "ndr_client/README.md", "benchmarks/README.md"]
PICTURES = ["benchmarks/*.png"]
COMMANDS = "<!-- the commands -->"
KEYS = re.compile(r"<!-- the keys of (\S+) -->")
SCHEMAS = {
    "configuration.schema.json": "pipeline.config.Config",
    "features.schema.json": "schemas.features.FeatureSpec",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, and the JSON Schemas; MkDocs calls this."""
    pictures = [str(path.relative_to(PROJECT)) for pattern in PICTURES for path in sorted(PROJECT.glob(pattern))]
    for name in [*ELSEWHERE, *pictures]:
        files.append(File.generated(config, name, abs_src_path=str(PROJECT / name)))
    for name, path in SCHEMAS.items():
        files.append(File.generated(config, name, content=json.dumps(described(path), indent=1)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links for the site, and add the commands; MkDocs calls this."""
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands())
    markdown = KEYS.sub(lambda found: keys(imported(found[1])), markdown)
    folder = (
        Path("docs") / page.file.src_uri if (PROJECT / "docs" / page.file.src_uri).exists() else Path(page.file.src_uri)
    )

    def moved(found: re.Match[str]) -> str:
        """Turn a link within the repository into one of the site, or into its text if the site lacks the target."""
        text, target, anchor = found["text"], found["target"], found["anchor"] or ""
        inside = os.path.normpath(folder.parent / target).removeprefix("docs/")
        if files.get_file_from_path(inside) is None:
            return text if (PROJECT / folder.parent / target).exists() else found[0]
        return f"[{text}]({os.path.relpath(inside, Path(page.file.src_uri).parent)}{anchor})"

    return re.sub(r"\[(?P<text>[^]]+)\]\((?P<target>[^):#]+)(?P<anchor>#[^)]*)?\)", moved, markdown)


def commands() -> str:
    """Return every command with its arguments and options."""
    from pipeline.cli import app

    group = typer.main.get_command(app)
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="ndr")
    # The page has a title of its own; a default that is a path of this machine says where the file is in the repository.
    return text.partition("\n\n")[2].replace(f"{PROJECT}/", "")


def imported(path: str) -> type[BaseModel]:
    """Return a model by the path that it is imported from."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


@functools.cache
def module(path: str) -> griffe.Module:
    """Return a module as it is written."""
    return griffe.load(path, search_paths=[str(PROJECT)])


def keys(model: type[BaseModel]) -> str:
    """Return a model as a section: its description, and a table of its keys."""
    words = attributes(model)
    types = {
        name: str(each.annotation)
        for part in reversed(model.__mro__)
        if part.__module__.split(".")[0] in OWN
        for name, each in module(part.__module__)[part.__name__].attributes.items()
        if each.annotation
    }
    rows = [
        f"| {code(name)} | {code(types.get(name, ''))} | {shown(field)} | {words.get(name, '').replace('|', BAR)} |"
        for name, field in model.model_fields.items()
    ]
    first, _, rest = inspect.cleandoc(model.__doc__ or "").partition("\n\n")
    rest = rest.partition("Attributes:")[0]
    table = ["| key | type | default | what it is |", "| --- | --- | --- | --- |", *rows]
    return "\n".join([f"### {model.__name__}", "", first, "", rest, "", *table, ""])


def shown(field: FieldInfo) -> str:
    """Return a key's default, and between which values it may lie."""
    bounds = [str(getattr(each, name)) for each in field.metadata for name in BOUNDS if hasattr(each, name)]
    signs = [BOUNDS[name] for each in field.metadata for name in BOUNDS if hasattr(each, name)]
    between = ", ".join(f"{sign} {bound}" for sign, bound in zip(signs, bounds, strict=True))
    if field.is_required():
        default = "*required*"
    elif field.default_factory or isinstance(field.default, BaseModel):
        default = "*its own*"
    else:
        default = code(yaml_text(field.default))
    return f"{default}; {between}" if between else default


def yaml_text(value: Any) -> str:
    """Return a value as a configuration has it."""
    return json.dumps(value, default=lambda other: list(other) if isinstance(other, (set, tuple)) else str(other))


def code(text: str) -> str:
    """Return a text as code, in a cell of a table."""
    return f"<code>{html.escape(text).replace('|', BAR)}</code>"


def described(path: str) -> dict[str, Any]:
    """Return the JSON Schema of a model, with descriptions from the docstrings.

    Args:
        path: where the model is imported from.
    """
    model = imported(path)
    schema: dict[str, Any] = model.model_json_schema()
    for each in models(model):
        place = schema if each is model else schema["$defs"].get(each.__name__, {})
        for key, words in attributes(each).items():
            if key in place.get("properties", {}):
                place["properties"][key].setdefault("description", words)
    return schema


def models(model: type[BaseModel], known: set[type[BaseModel]] | None = None) -> Iterator[type[BaseModel]]:
    """Yield a model, and all models in its fields."""
    known = set() if known is None else known
    if model in known:
        return
    known.add(model)
    yield model
    for field in model.model_fields.values():
        for each in of_annotation(field.annotation):
            yield from models(each, known)


def of_annotation(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in a type."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for each in getattr(annotation, "__args__", ()):
        yield from of_annotation(each)


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """Read a class's docstring: the text for each attribute, its base classes' first. A key of one value names its variant."""
    found = {
        name: "says that this form is meant."
        for name, field in model.model_fields.items()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    }
    for each in reversed(model.__mro__):
        sections = griffe.Docstring(inspect.getdoc(each) or "", parser="google").parse() if each.__doc__ else []
        for section in sections:
            if section.kind is griffe.DocstringSectionKind.attributes:
                found |= {item.name: " ".join(item.description.split()) for item in section.value}
    return found
