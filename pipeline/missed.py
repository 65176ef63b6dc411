"""Which days were missed: those that no run completed, whoever started it. TensorFlow and TFX are not imported."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.metadata import Records

DAYS_BACK = 1  # yesterday: the newest day whose data are complete
MAKE_UP_DAYS = 7


def today() -> date:
    """The UTC day."""
    return datetime.now(UTC).date()


def oldest_missed(
    records: "Records",
    pipeline: str,
    newest: date,
    make_up_days: int,
    is_closed: Callable[[date], bool] = lambda day: False,
) -> date | None:
    """The oldest day that no run completed, of those from the first on that was ever begun.

    A day that a run completed is done, also where its input has changed since: who wants it done again says so by its date.

    Args:
        records: of the runs.
        pipeline: its name in ML Metadata.
        newest: the last day that may be chosen.
        make_up_days: how many days before it may be chosen.
        is_closed: whether a day does not exist; it is never chosen.

    Returns:
        The day, or None where every one is done. Of a pipeline that never ran it is the newest, if that exists.
    """
    first = min(records.first_day(pipeline) or newest, newest)
    for back in range(min((newest - first).days, make_up_days), -1, -1):
        day = newest - timedelta(days=back)
        if not is_closed(day) and records.last_complete(pipeline, day) is None:
            return day
    return None
