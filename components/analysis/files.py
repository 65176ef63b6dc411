"""What an analysis is on disk: in its artifact, and beside the model that was trained behind it.

vocabulary_TABLE          an id a line, in the order of the embedding table's rows; part of Transform's graph
vocabulary_TABLE.parquet  the same ids with `count` and `last_seen`
scales.json               [mean, deviation] of each number
"""

import io
import json
from collections.abc import Mapping
from pathlib import PurePosixPath

import pandas as pd
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from schemas.features import FeatureSpec

Scales = Mapping[str, tuple[float, float]]
"""The mean and the standard deviation of each number."""

VOCABULARY_PREFIX = "vocabulary_"
SCALES = "scales.json"


def vocabulary_path(folder: str, table: str) -> str:
    """The file with a table's ids."""
    return str(PurePosixPath(folder) / f"{VOCABULARY_PREFIX}{table}")


def write(folder: str, vocabularies: Mapping[str, pd.DataFrame], scales: Scales) -> None:
    """Writes an analysis; see `components.analysis.vocabulary.entries` for what a vocabulary is."""
    for table, vocabulary in vocabularies.items():
        io_utils.write_bytes_file(vocabulary_path(folder, table), b"".join(token + b"\n" for token in vocabulary.index))
        content = io.BytesIO()
        vocabulary.reset_index().to_parquet(content, index=False)
        io_utils.write_bytes_file(f"{vocabulary_path(folder, table)}.parquet", content.getvalue())
    io_utils.write_string_file(str(PurePosixPath(folder) / SCALES), json.dumps(scales, sort_keys=True))


def read_vocabulary(folder: str, table: str) -> pd.DataFrame:
    """A table's vocabulary; without rows where every id is hashed."""
    with fileio.open(f"{vocabulary_path(folder, table)}.parquet", "rb") as file:
        return pd.read_parquet(io.BytesIO(file.read())).set_index("token")


def has_table(folder: str, table: str) -> bool:
    """Whether there was such a table when the analysis was written."""
    return bool(fileio.exists(f"{vocabulary_path(folder, table)}.parquet"))


def table_rows(folder: str, spec: FeatureSpec) -> dict[str, int]:
    """The number of rows of each embedding table: of its vocabulary, of its hash buckets, and of its mask if it has one."""
    return {name: mask_row(folder, name, spec) + (name in spec.masked_tables) for name in spec.tables}


def mask_row(folder: str, table: str, spec: FeatureSpec) -> int:
    """The row of a table's mask, behind all others."""
    return len(read_vocabulary(folder, table)) + spec.tables[table].hash_buckets


def read_scales(folder: str) -> dict[str, tuple[float, float]]:
    """The scale of each number."""
    kept = json.loads(io_utils.read_string_file(str(PurePosixPath(folder) / SCALES)))
    return {name: (mean, deviation) for name, (mean, deviation) in kept.items()}
