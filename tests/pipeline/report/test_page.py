"""The page: all of it is there whatever the days were like, nothing that came from data does anything, and a browser shows it."""

from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from components.whole_files import write_aside
from pipeline import config
from pipeline.records import Artifact
from pipeline.report import page
from pipeline.report.facts import Facts, Missing
from pipeline.report.outcome import Outcome
from tests.pipeline.report.browser import CHROMIUM, look
from tests.pipeline.report.made_up import FAILED, a_run, facts, fortnight, metrics, tuning

CONFIG = config.load(Path(config.__file__).parent / "configs" / "movielens.yaml")
HOSTILE = '"\'><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">{{ 7 * 7 }}\ud800\u202e\0'
WIDE = "W" * 300
POINTED = """
(document.querySelector("[data-tip]").dispatchEvent(new PointerEvent("pointerover", {bubbles: true})),
 document.getElementById("tip").textContent.length > 0)
"""
AREA = "({x: 0, y: 0, width: document.documentElement.clientWidth, height: 900})"


class Parsed(HTMLParser):
    """The elements of a page by name, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: dict[str, list[dict[str, str | None]]] = {}
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> Facts:
    """Every text that comes from data is a script that must not run."""
    run = a_run(
        run=f"2026-11-01.{HOSTILE}",
        blessed=False,
        refused=(HOSTILE, WIDE),
        metrics={"all": metrics(0.4), f"tags={HOSTILE}": metrics(0.2), f"{HOSTILE}={WIDE}": metrics(0.1)},
        rows={
            "interactions": {
                "rows": 9,
                "rows_of_day": 9,
                "splits": {},
                "dropped": {HOSTILE: {"rows": 3, "first": [HOSTILE]}},
            }
        },
        turnover={HOSTILE: {"ids": 1, "admitted": 1, "expired": 0, "lookups": 1, "oov_share": 0.5}},
    )
    found = facts([run, a_run(**{**FAILED, "date": "2026-11-02", "fault": HOSTILE})], title=HOSTILE)
    items = found.items
    assert not isinstance(items, Missing)
    return replace(
        found, pipeline=HOSTILE, tuning=tuning(HOSTILE), items=replace(items, groups=(HOSTILE, WIDE), feature=HOSTILE)
    )


def test_everything_is_there() -> None:
    found = facts(fortnight())
    parsed = Parsed(page.render(found, CONFIG))
    assert [each["id"] for each in parsed.elements["h2"]] == [
        "recall",
        "runs",
        "slices",
        "data",
        "training",
        "items",
        "lineage",
    ]
    assert "2026-11-14 is good: its model was blessed. Version 20261114001 of 2026-11-14 is live." in parsed.text
    for outcome in set(Outcome) - {Outcome.PASSED_OVER}:
        assert f"{outcome.glyph}\N{NO-BREAK SPACE}{outcome.value}" in parsed.text
    for told in (
        "recall@50 of catalogue: 0.0400; expected at least 0.0500",
        "Transform: no such column.",
        "0.400",
        "+0.050",
        "1,000 read, 10 dropped",
    ):
        assert told in parsed.text
    opened = {each.get("id") for each in parsed.elements["details"]}
    assert {f"run-{run.run}" for run in found.runs} <= opened
    links = {each["href"] for each in parsed.elements["a"]}
    assert {f"#run-{run.run}" for run in found.days} <= links
    assert all(each.get("aria-label") for each in parsed.elements["svg"] if each.get("role") == "img")
    assert len([each for each in parsed.elements["circle"] if (each.get("data-tip") or "").startswith("Item ")]) == 25


def test_tried_settings_are_shown_with_their_recall() -> None:
    parsed = Parsed(page.render(replace(facts(fortnight()), tuning=tuning()), CONFIG))
    for told in (
        "Trial 1 is better than the current settings: recall@50 0.3500, +0.0500 [+0.0100, +0.0900]",
        "3 trials over the data of 2026-11-14, by the 1,000 held-out",
        "0.3600",
        "towers linear",
        "diverged",
    ):
        assert told in parsed.text
    (drawn,) = (
        each for each in parsed.elements["svg"] if each.get("aria-label") == "Recall@50 after each epoch, by trial"
    )
    assert drawn["role"] == "img"


def test_missing_parts_leave_a_sentence() -> None:
    gone = Missing("The run's ModelRun was removed.")
    found = facts(fortnight())
    found = replace(
        found,
        live=Missing("The push folder cannot be read."),
        losses=dict.fromkeys(found.losses, gone),
        drift=dict.fromkeys(found.drift, Missing("There was no day before to compare with.")),
        frequencies={found.days[-1].date: gone},
        items=Missing("The run's ItemIndex was removed."),
        seen_in=None,
    )
    text = Parsed(page.render(found, CONFIG)).text
    for sentence in (
        "The push folder cannot be read.",
        "No run stored a loss curve.",
        "There was no day before",
        "ItemIndex was removed.",
        gone.why,
    ):
        assert sentence in text


@pytest.mark.parametrize(
    "changes",
    [
        FAILED,
        {**FAILED, "rows": {}, "steps": ()},
        {"metrics": {"all": {"candidate": {"recall_at_5": [float("nan"), None, None]}, "interactions": 0}}},
    ],
)
def test_a_single_day_of_which_little_is_known_has_a_page(changes: dict[str, Any]) -> None:
    assert "Lineage of" in Parsed(page.render(facts([a_run(**changes)]), CONFIG)).text


def test_nothing_that_came_from_data_is_markup() -> None:
    parsed = Parsed(page.render(hostile(), CONFIG))
    assert len(parsed.elements["script"]) == 1 and "img" not in parsed.elements
    assert not [
        each for of in parsed.elements.values() for attributes in of for each in attributes if each.startswith("on")
    ]
    assert parsed.text.count("window.hacked") > 10 and "{{ 7 * 7 }}" in parsed.text


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("/var/a b/<x>", "file:///var/a%20b/%3Cx%3E"),
        ("https://store/model", "https://store/model"),
        ("gs://bucket/model", ""),
        ("javascript:alert(1)", ""),
        ("", ""),
    ],
)
def test_only_places_are_links(uri: str, address: str) -> None:
    assert page.address(uri) == address


def test_removed_artifacts_are_not_linked(tmp_path: Path) -> None:
    def at(uri: str, state: str = "live") -> Artifact:
        return Artifact(1, "Model", uri, state, "", "", "")

    assert page.is_there(at(str(tmp_path))) and page.is_there(at("gs://bucket/model"))
    assert not page.is_there(at(str(tmp_path / "gone"))) and not page.is_there(at(str(tmp_path), "deleted"))


def test_a_page_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_aside(path, "one")
    write_aside(path, "\ud800 two")  # half a character, as a broken log may hold
    assert path.read_text() == "\\ud800 two" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH")
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1440, True)])
def test_a_browser_shows_it_without_complaint(width: int, dark: bool, tmp_path: Path) -> None:
    written = tmp_path / "report.html"
    write_aside(written, page.render(hostile(), CONFIG))
    (tmp_path / "profile").mkdir()
    asked = (
        "window.hacked === undefined && document.images.length === 0",
        "document.documentElement.scrollWidth <= innerWidth",
        "getComputedStyle(document.body).backgroundColor",
        POINTED,
        "(location.hash = document.querySelector('.strip a').getAttribute('href'), true)",
    )
    seen = look(written, tmp_path / "profile", width, dark, asked, AREA)
    assert (seen.complaints, seen.requests) == ([], [])
    assert seen.answers == [True, True, "rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)", True, True]
    assert seen.picture.startswith(b"\x89PNG")
