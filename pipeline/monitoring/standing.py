"""The pipeline's state: its newest day, what is live, and when a day last succeeded. Does not import TensorFlow or TFX."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from components.pusher import tf_serving
from ndr_client.manifests import MANIFESTS, Manifests
from pipeline.config import Config
from pipeline.records import Records, Run, connection, has_begun
from pipeline.report.outcome import Outcome, Verdict, day_runs, outcome, reasons

NEWEST_RUNS = 200
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Live:
    """The version served by default.

    Attributes:
        version: its number.
        day: the UTC day of its content.
        labels: the version of each label.
    """

    version: int
    day: date
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """The pipeline's state.

    Attributes:
        newest: the newest day's last run that had anything to do; None before the first run.
        live: None before the first push.
        succeeded: when the last run ended whose version was pushed and not rolled back, UTC; None without one.
        attempted: when a step last began or ended, UTC; None before the first run.
    """

    newest: Run | None
    live: Live | None
    succeeded: datetime | None
    attempted: datetime | None


def read(config: Config) -> Standing:
    """Read ML Metadata and the push folder.

    Raises:
        UserError: one of them cannot be reached.
        OSError: the push folder cannot be read.
    """
    runs = Records(connection(config)).runs(NEWEST_RUNS) if has_begun(config) else []
    days = day_runs(runs)
    ends = [end for run in runs if not run.is_refresh and outcome(run) is Outcome.PUSHED and (end := _end(run))]
    times = [time for run in runs if (time := _end(run) or _begin(run))]
    return Standing(
        newest=days[-1] if days else None,
        live=_live(config.serving),
        succeeded=max(ends, default=None),
        attempted=max(times, default=None),
    )


def check(
    standing: Standing, within: timedelta, now: datetime, is_closed: Callable[[date], bool] = lambda day: False
) -> Verdict:
    """Judge whether a version was pushed recently; a bad verdict tells the outcome of the newest day.

    Args:
        standing: the pipeline's state.
        within: the allowed age of the last success.
        now: the current time, UTC.
        is_closed: whether a day has no data; each such day since the last success adds a day to the allowed age.
    """
    serving = (
        f"Version {standing.live.version} of {standing.live.day} is live." if standing.live else "Nothing is live."
    )
    if standing.succeeded is None:
        why, is_good = "No day was pushed yet", False
    else:
        age = now - standing.succeeded
        since = range((now.date() - standing.succeeded.date()).days)
        within += sum((DAY for n in since if is_closed(standing.succeeded.date() + n * DAY)), timedelta())
        why, is_good = f"The last pushed day ended {in_words(age)} ago", age <= within
    if is_good:
        return Verdict(True, f"{why}. {serving}")
    if standing.newest is None:
        return Verdict(False, f"{why}; no run was started. {serving}")
    explanation = (
        f"{standing.newest.date}, run {standing.newest.run}: {outcome(standing.newest).value}.",
        *reasons(standing.newest),
    )
    return Verdict(False, f"{why}; at most {in_words(within)} is allowed. {serving}", explanation)


def in_words(duration: timedelta) -> str:
    """Format a duration as days and hours, or hours, or minutes."""
    hours = duration.total_seconds() / 3600
    if hours >= 48:
        return f"{hours / 24:.1f} days"
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.0f} minutes"


def seconds(run: Run) -> float | None:
    """Return the time from the first step's start to the last one's end; None if a run did not end."""
    begin, end = _begin(run), _end(run)
    return (end - begin).total_seconds() if begin and end else None


def _begin(run: Run) -> datetime | None:
    return datetime.fromisoformat(run.steps[0].started) if run.steps else None


def _end(run: Run) -> datetime | None:
    ends = [
        datetime.fromisoformat(step.started) + timedelta(seconds=step.seconds)
        for step in run.steps
        if step.seconds is not None
    ]
    return max(ends, default=None)


def _live(push_folder: str) -> Live | None:
    if "://" in push_folder:
        return _live_at(push_folder)
    root = Path(push_folder)
    pushed = Manifests(root).read()
    if not pushed:
        return None
    version = pushed[-1].version
    manifest = json.loads((root / MANIFESTS / f"{version}.json").read_bytes())
    try:
        labels = tf_serving.labels((root / tf_serving.MODEL_CONFIG).read_text())
    except (FileNotFoundError, ValueError):
        labels = {}
    return Live(version, date.fromisoformat(manifest["day"]), labels)


def _live_at(address: str) -> Live | None:
    from components.pusher import labels  # imports TFX
    from components.pusher.versions import PushFolder

    folder = PushFolder(address)
    manifests = folder.manifests()
    if not manifests:
        return None
    return Live(manifests[-1].version, date.fromisoformat(manifests[-1].day), labels.read(folder))


def day_start(day: date) -> datetime:
    """Return when a UTC day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
