"""Exports each tower as a SavedModel that takes raw features: Transform's graph and the tower's layers in one."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePath

import tensorflow as tf

from components.trainer.repeats import RepeatBonus
from components.trainer.towers import Tower
from components.trainer.warmup import write_warmup
from components.transform import raw_features
from components.transform.missing import NO_ITEM
from components.transform.model_inputs import ModelInputs
from components.transform.preprocessing import last_values
from ndr_client.served import BONUSES, EMBEDDING, EXAMPLES_SIGNATURE, QUERY_TOWER, REPEATED, TENSORS_SIGNATURE
from schemas.errors import UserError
from schemas.features import Feature

JUDGED = "judged"
KEPT_TOWERS, KEPT_BYTES = 6, 32 << 20  # both towers of the day's model, of the one to beat, and of the one before that


class ServedTower(tf.Module):
    """A tower with the transform that it was trained with.

    Two signatures, both returning `embedding`, float32 [batch, width], L2-normalised. With learned repeat bonuses
    (`components.trainer.repeats`), both also return `repeated_items`, string [batch, entries], the ids with a bonus, each once,
    empty for none, and `repeated_bonuses`, float32 [batch, entries].

    - `serving_default`: a named tensor for each raw feature, [batch] or, if it may have several values,
      [batch, values]; an empty text and a NaN stand for a missing value.
    - `serving_examples`: `examples`, [batch] serialised tf.Examples.
    """

    def __init__(
        self,
        tower: Tower,
        features: Mapping[str, Feature],
        transform: ModelInputs,
        repeat_bonus: RepeatBonus | None = None,
    ) -> None:
        super().__init__(name=tower.name)
        # Not the tower itself: TensorFlow would write every layer's calls of a Keras model once more.
        self.weights = [*tower.weights, *(repeat_bonus.weights if repeat_bonus else [])]
        self.transform = transform
        specs = raw_features.tensor_specs(features)

        @tf.autograph.experimental.do_not_convert  # Keras would convert each layer otherwise
        def embed(raw: dict[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
            inputs = self.transform(raw)
            embedded = {EMBEDDING: tower(inputs)}
            if repeat_bonus is None:
                return embedded
            repeats = repeat_bonus(inputs)
            lasts = {name: getattr(features[name], "last") for name in repeat_bonus.histories}  # noqa: B009  # histories
            ids = tf.concat([last_values(raw[name], last, "") for name, last in lasts.items()], axis=1)
            ids = tf.gather(ids, repeat_bonus.order(inputs), batch_dims=1)
            return {**embedded, REPEATED: tf.where(repeats.ids == NO_ITEM, "", ids), BONUSES: repeats.bonuses}

        @tf.function(autograph=False, input_signature=[specs])
        def embed_tensors(tensors: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return embed(raw_features.from_tensors(tensors, features))

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def embed_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return embed(raw_features.parse_examples(examples, features))

        self.served = {
            TENSORS_SIGNATURE: embed_tensors.get_concrete_function(),
            EXAMPLES_SIGNATURE: embed_examples.get_concrete_function(),
        }


def judged_tower(folder: str) -> str:
    """Return the folder of the query tower that embeds held-out queries, given the folder of the towers.

    It differs from the served one only if it looks up features that change: then it has them as known before the first held-out
    day.
    """
    judged = os.path.join(folder, JUDGED, QUERY_TOWER)
    return judged if tf.io.gfile.exists(judged) else os.path.join(folder, QUERY_TOWER)


def export_tower(
    tower: Tower,
    features: Mapping[str, Feature],
    transform: ModelInputs,
    folder: str,
    repeat_bonus: RepeatBonus | None = None,
) -> None:
    """Write a tower's SavedModel, with warm-up requests, to `folder/TOWER_NAME`.

    Args:
        tower: a trained tower.
        features: the features of a request.
        transform: makes the tower's inputs from them.
        folder: destination.
        repeat_bonus: the model's repeat bonus, for queries; None without one.
    """
    served = ServedTower(tower, features, transform, repeat_bonus)
    target = str(PurePath(folder) / tower.name)
    tf.saved_model.save(served, target, signatures=served.served)
    write_warmup(target, tower.name, served.served)


@lru_cache(KEPT_TOWERS)
def _load(folder: str, changed: int) -> tf.Module:
    return tf.saved_model.load(folder)


def load_tower(folder: str) -> tf.Module:
    """Load a served tower. The small ones loaded last are cached: several steps of a day need the same.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        if not files or sum(path.stat().st_size for path in files) > KEPT_BYTES:
            return tf.saved_model.load(folder)
        return _load(folder, max(path.stat().st_mtime_ns for path in files))
    except Exception as error:  # the type of error depends on which file is damaged, and where
        raise UserError(
            f"{folder}: expected the SavedModel of a tower, found none that can be loaded: {error}. "
            "Remove the model that it is part of and run the day again."
        ) from error
