"""Does the correction matter? Plain and corrected softmax on MovieLens, each with its own best temperature.

The data goes through the pipeline (`ndr run`) once; then every form of the loss is trained by the project's trainer with every
temperature and several seeds. The two weeks that the run holds out are parted: the first chooses the temperature, by recall@50, the
second is reported. Intervals are 95 %, from a bootstrap over people.
"""

import gc
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tf_keras
from numpy.typing import NDArray

from benchmarks import common
from components.analysis import files
from components.evaluator.names import ITEM_POPULARITY, SLICES
from components.evaluator.ranking import rank_by_embedding
from components.evaluator.slices import popularity_parts
from components.trainer.inputs import catalogue_inputs, uniform_draws, with_uniform_items
from components.trainer.model import build_model
from components.trainer.optimizers import build_optimizer
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState
from components.trainer.strategies import one_device
from components.trainer.training import Training, train
from components.transform import raw_features
from pipeline import config as configuration
from pipeline.metadata import Records
from pipeline.store import connection
from schemas.features import CANDIDATE_ID, QUERY_ID, REWARD, TIMESTAMP, FeatureSpec

CONFIG = Path(configuration.__file__).parent / "configs" / "movielens.yaml"
DAY = "1998-04-22"
WEEK_MICROSECONDS = 7 * 86_400_000_000
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"correction": "none"},
    "corrected": {"correction": "logq"},
    "corrected, positive left out": {"correction": "logq_positive_left_out"},
    "corrected, mixed negatives": {"correction": "logq", "uniform_negatives": 1024},
}
TEMPERATURES = (0.05, 0.1, 0.2, 0.4, 0.8)
SEEDS = 3
CUTOFFS = (10, 50, 100)
TUNED_BY = 50
RESAMPLES = 2000


class Data(NamedTuple):
    """What the pipeline made of MovieLens.

    Attributes:
        spec: the feature specification.
        settings: the configuration's trainer.
        rows: of each embedding table.
        training: model inputs of the training interactions, in memory.
        catalogue: the item tower's inputs and the ids of all items.
        held_out: model inputs of the held-out interactions with a reward.
        true_rows: [held out], the catalogue row of each one's item.
        is_reported: [held out] bool, the second week.
        popularity: [items], interactions in training.
    """

    spec: FeatureSpec
    settings: TrainerSettings
    rows: dict[str, int]
    training: dict[str, tf.Tensor]
    catalogue: dict[str, tf.Tensor]
    held_out: dict[str, tf.Tensor]
    true_rows: NDArray[np.int64]
    is_reported: NDArray[np.bool_]
    popularity: NDArray[np.int64]


def prepare(root: str) -> Data:
    """Runs the pipeline where that has not been done, and reads what it left."""
    place = ["--config", str(CONFIG), "--set", f"root={root}"]
    for command in (["data", "movielens"], ["run", "--date", DAY]):
        subprocess.run([sys.executable, "-m", "pipeline.cli", *command, *place], check=True)
    config = configuration.load(CONFIG, [f"root={root}"])
    spec = config.feature_spec()
    records = Records(connection(config))
    run = records.runs()[-1].run
    transform_output = tft.TFTransformOutput(records.artifact_uris(run, "TransformGraph")[0])
    examples = records.example_uris(run)
    catalogue = catalogue_inputs([f"{examples['catalogue']}/Split-catalogue/*"], spec.item, transform_output)
    training, held_out = (
        transformed(f"{examples['interactions']}/Split-{split}/*", spec, transform_output)
        for split in ("train", "eval")
    )
    held_out = {name: tf.boolean_mask(values, held_out[REWARD] > 0.0) for name, values in held_out.items()}
    row_of = {int(item): row for row, item in enumerate(catalogue[CANDIDATE_ID].numpy())}
    true_rows, trained_rows = (
        np.array([row_of[int(item)] for item in inputs[CANDIDATE_ID].numpy()]) for inputs in (held_out, training)
    )
    times = held_out[TIMESTAMP].numpy()
    return Data(
        spec,
        config.trainer,
        files.table_rows(records.artifact_uris(run, "Analysis")[0], spec),
        training,
        catalogue,
        held_out,
        true_rows,
        times >= times.max() - WEEK_MICROSECONDS,
        np.bincount(trained_rows, minlength=len(row_of)),
    )


def transformed(pattern: str, spec: FeatureSpec, transform_output: tft.TFTransformOutput) -> dict[str, tf.Tensor]:
    """Raw interactions as model inputs, in memory."""
    transform = transform_output.transform_features_layer()
    parsed = {
        CANDIDATE_ID: tf.string, QUERY_ID: tf.string, TIMESTAMP: tf.int64, REWARD: tf.float32,
        **raw_features.dtypes(spec.features),
    }  # fmt: skip
    features = {name: tf.io.VarLenFeature(dtype) for name, dtype in parsed.items()}
    files = tf.data.Dataset.list_files(pattern, shuffle=False)
    records = tf.data.TFRecordDataset(files, compression_type="GZIP").batch(8192)
    parts = [transform(tf.io.parse_example(batch, features)) for batch in records]
    return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}


def ranks_of(data: Data, softmax: Mapping[str, Any], temperature: float, seed: int) -> NDArray[np.int64]:
    """[held out], how many items the trained model puts before the true one; a tie counts as half."""
    settings = data.settings.model_copy(
        update={
            "softmax": data.settings.softmax.model_copy(update={**softmax, "temperature": temperature}),
            "seed": seed,
        }
    )
    tf_keras.backend.clear_session()  # else the graphs and tables of every model before stay in memory
    gc.collect()
    tf_keras.utils.set_random_seed(seed)
    items = data.catalogue[CANDIDATE_ID].shape[0]
    model = build_model(data.spec, data.rows, settings, items)
    examples = data.training[CANDIDATE_ID].shape[0]

    def batches(epoch: int, skip: int) -> tf.data.Dataset:
        order = tf.data.Dataset.from_tensor_slices(data.training).shuffle(examples, seed=seed + epoch)
        draws = None
        if settings.softmax.uniform_negatives:
            draws = uniform_draws(data.catalogue, settings.softmax.uniform_negatives, seed + epoch)
        return with_uniform_items(order.batch(settings.batch_size, drop_remainder=True).skip(skip), draws)

    model.compile(optimizer=build_optimizer(settings))
    model.make_weights(next(iter(batches(0, 0))))
    with tempfile.TemporaryDirectory() as folder:
        training = Training(batches, examples // settings.batch_size, settings, f"{folder}/unfinished")
        train(model, TrainingState(model), training, folder, one_device())
    ranks = rank_by_embedding(
        model.query_tower(data.held_out).numpy(), model.item_tower(data.catalogue).numpy(), data.true_rows
    )
    return ranks.above + ranks.tied // 2


def parts_of(popularity: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Items by popularity, as the Evaluator's slices have them."""
    parts = popularity_parts(popularity)
    return {"all": np.ones(len(parts), bool), **{part: parts == part for part in SLICES[ITEM_POPULARITY]}}


def interval(values: NDArray[np.float64], people: NDArray[np.int64]) -> tuple[float, float, float]:
    """Mean, and 95 % of the means that a bootstrap over people gives."""
    _, person = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(person, weights=values), np.bincount(person)
    chosen = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = np.quantile(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def main() -> None:
    """The command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--root", default="var", help="of the pipeline's run (made where it is missing)")
    options = arguments.parse_args()
    data = prepare(options.root)
    parts = parts_of(data.popularity)
    hits: dict[str, NDArray[np.float64]] = {}  # form: [cutoffs, held out], the mean of the seeds
    tuning: dict[str, dict[str, float]] = {}
    best: dict[str, float] = {}
    for form, softmax in FORMS.items():
        at: dict[float, NDArray[np.float64]] = {}
        for temperature in TEMPERATURES:
            ranks = np.stack([ranks_of(data, softmax, temperature, seed) for seed in range(SEEDS)])
            at[temperature] = np.stack([(ranks < k).mean(axis=0) for k in CUTOFFS])
            recalls = at[temperature][:, ~data.is_reported].mean(axis=1)
            tuning.setdefault(form, {})[str(temperature)] = float(recalls[CUTOFFS.index(TUNED_BY)])
            print(f"{form}, temperature {temperature}: " + ", ".join(f"{r:.4f}" for r in recalls), flush=True)
        best[form] = max(at, key=lambda temperature: tuning[form][str(temperature)])
        hits[form] = at[best[form]]
    popular = np.argsort(np.argsort(-data.popularity, kind="stable"))[data.true_rows]
    hits["popularity"] = np.stack([(popular < k).astype(float) for k in CUTOFFS])

    people = data.held_out[QUERY_ID].numpy()
    figures = []
    for part, items in parts.items():
        chosen = data.is_reported & items[data.true_rows]
        rows = []
        for form, found in hits.items():
            recall = {k: interval(found[row, chosen], people[chosen]) for row, k in enumerate(CUTOFFS)}
            gained = found - hits["plain"]
            gain = {k: interval(gained[row, chosen], people[chosen]) for row, k in enumerate(CUTOFFS)}
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
            f"{part} items: {chosen.sum():,} interactions of the second week, 95 % intervals over people", columns, rows
        )
    overall = {form: found[:, data.is_reported].mean(axis=1) for form, found in hits.items()}
    common.conclude(
        options.json,
        {"trainer": data.settings.model_dump(mode="json"), "temperatures": TEMPERATURES, "seeds": SEEDS, "day": DAY},
        {"tuning_recall_at_50": tuning, "chosen": best, "reported": figures},
        {
            f"recall{k}_gain": float(overall["corrected"][row] / overall["plain"][row] - 1.0)
            for row, k in enumerate(CUTOFFS)
        },
    )


if __name__ == "__main__":
    main()
