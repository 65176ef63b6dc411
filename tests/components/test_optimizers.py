"""Row-wise Adagrad by hand; and that no step of training handles a table as a whole."""

import numpy as np
import pytest
import tensorflow as tf

from components.trainer.model import build_model
from components.trainer.optimizers import OfRun, RowWiseAdagrad, begin_run, build_optimizer, learning_rate
from components.trainer.settings import TrainerSettings
from components.trainer.towers import EmbeddingTable
from tests.components.test_model import ITEMS, SPEC, batches, settings


def table() -> EmbeddingTable:
    made = EmbeddingTable(3, 2, seed=0, name="item")
    made.parts[0].assign([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    return made


def test_a_row_has_one_sum_of_the_mean_squares_of_its_gradients() -> None:
    # Row 1 is twice in a batch: (1, 3) and (0, 4) are (1, 7), whose mean square is (1 + 49) / 2 = 25. That of row 2, (3, 3), is 9.
    rows = table().parts[0]
    optimizer = RowWiseAdagrad(0.5, start=0.0)
    gradient = tf.IndexedSlices(
        tf.constant([[1.0, 3.0], [3.0, 3.0], [0.0, 4.0]]), tf.constant([1, 2, 1]), tf.constant([3, 2])
    )
    optimizer.apply_gradients([(gradient, rows)])
    np.testing.assert_allclose(rows, [[1.0, 2.0], [3.0 - 0.1, 4.0 - 0.7], [5.0 - 0.5, 6.0 - 0.5]], rtol=1e-6)
    # Then (12, 12): 25 + 144 = 169, whose root is 13.
    optimizer.apply_gradients(
        [(tf.IndexedSlices(tf.constant([[12.0, 12.0]]), tf.constant([1]), tf.constant([3, 2])), rows)]
    )
    np.testing.assert_allclose(rows[1], [2.9 - 6 / 13, 3.3 - 6 / 13], rtol=1e-6)
    assert optimizer.variables[1].shape == [3]
    np.testing.assert_allclose(optimizer.variables[1], [0.0, 169.0, 9.0], rtol=1e-6)


def test_a_dense_gradient_of_a_table_does_as_a_sparse_one() -> None:
    one, other = table().parts[0], table().parts[0]
    dense = [[0.0, 0.0], [1.0, 7.0], [3.0, 3.0]]
    RowWiseAdagrad(0.5, start=1.0).apply_gradients([(tf.constant(dense), one)])
    sparse = tf.IndexedSlices(tf.constant(dense[1:]), tf.constant([1, 2]), tf.constant([3, 2]))
    RowWiseAdagrad(0.5, start=1.0).apply_gradients([(sparse, other)])
    np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(one[1], [3.0 - 0.5 / 26**0.5, 4.0 - 3.5 / 26**0.5], rtol=1e-6)


def test_other_weights_have_a_sum_each() -> None:
    kernel = tf.Variable([[1.0, 1.0]], name="kernel")
    optimizer = RowWiseAdagrad(0.5, start=7.0)
    optimizer.apply_gradients([(tf.constant([[3.0, 0.0]]), kernel)])  # 7 + 9 = 16
    np.testing.assert_allclose(kernel, [[1.0 - 1.5 / 4, 1.0]], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["adagrad", "rowwise_adagrad", "adam"])
def test_only_the_layers_weights_decay(optimizer: str) -> None:
    chosen = with_optimizer(optimizer).model_copy(update={"learning_rate": 0.5, "weight_decay": 0.1})
    model = build_model(SPEC, {"user": 8, "item": 30}, chosen, ITEMS)
    model.compile(optimizer=build_optimizer(chosen))
    model.make_weights(next(iter(batches())))
    weights = model.trainable_variables
    before = [weight.numpy() for weight in weights]
    model.optimizer.apply_gradients([(tf.zeros_like(weight), weight) for weight in weights])
    decayed = ["kernel" in weight.name for weight in weights]
    assert sum(decayed) == 3 < len(weights)  # of layers, beside as many biases and two tables
    for weight, was, decays in zip(weights, before, decayed, strict=True):
        np.testing.assert_allclose(weight, (1 - 0.5 * 0.1) * was if decays else was, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Of ten steps two are warm-up; the eight behind fall to a fifth, half of the way after four.
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0]),
        ("linear", [0.0, 0.5, 1.0, 0.6, 0.2]),
        ("cosine", [0.0, 0.5, 1.0, 0.6, 0.2]),
    ],
)
def test_a_schedule_is_of_the_runs_own_steps(kind: str, expected: list[float]) -> None:
    schedule = {"kind": kind, "warmup_share": 0.2, "end_share": 0.2}
    chosen = TrainerSettings.model_validate({**settings().model_dump(), "learning_rate": 1.0, "schedule": schedule})
    optimizer, weight = build_optimizer(chosen, steps=10), tf.Variable([1.0], name="kernel")
    optimizer.iterations.assign(100)  # of the days before
    begin_run(optimizer)
    found = []
    for step in range(11):
        optimizer.apply_gradients([(tf.constant([1.0]), weight)])
        if step in (0, 1, 2, 6, 10):
            found.append(float(optimizer.learning_rate))
    assert found == pytest.approx(expected, abs=1e-6)


def test_without_a_warm_up_a_schedule_begins_at_the_rate() -> None:
    for kind in ("linear", "cosine"):
        chosen = TrainerSettings.model_validate({**settings().model_dump(), "schedule": {"kind": kind}})
        rate = learning_rate(chosen, steps=4)
        assert isinstance(rate, OfRun)
        assert [float(rate(step)) for step in (0, 2, 4)] == pytest.approx([0.03, 0.015, 0.0], abs=1e-8)
    assert learning_rate(settings(), steps=4) == 0.03


def with_optimizer(name: str) -> TrainerSettings:
    return TrainerSettings.model_validate({**settings().model_dump(), "optimizer": name})


@pytest.mark.parametrize("optimizer", ["adagrad", "rowwise_adagrad"])
def test_a_step_compiles_has_static_shapes_no_string_and_no_tensor_as_large_as_a_table(optimizer: str) -> None:
    rows = {"user": 57, "item": 61}  # which nothing else has as many of
    model = build_model(SPEC, rows, with_optimizer(optimizer), ITEMS)
    model.compile(optimizer=build_optimizer(with_optimizer(optimizer)))
    drawn = batches(uniform=6)
    model.make_weights(next(iter(drawn)))
    model.optimizer.build(model.trainable_variables)
    before = [weight.numpy() for weight in model.trainable_variables]
    assert all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(drawn.element_spec))
    step = tf.function(model.train_step, jit_compile=True)
    step(next(iter(drawn)))
    assert all(np.any(weight.numpy() != was) for weight, was in zip(model.trainable_variables, before, strict=True))

    graph = step.get_concrete_function(drawn.element_spec).graph
    tensors = [tensor for op in operations(graph) for tensor in op.outputs]
    assert len(tensors) > 200
    assert [tensor.name for tensor in tensors if tensor.dtype == tf.string] == []
    # Of the optimizer, which adds up the gradients of equal rows; XLA bounds their number by the batch.
    unknown = {
        t.op.name.partition("/")[0] for t in tensors if not t.shape.is_fully_defined() and t.op.type != "Placeholder"
    }
    assert unknown == {model.optimizer.name}
    assert [tensor.name for tensor in tensors if tensor.shape.rank and tensor.shape[0] in rows.values()] == []


def operations(graph: tf.Graph) -> list[tf.Operation]:
    """Of a graph and of the functions that it calls."""
    inner = [graph._get_function(name).graph for name in graph._functions]
    return [*graph.get_operations(), *(op for part in inner for op in operations(part))]


def test_a_table_in_parts_gives_the_rows_of_the_whole_one() -> None:
    # 7 rows in 3 parts: 3, 2 and 2.
    parts = EmbeddingTable(7, 2, seed=0, name="item", parts=3)
    assert [part.shape[0] for part in parts.parts] == [3, 2, 2]
    whole = EmbeddingTable(7, 2, seed=0, name="item")
    whole.parts[0].assign(tf.concat(parts.parts, axis=0))
    rows = tf.constant([[0, 6, -1], [2, 3, 4]], tf.int64)
    assert np.array_equal(parts(rows), whole(rows))
    assert np.array_equal(parts(rows)[0, 2], [0.0, 0.0])
