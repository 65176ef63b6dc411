"""Runs and facts that no pipeline had to make: every outcome, a fortnight of days."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from components.next_day.record import Judgement
from components.tuner.trial import Trial
from pipeline.records import Artifact, Edge, Execution, Graph, Run, Step
from pipeline.report.embedding_map import ItemMap, Spot
from pipeline.report.facts import Distance, Facts, Frequencies, Missing
from pipeline.report.outcome import day_runs
from pipeline.tuning.file import Tuning

FIRST = date(2026, 11, 1)


def metrics(recall: float, interactions: int = 100) -> dict[str, Any]:
    """Of a model, the last blessed one, and popularity."""

    def of(value: float) -> dict[str, list[float]]:
        return {
            f"recall_at_{k}": [value * share, value * share - 0.1, value * share + 0.1]
            for k, share in ((10, 0.5), (50, 1.0))
        }

    return {"interactions": interactions, "candidate": of(recall), "baseline": of(recall - 0.05), "popularity": of(0.2)}


AS_NEW = {"as_new": {"recall_at_10": [0.05, 0.0, 0.1], "recall_at_50": [0.1, 0.05, 0.15]}}
JUDGED = Judgement(
    model=7, model_span=20_757, earlier_model=6, earlier_span=20_756, interactions=500, ranked=490, not_in_catalogue=10
)
"""The 31st of October 2026 is day 20,757 since 1970."""
NOT_JUDGED: dict[str, Any] = {"judgement": None, "next_day_metrics": {}}


def a_run(day: date = FIRST, **changes: Any) -> Run:
    """A day on which all went well, but for what is changed."""
    good = Run(
        run=f"{day}.20261125T000000",
        date=day.isoformat(),
        state="complete",
        version=int(f"{day:%Y%m%d}001"),
        blessed=True,
        servable=True,
        metrics={
            "all": {**metrics(0.4), "candidates": "catalogue", **AS_NEW},
            "item_popularity=head": metrics(0.6, 60),
            "item_popularity=tail": metrics(0.2, 40),
        },
        judgement=JUDGED,
        next_day_metrics={"all": {**metrics(0.35), "candidates": "catalogue"}},
        rows={
            "interactions": {
                "rows": 1000, "rows_of_day": 500, "splits": {"train": 900, "eval": 90},
                "dropped": {"no item": {"rows": 10, "first": ["day.csv row 7"]}},
            }
        },
        index={"kind": "flat", "items": 200},
        turnover={"film": {"ids": 90, "admitted": 3, "expired": 1, "lookups": 100, "oov_share": 0.02,
                           "bucket_ids": 1.0, "fullest_bucket_ids": 2}},
        steps=(Step("Interactions", "complete", "", 1.5), Step("Pusher", "complete", "", 0.5)),
    )  # fmt: skip
    return replace(good, **changes)


REFUSED: dict[str, Any] = {
    "blessed": False,
    "version": None,
    "refused": ("recall_at_50_of_catalogue: 0.0400; expected at least 0.0500",),
}
FAILED: dict[str, Any] = {
    "state": "failed", "blessed": None, "version": None, "metrics": {}, "index": {}, "turnover": {}, **NOT_JUDGED,
    "fault": "Transform: no such column.",
    "steps": (Step("Interactions", "complete", "", 1.5), Step("Transform", "failed", "", 0.5)),
}  # fmt: skip
BY_DAY: dict[int, dict[str, Any]] = {
    3: REFUSED,
    5: FAILED,
    6: {"withdrawn": True},
    8: {"blessed": None, "version": None, "metrics": {}},
    9: {"version": None, "servable": False, "refused": ("the retriever answers otherwise",)},
    11: {
        "state": "unfinished",
        "blessed": None,
        "version": None,
        "metrics": {},
        "rows": {},
        "turnover": {},
        "index": {},
        **NOT_JUDGED,
    },
}


def fortnight() -> list[Run]:
    """Fourteen days with every outcome; the eighth of them has no run."""
    return [a_run(FIRST + timedelta(days=number), **BY_DAY.get(number, {})) for number in range(14) if number != 7]


def facts(runs: Sequence[Run], title: str = "Item") -> Facts:
    """What is told of runs; the items have a title."""
    days = day_runs(runs)
    newest = days[-1]
    return Facts(
        pipeline="shop",
        runs=list(runs),
        days=days,
        live=(newest.version or 1, newest.date),
        graphs={run.run: graph(run.run, title) for run in days},
        losses={run.run: [3.0, 2.5 - 0.01 * number] for number, run in enumerate(days)},
        skew=Missing("Served queries were not compared with training data yet: ndr skew."),
        tuning=Missing("There was no search for better settings yet: ndr tune."),
        drift={run.run: {"price": Distance(0.1 * (number % 5), 0.3)} for number, run in enumerate(days)},
        frequencies={newest.date: Frequencies([0.01, 0.1, 1.0], [0.02, 0.1, 0.9])},
        items=ItemMap(
            "tags",
            ("new", "old"),
            tuple(Spot(4.0 * n, 50.0, f"s{n}", f"{title} {n}", n % 2, n / 25) for n in range(25)),
            25,
        ),
        seen_in=newest,
    )


def graph(run: str, uri: str = "/nowhere") -> Graph:
    """Interactions from an earlier model; a Trainer on them; a Pusher of what it made.

    earlier model -> Interactions -> Trainer -> Pusher
                  \\________________/
    """
    steps = {1: "Interactions", 2: "Trainer", 3: "Pusher"}
    made = {10: ("Model", "2026-10-31.x", "Trainer"), 11: ("Examples", run, "Interactions"), 12: ("Model", run, "Trainer"),
            13: ("PushedModel", run, "Pusher")}  # fmt: skip
    kept = {13: {"pushed_version": 20261101001}}
    edges = [
        (10, 1, "input"), (11, 1, "output"), (10, 2, "input"), (11, 2, "input"), (12, 2, "output"), (12, 3, "input"),
        (13, 3, "output"),
    ]  # fmt: skip
    return Graph(
        {id: Artifact(id, kind, uri, "live", of, node, "", kept.get(id, {})) for id, (kind, of, node) in made.items()},
        {id: Execution(id, node, run, "complete", "", 1.0) for id, node in steps.items()},
        tuple(Edge(artifact, execution, kind, kind) for artifact, execution, kind in edges),  # type: ignore[arg-type]
    )


def tuning(words: str = "linear") -> Tuning:
    """A search of three trials, of which the second is better beyond chance and the last diverged."""
    trials = (
        Trial(0, {"trainer.towers": "configured"}, "complete", (0.2, 0.3, 0.28), 10.0),
        Trial(1, {"trainer.towers": words}, "complete", (0.25, 0.31, 0.36), 11.5),
        Trial(2, {"trainer.towers": "[128]"}, "diverged", (), 1.0),
    )
    return Tuning(
        date="2026-11-14", run="2026-11-14.a", ended="2026-11-15T01:02:03+00:00", k=50, interactions=(1000, 1100), trials=trials,
        best=1, epochs=3, before=0.3, after=0.35, difference=0.05, lower=0.01, upper=0.09,
        changes={"trainer.towers.query": [8]},
    )  # fmt: skip
