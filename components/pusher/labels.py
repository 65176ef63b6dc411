"""Labels of versions, such as `stable` and `canary`: names that clients ask by, which move from version to version.

They are kept in TF Serving's own configuration, `models.config` in the push folder, which the embedded server reads too. A version
that has a label stays served, and stays in the push folder. TF Serving serves a number of newest versions; so that a labelled one
is among them at any moment, that number is one larger than needed, and is written anew before each push.
"""

import logging
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping

from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.pusher import files, tf_serving
from components.pusher.manifest import find, in_force
from components.pusher.versions import PushFolder
from components.whole_files import write_whole
from ndr_client.served import MODELS, models_of
from schemas.errors import UserError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
_log = logging.getLogger(__name__)


def read(folder: PushFolder) -> dict[str, int]:
    """Return the version of each label.

    Raises:
        UserError: the folder cannot be used, or its models.config is not TF Serving's.
    """
    path = posixpath.join(folder.root, tf_serving.MODEL_CONFIG)
    if not files.exists(path):
        return {}
    try:
        return tf_serving.labels(io_utils.read_string_file(path))
    except ValueError as error:
        raise UserError(f"{path}: {error}. Move it away; labels have to be given again.") from error


def configure(folder: PushFolder, components: Iterable[str] = MODELS) -> None:
    """Write TF Serving's configuration for this path of the push folder, before a push; labels stay.

    The live version's models stay in it too: where another number of shards is pushed, clients of either are answered until the
    next push.

    Args:
        folder: the push folder.
        components: those of the version that will be pushed.

    Raises:
        UserError: as `read`.
    """
    labels = read(folder)
    fileio.makedirs(folder.root)
    _write(folder, tf_serving.BATCHING_CONFIG, tf_serving.batching_parameters())
    live = [name for manifest in folder.manifests()[-1:] for name in manifest.parts]
    models = dict.fromkeys(models_of([*components, *live]))
    _write_models(folder, tf_serving.model_config(folder.root, models), labels)


def assign(folder: PushFolder, label: str, version: int) -> dict[str, int]:
    """Assign a label to a version; it may move from another.

    Returns:
        All labels, by name the version.

    Raises:
        UserError: the name is invalid, or the version is not there, was rolled back, or is damaged. Nothing was changed.
    """
    if not NAME.fullmatch(label):
        raise UserError(
            f"Expected a label of a letter and up to 62 letters, digits, '.', '_' or '-', received {label!r}."
        )
    manifests = folder.manifests()
    if find(manifests, version).content not in {manifest.content for manifest in in_force(manifests)}:
        raise UserError(
            f"Expected a version that was not rolled back, received {version}. To bring it back: ndr push --rollback --to {version}"
        )
    if faults := folder.verify(version):
        raise UserError(f"{folder.root}: expected version {version} as it was pushed, but {'; '.join(faults)}.")
    return _change(folder, {**read(folder), label: version})


def remove(folder: PushFolder, label: str) -> dict[str, int]:
    """Remove a label.

    Returns:
        The labels that remain, by name the version.

    Raises:
        UserError: no version has it.
    """
    resolve(folder, label)
    return _change(folder, {name: version for name, version in read(folder).items() if name != label})


def resolve(folder: PushFolder, label: str) -> int:
    """Return the version of a label.

    Raises:
        UserError: none has it.
    """
    labels = read(folder)
    if label not in labels:
        raise UserError(f"Expected a label that a version has, received {label!r}. There are: {_listed(labels)}.")
    return labels[label]


def move_from(folder: PushFolder, base: int, to: int) -> None:
    """Move the labels of a version that was refreshed to its refresh."""
    labels = read(folder)
    if base in labels.values():
        _change(folder, {name: to if version == base else version for name, version in labels.items()})


def move(folder: PushFolder, withdrawn: Collection[int], to: int) -> None:
    """Move the labels of the versions that a rollback withdraws.

    Args:
        folder: the push folder.
        withdrawn: the versions under which their contents were first pushed.
        to: the version that has the labels from now on.
    """
    contents = {manifest.version: manifest.content for manifest in folder.manifests()}
    labels = read(folder)
    moved = {name: to for name, version in labels.items() if contents.get(version) in withdrawn}
    if moved:
        _change(folder, {**labels, **moved})


def replace(folder: PushFolder, labels: Mapping[str, int]) -> None:
    """Replace all labels; the versions that have them must be there."""
    _change(folder, labels)


def _change(folder: PushFolder, labels: Mapping[str, int]) -> dict[str, int]:
    """Replace the labels; the rest of the configuration stays, as servers may see the folder under another path."""
    path = posixpath.join(folder.root, tf_serving.MODEL_CONFIG)
    if files.exists(path):
        return _write_models(folder, io_utils.read_string_file(path), labels)
    models = models_of(name for manifest in folder.manifests()[-1:] for name in manifest.parts)
    return _write_models(folder, tf_serving.model_config(folder.root, models), labels)


def _write_models(folder: PushFolder, config: str, labels: Mapping[str, int]) -> dict[str, int]:
    newest_first = [manifest.version for manifest in reversed(folder.manifests())]
    present = {label: version for label, version in labels.items() if version in newest_first}
    if lost := labels.keys() - present.keys():
        _log.warning("%s: the versions of the labels %s are gone; the labels are removed", folder.root, _listed(lost))
    positions = [newest_first.index(version) for version in present.values()]
    count = max([tf_serving.KEPT_VERSIONS, *(position + 2 for position in positions)])  # itself, and the next push
    labelled = tf_serving.with_labels(config, present, count)
    for name, text in {tf_serving.MODEL_CONFIG: labelled, **tf_serving.configs_of_shards(labelled)}.items():
        _write(folder, name, text)
    return present


def _write(folder: PushFolder, name: str, text: str) -> None:
    write_whole(posixpath.join(folder.root, name), text.encode())


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(sorted(labels)) or "none"
