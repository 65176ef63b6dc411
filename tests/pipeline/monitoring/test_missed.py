"""Which day a run takes that is given none: by ML Metadata, whoever did the others."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from pipeline.monitoring.missed import oldest_missed
from pipeline.records import Records, Run, connection, lost_rows
from tests.work import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def complete(work: Work, day: int, pipeline: str = "shop") -> None:
    work.step(work.run(f"2026-11-{day}", pipeline), "Pusher", "pushed_model", "PushedModel")


def missed(work: Work, newest: int, make_up_days: int = 7) -> int | None:
    records = Records(connection(work.places))
    found = oldest_missed(records, "shop", date(2026, 11, newest), make_up_days)
    return found.day if found else None


def test_a_pipeline_that_never_ran_begins_with_the_newest_day(work: Work) -> None:
    complete(work, 20, pipeline="radio")
    assert missed(work, 24) == 24


def test_days_are_made_up_for_from_the_oldest_on(work: Work) -> None:
    complete(work, 20)
    work.run("2026-11-21")  # begun, and killed
    complete(work, 22)
    for expected in (21, 23, 24):
        assert missed(work, 24) == expected
        complete(work, expected)
    assert missed(work, 24) is None
    complete(work, 26)  # by hand, ahead of the others
    assert missed(work, 25) == 25


def test_a_first_day_that_failed_is_made_up_for(work: Work) -> None:
    work.run("2026-11-23")
    assert missed(work, 24) == 23


@pytest.mark.parametrize(("make_up_days", "expected"), [(0, 24), (1, 23), (3, 21), (30, 21)])
def test_days_that_are_too_long_ago_are_not_made_up_for(work: Work, make_up_days: int, expected: int) -> None:
    complete(work, 20)
    assert missed(work, 24, make_up_days) == expected


def test_the_day_of_a_run_is_found_by_the_rest_of_its_name(work: Work) -> None:
    name = work.run("2026-11-23").name
    records = Records(connection(work.places))
    assert records.day_of("shop", name.partition(".")[2]) == date(2026, 11, 23)
    assert records.day_of("radio", name.partition(".")[2]) is None
    assert records.day_of("shop", "another") is None


def test_a_day_that_does_not_exist_is_never_missed(work: Work) -> None:
    complete(work, 20)
    records = Records(connection(work.places))

    def is_closed(day: date) -> bool:
        return day.day in (21, 22)

    assert oldest_missed(records, "shop", date(2026, 11, 22), 7, is_closed) is None
    assert oldest_missed(records, "shop", date(2026, 11, 24), 7, is_closed) == date(2026, 11, 23)
    assert oldest_missed(records, "never", date(2026, 11, 22), 7, is_closed) is None


def test_a_day_that_was_delivered_again_with_fewer_rows_says_so(work: Work) -> None:
    complete(work, 23)
    complete(work, 24, pipeline="another")
    complete(work, 24)
    work.run("2026-11-24")  # killed
    complete(work, 24)
    records = Records(connection(work.places))
    first, of_another, read, _, again = records.run_ids()
    before = records.complete_before(records.run(again), "shop")
    assert before and before.run == read != of_another
    assert records.complete_before(records.run(first), "shop") is None

    def of(rows: int) -> Run:
        return replace(before, rows={"interactions": {"rows_of_day": rows}})

    assert (
        lost_rows(of(800), of(1000))
        == f"2026-11-24 has 800 rows now, but had 1,000 when run {read} read it: 20% are gone."
    )
    assert lost_rows(of(950), of(1000)) == lost_rows(of(2000), of(1000)) == lost_rows(of(1), None) == ""
