"""Does it help to train on earlier days again? MovieLens, a day at a time, by how many days each day's training has.

`data.window_days` of more than one shows a day's training the days before it once more: a replay of what was trained on. From one
model of all days before the first, each window is trained on day after day by the parts of the pipeline in this process, as
`benchmarks.warm_start` does, and each day is ranked by what was there the evening before. What a window leads by is measured on the
same interactions; 95 % intervals, from a jackknife over users.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import common
from benchmarks.days import MICROSECONDS_A_DAY
from benchmarks.in_memory import Transform
from benchmarks.intervals import groups_of, interval
from benchmarks.warm_start import CUTOFFS, MODEL, SHOWN, Days, movielens, train
from components.evaluator.expectation import hit_probability
from components.trainer.model import TwoTowerModel

FROZEN = "never trained on"
WINDOWS = ((1, 3), (3, 1), (7, 3))


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/warm_start"), help="of the examples")
    arguments.add_argument("--days", type=int, default=7, help="that are judged")
    common.movielens_argument(arguments)
    options = arguments.parse_args()
    stream = movielens(options.root, options.data, options.days)
    days = Days(stream)
    hits: dict[str, list[np.ndarray]] = {}

    def judge(name: str, number: int, trained: tuple[TwoTowerModel, Transform]) -> None:
        ranks = days.ranks(number, *trained)
        hits.setdefault(name, []).append(np.stack([hit_probability(ranks.above, ranks.tied, k) for k in CUTOFFS]))
        print(f"{name}, day {number}: {hits[name][-1][CUTOFFS.index(SHOWN)].mean():.4f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        first = train(stream, days, 0, 1, f"{folder}/first", None)
        names = {window: f"{window[0]} days, {window[1]} epochs" for window in WINDOWS}
        for number in range(1, stream.days + 1):
            for name in (FROZEN, *(names.values() if number == 1 else ())):
                judge(name, number, first)
        for (window, epochs), name in names.items():
            of_window = stream._replace(settings=stream.settings.model_copy(update={"epochs": epochs}))
            base = f"{folder}/first/{MODEL}"
            for number in range(2, stream.days + 1):
                since = days.start(number) - window * MICROSECONDS_A_DAY
                kept = f"{folder}/{window}-{epochs}-{number}"
                judge(name, number, train(of_window, days, since, number, kept, base))
                base = f"{kept}/{MODEL}"
    groups = groups_of(user for number in range(1, stream.days + 1) for user in days.asked[number].users)
    together = {name: np.concatenate(of_days, axis=1) for name, of_days in hits.items()}
    by_day_alone = together[names[WINDOWS[0]]][CUTOFFS.index(SHOWN)]
    rows, figures = [], []
    for name, found in together.items():
        recalls = [interval(each, groups) for each in found]
        lead = interval(found[CUTOFFS.index(SHOWN)] - by_day_alone, groups)
        shown = [f"{mean:.4f} [{low:.3f}, {high:.3f}]" for mean, low, high in recalls]
        rows.append([name, *shown, f"{lead.value:+.4f} [{lead.lower:+.3f}, {lead.upper:+.3f}]"])
        figures.append({"window": name, "recall": recalls, "lead": lead})
    columns = ["", *(f"recall@{k}" for k in CUTOFFS), f"recall@{SHOWN} over a day alone"]
    common.show(f"{len(groups):,} interactions of {stream.days} days", columns, rows)
    common.conclude(
        options.json,
        {"trainer": stream.settings.model_dump(mode="json"), "windows": WINDOWS, "days": stream.days},
        figures,
        {
            f"recall_at_50_{common.key(name)}": float(found[CUTOFFS.index(SHOWN)].mean())
            for name, found in together.items()
        },
    )


if __name__ == "__main__":
    main()
