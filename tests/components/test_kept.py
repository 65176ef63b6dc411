"""What a worker loads, it loads once."""

import gc

from apache_beam.internal import cloudpickle

from components.kept import Kept


class Model:
    """Counts how often it was loaded."""

    loaded = 0

    def __init__(self) -> None:
        Model.loaded += 1


def test_two_that_take_turns_are_loaded_once_each() -> None:
    """Regression: Beam's Shared keeps one alone alive; of two towers each was loaded for every batch."""
    Model.loaded = 0
    one, other = Kept(Model), Kept(Model)
    for _ in range(3):
        one.get(), other.get()
        gc.collect()
    assert Model.loaded == 2


def test_the_workers_of_a_process_have_it_together_and_it_is_not_sent_to_them() -> None:
    Model.loaded = 0
    kept = Kept(Model)
    before = len(cloudpickle.dumps(kept))
    first = kept.get()
    sent = cloudpickle.dumps(kept)
    assert len(sent) == before
    assert cloudpickle.loads(sent).get() is first
    assert Model.loaded == 1
