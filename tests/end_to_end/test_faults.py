"""Killed at any moment, the same command gives what an undisturbed run gives: a day, and a refresh that clients ask meanwhile."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.indexer import files
from pipeline.versions import pushes
from serving.server import EmbeddedServer, ServerSettings
from tests.end_to_end.noon import (
    BLOCKED,
    CLIENTS,
    DEARER,
    GONE,
    ITEMS_BEFORE,
    ITEMS_NOW,
    NEWCOMERS,
    NOON,
    Asking,
    write_noon,
)
from tests.end_to_end.shops import DAY, TOWERS, YESTERDAY, Undisturbed, arguments, towers
from tests.forks import Forks
from tests.waiting import wait_for

# Resolved, or in the cache. Between any two steps a kill leaves the same: the first of them stands for all.
UNEXECUTED = (
    "Baseline",
    "BeforeBaseline",
    "CountsBefore",
    "WarmStart",
    "DayBefore",
    "InteractionSchema",
    "CatalogueSchema",
)
# Batches of 256 from about 2400 interactions: 9 steps an epoch. Killed before the first checkpoint, and in the second epoch;
# tests/components/test_resume.py has all others.
TRAINING = ("training:3", "training:11")
# A push makes three folders a tower in staging, then a folder for each tower and for the manifest, with a rename after each. Killed
# while it copies, and before anything is renamed; tests/components/test_versions.py has every operation.
PUSHING = (5, 8)
# Killed while they write; the others, behind it.
WRITING = ("Interactions", "InteractionStatistics", "NextDay", "Counter", "Transform", "Trainer", "Indexer", "Ranker")

# Of a refresh: between two steps; while it exports and embeds; while its push copies, behind the 24 changes of the file system
# by which the InfraValidator pushes to a folder of its own; and once it is visible, before ML Metadata knows.
REFRESHING = (
    "after:CatalogueComparison",
    "in:QueryTowerExport",
    "in:Indexer",
    "pusher:30",
    "after:Pusher",
)


def faults(nodes: list[str]) -> Iterator[str]:
    """Every moment that a run is killed at, in the order in which a run comes by."""
    first_unexecuted = next(node for node in nodes if node in UNEXECUTED)
    for node in nodes:
        if node == first_unexecuted:
            yield f"before:{node}"
        if node == "Trainer":
            yield from TRAINING
        if node == "Pusher":
            yield from (f"pusher:{number}" for number in PUSHING)
        if node not in UNEXECUTED:
            yield f"in:{node}" if node in WRITING else f"after:{node}"


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
    killed: tuple[Path, str], undisturbed: Undisturbed, forks: Forks
) -> None:
    root, _ = killed
    last = forks.runs(arguments(root))[-1]
    assert (last["state"], last["blessed"], last["version"]) == ("complete", True, 20261124001)
    assert last["given"]["base_day"] == YESTERDAY.isoformat()
    assert towers(root) == towers(undisturbed.left)
    # What is carried to the next day, and how this one judged the model before it, are the same to the bit.
    assert counts(root) == counts(undisturbed.left)
    assert last["next_day_metrics"] == undisturbed.runs[-1]["next_day_metrics"] != {}


def test_two_runs_at_once_do_not_mix(killed: tuple[Path, str], forks: Forks) -> None:
    """The one that came second is refused; above, the first ends as if it had been alone."""
    root, said = killed
    assert 'is in use by another run ({"pid": LAST' in said
    assert [run["date"] for run in forks.runs(arguments(root))].count(YESTERDAY.isoformat()) == 1


def counts(root: Path) -> dict[str, bytes]:
    """The files of the newest counts."""
    newest = max((root / "pipeline_root" / "Counter" / "counts").iterdir(), key=lambda folder: int(folder.name))
    found = {str(path.relative_to(newest)): path.read_bytes() for path in newest.rglob("*") if path.is_file()}
    assert {"through/counts.json", "training/counts.json"} < found.keys()
    return found


FIRST, SECOND, THIRD = 20261124001, 20261124002, 20261124003


@pytest.fixture(scope="module")
def refresh(killed: tuple[Path, str], forks: Forks) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, on that root, with the catalogue of the next noon."""
    root, _ = killed
    write_noon(root)
    return lambda *more, fault="": forks("refresh", "--date", str(NOON), *arguments(root), *more, fault=fault)


def versions(root: Path) -> list[tuple[int, int | None]]:
    """Each version, and the one that it refreshes."""
    return [(each.version, each.refreshes) for each in pushes.manifests(str(root / "serving"))]


def test_a_refresh_that_would_change_too_much_is_refused(
    killed: tuple[Path, str], refresh: Callable[..., subprocess.CompletedProcess[str]], forks: Forks
) -> None:
    root, _ = killed
    before = versions(root)
    answer = refresh("--set", "refresh.most_changed=0.02")
    assert answer.returncode == 1 and "Traceback" not in answer.stderr
    # Two are gone, one of these as it is blocked, one has changed, three are new: six of 200.
    assert "would add 3, change 1 and remove 2 of the live version's 200 items: 3.0%" in answer.stderr
    last = forks.runs(arguments(root))[-1]
    assert (last["state"], last["version"]) == ("failed", None) and last["fault"].startswith("CatalogueComparison: ")
    assert versions(root) == before


def test_a_refresh_under_64_clients_that_is_killed_anywhere_ends_right(
    killed: tuple[Path, str], refresh: Callable[..., subprocess.CompletedProcess[str]], forks: Forks
) -> None:
    root, _ = killed
    before = versions(root)
    with EmbeddedServer(root / "serving", ServerSettings(port=0, rest_port=0, poll_seconds=0.2)) as server:
        wait_for(lambda: server.versions.live == FIRST)
        with Asking(server.port) as asking:
            for fault in REFRESHING:
                answer = refresh(fault=fault)
                assert answer.returncode == -signal.SIGKILL, f"{fault}: {answer.stdout + answer.stderr}"
            answer = refresh()
            assert answer.returncode == 0, answer.stdout + answer.stderr
            wait_for(lambda: server.versions.live == SECOND)
            seen = len(asking.answers)
            wait_for(lambda: len(asking.answers) > seen + 2 * CLIENTS)
    assert not asking.errors, asking.errors[:3]
    of_version = {FIRST: ITEMS_BEFORE, SECOND: ITEMS_NOW}
    for found in asking.answers:  # all items of one version, and none of the other's alone
        assert {each.decode() for each in found.item_ids[0] if each} == of_version[found.version]
    assert {found.version for found in asking.answers} == {FIRST, SECOND}
    # It was begun six times and pushed once; the last run found what the one before it had pushed.
    assert versions(root) == [*before, (SECOND, FIRST)]
    last = forks.runs(arguments(root))[-1]
    assert (last["state"], last["version"], last["servable"]) == ("complete", SECOND, True)
    assert last["changes"] == {"items": 201, "before": 200, "new": 3, "changed": 1, "gone": 2, "others": 1}
    assert last["given"]["refreshes"] == FIRST
    indexes = sorted((root / "pipeline_root" / "Indexer" / "index").iterdir(), key=lambda folder: int(folder.name))
    first, second = (files.read(str(folder)) for folder in indexes[-2:])
    was, now = (dict(zip(each.ids, each.embeddings, strict=True)) for each in (first, second))
    kept = was.keys() & now.keys() - {b"s%d" % DEARER}
    assert len(kept) == 197 and all((was[each] == now[each]).all() for each in kept), "to the bit"
    assert abs(was[b"s%d" % DEARER] - now[b"s%d" % DEARER]).max() > 1e-3


def test_new_items_are_recommended_and_found_alike(killed: tuple[Path, str], refresh: object, forks: Forks) -> None:
    root, _ = killed
    told = forks("recommend", "--user", "v 13", "--k", "60", *arguments(root)).stdout
    assert f"by version {SECOND}" in " ".join(told.split()) and told.count("Newcomer") == NEWCOMERS
    alike = forks("similar", "--item", "new1", "--k", "60", *arguments(root)).stdout
    assert "Like Newcomer 1" in alike and "Newcomer 2" in alike
    gone = forks("similar", "--item", f"s{GONE}", *arguments(root))
    assert gone.returncode == 1 and "expected an item of the catalogue" in gone.stderr
    assert f"s{BLOCKED} " not in alike + told


def test_a_refresh_that_is_done_or_taken_back_is_not_done_again_nor_its_day(
    killed: tuple[Path, str], refresh: Callable[..., subprocess.CompletedProcess[str]], forks: Forks
) -> None:
    root, _ = killed
    count = len(forks.runs(arguments(root)))
    assert refresh().stdout == f"Version {SECOND} has this catalogue: nothing to do.\n"
    day = forks("run", "--date", str(DAY), *arguments(root)).stdout
    assert f"{DAY} is done with the same input (version {FIRST}, by run" in day
    assert len(forks.runs(arguments(root))) == count
    back = forks("push", "--rollback", *arguments(root)).stdout
    assert f"Version {THIRD} is live: the content of {FIRST} ({DAY}), in place of {SECOND}" in back
    assert f"The catalogue of {SECOND} ({DAY}) is rolled back; the live version has the same model." in back
    assert "was rolled back: nothing to do until the catalogue changes" in refresh().stdout
    live = pushes.manifests(str(root / "serving"))[-1]
    assert (live.version, live.restores) == (THIRD, FIRST)
    # Days may continue from the model, as before.
    of_day = [run for run in forks.runs(arguments(root)) if run["date"] == str(DAY) and run["state"] == "complete"]
    assert [run["withdrawn"] for run in of_day] == [False]
    # Files that are written again are another catalogue; one that is live already is passed over.
    os.utime(root / "data" / "items" / f"{NOON}.csv", (1, 1))
    again = refresh()
    assert again.returncode == 0, again.stdout + again.stderr
    assert versions(root)[-1] == (THIRD + 1, THIRD)
    os.utime(root / "data" / "items" / f"{NOON}.csv", (2, 2))
    assert f"Version {THIRD + 1} has this catalogue: nothing to do." in refresh().stdout
    assert [run["state"] for run in forks.runs(arguments(root))][-2:] == ["complete", "passed over"]
    assert versions(root)[-1] == (THIRD + 1, THIRD)
