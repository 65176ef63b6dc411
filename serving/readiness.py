"""Decides whether a server is ready for requests."""

from serving.versions import Versions


class Readiness:
    """The answer of a readiness probe.

    Args:
        versions: the served versions.
        stale_seconds: how long a newer version may be unloaded before the server is not ready; None for any time.
    """

    def __init__(self, versions: Versions, stale_seconds: float | None) -> None:
        self._versions = versions
        self._stale_seconds = stale_seconds

    def __call__(self) -> tuple[bool, str]:
        """Return whether the server is ready, and why, or what is stale."""
        live, newest, stale = self._versions.live, self._versions.newest, self._versions.stale_seconds
        if live is None:
            return False, f"no version is loaded yet{self._fault()}"
        if not stale:
            return True, f"ok: version {live} is live"
        words = f"stale: version {live} is live, and version {newest} is not, for {stale:.0f} s{self._fault()}"
        return self._stale_seconds is None or stale <= self._stale_seconds, words

    def _fault(self) -> str:
        fault = self._versions.fault
        return f": {fault}" if fault else ""
