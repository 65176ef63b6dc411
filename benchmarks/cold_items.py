"""Is a new item found? A tenth of MovieLens's films truly kept from training, then ranked among all of them.

The pipeline runs twice (`ndr run`): on all of the logs, and on a copy of them in which nobody has rated the chosen films before the
two weeks that judge: they are in no training interaction, in no history of one and in no vocabulary. So they are served as any new
item is, by their features and an id that was never seen. They are the films that the evaluator draws on that day, by a digest, to
rank them *as new*: so the first run's figure is what the evaluator says of a new item, and the second run shows how close it is.

Beside them stand the other films, before and after the removal, and what is nearest by content alone. Intervals are 95 %, from a
jackknife over users.
"""

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from shutil import copytree, rmtree
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from benchmarks import common
from benchmarks.days import EPOCH, Pipeline, Ranked
from benchmarks.intervals import Interval, groups_of, interval
from components.digests import is_drawn
from components.evaluator.expectation import hit_probability
from components.evaluator.names import AS_NEW, CANDIDATE, CONTENT_NEIGHBOURS
from pipeline import config as configuration

CONFIG = Path(configuration.__file__).parent / "configs" / "movielens.yaml"
DAY, HELD_OUT_DAYS = date(1998, 4, 22), 14
ITEM_COLUMN = "movie_id"
SHARE = 0.1
DRAWN = [f"evaluator.as_new.least={SHARE}", f"evaluator.as_new.most={SHARE}"]
CUTOFFS = (10, 50, 100)
SHOWN = 50
COLD, WARM = "cold", "warm"
REMOVED, EVERYTHING, AS_IF_NEW, CONTENT = (
    "kept from training",
    "trained on",
    "trained on, ranked as new",
    "content alone",
)


class Figure(NamedTuple):
    """A row of the table.

    Attributes:
        items: COLD or WARM.
        scorer: what was done with them.
        interactions: how many were ranked.
        recall: by cutoff, with its interval.
        median_place: of the true item, from 1; chance has it in the middle of the catalogue.
    """

    items: str
    scorer: str
    interactions: int
    recall: dict[int, Interval]
    median_place: float


def is_cold(item: bytes) -> bool:
    """Return whether an item is one of those that are kept from training."""
    return is_drawn(item, (DAY - EPOCH).days, SHARE)


def without_cold(source: Path, target: Path, until: date, is_cold: Callable[[bytes], bool] = is_cold) -> int:
    """Copy a folder of interactions a day, less those with cold items before a day.

    Args:
        source: has a folder of Parquet files a day, named by it.
        target: gets the same; written anew.
        until: from then on everything stays.
        is_cold: which items are left out.

    Returns:
        How many interactions were left out.
    """
    unfinished = target.with_name(f".{target.name}")
    rmtree(unfinished, ignore_errors=True)
    copytree(source, unfinished)
    left_out = 0
    for path in sorted(unfinished.glob("*/*.parquet")):
        if date.fromisoformat(path.parent.name) >= until:
            continue
        rows = parquet.read_table(path)
        cold = np.array([is_cold(str(item).encode()) for item in rows.column(ITEM_COLUMN).to_pylist()], bool)
        parquet.write_table(rows.filter(pa.array(~cold)), path)
        left_out += int(cold.sum())
    rmtree(target, ignore_errors=True)
    unfinished.rename(target)
    return left_out


def figures(everything: Ranked, removed: Ranked) -> list[Figure]:
    """Collect the results of both runs for the cold items and for the others.

    Args:
        everything: what the run on all of the logs held out.
        removed: what the run without the cold items held out.
    """
    found = []
    for items, scorer, ranked, by in (
        (COLD, REMOVED, removed, CANDIDATE),
        (COLD, AS_IF_NEW, everything, AS_NEW),
        (COLD, CONTENT, removed, CONTENT_NEIGHBOURS),
        (COLD, EVERYTHING, everything, CANDIDATE),
        (WARM, REMOVED, removed, CANDIDATE),
        (WARM, EVERYTHING, everything, CANDIDATE),
    ):
        cold = np.array([is_cold(item) for item in ranked.items], bool)
        found.append(_figure(items, scorer, ranked, by, cold if items == COLD else ~cold))
    return found


def _figure(items: str, scorer: str, ranked: Ranked, by: str, chosen: NDArray[np.bool_]) -> Figure:
    above, tied = ranked.ranks[by].above[chosen], ranked.ranks[by].tied[chosen]
    groups = groups_of(ranked.users[chosen])
    recall = {k: interval(hit_probability(above, tied, k), groups) for k in CUTOFFS}
    return Figure(items, scorer, len(above), recall, float(np.median(1 + above + tied / 2)))


def headline(found: Sequence[Figure]) -> dict[str, float]:
    """Return the named numbers."""
    of = {(each.items, each.scorer): each.recall[SHOWN][0] for each in found}
    return {
        "cold_recall_at_50": of[COLD, REMOVED],
        "as_new_recall_at_50": of[COLD, AS_IF_NEW],
        "cold_content_neighbours": of[COLD, CONTENT],
        "cold_recall_at_50_before": of[COLD, EVERYTHING],
        "warm_recall_at_50": of[WARM, REMOVED],
        "warm_recall_at_50_before": of[WARM, EVERYTHING],
    }


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/cold_items"), help="of both runs")
    common.movielens_argument(arguments)
    options = arguments.parse_args()
    root, data = options.root.absolute(), options.data
    target = root / "interactions"
    left_out = without_cold(data / "interactions", target, DAY - timedelta(days=HELD_OUT_DAYS - 1))
    found = {}
    for name, logs in (("everything", data / "interactions"), ("removed", target)):
        places = [
            f"root={root / name}",
            f"data.interactions.path={logs}/{{YYYY}}-{{MM}}-{{DD}}",
            f"data.catalogue.path={data}/catalogue/{{YYYY}}-{{MM}}-{{DD}}",
        ]
        pipeline = Pipeline(CONFIG, [*places, *DRAWN])
        pipeline.command("run", "--date", str(DAY))
        found[name] = pipeline.ranked(DAY)
    of_both = figures(found["everything"], found["removed"])
    rows = [
        [
            each.items,
            each.scorer,
            f"{each.interactions:,}",
            *(f"{mean:.4f} [{low:.3f}, {high:.3f}]" for mean, low, high in each.recall.values()),
            f"{each.median_place:.0f}",
        ]
        for each in of_both
    ]
    columns = ["films", "", "interactions", *(f"recall@{k}" for k in CUTOFFS), "median place"]
    common.show(f"{left_out:,} interactions with cold films left out of training", columns, rows)
    common.conclude(
        options.json,
        {"share": SHARE, "left_out": left_out, "day": str(DAY)},
        [each._asdict() for each in of_both],
        headline(of_both),
    )


if __name__ == "__main__":
    main()
