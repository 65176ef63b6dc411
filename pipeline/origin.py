"""The code and the configuration that a run is made from, as they are recorded with it. TFX is not imported."""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import digests
from pipeline.config import Config
from schemas import contract
from schemas.errors import UserError

if TYPE_CHECKING:
    from pipeline.metadata import Records

PACKAGE = "ndr"
COMMIT_VARIABLE = "NDR_COMMIT"  # for an image, which has no checkout: set when it is built


@dataclass(frozen=True)
class Origin:
    """What a run is made from.

    Attributes:
        version: the package's version.
        commit: the commit of the checkout that the code is from, or of the image; empty where neither is known.
        changed: whether files of the checkout differed from the commit.
        code: a digest of all code, known everywhere.
        configuration: the resolved configuration; besides, `features` is the feature specification and `schemas` has the digest of
            each schema that the dataset has. It holds no password: it says where that is read.
    """

    version: str
    commit: str
    changed: bool
    code: str
    configuration: dict[str, Any]

    @property
    def configuration_digest(self) -> str:
        """Two configurations with the same digest are the same."""
        return hashlib.sha256(json.dumps(self.configuration, sort_keys=True).encode()).hexdigest()[:16]


def of(config: Config) -> Origin:
    """The code that runs here, and a configuration.

    Raises:
        schemas.errors.UserError: the feature specification is at fault.
    """
    of_checkout, changed = commit()
    schemas = [config.dataset / name for name in (contract.INTERACTIONS_FILE, contract.CATALOGUE_FILE)]
    digest_of = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in schemas if path.exists()}
    configuration = {
        **config.model_dump(mode="json"),
        "features": config.feature_spec().model_dump(mode="json"),
        "schemas": digest_of,
    }
    return Origin(
        version=metadata.version(PACKAGE),
        commit=of_checkout,
        changed=changed,
        code=digests.code((*digests.STEP_CODE, *digests.WIRING)),
        configuration=configuration,
    )


def check_root(config: Config, records: "Records") -> None:
    """ML Metadata knows what the steps made by its full path: a root that was moved away from there has lost it.

    Raises:
        schemas.errors.UserError: nothing is left at the root that the last run had.
    """
    last = records.last_root(config.name)
    if last and last[0] != str(config.root) and not (Path(last[0]) / config.pipeline_root.name).exists():
        root, run = last
        raise UserError(
            f"The root was {root} when run {run} was made, and is {config.root} now; ML Metadata knows what was made by the old "
            f"path. Move it back, link it (ln -s {config.root} {root}), or begin anew under another root or another name."
        )


def commit() -> tuple[str, bool]:
    """The commit that the code is from, and whether something was changed since."""
    # Not of whatever checkout the environment lies in where the package was installed into one.
    if (digests.PROJECT / ".git").exists():
        try:
            return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain"))
        except (OSError, subprocess.CalledProcessError):  # no git here, or a checkout of someone else's
            pass
    return os.environ.get(COMMIT_VARIABLE, ""), False


def _git(*command: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(digests.PROJECT), *command],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return answer.stdout.strip()
