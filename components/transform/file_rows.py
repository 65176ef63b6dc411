"""The number of rows of each file of transformed examples, by which several processes divide them without reading them first."""

import json
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.records import read_batches
from components.whole_files import write_whole

FILE_ROWS = "rows.json"


def write_file_rows(rows: Mapping[str, int], folder: str) -> None:
    """Write how many rows the files of an artifact's split have.

    Args:
        rows: by the name of a file.
        folder: the artifact's.
    """
    write_whole(os.path.join(folder, FILE_ROWS), json.dumps(dict(sorted(rows.items()))).encode())


def rows_of_files(patterns: Sequence[str]) -> dict[str, int]:
    """Return the rows of each file by its path, in the order of paths; files that no artifact counts are read for it.

    Args:
        patterns: of the files of an artifact's split.
    """
    paths = sorted(path for pattern in patterns for path in tf.io.gfile.glob(pattern))
    written = {artifact: _written(artifact) for artifact in {_artifact_and_name(path)[0] for path in paths}}
    return {path: _rows(path, written) for path in paths}


def _artifact_and_name(path: str) -> tuple[str, str]:
    split, _, name = path.rpartition("/")
    return split.rpartition("/")[0], name


def _written(artifact: str) -> dict[str, int]:
    path = os.path.join(artifact, FILE_ROWS)
    return json.loads(io_utils.read_string_file(path)) if fileio.exists(path) else {}


def _rows(path: str, written: Mapping[str, Mapping[str, int]]) -> int:
    artifact, name = _artifact_and_name(path)
    rows = written[artifact].get(name)
    return sum(map(len, read_batches([path]))) if rows is None else rows
