"""Finds the run or the artifact that a user names."""

import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from components import recorded
from pipeline.records import Artifact, Lineage, Records
from schemas.errors import UserError

SHOWN = 10  # candidates


def find_run(records: Records, words: str) -> str:
    """Find the id of a run.

    Args:
        records: the records of the runs.
        words: its id, the unique beginning of its id, or a UTC day, for the last run of that day.

    Raises:
        UserError: no run matches, or several do.
    """
    ids = records.run_ids()
    if words in ids:
        return words
    matches = [run_id for run_id in ids if words and run_id.startswith(words)]
    if len(matches) == 1 or (matches and _is_day(words)):
        return matches[-1]
    expected = "expected a run's id, the beginning of one, or a UTC day"
    if matches:
        raise UserError(f"{expected}, received {words!r}, which {len(matches)} runs begin with:{_listed(matches)}")
    hint = f" The last runs are:{_listed(ids)}" if ids else " ML Metadata knows no run yet."
    raise UserError(f"{expected}, received {words!r}: there is no such run.{hint}")


def find_artifact(lineage: Lineage, words: str) -> int:
    """Find the id of an artifact.

    Args:
        lineage: the graph of the artifacts.
        words: its id, its URI, the path of something in it, a pushed version, or the path of a part of one.

    Raises:
        UserError: no artifact matches, or several do.
    """
    matches = _by_number(lineage, words) if words.isdecimal() else _by_place(lineage, words)
    if len(matches) == 1:
        return matches[0]
    expected = "expected an artifact's id, its URI, a path in it, or a pushed version"
    if matches:
        candidates = [_words(artifact) for artifact in lineage.described(matches)]
        raise UserError(
            f"{expected}, received {words!r}, which matches several; name one by its id:{_listed(candidates)}"
        )
    newest = [_words(artifact) for artifact in lineage.artifacts(last=SHOWN)]
    hint = f"The newest are:{_listed(newest)}\n`ndr artifacts` lists all." if newest else "ML Metadata knows none yet."
    raise UserError(f"{expected}, received {words!r}: there is no such artifact. {hint}")


def _by_number(lineage: Lineage, words: str) -> list[int]:
    number = int(words)
    pushed = [artifact for artifact, push in lineage.pushes().items() if push.get(recorded.VERSION) == words]
    return sorted({*lineage.existing([number]), *pushed})


def _by_place(lineage: Lineage, words: str) -> list[int]:
    """Return the artifact that contains a place, else the one pushed there, else those inside it."""
    if not words:
        return []
    spelled = {words.rstrip("/")}
    within = list(spelled)
    if "://" not in words:
        places = [Path(os.path.abspath(words)), Path(os.path.realpath(words))]  # noqa: PTH100 (resolve follows links)
        spelled = {str(place) for place in places}
        within = [str(path) for place in places for path in (place, *place.parents)]
    for place in within:
        if matches := lineage.at(place):
            return matches[-1:]  # the newest of one place: the others were overwritten
    components = {id: recorded.decoded(push, recorded.PARTS).values() for id, push in lineage.pushes().items()}
    return [id for id, its in components.items() if spelled & set(its)] or lineage.below(spelled)


def _is_day(words: str) -> bool:
    try:
        return date.fromisoformat(words).isoformat() == words
    except ValueError:
        return False


def _words(artifact: Artifact) -> str:
    return f"{artifact.id}, {artifact.type} of run {artifact.run}, {artifact.uri}"


def _listed(lines: Sequence[str]) -> str:
    more = [f"  and {len(lines) - SHOWN} older"] if len(lines) > SHOWN else []
    return "".join(f"\n{line}" for line in [*more, *(f"  {line}" for line in lines[-SHOWN:])])
