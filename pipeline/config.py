"""The configuration: one YAML file a dataset plus `--set key=value`, typed, validated once, frozen."""

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
from components.refresh.settings import RefreshSettings
from components.trainer.settings import TrainerSettings
from components.tuner.settings import TunerSettings
from pipeline.beam_settings import BeamSettings
from pipeline.export.settings import ExportSettings
from pipeline.kubeflow.settings import KubeflowSettings
from pipeline.metadata_settings import MetadataSettings, SqliteSettings
from pipeline.monitoring.settings import MonitoringSettings
from schemas import features, located_yaml
from schemas.declaration import Declaration
from schemas.errors import UserError
from schemas.features import FeatureSpec
from serving.settings import ServerConfig


class RetentionSettings(Declaration):
    """What stays on disk; the rest is removed after a run.

    Attributes:
        days: keeps the artifacts of the newest `days` days with runs. Days without a run do not count.
        versions: keeps the newest version of each of the newest `versions` pushed days, so that running a day again removes no
            other day's version; from 2 on also the version live before the last; and always labelled versions.
    """

    days: PositiveInt = 14
    versions: PositiveInt = 5


class Config(Declaration):
    """All settings of a run except the day.

    Attributes:
        name: the pipeline's name in ML Metadata.
        dataset: the folder with the feature specification and the schemas; relative to the configuration file.
        root: the folder under which everything is kept; relative to the working directory.
        data: where interactions and the catalogue lie, and how they are read and split; paths relative to the root.
        validation: how far a day may differ from the one before.
        trainer: the model and its training.
        tuner: the settings that `ndr tune` searches.
        indexer: the index over the catalogue.
        counts: what the baselines remember of earlier days.
        evaluator: what is measured, and the limits for a push.
        pusher: where a version is pushed to.
        refresh: limits of `ndr refresh`.
        export: where `ndr export` writes to.
        server: settings of the embedded server of `ndr serve`.
        retention: what stays on disk.
        metadata: where ML Metadata is stored.
        monitoring: where the metrics of the days go.
        kubeflow: how the steps run on Kubeflow; needed only there.
        beam: how Apache Beam runs its steps.
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
    refresh: RefreshSettings = RefreshSettings()
    export: ExportSettings = ExportSettings()
    server: ServerConfig = ServerConfig()
    retention: RetentionSettings = RetentionSettings()
    metadata: MetadataSettings = Field(default=SqliteSettings(), discriminator="store")
    monitoring: MonitoringSettings = MonitoringSettings()
    kubeflow: KubeflowSettings | None = None
    beam: BeamSettings = BeamSettings()

    @property
    def pipeline_root(self) -> Path:
        """The folder of the steps' artifacts."""
        return self.root / "pipeline_root"

    @property
    def metadata_path(self) -> Path:
        """The ML Metadata file, if `metadata` is SQLite."""
        return self.root / "metadata.sqlite"

    @property
    def serving(self) -> str:
        """The push folder, which TF Serving watches: a path, or an object store address."""
        return below(self.root, self.pusher.destination)

    @property
    def logs(self) -> Path:
        """The folder with a log file for each command."""
        return self.root / "logs"

    def cautions(self) -> list[str]:
        """Return warnings about settings that are valid but perhaps unintended, a sentence each.

        Raises:
            UserError: as `feature_spec`.
        """
        spec, cautions = self.feature_spec(), []
        if not spec.content_features:
            cautions.append(
                f"{self.dataset / features.FILE_NAME}: item: items have no feature but their id, so the model cannot "
                "recommend an item before its first interaction. Give the item tower features of a new item, such as kind or maker."
            )
        if spec.history and self.data.window_days + self.data.history_before(self.data.window_days) == 1:
            name, feature = spec.history
            cautions.append(
                f"data.history_days: with 0 and data.window_days: 1, {name} holds only the same day's earlier items in training, "
                f"but a request's last {feature.last} items of any day. Leave history_days out, and a week is read for histories."
            )
        return cautions

    def feature_spec(self) -> FeatureSpec:
        """Read the dataset's feature specification.

        Raises:
            UserError: it is invalid, or lacks what this configuration names.
        """
        spec = features.load(self.dataset)
        if self.data.catalogue == FROM_LOG and spec.catalogue.item != spec.interactions.item:
            raise UserError(
                f"{self.dataset / features.FILE_NAME}: catalogue.item: expected {spec.interactions.item}, the log's item column, "
                f"because data.catalogue is {FROM_LOG}; received {spec.catalogue.item}."
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
    """Read a configuration.

    Args:
        path: the YAML file.
        settings: `key.path=value` each; the value is parsed as YAML and overrides the file's.

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
        except yaml.YAMLError as error:  # its message may quote the value, which may be a secret
            shown = "" if located_yaml.SECRET.search(key) else f": {getattr(error, 'problem', None) or error}"
            raise UserError(f"--set {key}: the value is not valid YAML{shown}.") from error
        located = located_yaml.override(located, tuple(key.split(".")), parsed)
    config = located_yaml.validate(Config, located)
    if set(str(config.root)) & set("*?[\0"):
        raise UserError(
            f"{located.where(('root',))}: root: expected a path without *, ? or [, received {str(config.root)!r}."
        )
    root = Path(os.path.realpath(config.root))  # the same root through any link
    data = config.data.model_copy(
        update={
            name: source.model_copy(update={"path": below(root, source.path)})
            for name in ("interactions", "catalogue", "users")
            if isinstance(source := getattr(config.data, name), SourceSettings)
        }
    )
    resolved = config.model_copy(update={"root": root, "dataset": path.parent / config.dataset, "data": data})
    _check_push_folder(resolved, located)
    return resolved


def _check_push_folder(config: Config, located: located_yaml.LocatedYaml) -> None:
    """Refuse a push folder inside the pipeline root: retention removes artifacts there by name, and versions look the same."""
    steps, pushed = os.path.realpath(config.pipeline_root), os.path.realpath(config.serving)
    if "://" not in config.serving and os.path.commonpath([pushed, steps]) in (pushed, steps):
        where = located.where(("pusher", "destination"))
        raise UserError(
            f"{where}: pusher.destination: expected a folder beside {steps}, where the steps leave their artifacts, received "
            f"{config.pusher.destination!r}."
        )


def below(root: Path, path: str) -> str:
    """Resolve a path of the configuration: object store addresses stay, other paths are relative to the root."""
    return path if "://" in path else str(root / path)
