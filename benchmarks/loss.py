"""The whole training step against one with TFRS's Retrieval task: examples/s, GFLOP/s, memory, the estimator's share.

Both have the same towers, tables, optimizer, correction and accidental hits left out. TFRS has no estimator, and is given its
probabilities; ours pays for its own (m = 4, H = 2^20).
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
import tf_keras

from benchmarks import common
from components.trainer.inputs import Batch
from components.trainer.model import TwoTowerModel, build_model
from components.trainer.settings import TrainerSettings
from schemas.features import CANDIDATE_ID, FINGERPRINT_SUFFIX, REWARD, FeatureSpec

ITEMS, USERS, WIDTH = 100_000, 100_000, 64
BATCHES = (1024, 4096, 8192, 16384)
LARGEST_BATCH = 32768
REPEATS_BATCH = 8192
ROUNDS = {1024: 40, 4096: 15, 8192: 11}
OTHER_ROUNDS = 3
TEMPERATURE = 0.05
WIDTHS = (128, WIDTH)
OURS, TFRS, TFRS_UNMASKED = "ours", "tfrs", "tfrs, accidental hits kept"
SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {
            "user": {"width": WIDTH, "hash_buckets": USERS},
            "item": {"width": WIDTH, "hash_buckets": ITEMS},
        },
        "query": {"user": {"kind": "id", "table": "user"}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
SETTINGS = TrainerSettings.model_validate(
    {
        "towers": {"query": WIDTHS, "item": WIDTHS},
        "softmax": {"temperature": TEMPERATURE},
        "frequency": {"hashes": 4, "buckets": 1 << 20},
    }
)


class TfrsModel(TwoTowerModel):
    """The same towers, trained by TFRS's task with probabilities that it is given."""

    def __init__(self, towers: TwoTowerModel, probabilities: tf.Tensor, remove_accidental_hits: bool) -> None:
        super().__init__(
            towers.query_tower, towers.item_tower, towers.retrieval_loss, towers.frequency, 0, {}, 1.0, True
        )
        self._task = tfrs.tasks.Retrieval(temperature=TEMPERATURE, remove_accidental_hits=remove_accidental_hits)
        self._probabilities = probabilities

    def compute_loss(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """TFRS's sum over the batch, as a mean."""
        inputs = batch.interactions
        total = self._total(self.query_tower(inputs), self.item_tower(inputs), inputs[REWARD], inputs[CANDIDATE_ID])
        return total / tf.cast(tf.shape(inputs[CANDIDATE_ID])[0], tf.float32)

    @tf.function  # for AutoGraph: TFRS's task asks for the length of a tensor, and our own steps are not converted
    def _total(self, queries: tf.Tensor, items: tf.Tensor, rewards: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        return self._task(
            queries,
            items,
            sample_weight=rewards,
            candidate_sampling_probability=tf.gather(self._probabilities, ids),
            candidate_ids=ids,
        )


def popularity() -> np.ndarray:
    """[ITEMS] shares by Zipf's law."""
    shares = 1.0 / np.arange(1, ITEMS + 1)
    return shares / shares.sum()


def make_batch(size: int) -> Batch:
    """Draw users uniformly, and items by popularity."""
    random = np.random.default_rng(size)
    items = random.choice(ITEMS, size, p=popularity())
    inputs = {
        "user": random.integers(0, USERS, size),
        "item": items,
        CANDIDATE_ID: items,
        REWARD: np.ones(size, np.float32),
    }
    return Batch({name: tf.constant(values) for name, values in inputs.items()}, {})


def make_model(name: str) -> TwoTowerModel:
    """Return an untrained model, ready to train."""
    model = build_model(SPEC, {"user": USERS, "item": ITEMS}, SETTINGS)
    if name != OURS:
        model = TfrsModel(model, tf.constant(popularity(), tf.float32), remove_accidental_hits=name == TFRS)
    model.compile(optimizer=tf_keras.optimizers.Adagrad(0.01))
    return model


def step_of(model: TwoTowerModel, batch: Batch) -> Callable[[], Any]:
    """Return a training step on one batch, done when it returns."""
    compiled = tf.function(model.train_step)
    return lambda: compiled(batch)["loss"].numpy()


def step_flop(size: int) -> float:
    """Floating-point operations of a step: three products of the logits' size; the towers forward and twice back."""
    logits = 2.0 * size * size * WIDTH
    towers = 2 * 2.0 * size * (WIDTH * WIDTHS[0] + WIDTHS[0] * WIDTHS[1])
    return 3.0 * (logits + towers)


def measure(size: int) -> dict[str, Any]:
    """Everything about one batch size that is measured in this process."""
    batch = make_batch(size)
    estimator = make_model(OURS).frequency
    counted = tf.function(estimator.call)
    left, right = (tf.random.normal([size, WIDTH]) for _ in range(2))
    product = tf.function(lambda: tf.matmul(left, right, transpose_b=True))
    seconds = common.interleaved(
        {
            **{name: step_of(make_model(name), batch) for name in (OURS, TFRS, TFRS_UNMASKED)},
            "estimator": lambda: counted(batch.interactions[CANDIDATE_ID]).numpy(),
            # Its last element is there when all of it is.
            "product": lambda: product()[-1, -1].numpy(),
        },
        ROUNDS.get(size, OTHER_ROUNDS),
    )
    figures: dict[str, Any] = {"batch": size, "seconds": seconds}
    medians = {name: common.median(values) for name, values in seconds.items()}
    figures["examples_per_second"] = {name: size / medians[name] for name in (OURS, TFRS, TFRS_UNMASKED)}
    figures["gflops"] = {name: step_flop(size) / medians[name] / 1e9 for name in (OURS, TFRS, TFRS_UNMASKED)}
    figures["gflops"]["product"] = 2.0 * size * size * WIDTH / medians["product"] / 1e9
    figures["estimator_share"] = medians["estimator"] / medians[OURS]
    return figures


def measure_repeats(last: int) -> dict[str, list[float]]:
    """Processor seconds of a step with histories of up to `last` items, half that on average, with `repeats` and without.

    By the processor's time, which other jobs on the machine change less than the wall clock's.
    """
    random = np.random.default_rng(0)
    batch = make_batch(REPEATS_BATCH)
    past = random.choice(ITEMS, (REPEATS_BATCH, last), p=popularity())
    past[np.arange(last) >= random.integers(0, last + 1, (REPEATS_BATCH, 1))] = -1
    given = {"past": tf.constant(past), f"past{FINGERPRINT_SUFFIX}": tf.constant(past)}
    batch = batch._replace(interactions={**batch.interactions, **given})
    steps = {}
    for name, repeats in (("without", False), ("with", True)):
        history = {"kind": "history", "table": "item", "last": last, "repeats": repeats}
        spec = SPEC.model_dump()
        model = build_model(
            FeatureSpec.model_validate({**spec, "query": {**spec["query"], "past": history}}),
            {"user": USERS, "item": ITEMS},
            SETTINGS,
        )
        model.compile(optimizer=tf_keras.optimizers.Adagrad(0.01))
        steps[name] = step_of(model, batch)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(2 + ROUNDS[REPEATS_BATCH]):
        for name, step in steps.items():
            begun = time.process_time()
            step()
            if number >= 2:
                seconds[name].append(time.process_time() - begun)
    return seconds


def measure_peak(name: str, size: int) -> float:
    """GiB at the peak of a few steps, beyond what the model itself takes."""
    step_of(make_model(name), make_batch(64))()
    before = common.peak_gib()
    step = step_of(make_model(name), make_batch(size))
    for _ in range(3):
        step()
    return common.peak_gib() - before


def in_a_process_of_its_own(*arguments: str) -> Any:
    """Memory is given back only by a process that ends."""
    command = [sys.executable, "-m", "benchmarks.loss", *arguments]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(answer.splitlines()[-1])


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="sizes")
    arguments.add_argument(
        "--largest", type=int, default=LARGEST_BATCH, help="of which ours alone has its memory measured"
    )
    arguments.add_argument("--only", type=int, metavar="BATCH", help="one batch size, its figures as JSON")
    arguments.add_argument("--peak-of", metavar="MODEL", help="with --only: the memory of one model")
    arguments.add_argument(
        "--repeats", type=int, metavar="LAST", help="only what histories of so many items with repeats cost"
    )
    options = arguments.parse_args()
    if options.repeats:
        seconds = measure_repeats(options.repeats)
        cost = float(np.median(np.divide(seconds["with"], seconds["without"])) - 1)
        common.conclude(
            options.json, {"last": options.repeats, "batch": REPEATS_BATCH}, seconds, {"repeats_cost": cost}
        )
        return
    if options.only:
        found = measure_peak(options.peak_of, options.only) if options.peak_of else measure(options.only)
        print(json.dumps(found))
        return
    figures = []
    for size in options.batches:
        print(f"batch {size} ...", flush=True)
        peaks = {name: in_a_process_of_its_own("--only", str(size), "--peak-of", name) for name in (OURS, TFRS)}
        figures.append(in_a_process_of_its_own("--only", str(size)) | {"peak_gib": peaks})
    largest = in_a_process_of_its_own("--only", str(options.largest), "--peak-of", OURS)
    rows = []
    for found in figures:
        for name in (OURS, TFRS, TFRS_UNMASKED):
            speed = found["examples_per_second"]
            peak = found["peak_gib"].get(name)
            rows.append(
                [
                    f"{found['batch']:,} {name}",
                    f"{speed[name]:,.0f}",
                    f"{speed[OURS] / speed[name]:.2f}",
                    f"{found['gflops'][name]:.0f} of {found['gflops']['product']:.0f}",
                    "" if peak is None else f"{peak:.2f}",
                    f"{found['estimator_share']:.1%}" if name == OURS else "",
                ]
            )
    rows.append([f"{options.largest:,} {OURS}", "", "", "", f"{largest:.2f}", ""])
    columns = [
        "batch",
        "examples/s",
        "ours is faster by",
        "GFLOP/s of the plain product's",
        "peak GiB",
        "estimator's share",
    ]
    common.show("A whole training step", columns, rows)
    headline: dict[str, float] = {}
    for found in figures:
        size, speed = found["batch"], found["examples_per_second"]
        headline[f"ratio_{size}"] = speed[OURS] / speed[TFRS]
        headline[f"estimator_share_{size}"] = found["estimator_share"]
        headline[f"gflops_share_{size}"] = found["gflops"][OURS] / found["gflops"]["product"]
    common.conclude(
        options.json,
        {"items": ITEMS, "users": USERS, "trainer": SETTINGS.model_dump(mode="json"), "rounds": ROUNDS},
        {"batches": figures, f"peak_gib_{options.largest}": largest},
        headline,
    )


if __name__ == "__main__":
    main()
