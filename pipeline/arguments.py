"""Options that all commands share, and how commands report errors."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import Status, UserError
from schemas.visible import visible

MOVIELENS_CONFIG = Path(__file__).parent / "configs" / "movielens.yaml"
EARLIEST_YEAR = 1970

ConfigOption = Annotated[Path, typer.Option("--config", help="The dataset's configuration, a YAML file.")]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="HOST:PORT", help="The gRPC server to ask; by default one is started for this question."
    ),
]
LabelOption = Annotated[
    str | None, typer.Option("--label", metavar="LABEL", help="Ask the version with this label, such as stable.")
]
AuthoritiesOption = Annotated[
    Path | None,
    typer.Option("--ca", exists=True, dir_okay=False, help="Use TLS, and trust the certificates in this PEM file."),
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only items that meet this, such as country=de or price<=20; may be repeated.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the configuration."),
]


def a_day(text: str) -> date:
    """Parse a UTC day from the command line."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day.isoformat() != text or day.year < EARLIEST_YEAR:
        raise typer.BadParameter(f"expected a UTC day as YYYY-MM-DD, {EARLIEST_YEAR} or later, received {text!r}")
    return day


def a_duration(text: str) -> timedelta:
    """Parse a duration from the command line: a number and s, m, h or d."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])", text)
    if not match or not float(match[1]):
        raise typer.BadParameter(f"expected a duration such as 90m, 30h or 2d, received {text!r}")
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    return timedelta(**{units[match[2]]: float(match[1])})


FirstDayOption = Annotated[Any, typer.Option("--from", parser=a_day, metavar="YYYY-MM-DD", help="The first UTC day.")]
LastDayOption = Annotated[Any, typer.Option("--to", parser=a_day, metavar="YYYY-MM-DD", help="The last UTC day.")]


def days_between(first: date, last: date) -> list[date]:
    """Return every day of a range, oldest first."""
    if last < first:
        raise typer.BadParameter(f"expected --to at or after --from, received {first} and {last}")
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


@contextmanager
def reported() -> Iterator[None]:
    """Report errors of the user or the machine without a traceback, and exit with status 1."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader closed the pipe; Typer exits quietly
    except (UserError, OSError) as error:
        sys.stderr.write(f"{visible(str(error))}\n")
        if isinstance(error, OSError):  # perhaps of standard output itself, which Python would flush again on exit
            discard(1)
        raise typer.Exit(Status.USER_FAULT) from error


def discard(descriptor: int) -> None:
    """Redirect a file descriptor to the null device."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)
