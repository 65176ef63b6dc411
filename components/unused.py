"""Modules that Beam, TFX and TFMA import for features that ndr does not use: a fifth of the time of importing TFX.

Beam works without its own. The others are replaced by empty modules, whose attributes are classes that do nothing. Only
the processes of `ndr` and of a pod leave them out: importing our code beside `tfx.v1`, which needs BigQuery, loads all of it.
"""

import sys
from types import ModuleType
from typing import Any

ABSENT = ("google.cloud.bigquery", "google.cloud.pubsub")  # Beam's sources and sinks
EMPTY = (
    "keras_tuner", "keras_tuner.engine", "keras_tuner.engine.base_tuner", "keras_tuner.engine.trial",  # TFX's Tuner
    "tfx.components.infra_validator.model_server_runners.kubernetes_runner",  # TFX's InfraValidator
    "tensorflow_model_analysis.metrics.rouge", "tensorflow_model_analysis.notebook",
    "tensorflow_model_analysis.notebook.visualization",
)  # fmt: skip


class Empty(ModuleType):
    """A module with any attribute that is imported from it."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


def leave_out() -> None:
    """Prevent their import from here on; imported ones stay."""
    for name in ABSENT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # so Python marks what is not there
    for name in EMPTY:
        sys.modules.setdefault(name, Empty(name))
