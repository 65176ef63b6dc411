"""What a worker of parameter servers is sent once, and what with each task."""

import tensorflow as tf

from components.trainer.epochs import EpochsOfExamples
from components.trainer.examples import Stretches, Task, TrainingExamples, no_stretches
from components.trainer.inputs import Mask, lookup_for_training
from schemas.features import CANDIDATE_ID, FINGERPRINT_SUFFIX, REWARD
from tests.components.test_trainer_processes import SPEC

ITEMS, BATCH, DRAWS = 1000, 4, 3


class FromMemory(TrainingExamples):
    """Four interactions, the same in each batch."""

    def __init__(self) -> None:
        pass

    def of_task(self, task: Task) -> tf.data.Dataset:
        batch = {CANDIDATE_ID: [1, 2, 3, 999], f"latest{FINGERPRINT_SUFFIX}": [4, 5, 6, 1000], "item": [0, 1, 2, 3]}
        rows = {name: tf.constant(values, tf.int64) for name, values in batch.items()} | {REWARD: tf.ones([BATCH])}
        return tf.data.Dataset.from_tensors(rows).repeat(5).skip(task.skip).take(task.steps)


def test_a_task_does_not_bring_the_catalogue_along_and_finds_in_it_what_one_process_does() -> None:
    ids = tf.range(ITEMS, dtype=tf.int64)
    sounds = tf.random.stateless_uniform([ITEMS, 2], [0, 0])
    items = {CANDIDATE_ID: ids, "item": ids, "sound": sounds}
    masks = {"item": Mask(ITEMS, 0.5)}
    epochs = EpochsOfExamples(FromMemory(), 0, SPEC, lookup_for_training(SPEC, items), items, DRAWS, masks)

    @tf.function(autograph=False)
    def first(task: Task, held: dict[str, dict[str, tf.Tensor]]) -> dict[str, dict[str, tf.Tensor]]:
        batch = next(iter(epochs.of_task(task, held)))
        return {"interactions": batch.interactions, "uniform": batch.uniform_items}

    none = Stretches(*map(tf.constant, no_stretches()))
    task = Task(none, none, *(tf.constant(number, tf.int64) for number in (7, 2, 1, 2, 0)))
    traced = first.get_concrete_function(task, epochs.held())
    assert max((capture.shape.num_elements() or 1 for capture in traced.captured_inputs), default=0) < ITEMS
    found = first(task, epochs.held())
    # Item 1000 is unknown: the zero vector.
    expected = tf.concat([tf.gather(sounds, [4, 5, 6]), tf.zeros([1, 2])], axis=0)
    assert found["interactions"]["latest_sound"].numpy().tolist() == expected.numpy().tolist()
    assert found["interactions"]["sound"].numpy().tolist() == tf.gather(sounds, [1, 2, 3, 999]).numpy().tolist()
    drawn = found["uniform"][CANDIDATE_ID]
    assert found["uniform"]["sound"].numpy().tolist() == tf.gather(sounds, drawn).numpy().tolist()
    # Those of the epoch's step 3: the task begins at 2, and one step is passed over.
    task_at_three = Task(none, none, *(tf.constant(number, tf.int64) for number in (7, 3, 0, 1, 0)))
    assert first(task_at_three, epochs.held())["uniform"][CANDIDATE_ID].numpy().tolist() == drawn.numpy().tolist()
