"""What the pages tell a person to type exists: commands of `ndr` with their options, targets of make, benchmarks."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from pipeline.cli import app

PROJECT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(PROJECT / "docs").glob("*.md"),
        *(
            PROJECT / name
            for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md", "ndr_client/README.md")
        ),
    ]
)
COMMAND = re.compile(r"^(?:\.venv/bin/)?ndr(?= [a-z])|^\.venv/bin/ndr|^ndr$")
SPAN = re.compile(r"`([^`]+)`")


def written(page: Path) -> Iterator[str]:
    """The lines of a page's blocks of code, with continued lines joined, and its code within lines."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"^    .*$", prose, flags=re.MULTILINE)
    for block in blocks:
        for line in block.splitlines():
            yield line.strip().removeprefix("$ ").partition("  #")[0]
    yield from SPAN.findall(re.sub(r"^    .*$", "", prose, flags=re.MULTILINE))


def faults(words: list[str]) -> Iterator[str]:
    """What a command line has that `ndr` has not."""
    command: Any = get_command(app)
    place = "ndr"
    for name in words:
        commands = getattr(command, "commands", {})  # of a group
        if not commands or name.startswith("-"):
            break
        if name not in commands:
            yield f"{place}: no command {name}"
            return
        command, place = commands[name], f"{place} {name}"
    options = {opt for parameter in command.params for opt in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in options:
            yield f"{place}: no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_command_of_a_page_exists(page: Path) -> None:
    """Values are not checked: pages have names in capitals for what a person puts there."""
    wrong = []
    for line in written(page):
        for command in re.split(r" && | \| ", line):
            if match := COMMAND.match(command):
                wrong += [f"{command}: {fault}" for fault in faults(shlex.split(command[match.end() :]))]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_benchmark_and_target_of_a_page_exists(page: Path) -> None:
    rules = re.findall(r"^([\w ]+):(?! \w+ =)", (PROJECT / "Makefile").read_text(), flags=re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    code = "\n".join(written(page))
    modules = set(re.findall(r"python -m benchmarks\.(\w+)", code))
    assert {name for name in modules if not (PROJECT / "benchmarks" / f"{name}.py").exists()} == set()
    assert set(re.findall(r"^make (\w+)", code, flags=re.MULTILINE)) - targets == set()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("recommend --user 13 --k 5", None),
        ("kubeflow compile --refresh", None),
        ("recomend --user 13", "ndr: no command recomend"),
        ("recommend --usr 13", "ndr recommend: no option --usr"),
        ("kubeflow compile --nightly", "ndr kubeflow compile: no option --nightly"),
    ],
)
def test_a_wrong_command_is_seen(line: str, fault: str | None) -> None:
    assert list(faults(line.split())) == ([] if fault is None else [fault])
