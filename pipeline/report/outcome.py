"""The outcome of a run in a word, and the reasons in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pipeline.records import CLOSED, PASSED_OVER, Run
from pipeline.words import metric_words


class Outcome(Enum):
    """The outcome of a run; the value is its name for people."""

    PUSHED = "pushed"
    WITHDRAWN = "withdrawn"
    REFUSED = "refused"
    NOT_SERVABLE = "not servable"
    NOT_JUDGED = "not judged"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    PASSED_OVER = "passed over"

    @property
    def glyph(self) -> str:
        """A character for it, where the word does not fit."""
        return GLYPHS[self]

    @property
    def is_good(self) -> bool:
        """Whether nobody needs to look."""
        return self in (Outcome.PUSHED, Outcome.PASSED_OVER)


GLYPHS = {
    Outcome.PUSHED: "✓",
    Outcome.WITHDRAWN: "↩",
    Outcome.REFUSED: "✕",
    Outcome.NOT_SERVABLE: "⊘",
    Outcome.NOT_JUDGED: "?",
    Outcome.FAILED: "!",
    Outcome.UNFINISHED: "…",
    Outcome.PASSED_OVER: "=",
}


def outcome(run: Run) -> Outcome:
    """Return the outcome of a run."""
    if run.state in (PASSED_OVER, "failed", "unfinished"):
        return Outcome(run.state)
    if run.withdrawn:
        return Outcome.WITHDRAWN
    if run.blessed is None:
        return Outcome.NOT_JUDGED
    if not run.blessed:
        return Outcome.REFUSED
    return Outcome.PUSHED if run.version else Outcome.NOT_SERVABLE


def reasons(run: Run) -> list[str]:
    """Return why it was not pushed, and what else people should know; a sentence each."""
    sentences = [*map(metric_words, run.refused), *run.waived]
    sentences += [f"Limits on {name} were not judged: no held-out interaction is in it." for name in run.not_judged]
    match outcome(run):
        case Outcome.WITHDRAWN:
            sentences.append("Its model was rolled back.")
        case Outcome.FAILED:
            steps = [step.node for step in run.steps if step.state == "failed"]
            sentences.append(run.fault or f"{', '.join(steps)} failed.")
        case Outcome.UNFINISHED:
            sentences.append(
                f"It ended after {run.steps[-1].node}, or still runs." if run.steps else "No step has run."
            )
        case Outcome.PASSED_OVER:
            is_closed = run.passed_over_for == CLOSED
            sentences.append("The day has no data." if is_closed else "The day was done with the same input.")
        case Outcome.NOT_JUDGED:
            sentences.append("Its model was not evaluated.")
    return sentences


def day_runs(runs: Sequence[Run]) -> list[Run]:
    """Return each day's last run that had anything to do, by day; a refresh is a run of no day."""
    of_days = [run for run in runs if not run.is_refresh]
    last = {run.date: run for run in sorted(of_days, key=lambda run: run.state != PASSED_OVER)}
    return [last[day] for day in sorted(last)]


@dataclass(frozen=True)
class Verdict:
    """Whether the newest day is good.

    Attributes:
        is_good: whether nobody needs to look.
        sentence: the verdict in a sentence.
        reasons: why it is not good, a sentence each.
    """

    is_good: bool
    sentence: str
    reasons: tuple[str, ...] = ()


def verdict(run: Run, live: tuple[int, str] | None) -> Verdict:
    """Judge whether a day is good.

    Args:
        run: the newest day's last run that had anything to do.
        live: the version whose content is served and its day; None if nothing is live.
    """
    day_outcome = outcome(run)
    serving = f"Version {live[0]} of {live[1]} is live." if live else "Nothing is live."
    if day_outcome is not Outcome.PUSHED:
        return Verdict(False, f"{run.date} is not good: {day_outcome.value}. {serving}", tuple(reasons(run)))
    if live is None or run.version is None or live[0] < run.version:  # a later day may be live
        return Verdict(
            False, f"{run.date} is not good: its version {run.version} was pushed, but is not live. {serving}"
        )
    blessed = "its model was blessed, though a baseline beats it" if run.waived else "its model was blessed"
    return Verdict(True, f"{run.date} is good: {blessed}. {serving}", tuple(reasons(run)))
