"""Is a new item found? A tenth of MovieLens's films truly kept from training, then ranked among all of them.

The pipeline runs twice (`ndr run`): on all of the logs, and on a copy of them in which nobody has rated the chosen films before the
two weeks that judge: they are in no training interaction, in no history of one and in no vocabulary. So they are served as any new
item is, by their features and an id that was never seen. Which films they are is a digest's choice.

Beside them stand the other films, before and after the removal, and the proxy, *as new*: the model that knows the films, asked with
their ids replaced by ids that nobody has seen. Intervals are 95 %, from a jackknife over users.
"""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from shutil import copytree, rmtree
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray
from pyarrow import parquet

from benchmarks import common
from benchmarks.days import Interactions, Pipeline, embeddings, interactions
from benchmarks.intervals import groups_of, interval
from components.evaluator.expectation import hit_probability
from components.evaluator.facts import positions, user_part
from components.evaluator.ranking import Ranks, rank_by_embedding
from pipeline import config as configuration
from schemas.features import FeatureSpec, IdFeature

CONFIG = Path(configuration.__file__).parent / "configs" / "movielens.yaml"
DAY, HELD_OUT_DAYS = date(1998, 4, 22), 14
ITEM_COLUMN = "movie_id"
ONE_IN = 10
CUTOFFS = (10, 50, 100)
SHOWN = 50
REMOVED, EVERYTHING, AS_NEW = "kept from training", "trained on", "trained on, asked as new"


class Figure(NamedTuple):
    """A row of the table.

    Attributes:
        items: `cold` or `warm`, the others.
        model: what it was trained on.
        interactions: how many were ranked.
        recall: by cutoff, with its interval.
        median_place: of the true item, from 1; chance has it in the middle of the catalogue.
    """

    items: str
    model: str
    interactions: int
    recall: dict[int, tuple[float, float, float]]
    median_place: float


def is_cold(item: bytes) -> bool:
    """Whether an item is one of those that are kept from training."""
    return user_part(b"cold " + item, ONE_IN) == 0


def without_cold(source: Path, target: Path, until: date) -> int:
    """Copies a folder of interactions a day, less those with cold items before a day.

    Args:
        source: has a folder of Parquet files a day, named by it.
        target: gets the same; written anew.
        until: from then on everything stays.

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


def asked_as_new(catalogue: Sequence[bytes], ids: Sequence[bytes], spec: FeatureSpec) -> list[bytes]:
    """The examples of a catalogue, those of cold items with an id that nobody has seen.

    Args:
        catalogue: serialised tf.Examples.
        ids: of the items.
        spec: says which features are the item's id.
    """
    of_item = [
        name
        for name, feature in spec.item.items()
        if isinstance(feature, IdFeature) and (feature.column or name) == spec.catalogue.item
    ]
    found = []
    for serialized, item in zip(catalogue, ids, strict=True):
        if is_cold(item):
            example = tf.train.Example.FromString(serialized)
            for name in of_item:
                example.features.feature[name].bytes_list.value[:] = [b"never seen " + item]
            serialized = example.SerializeToString()
        found.append(serialized)
    return found


def figure(items: str, model: str, asked: Interactions, ranks: Ranks, chosen: NDArray[np.bool_]) -> Figure:
    """What some of the interactions come to."""
    groups = groups_of(asked.users[chosen])
    recall = {k: interval(hit_probability(ranks.above[chosen], ranks.tied[chosen], k), groups) for k in CUTOFFS}
    places = 1 + ranks.above[chosen] + ranks.tied[chosen] / 2
    return Figure(items, model, int(chosen.sum()), dict(recall), float(np.median(places)))


def measure(everything: Pipeline, removed: Pipeline) -> list[Figure]:
    """Ranks what both runs held out.

    Args:
        everything: a pipeline whose day was run on all of the logs.
        removed: one whose day was run without the cold items.
    """
    found = []
    known, cold_day = everything.day(DAY), removed.day(DAY)
    spec = everything.resolved.feature_spec()
    new = asked_as_new(known.catalogue, known.ids.to_pylist(), spec)
    for name, day, catalogue in (
        (REMOVED, cold_day, cold_day.catalogue), (EVERYTHING, known, known.catalogue), (AS_NEW, known, new)
    ):  # fmt: skip
        asked = interactions(day.held_out, spec.history_feature)
        ranks = rank_by_embedding(
            *embeddings(day, asked, catalogue), positions(pa.array(asked.items, pa.binary()), day.ids)
        )
        cold = np.array([is_cold(item) for item in asked.items], bool)
        for items, chosen in (("cold", cold), ("warm", ~cold)):
            found.append(figure(items, name, asked, ranks, chosen))
    return found


def headline(found: Sequence[Figure]) -> dict[str, float]:
    """The named numbers."""
    of = {(each.items, each.model): each.recall[SHOWN][0] for each in found}
    return {
        "cold_recall_at_50": of["cold", REMOVED],
        "cold_recall_at_50_before": of["cold", EVERYTHING],
        "warm_recall_at_50": of["warm", REMOVED],
        "warm_recall_at_50_before": of["warm", EVERYTHING],
        "as_new_recall_at_50": of["cold", AS_NEW],
    }


def main() -> None:
    """The command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", type=Path, default=Path("var"), help="of the run on everything")
    arguments.add_argument("--removed", type=Path, default=Path("var/benchmarks/cold_items"), help="root of the other")
    options = arguments.parse_args()
    everything = Pipeline(CONFIG, [f"root={options.root.absolute()}"])
    everything.command("data", "movielens")
    logs = options.root.absolute() / "data" / "movielens"
    removed_root = options.removed.absolute()
    target = removed_root / "interactions"
    left_out = without_cold(logs / "interactions", target, DAY - timedelta(days=HELD_OUT_DAYS - 1))
    settings = [
        f"root={removed_root}",
        f"data.interactions.path={target}/{{YYYY}}-{{MM}}-{{DD}}",
        f"data.catalogue.path={logs}/catalogue/{{YYYY}}-{{MM}}-{{DD}}",
    ]
    removed = Pipeline(CONFIG, settings)
    for pipeline in (everything, removed):
        pipeline.command("run", "--date", str(DAY))
    found = measure(everything, removed)
    rows = [
        [
            each.items,
            each.model,
            f"{each.interactions:,}",
            *(f"{mean:.4f} [{low:.3f}, {high:.3f}]" for mean, low, high in each.recall.values()),
            f"{each.median_place:.0f}",
        ]
        for each in found
    ]
    columns = ["films", "by a model that they were", "interactions", *(f"recall@{k}" for k in CUTOFFS), "median place"]
    common.show(f"{left_out:,} interactions with cold films left out of training", columns, rows)
    common.conclude(
        options.json,
        {"one_in": ONE_IN, "left_out": left_out, "day": str(DAY)},
        [each._asdict() for each in found],
        headline(found),
    )


if __name__ == "__main__":
    main()
