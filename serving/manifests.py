"""What is whole in a push folder; see `components.pusher.versions` for how it comes about.

That module writes, on any file system, and imports TFX. Whoever serves or asks only reads, and imports nothing heavy.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pushed:
    """A version whose parts are all there.

    Attributes:
        version: its number; the highest is live.
        parts: the folder of each part.
    """

    version: int
    parts: dict[str, Path]

    @property
    def models(self) -> dict[str, Path]:
        """The parts that TensorFlow can load."""
        return {name: folder for name, folder in self.parts.items() if (folder / "saved_model.pb").exists()}


def read(push_folder: Path) -> list[Pushed]:
    """Every whole version, oldest first; a manifest that is none is logged and left out, as no push makes such a file."""
    found = []
    for path in push_folder.glob("manifests/*.json"):
        try:
            content = json.loads(path.read_bytes())
            parts = {name: push_folder / place for name, place in content["parts"].items()}
            found.append(Pushed(int(content["version"]), parts))
        except FileNotFoundError:  # retention took it since the folder was listed
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error("%s: expected a version's manifest, found something else: %r. Move it away.", path, error)
    return sorted(found, key=lambda each: each.version)
