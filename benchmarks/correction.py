"""Does the correction matter? Plain and corrected softmax on MovieLens, each with its own best temperature.

The data goes through the pipeline (`ndr run`) once; then every form of the loss is trained by the project's trainer with every
temperature and several seeds. The two weeks that the run holds out are parted: the first chooses the temperature, by recall@50, the
second is reported. Beside them stand baselines over all that was trained on (`benchmarks.baselines`). Intervals are 95 %, from a
jackknife over users.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.baselines import COOCCURRENCE, POPULARITY, RECENT, Known
from benchmarks.days import MICROSECONDS_A_DAY, Pipeline, interactions
from benchmarks.in_memory import Transform, embedded, trained
from benchmarks.intervals import groups_of, interval
from components.evaluator.expectation import hit_probability
from components.evaluator.names import ITEM_POPULARITY, SLICES
from components.evaluator.positions import positions
from components.evaluator.ranking import Ranks, rank_by_embedding
from components.evaluator.slices import popularity_parts
from components.trainer.settings import TrainerSettings
from pipeline import config as configuration
from schemas.features import FeatureSpec

CONFIG = Path(configuration.__file__).parent / "configs" / "movielens.yaml"
DAY = date(1998, 4, 22)
WEEK_MICROSECONDS = 7 * MICROSECONDS_A_DAY
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"correction": "none"},
    "half corrected": {"correction": "logq", "strength": 0.5},
    "corrected": {"correction": "logq"},
    "corrected, positive left out": {"correction": "logq_positive_left_out"},
    "corrected, mixed negatives": {"correction": "logq", "uniform_negatives": 1024},
}
BASELINES = (POPULARITY, RECENT, COOCCURRENCE)
CUTOFFS = (10, 50, 100)
TUNED_BY = 50


class Data(NamedTuple):
    """What the pipeline made of MovieLens.

    Attributes:
        spec: the feature specification.
        settings: the configuration's trainer.
        analysis: the folder of the vocabularies.
        training: model inputs of the training interactions, in memory.
        catalogue: the item tower's inputs and the ids of all items.
        held_out: model inputs of the held-out interactions with a reward.
        true_rows: [held out], the catalogue row of each one's item.
        is_reported: [held out] bool, the second week.
        groups: [held out], of the users.
        popularity: [items], interactions in training.
        baselines: by name, where each ranks the held-out interactions.
    """

    spec: FeatureSpec
    settings: TrainerSettings
    analysis: str
    training: dict[str, tf.Tensor]
    catalogue: dict[str, tf.Tensor]
    held_out: dict[str, tf.Tensor]
    true_rows: NDArray[np.int64]
    is_reported: NDArray[np.bool_]
    groups: NDArray[np.int64]
    popularity: NDArray[np.int64]
    baselines: Mapping[str, Ranks]


def prepare(root: str, settings: Sequence[str]) -> Data:
    """Run the pipeline unless it has run, and read its outputs."""
    pipeline = Pipeline(CONFIG, [f"root={root}", *settings])
    pipeline.command("data", "movielens")
    pipeline.command("run", "--date", str(DAY))
    config, day = pipeline.resolved, pipeline.day(DAY)
    spec = config.feature_spec()
    transform = Transform(spec, day.analysis)
    learnt, asked = (interactions(split, spec.history_feature) for split in (day.training, day.held_out))
    known = Known(day.ids)
    known.add(learnt.users, learnt.items, learnt.times, learnt.histories)
    # Training ends where the held-out weeks begin, and so do the recent days.
    ranks = known.ranks(asked.users, asked.items, asked.histories, day.ids, int(asked.times.min()))
    true_rows, learnt_rows = (positions(pa.array(each.items, pa.binary()), day.ids) for each in (asked, learnt))
    return Data(
        spec,
        config.trainer,
        day.analysis,
        transform(day.training),
        transform(day.catalogue),
        transform(asked.examples),
        true_rows,
        asked.times >= asked.times.max() - WEEK_MICROSECONDS,
        groups_of(asked.users),
        np.bincount(learnt_rows, minlength=len(day.ids)),
        {name: ranks[name] for name in BASELINES},
    )


def ranks_of(data: Data, softmax: Mapping[str, Any], temperature: float, seed: int) -> Ranks:
    """Where a model trained with a form of the loss ranks the held-out interactions."""
    settings = data.settings.model_copy(
        update={
            "softmax": data.settings.softmax.model_copy(update={**softmax, "temperature": temperature}),
            "seed": seed,
        }
    )
    model = trained(data.spec, settings, data.analysis, data.training, data.catalogue)
    return rank_by_embedding(*embedded(model, data.held_out, data.catalogue), data.true_rows)


def found(ranks: Ranks) -> NDArray[np.float64]:
    """[cutoffs, held out], the chance that the item is among the first k."""
    return np.stack([hit_probability(ranks.above, ranks.tied, k) for k in CUTOFFS])


def parts_of(popularity: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Items by popularity, as the Evaluator's slices have them."""
    parts = popularity_parts(popularity)
    return {"all": np.ones(len(parts), bool), **{part: parts == part for part in SLICES[ITEM_POPULARITY]}}


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", default="var", help="of the pipeline's run (made where it is missing)")
    arguments.add_argument("--temperatures", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.4, 0.8])
    arguments.add_argument("--seeds", type=int, default=3, help="models of each form and temperature")
    arguments.add_argument("--set", action="append", default=[], help="KEY=VALUE of the configuration")
    options = arguments.parse_args()
    data = prepare(options.root, options.set)
    parts = parts_of(data.popularity)
    hits: dict[str, NDArray[np.float64]] = {}  # form: [cutoffs, held out], the mean of the seeds
    tuning: dict[str, dict[str, float]] = {}
    best: dict[str, float] = {}
    for form, softmax in FORMS.items():
        at: dict[float, NDArray[np.float64]] = {}
        for temperature in options.temperatures:
            tried = [found(ranks_of(data, softmax, temperature, seed)) for seed in range(options.seeds)]
            at[temperature] = np.mean(tried, axis=0)
            recalls = at[temperature][:, ~data.is_reported].mean(axis=1)
            tuning.setdefault(form, {})[str(temperature)] = float(recalls[CUTOFFS.index(TUNED_BY)])
            print(f"{form}, temperature {temperature}: " + ", ".join(f"{r:.4f}" for r in recalls), flush=True)
        best[form] = max(at, key=lambda temperature: tuning[form][str(temperature)])
        hits[form] = at[best[form]]
    hits |= {name: found(ranks) for name, ranks in data.baselines.items()}

    figures = []
    for part, items in parts.items():
        chosen = data.is_reported & items[data.true_rows]
        rows = []
        for form, of_form in hits.items():
            recall = {k: interval(of_form[row, chosen], data.groups[chosen]) for row, k in enumerate(CUTOFFS)}
            gained = of_form - hits["plain"]
            gain = {k: interval(gained[row, chosen], data.groups[chosen]) for row, k in enumerate(CUTOFFS)}
            figures.append(
                {
                    "items": part,
                    "form": form,
                    "interactions": int(chosen.sum()),
                    "recall": recall,
                    "gain_over_plain": gain,
                }
            )
            mean, low, high = gain[TUNED_BY]
            shown = [f"{r:.4f} [{r_low:.3f}, {r_high:.3f}]" for r, r_low, r_high in recall.values()]
            over_plain = "" if form == "plain" else f"{mean:+.4f} [{low:+.3f}, {high:+.3f}]"
            rows.append([form, str(best.get(form, "")), *shown, over_plain])
        columns = ["", "temperature", *(f"recall@{k}" for k in CUTOFFS), f"recall@{TUNED_BY} over plain"]
        common.show(
            f"{part} items: {chosen.sum():,} interactions of the second week, 95 % intervals over users", columns, rows
        )
    overall = {form: of_form[:, data.is_reported].mean(axis=1) for form, of_form in hits.items()}
    common.conclude(
        options.json,
        {
            "trainer": data.settings.model_dump(mode="json"),
            "temperatures": options.temperatures,
            "set": options.set,
            "seeds": options.seeds,
            "day": str(DAY),
        },
        {"tuning_recall_at_50": tuning, "chosen": best, "reported": figures},
        {
            f"recall{k}_gain": float(overall["corrected"][row] / overall["plain"][row] - 1.0)
            for row, k in enumerate(CUTOFFS)
        }
        | {
            f"recall50_{common.key(form)}": float(of_form[CUTOFFS.index(TUNED_BY)]) for form, of_form in overall.items()
        },
    )


if __name__ == "__main__":
    main()
