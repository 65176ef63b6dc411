"""What Beam, TFX and TFMA import for parts of theirs that nothing here uses: a fifth of the seconds that importing TFX takes.

Beam does without its own when they are not there. For the others empty ones stand in, whose names are classes that do nothing. Only
the processes of `ndr` and of a pod leave them out: whoever imports our code beside `tfx.v1`, which wants BigQuery, has all of it.
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
    """A module that has whatever is imported from it."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


def leave_out() -> None:
    """Has them not imported from here on; those that were imported stay."""
    for name in ABSENT:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # so Python marks what is not there
    for name in EMPTY:
        sys.modules.setdefault(name, Empty(name))
