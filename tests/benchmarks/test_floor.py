"""The arithmetic of a day, and what the whole day's benchmark makes of it."""

from pathlib import Path

import pytest

from benchmarks import pipeline
from benchmarks.floor import floors, scaled
from benchmarks.logs import FIRST_DAY, World, write

MILLION = 1_000_000


def test_every_step_of_a_small_day_has_a_floor(tmp_path: Path) -> None:
    write(World(users=50, items=200), [2000], tmp_path)
    found = floors(tmp_path / "interactions" / str(FIRST_DAY), tmp_path / "catalogue" / str(FIRST_DAY))
    assert list(found) == [
        "Catalogue", "CatalogueStatistics", "Interactions", "InteractionStatistics", "Counter", "Analyzer", "Transform",
        "NextDay", "Trainer", "Indexer", "InfraValidator", "Ranker", "RetrievalEvaluator",
    ]  # fmt: skip
    assert all(seconds > 0 for seconds in found.values())


def test_repeated_work_is_measured_once() -> None:
    asked: list[int] = []
    assert scaled(asked.append, 100, 10) >= 0
    scaled(asked.append, 3, 10)
    assert asked == [10, 3]


def size(interactions: int, seconds: float) -> dict[str, object]:
    """A day of ten steps' worth of work in two, one of which is too short for its ratio to say anything."""
    steps = [{"name": "Ranker", "processor": 0.99 * seconds}, {"name": "Catalogue", "processor": 0.005 * seconds}]
    floors = {"Ranker": 0.33 * seconds, "Catalogue": 1e-6}
    return {
        "interactions": interactions, "seconds": seconds, "processor": seconds, "peak_gib": 2.0, "steps": steps, "floors": floors,
    }  # fmt: skip


def test_the_headline_of_a_day() -> None:
    assert pipeline.headline([size(1000, 10.0)]) == {"worst_ratio_to_floor": pytest.approx(3.0)}
    found = pipeline.headline([size(MILLION, 100.0), size(5 * MILLION, 400.0)])
    assert found == {
        "seconds_1m": 100.0, "processor_seconds_1m": 100.0, "peak_gib_1m": 2.0,
        "seconds_5m": 400.0, "peak_gib_5m": 2.0,
        # Four times the seconds for five times the interactions.
        "growth_1m_to_5m": pytest.approx(0.8),
        "worst_ratio_to_floor": pytest.approx(3.0),
    }  # fmt: skip
