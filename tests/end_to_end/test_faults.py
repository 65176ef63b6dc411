"""Killed at any moment, the same command gives what an undisturbed run gives."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shops import DAY, TOWERS, YESTERDAY, Forks, Undisturbed, arguments, runs, towers

# Resolved, or in the cache.
UNEXECUTED = (
    "Baseline",
    "BeforeBaseline",
    "CountsBefore",
    "WarmStart",
    "DayBefore",
    "InteractionSchema",
    "CatalogueSchema",
)
# Batches of 256 from about 2400 interactions: 9 steps an epoch. Killed before the first checkpoint, behind one in the first epoch,
# at one, and in the second and third epoch; steps are those of an attempt, which goes on from the last one's checkpoint.
TRAINING = ("training:3", "training:7", "training:4", "training:5", "training:11")
# A push makes three folders a tower in staging, then a folder for each tower and for the manifest, with a rename after each. Killed
# while it copies; before anything is renamed; then, as the next attempts go on from there, with one tower in its place, and both.
PUSHING = (5, 8, 3, 4)
WRITING = ("Interactions", "InteractionStatistics", "NextDay", "Counter", "Transform", "Trainer", "Indexer", "Ranker")


def faults(nodes: list[str]) -> Iterator[str]:
    """Every moment that a run is killed at, in the order in which a run comes by."""
    for node in nodes:
        if node in UNEXECUTED:
            yield f"before:{node}"
            continue
        if node == "Trainer":
            yield from TRAINING
        if node in WRITING:
            yield f"in:{node}"
        if node == "Pusher":
            yield from (f"pusher:{number}" for number in PUSHING)
        yield f"after:{node}"


@contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Looks again and again, as a server does that watches a folder."""
    over, found = threading.Event(), []

    def watch() -> None:
        while not over.is_set():
            try:
                look()
            except AssertionError as error:
                found.append(error)
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not found


@pytest.fixture(scope="module")
def killed(forks: Forks, undisturbed: Undisturbed) -> tuple[Path, str]:
    """A root on which the second day was killed at every moment, then ended; and what a run was told that came between."""
    root = undisturbed.begin_again()
    command = ["run", "--date", DAY.isoformat(), *arguments(root)]
    sizes = {name: len(content) for name, content in towers(undisturbed.left).items()}

    def nothing_partial_is_visible() -> None:
        for tower in TOWERS:
            for folder in (root / "serving" / tower).glob("*"):
                files = {str(p.relative_to(root)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
                whole = {name for name in sizes if Path(name).is_relative_to(f"serving/{tower}/{folder.name}")}
                assert files.keys() == whole
                assert all(size == sizes[name] for name, size in files.items() if not name.endswith(".pb"))

    with watched(nothing_partial_is_visible):
        for fault in faults([step["node"] for step in undisturbed.runs[-1]["steps"]]):
            answer = forks(*command, fault=fault)
            assert answer.returncode == -signal.SIGKILL, f"{fault}: {answer.stdout + answer.stderr}"
        last = forks.start(*command, fault="stopped:Pusher")
        while Path(f"/proc/{last}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert not forks.has_ended(last)
            time.sleep(0.05)
        between = forks("run", "--date", YESTERDAY.isoformat(), *arguments(root))
        os.kill(last, signal.SIGCONT)
        answer = forks.end(last)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert between.returncode == 1
    return root, between.stderr.replace(str(last), "LAST")


def test_a_run_that_is_killed_anywhere_ends_as_one_that_is_not(
    killed: tuple[Path, str], undisturbed: Undisturbed
) -> None:
    root, _ = killed
    last = runs(arguments(root))[-1]
    assert (last["state"], last["blessed"], last["version"]) == ("complete", True, 20261124001)
    assert last["given"]["base_day"] == YESTERDAY.isoformat()
    assert towers(root) == towers(undisturbed.left)
    # What is carried to the next day, and how this one judged the model before it, are the same to the bit.
    assert counts(root) == counts(undisturbed.left)
    assert last["next_day_metrics"] == undisturbed.runs[-1]["next_day_metrics"] != {}


def test_two_runs_at_once_do_not_mix(killed: tuple[Path, str]) -> None:
    """The one that came second is refused; above, the first ends as if it had been alone."""
    root, said = killed
    assert 'is in use by another run ({"pid": LAST' in said
    assert [run["date"] for run in runs(arguments(root))].count(YESTERDAY.isoformat()) == 1


def counts(root: Path) -> dict[str, bytes]:
    """The files of the newest counts."""
    newest = max((root / "pipeline_root" / "Counter" / "counts").iterdir(), key=lambda folder: int(folder.name))
    found = {str(path.relative_to(newest)): path.read_bytes() for path in newest.rglob("*") if path.is_file()}
    assert {"through/counts.json", "training/counts.json"} < found.keys()
    return found
