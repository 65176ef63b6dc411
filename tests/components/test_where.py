"""Rows that are not asked for, and days that do not exist: neither is a fault, and both are counted."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from components.example_gen.settings import Condition, ExampleGenSettings
from components.example_gen.sources import Window
from schemas.errors import UserError
from tests.components.cleaned import DAY, catalogue_of, dropped, log_of, texts, written

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
    assert "say `where: [{column: user, missing: false}]`" in accounting.ways_out["user: missing"]
    _, accounting = log_of(path, where=[{"column": "user", "missing": False}])
    assert accounting.filtered == {"user: not missing False": 1}
    assert dropped(accounting) == {"at: not a time in iso": 1}
    with pytest.raises(UserError, match=r"(?s)1 of 4 rows .*\n  1 filtered, user: not missing False"):
        accounting.check("interactions", 0.1, [])


def test_all_conditions_have_to_be_met_and_the_first_that_is_not_is_the_reason(tmp_path: Path) -> None:
    where = [{"column": "event", "missing": False}, {"column": "price", "at_least": 2}]
    rows, accounting = log_of(written(tmp_path, LOG), where=where)
    assert texts(rows, "query_id") == ["v"]
    assert accounting.filtered == {"event: not missing False": 1, "price: not at_least 2": 1}
    # A price that is not a number is a fault of its row.
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


NS = 1_795_046_400_000_000_000  # of a time in nanoseconds; float64 has every 256th number there, float32 every 2^37th


@pytest.mark.parametrize("form", ["csv", "int64", "decimal"])
@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({"above": NS}, "BC"),
        ({"at_least": NS}, "ABC"),
        ({"above": NS + 1}, "C"),
        ({"below": NS + 2}, "ABD"),
        ({"at_most": NS + 1}, "ABD"),
        ({"above": 1.5}, "ABCD"),
        ({"at_least": 2.5}, "ABC"),
        ({"below": 2.5}, "D"),
        ({"above": 1e30}, ""),
        ({"below": 10**30}, "ABCD"),
        ({"equals": NS + 1}, "B"),
        ({"none_of": [NS, NS + 1]}, "CD"),
    ],
)
def test_bounds_on_large_whole_numbers_are_exact(
    tmp_path: Path, form: str, condition: dict[str, Any], kept: str
) -> None:
    values = [NS, NS + 1, NS + 2, 2, None]
    if form == "csv":
        lines = [f"{sku},{'' if at is None else at}" for sku, at in zip("ABCDE", values, strict=True)]
        path = written(tmp_path, "\n".join(["sku,name,tags,at", *(line.replace(",", ",n,,") for line in lines), ""]))
    else:
        path = tmp_path / "part.parquet"
        kind = pa.int64() if form == "int64" else pa.decimal128(30, 2)
        column = pa.array(values, pa.int64()).cast(kind)
        nothing = ["n"] * 5
        parquet.write_table(pa.table({"sku": list("ABCDE"), "name": nothing, "tags": nothing, "at": column}), path)
    rows, accounting = catalogue_of(
        path, form="csv" if form == "csv" else "parquet", where=[{"column": "at", **condition}]
    )
    found = "".join(texts(rows, "candidate_id")) if rows.num_rows else ""
    assert found == kept if "none_of" not in condition else found == f"{kept}E"
    assert dropped(accounting) == {}
    assert (
        Condition.model_validate_json(Condition(column="at", **condition).model_dump_json()).value
        == next(iter(condition.values()))
        or "none_of" in condition
    )


def test_a_bound_between_two_floats_is_kept_to_by_floats(tmp_path: Path) -> None:
    # At 2^60 floats are 256 apart: of 2^60, 2^60 + 256 and 2^60 + 512, two are above 2^60 + 1, whose nearest float is 2^60.
    path, base = tmp_path / "part.parquet", 2**60
    table = {
        "sku": list("ABCD"),
        "name": list("abcd"),
        "tags": list("abcd"),
        "at": [float(base), base + 256.0, base + 512.0, float("nan")],
    }
    parquet.write_table(pa.table({**table, "at": pa.array(table["at"], pa.float64())}), path)
    for condition, kept in (
        ({"above": base + 1}, "BC"),
        ({"at_least": base + 1}, "BC"),
        ({"below": base + 1}, "A"),
        ({"at_most": base + 1}, "A"),
        ({"above": base + 255}, "BC"),
        ({"at_most": base + 255}, "A"),
        ({"at_least": base + 256}, "BC"),
        ({"above": base + 256}, "C"),
    ):
        rows = catalogue_of(path, form="parquet", where=[{"column": "at", **condition}])[0]
        assert "".join(texts(rows, "candidate_id")) == kept, condition


def test_a_whole_float_is_the_same_as_the_number_of_a_condition(tmp_path: Path) -> None:
    # pandas makes floats of whole numbers of which some are missing; Arrow writes this one as 1.7950464e+12.
    path = tmp_path / "part.parquet"
    floats = pa.array([1795046400000.0, 1795046400001.0, None], pa.float64())
    parquet.write_table(pa.table({"sku": list("ABC"), "name": list("abc"), "tags": list("abc"), "at": floats}), path)
    for condition, kept in (
        ({"equals": 1795046400000}, "A"),
        ({"one_of": [1795046400001, 5]}, "B"),
        ({"not_equals": 1795046400000}, "BC"),
    ):
        rows = catalogue_of(path, form="parquet", where=[{"column": "at", **condition}])[0]
        assert "".join(texts(rows, "candidate_id")) == kept


def test_a_time_is_the_same_whatever_its_neighbours_are(tmp_path: Path) -> None:
    # An invalid one makes the others of its file be read one by one: in nanoseconds a float would round them by a microsecond.
    good = f"u,A,{1_795_478_400_123_456_789},1,p"
    header = "user,sku,at,liked,dev"
    alone = log_of(written(tmp_path, f"{header}\n{good}\n", "alone.csv"), "ns")[0]
    beside = log_of(written(tmp_path, f"{header}\n{good}\nv,B,never,1,p\n", "beside.csv"), "ns")[0]
    assert texts(alone, "timestamp") == texts(beside, "timestamp") == [1_795_478_400_123_456]


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
    # Without closed days: all of them.
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


def test_an_invalid_reward_error_explains_rewards(tmp_path: Path) -> None:
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
