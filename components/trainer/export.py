"""Each tower as a SavedModel that takes raw features: Transform's graph and the tower's layers in one."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePath

import tensorflow as tf

from components.trainer.repeats import RepeatBonus
from components.trainer.towers import Tower
from components.trainer.warmup import write_warmup
from components.transform import raw_features
from components.transform.model_inputs import ModelInputs
from components.transform.preprocessing import NO_ITEM, last_values
from ndr_client.served import BONUSES, EMBEDDING, EXAMPLES_SIGNATURE, QUERY_TOWER, REPEATED, TENSORS_SIGNATURE
from schemas.errors import UserError
from schemas.features import Feature

JUDGED = "judged"
KEPT_TOWERS, KEPT_BYTES = 6, 32 << 20  # both of a day's model, of the one to beat, and of the one before that


class ServedTower(tf.Module):
    """A tower behind the transform that it was trained behind.

    Two signatures, both giving `embedding`, float32 [batch, width], L2-normalised. Where histories add to the scores of their items
    (`components.trainer.repeats`), both also give these items' ids, `repeated_items`, string [batch, entries], each once, empty for
    none, and `repeated_bonuses`, float32 [batch, entries].

    - `serving_default`: a named tensor for each raw feature, [batch] or, where there may be several values,
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
        # Not the tower: of a Keras model that it finds, TensorFlow writes every layer's calls once more.
        self.weights = [*tower.weights, *(repeat_bonus.weights if repeat_bonus else [])]
        self.transform = transform
        specs = raw_features.tensor_specs(features)

        @tf.autograph.experimental.do_not_convert  # which Keras does to each layer, unless told otherwise
        def embed(raw: dict[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
            inputs = self.transform(raw)
            embedded = {EMBEDDING: tower(inputs)}
            if repeat_bonus is None:
                return embedded
            found = repeat_bonus(inputs)
            lasts = {name: getattr(features[name], "last") for name in repeat_bonus.histories}  # noqa: B009  # histories
            ids = tf.concat([last_values(raw[name], last, "") for name, last in lasts.items()], axis=1)
            ids = tf.gather(ids, repeat_bonus.order(inputs), batch_dims=1)
            return {**embedded, REPEATED: tf.where(found.ids == NO_ITEM, "", ids), BONUSES: found.bonuses}

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
    """The folder of the query tower that held-out queries are embedded by, of the folder with the towers.

    It is another than the one that is served only where it looks up features that change: it has them as they were known before the
    first day that is held out.
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
    """Writes a tower's SavedModel, warm-up requests included, to `folder/TOWER_NAME`.

    Args:
        tower: trained.
        features: what a request may have.
        transform: makes the tower's inputs of them.
        folder: destination.
        repeat_bonus: of queries, where the model has one.
    """
    served = ServedTower(tower, features, transform, repeat_bonus)
    target = str(PurePath(folder) / tower.name)
    tf.saved_model.save(served, target, signatures=served.served)
    write_warmup(target, tower.name, served.served)


@lru_cache(KEPT_TOWERS)
def _load(folder: str, changed: int) -> tf.Module:
    return tf.saved_model.load(folder)


def load_tower(folder: str) -> tf.Module:
    """Loads a served tower. Small ones that were loaded last are kept: several steps of a day need the same.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        if not files or sum(path.stat().st_size for path in files) > KEPT_BYTES:
            return tf.saved_model.load(folder)
        return _load(folder, max(path.stat().st_mtime_ns for path in files))
    except Exception as error:  # what a damaged file raises depends on which it is, and where
        raise UserError(
            f"{folder}: expected the SavedModel of a tower, found none that can be loaded: {error}. "
            "Remove the model that it is part of and run the day again."
        ) from error
