import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest
import tensorflow as tf

import components
from tests.forks import Forks

assert components  # which chooses Keras 2; no test may use Keras before

hypothesis.settings.register_profile("any machine", deadline=None)  # no test depends on a machine's speed
hypothesis.settings.load_profile("any machine")

os.environ.pop("COLUMNS", None)  # which pytest-xdist sets for its workers: what a command prints must not depend on it

# Graphs run as they were written. TensorFlow's optimizer takes longer to rewrite one than most tests take to run it.
WITHOUT_OPTIMIZER = {"disable_meta_optimizer": True}
tf.config.optimizer.set_experimental_options(WITHOUT_OPTIMIZER)

# Every graph is garbage that only a collection finds, and there are thousands: looking for it through all of TFX at each took a
# tenth of the time.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    gc.freeze()


# Two logical devices for the tests of replicas; whatever names no device runs on the first.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture
def graph_optimizer() -> Iterator[None]:
    """TensorFlow's own, as processes have it that are not forks: to the bit, they compute the same only with it."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    yield
    tf.config.optimizer.set_experimental_options(WITHOUT_OPTIMIZER)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    started = Forks(tmp_path_factory.mktemp("forks"))
    yield started
    started.close()
