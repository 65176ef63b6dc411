"""Records trials in ML Metadata: an execution for each, whose inputs are the day's transformed examples and graph."""

import json
from collections.abc import Sequence

from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.tuner.trial import Trial
from pipeline.records import connect

TRIAL, TUNING = "ndr.Trial", "ndr.Tuning"
USED = mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key="used"), mlmd.Event.Path.Step(index=0)])
TRIAL_PROPERTIES = {"trial": mlmd.INT, "settings": mlmd.STRING, "outcome": mlmd.STRING, "recall": mlmd.DOUBLE,
                    "epochs": mlmd.INT, "k": mlmd.INT, "seconds": mlmd.DOUBLE}  # fmt: skip


class TrialRecords:
    """Records the trials of one search.

    Args:
        to: the connection to ML Metadata.
        search: its name, such as `2026-11-25.3f2c`; the name of the trials' context.
        inputs: the ids of the artifacts that all trials use.
        k: the K of recall@K.
    """

    def __init__(self, to: mlmd.ConnectionConfig, search: str, inputs: Sequence[int], k: int) -> None:
        self._to, self._search, self._inputs, self._k = to, search, inputs, k

    def note(self, trial: Trial) -> None:
        """Record a completed trial, unless it is recorded already."""
        store = connect(self._to)
        kind = store.put_execution_type(mlmd.ExecutionType(name=TRIAL, properties=TRIAL_PROPERTIES))
        group = store.put_context_type(mlmd.ContextType(name=TUNING))
        name = f"{self._search}.{trial.number}"
        execution = mlmd.Execution(type_id=kind, name=name, last_known_state=mlmd.Execution.COMPLETE)
        execution.properties["trial"].int_value = trial.number
        execution.properties["settings"].string_value = json.dumps(trial.values, sort_keys=True)
        execution.properties["outcome"].string_value = trial.state
        execution.properties["k"].int_value = self._k
        execution.properties["epochs"].int_value = trial.epochs
        execution.properties["seconds"].double_value = trial.seconds
        if trial.best is not None:
            execution.properties["recall"].double_value = trial.best
        used = [
            (artifact, mlmd.Event(type=mlmd.Event.INPUT, artifact_id=artifact.id, path=USED))
            for artifact in store.get_artifacts_by_id(self._inputs)
        ]
        try:
            store.put_execution(execution, used, [mlmd.Context(type_id=group, name=self._search)], True)
        except errors.AlreadyExistsError:
            return
