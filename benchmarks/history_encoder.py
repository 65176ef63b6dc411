"""Is a history better attended to than averaged? MovieLens, by `encoder` and `half_life`, all else the same.

The logs go once through the steps that make examples of them; then a model for each encoder and seed is trained in this process, by
the functions that the pipeline's steps call (`benchmarks.in_memory`), and ranks the last two weeks, of which it was shown nothing.
The attention is asked with the ages of the items and without them. A model that is not taught to score the items of a history low
(`negatives: false`) is beside the mean with those items left out of both rankings. Intervals are 95 %, from a jackknife over users;
a difference is to the mean on the same interactions, with those items left out if they are.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import cold_items, common
from benchmarks.days import EPOCH, MICROSECONDS_A_DAY, ingest, interactions
from benchmarks.in_memory import Transform, analyse, embedded, trained
from benchmarks.intervals import groups_of, interval
from components.decoded import decode, single
from components.evaluator.expectation import hit_probability
from components.evaluator.positions import positions, rows_of_lists
from components.evaluator.query_items import Excluded
from components.evaluator.ranking import rank_by_embedding
from components.transform.catalogue_lookup import Inputs
from components.transform.missing import NO_AGE
from pipeline import config as configuration
from schemas.features import AGES_SUFFIX, CANDIDATE_ID, FILE_NAME, TIMESTAMP

MEAN, HALF_LIFE, ATTENTION, BOTH = "mean", "mean, half_life 5", "attention", "attention, half_life 5"
NOT_NEGATIVES = "mean, no negatives"
ENCODERS: dict[str, dict[str, Any]] = {
    MEAN: {"encoder": "mean"},
    HALF_LIFE: {"encoder": "mean", "half_life": 5.0},
    ATTENTION: {"encoder": "attention"},
    BOTH: {"encoder": "attention", "half_life": 5.0},
    NOT_NEGATIVES: {"encoder": "mean", "negatives": False},
}
LEFT_OUT = ", histories left out"
WITHOUT_AGES = "attention, asked without ages"
CUTOFFS = (10, 50, 100)
SHOWN = 50


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/history_encoder"), help="of what is made")
    arguments.add_argument("--seeds", type=int, default=3, help="models an encoder")
    arguments.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    common.movielens_argument(arguments)
    options = arguments.parse_args()
    root = options.root.absolute()
    config = configuration.load(
        cold_items.CONFIG,
        [
            f"root={root}",
            f"dataset={_with_ages(root / 'dataset')}",
            f"data.interactions.path={options.data}/interactions/{{YYYY}}-{{MM}}-{{DD}}",
            f"data.catalogue.path={options.data}/catalogue/{{YYYY}}-{{MM}}-{{DD}}",
        ],
    )
    spec, span = config.feature_spec(), (cold_items.DAY - EPOCH).days
    first = cold_items.DAY - timedelta(days=cold_items.HELD_OUT_DAYS - 1)
    examples, catalogue = ingest(config, cold_items.DAY, root / "examples")
    is_learnt = single(decode(examples).column(TIMESTAMP)).to_numpy() < (first - EPOCH).days * MICROSECONDS_A_DAY
    learnt = [example for example, learns in zip(examples, is_learnt, strict=True) if learns]
    asked = interactions([e for e, learns in zip(examples, is_learnt, strict=True) if not learns], spec.history_feature)
    analysis = str(root / "analysis")
    analyse(spec, learnt, None, span, analysis)
    transform = Transform(spec, analysis)
    ids = single(decode(catalogue).column(CANDIDATE_ID))
    true = positions(pa.array(asked.items, pa.binary()), ids)
    histories = rows_of_lists(decode(asked.examples), spec.history_feature, ids)
    training, items, queries = transform(learnt), transform(catalogue), transform(asked.examples)
    ages = f"{spec.history_feature}{AGES_SUFFIX}"
    unaged = {**queries, ages: tf.fill(queries[ages].shape, tf.constant(NO_AGE, tf.int64))}
    hits: dict[str, list[NDArray[np.float64]]] = {}
    for name in options.encoders:
        history = spec.query[spec.history_feature or ""].model_copy(update={"negatives": True, **ENCODERS[name]})
        changed = spec.model_copy(update={"query": {**spec.query, spec.history_feature: history}})
        for seed in range(options.seeds):
            model = trained(changed, config.trainer.model_copy(update={"seed": seed}), analysis, training, items)
            asked_for: list[tuple[str, Inputs, Excluded | None]] = [(name, queries, None)]
            if name == ATTENTION:
                asked_for.append((WITHOUT_AGES, unaged, None))
            if name in (MEAN, NOT_NEGATIVES):
                asked_for.append((name + LEFT_OUT, queries, histories))
            for of, given, excluded in asked_for:
                ranks = rank_by_embedding(*embedded(model, given, items), true, excluded)
                found = np.stack([hit_probability(ranks.above, ranks.tied, k) for k in CUTOFFS])
                hits.setdefault(of, []).append(found)
                print(f"{of}, seed {seed}: " + ", ".join(f"{each:.4f}" for each in found.mean(axis=1)), flush=True)
    groups, rows, figures = groups_of(asked.users), [], []
    means = {name: np.mean(of_seeds, axis=0) for name, of_seeds in hits.items()}
    for name, mean in means.items():
        recalls = [interval(of_cutoff, groups) for of_cutoff in mean]
        base = MEAN + LEFT_OUT if name.endswith(LEFT_OUT) else MEAN
        gained = mean[CUTOFFS.index(SHOWN)] - means.get(base, mean)[CUTOFFS.index(SHOWN)]
        gain, low, high = interval(gained, groups)
        spread = np.std([each.mean(axis=1)[CUTOFFS.index(SHOWN)] for each in hits[name]])
        shown = [f"{value:.4f} [{lower:.3f}, {upper:.3f}]" for value, lower, upper in recalls]
        rows.append([name, *shown, f"{spread:.4f}", f"{gain:+.4f} [{low:+.3f}, {high:+.3f}]"])
        figures.append({"encoder": name, "recall": recalls, "spread": float(spread), "gain": [gain, low, high]})
    columns = ["", *(f"recall@{k}" for k in CUTOFFS), f"± @{SHOWN} of seeds", f"recall@{SHOWN} over the mean"]
    common.show(f"{len(true):,} interactions, mean of {options.seeds} seeds", columns, rows)
    common.conclude(
        options.json,
        {"day": str(cold_items.DAY), "seeds": options.seeds},
        figures,
        {f"recall_at_50_{common.key(name)}": float(mean[CUTOFFS.index(SHOWN)].mean()) for name, mean in means.items()},
    )


def _with_ages(folder: Path) -> Path:
    """MovieLens's features, with the ages of a history's items."""
    folder.mkdir(parents=True, exist_ok=True)
    declared = (Path(configuration.__file__).parents[1] / "schemas" / "movielens" / FILE_NAME).read_text()
    old = "history: {kind: history, "
    (folder / FILE_NAME).write_text(declared.replace(old, f"{old}encoder: attention, "))
    return folder


if __name__ == "__main__":
    main()
