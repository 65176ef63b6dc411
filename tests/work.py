"""Runs as TFX's launcher leaves them in ML Metadata and on the disk, without the seconds that a real one takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.pusher.files import Source
from components.pusher.versions import PushFolder
from pipeline.config import Config, RetentionSettings
from pipeline.metadata_settings import SqliteSettings
from pipeline.records import REFRESH, connection
from pipeline.versions.retention import Collected, collect
from pipeline.versions.rollback import RolledBack, roll_back

CONTENT = "0123456789"  # ten bytes a file
METRICS = {"mrr": 0.125, "recall_at_50": 0.25}
TOWERS = ("query_tower", "item_tower")


def places(root: Path, days: int = 1, versions: int = 1) -> Config:
    """A configuration of which only these parts are read."""
    return Config.model_construct(
        root=root, retention=RetentionSettings(days=days, versions=versions), metadata=SqliteSettings()
    )


class Work:
    """Runs that leave in ML Metadata and on the disk what TFX's launcher does."""

    def __init__(self, root: Path) -> None:
        self.places = places(root)
        root.mkdir(parents=True, exist_ok=True)
        self.store = metadata_store.MetadataStore(connection(self.places))

    def run(self, day: str, pipeline: str = "shop", kind: str = "") -> mlmd.Context:
        """Begins a run, named as `pipeline.records.runs.new_run_id` does, below its pipeline's context."""
        number = len(self.store.get_contexts_by_type("pipeline_run"))
        parent = self._context("pipeline", pipeline)
        run = self._context("pipeline_run", f"{day}.{kind}20261124T{number:012}")
        self.store.put_parent_contexts([mlmd.ParentContext(parent_id=parent.id, child_id=run.id)])
        return run

    def step(
        self,
        run: mlmd.Context,
        node: str,
        output: str,
        kind: str,
        inputs: Sequence[mlmd.Artifact] = (),
        **properties: int | str,
    ) -> mlmd.Artifact:
        """A step that makes one artifact of one file."""
        execution = self._execution(run, node, mlmd.Execution.COMPLETE, inputs)
        artifact = mlmd.Artifact(type_id=self._type(kind), state=mlmd.Artifact.LIVE)
        artifact.uri = str(self.places.pipeline_root / node / output / str(execution))
        for name, value in properties.items():
            if isinstance(value, str):
                artifact.custom_properties[name].string_value = value
            else:
                artifact.custom_properties[name].int_value = value
        self._write(Path(artifact.uri) / "file")
        return self._publish(run, node, execution, [artifact], mlmd.Event.OUTPUT)[0]

    def cached(self, run: mlmd.Context, node: str, artifact: mlmd.Artifact) -> None:
        """A step whose output is an earlier run's."""
        self._publish(run, node, self._execution(run, node, mlmd.Execution.CACHED), [artifact], mlmd.Event.OUTPUT)

    def resolved(self, run: mlmd.Context, node: str, artifacts: list[mlmd.Artifact]) -> None:
        """A resolver; its outputs are what it found."""
        execution = self._execution(run, node, mlmd.Execution.COMPLETE)
        self._publish(run, node, execution, artifacts, mlmd.Event.INTERNAL_OUTPUT)

    def killed(self, run: mlmd.Context, node: str, output: str) -> Path:
        """A step that was killed: it has an execution and folders, and no artifact."""
        execution = self._execution(run, node, mlmd.Execution.RUNNING)
        scratch = self.places.pipeline_root / node / ".system"
        self._write(scratch / "executor_execution" / str(execution) / ".temp" / "beam")
        self._write(scratch / "stateful_working_dir" / "09fd90c5-daa7-48ca-a47b-b4bd41263a87" / "state")
        self._write(self.places.pipeline_root / node / output / str(execution) / "deep" / "file")
        return self.places.pipeline_root / node / output / str(execution)

    def day(self, day: str, blessed: bool = False, pipeline: str = "shop") -> "Day":
        """A whole run."""
        run = self.run(day, pipeline)
        examples = self.step(run, "Interactions", "examples", "Examples")
        span = (date.fromisoformat(day) - date(1970, 1, 1)).days
        model = self.step(run, "Trainer", "model", "Model", [examples], span=span)
        blessing = self.step(
            run,
            "RetrievalEvaluator",
            "blessing",
            "ModelBlessing",
            [model],
            blessed=int(blessed),
            current_model_id=model.id,
        )
        return Day(run, examples, model, blessing)

    def push(self, day: "Day") -> int:
        """Pushes a model from the folder of the artifact that has the towers, as TFX's Pusher names it; they hold its number."""
        towers = Path(day.model.uri) / "Format-Serving"
        sources = {part: Source(str(towers / part)) for part in TOWERS}
        for part in TOWERS:
            self._write(towers / part / "saved_model.pb", str(day.model.id))
        run_day = date.fromisoformat(day.run.name.partition(".")[0])
        return PushFolder(self.places.serving).push(sources, run_day, day.run.name, str(towers), METRICS).version

    def refresh(self, day: "Day", of: str) -> tuple[int, mlmd.Artifact]:
        """A refresh of the live version, of a day's model; its version, and what its run made."""
        run = self.run(of, "shop.refresh", REFRESH)
        index = self.step(run, "Indexer", "index", "ItemIndex", [day.model])
        towers = Path(day.model.uri) / "Format-Serving"
        sources = {part: Source(str(towers / part)) for part in TOWERS}
        folder = PushFolder(self.places.serving)
        return folder.refresh(sources, folder.manifests()[-1].version, run.name).version, index

    def roll_back(self, to: int | None = None) -> RolledBack:
        return roll_back(self.places, to)

    @property
    def serving(self) -> Path:
        """The push folder."""
        return Path(self.places.serving)

    def live(self) -> set[int]:
        return {artifact.id for artifact in self.store.get_artifacts() if artifact.state == mlmd.Artifact.LIVE}

    def folders(self) -> set[str]:
        """`<node>/<output>/<execution>` of all that is there."""
        return {str(p.relative_to(self.places.pipeline_root)) for p in self.places.pipeline_root.glob("*/*/*")}

    def collect(self, days: int = 1, versions: int = 1) -> Collected:
        return collect(places(self.places.root, days, versions))

    def _write(self, path: Path, content: str = CONTENT) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def _type(self, name: str) -> int:
        kind = mlmd.ArtifactType(name=name)
        return self.store.put_artifact_type(kind, can_add_fields=True)

    def _context(self, kind: str, name: str) -> mlmd.Context:
        found = self.store.get_context_by_type_and_name(kind, name)
        if found is None:
            type_id = self.store.put_context_type(mlmd.ContextType(name=kind))
            self.store.put_contexts([mlmd.Context(type_id=type_id, name=name)])
            found = self.store.get_context_by_type_and_name(kind, name)
        return found

    def _contexts(self, run: mlmd.Context, node: str) -> list[mlmd.Context]:
        return [run, self._context("node", f"shop.{node}")]

    def _execution(self, run: mlmd.Context, node: str, state: int, inputs: Sequence[mlmd.Artifact] = ()) -> int:
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name=node))
        execution = mlmd.Execution(type_id=type_id, last_known_state=state)
        events = [(artifact, _event(mlmd.Event.INPUT)) for artifact in inputs]
        number, _, _ = self.store.put_execution(execution, events, self._contexts(run, node))
        return number

    def _publish(
        self, run: mlmd.Context, node: str, execution: int, artifacts: list[mlmd.Artifact], kind: int
    ) -> list[mlmd.Artifact]:
        [known] = self.store.get_executions_by_id([execution])
        events = [(artifact, _event(kind)) for artifact in artifacts]
        _, numbers, _ = self.store.put_execution(known, events, self._contexts(run, node))
        return self.store.get_artifacts_by_id(numbers)


@dataclass(frozen=True)
class Day:
    run: mlmd.Context
    examples: mlmd.Artifact
    model: mlmd.Artifact
    blessing: mlmd.Artifact

    @property
    def ids(self) -> set[int]:
        return {self.examples.id, self.model.id, self.blessing.id}

    @property
    def folders(self) -> set[str]:
        """`<node>/<output>/<execution>` of its artifacts."""
        return {"/".join(Path(artifact.uri).parts[-3:]) for artifact in (self.examples, self.model, self.blessing)}


def _event(kind: int) -> mlmd.Event:
    event = mlmd.Event(type=kind)
    event.path.steps.add().key = "key"
    event.path.steps.add().index = 0
    return event
