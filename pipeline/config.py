"""One YAML a dataset, plus `--set key=value`: typed, validated once, frozen."""

import os
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import Field, PositiveInt

from components.counts.settings import CountsSettings
from components.evaluator.settings import EvaluatorSettings
from components.example_gen.settings import FROM_LOG, ExampleGenSettings, SourceSettings
from components.example_validator.settings import ValidationSettings
from components.indexer.settings import IndexerSettings
from components.pusher.settings import PusherSettings
from components.trainer.settings import TrainerSettings
from components.tuner.settings import TunerSettings
from pipeline.beam_settings import BeamSettings
from pipeline.kubeflow.settings import KubeflowSettings
from pipeline.metadata_settings import MetadataSettings, SqliteSettings
from pipeline.monitoring_settings import MonitoringSettings
from schemas import features, located_yaml
from schemas.errors import UserError
from schemas.features import Declaration, FeatureSpec
from serving.settings import ServerConfig


class RetentionSettings(Declaration):
    """What stays on the disk; all else is removed after a run.

    Attributes:
        days: the artifacts of the newest so many days that have runs stay. Days without a run do not count.
        versions: of the newest so many days that were pushed, the newest version stays, so that a day that is run again takes none
            from another; besides, from 2 on, what was live before the last, and always those that have a label.
    """

    days: PositiveInt = 14
    versions: PositiveInt = 5


class Config(Declaration):
    """Everything that a run is told, but the day.

    Attributes:
        name: the pipeline's name in ML Metadata.
        dataset: the folder with the feature specification and the schemas; relative to the configuration file.
        root: the folder under which everything is kept; relative to where the command is run.
        data: where interactions and the catalogue lie, and how they are read and split; paths relative to the root.
        validation: how far a day may be from the one before.
        trainer: the model and its training.
        tuner: what `ndr tune` searches through.
        indexer: the index over the catalogue.
        counts: what is remembered of earlier days for the baselines.
        evaluator: what is measured, and what must be reached to be pushed.
        pusher: where a version is pushed to.
        server: how `ndr serve` answers, where it is not TF Serving.
        retention: what stays on the disk.
        metadata: where ML Metadata is kept.
        monitoring: where metrics of the days go.
        kubeflow: how the steps run on Kubeflow; not needed elsewhere.
        beam: how Apache Beam runs the steps that it runs.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    dataset: Path
    root: Path = Path("var")
    data: ExampleGenSettings
    validation: ValidationSettings = ValidationSettings()
    trainer: TrainerSettings
    tuner: TunerSettings = TunerSettings()
    indexer: IndexerSettings = IndexerSettings()
    counts: CountsSettings = CountsSettings()
    evaluator: EvaluatorSettings = EvaluatorSettings()
    pusher: PusherSettings = PusherSettings()
    server: ServerConfig = ServerConfig()
    retention: RetentionSettings = RetentionSettings()
    metadata: MetadataSettings = Field(default=SqliteSettings(), discriminator="store")
    monitoring: MonitoringSettings = MonitoringSettings()
    kubeflow: KubeflowSettings | None = None
    beam: BeamSettings = BeamSettings()

    @property
    def pipeline_root(self) -> Path:
        """Where the steps leave their artifacts."""
        return self.root / "pipeline_root"

    @property
    def metadata_path(self) -> Path:
        """ML Metadata's file, where `metadata` is SQLite."""
        return self.root / "metadata.sqlite"

    @property
    def serving(self) -> str:
        """The push folder, which TF Serving watches: a path, or an address of an object store."""
        return _below(self.root, self.pusher.destination)

    @property
    def logs(self) -> Path:
        """A log file a command."""
        return self.root / "logs"

    def cautions(self) -> list[str]:
        """What the configuration allows and its author may not have meant, a sentence each.

        Raises:
            UserError: as `feature_spec`.
        """
        spec, found = self.feature_spec(), []
        if not spec.content_features:
            found.append(
                f"{self.dataset / features.FILE_NAME}: item: the items have no feature but their id, so a new item cannot be found "
                "before it is seen. Give the item tower what is known of an item when it arrives, such as its kind or its maker."
            )
        if spec.history and self.data.window_days + self.data.history_before(self.data.window_days) == 1:
            name, feature = spec.history
            found.append(
                f"data.history_days: with 0 and data.window_days: 1 {name} has in training what came before on the same day, "
                f"in a request the last {feature.last} of whatever day. Leave history_days out, and a week is read for histories."
            )
        return found

    def feature_spec(self) -> FeatureSpec:
        """Reads the dataset's feature specification.

        Raises:
            UserError: it is at fault, or does not have what this configuration names.
        """
        spec = features.load(self.dataset)
        if self.data.catalogue == FROM_LOG and spec.catalogue.item != spec.interactions.item:
            raise UserError(
                f"{self.dataset / features.FILE_NAME}: catalogue.item: expected {spec.interactions.item}, the log's column of the "
                f"item, as data.catalogue is {FROM_LOG}, received {spec.catalogue.item}."
            )
        faults = [(("evaluator", *path), reason) for path, reason in self.evaluator.faults(spec)]
        faults += [(("trainer", *path), reason) for path, reason in self.trainer.faults(spec)]
        if self.evaluator.retrieved_at > self.indexer.k_limit:
            reason = f"expected at most indexer.k_limit, {self.indexer.k_limit}, received {self.evaluator.retrieved_at}"
            faults.append((("evaluator", "retrieved_at"), reason))
        if faults:
            raise UserError("\n".join(f"{'.'.join(map(str, path))}: {reason}." for path, reason in faults))
        return spec


def load(path: Path, settings: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        path: the YAML file.
        settings: `key.path=value` each; the value is read as YAML and takes the place of the file's.

    Raises:
        UserError: one line for each fault: where, the key, what was expected and what came.
    """
    located = located_yaml.read(path)
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key:
            raise UserError(f"--set {key}: expected key=value, such as --set trainer.epochs=5.")
        try:
            parsed, _ = located_yaml.parse(value)
        except yaml.YAMLError as error:  # which may quote the value, and that may be a secret
            shown = "" if located_yaml.SECRET.search(key) else f": {getattr(error, 'problem', None) or error}"
            raise UserError(f"--set {key}: the value is not valid YAML{shown}.") from error
        located = located_yaml.override(located, tuple(key.split(".")), parsed)
    config = located_yaml.validate(Config, located)
    if set(str(config.root)) & set("*?[\0"):
        raise UserError(
            f"{located.where(('root',))}: root: expected a path without *, ? or [, received {str(config.root)!r}."
        )
    root = Path(os.path.realpath(config.root))  # by whatever links it is named, it is one root
    data = config.data.model_copy(
        update={
            name: source.model_copy(update={"path": _below(root, source.path)})
            for name in ("interactions", "catalogue", "users")
            if isinstance(source := getattr(config.data, name), SourceSettings)
        }
    )
    resolved = config.model_copy(update={"root": root, "dataset": path.parent / config.dataset, "data": data})
    _check_push_folder(resolved, located)
    return resolved


def _check_push_folder(config: Config, located: located_yaml.LocatedYaml) -> None:
    """Retention removes what it finds below the pipeline root by its name, and a version's folder has the name of an artifact's."""
    steps, pushed = os.path.realpath(config.pipeline_root), os.path.realpath(config.serving)
    if "://" not in config.serving and os.path.commonpath([pushed, steps]) in (pushed, steps):
        where = located.where(("pusher", "destination"))
        raise UserError(
            f"{where}: pusher.destination: expected a folder beside {steps}, where the steps leave their artifacts, received "
            f"{config.pusher.destination!r}."
        )


def _below(root: Path, path: str) -> str:
    """A path of the configuration: an address of an object store as it is, any other below the root."""
    return path if "://" in path else str(root / path)
