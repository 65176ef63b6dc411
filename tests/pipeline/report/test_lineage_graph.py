"""The lineage as boxes and lines."""

from itertools import combinations, pairwise

from pipeline.records import Artifact, Edge, Graph
from pipeline.report.lineage_graph import GAP_Y, draw, layered, steps_and_links
from tests.pipeline.report.made_up import graph


def test_a_box_lies_behind_all_that_leads_to_it() -> None:
    # a -> b -> d, a -> c -> d, c -> e, a -> e: the longest way to d and to e has two lines.
    links = [("a", 2), (2, 4), ("a", 3), (3, 4), (3, 5), ("a", 5)]
    assert layered(["a", 5, 4, 3, 2], links) == {"a": 0, 2: 1, 3: 1, 4: 2, 5: 2}  # type: ignore[arg-type]


def test_artifacts_of_an_earlier_run_are_in_a_box_of_its_day() -> None:
    contents, links = steps_and_links(graph("2026-11-01.x"))
    assert [(content.title, content.state) for content in contents.values()] == [
        ("2026-10-31", "earlier"),
        ("Interactions", "complete"),
        ("Trainer", "complete"),
        ("Pusher", "complete"),
    ]
    assert links == {
        ("2026-10-31.x", 1): ["Model"],
        ("2026-10-31.x", 2): ["Model"],
        (1, 2): ["Examples"],
        (2, 3): ["Model"],
    }
    assert contents[3].lines == ("version 20261101001",)


def test_input_files_come_before_the_examples_made_from_them() -> None:
    files = '{"first": "/logs/1", "last": "/logs/3", "folders": 3, "files": 6, "bytes": 2000}'
    made = Artifact(
        1, "Examples", "", "live", "r", "Interactions", "", {"input_files": files, "rows": '{"kind": "interactions"}'}
    )
    execution = graph("r").executions[1]
    contents, links = steps_and_links(Graph({1: made}, {1: execution}, (Edge(1, 1, "output", "examples"),)))
    assert links == {("files 1", 1): ["files"]}
    assert (contents["files 1"].title, contents["files 1"].lines) == ("interactions", ("6 files",))
    assert "/logs/1 to /logs/3" in contents["files 1"].tip


def test_lines_go_down_and_boxes_do_not_overlap() -> None:
    drawing = draw(graph("2026-11-01.x"))
    boxes = {box.key: box for box in drawing.boxes}
    for link in drawing.links:
        assert boxes[link.source].y + boxes[link.source].height + GAP_Y <= boxes[link.target].y
    for one, other in combinations(drawing.boxes, 2):
        apart = (
            one.x + one.width <= other.x,
            other.x + other.width <= one.x,
            one.y + one.height <= other.y,
            other.y + other.height <= one.y,
        )
        assert any(apart)
    assert all(box.x >= 0 and box.x + box.width <= drawing.width for box in drawing.boxes)
    assert all(box.y >= 0 and box.y + box.height <= drawing.height for box in drawing.boxes)
    tops = [box.y for box in drawing.boxes]
    assert all(above < below for above, below in pairwise(tops))  # one a layer


def test_a_line_over_a_layer_passes_its_boxes_at_their_side() -> None:
    drawing = draw(graph("2026-11-01.x"))
    passed = next(box for box in drawing.boxes if box.content.title == "Interactions")
    link = next(link for link in drawing.links if (link.source, link.target) == ("2026-10-31.x", "2"))
    # M x y V y C x y x y x y V ...: where it goes down, it is where the curve before it ended.
    lane = float(link.path.split("C")[1].split("V")[0].split()[-2])
    assert not passed.x <= lane <= passed.x + passed.width


def test_of_a_run_that_did_nothing_there_is_nothing_to_draw() -> None:
    assert draw(Graph({}, {}, ())).boxes == ()
