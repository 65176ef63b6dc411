"""Rows that are not asked for, and days that do not exist: neither is a fault, and both are counted."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError
from test_left_out import DAY, catalogue_of, dropped, log_of, texts, written

from components.example_gen.settings import Condition, ExampleGenSettings
from components.example_gen.sources import Window
from schemas.errors import UserError

LOG = """user,sku,at,liked,dev,event,price
u,A,2026-11-24T01:00:00Z,1,p,view,1.5
v,B,2026-11-24T02:00:00Z,1,p,purchase,2
,C,2026-11-24T03:00:00Z,1,p,,
w,D,2026-11-24T04:00:00Z,1,p,buy_again,many
x,E,never,1,p,purchase,3
"""


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({"column": "event", "equals": "view"}, "u"),
        ({"column": "event", "not_equals": "view"}, "vw"),  # x has no time, and who has sku C no name
        ({"column": "event", "one_of": ["view", "purchase"]}, "uv"),
        ({"column": "event", "none_of": ["view", "purchase"]}, "w"),
        ({"column": "event", "starts_with": "buy"}, "w"),
        ({"column": "event", "missing": False}, "uvw"),
        ({"column": "user", "missing": False}, "uvw"),
        ({"column": "price", "above": 1.5}, "v"),
        ({"column": "price", "at_least": 1.5}, "uv"),
        ({"column": "price", "below": 2}, "u"),
        ({"column": "price", "at_most": 2}, "uv"),
        ({"column": "price", "equals": 2}, "v"),
        ({"column": "price", "equals": 1.5}, "u"),
    ],
)
def test_a_row_that_meets_a_condition_is_read(tmp_path: Path, condition: dict[str, Any], kept: str) -> None:
    rows, accounting = log_of(written(tmp_path, LOG), where=[condition])
    assert texts(rows, "query_id") == list(kept)
    assert not [name for name in rows.column_names if "where" in name]
    # Every row is in one place.
    assert accounting.rows == 5 == len(kept) + sum(accounting.filtered.values()) + sum(dropped(accounting).values())


def test_rows_without_a_user_are_no_fault_where_they_are_not_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, LOG)
    _, accounting = log_of(path)
    assert dropped(accounting) == {"user: missing": 1, "at: not a time in iso": 1}
    _, accounting = log_of(path, where=[{"column": "user", "missing": False}])
    assert accounting.filtered == {"user: not missing False": 1}
    assert dropped(accounting) == {"at: not a time in iso": 1}
    with pytest.raises(UserError, match=r"(?s)1 of 4 rows .*\n  1 filtered, user: not missing False"):
        accounting.check("interactions", 0.1, [])


def test_all_conditions_have_to_be_met_and_the_first_that_is_not_is_the_reason(tmp_path: Path) -> None:
    where = [{"column": "event", "missing": False}, {"column": "price", "at_least": 2}]
    rows, accounting = log_of(written(tmp_path, LOG), where=where)
    assert texts(rows, "query_id") == ["v"]
    assert accounting.filtered == {"event: not missing False": 1, "price: not at_least 2.0": 1}
    # Of a price that is no number nothing is known: that row is at fault.
    assert dropped(accounting) == {"price: not a number": 1, "at: not a time in iso": 1}


def test_typed_columns_are_compared_as_they_are_written(tmp_path: Path) -> None:
    table = {"sku": ["A", "B", "C"], "name": ["a", "b", "c"], "tags": ["x", "y", None], "sold": [True, False, None]}
    path = tmp_path / "part.parquet"
    parquet.write_table(pa.table({**table, "stock": [1, 2, None], "size": [1.0, 2.5, 3.0]}), path)
    for condition, kept in (
        ({"column": "sold", "equals": True}, ["A"]),
        ({"column": "sold", "not_equals": True}, ["B", "C"]),
        ({"column": "stock", "one_of": [2, 3]}, ["B"]),
        ({"column": "size", "one_of": [1, 2.5]}, ["A", "B"]),
        ({"column": "stock", "above": 1}, ["B"]),
    ):
        assert texts(catalogue_of(path, form="parquet", where=[condition])[0], "candidate_id") == kept
    with pytest.raises(UserError, match="expected numbers in column name, found string"):
        catalogue_of(path, form="parquet", where=[{"column": "name", "above": 1}])
    with pytest.raises(UserError, match=r"expected a column stok \(did you mean stock\?\)"):
        catalogue_of(path, form="parquet", where=[{"column": "stok", "above": 1}])


@pytest.mark.parametrize("condition", [{}, {"equals": 1, "above": 2}, {"one_of": []}])
def test_a_condition_says_one_thing(condition: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, ValueError)):
        Condition.model_validate({"column": "price", **condition})


def settings(**changed: Any) -> ExampleGenSettings:
    source = {"path": "data/{YYYY}-{MM}-{DD}", "format": "csv"}
    return ExampleGenSettings.model_validate({"interactions": source, "catalogue": source, **changed})


def test_a_window_passes_over_days_that_do_not_exist() -> None:
    # 2026-11-24 is a Tuesday. Three days that exist, with 23 November closed: Tuesday, Friday, Thursday; before them Wednesday.
    found = settings(closed=["saturday", "sunday", "2026-11-23"], window_days=3, history_days=1)
    window = Window.of(found, DAY, goes_on=True, has_history=True)
    assert (window.history_start, window.start, window.day) == (date(2026, 11, 18), date(2026, 11, 19), DAY)
    assert [day.day for day in window.days] == [18, 19, 20, 24]
    assert found == ExampleGenSettings.model_validate_json(found.model_dump_json())
    first = settings(closed=["saturday"], first_day="2026-11-20", window_days=400)
    assert [day.day for day in Window.of(first, DAY, goes_on=True, has_history=True).days] == [20, 22, 23, 24]
    # Without closed days: as many as there are.
    assert Window.of(settings(window_days=2, history_days=3), DAY, True, True).days == [
        DAY - timedelta(days=n) for n in (4, 3, 2, 1, 0)
    ]


def test_closed_days_are_checked() -> None:
    with pytest.raises(ValidationError, match="expected a day of the week that is not closed"):
        settings(closed=["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"])
    with pytest.raises(ValidationError, match="saturdays"):
        settings(closed=["saturdays"])
    with pytest.raises(UserError, match=r"2026-11-28, a Saturday, is closed: data\.closed"):
        settings(closed=["saturday"]).check_open(date(2026, 11, 28))


def test_rows_of_a_day_that_does_not_exist_are_at_fault_in_a_log_of_many_days(tmp_path: Path) -> None:
    lines = [f"u{day},A,2026-11-{day}T05:00:00Z,1,p" for day in (22, 23, 24)]
    path = written(tmp_path, "\n".join(["user,sku,at,liked,dev", *lines]))
    window = Window.of(settings(closed=["monday"], window_days=2, history_days=0), DAY, True, True)
    rows, accounting = log_of(path, day=None, window=window)
    assert texts(rows, "query_id") == ["u22", "u24"]
    reason, place = "at: of a day that data.closed names", f"{path} line 3: '2026-11-23T05:00:00Z'"
    assert accounting.dropped == {reason: (1, [place])} and accounting.dayless == 0


def test_a_reward_that_is_none_says_what_a_reward_is(tmp_path: Path) -> None:
    path = written(tmp_path, LOG.replace("01:00:00Z,1", "01:00:00Z,250"))
    way_out = log_of(path)[1].ways_out["liked: outside [0, 1]"]
    assert way_out.startswith("A reward is the weight of an interaction in training") and "over: 100" in way_out


def test_a_reason_may_have_a_limit_of_its_own(tmp_path: Path) -> None:
    lines = [f"{'' if n < 3 else f'u{n}'},A,{'never' if n == 9 else '2026-11-24T05:00:00Z'},1,p" for n in range(10)]
    accounting = log_of(written(tmp_path, "\n".join(["user,sku,at,liked,dev", *lines])))[1]
    accounting.splits["train"] = 6
    # 3 of 10 rows have no user, one has no time.
    accounting.check("interactions", 0.1, [], {"user: missing": 0.3})
    with pytest.raises(
        UserError, match=r"3 of 10 .* at fault \(user: missing\), more than data.max_dropped_shares allows \(0.2\)"
    ):
        accounting.check("interactions", 1.0, [], {"user: missing": 0.2})
    with pytest.raises(
        UserError, match=r"1 of 10 rows of the interactions are at fault, more than data.max_dropped_share allows"
    ):
        accounting.check("interactions", 0.09, [], {"user: missing": 0.3})
    with pytest.raises(UserError, match="4 of 10 rows"):
        accounting.check("interactions", 0.3, [])
