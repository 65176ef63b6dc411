"""Reads and writes ML Metadata's records of the runs. Does not import TensorFlow or TFX."""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from google.protobuf.wrappers_pb2 import StringValue
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components import recorded
from components.recorded import decoded
from pipeline.origin import Origin
from pipeline.records import executions
from pipeline.records.executions import RUN_CONTEXT
from pipeline.records.runs import (
    FAULT,
    GIVEN_PREFIX,
    ORIGIN,
    PASSED_OVER_FOR,
    Given,
    Run,
    origin_of,
    read_run,
)
from pipeline.records.store import Store
from pipeline.records.values import values_of
from schemas.errors import UserError

LARGEST_INT = 2**31 - 1  # of a property on MySQL and PostgreSQL; a version's number is larger


class Records:
    """Reads and writes the records of the runs.

    Args:
        to: the connection to ML Metadata.

    Attributes:
        connection: the same, for what has a connection of its own: TFX's handle, or another thread.

    Raises:
        UserError: ML Metadata cannot be reached, or the place holds something else.
    """

    def __init__(self, to: mlmd.ConnectionConfig) -> None:
        self.connection = to
        self._store = Store(to)

    def runs(self, last: int | None = None) -> list[Run]:
        """Return every run, oldest first.

        Args:
            last: return only the newest `last`, at least 1.
        """
        contexts = sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
        return self._read(contexts[-last:] if last else contexts)

    def run_ids(self, pipeline: str | None = None) -> list[str]:
        """Return the id of every run, oldest first; with a pipeline, of its runs."""
        contexts = self._store.get_contexts_by_type(RUN_CONTEXT)
        return [
            context.name
            for context in sorted(contexts, key=lambda context: context.id)
            if pipeline is None or self._is_of(context, pipeline)
        ]

    def run(self, run_id: str) -> Run:
        """Return one run by its id.

        Raises:
            UserError: there is no such run.
        """
        return self._read([self._context(run_id)])[0]

    def last_complete(self, pipeline: str, day: date) -> Run | None:
        """Return the last complete run of a day."""
        names = [
            context.name
            for context in sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
            if context.name.startswith(f"{day.isoformat()}.") and self._is_of(context, pipeline)
        ]
        for name in reversed(names):
            run = self.run(name)
            if run.state == "complete":
                return run
        return None

    def complete_before(self, run: Run, pipeline: str) -> Run | None:
        """Return the last complete run of the same day that began before a run."""
        names = self.run_ids()
        for name in reversed(names[: names.index(run.run)]):
            if name.startswith(f"{run.date}.") and self._is_of(self._context(name), pipeline):
                earlier = self.run(name)
                if earlier.state == "complete":
                    return earlier
        return None

    def first_day(self, pipeline: str) -> date | None:
        """Return the oldest day with a run of a pipeline, in any state."""
        contexts = sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: str(context.name))
        for context in contexts:
            if self._is_of(context, pipeline):
                return date.fromisoformat(context.name.partition(".")[0])
        return None

    def day_of(self, pipeline: str, suffix: str) -> date | None:
        """Return the day of a pipeline's run whose id is a day, a full stop and `suffix`; None if there is no such run."""
        for context in self._store.get_contexts_by_type(RUN_CONTEXT):
            day, _, rest = context.name.partition(".")
            if rest == suffix and self._is_of(context, pipeline):
                return date.fromisoformat(day)
        return None

    def last_root(self, pipeline: str) -> tuple[str, str] | None:
        """Return the root of the last run of a pipeline that recorded it, and the run's id."""
        contexts = sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
        for context in reversed(contexts):
            origin = origin_of(context)
            if origin and "root" in origin.configuration and self._is_of(context, pipeline):
                return str(origin.configuration["root"]), context.name
        return None

    def is_removed(self, artifact: int) -> bool:
        """Return whether retention has removed an artifact; 0 stands for no artifact."""
        return any(stored.state == mlmd.Artifact.DELETED for stored in self._store.get_artifacts_by_id([artifact]))

    def before(self, span: int) -> str:
        """Return a digest of everything that a day may continue from: models of earlier days, blessings, counts and examples.

        Args:
            span: the day, in days since 1970-01-01.
        """
        earlier = [
            artifact
            for kind in ("Model", "Counts", "Examples")
            for artifact in self._store.get_artifacts_by_type(kind)
            if 0 < values_of(artifact).get(recorded.SPAN, 0) < span
        ]
        models = {artifact.id for artifact in earlier}
        blessings = [
            blessing
            for blessing in self._store.get_artifacts_by_type("ModelBlessing")
            if values_of(blessing).get(recorded.BLESSED_MODEL) in models
        ]
        content = hashlib.sha256()
        for artifact in sorted([*earlier, *blessings], key=lambda artifact: artifact.id):
            content.update(f"{artifact.id} {artifact.state} {sorted(values_of(artifact).items())}\n".encode())
        return content.hexdigest()

    def note_given(self, run_id: str, given: Given) -> None:
        """Record the input of a run."""
        context = self._context(run_id)
        for name, value in asdict(given).items():
            entry = context.custom_properties[f"{GIVEN_PREFIX}{name}"]
            if isinstance(value, int) and value <= LARGEST_INT:
                entry.int_value = value
            elif isinstance(value, int):
                entry.double_value = value
            else:
                entry.string_value = value
        self._store.put_contexts([context])

    def note_origin(self, run_id: str, origin: Origin) -> None:
        """Record the code and the configuration of a run. No step's cache depends on this."""
        self._note_text(run_id, ORIGIN, json.dumps(asdict(origin)))

    def note_fault(self, run_id: str, words: str) -> None:
        """Record the fault that a step reported."""
        self._note_text(run_id, FAULT, words)

    def note_passed_over(self, run_id: str, done_by: str) -> None:
        """Record that the run's day was already done with the same input, and by which run."""
        context = self._context(run_id)
        context.custom_properties[PASSED_OVER_FOR].string_value = done_by
        self._store.put_contexts([context])

    def _note_text(self, run_id: str, name: str, text: str) -> None:
        context = self._context(run_id)
        # Not as a string: PostgreSQL's index of these rejects long ones.
        context.custom_properties[name].proto_value.Pack(StringValue(value=text))
        self._store.put_contexts([context])

    def attempts(self, run_id: str, node: str) -> list[mlmd.Execution]:
        """Return the executions of a node in a run, oldest first."""
        attempts = self._store.get_executions_by_context(self._context(run_id).id)
        nodes = executions.nodes_of(self._store, [attempt.id for attempt in attempts])
        return sorted((attempt for attempt in attempts if nodes[attempt.id] == node), key=lambda attempt: attempt.id)

    def mark(self, execution: mlmd.Execution, state: "mlmd.Execution.State") -> None:
        """Record the state of an execution."""
        execution.last_known_state = state
        self._store.put_executions([execution])

    def note_withdrawn(self, model: str, withdrawn: bool) -> bool:
        """Record on a model's blessings whether it was rolled back; then no day continues from it.

        Only the Pusher reads a blessing, so no step's cache is affected.

        Args:
            model: a folder of the Model artifact.
            withdrawn: False if it was restored.

        Returns:
            Whether ML Metadata knows a blessing of it.
        """
        of_model = {
            artifact.id
            for artifact in self._store.get_artifacts_by_type("Model")
            if artifact.uri and Path(os.path.realpath(model)).is_relative_to(os.path.realpath(artifact.uri))
        }
        blessings = [
            blessing
            for blessing in self._store.get_artifacts_by_type("ModelBlessing")
            if values_of(blessing).get(recorded.BLESSED_MODEL) in of_model
        ]
        for blessing in blessings:
            blessing.custom_properties[recorded.WITHDRAWN].int_value = int(withdrawn)
        if blessings:
            self._store.put_artifacts(blessings)
        return bool(blessings)

    def example_uris(self, run_id: str) -> dict[str, str]:
        """Return the URIs of a run's examples: `interactions` and `catalogue`."""
        uris = {}
        for _, artifact in self._made_by_run(run_id):
            if rows := decoded(values_of(artifact), recorded.ROWS):
                uris[rows["kind"]] = artifact.uri
        return uris

    def artifact_uris(self, run_id: str, artifact_type: str) -> list[str]:
        """Return the URIs of a run's artifacts of a type."""
        return [artifact.uri for kind, artifact in self._made_by_run(run_id) if kind == artifact_type]

    def _is_of(self, context: mlmd.Context, pipeline: str) -> bool:
        return pipeline in {parent.name for parent in self._store.get_parent_contexts_by_context(context.id)}

    def _context(self, run_id: str) -> mlmd.Context:
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        if context is None:
            raise UserError(f"ML Metadata has no run {run_id}. `ndr runs` lists all runs.")
        return context

    def _made_by_run(self, run_id: str) -> list[tuple[str, mlmd.Artifact]]:
        attempts = self._store.get_executions_by_context(self._context(run_id).id)
        return [pair for pairs in self._made([attempt.id for attempt in attempts]).values() for pair in pairs]

    def _made(self, ids: Collection[int]) -> dict[int, list[tuple[str, mlmd.Artifact]]]:
        """Map each execution to the artifacts that it made or the cache returned, with their types; without a resolver's."""
        events = self._store.get_events_by_execution_ids(ids) if ids else []
        outputs = sorted((event.artifact_id, event.execution_id) for event in events if event.type == mlmd.Event.OUTPUT)
        listed = self._store.get_artifacts_by_id(sorted({artifact for artifact, _ in outputs})) if outputs else []
        artifacts = {artifact.id: artifact for artifact in listed}
        names = {kind.id: kind.name for kind in self._store.get_artifact_types()}
        by_execution: dict[int, list[tuple[str, mlmd.Artifact]]] = {execution: [] for execution in ids}
        for artifact, execution in outputs:
            by_execution[execution].append((names[artifacts[artifact].type_id], artifacts[artifact]))
        return by_execution

    def _read(self, contexts: Sequence[mlmd.Context]) -> list[Run]:
        """Read the runs of contexts: all objects of one kind in one call."""
        attempts = {context.id: self._store.get_executions_by_context(context.id) for context in contexts}
        ids = [attempt.id for of_context in attempts.values() for attempt in of_context]
        nodes = executions.nodes_of(self._store, ids)
        outputs = self._made(ids)
        return [
            read_run(
                context,
                sorted(attempts[context.id], key=lambda execution: execution.id),
                nodes,
                sorted(
                    (output for attempt in attempts[context.id] for output in outputs[attempt.id]),
                    key=lambda output: output[1].id,
                ),
            )
            for context in contexts
        ]
