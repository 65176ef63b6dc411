"""Continues training from an earlier day's model: moves its rows, by id, to their positions in today's vocabularies.

A newly admitted id starts from the row that it used before: the mask's if the table has one, else that of its hash bucket. Its
optimizer slots start from scratch, because those of a row shared by many ids would slow it down. Expired ids are dropped. All other
weights, the frequency estimator with its step, and a learned temperature are carried over unchanged. Repeat bonuses and history
attention start from scratch if the earlier model did not have them.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.analysis import files
from components.analysis.vocabulary import hash_rows
from components.trainer.settings import TrainerSettings
from components.trainer.state import TrainingState, parts_of, row_key
from schemas.errors import UserError
from schemas.features import FeatureSpec

CHECKPOINT = "checkpoint/state"
SETTINGS = "settings.json"
ROWS_AT_ONCE = 1 << 18
STARTS_ANEW = -1
# Settings that no weight of a tower depends on.
FREE = {
    "column",
    "separator",
    "max_values",
    "last",
    "half_life",
    "encoder",
    "repeats",
    "negatives",
    "events",
    "changes",
}


def shape(spec: FeatureSpec, settings: TrainerSettings) -> str:
    """Return, as JSON, what two models must share for one to continue from the other."""
    tables = {name: {"width": t.width, "hash_buckets": t.hash_buckets} for name, t in spec.tables.items()}
    content: dict[str, Any] = {
        "tables": tables,
        "query": {name: spec.query[name].model_dump(exclude=FREE) for name in spec.query_inputs},
        "item": {name: feature.model_dump(exclude=FREE) for name, feature in spec.item.items()},
        # The order of the first layers' weights.
        "order": {"query": list(spec.query_inputs), "item": list(spec.item)},
        "towers": settings.towers.model_dump(include={"query", "item"}),
        "optimizer": settings.optimizer,
        "learn_temperature": settings.softmax.learn_temperature,
        "frequency": settings.frequency.model_dump(include={"buckets", "hashes"}) | {"seed": settings.seed},
    }
    return json.dumps(content, sort_keys=True)


def save(state: TrainingState, model_shape: str, analysis: str, folder: str) -> None:
    """Write the input of `restore`.

    Args:
        state: the trained model's state.
        model_shape: see `shape`.
        analysis: the folder of the analysis that the model was trained with.
        folder: destination.
    """
    state.checkpoint.write(os.path.join(folder, CHECKPOINT))
    io_utils.write_string_file(os.path.join(folder, SETTINGS), model_shape)
    for name in fileio.listdir(analysis):
        io_utils.copy_file(os.path.join(analysis, name), os.path.join(folder, name), overwrite=True)


def restore(state: TrainingState, spec: FeatureSpec, model_shape: str, analysis: str, folder: str) -> None:
    """Move an earlier model's state into a new one.

    Args:
        state: the state of an untrained model.
        spec: names the tables.
        model_shape: see `shape`.
        analysis: the folder of today's analysis.
        folder: the folder that `save` wrote.

    Raises:
        UserError: the earlier model has another shape; the message names the differences.
    """
    _check_shape(model_shape, io_utils.read_string_file(os.path.join(folder, SETTINGS)))
    path = os.path.join(folder, CHECKPOINT)
    reader = tf.train.load_checkpoint(path)
    state.fixed(reader).read(path).assert_existing_objects_matched().expect_partial()
    for table, variables in state.rows.items():
        before, after = files.read_vocabulary(folder, table), files.read_vocabulary(analysis, table)
        buckets, has_mask = spec.tables[table].hash_buckets, table in spec.masked_tables
        for position, variable in enumerate(variables):
            earlier = reader.get_tensor(row_key(table, position))
            had_mask = len(earlier) > len(before) + buckets
            sources = moved_rows(before, after, buckets, had_mask, has_mask)
            if position > 0:
                sources[np.flatnonzero(~after.index.isin(before.index))] = STARTS_ANEW
            _fill(parts_of(variable), earlier, sources)


def _fill(shards: Sequence[tf.Variable], earlier: NDArray[Any], sources: NDArray[np.int64]) -> None:
    """Copy rows of an earlier table into a new one, in portions, so that no third table is in memory."""
    strategy = tf.distribute.get_strategy()
    first = 0
    for shard in shards:
        for begin in range(0, shard.shape[0], ROWS_AT_ONCE):
            rows = np.arange(begin, min(begin + ROWS_AT_ONCE, shard.shape[0]))
            rows = rows[sources[first + rows] != STARTS_ANEW]
            written = tf.IndexedSlices(tf.constant(earlier[sources[first + rows]]), tf.constant(rows))
            strategy.extended.update(shard, lambda variable, new: variable.scatter_update(new), args=(written,))
        first += shard.shape[0]


def moved_rows(
    before: pd.DataFrame, after: pd.DataFrame, hash_buckets: int, had_mask: bool = False, has_mask: bool = False
) -> NDArray[np.int64]:
    """Return the earlier row that each row of a table starts from.

    Args:
        before: the earlier vocabulary, in the order of its rows; the rows of hash buckets follow, then that of the mask.
        after: the new vocabulary.
        hash_buckets: their number in both tables.
        had_mask: whether the earlier table had a mask.
        has_mask: whether the new table has one.

    Returns:
        [rows of the new table] int64 rows of the earlier one; STARTS_ANEW for a new mask, which has none.
    """
    rows = before.index.get_indexer(after.index).astype(np.int64)
    is_new = rows < 0
    mask = len(before) + hash_buckets
    rows[is_new] = mask if had_mask else len(before) + hash_rows(after.index[is_new].tolist(), hash_buckets)
    of_mask = [mask if had_mask else STARTS_ANEW] if has_mask else []
    return np.concatenate([rows, len(before) + np.arange(hash_buckets), np.array(of_mask, np.int64)])


def _check_shape(now: str, before: str) -> None:
    expected, received = json.loads(before), json.loads(now)
    faults = list(_differences("", expected, received))
    if faults:
        raise UserError(
            "Training cannot continue from the last blessed model, which has another shape:\n  "
            + "\n  ".join(faults)
            + "\nTake the change back, or start anew: trainer.on_other_shape=restart."
        )


def _differences(place: str, before: Any, now: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            fault
            for key in sorted({*before, *now})
            for fault in _differences(f"{place}.{key}" if place else key, before.get(key), now.get(key))
        ]
    return [] if before == now else [f"{place}: {json.dumps(before)} before, {json.dumps(now)} now"]
