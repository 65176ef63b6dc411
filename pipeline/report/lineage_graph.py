"""Draws a run's lineage as boxes in layers: a box for each step and its outputs, and a line to each step that used them.

Layers go from top to bottom; no line goes back. All lines of a box share one position in each layer that they pass, so they
do not cross other boxes.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from components import recorded
from components.recorded import decoded
from pipeline.inspection.show import files_words
from pipeline.records import Artifact, Graph

WIDTH, LANE, GAP_X, GAP_Y = 206.0, 4.0, 14.0, 46.0
HEAD, ROW, FOOT = 24.0, 17.0, 7.0
SWEEPS = 4

Node = int | str | tuple[int | str, int]
"""An execution's id; an earlier run's id; for files, the artifact made from them; or where a box's lines pass a layer."""


@dataclass(frozen=True)
class Content:
    """The text of a box.

    Attributes:
        title: the step, the day of an earlier run, or the kind of data.
        state: the step's state; `earlier` for a run; `data` for input files.
        seconds: the step's duration; None if it did not end.
        artifacts: its outputs, or the artifacts of the earlier run that were used.
        lines: further lines.
        tip: its tooltip.
    """

    title: str
    state: str
    seconds: float | None
    artifacts: tuple[Artifact, ...] = ()
    lines: tuple[str, ...] = ()
    tip: str = ""


@dataclass(frozen=True)
class Box:
    """A box at its position, in pixels from the top left corner."""

    key: str
    x: float
    y: float
    width: float
    height: float
    content: Content


@dataclass(frozen=True)
class Link:
    """A line between two boxes, named by their keys: `path` is SVG's; `tip` lists the artifacts."""

    source: str
    target: str
    path: str
    tip: str


@dataclass(frozen=True)
class Drawing:
    """All boxes and lines; width and height in pixels."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]


def draw(graph: Graph) -> Drawing:
    """Lay out a run; leaves out steps without inputs and outputs."""
    contents, links = steps_and_links(graph)
    layers = layered(contents, links)
    routes = {link: _route(link, layers) for link in links}
    columns = _columns(layers, routes.values())
    _untangle(columns, routes.values())
    heights = {
        key: HEAD + ROW * (len(content.artifacts) + len(content.lines)) + FOOT for key, content in contents.items()
    }
    rows = [max(heights[node] for node in column if not isinstance(node, tuple)) for column in columns]
    tops = list(accumulate((height + GAP_Y for height in rows), initial=0.0))
    lefts, width = _lefts(columns)
    boxes = {
        key: Box(str(key), lefts[key], tops[layers[key]], WIDTH, heights[key], content)
        for key, content in contents.items()
    }
    drawn = [
        Link(
            str(source),
            str(target),
            _path(boxes[source], boxes[target], routes[source, target][1:-1], lefts, tops),
            ", ".join(kinds),
        )
        for (source, target), kinds in links.items()
    ]
    return Drawing(width, max(tops[-1] - GAP_Y, 0.0), tuple(boxes.values()), tuple(drawn))


def steps_and_links(graph: Graph) -> tuple[dict[int | str, Content], dict[tuple[int | str, int], list[str]]]:
    """Return the boxes, by execution or by earlier run, and the types of the artifacts that went from one to another."""
    maker: dict[int, int | str] = {edge.artifact: edge.execution for edge in graph.edges if edge.kind == "output"}
    earlier: dict[str, list[Artifact]] = defaultdict(list)
    links: dict[tuple[int | str, int], list[str]] = defaultdict(list)
    for edge in graph.edges:
        if edge.kind == "input":
            artifact = graph.artifacts[edge.artifact]
            if edge.artifact not in maker:
                maker[edge.artifact] = artifact.run
                earlier[artifact.run].append(artifact)
            kinds = links[maker[edge.artifact], edge.execution]
            if artifact.type not in kinds:
                kinds.append(artifact.type)
    contents: dict[int | str, Content] = {
        run: Content(run.partition(".")[0] or "unknown run", "earlier", None, tuple(artifacts))
        for run, artifacts in earlier.items()
    }
    for execution in graph.executions.values():
        outputs = tuple(graph.artifacts[edge.artifact] for edge in graph.outputs(execution.id))
        if outputs or graph.inputs(execution.id):
            versions = [
                str(output.properties[recorded.VERSION])
                for output in outputs
                if output.properties.get(recorded.VERSION)
            ]
            lines = tuple(f"version {version}" for version in versions)
            contents[execution.id] = Content(execution.node, execution.state, execution.seconds, outputs, lines)
            for artifact in outputs:
                rows, files = (decoded(artifact.properties, name) for name in (recorded.ROWS, recorded.FILES))
                if number := files.get("files"):
                    contents[f"files {artifact.id}"] = Content(
                        rows.get("kind", "files"),
                        "data",
                        None,
                        lines=(f"{number:,} file{'s' * (number != 1)}",),
                        tip=files_words(files),
                    )
                    links[f"files {artifact.id}", execution.id].append("files")
    return contents, dict(links)


def layered(keys: Iterable[int | str], links: Iterable[tuple[int | str, int]]) -> dict[int | str, int]:
    """Assign each box its layer: 0 without predecessors, else one after the last of them."""
    before: dict[int | str, list[int | str]] = defaultdict(list)
    for source, target in links:
        before[target].append(source)
    layers: dict[int | str, int] = {}

    def layer(key: int | str) -> int:
        if key not in layers:
            layers[key] = 1 + max(map(layer, before[key]), default=-1)
        return layers[key]

    for key in keys:
        layer(key)
    return layers


def _route(link: tuple[int | str, int], layers: Mapping[int | str, int]) -> list[Node]:
    """Return a link's source, its position in each layer between, and its target."""
    source, target = link
    passed = range(layers[source] + 1, layers[target])
    return [source, *((source, layer) for layer in passed), target]


def _columns(layers: Mapping[int | str, int], routes: Iterable[Sequence[Node]]) -> list[list[Node]]:
    columns: list[list[Node]] = [[] for _ in range(max(layers.values(), default=-1) + 1)]
    for key, layer in layers.items():
        columns[layer].append(key)
    lanes = dict.fromkeys(node for route in routes for node in route if isinstance(node, tuple))
    for lane in lanes:
        columns[lane[1]].append(lane)
    return columns


def _untangle(columns: list[list[Node]], routes: Iterable[Sequence[Node]]) -> None:
    """Order each layer by the mean positions of its neighbours, down and up in turn (Sugiyama et al., 1981)."""
    before: dict[Node, list[Node]] = defaultdict(list)
    behind: dict[Node, list[Node]] = defaultdict(list)
    for route in routes:
        for upper, lower in pairwise(route):
            before[lower].append(upper)
            behind[upper].append(lower)
    for sweep in range(SWEEPS):
        order, neighbours = (columns, before) if sweep % 2 == 0 else (columns[::-1], behind)
        for fixed, free in pairwise(order):
            places, current = _places(fixed), _places(free)
            near = {
                node: [places[neighbour] for neighbour in neighbours[node] if neighbour in places] or [current[node]]
                for node in free
            }
            mean = {node: sum(positions) / len(positions) for node, positions in near.items()}
            free.sort(key=mean.__getitem__)


def _places(column: Sequence[Node]) -> dict[Node, float]:
    """Return the middle of each node of a layer, relative to the middle of the layer."""
    lefts, width = _lefts([column])
    return {node: left + _width(node) / 2 - width / 2 for node, left in lefts.items()}


def _lefts(columns: Sequence[Sequence[Node]]) -> tuple[dict[Node, float], float]:
    """Return the left edge of each node, with all layers centred, and the total width."""
    widths = [sum(map(_width, column)) + GAP_X * (len(column) - 1) for column in columns]
    width = max(widths, default=0.0)
    lefts: dict[Node, float] = {}
    for column, column_width in zip(columns, widths, strict=True):
        left = (width - column_width) / 2
        for node in column:
            lefts[node] = left
            left += _width(node) + GAP_X
    return lefts, width


def _width(node: Node) -> float:
    return LANE if isinstance(node, tuple) else WIDTH


def _path(source: Box, target: Box, lanes: Sequence[Node], lefts: Mapping[Node, float], tops: Sequence[float]) -> str:
    """Draw a curve from the foot of a box, down along its neighbours, through the lanes to the head of another box."""
    x, layer, bend = source.x + WIDTH / 2, tops.index(source.y), GAP_Y / 2
    words = [f"M{x:g} {source.y + source.height:g}"]
    for to_x in [*(lefts[lane] + LANE / 2 for lane in lanes), target.x + WIDTH / 2]:
        layer += 1
        middle = tops[layer] - bend
        words.append(f"V{middle - bend:g}C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {tops[layer]:g}")
        x = to_x
    return "".join(words)
