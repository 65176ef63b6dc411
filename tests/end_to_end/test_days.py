"""Days as they come: late, empty, twice, out of order, too bad to be pushed, too far from the one before, in a row.

Each test has the newest day that is served, which may be that of a test above it, and the days behind it.
"""

import json
import re
from contextlib import ExitStack
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.counts import files
from components.trainer.names import LOSS_CURVE
from serving.server import EmbeddedServer, ServerSettings
from tests.end_to_end.shops import DAY, PLAIN, SHOP, write_sales, write_shop
from tests.forks import Forks

SETTINGS = {
    "dataset": PLAIN,
    "data.window_days": 1,
    "data.catch_up_days": 2,
    "trainer.epochs": 2,
    "counts.half_life_days": "null",
    "retention": "{days: 3, versions: 2}",
}


class Shop:
    """A root, and what is done there."""

    def __init__(self, folder: Path, forks: Forks) -> None:
        self.folder, self._forks = folder, forks
        write_shop(folder)

    def ndr(self, *command: str, **settings: Any) -> Any:
        values = {"root": self.folder, **SETTINGS, **{n.replace("__", "."): value for n, value in settings.items()}}
        options = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
        return self._forks(*command, "--config", str(SHOP), *options)

    def run(self, day: date, **settings: Any) -> dict[str, Any]:
        """The record of a run that is expected to get to its end."""
        answer = self.ndr("run", "--date", str(day), **settings)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return self.runs()[-1]

    def refusal(self, day: date, **settings: Any) -> str:
        """What is said of a run that is expected to stop for a fault of the user's."""
        answer = self.ndr("run", "--date", str(day), **settings)
        assert answer.returncode == 1 and "Traceback" not in answer.stderr, answer.stdout + answer.stderr
        last = self.runs()[-1]
        assert (last["date"], last["state"], last["version"]) == (str(day), "failed", None)
        return str(answer.stderr)

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ndr("runs", "--json").stdout)
        return found

    def steps(self) -> set[str]:
        """Those of the last run."""
        return {step["node"] for step in self.runs()[-1]["steps"]}

    def counted(self) -> int:
        """The interactions of all days that the last run's counts know of."""
        newest = max((self.folder / "pipeline_root" / "Counter" / "counts").iterdir(), key=lambda each: int(each.name))
        counts = files.read([f"{newest}/{files.THROUGH}"], as_of=files.describe(f"{newest}/{files.THROUGH}").span)
        return int(counts.items["count"].sum()) // files.ONE

    def served(self) -> list[int]:
        return sorted(int(folder.name) for folder in (self.folder / "serving" / "query_tower").glob("*"))

    def newest(self) -> date:
        """The day of the version that is live."""
        return datetime.strptime(str(self.served()[-1])[:8], "%Y%m%d").date()

    def model_day(self) -> date:
        """The day whose model the next run resumes from."""
        return date.fromisoformat(max(run["date"] for run in self.runs() if run["version"] and not run["withdrawn"]))

    def live(self) -> dict[str, Any]:
        """The run of the version that is live, if it resumed from an earlier one; else that of a day more."""
        found = next((run for run in reversed(self.runs()) if run["version"] == self.served()[-1]), None)
        if found is None or not base_day(found):
            (day,) = self.next_days(1)
            write_sales(self.folder, day)
            found = self.run(day)
        return found

    def next_days(self, count: int) -> list[date]:
        return [self.newest() + timedelta(days=number) for number in range(1, count + 1)]


def examples_of(run: dict[str, Any]) -> int:
    """The rows that became examples: not those of days before, which are read for histories alone."""
    rows = run["rows"]["interactions"]
    return int(rows["rows"] - rows["before"])


def version(day: date, revision: int = 1) -> int:
    return int(f"{day:%Y%m%d}{revision:03d}")


def base_day(run: dict[str, Any]) -> str:
    return str(run["given"]["base_day"])


@pytest.fixture(scope="module")
def shop(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose first day was run."""
    started = Shop(tmp_path_factory.mktemp("days"), forks)
    first = started.run(DAY, trainer__early_stopping="{recall_at: 20}")
    # Without an earlier model, a first run has the two days of catch_up_days.
    assert (base_day(first), examples_of(first)) == ("", 6000)
    # The third day that there is was read for histories. Those of training lack what is held out, a fifth of the second day's.
    assert first["rows"]["interactions"]["before"] == 3000 and len(first["rows"]["interactions"]["absent"]) == 5
    assert first["histories"]["feature"] == "bought" and first["histories"]["cautions"] == []
    assert first["rows"]["interactions"]["rows_of_day"] == 3000
    assert (first["version"], first["turnover"]["sku"]["admitted"]) == (version(DAY), 200)
    assert (first["next_day"], first["next_day_reason"]) == (None, "no model of an earlier day was blessed")
    assert started.counted() == 6000
    # What is held out was ranked after each epoch, with what histories add, and is in the curve.
    (curve,) = (started.folder / "pipeline_root" / "Trainer" / "model_run").rglob(LOSS_CURVE)
    header, *epochs = curve.read_text().split()
    assert header == "epoch,loss,recall" and 0.3 < max(float(epoch.rpartition(",")[2]) for epoch in epochs) < 1
    return started


def test_a_late_and_an_empty_day_are_refused_and_each_day_is_built_on_the_one_before(shop: Shop) -> None:
    first, (late, last), counted = shop.model_day(), shop.next_days(2), shop.counted()
    live = shop.served()[-1]
    assert f"{late}: expected at least one csv file at" in shop.refusal(late)
    write_sales(shop.folder, late, rows=0)
    assert re.search(rf"{late} is empty: \d+ rows were read from", shop.refusal(late))
    assert not shop.steps() & {"Analyzer", "Trainer", "Pusher"}
    assert shop.served()[-1] == live
    # The day behind it is run without it.
    write_sales(shop.folder, last)
    assert base_day(shop.run(last)) == str(first)
    write_sales(shop.folder, late)
    found = shop.run(late)
    assert shop.newest() == last
    # The late day alone, on top of the first one's model; no id is new.
    assert (base_day(found), examples_of(found)) == (str(first), 3000)
    assert {k: found["turnover"]["sku"][k] for k in ("ids", "admitted", "expired")} == {
        "ids": 200,
        "admitted": 0,
        "expired": 0,
    }
    assert found["blessed"] and found["version"] == version(late)
    # Judged beside the first day's model, on the same interactions.
    assert found["metrics"]["all"]["baseline"]["recall_at_20"][0] > 0.3
    # All of the day by the model of the day before, and by what was known then; there is no model before that.
    judged = found["next_day"]
    assert (judged["interactions"], judged["ranked"], judged["not_in_catalogue"]) == (3000, 3000, 0)
    assert judged["model_day"] == str(first) and "earlier_model" not in judged
    assert judged["recall_at_20"] > 0.3 > judged["popularity"]["recall_at_20"]
    assert {"recent_popularity", "taken_before", "cooccurrence"} < judged.keys()
    assert 0 <= found["as_new"]["recall_at_20"] <= 1 and "recall_at_20" in found["as_new"]["content_neighbours"]
    assert shop.counted() == counted + 3000
    # Now the last day continues from another one; the late one is done.
    answer = shop.ndr("backfill", "--from", str(late), "--to", str(last))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"{late} is done with the same input" in answer.stdout
    again = shop.runs()[-1]
    assert (again["date"], base_day(again), again["version"]) == (str(last), str(late), version(last, 2))
    assert "recall_at_20" in again["next_day"]["earlier_model"]
    assert shop.counted() == counted + 6000  # the late day too, once


def test_a_day_that_is_delivered_again_becomes_a_new_version_and_only_then(shop: Shop) -> None:
    first = shop.live()
    day, counted = date.fromisoformat(first["date"]), shop.counted()
    count = len(shop.runs())
    answer = shop.ndr("run", "--date", str(day))
    assert answer.returncode == 0 and "is done with the same input" in answer.stdout
    assert len(shop.runs()) == count
    write_sales(shop.folder, day, seed=1)
    second = shop.run(day)
    assert second["version"] == first["version"] + 1 == shop.served()[-1]
    # It does not continue from its own first version.
    assert base_day(second) == base_day(first) < str(day)
    assert shop.counted() == counted


def test_a_withdrawn_version_is_not_pushed_again_by_the_same_command(shop: Shop) -> None:
    live = shop.live()
    bad, withdrawn = date.fromisoformat(live["date"]), live["version"]
    answer = shop.ndr("push", "--rollback")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"The model of {withdrawn} ({bad}) is withdrawn" in answer.stdout
    assert shop.served()[-1] == withdrawn + 1
    count = len(shop.runs())
    said = shop.ndr("run", "--date", str(bad)).stdout
    assert f"{bad} is done with the same input (version {withdrawn}, withdrawn by a rollback, by run" in said
    assert len(shop.runs()) == count
    # Nor to another folder, for which all but the push comes from the cache, the blessing too.
    elsewhere = shop.run(bad, pusher__destination="elsewhere")
    assert (elsewhere["blessed"], elsewhere["withdrawn"], elsewhere["version"]) == (True, True, None)
    assert not (shop.folder / "elsewhere").exists()


def test_a_refused_model_is_recorded_and_the_next_day_continues_from_the_last_blessed_one(shop: Shop) -> None:
    before, (bad, after), live = shop.model_day(), shop.next_days(2), shop.served()[-1]
    for day in (bad, after):
        write_sales(shop.folder, day)
    strict = {"evaluator__below_last_blessed": "refuse", "trainer__learning_rate": 5.0}  # as it is by default
    answer = shop.ndr("run", "--date", str(bad), **strict)
    assert answer.returncode == 0
    refused = shop.runs()[-1]
    assert (refused["blessed"], refused["version"], refused["state"]) == (False, None, "complete")
    missed = refused["refused"][0]
    assert (
        missed.startswith("recall_at_")
        and "below that of the last blessed model; 0.0000 below is allowed (95 %: -" in missed
    )
    assert missed in " ".join(answer.stdout.replace("│", " ").split())  # the table's lines put together
    assert shop.served()[-1] == live
    assert "not blessed: recall_at_" in shop.ndr("run", "--date", str(bad), **strict).stdout
    assert base_day(shop.run(after)) == str(before)


def test_a_day_too_far_from_the_one_before_is_stopped_in_words(shop: Shop) -> None:
    before = shop.live()["date"]
    (day,) = shop.next_days(1)
    delivered = write_sales(shop.folder, day, rows=600)
    said = shop.refusal(day, validation__least_volume=0.5)
    assert f"The interactions of {day} (current) are further from those of {before} (previous) than is allowed" in said
    assert "examples in the current span" in said
    assert not shop.steps() & {"Analyzer", "Trainer", "Pusher"}
    delivered.unlink()  # no other test is to find it


def test_days_are_inspected(shop: Shop) -> None:
    """Each command over real runs; `tests/pipeline/test_inspection.py` has what they make of what."""

    def told(*command: str) -> Any:
        answer = shop.ndr(*command, "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)

    last = shop.live()
    first = next(run for run in shop.runs() if run["version"])
    shown = told("show", last["run"])
    assert shown["origin"]["configuration"]["trainer"]["epochs"] == 2 and shown["origin"]["code"]
    files = shown["sources"]["interactions"]["files"]
    month, file = f"{date.fromisoformat(last['date']):%Y/%m %d}.csv.gz".split()
    assert files["last"] == str(shop.folder / "data" / "sales" / month / (file if files["folders"] == 1 else ""))
    assert files["files"] >= 1 and files["bytes"] > 0
    assert all(step["seconds"] is not None for step in shown["steps"])
    # The newest days are kept; of the first one retention has left no more than what its version needs.
    assert all(each["exists"] for each in shown["artifacts"] if each["run"] == last["run"])

    lineage = told("lineage", str(last["version"]))
    nodes = {each["node"] for each in lineage["executions"]}
    assert {
        "Interactions",
        "Transform",
        "Trainer",
        "Indexer",
        "InfraValidator",
        "RetrievalEvaluator",
        "Pusher",
    } <= nodes
    base = next(edge["artifact"] for edge in lineage["edges"] if edge["name"] == "base_model")
    [model] = [each for each in lineage["artifacts"] if each["id"] == base]
    assert model["run"].startswith(last["given"]["base_day"]) and model["type"] == "Model"
    assert lineage["runs"][last["run"]] == shown["origin"]
    # From that model on: the last day's Trainer went on from it, and made another.
    onwards = told("lineage", str(base), "--depth", "1")
    users = {(each["node"], each["run"]) for each in onwards["executions"]}
    assert ("Trainer", last["run"]) in users

    differences = told("diff", first["run"], last["run"])
    assert differences["outcome"]["version"] == [first["version"], last["version"]]
    assert differences["data"]["trained from"] == ["", last["given"]["base_day"]]
    pushers = {run["run"] for run in shop.runs() if any(step["node"] == "Pusher" for step in run["steps"])}
    assert {each["run"] for each in told("artifacts", "--type", "PushedModel")} == pushers


def test_a_backfill_stops_at_the_first_fault_and_resumes_there(shop: Shop) -> None:
    first = date.fromisoformat(shop.live()["date"])
    missing, last = shop.next_days(2)
    write_sales(shop.folder, last)
    command, count = ("backfill", "--from", str(first), "--to", str(last)), len(shop.runs())
    answer = shop.ndr(*command)
    assert answer.returncode == 1
    assert f"{first} is done with the same input" in answer.stdout
    assert answer.stderr.startswith(f"{missing}: Interactions of 1 day(s) are missing or unfit:")
    assert f"the same command resumes from {missing}" in answer.stderr
    assert [run["date"] for run in shop.runs()[count:]] == [str(missing)]  # nothing behind it was tried
    write_sales(shop.folder, missing)
    answer = shop.ndr(*command, retention="{days: 1, versions: 1}")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert f"{first} is done with the same input" in answer.stdout
    table = answer.stdout[answer.stdout.index("Days.") :]
    assert all(f"{day}  3,000        0" in table and str(version(day)) in table for day in (first, missing, last))
    assert base_day(shop.runs()[-1]) == str(missing)
    # Of all that was run, one version stays, and the artifacts of its day; the model that it went on from, and the one before.
    assert shop.served() == [version(last)]
    assert len(list((shop.folder / "pipeline_root" / "Trainer" / "model").iterdir())) == 3
    # The model that the first of these days went on from is gone. The day is done all the same, until its data changes.
    before = next(base_day(run) for run in shop.runs() if run["date"] == str(first))
    assert "is done with the same input" in shop.ndr("run", "--date", str(first)).stdout
    write_sales(shop.folder, first, seed=1)
    answer = shop.ndr("run", "--date", str(first))
    assert answer.returncode == 1
    assert (
        f"{first} was run before, and continued from the model of {before}, which retention has removed"
        in answer.stderr
    )


def test_another_shape_is_refused_or_starts_from_scratch_as_configured(shop: Shop) -> None:
    (day,) = shop.next_days(1)
    write_sales(shop.folder, day)
    narrow = {"trainer__towers": "{query: [8], item: [8]}"}
    said = shop.refusal(day, **narrow)
    assert "towers.query: [32, 16] before, [8] now" in said and "trainer.on_other_shape=restart" in said
    in_shards = {"indexer__shards": 2, "indexer__stitched": "false"}
    restarted = shop.run(day, **narrow, trainer__on_other_shape="restart", **in_shards)
    assert (base_day(restarted), examples_of(restarted)) == ("", 6000)
    # There is no model to continue from, but one to beat.
    assert restarted["metrics"]["all"]["baseline"]["recall_at_20"][0] > 0.3
    # Its index is in two shards, each with a retriever, which are asked as one.
    assert restarted["metrics"]["all"]["candidate"]["index_recall_at_50"][0] == 1.0
    assert (restarted["index"]["kind"], restarted["index"]["items"]) == ("flat", 200)
    pushed = json.loads((shop.folder / "serving" / "manifests" / f"{restarted['version']}.json").read_text())["parts"]
    assert sorted(pushed) == [f"index-{n}-of-2" for n in (0, 1)] + [
        "item_tower",
        "query_tower",
        *(f"retriever-{n}-of-2" for n in (0, 1)),
    ]
    alone = shop.ndr("recommend", "--user", "v 13", "--k", "60")
    assert alone.returncode == 0, alone.stderr
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                EmbeddedServer(shop.folder / "serving", ServerSettings(port=0, rest_port=0, shard=number))
            )
            for number in (0, 1)
        ]
        for server in servers:
            server.versions.refresh()
            assert server.versions.live == restarted["version"]
        addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        told = shop.ndr("recommend", "--user", "v 13", "--k", "60", "--server", addresses)
    assert told.returncode == 0, told.stderr
    assert told.stdout == alone.stdout
