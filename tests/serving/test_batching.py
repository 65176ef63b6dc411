"""Requests are merged and their answers split as if each had been alone."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from serving import batching, extent
from serving.batching import Arrays, Run
from serving.settings import Limits


class Batcher(batching.Batcher):
    """With ample limits, and asked as a signature asks."""

    def __init__(self, run: Run, max_rows: int, limits: Limits = Limits()) -> None:  # noqa: B008
        super().__init__(run, max_rows, limits)

    def ask(self, inputs: Arrays) -> Arrays:
        return self(inputs, extent.of(inputs))


class Model:
    """Doubles `x`, refuses a batch with a negative number in it, and remembers how large its batches were."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, inputs: Arrays) -> Arrays:
        self.batches.append(inputs["x"].shape)
        self.go.wait(900)
        if (inputs["x"] < 0).any():
            raise ValueError(f"negative: {inputs['x'].tolist()}")
        return {"y": 2 * inputs["x"], "rows": np.arange(len(inputs["x"]))}


def while_busy(model: Model, batcher: Batcher, requests: list[NDArray[np.float64]]) -> list[Future[Arrays]]:
    """The answers to requests that all came, in this order, while the model was busy with one of its own."""
    model.go.clear()
    with ThreadPoolExecutor(len(requests) + 1) as pool:
        futures = [pool.submit(batcher.ask, {"x": np.zeros([1])})]
        for request in requests:
            before = len(batcher._waiting)
            while not model.batches:
                pass
            futures.append(pool.submit(batcher.ask, {"x": request}))
            while len(batcher._waiting) == before:
                pass
        model.go.set()
        return futures[1:]


def test_requests_that_arrive_while_the_model_is_busy_are_one_batch() -> None:
    model = Model()
    answers = while_busy(model, Batcher(model, 8), [np.array([1.0]), np.array([2.0, 3.0])])
    assert model.batches == [(1,), (3,)]
    assert [answer.result()["y"].tolist() for answer in answers] == [[2.0], [4.0, 6.0]]
    assert [answer.result()["rows"].tolist() for answer in answers] == [[0], [1, 2]]  # of the batch: rows were split


def test_a_batch_has_no_more_rows_than_it_may_and_a_larger_request_goes_by_itself() -> None:
    model = Model()
    requests = [np.ones([3]), np.ones([2]), np.ones([9]), np.ones([1])]
    answers = while_busy(model, Batcher(model, 4), requests)
    assert [len(answer.result()["y"]) for answer in answers] == [3, 2, 9, 1]
    # 3 rows and the 1 that still fits behind them; then 2, as 9 do not fit beside them; then 9.
    assert model.batches == [(1,), (4,), (2,), (9,)]


def test_a_long_row_is_not_merged_where_it_would_lengthen_too_many() -> None:
    # Three rows of 4 values each are 12 values, two of them 8: the first two may share a batch, and the third may not.
    model = Model()
    requests = [np.ones([1, 4]), np.ones([1, 4]), np.ones([1, 4])]
    while_busy(model, Batcher(model, 8, Limits(values=8)), requests)
    assert model.batches == [(1,), (2, 4), (1, 4)]


def test_rows_of_other_sizes_are_not_stacked() -> None:
    model = Model()
    requests = [np.ones([1, 2]), np.ones([1, 3]), np.ones([1, 2])]
    answers = while_busy(model, Batcher(model, 8), requests)
    assert [answer.result()["y"].shape for answer in answers] == [(1, 2), (1, 3), (1, 2)]
    assert model.batches == [(1,), (2, 2), (1, 3)]


def test_a_bad_request_fails_alone() -> None:
    model = Model()
    answers = while_busy(model, Batcher(model, 8), [np.array([1.0]), np.array([-1.0]), np.array([3.0])])
    assert answers[0].result()["y"].tolist() == [2.0] and answers[2].result()["y"].tolist() == [6.0]
    with pytest.raises(ValueError, match=r"negative: \[-1.0\]"):
        answers[1].result()
    assert model.batches == [(1,), (3,), (1,), (1,), (1,)]  # together, then each by itself


def test_answers_that_are_not_by_row_are_asked_for_one_by_one() -> None:
    """Regression: an answer that could not be split left those who waited for it waiting for ever."""
    model = Model()

    def summed(inputs: Arrays) -> Arrays:
        return {"sum": model(inputs)["y"].sum(keepdims=True)}

    answers = while_busy(model, Batcher(summed, 8), [np.array([1.0]), np.array([2.0, 3.0])])
    assert [answer.result(timeout=900)["sum"].tolist() for answer in answers] == [[2.0], [10.0]]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(-1, 5), min_size=1, max_size=4), min_size=1, max_size=24),
    st.integers(1, 8),
)
def test_each_request_gets_the_same_answer_as_alone(requests: list[list[int]], max_rows: int) -> None:
    batcher = Batcher(Model(), max_rows)

    def ask(values: list[int]) -> list[int] | str:
        try:
            return batcher.ask({"x": np.array(values)})["y"].tolist()
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, requests))
    alone = [f"negative: {each}" if min(each) < 0 else [2 * value for value in each] for each in requests]
    assert answers == alone
