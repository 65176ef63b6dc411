"""Asks a version in a push folder without a server, like `ndr_client.Client` asks one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.pusher import tf_serving
from ndr_client import Found
from ndr_client.manifests import Manifests
from ndr_client.merging import merged
from ndr_client.served import (
    EMBEDDING,
    EMBEDDINGS_SIGNATURE,
    EXAMPLES,
    EXAMPLES_SIGNATURE,
    EXCLUDE,
    ITEM_IDS,
    ITEM_TOWER,
    RETRIEVER,
    SCORES,
    WHERE,
    K,
    names_of,
)
from pipeline.asking import one_question
from pipeline.asking.one_question import Inputs
from schemas.errors import UserError


class PushedVersion:
    """The newest version of a push folder, or one with a label. Each question loads the SavedModels that it needs.

    Args:
        push_folder: a folder of this machine.
        label: the version's label; None for the newest.

    Raises:
        UserError: the push folder is an address, or no version has the label.
    """

    def __init__(self, push_folder: str, label: str | None) -> None:
        if "://" in push_folder:
            raise UserError(
                f"{push_folder}: expected --server beside an address: only folders are read here, such as ndr mirror's."
            )
        pushed = {manifest.version: manifest for manifest in Manifests(Path(push_folder)).read()}
        self._version = _labelled(push_folder, label) if label else max(pushed)
        if self._version not in pushed:
            raise UserError(
                f"{push_folder}: expected version {self._version}, which has the label {label!r}; it is gone."
            )
        self._pushed = pushed[self._version]
        self._label = label

    def retrieve(self, queries: Sequence[bytes], k: int, version: str | None = None) -> Found:
        """Retrieve like `ndr_client.Client.retrieve`, from the chosen version."""
        asked: Inputs = {EXAMPLES: list(queries), K: [k] * len(queries)}
        return self._retrieved(EXAMPLES_SIGNATURE, asked)

    def similar(
        self,
        items: Sequence[bytes],
        ids: Sequence[bytes],
        k: int,
        *,
        where: Sequence[Sequence[str]] | None = None,
        version: str | None = None,
    ) -> Found:
        """Find similar items like `ndr_client.Client.similar`, from the chosen version."""
        (embedding,) = one_question.ask(
            self._folder(ITEM_TOWER), EXAMPLES_SIGNATURE, {EXAMPLES: list(items)}, (EMBEDDING,)
        )
        asked: dict[str, Sequence[Any]] = {
            EMBEDDING: embedding.tolist(),
            K: [k] * len(ids),
            EXCLUDE: [[id_] for id_ in ids],
        }
        if where:
            asked[WHERE] = [[condition.encode() for condition in conditions] for conditions in where]
        return self._retrieved(EMBEDDINGS_SIGNATURE, asked)

    def _retrieved(self, signature: str, inputs: Inputs) -> Found:
        names = names_of(RETRIEVER, self._pushed.parts)
        answers = [tuple(one_question.ask(self._folder(name), signature, inputs, (ITEM_IDS, SCORES))) for name in names]
        ids, scores = answers[0] if len(names) == 1 else merged(answers, np.array(inputs[K], np.int32))
        return Found(ids, scores, self._version, self._label)

    def _folder(self, model: str) -> Path:
        """Return a SavedModel's folder after checking that its files are the pushed ones."""
        if model not in self._pushed.parts:
            raise UserError(
                f"{self._pushed.root}: expected a version with {model}, found {', '.join(self._pushed.parts)}."
            )
        if faults := self._pushed.faults([model]):
            raise UserError(f"{self._pushed.root}: expected a version that can be served: {'; '.join(faults)}")
        return self._pushed.parts[model]


def _labelled(push_folder: str, label: str) -> int:
    try:
        labels = tf_serving.labels((Path(push_folder) / tf_serving.MODEL_CONFIG).read_text())
    except (FileNotFoundError, ValueError):
        labels = {}
    if label not in labels:
        listed = ", ".join(sorted(labels)) or "none"
        raise UserError(f"Expected a label that a version has, received {label!r}. There are: {listed}.")
    return labels[label]
