"""What ML Metadata knows of the runs; TensorFlow and TFX are not imported."""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

from google.protobuf.wrappers_pb2 import StringValue
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import executions
from pipeline.executions import RUN_CONTEXT
from pipeline.origin import Origin
from pipeline.runs import FAULT, GIVEN_PREFIX, ORIGIN, PASSED_OVER_FOR, Given, Run, origin_of, properties, read_run
from pipeline.store import Store
from schemas.errors import UserError


class Records:
    """Reads the runs.

    Args:
        config: where ML Metadata is.

    Raises:
        UserError: ML Metadata cannot be reached, or what is there is not it.
    """

    def __init__(self, config: mlmd.ConnectionConfig) -> None:
        self._store = Store(config)

    def runs(self, last: int | None = None) -> list[Run]:
        """Every run, oldest first.

        Args:
            last: only the newest so many, at least 1.
        """
        contexts = sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
        return self._read(contexts[-last:] if last else contexts)

    def run_ids(self) -> list[str]:
        """The id of every run, oldest first."""
        contexts = self._store.get_contexts_by_type(RUN_CONTEXT)
        return [context.name for context in sorted(contexts, key=lambda context: context.id)]

    def run(self, run_id: str) -> Run:
        """One run by its id.

        Raises:
            UserError: there is none.
        """
        return self._read([self._context(run_id)])[0]

    def last_complete(self, pipeline: str, day: date) -> Run | None:
        """The last run of a pipeline and day that is complete."""
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
        """The last complete run of a pipeline and of a run's day that was begun before that run."""
        names = self.run_ids()
        for name in reversed(names[: names.index(run.run)]):
            if name.startswith(f"{run.date}.") and self._is_of(self._context(name), pipeline):
                found = self.run(name)
                if found.state == "complete":
                    return found
        return None

    def first_day(self, pipeline: str) -> date | None:
        """The oldest day of which a pipeline has a run, whatever became of it."""
        contexts = sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: str(context.name))
        for context in contexts:
            if self._is_of(context, pipeline):
                return date.fromisoformat(context.name.partition(".")[0])
        return None

    def day_of(self, pipeline: str, suffix: str) -> date | None:
        """The day of the run of a pipeline whose id is a day, a full stop and `suffix`; None where there is no such run."""
        for context in self._store.get_contexts_by_type(RUN_CONTEXT):
            day, _, rest = context.name.partition(".")
            if rest == suffix and self._is_of(context, pipeline):
                return date.fromisoformat(day)
        return None

    def last_root(self, pipeline: str) -> tuple[str, str] | None:
        """The root of the last run of a pipeline that recorded it, and the run's id."""
        contexts = sorted(self._store.get_contexts_by_type(RUN_CONTEXT), key=lambda context: context.id)
        for context in reversed(contexts):
            origin = origin_of(context)
            if origin and "root" in origin.configuration and self._is_of(context, pipeline):
                return str(origin.configuration["root"]), context.name
        return None

    def is_removed(self, artifact: int) -> bool:
        """Whether retention has removed an artifact; 0 is none."""
        return any(found.state == mlmd.Artifact.DELETED for found in self._store.get_artifacts_by_id([artifact]))

    def before(self, span: int) -> str:
        """A digest of all that a day may go on from: models of earlier days and their blessings, counts and examples.

        Args:
            span: the day, in days since 1970-01-01.
        """
        earlier = [
            artifact
            for kind in ("Model", "Counts", "Examples")
            for artifact in self._store.get_artifacts_by_type(kind)
            if 0 < _span(artifact) < span
        ]
        models = {artifact.id for artifact in earlier}
        blessings = [
            blessing
            for blessing in self._store.get_artifacts_by_type("ModelBlessing")
            if properties(blessing).get("current_model_id") in models
        ]
        content = hashlib.sha256()
        for artifact in sorted([*earlier, *blessings], key=lambda artifact: artifact.id):
            content.update(f"{artifact.id} {artifact.state} {sorted(properties(artifact).items())}\n".encode())
        return content.hexdigest()

    def note_given(self, run_id: str, given: Given) -> None:
        """Leaves on a run what it was given."""
        context = self._context(run_id)
        for name, value in asdict(given).items():
            kept = context.custom_properties[f"{GIVEN_PREFIX}{name}"]
            if isinstance(value, int):
                kept.int_value = value
            else:
                kept.string_value = value
        self._store.put_contexts([context])

    def note_origin(self, run_id: str, origin: Origin) -> None:
        """Leaves on a run the code and the configuration that it is made from. No step's cache looks at it."""
        self._note_text(run_id, ORIGIN, json.dumps(asdict(origin)))

    def note_fault(self, run_id: str, words: str) -> None:
        """Leaves on a run what a step found fault with."""
        self._note_text(run_id, FAULT, words)

    def note_passed_over(self, run_id: str, done_by: str) -> None:
        """Leaves on a run that its day was done with the same input, and by which run."""
        context = self._context(run_id)
        context.custom_properties[PASSED_OVER_FOR].string_value = done_by
        self._store.put_contexts([context])

    def _note_text(self, run_id: str, name: str, text: str) -> None:
        context = self._context(run_id)
        # Not as a string: PostgreSQL's index of these refuses long ones.
        context.custom_properties[name].proto_value.Pack(StringValue(value=text))
        self._store.put_contexts([context])

    def attempts(self, run_id: str, node: str) -> list[mlmd.Execution]:
        """The executions of a node in a run, oldest first."""
        found = self._store.get_executions_by_context(self._context(run_id).id)
        nodes = executions.nodes_of(self._store, [each.id for each in found])
        return sorted((each for each in found if nodes[each.id] == node), key=lambda each: each.id)

    def mark(self, execution: mlmd.Execution, state: "mlmd.Execution.State") -> None:
        """Leaves on an execution what became of it."""
        execution.last_known_state = state
        self._store.put_executions([execution])

    def note_withdrawn(self, model: str, withdrawn: bool) -> bool:
        """Leaves on the blessings of a model whether a rollback took it back; none of them makes it one to go on from then.

        Only the Pusher is given a blessing, so no step's cache notices.

        Args:
            model: a folder of the Model artifact.
            withdrawn: False where it was brought back.

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
            if properties(blessing).get("current_model_id") in of_model
        ]
        for blessing in blessings:
            blessing.custom_properties["withdrawn"].int_value = int(withdrawn)
        if blessings:
            self._store.put_artifacts(blessings)
        return bool(blessings)

    def example_uris(self, run_id: str) -> dict[str, str]:
        """Where the examples of a run are: `interactions` and `catalogue`."""
        found = {}
        for _, artifact in self._made_by_run(run_id):
            rows = properties(artifact).get("rows")
            if rows:
                found[json.loads(rows)["kind"]] = artifact.uri
        return found

    def artifact_uris(self, run_id: str, artifact_type: str) -> list[str]:
        """Where the artifacts of a type are that a run made."""
        return [artifact.uri for kind, artifact in self._made_by_run(run_id) if kind == artifact_type]

    def _is_of(self, context: mlmd.Context, pipeline: str) -> bool:
        return pipeline in {parent.name for parent in self._store.get_parent_contexts_by_context(context.id)}

    def _context(self, run_id: str) -> mlmd.Context:
        context = self._store.get_context_by_type_and_name(RUN_CONTEXT, run_id)
        if context is None:
            raise UserError(f"ML Metadata knows no run {run_id}. `ndr runs` lists those that it knows.")
        return context

    def _made_by_run(self, run_id: str) -> list[tuple[str, mlmd.Artifact]]:
        attempts = self._store.get_executions_by_context(self._context(run_id).id)
        return [each for made in self._made([attempt.id for attempt in attempts]).values() for each in made]

    def _made(self, ids: Collection[int]) -> dict[int, list[tuple[str, mlmd.Artifact]]]:
        """By execution, what it made, or the cache served, with the name of each one's type; not what a resolver found."""
        events = self._store.get_events_by_execution_ids(ids) if ids else []
        outputs = sorted((event.artifact_id, event.execution_id) for event in events if event.type == mlmd.Event.OUTPUT)
        found = self._store.get_artifacts_by_id(sorted({artifact for artifact, _ in outputs})) if outputs else []
        artifacts = {artifact.id: artifact for artifact in found}
        names = {kind.id: kind.name for kind in self._store.get_artifact_types()}
        made: dict[int, list[tuple[str, mlmd.Artifact]]] = {execution: [] for execution in ids}
        for artifact, execution in outputs:
            made[execution].append((names[artifacts[artifact].type_id], artifacts[artifact]))
        return made

    def _read(self, contexts: Sequence[mlmd.Context]) -> list[Run]:
        """The runs of contexts: all of one sort is asked for at once."""
        attempts = {context.id: self._store.get_executions_by_context(context.id) for context in contexts}
        ids = [each.id for found in attempts.values() for each in found]
        nodes = executions.nodes_of(self._store, ids)
        made = self._made(ids)
        return [
            read_run(
                context,
                sorted(attempts[context.id], key=lambda execution: execution.id),
                nodes,
                sorted(
                    (each for attempt in attempts[context.id] for each in made[attempt.id]), key=lambda each: each[1].id
                ),
            )
            for context in contexts
        ]


def _span(artifact: mlmd.Artifact) -> int:
    """The day of an artifact, in days since 1970-01-01; 0 where it has none."""
    for values in (artifact.custom_properties, artifact.properties):
        if "span" in values:
            return int(values["span"].int_value)
    return 0
