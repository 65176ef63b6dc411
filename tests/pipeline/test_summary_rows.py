"""The table of rows that a run ends with: each number below the heading that it is of."""

from rich.console import Console

from pipeline.records import Run
from pipeline.summary import _rows


def test_each_number_stands_below_its_heading() -> None:
    """Of 1,000 rows 200 were not asked for and 30 were at fault, so that 770 are examples."""
    interactions = {
        "rows": 1000,
        "filtered": {"event is not play": 200},
        "dropped": {"listener: missing": {"rows": 30, "first": ["plays.csv line 7"]}},
        "splits": {"train": 700, "eval": 70},
        "before": 90,
        "absent": ["2026-11-18", "2026-11-19"],
        "other_days": 5,
        "passed_over": {"files": 2, "first": ["_SUCCESS"]},
    }
    older = {"rows": 40, "dropped": {}, "splits": {"catalogue": 40}}
    table = _rows(Run("run", "2026-11-25", "complete", rows={"interactions": interactions, "catalogue": older}))
    console = Console(width=150)
    with console.capture() as shown:
        console.print(table)
    rows = [
        [cell.strip() for cell in line.strip("┃│").replace("┃", "│").split("│")] for line in shown.get().splitlines()
    ]
    assert [row for row in rows if len(row) == 5] == [
        ["", "read", "filtered", "dropped", "examples"],
        ["interactions", "1,000", "200", "30", "train 700, eval 70"],
        ["event is not play", "", "200", "", ""],
        ["listener: missing (plays.csv line 7)", "", "", "30", ""],
        ["rows of days before the window, for histories alone", "90", "", "", ""],
        ["missing days before the window, for histories (2026-11-18 to 2026-11-19)", "2", "", "", ""],
        ["rows of days that are not read", "5", "", "", ""],
        ["files whose names begin with _ or . (_SUCCESS)", "2", "", "", ""],
        ["catalogue", "40", "0", "0", "catalogue 40"],
    ]
