"""The pushed versions as they are shown."""

import json

from rich.table import Table

from components.pusher.manifest import Manifest
from components.pusher.versions import PushFolder
from pipeline.rollback import RolledBack

RECALL = "recall_at_"


def as_json(root: str) -> str:
    """Every version of a push folder, oldest first: its manifest, and whether it is `live`."""
    manifests = PushFolder(root).manifests()
    listed = [{**each.model_dump(), "live": each is manifests[-1]} for each in manifests]
    return json.dumps(listed, indent=2) + "\n"


def table(root: str) -> Table | str:
    """A row a version, the newest last; or that there is none."""
    manifests = PushFolder(root).manifests()
    if not manifests:
        return f"Nothing was pushed to {root} yet."
    cutoffs = sorted(
        {int(name.removeprefix(RECALL)) for each in manifests for name in each.metrics if _is_recall(name)}
    )
    shown = Table("version", "day", "restores", *(f"recall@{k}" for k in cutoffs), "", title=root, title_justify="left")
    for each in manifests:
        recall = (f"{each.metrics[f'{RECALL}{k}']:.4f}" if f"{RECALL}{k}" in each.metrics else "" for k in cutoffs)
        shown.add_row(
            str(each.version), each.day, str(each.restores or ""), *recall, "live" if each is manifests[-1] else ""
        )
    return shown


def rollback_words(done: RolledBack) -> str:
    """What a rollback did, and what it means for the next day."""
    lines = [
        f"Version {done.live.version} is live: the content of {_named(done.live.content, done.live)}, in place of "
        f"{_named(done.instead_of.version, done.instead_of)}."
    ]
    for each in done.withdrawn:
        if each in done.unknown:
            lines.append(
                f"ML Metadata does not know the model of {_named(each.content, each)}: nothing goes on from it."
            )
        else:
            lines.append(
                f"The model of {_named(each.content, each)} is withdrawn: no day goes on from it, and days that did count as "
                f"changed. To bring it back: ndr push --rollback --to {each.version}"
            )
    return "\n".join(lines)


def _named(version: int, manifest: Manifest) -> str:
    return f"{version} ({manifest.day})"


def _is_recall(name: str) -> bool:
    return name.startswith(RECALL) and name.removeprefix(RECALL).isdecimal()
