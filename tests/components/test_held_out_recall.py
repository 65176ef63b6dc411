"""What early stopping measures: raw held-out interactions through Transform's graph, by their places in the whole catalogue."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from components.trainer.inputs import catalogue_inputs
from components.trainer.model import build_model
from components.trainer.settings import EarlyStoppingSettings
from components.trainer.stopping import read_held_out
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec
from tests.components.exported import export, trainer_settings

SPEC = FeatureSpec.model_validate(
    {
        "interactions": {"user": "user", "item": "item", "time": "at"},
        "catalogue": {"item": "item"},
        "tables": {"user": {"width": 4, "hash_buckets": 50}, "item": {"width": 4, "hash_buckets": 99}},
        "query": {"user": {"kind": "id", "table": "user"}},
        "item": {"item": {"kind": "id", "table": "item"}},
    }
)
TOWERS = {"query": [4], "item": [4]}
ITEMS, K = 12, 4


def written(path: Path, examples: list[dict[str, Any]]) -> list[str]:
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for each in examples:
            example = tf.train.Example()
            for name, value in each.items():
                values = example.features.feature[name]
                if isinstance(value, bytes):
                    values.bytes_list.value.append(value)
                else:
                    values.float_list.value.append(value)
            writer.write(example.SerializeToString())
    return [str(path)]


def test_held_out_interactions_are_measured_as_they_will_be_served(tmp_path: Path) -> None:
    export(SPEC, TOWERS, tmp_path)
    output = tft.TFTransformOutput(str(tmp_path / "transform"))
    items = [b"i%d" % number for number in range(ITEMS)]
    catalogue = catalogue_inputs(
        written(tmp_path / "catalogue.gz", [{CANDIDATE_ID: item, "item": item} for item in items]), SPEC, output
    )
    # Twenty count; those without a reward, and that with an item which may not be retrieved, do not.
    pairs = [(b"u%d" % number, items[number * 5 % ITEMS]) for number in range(20)]
    rows = [{"user": user, CANDIDATE_ID: item, REWARD: 1.0} for user, item in pairs]
    aside = [{"user": b"v", CANDIDATE_ID: items[0], REWARD: 0.0}, {"user": b"v", CANDIDATE_ID: b"gone", REWARD: 1.0}]
    settings = EarlyStoppingSettings(recall_at=K)
    files = written(tmp_path / "held_out.gz", [*aside, *rows])
    held_out = read_held_out(files, SPEC, output, None, catalogue, settings)
    model = build_model(
        SPEC, {name: table.hash_buckets for name, table in SPEC.tables.items()}, trainer_settings(TOWERS, 0)
    )

    def bucket(ids: list[bytes], buckets: int) -> tf.Tensor:
        return tf.strings.to_hash_bucket_fast(tf.constant(ids), buckets)

    queries = model.query_tower({"user": bucket([user for user, _ in pairs], 50)}).numpy()
    scores = queries @ model.item_tower({"item": bucket(items, 99)}).numpy().T
    found = [np.sum(row >= row[items.index(item)]) <= K for row, (_, item) in zip(scores, pairs, strict=True)]
    assert 0 < sum(found) < 20
    assert held_out.recall(model) == pytest.approx(sum(found) / 20)
    with pytest.raises(UserError, match="expected held-out interactions with items of the catalogue, found none"):
        read_held_out(written(tmp_path / "none.gz", aside), SPEC, output, None, catalogue, settings)
