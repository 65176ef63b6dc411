"""The two-tower model."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from components.trainer.settings import TrainerSettings
from components.trainer.towers import Tower, build_tables
from schemas.features import CANDIDATE_ID, REWARD, FeatureSpec


class TwoTowerModel(tfrs.Model):
    """Both towers and the retrieval loss that trains them.

    Args:
        query_tower: model inputs to query embeddings.
        item_tower: model inputs to candidate embeddings.
        loss: called as TFRS's Retrieval task: query and candidate embeddings ([batch, width]), `sample_weight`
            ([batch] rewards) and `candidate_ids` ([batch] int64), giving a scalar.
    """

    def __init__(self, query_tower: Tower, item_tower: Tower, loss: Any) -> None:
        super().__init__()
        self.query_tower = query_tower
        self.item_tower = item_tower
        self.retrieval_loss = loss

    def compute_loss(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The loss of a batch of model inputs."""
        return self.retrieval_loss(
            self.query_tower(inputs, training=training),
            self.item_tower(inputs, training=training),
            sample_weight=inputs[REWARD],
            candidate_ids=inputs[CANDIDATE_ID],
        )


def build_model(spec: FeatureSpec, rows: Mapping[str, int], settings: TrainerSettings) -> TwoTowerModel:
    """An untrained model.

    Args:
        spec: which feature feeds which tower.
        rows: the number of rows of every embedding table.
        settings: the towers' widths, the temperature and the seed.
    """
    tables = build_tables(rows, {name: table.width for name, table in spec.tables.items()}, settings.seed)
    query_tower = Tower(spec.query, tables, settings.towers.query, settings.seed + 1, "query_tower")
    item_tower = Tower(spec.item, tables, settings.towers.item, settings.seed + 2, "item_tower")
    loss = tfrs.tasks.Retrieval(temperature=settings.temperature, remove_accidental_hits=True)
    return TwoTowerModel(query_tower, item_tower, loss)
