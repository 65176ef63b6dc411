"""The files of an analysis: in its artifact, and beside the model that was trained with it.

vocabulary_TABLE          an id a line, in the order of the embedding table's rows; part of Transform's graph
vocabulary_TABLE.parquet  the same ids with `count`
waiting_TABLE.parquet     ids without a row of their own, with `count`
counted.json              `span`: the last day of the counts, in days since 1970-01-01
scales.json               [mean, deviation] of each number
"""

import io
import json
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.analysis.vocabulary import COUNT, Known
from schemas.features import FeatureSpec

Scales = Mapping[str, tuple[float, float]]
"""The mean and the standard deviation of each number."""

VOCABULARY_PREFIX = "vocabulary_"
WAITING_PREFIX = "waiting_"
COUNTED = "counted.json"
SCALES = "scales.json"


def vocabulary_path(folder: str, table: str) -> str:
    """Return the path of a table's ids."""
    return str(PurePosixPath(folder) / f"{VOCABULARY_PREFIX}{table}")


def write(folder: str, known: Mapping[str, Known], scales: Scales, span: int) -> None:
    """Write an analysis.

    Args:
        folder: destination.
        known: the ids of each table.
        scales: of each number.
        span: the last day of the counts, in days since 1970-01-01.
    """
    for table, ids in known.items():
        io_utils.write_bytes_file(vocabulary_path(folder, table), b"".join(token + b"\n" for token in ids.own.index))
        _write_ids(f"{vocabulary_path(folder, table)}.parquet", ids.own)
        _write_ids(_waiting_path(folder, table), ids.waiting)
    io_utils.write_string_file(str(PurePosixPath(folder) / SCALES), json.dumps(scales, sort_keys=True))
    io_utils.write_string_file(str(PurePosixPath(folder) / COUNTED), json.dumps({"span": span}))


def read_vocabulary(folder: str, table: str) -> pd.DataFrame:
    """Read a table's ids with rows of their own; empty if all ids are hashed."""
    return _read_ids(f"{vocabulary_path(folder, table)}.parquet")


def read_known(folder: str, table: str) -> Known:
    """Read the ids that are counted for a table."""
    ids = read_vocabulary(folder, table)[[COUNT]].astype(np.float64)
    path = _waiting_path(folder, table)
    return Known(ids, _read_ids(path)) if fileio.exists(path) else Known(ids)  # older code wrote no waiting ids


def read_span(folder: str) -> int | None:
    """Read the last day of the counts, in days since 1970-01-01; None if older code wrote them."""
    path = str(PurePosixPath(folder) / COUNTED)
    return int(json.loads(io_utils.read_string_file(path))["span"]) if fileio.exists(path) else None


def has_table(folder: str, table: str) -> bool:
    """Return whether the table existed when the analysis was written."""
    return bool(fileio.exists(f"{vocabulary_path(folder, table)}.parquet"))


def table_rows(folder: str, spec: FeatureSpec) -> dict[str, int]:
    """Return the number of rows of each embedding table: vocabulary, hash buckets, and mask if it has one."""
    return {name: mask_row(folder, name, spec) + (name in spec.masked_tables) for name in spec.tables}


def mask_row(folder: str, table: str, spec: FeatureSpec) -> int:
    """Return the row of a table's mask, after all others."""
    return len(read_vocabulary(folder, table)) + spec.tables[table].hash_buckets


def read_scales(folder: str) -> dict[str, tuple[float, float]]:
    """Read the scale of each number."""
    scales = json.loads(io_utils.read_string_file(str(PurePosixPath(folder) / SCALES)))
    return {name: (mean, deviation) for name, (mean, deviation) in scales.items()}


def _waiting_path(folder: str, table: str) -> str:
    return str(PurePosixPath(folder) / f"{WAITING_PREFIX}{table}.parquet")


def _write_ids(path: str, ids: pd.DataFrame) -> None:
    content = io.BytesIO()
    ids.reset_index().to_parquet(content, index=False)
    io_utils.write_bytes_file(path, content.getvalue())


def _read_ids(path: str) -> pd.DataFrame:
    with fileio.open(path, "rb") as file:
        return pd.read_parquet(io.BytesIO(file.read())).set_index("token")
