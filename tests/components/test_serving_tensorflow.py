"""A SavedModel with what an older TensorFlow lacks is told from one without."""

from pathlib import Path

import tensorflow as tf

from components.infra_validator.serving_tensorflow import lacking_faults


def saved(folder: Path, *, is_new: bool) -> Path:
    @tf.function(input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)])
    def served(image: tf.Tensor, size: tf.Tensor) -> dict[str, tf.Tensor]:
        kind = tf.uint64 if is_new else tf.int64
        numbers = tf.raw_ops.Range(start=tf.cast(0, kind), limit=tf.cast(size, kind), delta=tf.cast(1, kind))
        return {
            "image": tf.raw_ops.DecodeWebP(contents=image) if is_new else image,
            "numbers": tf.cast(numbers, tf.int64),
        }

    module = tf.Module()
    module.served = served
    tf.saved_model.save(module, str(folder), signatures=served.get_concrete_function())
    return folder


def test_operations_missing_in_the_older_release_are_named(tmp_path: Path) -> None:
    old, new = saved(tmp_path / "old", is_new=False), saved(tmp_path / "new", is_new=True)
    assert lacking_faults(new, "2.19") == [
        "TensorFlow 2.19, which serves (server.tensorflow), has no operation DecodeWebP.",
        "TensorFlow 2.19, which serves (server.tensorflow), has no uint64 for attribute Tidx of operation Range.",
    ]
    assert [lacking_faults(old, "2.19"), lacking_faults(new, "2.20"), lacking_faults(new, "2.21")] == [[], [], []]
