"""The exported versions, and what an export did, as they are shown."""

import json

from rich.table import Table

from pipeline.config import Config
from pipeline.export.exporting import Outcome
from pipeline.export.store import Exported
from pipeline.export.stores import Name, opened


def as_json(config: Config, name: Name) -> str:
    """List the versions in a store, the oldest export first."""
    return json.dumps([dict(exported) for exported in _exported(config, name)[1]], indent=2, default=str) + "\n"


def table(config: Config, name: Name) -> Table | str:
    """Tabulate the versions in a store, the newest export last, or report that there are none."""
    place, exports = _exported(config, name)
    if not exports:
        return f"{place.removesuffix(',')}: no version was exported yet."
    shown = Table("version", "day", "items", "width", "exported (UTC)", "", title=place, title_justify="left")
    for exported in exports:
        figures = (f"{exported.items:,}", str(exported.width), f"{exported.exported_at:%Y-%m-%d %H:%M:%S}")
        shown.add_row(str(exported.version), exported.day, *figures, "live" if exported.is_live else "")
    return shown


def words(outcome: Outcome) -> str:
    """Describe what an export did."""
    live = outcome.live
    before = f", in place of {outcome.before}" if outcome.before not in (None, live.version) else ""
    lines = [
        f"{outcome.place}: version {live.version} ({live.day}) is live{before}: {live.items:,} items of width "
        f"{live.width}."
    ]
    if not outcome.is_written:
        lines.append("  its items were there already")
    if outcome.recall is not None:
        lines.append(f"  its answers hold {outcome.recall:.4f} of what exact search finds first")
    if outcome.removed:
        lines.append(f"  removed {', '.join(f'version {version}' for version in outcome.removed)}")
    if outcome.held:
        lines.append(
            f"  {', '.join(f'version {version}' for version in outcome.held)} would have been removed, but a reader holds it: "
            "the next export tries again"
        )
    return "\n".join(lines)


def _exported(config: Config, name: Name) -> tuple[str, list[Exported]]:
    with opened(config, name, writes=False) as store:
        return store.place, store.exported()
