"""Reads the output of `ndr kubeflow compile`."""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml

from pipeline import config as configuration
from pipeline import digests
from pipeline.config import Config
from schemas.errors import UserError

PARAMETERS = {"date", "days_back", "make_up_days", "settings"}
OF_REFRESH = {"date", "settings"}


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        path: its file.
        name: the pipeline's name, also that of its schedule and its experiment.
        version: a digest of the file, which names its version on Kubeflow.
        config: the configuration's path in the image.
        definition: the digest of the code and configuration that it was compiled from.
        settings: `key=value` each, over the configuration's.
        is_refresh: whether it gives versions newer catalogues, and trains none.
    """

    path: Path
    name: str
    version: str
    config: Path
    definition: str
    settings: tuple[str, ...]
    is_refresh: bool = False

    def configuration(self) -> Config:
        """Read its configuration on this machine.

        Raises:
            UserError: it is not here, or the code or configuration here differs from what it was compiled from.
        """
        loaded = configuration.load(self.config, self.settings)
        current = digests.definition(self.config, loaded)
        if current != self.definition:
            raise UserError(
                f"{self.path} was compiled from other code or another configuration ({self.definition}) than is here ({current}). "
                "Run this in the image that the pipeline names, or compile it again: ndr kubeflow compile."
            )
        return loaded


def read_package(path: Path) -> Package:
    """Read the output of `ndr kubeflow compile`.

    Raises:
        UserError: the file does not exist, or is something else.
    """
    try:
        content = path.read_bytes()
        pipeline, _ = yaml.safe_load_all(content)
        parameters = pipeline["root"]["inputDefinitions"]["parameters"]
        if parameters.keys() not in (PARAMETERS, OF_REFRESH):
            raise UserError(
                f"{path}: expected a pipeline with the parameters {', '.join(sorted(PARAMETERS))}, found "
                f"{', '.join(sorted(parameters))}: it was compiled by other code. Compile it again: ndr kubeflow compile."
            )
        words = pipeline["deploymentSpec"]["executors"]["exec-begin"]["container"]["args"]
        options = dict(pairwise(words))
        return Package(
            path=path,
            name=str(pipeline["pipelineInfo"]["name"]),
            version=hashlib.sha256(content).hexdigest()[:16],
            config=Path(options["--config"]),
            definition=str(options["--definition"]),
            settings=tuple(parameters["settings"]["defaultValue"]),
            is_refresh=parameters.keys() == OF_REFRESH,
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: expected what `ndr kubeflow compile` writes, found something else: {error}."
        ) from error
