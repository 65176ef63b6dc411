"""The pushed versions as they are shown."""

import json
from collections.abc import Mapping

from rich.table import Table

from components.pusher import labels
from components.pusher.manifest import Manifest
from components.pusher.versions import PushFolder
from pipeline.rollback import RolledBack
from schemas.errors import UserError

RECALL = "recall_at_"


def as_json(root: str) -> str:
    """Every version of a push folder, oldest first: its manifest, its `labels`, and whether it is `live`."""
    folder = PushFolder(root)
    manifests, given = folder.manifests(), labels.read(folder)
    listed = [
        {**each.model_dump(), "labels": _labels_of(each, given), "live": each is manifests[-1]} for each in manifests
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
    manifests, given = folder.manifests(), labels.read(folder)
    if not manifests:
        return f"Nothing was pushed to {root} yet."
    cutoffs = sorted(
        {int(name.removeprefix(RECALL)) for each in manifests for name in each.metrics if _is_recall(name)}
    )
    columns = ("version", "day", "refreshes", "restores", *(f"recall@{k}" for k in cutoffs), "labels", "")
    shown = Table(*columns, title=root, title_justify="left")
    for each in manifests:
        recall = (f"{each.metrics[f'{RECALL}{k}']:.4f}" if f"{RECALL}{k}" in each.metrics else "" for k in cutoffs)
        shown.add_row(
            str(each.version),
            each.day,
            str(each.refreshes or ""),
            str(each.restores or ""),
            *recall,
            ", ".join(_labels_of(each, given)),
            "live" if each is manifests[-1] else "",
        )
    return shown


def label_words(given: Mapping[str, int]) -> str:
    """Which version has which label."""
    return (
        "\n".join(f"{label}: version {version}" for label, version in sorted(given.items()))
        or "No version has a label."
    )


def rollback_words(done: RolledBack) -> str:
    """Describe a rollback and its consequence for the next day."""
    lines = [
        f"Version {done.live.version} is live: the content of {_named(done.live.content, done.live)}, in place of "
        f"{_named(done.instead_of.version, done.instead_of)}."
    ]
    for each in done.withdrawn:
        if each.model == done.live.model:
            lines.append(
                f"The catalogue of {_named(each.content, each)} is rolled back; the live version has the same model."
            )
        elif each in done.unknown:
            lines.append(
                f"ML Metadata does not know the model of {_named(each.content, each)}: no day continues from it."
            )
        else:
            lines.append(
                f"The model of {_named(each.content, each)} is withdrawn: no day continues from it, and days that did count as "
                f"changed. To bring it back: ndr push --rollback --to {each.version}"
            )
    return "\n".join(lines)


def _named(version: int, manifest: Manifest) -> str:
    return f"{version} ({manifest.day})"


def _labels_of(manifest: Manifest, given: Mapping[str, int]) -> list[str]:
    return sorted(label for label, version in given.items() if version == manifest.version)


def _is_recall(name: str) -> bool:
    return name.startswith(RECALL) and name.removeprefix(RECALL).isdecimal()
