"""Served queries against what was trained on, by TFDV."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tensorflow as tf

from components.example_gen.settings import ExampleGenSettings
from components.trainer.settings import TrainerSettings
from ndr_client import example
from pipeline.config import Config
from pipeline.monitoring import requests, skew, skew_file
from pipeline.monitoring.requests import Query
from schemas.errors import UserError
from tests.work import Work

FEATURES = """
interactions: {user: listener, item: track, time: at}
catalogue: {item: track}
tables: {track: {width: 2, hash_buckets: 4}, device: {width: 2, hash_buckets: 4}}
query:
  heard: {kind: history, table: track, last: 3}
  device: {kind: id, table: device}
  age: {kind: number}
item:
  track: {kind: id, table: track}
"""


def queries(phones: int, cars: int, young: int, old: int, heard: bool = True) -> list[Query]:
    """Numbers by device, and by age, 20 or 80; both have the same sum."""
    devices, ages = ["phone"] * phones + ["car"] * cars, [20.0] * young + [80.0] * old
    assert len(devices) == len(ages)
    return [
        Query(example({"device": device, "age": age, "track": "t", **({"heard": ["a", "b"]} if heard else {})}), 10)
        for device, age in zip(devices, ages, strict=True)
    ]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A version that was pushed, and the statistics of its run: as many phones as cars, as many young as old."""
    work = Work(tmp_path / "var")
    (tmp_path / "features.yaml").write_text(FEATURES)
    data = ExampleGenSettings.model_validate(
        {name: {"path": name, "format": "csv"} for name in ("interactions", "catalogue")}
    )
    trainer = TrainerSettings.model_validate({"towers": {"query": [2], "item": [2]}})
    config = work.places.model_copy(update={"dataset": tmp_path, "data": data, "trainer": trainer})
    day = work.day("2026-11-22", blessed=True)
    artifact = work.step(day.run, skew.STATISTICS_NODE, "statistics", "ExampleStatistics")
    split = Path(artifact.uri) / "Split-train"
    split.mkdir()
    trained = skew.statistics(queries(50, 50, 50, 50), config.feature_spec())
    (split / skew.STATISTICS_FILE).write_bytes(trained.SerializeToString())
    work.push(day)
    return config


def limited(config: Config, **limits: float) -> Config:
    return config.model_copy(update={"validation": config.validation.model_copy(update={"skew": limits})})


def test_distances_are_those_of_the_drift_check(config: Config) -> None:
    # Phones go from a half to nine tenths: the largest change of a share is 0.4. Equal halves that become 9 to 1 are 0.15 apart in
    # Jensen-Shannon divergence: (.5 log2(.5 / .7) + .5 log2(.5 / .3) + .9 log2(.9 / .7) + .1 log2(.1 / .3)) / 2 = 0.147.
    measured = skew.measure(limited(config, device=0.3, age=0.2), queries(90, 10, 90, 10))
    assert measured.version == 20261122001 and measured.queries == 100
    assert measured.features["device"].distance == pytest.approx(0.4)
    assert measured.features["age"].distance == pytest.approx(0.147, abs=0.002)
    assert measured.features["heard"].distance == pytest.approx(0.0)
    assert set(measured.features) == {"heard", "device", "age"}  # of the query, not of the item
    assert measured.faults() == ["device: expected a distance of at most 0.3, found 0.4000."]
    assert [name for name, _ in measured.furthest_first()] == ["device", "age", "heard"]


def test_the_same_traffic_is_no_distance_away(config: Config) -> None:
    measured = skew.measure(limited(config, device=0.01, age=0.01, heard=0.01), queries(50, 50, 50, 50))
    assert {each.distance for each in measured.features.values()} == {0.0} and measured.faults() == []


def test_a_feature_that_is_served_without_values_is_beyond_any_limit(config: Config) -> None:
    measured = skew.measure(limited(config, heard=0.9), queries(50, 50, 50, 50, heard=False))
    assert measured.features["heard"] == skew_file.FeatureSkew(None, 0.9, 1.0, 0.0, 2.0, 0.0)
    assert measured.faults() == [
        "heard: expected values on both sides, found them in 100.0% of the training examples and 0.0% of the served queries."
    ]


def test_histories_that_are_longer_when_served_are_reported(config: Config) -> None:
    # In training two items each. Served: five, more than twice as many.
    longer = [Query(example({"device": "phone", "age": 20.0, "track": "t", "heard": list("abcde")}), 10)] * 4
    measured = skew.measure(config, longer)
    heard = measured.features["heard"]
    assert (heard.trained_items, heard.served_items, measured.features["device"].trained_items) == (2.0, 5.0, None)
    (caution,) = measured.cautions()
    assert caution.startswith("heard: in training histories have 2.0 items on average, served ones 5.0.")
    assert skew.measure(config, queries(50, 50, 50, 50)).cautions() == []


def test_the_measurement_is_kept_for_the_report(config: Config) -> None:
    with pytest.raises(UserError, match="ndr skew"):
        skew_file.read(config.root)
    measured = skew.measure(config, queries(60, 40, 50, 50))
    path = skew.write(config, measured)
    assert skew_file.read(config.root) == measured
    path.write_text(json.dumps({"version": 1}))
    with pytest.raises(UserError, match="expected the output of ndr skew"):
        skew_file.read(config.root)


def log(folder: Path, name: str, served_at: datetime, *asked: Query) -> Path:
    """A file as the server leaves it; see `serving.request_log`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for query in asked:
            kept = tf.train.Example.FromString(query.example)
            kept.features.feature["served_at"].int64_list.value.append(int(served_at.timestamp() * 1e6))
            kept.features.feature["served_items"].bytes_list.value.append(b"t")
            if query.k:
                kept.features.feature["k"].int64_list.value.append(query.k)
            writer.write(kept.SerializeToString())
    return path


def test_queries_are_read_as_they_were_asked(tmp_path: Path) -> None:
    now, folder = datetime.now(UTC), tmp_path / "requests"
    old, new = Query(example({"device": "car"}), None), Query(example({"device": "phone", "age": 20}), 7)
    log(folder, "requests-1.tfrecord.gz", now - timedelta(hours=2), old)
    log(folder, "requests-2.tfrecord.gz", now, new)
    assert requests.read(folder, now - timedelta(hours=1)) == [new]
    assert requests.read(folder, now - timedelta(hours=3)) == [old, new]
    with pytest.raises(UserError, match="found none"):
        requests.read(folder, now + timedelta(hours=1))
    damaged = log(folder, "requests-3.tfrecord.gz", now, new)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"requests-3.tfrecord.gz: expected a server's log of queries"):
        requests.read(folder, now - timedelta(hours=1))
