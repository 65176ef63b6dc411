"""How far in front should new items stand? MovieLens without a tenth of its films, by `softmax.new_item_boost`.

As `benchmarks.cold_items`, whose films are left out here too, but each model is trained in this process, by the functions that the
pipeline's steps call (`benchmarks.in_memory`): the logs go once through the steps that make examples of them, and the two weeks
that judge are ranked by a model for each boost and seed. `--masked 0` shows what new items are without masks; `--set` changes the
trainer's settings, such as the strength of the correction; `--day` moves the two weeks.
"""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import cold_items, common
from benchmarks.days import EPOCH, MICROSECONDS_A_DAY, ingest, interactions
from benchmarks.in_memory import Transform, analyse, embedded, trained
from components.decoded import decode, single
from components.digests import is_drawn
from components.evaluator.expectation import hit_probability
from components.evaluator.positions import positions
from components.evaluator.ranking import rank_by_embedding
from components.evaluator.slices import popularity_parts
from pipeline import config as configuration
from schemas.features import CANDIDATE_ID, TIMESTAMP

BOOSTS = (1.0, 1.5, 2.0, 3.0)
PARTS = ("head", "torso", "tail")
OWN_TABLE = "film"


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/new_items"), help="of what is made")
    arguments.add_argument("--day", type=date.fromisoformat, default=cold_items.DAY, help="the last of the two weeks")
    arguments.add_argument("--boosts", type=float, nargs="+", default=BOOSTS, help="each has its models")
    arguments.add_argument("--masked", type=float, default=None, help="tables.film.masked")
    arguments.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the trainer")
    arguments.add_argument("--seeds", type=int, default=2, help="models a boost")
    common.movielens_argument(arguments)
    options = arguments.parse_args()
    first = options.day - timedelta(days=cold_items.HELD_OUT_DAYS - 1)
    span, start = (options.day - EPOCH).days, (first - EPOCH).days * MICROSECONDS_A_DAY
    root = options.root.absolute() / str(options.day)
    logs = root / "interactions"

    def is_cold(item: bytes) -> bool:
        return is_drawn(item, span, cold_items.SHARE)

    if not logs.exists():
        root.mkdir(parents=True, exist_ok=True)
        cold_items.without_cold(options.data / "interactions", logs, first, is_cold)
    config = configuration.load(
        cold_items.CONFIG,
        [
            f"root={root}",
            f"data.interactions.path={logs}/{{YYYY}}-{{MM}}-{{DD}}",
            f"data.catalogue.path={options.data}/catalogue/{{YYYY}}-{{MM}}-{{DD}}",
            *options.set,
        ],
    )
    spec = config.feature_spec()
    if options.masked is not None:
        table = spec.tables[OWN_TABLE].model_copy(update={"masked": options.masked})
        spec = spec.model_copy(update={"tables": {**spec.tables, OWN_TABLE: table}})
    examples, catalogue = ingest(config, options.day, root / "examples")
    times = single(decode(examples).column(TIMESTAMP)).to_numpy()
    learnt = [example for example, time in zip(examples, times, strict=True) if time < start]
    asked = interactions(examples, spec.history_feature)
    asked = asked.chosen(np.flatnonzero(asked.times >= start))
    analysis = str(root / "analysis")
    analyse(spec, learnt, None, span, analysis)
    transform = Transform(spec, analysis)
    ids = single(decode(catalogue).column(CANDIDATE_ID)).cast(pa.binary())
    counts = np.bincount(
        positions(single(decode(learnt).column(CANDIDATE_ID)).cast(pa.binary()), ids), minlength=len(ids)
    )
    true = positions(pa.array(asked.items, pa.binary()), ids)
    cold = np.array([is_cold(item) for item in asked.items], bool)
    parts = popularity_parts(counts)[true]
    training, items, queries = transform(learnt), transform(catalogue), transform(asked.examples)
    rows, figures = [], []
    for boost in options.boosts:
        softmax = config.trainer.softmax.model_copy(update={"new_item_boost": boost})
        recalls, places = [], []
        for seed in range(options.seeds):
            settings = config.trainer.model_copy(update={"softmax": softmax, "seed": seed})
            model = trained(spec, settings, analysis, training, items)
            ranks = rank_by_embedding(*embedded(model, queries, items), true)
            hits = hit_probability(ranks.above, ranks.tied, cold_items.SHOWN)
            chosen = [cold, ~cold, np.ones(len(cold), bool), *((parts == part) & ~cold for part in PARTS)]
            recalls.append([float(hits[rows_of].mean()) for rows_of in chosen])
            places.append(float(np.median(1 + ranks.above[cold] + ranks.tied[cold] / 2)))
        means, spread = np.mean(recalls, axis=0), np.std(recalls, axis=0)
        shown = [f"{mean:.3f} ± {each:.3f}" for mean, each in zip(means, spread, strict=True)]
        rows.append([f"{boost:g}", *shown, f"{np.mean(places):.0f}"])
        print(rows[-1], flush=True)
        figures.append({"boost": boost, "recall_at_50": recalls, "median_place_of_new": places})
    columns = ["boost", "new", "others", "all", *(f"others, {part}" for part in PARTS), "median place, new"]
    title = f"{cold.sum():,} interactions with new films, {(~cold).sum():,} with others; recall@{cold_items.SHOWN}"
    common.show(f"{title}, mean of {options.seeds} seeds ± their standard deviation", columns, rows)
    common.conclude(
        options.json,
        {
            "day": str(options.day),
            "masked": spec.masked_tables,
            "trainer": config.trainer.model_dump(mode="json"),
            "seeds": options.seeds,
        },
        figures,
        {
            f"new_recall_at_50_boost_{each['boost']:g}": float(np.mean(each["recall_at_50"], axis=0)[0])
            for each in figures
        },
    )


if __name__ == "__main__":
    main()
