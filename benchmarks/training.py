"""Does the input keep the step fed? Training from files against the same step fed from memory, and by TFRS's way of reading.

The examples are those that a real run left: `ndr run` on a day of `benchmarks.logs` for `benchmarks/service`, made where it is not
there yet. Whole epochs are timed, from the first file that is opened to the last step. Turns are taken:

- `files`: the Trainer's input, as it is read in a first epoch;
- `kept`: a later epoch of examples that the first left in memory;
- `memory`: batches that lie ready, so the step alone;
- `TFRS`: as TFRS's tutorials read, example by example: parse, shuffle, batch. Of this, a part of an epoch.

Then the step alone with the switches `mixed_precision` and `jit_compile`.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import components  # before TensorFlow: it chooses Keras 2

assert components

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_transform as tft  # noqa: E402

from benchmarks import common  # noqa: E402
from benchmarks.logs import FIRST_DAY, World, write  # noqa: E402
from benchmarks.pipeline import CONFIG, INTERACTIONS_A_USER  # noqa: E402
from components.analysis import files as analysis_files  # noqa: E402
from components.trainer.epochs import OwnBatches  # noqa: E402
from components.trainer.examples import WINDOW_EXAMPLES, TrainingExamples  # noqa: E402
from components.trainer.inputs import masks_of, with_uniform_items  # noqa: E402
from components.trainer.model import TwoTowerModel, build_model  # noqa: E402
from components.trainer.optimizers import build_optimizer  # noqa: E402
from components.trainer.settings import TrainerSettings  # noqa: E402
from components.trainer.strategies import one_device  # noqa: E402
from components.transform.file_rows import rows_of_files  # noqa: E402
from pipeline import config as configuration  # noqa: E402
from pipeline.records import Records, connection  # noqa: E402
from schemas.features import FeatureSpec  # noqa: E402

BATCH, ITEMS = 4096, 50_000
TFRS_STEPS = 20
SWITCHES: dict[str, dict[str, bool]] = {
    "float32": {},
    "mixed_precision": {"mixed_precision": True},
    "jit_compile": {"jit_compile": True},
    "both": {"mixed_precision": True, "jit_compile": True},
}
SWITCH_STEPS = 40

Feed = Callable[[], tf.data.Dataset]


class Examples:
    """A run's transformed examples, and what they are trained with.

    Args:
        root: of the run, which is made where there is none.
        interactions: of its day.
        batch: examples of a step.
    """

    def __init__(self, root: Path, interactions: int, batch: int) -> None:
        self.batch = batch
        overrides = [f"root={root}"]
        config = configuration.load(CONFIG, overrides)
        if not config.root.exists():
            world = World(max(1, interactions // INTERACTIONS_A_USER), ITEMS, days=1)
            write(world, [interactions], root / "data")
        command = [sys.executable, "-m", "pipeline.cli", "run", "--date", str(FIRST_DAY), "--config", str(CONFIG)]
        subprocess.run([*command, "--set", overrides[0]], check=True)  # passes over a day that is done
        records = Records(connection(config))
        run = records.last_complete(config.name, FIRST_DAY)
        assert run is not None

        def made(artifact_type: str, by: str) -> Path:
            return next(Path(uri) for uri in records.artifact_uris(run.run, artifact_type) if f"/{by}/" in uri)

        self.settings: TrainerSettings = config.trainer
        self.spec: FeatureSpec = config.feature_spec()
        self.transform = tft.TFTransformOutput(str(made("TransformGraph", "Transform")))
        self.analysis = str(made("Analysis", "Analyzer"))
        self.files = [str(made("Examples", "Transform") / "Split-train" / "*.gz")]

    def model(self, **switches: bool) -> TwoTowerModel:
        """Return an untrained model."""
        settings = self.settings.model_copy(update=switches)
        model = build_model(self.spec, analysis_files.table_rows(self.analysis, self.spec), settings)
        model.compile(optimizer=build_optimizer(settings), jit_compile=settings.jit_compile)
        return model

    def from_files(self, seed: int) -> tf.data.Dataset:
        """Return an epoch as the Trainer reads it."""
        return self.split().batches(seed)

    def split(self, kept: bool = False) -> TrainingExamples:
        """Return the examples as the Trainer has them."""
        masks = masks_of(self.spec, analysis_files.table_rows(self.analysis, self.spec))
        return TrainingExamples(rows_of_files(self.files), self.transform, self.batch, kept, masks=masks)

    def as_tfrs(self, seed: int) -> tf.data.Dataset:
        """Return an epoch, example by example."""
        features = self.transform.transformed_feature_spec()
        records = tf.data.TFRecordDataset(tf.data.Dataset.list_files(self.files, seed=seed), compression_type="GZIP")
        parsed = records.map(lambda record: tf.io.parse_single_example(record, features))
        return parsed.shuffle(WINDOW_EXAMPLES, seed=seed).batch(self.batch, drop_remainder=True)


class Stepping:
    """A model that takes steps.

    Args:
        model: compiled.
        batch: examples of a step.
    """

    def __init__(self, model: TwoTowerModel, batch: int) -> None:
        self._model, self._batch = model, batch
        self._devices = one_device()
        self._step = model.make_train_function()

    def rate(self, feed: Feed, steps: int) -> float:
        """Examples a second, from the first that is read to the end of the last step."""
        self._model.reset_metrics()
        begun = time.perf_counter()
        own = self._devices.feed(OwnBatches(lambda epoch, skip: with_uniform_items(feed(), None)), 0, 0, 1)
        own.take(self._step, steps)
        self._model.mean_loss()  # waits for the last step
        return steps * self._batch / (time.perf_counter() - begun)


def measure(examples: Examples, rounds: int, switches: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Examples a second in each round: by feed, and by switch."""
    in_memory = list(examples.from_files(seed=0))
    steps = len(in_memory)
    stacked = {name: np.stack([batch[name] for batch in in_memory]) for name in in_memory[0]}
    memory = tf.data.Dataset.from_tensor_slices({name: tf.constant(values) for name, values in stacked.items()})
    del in_memory, stacked
    kept = examples.split(kept=True)
    stepping = Stepping(examples.model(), examples.batch)
    feeds: dict[str, tuple[Callable[[int], tf.data.Dataset], int]] = {
        "memory": (lambda seed: memory, steps),
        "files": (examples.from_files, steps),
        "kept": (kept.batches, steps),
        "TFRS": (examples.as_tfrs, TFRS_STEPS),
    }
    switched = {name: Stepping(examples.model(**SWITCHES[name]), examples.batch) for name in ("float32", *switches)}
    rates: dict[str, dict[str, list[float]]] = {"feeds": {name: [] for name in feeds}, "switches": {}}
    rates["switches"] = {name: [] for name in switched}
    for number in range(-1, rounds):  # the first is to warm up
        for name, (feed, of_feed) in feeds.items():
            seed = number + 1
            rate = stepping.rate(partial(feed, seed), of_feed if number >= 0 else TFRS_STEPS)
            if number >= 0:
                rates["feeds"][name].append(rate)
        for name, each in switched.items():
            rate = each.rate(lambda: memory, min(steps, SWITCH_STEPS))
            if number >= 0:
                rates["switches"][name].append(rate)
    return rates


def over(rates: list[float], peer: list[float]) -> float:
    """Return the median of the ratios, round by round."""
    return common.median([rate / other for rate, other in zip(rates, peer, strict=True)])


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--interactions", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--root", type=Path, default=Path("var/benchmarks/training"), help="of the run; kept")
    arguments.add_argument("--batch", type=int, default=BATCH, help="examples of a step")
    others = [name for name in SWITCHES if name != "float32"]
    arguments.add_argument(
        "--switches", nargs="*", choices=others, default=others, help="that are tried beside float32"
    )
    options = arguments.parse_args()
    rates = measure(
        Examples(options.root.absolute(), options.interactions, options.batch), options.rounds, options.switches
    )
    for group, peer in (("feeds", "memory"), ("switches", "float32")):
        rows = [
            [name, f"{common.median(each):,.0f}", f"{over(each, rates[group][peer]):.3f}"]
            for name, each in rates[group].items()
        ]
        common.show(f"{group}, batch {options.batch:,}", ["", "examples/s", f"of {peer}"], rows)
    feeds = rates["feeds"]
    common.conclude(
        options.json,
        {
            "interactions": options.interactions,
            "rounds": options.rounds,
            "batch": options.batch,
            "tfrs_steps": TFRS_STEPS,
        },
        rates,
        {
            f"fed_share_{options.batch}": over(feeds["files"], feeds["memory"]),
            "ratio_tfrs_input": over(feeds["files"], feeds["TFRS"]),
        },
    )


if __name__ == "__main__":
    main()
