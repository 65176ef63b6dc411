"""The benchmark of new items: what is kept from training, what is asked, and what is said of ranks that are known."""

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from benchmarks.cold_items import AS_NEW, EVERYTHING, REMOVED, Figure, asked_as_new, headline, is_cold, without_cold
from pipeline import config as configuration
from schemas.features import FeatureSpec


@pytest.fixture(scope="module")
def spec() -> FeatureSpec:
    folder = Path(configuration.__file__).parent / "configs" / "movielens.yaml"
    return configuration.load(folder, []).feature_spec()


def test_a_tenth_of_the_items_is_cold() -> None:
    share = np.mean([is_cold(b"%d" % item) for item in range(1, 1683)])
    assert share == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 1682))


def test_nobody_has_taken_a_cold_item_before_the_day_from_which_it_is_judged(tmp_path: Path) -> None:
    source, target = tmp_path / "logs", tmp_path / "removed"
    items = list(range(1, 301))
    for day in ("1998-04-08", "1998-04-09"):
        (source / day).mkdir(parents=True)
        parquet.write_table(pa.table({"movie_id": items, "user_id": [7] * 300}), source / day / "part-0.parquet")
        (source / day / "_SUCCESS").touch()
    (target / "stale").mkdir(parents=True)
    cold = [item for item in items if is_cold(str(item).encode())]
    assert without_cold(source, target, until=date(1998, 4, 9)) == len(cold) > 0
    before, after = (parquet.read_table(target / day / "part-0.parquet") for day in ("1998-04-08", "1998-04-09"))
    assert before.column("movie_id").to_pylist() == [item for item in items if item not in cold]
    assert after.column("movie_id").to_pylist() == items
    assert (target / "1998-04-08" / "_SUCCESS").exists()
    assert not (target / "stale").exists()
    assert parquet.read_table(source / "1998-04-08" / "part-0.parquet").num_rows == 300


def test_only_cold_items_are_asked_as_new_and_by_nothing_but_another_id(spec: FeatureSpec) -> None:
    ids = [b"%d" % item for item in range(1, 60)]
    catalogue = []
    for item in ids:
        example = tf.train.Example()
        for name, value in {"candidate_id": item, "movie_id": item, "genres": b"Drama"}.items():
            example.features.feature[name].bytes_list.value.append(value)
        catalogue.append(example.SerializeToString(deterministic=True))
    for item, before, after in zip(ids, catalogue, asked_as_new(catalogue, ids, spec), strict=True):
        features = tf.train.Example.FromString(after).features.feature
        assert features["candidate_id"].bytes_list.value[0] == item
        assert features["genres"].bytes_list.value[0] == b"Drama"
        assert (features["movie_id"].bytes_list.value[0] == item) == (not is_cold(item))
        assert is_cold(item) or after == before


def test_the_headline_has_each_figure_by_its_name() -> None:
    def of(items: str, model: str, value: float) -> Figure:
        return Figure(items, model, 1, {50: (value, 0.0, 1.0)}, 1.0)

    found = [
        of("cold", REMOVED, 0.1), of("warm", REMOVED, 0.2), of("cold", EVERYTHING, 0.3),
        of("warm", EVERYTHING, 0.4), of("cold", AS_NEW, 0.5), of("warm", AS_NEW, 0.6),
    ]  # fmt: skip
    assert headline(found) == {
        "cold_recall_at_50": 0.1,
        "cold_recall_at_50_before": 0.3,
        "warm_recall_at_50": 0.2,
        "warm_recall_at_50_before": 0.4,
        "as_new_recall_at_50": 0.5,
    }
