"""How much newer items of a history should weigh in the co-occurrence baseline: MovieLens, each day judged by the days before it.

Each variant ranks every interaction of a day among all films by what was counted through the day before; what an item weighs falls
by a factor with each newer item of the history. Beside it what is left when films that the person has rated before are not ranked.
Intervals are 95 %, from a jackknife over people.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import sparse

from benchmarks import common
from benchmarks.intervals import groups_of, interval
from components.evaluator import cooccurrence
from components.evaluator.cooccurrence import ONE, Neighbours
from components.evaluator.expectation import hit_probability
from components.evaluator.query_items import Excluded
from components.evaluator.ranking_entries import rank_by_entries
from components.example_gen.histories import histories

FACTORS = (1.0, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.5)
CUTOFFS = (10, 50, 100)
LAST = 20
WARM_UP_DAYS = 60
NEIGHBOURS = 200
HALF_LIFE_DAYS = 90.0


class Log(NamedTuple):
    """Interactions by person and time; items and people are numbers.

    Attributes:
        people: [rows] int64.
        items: [rows] int64.
        days: [rows] int64, since 1970-01-01.
        histories: the items of the last interactions that are strictly earlier, oldest first.
        seen: those of all.
    """

    people: NDArray[np.int64]
    items: NDArray[np.int64]
    days: NDArray[np.int64]
    histories: Excluded
    seen: Excluded


def read(folder: Path) -> Log:
    """Read the days that `ndr data movielens` wrote."""
    frames = [parquet.read_table(path).to_pandas() for path in sorted(folder.glob("interactions/*/*.parquet"))]
    rows = pd.concat(frames, ignore_index=True).sort_values(["user_id", "timestamp", "movie_id"], ignore_index=True)
    people, items = (pd.factorize(rows[name])[0].astype(np.int64) for name in ("user_id", "movie_id"))
    times = rows["timestamp"].to_numpy(np.int64)
    lists = []
    for last in (LAST, len(rows)):
        found = histories(people, times, np.zeros(len(rows), bool), last)
        lists.append(Excluded(found.offsets.astype(np.int64), items[found.positions]))
    return Log(people, items, times // 86_400, *lists)


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    common.movielens_argument(arguments)
    options = arguments.parse_args()
    log = read(options.data)
    size = int(log.items.max()) + 1
    pairs, totals, counts = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    hits: dict[tuple[float, bool], list[NDArray[np.float64]]] = {}
    people = []
    before = None
    for number, day in enumerate(np.unique(log.days).tolist()):
        rows = np.flatnonzero(log.days == day)
        if before is not None:
            for each in (pairs, totals, counts):
                each *= 0.5 ** ((day - before) / HALF_LIFE_DAYS)
        before = day
        histories = log.histories.of(rows)
        if number >= WARM_UP_DAYS:
            whole = [np.rint(ONE * each).astype(np.int64) for each in (pairs, totals, counts)]
            neighbours = Neighbours.build(sparse.csr_array(whole[0]), whole[1], whole[2], NEIGHBOURS)
            people.append(log.people[rows])
            for factor in FACTORS:
                scores = neighbours.scores(histories, factor)
                for excluded in (None, log.seen.of(rows)):
                    ranks = rank_by_entries(scores, whole[2], log.items[rows], excluded)
                    found = np.stack([hit_probability(*ranks, k) for k in CUTOFFS])
                    hits.setdefault((factor, excluded is not None), []).append(found)
        targets = np.repeat(log.items[rows], np.diff(histories.offsets))
        np.add.at(pairs, (histories.rows, targets), 1)
        np.add.at(totals, histories.rows, 1)
        np.add.at(counts, log.items[rows], 1)
    who = groups_of(str(person).encode() for person in np.concatenate(people).tolist())
    table: list[list[str]] = []
    figures: list[dict[str, Any]] = []
    for (factor, is_unseen), of_days in hits.items():
        recalls = [interval(each, who) for each in np.concatenate(of_days, axis=1)]
        figures.append({"factor": factor, "unseen": is_unseen, "recall": dict(zip(CUTOFFS, recalls, strict=True))})
        ranked = "not yet rated" if is_unseen else "all films"
        table.append([f"{factor}", ranked, *(f"{each[0]:.4f} [{each[1]:.3f}, {each[2]:.3f}]" for each in recalls)])
    headline = {f"recall_at_50_with_{f['factor']}": f["recall"][50][0] for f in figures if not f["unseen"]}
    columns = ["factor", "ranked among", *(f"recall@{k}" for k in CUTOFFS)]
    common.show(
        f"co-occurrence, {len(who):,} interactions, the configured factor is {cooccurrence.FADES}", columns, table
    )
    common.conclude(options.json, {"interactions": len(who), "last": LAST}, figures, headline)


if __name__ == "__main__":
    main()
