"""What a terminal is sent: text of others is shown, never obeyed."""

import io
import logging
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from pipeline.terminal import TextConsole, VisibleFormatter
from schemas.visible import visible

TITLE = "Toy\x1b]0;owned\x07 \x1b[2J\x9b31m\u202estory"
SHOWN = "Toy\u241b]0;owned\u2407 \u241b[2J\ufffd31m\ufffdstory"


@pytest.mark.parametrize("printed", [TITLE, "table", "title"])
def test_escape_sequences_in_a_title_are_shown_and_not_obeyed(printed: str) -> None:
    file = io.StringIO()
    console = TextConsole(file, width=80)
    if printed == TITLE:
        console.print(TITLE, highlight=False)
    else:
        table = Table("item", title=TITLE if printed == "title" else None, min_width=60)
        table.add_row("7" if printed == "title" else TITLE)
        console.print(table)
    text = file.getvalue()
    assert SHOWN.replace("\u2407", "") in text  # Rich drops a bell itself
    assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e"}


def test_what_rich_itself_sends_to_a_terminal_is_kept() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    console = TextConsole(file, width=80)
    console._color_system = None
    console.show_cursor(False)
    assert file.getvalue() == "\x1b[?25l"


def test_a_log_line_with_an_escape_sequence_is_shown() -> None:
    record = logging.LogRecord("ndr", logging.ERROR, "file", 1, "%s", (TITLE,), None)
    assert SHOWN in VisibleFormatter().format(record)


def test_an_error_that_quotes_an_escape_sequence_is_shown() -> None:
    command = [sys.executable, "-m", "pipeline.cli", "schema", "--config", f"{TITLE}.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert f"{SHOWN}.yaml: no such file" in done.stderr and "\x1b" not in done.stderr


@given(st.text())
def test_visible_text_keeps_all_but_control_characters(text: str) -> None:
    shown = visible(text)
    for before, after in zip(text, shown, strict=True):
        is_control = unicodedata.category(before) in ("Cc", "Cs") and before not in "\n\t"
        assert not is_control or unicodedata.category(after) == "So"
        assert after in (before, "\N{REPLACEMENT CHARACTER}") or is_control
    assert visible(shown) == shown
