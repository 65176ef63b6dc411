"""Runs a SavedModel once, in a session, with as little of TensorFlow as that needs.

`import tensorflow` takes four processor seconds: it imports Keras, datasets, distribution and the whole public interface. A
session and the loader of SavedModels take one. So this module imports them without the package's `__init__`, for a process that
asks one question and ends. If TensorFlow is imported already, it is used as it is.
"""

import importlib.util
import re
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import UserError

Inputs = Mapping[str, Sequence[Any]]

PACKAGE = "tensorflow"
SERVING = "serve"


def enter() -> None:
    """Make TensorFlow's modules importable without the package's `__init__`, unless that has run."""
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.find_spec(PACKAGE)
    assert spec and spec.submodule_search_locations
    package = types.ModuleType(PACKAGE)
    package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations)
    sys.modules[PACKAGE] = package


def ask(folder: Path, signature: str, inputs: Inputs, outputs: Sequence[str]) -> list[Any]:
    """Load a SavedModel and run one of its signatures once. Builds no functions from its graphs, which would take seconds.

    Args:
        folder: the SavedModel's.
        signature: its name.
        inputs: the values of each input. A missing one is a list of texts, and empty in each row.
        outputs: the names of the wanted outputs.

    Returns:
        An array for each output.

    Raises:
        UserError: the model rejects the inputs.
    """
    enter()
    from tensorflow.python.client import session as sessions
    from tensorflow.python.framework import errors, ops
    from tensorflow.python.saved_model import loader

    with ops.Graph().as_default(), sessions.Session() as session:
        definition = loader.load(session, [SERVING], str(folder)).signature_def[signature]
        if unknown := sorted(set(inputs) - set(definition.inputs)):
            raise UserError(
                f"{folder}: expected inputs {', '.join(sorted(definition.inputs))}, received {unknown[0]} too."
            )
        rows = len(next(iter(inputs.values())))
        fed = {tensor.name: inputs.get(name, np.zeros((rows, 0), object)) for name, tensor in definition.inputs.items()}
        try:
            values: list[Any] = session.run([definition.outputs[name].name for name in outputs], fed)
        except errors.InvalidArgumentError as error:
            words = re.search(r"assertion failed: \[(.*?)\]", error.message, re.DOTALL)  # the graph's own message
            raise UserError(f"{folder}: {words[1] if words else error.message}") from error
    return values


def new_example(serialized: bytes = b"") -> Any:
    """Parse or create a tf.Example."""
    enter()
    from tensorflow.core.example import example_pb2

    return example_pb2.Example.FromString(serialized)
