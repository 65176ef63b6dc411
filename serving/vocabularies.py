"""Tells which ids of a query are in the vocabularies of its model. All others share hash buckets."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.analysis.files import VOCABULARY_PREFIX
from ndr_client import served
from serving.extent import parse_examples, values

Counts = dict[str, tuple[int, int]]


class Vocabularies:
    """The vocabularies in a model's assets, as 64-bit hashes of the ids.

    Args:
        folder: the folder of the SavedModel.
        tables: the embedding table of each measured feature; those without a vocabulary are ignored.
    """

    def __init__(self, folder: Path, tables: Mapping[str, str]) -> None:
        paths = {name: folder / "assets" / f"{VOCABULARY_PREFIX}{table}" for name, table in tables.items()}
        known = {path: _hashes(path.read_bytes().splitlines()) for path in {*paths.values()} if path.is_file()}
        self._known = {name: known[path] for name, path in paths.items() if path in known}

    def count(self, inputs: Mapping[str, NDArray[Any]]) -> Counts:
        """Count by feature the ids of a request's queries, and the unknown ones."""
        if not self._known:
            return {}
        if served.EXAMPLES in inputs:
            examples = [example.features.feature for example in parse_examples(inputs[served.EXAMPLES])]
            ids = {
                name: [id_ for of_example in examples if name in of_example for id_ in values(of_example[name])]
                for name in self._known
            }
        else:
            ids = {name: [id_ for id_ in inputs[name].ravel() if id_] for name in self._known if name in inputs}
        return {
            name: (len(occurrences), self._unknown(name, occurrences))
            for name, occurrences in ids.items()
            if occurrences
        }

    def _unknown(self, name: str, ids: list[bytes]) -> int:
        known, hashes = self._known[name], _hashes(ids)
        places = np.minimum(np.searchsorted(known, hashes), max(len(known) - 1, 0))
        return len(ids) - int(np.count_nonzero(known[places] == hashes)) if len(known) else len(ids)


def _hashes(ids: Iterable[bytes]) -> NDArray[np.int64]:
    return np.sort(np.fromiter(map(hash, ids), np.int64))
