"""Finds missed days: those without a complete run. Does not import TensorFlow or TFX."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.records import Records

DAYS_BACK = 1  # yesterday: the newest day with complete data
MAKE_UP_DAYS = 7


def today() -> date:
    """Return the current UTC day."""
    return datetime.now(UTC).date()


def oldest_missed(
    records: "Records",
    pipeline: str,
    newest: date,
    make_up_days: int,
    is_closed: Callable[[date], bool] = lambda day: False,
) -> date | None:
    """Find the oldest day without a complete run, from the first day ever begun on.

    A day with a complete run is done, even if its input has changed since: name its date to run it again.

    Args:
        records: the records of the runs.
        pipeline: its name in ML Metadata.
        newest: the newest day that may be chosen.
        make_up_days: how many days before the newest may be chosen.
        is_closed: whether a day has no data; such a day is never chosen.

    Returns:
        The day, or None if all are done. A pipeline that never ran gets the newest day, unless that is closed.
    """
    first = min(records.first_day(pipeline) or newest, newest)
    for back in range(min((newest - first).days, make_up_days), -1, -1):
        day = newest - timedelta(days=back)
        if not is_closed(day) and records.last_complete(pipeline, day) is None:
            return day
    return None
