import os
from collections.abc import Iterator

import hypothesis
import pytest
import tensorflow as tf
from forks import Forks

import components

assert components  # which chooses Keras 2; no test may use Keras before

hypothesis.settings.register_profile("any machine", deadline=None)  # no test depends on a machine's speed
hypothesis.settings.load_profile("any machine")

os.environ.pop("COLUMNS", None)  # which pytest-xdist sets for its workers: what a command prints must not depend on it

# Two logical devices for the tests of replicas; whatever names no device runs on the first.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    started = Forks(tmp_path_factory.mktemp("forks"))
    yield started
    started.close()
