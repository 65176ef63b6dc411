"""Nothing is left out before it is counted: times as others write them, and rows of no day."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from schemas.errors import UserError
from tests.components.cleaned import DAY, NINE, dropped, log_of, texts, written


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24 09:00:00 UTC",  # BigQuery
        "2026-11-24 09:00:00.000000 UTC",
        "2026-11-24T09:00:00.000+0000",  # Spark
        "2026-11-24T09:00:00.000000000Z",  # Java
        "2026-11-24 10:00:00+01",  # PostgreSQL
        "20261124T090000Z",
        "2026-W48-2T09:00:00Z",
        "2026-11-24T09:00:00,0Z",
        "2026-11-24t09:00:00z",
        "2026-11-24T10:00:00 +01:00",
        " 2026-11-24T09:00:00Z ",
        "2026-11-24 09:00",
    ],
)
def test_iso_8601_is_read_as_others_write_it(tmp_path: Path, text: str) -> None:
    rows, accounting = log_of(written(tmp_path, f'user,sku,at,liked,dev\nu,A,"{text}",1,p\n'))
    assert not accounting.dropped and rows.column("timestamp").to_pylist() == [NINE]


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("24/11/2026 01:00:04", "ISO 8601 is read, such as"),
        ("11/24/2026 1:00:05 AM", "ISO 8601 is read, such as"),
        ("2026-11-24T23:59:60Z", "ISO 8601 is read, such as"),
        ("2026-11-24T01:00:10[Europe/Berlin]", "ISO 8601 is read, such as"),
        ("1795482012", "'1795482012' looks like s since 1970; where all are, say `time_unit: s`."),
        ("1795482012000", "'1795482012000' looks like ms since 1970; where all are, say `time_unit: ms`."),
    ],
)
def test_a_time_in_another_form_shows_itself_and_the_way_out(tmp_path: Path, text: str, way_out: str) -> None:
    path = written(tmp_path, f'user,sku,at,liked,dev\nu,A,"{text}",1,p\n')
    _, accounting = log_of(path)
    assert accounting.dropped == {"at: not a time in iso": (1, [f"{path} line 2: {text!r}"])}
    assert accounting.ways_out["at: not a time in iso"].startswith(way_out)


@pytest.mark.parametrize(
    ("declared", "text", "unit"),
    [
        ("s", "1795482000000", "ms"),
        ("ms", "1795482000", "s"),
        ("us", "1795482000000000000", "ns"),
        ("s", "2026-11-24T01:00:00Z", "iso"),
    ],
)
@pytest.mark.parametrize("day", [DAY, None])
def test_the_unit_of_times_is_guessed(tmp_path: Path, declared: str, text: str, unit: str, day: date | None) -> None:
    """Regression: of one log of many days it was `empty: 0 rows`."""
    path = written(tmp_path, f"user,sku,at,liked,dev\nu,A,{text},1,p\n")
    _, accounting = log_of(path, declared, day)
    (way_out,) = accounting.ways_out.values()
    assert f"`time_unit: {unit}`" in way_out
    with pytest.raises(
        UserError, match=rf"(?s)1 of 1 rows of the interactions are at fault.*line 2: '{text}'.*time_unit: {unit}"
    ):
        accounting.check("interactions", 0.01, [])
    rows, accounting = log_of(path, unit, day)
    assert not accounting.dropped and rows.num_rows == 1


MIXED = """user,sku,at,liked,dev
web0,A,1795482000000,1,p
app0,A,1795482000,1,p
ns0,A,1795482000000000000,1,p
ahead,A,1827104400000,1,p
zero,A,0,1,p
neg,A,-1,1,p
none,A,,1,p
past,A,1795136400000,1,p
w,B,1795563000000,1,p
"""


def test_times_of_no_day_are_faults_and_those_of_other_days_are_counted(tmp_path: Path) -> None:
    """Regression: rows of a log of many days whose times were in another unit were left out without a word."""
    path = written(tmp_path, MIXED)
    rows, accounting = log_of(path, "ms", None)
    assert texts(rows, "query_id") == ["web0", "w"]
    # app0 is in 1970, ns0 in 56,897,000 or so, ahead a year after the log was read, zero and neg at and before 1970.
    assert dropped(accounting) == {"at: not a time in ms": 1, "at: of no day that can be": 4, "at: missing": 1}
    assert accounting.ways_out["at: of no day that can be"].startswith("'1795482000' looks like s since 1970")
    assert (accounting.rows, accounting.dayless, accounting.other_days) == (8, 6, 1)
    assert accounting.in_words()[-1] == "  1 of other days, from 2026-11-20 to 2026-11-20"


def test_rows_without_a_day_are_a_share_of_the_whole_log(tmp_path: Path) -> None:
    """They are met again on every day: counted against one day's rows they would stop each, however few they are in the log."""
    others = "".join(f"u{n},A,{1795136400000 + n},1,p\n" for n in range(600))
    path = written(tmp_path, MIXED + others)
    accounting = replace(log_of(path, "ms", None)[1], splits={"train": 2})
    accounting.check("interactions", 0.01, [])  # 6 of the 609
    with pytest.raises(UserError, match="6 of 609 rows of the interactions are at fault"):
        accounting.check("interactions", 0.009, [])
