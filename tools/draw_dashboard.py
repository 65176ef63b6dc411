"""Draws the Grafana dashboard of deploy/ from a Prometheus that scrapes ndr.

    python tools/draw_dashboard.py http://127.0.0.1:9090 OUT.png

Every panel stands where the dashboard puts it, with what Prometheus answers to its queries. Grafana draws it more prettily; what
this shows is whether each query finds something, and how its series are named. A panel without an answer says so, and the
status is 1.
"""

import argparse
import json
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DASHBOARD = Path(__file__).parents[1] / "deploy" / "components" / "monitoring" / "dashboard.json"
COLUMNS = 24  # of Grafana's grid
POINTS = 120  # of a line
RATE = "1m"
DAY = 86400.0  # seconds
SIZE = 0.62, 0.32  # inches of a cell of the grid
BACKGROUND, TEXT = "#f7f8fa", "#24292e"
# By Grafana's names: what a value is multiplied by, and what stands behind it.
UNITS = {
    "percentunit": (100.0, " %"),
    "s": (1.0, " s"),
    "µs": (1e-3, " ms"),
    "reqps": (1.0, "/s"),
    "none": (1.0, ""),
    "short": (1.0, ""),
}

Series = tuple[dict[str, str], list[tuple[float, float]]]
"""Labels, and times and values."""


def ask(address: str, query: str, minutes: float, instant: bool) -> list[Series]:
    """Ask Prometheus a query: the newest values, or those of the last minutes."""
    now = time.time()
    asked: dict[str, Any] = {"query": query.replace("$__rate_interval", RATE)}
    if not instant:
        asked |= {"start": now - 60 * minutes, "end": now, "step": max(1.0, 60 * minutes / POINTS)}
    kind = "query" if instant else "query_range"
    url = f"{address.rstrip('/')}/api/v1/{kind}?{urllib.parse.urlencode(asked)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        found = json.load(answer)["data"]["result"]
    return [
        (each["metric"], [(float(at), float(value)) for at, value in each.get("values") or [each["value"]]])
        for each in found
    ]


def named(labels: dict[str, str], legend: str) -> str:
    """Return a series by its panel's legend, or by all of its labels."""
    if not legend:
        return ", ".join(labels.values())
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), legend).strip()


def written(value: float, unit: str) -> str:
    """Return a value with its unit."""
    scale, sign = UNITS[unit]
    if unit == "s" and value >= DAY:
        return f"{value / DAY:,.1f} days"
    return f"{value * scale:,.4g}{sign}" if abs(value) < 1e9 else f"{value * scale:.0f}{sign}"


def draw(panel: dict[str, Any], axes: Axes, found: list[tuple[str, list[tuple[float, float]]]], minutes: float) -> None:
    """One panel: lines, or the newest values in words."""
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "none")
    axes.set_title(panel["title"], loc="left", fontsize=9, color=TEXT, fontweight="bold")
    axes.set_facecolor("white")
    for side in axes.spines.values():
        side.set_color("#d8dce1")
    if panel["type"] != "timeseries" or not found:
        axes.set_xticks([])
        axes.set_yticks([])
        lines = [f"{name}  {written(points[-1][1], unit)}" for name, points in found] or ["no data"]
        axes.text(
            0.5, 0.5, "\n".join(lines), ha="center", va="center", fontsize=9, transform=axes.transAxes, color=TEXT
        )
        return
    scale, sign = UNITS[unit]
    newest = max(points[-1][0] for _, points in found)
    for name, points in found:
        axes.plot(
            [(at - newest) / 60 for at, _ in points], [value * scale for _, value in points], label=name, linewidth=1
        )
    axes.set_xlim(-minutes, 0)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7, colors=TEXT)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.4g}{sign}")
    axes.grid(color="#eceff2")
    axes.legend(fontsize=6, loc="upper left", framealpha=0.7)


def main() -> None:
    """Run the command line."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("address", help="of Prometheus, such as http://127.0.0.1:9090")
    arguments.add_argument("picture", type=Path, help="the PNG to write")
    arguments.add_argument("--minutes", type=float, default=10.0, help="that the lines go back")
    options = arguments.parse_args()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(COLUMNS * SIZE[0], rows * SIZE[1]), facecolor=BACKGROUND)
    empty = []
    for panel in panels:
        x, y, width, height = (panel["gridPos"][name] for name in "xywh")
        left, top = x / COLUMNS, 1 - y / rows
        if panel["type"] == "row":
            figure.text(left + 0.01, top - 0.5 / rows, panel["title"], fontsize=12, va="center", color=TEXT)
            continue
        found = [
            (named(labels, target.get("legendFormat") or ""), points)
            for target in panel["targets"]
            for labels, points in ask(options.address, target["expr"], options.minutes, bool(target.get("instant")))
            if any(value == value for _, value in points)  # not NaN, which a share of nothing is
        ]
        if not found:
            empty.append(panel["title"])
        inner = (left + 0.035, top - (height - 1.2) / rows, width / COLUMNS - 0.05, (height - 2.6) / rows)
        draw(panel, figure.add_axes(inner), found, options.minutes)
    figure.savefig(options.picture, dpi=80)
    if empty:
        sys.exit(f"No data for: {', '.join(empty)}.")


if __name__ == "__main__":
    main()
