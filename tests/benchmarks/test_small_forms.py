"""Every benchmark runs, in a small form: what it measures there is no figure, but its headline has its keys.

A benchmark has processes of its own for their memory and their imports. Neither is tested here, so that `ndr` is a fork, and a
part of a benchmark runs in this process.
"""

import contextlib
import importlib
import io
import json
import math
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import (
    cold_items,
    correction,
    days,
    fixed,
    inspection,
    large_tables,
    loss,
    pipeline,
    replay,
    retrieval,
    row_features,
    serving,
    shards,
    training,
    warm_start,
)
from pipeline.datasets import movielens
from tests.forks import PROJECT, Forks

FILMS, PEOPLE, RATINGS = 80, 30, 1200


class Processes:
    """Takes the place of `subprocess` in a benchmark.

    Args:
        forks: where `ndr` comes from.
    """

    DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE

    def __init__(self, forks: Forks) -> None:
        self._forks = forks

    def run(self, command: list[str], check: bool = False, **_: Any) -> subprocess.CompletedProcess[str]:
        python, option, module, *words = command
        assert (python, option) == (sys.executable, "-m")
        answer = self._forks(*words) if module == "pipeline.cli" else here(module, words)
        assert not check or answer.returncode == 0, answer.stdout + answer.stderr
        return answer

    def Popen(self, command: list[str]) -> "Started":  # noqa: N802
        assert command[:3] == [sys.executable, "-m", "pipeline.cli"]
        return Started(self._forks, command[3:])


class Started:
    """An `ndr` that runs."""

    def __init__(self, forks: Forks, words: list[str]) -> None:
        self._forks = forks
        self.pid = forks.start(*words)

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self) -> int:
        answer = self._forks.end(self.pid)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.returncode


def here(module: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command line in this process."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", [module, *words])
        importlib.import_module(module).main()
    return subprocess.CompletedProcess(words, 0, said.getvalue(), "")


class Place:
    """Where benchmarks leave what they make.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def headline(self, name: str, *words: object) -> dict[str, float]:
        """Runs a benchmark; returns its headline, all of which is finite."""
        here(f"benchmarks.{name}", [*map(str, words), "--json", str(self._file(name))])
        content = json.loads(self._file(name).read_text())
        assert content.keys() == {"machine", "settings", "figures", "headline"} and content["figures"]
        found: dict[str, float] = content["headline"]
        assert found and all(math.isfinite(value) for value in found.values()), found
        return found

    def figures(self, name: str) -> Any:
        """Of a benchmark that was run."""
        return json.loads(self._file(name).read_text())["figures"]

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"


@pytest.fixture(scope="module")
def place(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (days, fixed, inspection, large_tables, loss, pipeline, row_features, shards, training):
            patch.setattr(module, "subprocess", Processes(forks))
        # Fewer models are trained beside the one that all are compared with.
        patch.setattr(correction, "FORMS", {name: correction.FORMS[name] for name in ("plain", "corrected")})
        patch.setattr(warm_start, "WINDOWS", {"anew on 1 day": 1})
        patch.setattr(replay, "WINDOWS", replay.WINDOWS[:2])
        patch.setattr(retrieval, "limit_threads", lambda number: None)  # TensorFlow has already run in this process
        patch.setattr(serving, "ProcessPoolExecutor", lambda workers, _: ThreadPoolExecutor(workers))
        yield Place(tmp_path_factory.mktemp("benchmarks"))


ALONE: dict[str, tuple[str, set[str]]] = {
    "loss": (
        "--batches 64 --largest 64",
        {"ratio_64", "estimator_share_64", "gflops_share_64"},
    ),
    "reading": (
        "--rows 300 --rounds 1 --whole-rounds 1 --log {place}/reading.csv",
        {"read_and_cleaned_seconds", "ingested_seconds", "ingested_all_of_these_of_plain"},
    ),
    "preparing": ("--interactions 500 --users 50 --items 128", {"seconds", "processor_seconds", "peak_gib"}),
    "row_features": ("--interactions 300 --users 30 --items 128 --rounds 1", {"ratio"}),
    "fixed": (
        "--interactions 1000 --users 100 --items 128 --days 1",
        {"toy_day_seconds", "nothing_to_do_seconds", "recommend_processor_seconds"},
    ),
    "large_tables": (
        "--items 500 --steps 60 --batch 16",
        {f"{name}_{each}" for name in ("peak_gib", "restored_gib", "exported_gib", "loss")
         for each in ("adagrad", "rowwise_adagrad")},
    ),
    "frequency": ("--seeds 1 --steps 1000 --zipf-steps 3", {"error_10k_m1", "error_10k_m4", "zipf_head_worst"}),
    "workers": ("--workers 1 --batches 20", {"head_ratio_1", "tail_ratio_1"}),
    "evaluation": ("--items 2000 --queries 50 --rounds 1", {"gflops_share", "peak_gib"}),
    "retrieval": (
        "--kinds trained --items 2000 --queries 64 --interactions 5000 --rounds 1 --shares",
        {"recall_at_100", "speed_over_faiss_one", "speed_over_faiss_64", "filtered_recall_1_percent"},
    ),
    "refresh": (
        "--items 300 --changed .05",
        {"refresh_seconds", "embed_all_seconds", "refresh_over_embed_all", "largest_difference"},
    ),
    "shards": ("--items 2000 --shards 2", {"build_1_gib", "build_2_gib", "rank_memory_gib", "rank_disk_gib"}),
    "serving": (
        "--items 200 --clients 2 --seconds .2 --batched-only --rate 20 --open-seconds 1 --pushes 1",
        {"failed", "p99_ms_open_20", "rss_growth_mb", "p50_ms_2", "p99_ms_2", "requests_per_second_2"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_a_benchmark_runs_by_its_own_data(name: str, place: Place) -> None:
    words, keys = ALONE[name]
    assert keys <= place.headline(name, *words.format(place=place.folder).split()).keys()


@pytest.fixture(scope="module")
def service(place: Place) -> Path:
    """Where the whole day was measured."""
    root = place.folder / "pipeline"
    words = ("--first", "--interactions", 1000, "--items", 128, "--root", root)
    assert "worst_ratio_to_floor" in place.headline("pipeline", *words)
    return root / "1000"


def test_a_whole_day_is_measured(service: Path, place: Place) -> None:
    (day,) = place.figures("pipeline")
    assert {step["name"] for step in day["steps"]} > day["floors"].keys()
    assert min(day["seconds"], day["peak_gib"], day["log_bytes"]) > 0


def test_training_takes_the_examples_of_a_run(service: Path, place: Place) -> None:
    found = place.headline("training", "--root", service, "--rounds", 1, "--batch", 32, "--switches")
    assert found.keys() == {"fed_share_32", "ratio_tfrs_input"}


def films_and_ratings(folder: Path) -> None:
    """As `ndr data movielens` leaves it: people of two kinds, who rate films of theirs."""
    chance = random.Random(0)
    first = datetime.combine(movielens.FIRST_DAY, time(12), UTC)
    span = (cold_items.DAY - movielens.FIRST_DAY).days
    ratings = [
        {
            "user_id": person,
            "movie_id": 1 + chance.randrange(FILMS // 2) * 2 + person % 2,
            "rating": chance.randint(1, 5),
            # Half of them within the last four weeks, which judge.
            "timestamp": int((first + timedelta(days=span - chance.choice((chance.randrange(28), chance.randrange(span)))))
                             .timestamp()) + number,
        }
        for number, person in enumerate(chance.randint(1, PEOPLE) for _ in range(RATINGS))
    ]  # fmt: skip
    last = int(datetime.combine(cold_items.DAY, time(12), UTC).timestamp())
    ratings.append({"user_id": 1, "movie_id": 2, "rating": 5, "timestamp": last})
    films = [
        {"movie_id": film, "movie_title": f"Film {film}", "release_date": "01-Jan-1995",
         **{genre: int(number % 2 == film % 2) for number, genre in enumerate(movielens.GENRES)}}
        for film in range(1, FILMS + 1)
    ]  # fmt: skip
    people = [
        {"user_id": person, "age": 20 + person, "gender": "FM"[person % 2], "occupation": "other", "zip_code": "0"}
        for person in range(1, PEOPLE + 1)
    ]
    tables = movielens.MovieLens(pd.DataFrame(ratings), pd.DataFrame(films), pd.DataFrame(people))
    movielens._write(tables, folder)


@pytest.fixture(scope="module")
def data(place: Place) -> Path:
    """MovieLens in small, where `ndr data movielens` leaves it below a root."""
    folder = place.folder / "root" / "data" / "movielens"
    films_and_ratings(folder)
    return folder


@pytest.fixture(scope="module")
def root(data: Path, place: Place) -> Path:
    """Where new items were kept from training. It is the root of either run, so that the second finds its day done."""
    folder = data.parents[1]
    for name in ("everything", "removed"):
        (data / name).symlink_to(folder)
    found = place.headline("cold_items", "--root", data, "--data", data)
    assert found.keys() == {
        "cold_recall_at_50", "as_new_recall_at_50", "cold_content_neighbours", "cold_recall_at_50_before", "warm_recall_at_50",
        "warm_recall_at_50_before",
    }  # fmt: skip
    return folder


def test_cold_items_are_ranked_by_both_runs(root: Path, place: Place) -> None:
    figures = place.figures("cold_items")
    assert len(figures) == 6 and all(each["interactions"] for each in figures)


def test_the_correction_is_compared_on_a_run(root: Path, place: Place) -> None:
    same = [word for setting in cold_items.DRAWN for word in ("--set", setting)]  # so that the day is done
    found = place.headline("correction", "--root", root, "--temperatures", 0.2, "--seeds", 1, *same)
    assert {"recall10_gain", "recall50_gain", "recall50_plain", "recall50_popularity"} < found.keys()


def test_commands_over_many_runs_are_measured(root: Path, place: Place) -> None:
    found = place.headline("inspection", "--root", root, "--runs", 3, "--rounds", 1)
    assert found.keys() == inspection.COMMANDS.keys()


OF_MOVIELENS = {
    "history_encoder": ("--seeds 1 --encoders mean attention", {"recall_at_50_mean", "recall_at_50_attention"}),
    "cooccurrence": ("", {"recall_at_50_with_1.0", "recall_at_50_with_0.9"}),
    "warm_start": (
        "--days 1 --interactions 200",
        {"movielens_warm_start", "movielens_lead_over_popularity", "invented_warm_start", "invented_the_truth"},
    ),
    "replay": ("--days 2", {"recall_at_50_never_trained_on", "recall_at_50_1_days_3_epochs"}),
    "new_items": ("--boosts 1 --seeds 1", {"new_recall_at_50_boost_1"}),
}


@pytest.mark.parametrize("name", OF_MOVIELENS)
def test_a_benchmark_runs_on_movielens(name: str, data: Path, place: Place) -> None:
    words, keys = OF_MOVIELENS[name]
    made = () if name == "cooccurrence" else ("--root", place.folder / name)
    assert keys <= place.headline(name, *words.split(), *made, "--data", data).keys()


def test_every_benchmark_has_a_small_form() -> None:
    (named,) = re.findall(r"^BENCHMARKS = (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    with_a_run = {"pipeline", "training", "cold_items", "correction", "inspection"}
    others = {"gowalla"}  # test_gowalla.py has its
    assert set(named.split()) <= {*ALONE, *OF_MOVIELENS, *with_a_run, *others}
