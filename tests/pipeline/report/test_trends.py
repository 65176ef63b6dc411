"""What each plot takes of the runs."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline import config
from pipeline.report import trends
from pipeline.report.charts import Chart, Line
from pipeline.report.facts import Distance, Missing
from pipeline.report.outcome import Outcome
from pipeline.words import chosen_cutoff
from tests.pipeline.report.made_up import FIRST, NOT_JUDGED, a_run, facts, fortnight, metrics

CONFIG = config.load(Path(config.__file__).parent / "configs" / "movielens.yaml")


def tips(line: Line) -> list[str]:
    return [mark.tip for mark in line.marks]


def test_a_day_without_a_run_has_a_column_and_a_word() -> None:
    days = fortnight()
    assert trends.columns(days)[6:9] == ["2026-11-07", "2026-11-08", "2026-11-09"] and len(days) == 13
    found = trends.statuses(days)
    assert (found[7].outcome, found[7].tip) == (None, "2026-11-08: no run")
    assert {each.outcome for each in found} == {None, *Outcome} - {Outcome.PASSED_OVER}
    assert found[3].tip == "2026-11-04: refused\nrecall@50 of catalogue: 0.0400; expected at least 0.0500"


def test_years_without_runs_have_no_columns() -> None:
    days = [a_run(FIRST - timedelta(days=9999)), a_run(FIRST)]
    assert trends.columns(days) == ["1999-06-17", "2026-11-01"]


def test_recall_has_a_line_a_scorer_and_the_model_its_intervals() -> None:
    limits = [
        {"metric": "recall_at_50", "at_least": 0.3, "fall_at_most": 0.1},
        {"metric": "recall_at_10", "at_least": 0.2},  # of another K
        {"metric": "recall_at_50", "at_least": 0.1, "slice": {"item_popularity": "tail"}},  # of a part only
    ]
    evaluator = CONFIG.evaluator.model_validate({"recall_at": [10, 50], "limits": limits})
    limited = CONFIG.model_copy(update={"evaluator": evaluator})
    chart = trends.recall_chart(fortnight(), 50, limited)
    # No co-occurrence was measured.
    assert [line.name for line in chart.lines] == [
        "model",
        "last blessed",
        "popularity",
    ]
    model, baseline, _ = chart.lines
    # 0.4 with 0.3 and 0.5 about it: on an axis to 0.6 a third from the top.
    assert (model.marks[0].y, model.marks[0].low, model.marks[0].high) == (33.33, 50.0, 16.67)
    assert tips(model)[0] == "2026-11-01, model: 0.4000 [0.300, 0.500], 100 interactions"
    assert baseline.marks[0].low is None
    # Of the 14 days one has no run, three were not measured; refused, withdrawn and not servable are crosses.
    assert [mark.symbol for mark in model.marks] == ["dot"] * 3 + [
        "cross",
        "dot",
        "cross",
        "cross",
        "dot",
        "dot",
        "dot",
    ]
    assert model.path.count("M") == 4  # 1 to 5, 7, 10 and 11, 13 and 14 of November
    assert chart.rules == ((50.0, "at least 0.3"),)


def test_the_second_cutoff_is_chosen() -> None:
    assert trends.recall_cutoffs(fortnight()) == [10, 50]
    assert [chosen_cutoff(cutoffs) for cutoffs in ([10, 50, 100], [5], [])] == [50, 5, 0]


def test_the_next_day_has_a_line_a_scorer_and_days_without_a_model_to_judge_a_gap() -> None:
    chart = trends.next_day_chart(fortnight(), 50)
    assert isinstance(chart, Chart)
    assert [line.name for line in chart.lines] == ["model", "model before", "popularity"]
    # Of the fourteen days one has no run, one failed and one is unfinished: 1 to 5, 7, 9 to 11, 13 and 14 of November.
    assert len(chart.lines[0].marks) == 11 and chart.lines[0].path.count("M") == 4
    assert tips(chart.lines[0])[0] == "2026-11-01, model: 0.3500 [0.250, 0.450], 100 interactions"
    nothing = trends.next_day_chart([a_run(**NOT_JUDGED)], 50)
    assert isinstance(nothing, Missing) and nothing.why.startswith("No model of an earlier day")


def test_new_items_have_a_line_of_their_own() -> None:
    chart = trends.aside_chart([a_run()], 50)
    assert isinstance(chart, Chart)
    assert [line.name for line in chart.lines] == ["items as if new: by the model, their ids unseen"]
    assert tips(chart.lines[0]) == [
        "2026-11-01, items as if new: by the model, their ids unseen: 0.1000 [0.050, 0.150], 100 interactions"
    ]
    assert isinstance(trends.aside_chart([a_run(metrics={"all": metrics(0.4)})], 50), Missing)


def test_slices_are_the_pipelines_own_first_and_the_largest_of_a_features() -> None:
    of_cities = {f"city={number}": metrics(0.3, interactions=number) for number in range(9)}
    days = [
        a_run(
            metrics={
                "all": metrics(0.4),
                **of_cities,
                "item_popularity=tail": metrics(0.1),
                "item_popularity=head": metrics(0.5),
            }
        )
    ]
    charts = trends.slice_charts(days, 50)
    assert list(charts) == ["item_popularity", "city"]
    assert [line.name for line in charts["item_popularity"].lines] == ["head", "tail"]
    assert [line.name for line in charts["city"].lines] == ["3", "4", "5", "6", "7", "8"]


def test_rows_are_counted_by_day_and_dropped_ones_by_reason() -> None:
    days = fortnight()
    volume = trends.volume_chart(days)
    assert len(volume.bars) == 12 and volume.bars[0].tip == "2026-11-01: 500 rows of the day; 1,000 read"
    dropped = trends.dropped_chart(days)
    assert isinstance(dropped, Chart) and dropped.bars[0].tip == "2026-11-01: 10 rows left out: no item"
    clean = {"interactions": {"rows": 1, "rows_of_day": 1, "splits": {}, "dropped": {}}}
    assert trends.dropped_chart([a_run(rows=clean)]) == Missing("No row was dropped.")


def test_oov_is_a_share_of_each_table_that_has_a_vocabulary() -> None:
    hashed = {"ids": 0, "admitted": 0, "expired": 0, "lookups": 5, "oov_share": None}
    chart = trends.oov_chart([a_run(turnover={**a_run().turnover, "city": hashed})])
    assert isinstance(chart, Chart)
    assert [(line.name, tips(line)) for line in chart.lines] == [
        ("film", ["2026-11-01: 2.00% of the ids of film are out of its vocabulary"])
    ]
    assert isinstance(trends.oov_chart([a_run(turnover={"city": hashed})]), Missing)


def test_drift_beyond_its_limit_is_a_cross() -> None:
    day, after = a_run(), a_run(FIRST + timedelta(days=1))
    measured = {
        day.run: {"price": Distance(0.2, 0.3)},
        after.run: {"price": Distance(0.4, 0.3), "age": Distance(0.1, 1.0)},
    }
    chart = trends.drift_chart([day, after], measured)
    assert isinstance(chart, Chart)
    age, price = chart.lines
    assert (age.name, len(age.marks)) == ("age", 1)
    assert [mark.symbol for mark in price.marks] == ["dot", "cross"]
    assert tips(price)[1] == "2026-11-02: price is 0.400 from the day before; 0.3 is allowed"
    assert [name for _, name in chart.rules] == ["limit of price"]


@pytest.mark.parametrize(
    ("drift", "sentence"),
    [
        (Missing("It was removed."), "It was removed."),
        ({}, "Nothing was measured: validation.drift has no limit."),
    ],
)
def test_drift_that_was_not_measured_says_so(drift: Missing | dict[str, Distance], sentence: str) -> None:
    assert trends.drift_chart([a_run()], {a_run().run: drift}) == Missing(sentence)


def test_a_loss_curve_that_is_missing_leaves_the_others() -> None:
    found = facts(fortnight())
    losses = {**found.losses, found.days[0].run: Missing("gone"), found.days[1].run: [9.0]}
    chart = trends.loss_chart(found.days, losses)
    assert isinstance(chart, Chart)
    assert [line.name for line in chart.lines][:2] == ["2026-11-02", "2026-11-03"]
    assert tips(chart.lines[0]) == ["2026-11-02, epoch 1: loss 9.0000"]
    assert isinstance(trends.loss_chart([replace(a_run())], {a_run().run: Missing("gone")}), Missing)
