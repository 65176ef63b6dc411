"""The code and the configuration of a run, as recorded with it. Does not import TFX."""

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
    from pipeline.records import Records

PACKAGE = "ndr"
COMMIT_VARIABLE = "NDR_COMMIT"  # set when an image is built, which has no checkout


@dataclass(frozen=True)
class Origin:
    """The code and the configuration of a run.

    Attributes:
        version: the package's version.
        commit: the commit of the checkout or of the image; empty if unknown.
        changed: whether files of the checkout differed from the commit.
        code: a digest of all code, always known.
        configuration: the resolved configuration, with `features`, the feature specification, and `schemas`, the digest of each of
            the dataset's schemas. It names the source of a password, never the password.
    """

    version: str
    commit: str
    changed: bool
    code: str
    configuration: dict[str, Any]

    @property
    def configuration_digest(self) -> str:
        """A digest, equal for equal configurations."""
        return hashlib.sha256(json.dumps(self.configuration, sort_keys=True).encode()).hexdigest()[:16]


def of(config: Config) -> Origin:
    """Return the running code, and a configuration.

    Raises:
        schemas.errors.UserError: the feature specification is invalid.
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
    """Refuse a moved root: ML Metadata stores full paths, so it cannot find the artifacts of a moved root.

    Raises:
        schemas.errors.UserError: nothing is left at the last run's root.
    """
    last = records.last_root(config.name)
    if last and last[0] != str(config.root) and not (Path(last[0]) / config.pipeline_root.name).exists():
        root, run = last
        raise UserError(
            f"The root was {root} in run {run}, and is {config.root} now; ML Metadata records artifacts by the old path. Move "
            f"the root back, link it (ln -s {config.root} {root}), or start anew under another root or another name."
        )


def commit() -> tuple[str, bool]:
    """Return the commit of the code, and whether files changed since."""
    # Only of the code's own checkout, not of one that merely contains the environment of an installed package.
    if (digests.PROJECT / ".git").exists():
        try:
            return _git("rev-parse", "HEAD"), bool(_git("status", "--porcelain"))
        except (OSError, subprocess.CalledProcessError):  # no git here, or another user's checkout
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
