"""What a pushed version is, and which versions are in force. Nothing heavy is imported."""

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from pydantic import Field, field_validator

from schemas.declaration import Declaration
from schemas.errors import UserError

HIGHEST_VERSION = (1 << 63) - 1  # TF Serving's, an int64
REVISIONS_A_DAY = 1000


class Digest(Declaration):
    """What a file holds.

    Attributes:
        size: in bytes.
        sha256: of its content, in hexadecimal digits.
    """

    size: int
    sha256: str


class Manifest(Declaration):
    """What a version is. Those that older code wrote have no `files`, `metrics` and `restores`.

    Attributes:
        version: `YYYYMMDDnnn`, the day and a revision from 1, so that a later day is a higher version and TF Serving's
            choice of the highest is right even when days are run out of order. Of a rollback, the day is that of the version
            that it takes the place of.
        day: the UTC day of the content, ISO 8601.
        run: the pipeline run that made the content.
        model: the URI of the Model artifact that the towers come from.
        parts: the folder of each part, relative to the push folder.
        files: of each part, by its name in the folder, what each file holds.
        metrics: what the model reached over all held-out interactions; see `components.evaluator.names`.
        restores: of a rollback, the version under which its content was first pushed; else None.
        refreshes: of a refresh, the version whose towers and metrics it has, over a newer catalogue; else None.
        model_run: of a refresh, the run that trained and judged the model; empty where `run` did.
    """

    version: int = Field(gt=0, le=HIGHEST_VERSION)
    day: str
    run: str
    model: str
    parts: dict[str, str]
    files: dict[str, dict[str, Digest]] = {}
    metrics: dict[str, float] = {}
    restores: int | None = None
    refreshes: int | None = None
    model_run: str = ""

    @field_validator("parts")
    @classmethod
    def _are_inside(cls, parts: dict[str, str]) -> dict[str, str]:
        for place in map(PurePosixPath, parts.values()):
            if place.is_absolute() or ".." in place.parts or not place.parts:
                raise ValueError(f"expected the places of parts in the push folder, found {str(place)!r}")
        return parts

    @property
    def content(self) -> int:
        """The version under which its content was first pushed."""
        return self.version if self.restores is None else self.restores

    @property
    def trained_by(self) -> str:
        """The run that trained and judged the model; it also read the interactions and the users' table."""
        return self.model_run or self.run

    @property
    def is_trained(self) -> bool:
        """Whether a day's run pushed it: it is neither a rollback nor a refresh."""
        return self.restores is None and self.refreshes is None


def in_force(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return the versions that no rollback has withdrawn, oldest content first; the content of the last is live.

    A push adds one. A rollback takes away what is newer than what it brings back, and stands for that.

    Args:
        manifests: every version, oldest first.
    """
    remaining: list[Manifest] = []
    for manifest in manifests:
        if manifest.restores is not None:
            remaining = [earlier for earlier in remaining if earlier.content < manifest.content]
        remaining.append(manifest)
    return remaining


def staying(manifests: Sequence[Manifest], days: int, labelled: Collection[int] = ()) -> list[Manifest]:
    """Return the versions that retention keeps: one of each of the newest days, so that a repeated day displaces no other.

    Args:
        manifests: every version, oldest first.
        days: the number of days, at least 1, whose newest version stays. If it is two or more, the version that was live before the
            last stays too, of any day, for a rollback. If a refresh is live, so does the version by which a day's run pushed its
            model.
        labelled: further versions that stay.

    Raises:
        ValueError: `days` is less than 1.
    """
    if days < 1:
        raise ValueError(f"days: expected at least 1, received {days}")
    of_days = {manifest.version // REVISIONS_A_DAY: manifest.version for manifest in manifests}
    live = manifests[-1] if manifests else None
    of_live = [
        manifest
        for manifest in manifests
        if live and live.refreshes and manifest.is_trained and manifest.model == live.model
    ]
    trained = [manifest.version for manifest in of_live[-1:]]
    last = [manifest.version for manifest in manifests[-min(days, 2) :]]
    kept_versions = {*sorted(of_days.values())[-days:], *last, *trained, *labelled}
    return [manifest for manifest in manifests if manifest.version in kept_versions]


def withdrawn_by(restored: Manifest, manifests: Sequence[Manifest]) -> list[Manifest]:
    """Return the versions that a rollback withdraws: those in force whose content is newer than the restored one.

    Args:
        restored: the rollback, or the version whose content it brings back.
        manifests: every version before the rollback, oldest first.
    """
    return [manifest for manifest in in_force(manifests) if manifest.content > restored.content]


def rollback_source(manifests: Sequence[Manifest], to: int | None) -> Manifest:
    """Return the version whose content a rollback restores.

    Args:
        manifests: every version, oldest first.
        to: the version to restore; None for the one in force before the live one.

    Raises:
        UserError: there is no such version; `to` is unknown, or live; or it lacks components that the live one has.
    """
    if not manifests:
        raise UserError("Expected a version to go back to, and nothing was pushed yet.")
    live = manifests[-1]
    if to is None:
        before = in_force(manifests)[:-1]
        if not before:
            raise UserError(f"Expected a version to go back to, found none in force before {live.version}.")
        source = before[-1]
    else:
        source = find(manifests, to)
    if source.content == live.content:
        raise UserError(f"Expected another version than what is live: {source.version} is what {live.version} holds.")
    if missing := sorted(live.parts.keys() - source.parts.keys()):
        raise UserError(
            f"Expected a version with all parts of {live.version}, and {source.version} has no {' and no '.join(missing)}: "
            "servers would mix the two. Name another: --to VERSION."
        )
    return source


def find(manifests: Sequence[Manifest], version: int) -> Manifest:
    """Find a version by its number.

    Raises:
        UserError: it is not there.
    """
    for manifest in manifests:
        if manifest.version == version:
            return manifest
    known = ", ".join(str(manifest.version) for manifest in manifests)
    raise UserError(f"Expected a version that is in the push folder, received {version}. There are: {known or 'none'}.")
