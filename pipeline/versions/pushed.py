"""The pushed versions as they are shown."""

import json
from collections.abc import Mapping

from rich.table import Table

from components.pusher import labels
from components.pusher.manifest import Manifest
from components.pusher.versions import PushFolder
from pipeline.versions.rollback import RolledBack
from schemas.errors import UserError

RECALL = "recall_at_"


def as_json(root: str) -> str:
    """Every version of a push folder, oldest first: its manifest, its `labels`, and whether it is `live`."""
    folder = PushFolder(root)
    manifests, labelled = folder.manifests(), labels.read(folder)
    listed = [
        {**manifest.model_dump(), "labels": _labels_of(manifest, labelled), "live": manifest is manifests[-1]}
        for manifest in manifests
    ]
    return json.dumps(listed, indent=2) + "\n"


def live(folder: PushFolder) -> int:
    """Return the live version.

    Raises:
        UserError: nothing was pushed yet.
    """
    manifests = folder.manifests()
    if not manifests:
        raise UserError(f"Nothing was pushed to {folder.root} yet.")
    return manifests[-1].version


def table(root: str) -> Table | str:
    """Tabulate the versions, the newest last, or report that there are none."""
    folder = PushFolder(root)
    manifests, labelled = folder.manifests(), labels.read(folder)
    if not manifests:
        return f"Nothing was pushed to {root} yet."
    cutoffs = sorted(
        {int(name.removeprefix(RECALL)) for manifest in manifests for name in manifest.metrics if _is_recall(name)}
    )
    columns = ("version", "day", "refreshes", "restores", *(f"recall@{k}" for k in cutoffs), "labels", "")
    shown = Table(*columns, title=root, title_justify="left")
    for manifest in manifests:
        recall = (
            f"{manifest.metrics[f'{RECALL}{k}']:.4f}" if f"{RECALL}{k}" in manifest.metrics else "" for k in cutoffs
        )
        shown.add_row(
            str(manifest.version),
            manifest.day,
            str(manifest.refreshes or ""),
            str(manifest.restores or ""),
            *recall,
            ", ".join(_labels_of(manifest, labelled)),
            "live" if manifest is manifests[-1] else "",
        )
    return shown


def label_words(labelled: Mapping[str, int]) -> str:
    """Which version has which label."""
    return (
        "\n".join(f"{label}: version {version}" for label, version in sorted(labelled.items()))
        or "No version has a label."
    )


def rollback_words(done: RolledBack) -> str:
    """Describe a rollback and its consequence for the next day."""
    lines = [
        f"Version {done.live.version} is live: the content of {_named(done.live.content, done.live)}, in place of "
        f"{_named(done.instead_of.version, done.instead_of)}."
    ]
    for manifest in done.withdrawn:
        if manifest.model == done.live.model:
            lines.append(
                f"The catalogue of {_named(manifest.content, manifest)} is rolled back; the live version has the same model."
            )
        elif manifest in done.unknown:
            lines.append(
                f"ML Metadata does not know the model of {_named(manifest.content, manifest)}: no day continues from it."
            )
        else:
            lines.append(
                f"The model of {_named(manifest.content, manifest)} is withdrawn: no day continues from it, and days that did "
                f"count as changed. To bring it back: ndr push --rollback --to {manifest.version}"
            )
    return "\n".join(lines)


def _named(version: int, manifest: Manifest) -> str:
    return f"{version} ({manifest.day})"


def _labels_of(manifest: Manifest, labelled: Mapping[str, int]) -> list[str]:
    return sorted(label for label, version in labelled.items() if version == manifest.version)


def _is_recall(name: str) -> bool:
    return name.startswith(RECALL) and name.removeprefix(RECALL).isdecimal()
