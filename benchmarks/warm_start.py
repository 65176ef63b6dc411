"""Does warm start pay? A model that goes on from yesterday's against one trained from nothing on the same day alone.

Both go through the pipeline (`ndr backfill` on MovieLens a day at a time) and rank the same held-out interactions among the same
catalogue. Training from nothing is tried with the configuration's epochs and with ten times as many; beside them stands yesterday's
model as it was, which has not learnt from the day. Intervals are 95 %, from a bootstrap over people.
"""

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.correction import interval
from components.evaluator.expectation import hit_probability
from components.evaluator.names import BASELINE, CANDIDATE
from components.evaluator.ranked import rank_feature
from pipeline import config as configuration
from pipeline.metadata import Records
from pipeline.store import connection
from schemas.features import CANDIDATE_ID, QUERY_ID, TIMESTAMP

CONFIG = Path(configuration.__file__).parent / "configs" / "movielens-daily.yaml"
FIRST, DAYS = date(1998, 3, 27), 14
CUTOFFS = (10, 50, 100)
SHOWN = 50
KEPT = ["--set", "retention.days=30"]  # all ranked interactions
FROM_NOTHING = ["--set", "trainer.warm_start=false", "--set", "data.catch_up_days=1"]


class Held(NamedTuple):
    """The held-out interactions of a day.

    Attributes:
        keys: who, what and when, in order.
        ranks: by scorer [interactions, 2], items above the true one and tied with it.
    """

    keys: list[tuple[bytes, bytes, int]]
    ranks: dict[str, NDArray[np.float64]]


def backfill(root: Path, data: Path, first: date, settings: list[str]) -> dict[date, Held]:
    """Runs the days where that has not been done, and reads how each one's model ranked."""
    root.mkdir(parents=True, exist_ok=True)
    places = [
        *("--set", f"root={root}"),
        *("--set", f"data.interactions.path={data}/interactions/{{YYYY}}-{{MM}}-{{DD}}"),
        *("--set", f"data.catalogue.path={data}/catalogue/{{YYYY}}-{{MM}}-{{DD}}"),
    ]
    last = FIRST + timedelta(days=DAYS - 1)
    command = ["backfill", "--config", str(CONFIG), "--from", str(first), "--to", str(last)]
    subprocess.run([sys.executable, "-m", "pipeline.cli", *command, *places, *KEPT, *settings], check=True)
    config = configuration.load(CONFIG, [places[1]])
    records = Records(connection(config))
    held = {}
    for day in (FIRST + timedelta(days=number) for number in range(DAYS)):
        run = records.last_complete(config.name, day)
        assert run is not None
        held[day] = _read(next(uri for uri in records.artifact_uris(run.run, "Examples") if "/Ranker/" in uri))
    return held


def _read(ranked: str) -> Held:
    found = {}
    files = tf.io.gfile.glob(f"{ranked}/Split-eval/*")
    for serialized in tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator():
        features = tf.train.Example.FromString(serialized).features.feature
        who, what = (features[name].bytes_list.value[0] for name in (QUERY_ID, CANDIDATE_ID))
        key = who, what, features[TIMESTAMP].int64_list.value[0]
        ranks = {scorer: features[rank_feature(scorer)].int64_list.value for scorer in (CANDIDATE, BASELINE)}
        found[key] = {scorer: list(values) for scorer, values in ranks.items() if values}
    keys = sorted(found)
    return Held(keys, {scorer: np.array([found[key][scorer] for key in keys]) for scorer in found[keys[0]]})


def main() -> None:
    """The command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/warm_start"), help="of the runs")
    arguments.add_argument("--data", type=Path, default=Path("var/data/movielens"), help="of `ndr data movielens`")
    options = arguments.parse_args()
    root, data = options.root.absolute(), options.data.absolute()
    epochs = configuration.load(CONFIG).trainer.epochs
    # A day earlier, so that the first of the days has a model to go on from.
    sequence = backfill(root / "warm", data, FIRST - timedelta(days=1), [])
    cold = backfill(root / "cold", data, FIRST, FROM_NOTHING)
    longer = backfill(root / "cold-long", data, FIRST, [*FROM_NOTHING, "--set", f"trainer.epochs={10 * epochs}"])
    warm = "warm start"
    models = {
        warm: (sequence, CANDIDATE),
        "yesterday's, as it was": (sequence, BASELINE),
        f"from nothing, {epochs} epochs": (cold, CANDIDATE),
        f"from nothing, {10 * epochs} epochs": (longer, CANDIDATE),
    }
    days = list(sequence)
    for held, _ in models.values():
        assert all(held[day].keys == sequence[day].keys for day in days)

    def hits(model: str, day: date, k: int) -> NDArray[np.float64]:
        held, scorer = models[model]
        above, tied = held[day].ranks[scorer].T
        return hit_probability(above, tied, k)

    table = [
        [
            str(day),
            str(len(sequence[day].keys)),
            *(f"{hits(model, day, SHOWN).mean():.3f}" for model in models),
        ]
        for day in days
    ]
    common.show(f"recall@{SHOWN} by day", ["day", "held out", *models], table)
    people = np.array([key[0] for day in days for key in sequence[day].keys])
    rows: list[list[str]] = []
    figures: list[dict[str, Any]] = []
    for model in models:
        row = [model]
        for k in CUTOFFS:
            found, of_warm = (np.concatenate([hits(m, day, k) for day in days]) for m in (model, warm))
            recall, lead = interval(found, people), interval(of_warm - found, people)
            figures.append({"model": model, "k": k, "recall": recall, "warm_lead": lead})
            row.append(f"{recall[0]:.4f} [{recall[1]:.3f}, {recall[2]:.3f}]")
            row.append("" if model == warm else f"{lead[0]:+.4f} [{lead[1]:+.3f}, {lead[2]:+.3f}]")
        rows.append(row)
    columns = [name for k in CUTOFFS for name in (f"recall@{k}", "behind warm start by")]
    common.show(f"all {DAYS} days, {len(people):,} interactions, 95 % intervals over people", ["", *columns], rows)
    common.conclude(
        options.json,
        {"first": str(FIRST), "days": DAYS, "epochs": epochs},
        figures,
        {f"lead_at_{f['k']}_over_{f['model']}": f["warm_lead"][0] for f in figures if f["model"] != warm},
    )


if __name__ == "__main__":
    main()
