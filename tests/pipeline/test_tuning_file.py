"""What a search leaves for the report, and what it says."""

import json
from pathlib import Path

import pytest

from components.tuner.trial import Trial
from pipeline.tuning import file
from pipeline.tuning.file import Tuning
from schemas.errors import UserError


def tuning(lower: float | None = 0.01, changes: dict[str, object] | None = None) -> Tuning:
    trials = (
        Trial(0, {"trainer.learning_rate": 0.03}, "complete", (0.2, 0.3), 10.0),
        Trial(1, {"trainer.learning_rate": 0.1}, "stopped", (0.4,), 5.0),
    )
    found = {"trainer.learning_rate": 0.1} if changes is None else changes
    return Tuning(
        date="2026-11-25", run="2026-11-25.a", ended="2026-11-25T12:00:00+00:00", k=50, interactions=(1000, 1100), trials=trials,
        best=1, epochs=1, before=0.3, after=0.35, difference=0.05, lower=lower, upper=0.09, changes=found,
    )  # fmt: skip


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert file.read(tmp_path) == tuning() if file.write(tmp_path, tuning()) else False
    assert [path.name for path in tmp_path.iterdir()] == [file.FILE]


@pytest.mark.parametrize(
    ("found", "beginning"),
    [
        (tuning(), "Trial 1 is better than the current settings: recall@50 0.3500, +0.0500 [+0.0100, +0.0900]"),
        (tuning(lower=-0.001), "No trial is significantly better than the current settings"),
        (tuning(lower=None), "No trial is significantly better than the current settings"),
        (tuning(changes={}), "No trial beats the current settings"),
    ],
)
def test_the_verdict_is_by_the_interval(found: Tuning, beginning: str) -> None:
    assert found.verdict.startswith(beginning)
    assert "on the 1,100 held-out interactions that had no part in the choice" in found.verdict


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"trials": []})])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / file.FILE).write_text(content)
    with pytest.raises(UserError, match="expected the output of ndr tune"):
        file.read(tmp_path)


def test_without_a_search_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ndr tune"):
        file.read(tmp_path)
