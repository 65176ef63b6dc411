"""How a day judged the models before it, as `ndr runs` and the tables have it."""

from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from components.next_day.record import Judgement
from pipeline.inspection.show import run_table
from pipeline.records import run_json
from pipeline.summary import day_table, tables
from pipeline.words import strongest_baseline
from tests.pipeline.report.made_up import FIRST, NOT_JUDGED, a_run, metrics


def text(*shown: Table) -> str:
    console = Console(width=200, record=True, file=None)
    with console.capture() as captured:
        for each in shown:
            console.print(each)
    return " ".join(captured.get().split())  # titles are wrapped


def test_the_json_of_a_run_has_the_next_day_and_items_as_new() -> None:
    baselines = {"recent_popularity": 0.22, "taken_before": 0.1, "cooccurrence": 0.3}
    of_baselines = {name: {"recall_at_50": [value, None, None]} for name, value in baselines.items()}
    of_new = {"as_new": {"recall_at_50": [0.1, 0.05, 0.15]}, "content_neighbours": {"recall_at_50": [0.12, None, None]}}
    run = a_run(
        next_day_metrics={"all": {**metrics(0.35), **of_baselines}}, metrics={"all": {**metrics(0.4), **of_new}}
    )
    found = run_json(run)
    next_day = found["next_day"]
    assert (next_day["recall_at_50"], next_day["recall_at_10"]) == pytest.approx((0.35, 0.175))
    assert next_day["intervals"]["recall_at_50"] == pytest.approx([0.25, 0.45])
    others = [next_day[name]["recall_at_50"] for name in ("popularity", "earlier_model")]
    assert others == pytest.approx([0.2, 0.3])
    assert {name: next_day[name]["recall_at_50"] for name in baselines} == baselines
    assert (next_day["model"], next_day["model_day"], next_day["ranked"]) == (7, "2026-10-31", 490)
    assert found["as_new"]["recall_at_50"] == 0.1 and found["as_new"]["content_neighbours"] == {"recall_at_50": 0.12}
    assert found["next_day_reason"] == found["as_new_reason"] == ""
    assert strongest_baseline(run, 50) == 0.3


def test_a_first_day_has_no_next_day_and_says_why() -> None:
    reason = "no model of an earlier day was blessed"
    run = a_run(judgement=Judgement(reason=reason), next_day_metrics={}, metrics={"all": metrics(0.4)})
    found = run_json(run)
    assert (found["next_day"], found["next_day_reason"]) == (None, reason)
    assert (found["as_new"], found["as_new_reason"]) == (
        None,
        "no held-out interaction has an item that was drawn as new",
    )
    assert f"The next day: {reason}" in text(*tables(run))
    not_so_far = run_json(a_run(**NOT_JUDGED, metrics={}))
    assert not_so_far["next_day"] is None and "ended before it evaluated" in not_so_far["next_day_reason"]
    assert not_so_far["as_new"] is None and "ended before it evaluated" in not_so_far["as_new_reason"]


def test_the_tables_lead_with_the_next_day() -> None:
    run = a_run()
    shown = text(*tables(run))
    assert (
        "490 interactions of 2026-11-01 ranked by the model of 2026-10-31" in shown
        and "10 with items that the catalogue lacks" in shown
    )
    assert shown.index("The next day") < shown.index("Held out: ranked among")
    assert "items as if new: by the model, their ids unseen" in shown
    drawn = replace(run, judgement=Judgement(model=7, model_span=20_757, interactions=9_000, ranked=500))
    assert "500 of 9,000 interactions" in text(*tables(drawn))
    by_day = text(day_table([run, a_run(FIRST, **NOT_JUDGED)]))
    assert "0.350 (0.200)" in by_day and "0.400 (0.350)" in by_day and "next day@50" in by_day
    assert "0.3500" in text(run_table([run])) and "0.4000" in text(run_table([run]))
