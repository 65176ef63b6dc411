"""UTC days: as dates, as spans (TFX's number of days since 1970-01-01), and in microseconds since then."""

from datetime import date, timedelta

EPOCH = date(1970, 1, 1)
MICROSECONDS_A_DAY = 86_400_000_000
MICROSECONDS_AN_HOUR = 3_600_000_000


def day_of(span: int) -> date:
    """Return the UTC day of a span."""
    return EPOCH + timedelta(days=span)


def span(day: date) -> int:
    """TFX's span: days since 1970-01-01."""
    return (day - EPOCH).days


def microseconds(day: date) -> int:
    """Return the first instant of a UTC day, in microseconds since 1970-01-01."""
    return span(day) * MICROSECONDS_A_DAY
