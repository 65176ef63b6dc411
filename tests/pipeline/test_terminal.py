"""What a terminal is sent: text of others is shown, never obeyed, neither as control codes nor as Rich's markup."""

import io
import logging
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from rich.console import Console
from rich.control import Control
from rich.table import Table

from pipeline import terminal
from pipeline.terminal import KEPT_LOGS, TextConsole, quiet_terminal
from schemas.visible import visible

TITLE = "Toy\x1b]0;owned\x07 \x1b[2J\x9b31m\u202e[b]story"
SHOWN = "Toy\u241b]0;owned\u2407 \u241b[2J\ufffd31m\ufffd[b]story"


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


def test_richs_own_control_codes_are_kept() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Terminal()
    console = TextConsole(file, width=80)
    console.print(Control.show_cursor(False), end="")
    assert file.getvalue() == "\x1b[?25l"


@pytest.mark.parametrize("opened", [terminal.quiet_terminal, terminal.logging_terminal])
def test_what_a_command_prints_and_logs_is_shown_and_not_obeyed(
    opened: Callable[[Path, str], AbstractContextManager[tuple[Console, Path]]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # TFX's own, where another test has imported it
    with opened(tmp_path, "run") as (console, path):
        console.print(TITLE, highlight=False)
        logging.getLogger("ndr").error(TITLE)
    printed, logged = capfd.readouterr()
    assert SHOWN.replace("\u2407", "") in printed and SHOWN in logged + path.read_text()
    assert "\x1b" not in printed + logged + path.read_text()


def test_an_error_that_quotes_an_escape_sequence_is_shown() -> None:
    command = [sys.executable, "-m", "pipeline.cli", "schema", "--config", f"{TITLE}.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 1
    assert f"{SHOWN}.yaml: no such file" in done.stderr and "\x1b" not in done.stderr


def test_the_newest_logs_of_a_command_are_kept_and_are_nobody_elses(tmp_path: Path) -> None:
    for number in range(KEPT_LOGS + 5):
        (tmp_path / f"run-20260101T000000-{number:04d}.log").touch()
    (tmp_path / "serve.log").touch()
    with quiet_terminal(tmp_path, "run") as (_, path):
        pass
    kept = sorted(each.name for each in tmp_path.glob("run-*"))
    assert len(kept) == KEPT_LOGS and kept[0] == "run-20260101T000000-0006.log" and kept[-1] == path.name
    assert (tmp_path / "serve.log").exists() and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_log_of_a_server_is_rotated_into_files_that_are_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "LOG_BYTES", 1)
    with terminal.logging_terminal(tmp_path, "serve"):
        for number in range(2 * terminal.LOG_FILES):
            logging.getLogger("ndr").info("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["serve.log", *(f"serve.log.{n}" for n in range(1, terminal.LOG_FILES))]
    assert files[0].read_text().endswith("line 9\n") and files[-1].read_text().endswith("line 5\n")
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_visible_text_keeps_all_but_control_characters() -> None:
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    shown = visible(text)
    for before, after in zip(text, shown, strict=True):
        is_control = unicodedata.category(before) in ("Cc", "Cs") and before not in "\n\t"
        assert not is_control or unicodedata.category(after) == "So"
        assert after in (before, "\N{REPLACEMENT CHARACTER}") or is_control
    assert visible(shown) == shown
