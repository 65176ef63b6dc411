"""The versions of a push folder, as their manifests describe them; TFX is imported only where the folder is an address."""

from pathlib import Path

from components.pusher.manifest import Manifest
from ndr_client.manifests import MANIFESTS, Manifests


def manifests(push_folder: str) -> list[Manifest]:
    """List every complete version, oldest first; the last is live.

    Raises:
        schemas.errors.UserError: the folder cannot be used.
    """
    if "://" in push_folder:
        from components.pusher.versions import PushFolder  # imports TFX

        return PushFolder(push_folder).manifests()
    root = Path(push_folder)
    return [
        Manifest.model_validate_json((root / MANIFESTS / f"{pushed.version}.json").read_bytes())
        for pushed in Manifests(root).read()
    ]
