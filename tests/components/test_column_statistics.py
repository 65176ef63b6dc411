"""Statistics by columns are those that TFDV's own Beam pipeline makes of the same examples."""

from copy import deepcopy
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.statistics_gen import combining
from components.statistics_gen.combining import Statistics

ROWS = 600
OPTIONS = tfdv.StatsOptions(num_top_values=5, num_rank_histogram_buckets=150)  # fewer than values, so that ties are cut


def batches() -> list[pa.RecordBatch]:
    """Examples with frequent and rare texts, ties, what is not UTF-8, missing values, lists, numbers, and no values at all."""
    chance = np.random.default_rng(0)
    users = [[b"u%d" % number] for number in chance.integers(400, size=ROWS)]
    tags = [
        None if number == 0 else [b"t%d" % each for each in range(number)] for number in chance.integers(4, size=ROWS)
    ]
    odd = [[b"\xff"] if number < 3 else [] for number in range(ROWS)]
    rows = pa.RecordBatch.from_pydict(
        {
            "user": pa.array(users, pa.large_list(pa.large_binary())),
            "tags": pa.array(tags, pa.large_list(pa.large_binary())),
            "odd": pa.array(odd, pa.large_list(pa.large_binary())),
            "seconds": pa.array([[value] for value in chance.normal(size=ROWS)], pa.large_list(pa.float32())),
            "timestamp": pa.array([[value] for value in range(ROWS)], pa.large_list(pa.int64())),
            "nothing": pa.nulls(ROWS),
        }
    )
    return [rows.slice(0, 250), rows.slice(250, 1), rows.slice(251)]


def by_feature(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> dict[str, str]:
    (dataset,) = statistics.datasets
    for feature in dataset.features:
        if feature.HasField("num_stats"):  # sums of floats, whose last bit depends on their order
            feature.num_stats.mean = round(feature.num_stats.mean, 9)
            feature.num_stats.std_dev = round(feature.num_stats.std_dev, 9)
    features = {feature.path.step[0]: str(feature) for feature in dataset.features}
    assert len(features) == len(dataset.features)
    return {**features, "": f"{dataset.num_examples} examples"}


@pytest.mark.parametrize("waiting", [1, combining.WAITING_ROWS])
def test_statistics_equal_tfdvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
    monkeypatch.setattr(combining, "WAITING_ROWS", waiting)
    path = str(tmp_path / "stats.pb")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create(batches())
            | tfdv.GenerateStatistics(OPTIONS)
            | tfdv.WriteStatisticsToBinaryFile(path)
        )
    expected = by_feature(tfdv.load_stats_binary(path))
    combine = Statistics(OPTIONS)
    first, second = (
        combine.add_input(combine.create_accumulator(), combine.of_file(path, of_file))
        for path, of_file in (("0", batches()[:2]), ("1", batches()[2:]))
    )
    merged = combine.merge_accumulators([first, combine.compact(second)])
    assert by_feature(combine.extract_output(merged)) == expected


def test_statistics_do_not_depend_on_the_order_in_which_an_engine_merges() -> None:
    # TFDV's quantiles do: merged in the order of arrival, these orders gave three histograms. Spark 3.5 has an order of its own.
    chance = np.random.default_rng(0)
    files = [
        pa.RecordBatch.from_pydict({"number": pa.array([[value] for value in numbers], pa.large_list(pa.float32()))})
        for numbers in chance.normal(size=(4, 5000))
    ]
    combine = Statistics(tfdv.StatsOptions())
    made = [combine.of_file(str(path), [file]) for path, file in enumerate(files)]

    def merged(order: list[list[int]]) -> bytes:
        states = []
        for group in order:
            state = combine.create_accumulator()
            for path in group:
                state = combine.add_input(state, deepcopy(made[path]))
            states.append(combine.compact(state))
        statistics: bytes = combine.extract_output(combine.merge_accumulators(states)).SerializeToString(
            deterministic=True
        )
        return statistics

    assert merged([[0, 1, 2, 3]]) == merged([[3, 1], [2, 0]]) == merged([[2], [3], [1], [0]])


def test_nothing_has_the_statistics_of_nothing() -> None:
    combine = Statistics(OPTIONS)
    assert by_feature(combine.extract_output(combine.create_accumulator())) == {"": "0 examples"}
