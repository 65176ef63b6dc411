"""The paper's simulation of frequency estimation (section 6.1), and what it leaves out: duplicates, and known periods.

Ours is Algorithm 2 or 3 with the faults of the printed version mended; the printed version (start 100, last hit 0, a rate of alpha
alone) runs beside it, and so do exact counting and a count-min sketch with decay of as many cells. The simulation draws without
replacement, so the probability of a hit, which the algorithms estimate, and the expected count are the same; where items share a
bucket they are not, as hits of both merge in the one and add up in the other. Both are shown.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from benchmarks import common
from components.trainer.frequency import Counting, FrequencyEstimator

mpl.use("Agg")
import matplotlib.pyplot as plt

ITEMS, BATCH, STEPS, CHUNK = 1000, 128, 20_000, 500
CELLS = 5000
SEEDS = 10
SHOWN = (0.25, 0.5, 0.525, 0.6, 0.75, 1.0)  # of the steps; the distribution flips after half of them
ALPHAS = (0.001, 0.01, 0.1)
HASHES = (1, 2, 4)
ALPHA = 0.01
ZIPF_ITEMS, ZIPF_BATCH, ZIPF_STEPS = 100_000, 8192, 3000
PERIODS = (5, 10)

Shares = NDArray[np.float64]
Estimate = Callable[[], Shares]


class Ours:
    """The project's estimator."""

    def __init__(self, hashes: int, alpha: float, seed: int, counting: Counting = "batches") -> None:
        self._estimator = FrequencyEstimator(CELLS // hashes, hashes, alpha, counting=counting, seed=seed)
        self._everything = tf.range(ITEMS, dtype=tf.int64)
        self._update = tf.function(self._update_all)

    def count(self, batches: NDArray[np.int64]) -> None:
        """Draw [steps, BATCH] items, in order."""
        self._update(tf.constant(batches))

    def estimate(self) -> Shares:
        """[ITEMS] expected counts in a batch."""
        return self._estimator.estimate(self._everything).numpy().astype(np.float64)

    def _update_all(self, batches: tf.Tensor) -> None:
        for step in tf.range(tf.shape(batches)[0]):
            self._estimator.update(batches[step])


class Printed:
    """Algorithms 2 and 3 as the paper prints them."""

    def __init__(self, hashes: int, alpha: float, seed: int) -> None:
        random = np.random.default_rng([seed, hashes])
        tables = np.arange(hashes)[:, np.newaxis] * (CELLS // hashes)
        self._rows = random.integers(0, CELLS // hashes, (hashes, ITEMS)) + tables
        self._alpha, self._step = alpha, 0
        self._last, self._gap = np.zeros(CELLS), np.full(CELLS, 100.0)

    def count(self, batches: NDArray[np.int64]) -> None:
        """Draw [steps, BATCH] items, in order."""
        for batch in batches:
            self._step += 1
            rows = np.unique(self._rows[:, batch])
            self._gap[rows] += self._alpha * (self._step - self._last[rows] - self._gap[rows])
            self._last[rows] = self._step

    def estimate(self) -> Shares:
        """[ITEMS] expected counts in a batch."""
        return 1.0 / self._gap[self._rows].max(axis=0)


class CountMin:
    """A count-min sketch (Cormode and Muthukrishnan, 2005) whose counts decay by alpha at every step."""

    def __init__(self, hashes: int, alpha: float, seed: int) -> None:
        random = np.random.default_rng([seed, hashes, 1])
        tables = np.arange(hashes)[:, np.newaxis] * (CELLS // hashes)
        self._rows = random.integers(0, CELLS // hashes, (hashes, ITEMS)) + tables
        self._alpha, self._step = alpha, 0
        self._counts = np.zeros(CELLS)

    def count(self, batches: NDArray[np.int64]) -> None:
        """Draw [steps, BATCH] items, in order."""
        for batch in batches:
            self._step += 1
            self._counts *= 1.0 - self._alpha
            self._counts += np.bincount(self._rows[:, batch].ravel(), minlength=CELLS)

    def estimate(self) -> Shares:
        """[ITEMS] expected counts in a batch."""
        total_weight = (1.0 - (1.0 - self._alpha) ** self._step) / self._alpha
        return self._counts[self._rows].min(axis=0) / total_weight


class Exact:
    """A count of every item since the beginning."""

    def __init__(self) -> None:
        self._counts, self._step = np.zeros(ITEMS), 0

    def count(self, batches: NDArray[np.int64]) -> None:
        """Draw [steps, BATCH] items, in order."""
        self._step += len(batches)
        self._counts += np.bincount(batches.ravel(), minlength=ITEMS)

    def estimate(self) -> Shares:
        """[ITEMS] expected counts in a batch."""
        return self._counts / self._step


def estimators(seed: int) -> dict[str, Any]:
    """Everything that the simulation compares, by name."""
    found: dict[str, Any] = {f"ours, alpha {alpha}, 1 x {CELLS}": Ours(1, alpha, seed) for alpha in ALPHAS}
    found |= {f"ours, alpha {ALPHA}, {m} x {CELLS // m}": Ours(m, ALPHA, seed) for m in HASHES[1:]}
    found |= {
        f"expected count, alpha {ALPHA}, {m} x {CELLS // m}": Ours(m, ALPHA, seed, "occurrences")
        for m in (HASHES[0], HASHES[-1])
    }
    found |= {f"as printed, alpha {alpha}, 1 x {CELLS}": Printed(1, alpha, seed) for alpha in ALPHAS}
    found |= {f"as printed, alpha {ALPHA}, {m} x {CELLS // m}": Printed(m, ALPHA, seed) for m in HASHES[1:]}
    found |= {f"count-min, decay {ALPHA}, {m} x {CELLS // m}": CountMin(m, ALPHA, seed) for m in (1, 4)}
    return found | {"exact count": Exact()}


def stream(seed: int, steps: int) -> Iterator[tuple[NDArray[np.int64], Shares]]:
    """Yield chunks of batches [CHUNK, BATCH], drawn without replacement, with the shares that they are drawn by."""
    random = np.random.default_rng(seed)
    for start in range(0, steps, CHUNK):
        weights = np.arange(1, ITEMS + 1, dtype=float) if start < steps // 2 else np.arange(ITEMS, 0, -1, dtype=float)
        shares = weights**2 / np.sum(weights**2)
        # The largest of log share + Gumbel noise are a draw without replacement.
        keys = np.log(shares) + random.gumbel(size=(CHUNK, ITEMS))
        yield np.argpartition(-keys, BATCH, axis=1)[:, :BATCH].astype(np.int64), shares


def simulate(seed: int, steps: int) -> dict[str, list[float]]:
    """Return the error of every estimator after every chunk: sum |p_hat - p| / (2 * BATCH), p = BATCH * share."""
    compared = estimators(seed)
    errors: dict[str, list[float]] = {name: [] for name in compared}
    for batches, shares in stream(seed, steps):
        for name, estimator in compared.items():
            estimator.count(batches)
            errors[name].append(float(np.abs(estimator.estimate() - BATCH * shares).sum() / (2 * BATCH)))
    return errors


def zipf(steps: int) -> list[dict[str, float]]:
    """Compare estimates by popularity decile (a tenth of the stream each, head first), with head items many times in a batch."""
    shares = 1.0 / np.arange(1, ZIPF_ITEMS + 1)
    shares /= shares.sum()
    random = np.random.default_rng(0)
    by_count, by_hit = (FrequencyEstimator(1 << 20, 4, counting=counting) for counting in ("occurrences", "batches"))
    updates = [tf.function(by_count.update), tf.function(by_hit.update)]
    for _ in range(steps):
        batch = tf.constant(random.choice(ZIPF_ITEMS, ZIPF_BATCH, p=shares))
        for update in updates:
            update(batch)
    everything = tf.range(ZIPF_ITEMS, dtype=tf.int64)
    estimates = {"ours": by_count.estimate(everything).numpy(), "hit": by_hit.estimate(everything).numpy()}
    decile = np.minimum((np.cumsum(shares) - shares / 2) * 10, 9).astype(int)
    rows = []
    for number in range(10):
        of_decile = decile == number
        expected = float(ZIPF_BATCH * shares[of_decile].mean())
        found = {name: float(values[of_decile].mean()) for name, values in estimates.items()}
        error = found["ours"] / expected - 1.0
        rows.append({"items": int(of_decile.sum()), "expected": expected, **found, "relative_error": error})
    return rows


def periods() -> list[dict[str, float]]:
    """Items that occur at every 5th and every 10th step."""
    estimator = FrequencyEstimator(1 << 16, 4)
    update = tf.function(estimator.update, input_signature=[tf.TensorSpec([None], tf.int64)])
    for step in range(1, 5001):
        update(tf.constant([0, *(period for period in PERIODS if step % period == 0)], tf.int64))
    found = estimator.estimate(tf.constant(PERIODS, tf.int64)).numpy()
    return [
        {"period": period, "expected": 1 / period, "ours": float(p)} for period, p in zip(PERIODS, found, strict=True)
    ]


def draw(path: Path, mean: dict[str, NDArray[np.float64]], steps: int) -> None:
    """Draw the paper's two figures: the error over the steps by alpha, and by the number of hashes."""
    at = np.arange(CHUNK, steps + 1, CHUNK)
    panels = {
        "One hash, by alpha": [
            name for name in mean if f"1 x {CELLS}" in name and name.startswith(("ours", "as printed"))
        ],
        f"Alpha {ALPHA}, by hashes": [
            name
            for name in mean
            if (f"alpha {ALPHA}," in name or "count-min" in name or name == "exact count") and "expected" not in name
        ],
    }
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.8), sharey=True, layout="constrained")
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        colours: dict[str, str] = {}
        for name in names:
            kind, _, variant = name.partition(", ")
            colour = colours.setdefault(variant, f"C{len(colours)}")
            style = {"ours": "-", "as printed": "--", "count-min": ":"}.get(kind, "-.")
            axis.plot(at, mean[name], style, color=colour, label=name)
        axis.axvline(steps // 2, color="grey", linewidth=0.8)
        axis.annotate(
            "the distribution flips", (steps // 2, 0.01), xytext=(4, 0), textcoords="offset points", color="grey"
        )
        axis.set(title=title, xlabel="step", ylim=(0, 0.75))
        axis.legend(fontsize=7.5, loc="upper left")
    axes[0].set_ylabel(r"$\sum_i |\hat p_i - p_i| \,/\, 2B$")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the command line."""
    arguments = common.parser(__doc__ or "")
    arguments.add_argument("--plot", type=Path, help="where the two figures are drawn (PNG)")
    arguments.add_argument("--seeds", type=int, default=SEEDS, help="simulations")
    arguments.add_argument("--steps", type=int, default=STEPS, help=f"of each, a multiple of {2 * CHUNK}")
    arguments.add_argument("--zipf-steps", type=int, default=ZIPF_STEPS, help="of the stream by Zipf's law")
    options = arguments.parse_args()
    steps = options.steps
    if steps <= 0 or steps % (2 * CHUNK):
        arguments.error(f"--steps: expected a multiple of {2 * CHUNK}, received {steps}")
    errors: list[dict[str, list[float]]] = []
    for seed in range(options.seeds):
        print(f"simulation {seed + 1} of {options.seeds} ...", flush=True)
        errors.append(simulate(seed, steps))
    mean = {name: np.mean([found[name] for found in errors], axis=0) for name in errors[0]}
    shown = [round(share * steps) // CHUNK * CHUNK or CHUNK for share in SHOWN]
    rows = [[name, *(f"{values[step // CHUNK - 1]:.3f}" for step in shown)] for name, values in mean.items()]
    common.show(f"Error, mean of {options.seeds} seeds", ["", *(f"step {step:,}" for step in shown)], rows)
    print("a stream by Zipf's law ...", flush=True)
    deciles = zipf(options.zipf_steps)
    common.show(
        f"Zipf's law, {ZIPF_ITEMS:,} items, batches of {ZIPF_BATCH}, {options.zipf_steps:,} steps, by tenth of the stream",
        ["items", "expected in a batch", "ours", "error", "hits counted once a batch"],
        [
            [
                f"{d['items']:,}",
                f"{d['expected']:.4g}",
                f"{d['ours']:.4g}",
                f"{d['relative_error']:+.2%}",
                f"{d['hit']:.4g}",
            ]
            for d in deciles
        ],
    )
    periodic = periods()
    common.show(
        "Periodic items",
        ["period", "expected", "ours"],
        [[str(p["period"]), f"{p['expected']:.4f}", f"{p['ours']:.4f}"] for p in periodic],
    )
    if options.plot:
        draw(options.plot, mean, steps)
    at_flip = steps // 2 // CHUNK - 1
    common.conclude(
        options.json,
        {"items": ITEMS, "batch": BATCH, "steps": steps, "cells": CELLS, "seeds": options.seeds},
        {"steps": list(range(CHUNK, steps + 1, CHUNK)), "errors": errors, "zipf": deciles, "periods": periodic},
        {
            "error_10k_m1": float(mean[f"ours, alpha {ALPHA}, 1 x {CELLS}"][at_flip]),
            "error_10k_m4": float(mean[f"ours, alpha {ALPHA}, 4 x {CELLS // 4}"][at_flip]),
            # The head: deciles whose items are expected at least once a batch.
            "zipf_head_worst": max(abs(d["relative_error"]) for d in deciles if d["expected"] >= 1.0),
        },
    )


if __name__ == "__main__":
    main()
