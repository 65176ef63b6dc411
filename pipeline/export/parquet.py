"""A folder of Parquet files: a subfolder for each version, and a file that names the live one.

live.json                  `version`, `day`, and the `path` of the live version's file; replaced at once
KEY/items.parquet          `candidate_id`, `embedding`, and the filter columns
KEY/manifest.json          what the version is, with its files' checksums; written last
.unfinished/KEY/           a version that is being written or checked
"""

import json
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.utils import io_utils

from components.pusher import files
from components.pusher.files import Source
from components.pusher.manifest import Digest
from components.whole_files import write_whole
from pipeline import lock
from pipeline.checks import disk
from pipeline.config import Config, below
from pipeline.export.store import EMBEDDING, VERSION, Answers, Described, Exported, Items, Store
from schemas.errors import UserError
from schemas.features import CANDIDATE_ID

ITEMS, MANIFEST, LIVE, UNFINISHED = "items.parquet", "manifest.json", "live.json", ".unfinished"
KEY = re.compile(r"\d+_[0-9a-f]{8}")
ROWS = 1 << 16  # of a row group: tens of megabytes


class Description(Described):
    """What a version's folder holds; `version` is the one that it was written as.

    Attributes:
        files: the digest of each file, by name.
    """

    files: dict[str, Digest]


@contextmanager
def opened(config: Config, writes: bool) -> Iterator[Store]:
    """Open the configured folder; see `pipeline.export.stores.opened`."""
    folder = below(config.root, config.export.parquet.folder)
    # An address has no locks: there it is one export of this root at a time.
    local = config.root if "://" in folder else Path(folder)
    try:
        if not writes:
            yield Parquet(folder)
            return
        with lock.exporting(local):
            store = Parquet(folder)
            store.clean()
            yield store
    except UserError:
        raise
    except (OSError, tf.errors.OpError) as error:
        if disk.is_full(error, local) or isinstance(error, tf.errors.ResourceExhaustedError):
            raise UserError(
                f"The disk that holds {folder} is full. What is live there stays. Make room, and run the same command again."
            ) from None
        reason = error.strerror or error if isinstance(error, OSError) else error.message
        raise UserError(
            f"{folder} cannot be used: {reason}. See to it, or name another: --set export.parquet.folder=DIR."
        ) from error


class Parquet(Store):
    """See the module.

    Args:
        folder: a path or an address.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        """Override."""
        return self._folder

    def clean(self) -> None:
        """Remove what a killed export or removal left."""
        fileio.makedirs(self._folder)
        for name in self._folders():
            if not fileio.exists(self._path(name, MANIFEST)):
                fileio.rmtree(self._path(name))

    def exported(self) -> list[Exported]:
        """Override."""
        described = [manifest for name in self._folders() if (manifest := self._described(name))]
        live, version = self._live()
        return [
            Exported(
                **manifest.model_dump(exclude={"files", VERSION}),
                version=version if manifest.key == live else manifest.version,
                is_live=manifest.key == live,
            )
            for manifest in sorted(described, key=lambda manifest: (manifest.exported_at, manifest.key))
        ]

    def put(self, items: Items) -> None:
        """Override."""
        staged, width = self._path(UNFINISHED, items.key), items.embeddings.shape[1]
        fileio.makedirs(staged)
        table = pa.table(
            {
                CANDIDATE_ID: items.ids,
                EMBEDDING: pa.FixedSizeListArray.from_arrays(pa.array(items.embeddings.reshape(-1)), width),
                **{name: items.columns.column(name) for name in items.columns.column_names},
            }
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, row_group_size=ROWS, compression="zstd", use_dictionary=False)
        write_whole(posixpath.join(staged, ITEMS), sink.getvalue().to_pybytes())
        described = Description(
            key=items.key,
            version=items.version,
            day=items.day,
            items=len(items.ids),
            width=width,
            exported_at=datetime.now(UTC),
            files=files.digests(Source(staged)),
        )
        write_whole(posixpath.join(staged, MANIFEST), described.model_dump_json(indent=2).encode())

    def search(self, key: str, queries: NDArray[np.float32], k: int) -> Answers:
        """Override."""
        table = self._read(key)
        embeddings = table.column(EMBEDDING).combine_chunks()
        vectors = embeddings.flatten().to_numpy().reshape(len(embeddings), -1)
        scores, positions = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        ids = table.column(CANDIDATE_ID)
        return [
            (ids.take(pa.array(nearest)).to_pylist(), nearest_scores.tolist())
            for nearest, nearest_scores in zip(positions, scores, strict=True)
        ]

    def minimum_recall(self, key: str) -> float:
        """Override."""
        return 1.0

    def advice(self, key: str) -> str:
        """Override."""
        return f"If {self._path(key)} is from an earlier export, remove it. Then export again."

    def flip(self, key: str, version: int) -> None:
        """Override."""
        if fileio.exists(self._path(UNFINISHED, key)):
            files.move(self._path(UNFINISHED, key), self._path(key))
            if fileio.exists(self._path(UNFINISHED)):  # an object store has no empty folders
                fileio.rmtree(self._path(UNFINISHED))
        described = self._described(key)
        assert described
        live = {VERSION: version, "day": described.day, "path": f"{key}/{ITEMS}"}
        write_whole(self._path(LIVE), f"{json.dumps(live, indent=2)}\n".encode())

    def remove(self, key: str) -> bool:
        """Override."""
        fileio.remove(self._path(key, MANIFEST))  # from here on it is no version, and `clean` completes the removal
        fileio.rmtree(self._path(key))
        return True

    def _read(self, key: str) -> pa.Table:
        """Read a version's file, staged or not, after comparing it with its checksum."""
        folder = self._path(UNFINISHED, key)
        if not fileio.exists(folder):
            folder = self._path(key)
        described = self._parsed(posixpath.join(folder, MANIFEST))
        actual = {name: digest for name, digest in files.digests(Source(folder)).items() if name != MANIFEST}
        if faults := files.differences(described.files, actual):
            raise UserError(f"{folder}: expected what was exported, but {'; '.join(faults)}. {self.advice(key)}")
        with fileio.open(posixpath.join(folder, ITEMS), "rb") as file:
            return pq.read_table(pa.BufferReader(file.read()))

    def _live(self) -> tuple[str, int]:
        """Return key and version of what is live."""
        path = self._path(LIVE)
        if not fileio.exists(path):
            return "", 0
        try:
            pointer = json.loads(io_utils.read_string_file(path))
            return str(pointer["path"]).partition("/")[0], int(pointer[VERSION])
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(
                f"{path}: expected what an export wrote, found something else. Move it away, and export again."
            ) from error

    def _described(self, name: str) -> Description | None:
        path = self._path(name, MANIFEST)
        return self._parsed(path) if fileio.exists(path) else None

    def _parsed(self, path: str) -> Description:
        try:
            return Description.model_validate_json(io_utils.read_string_file(path))
        except ValueError as error:
            raise UserError(
                f"{path}: expected what an export wrote, found something else. Move its folder away."
            ) from error

    def _folders(self) -> list[str]:
        """List the subfolders that are named like a version's, and `.unfinished`."""
        names = [name.rstrip("/") for name in fileio.listdir(self._folder)] if fileio.exists(self._folder) else []
        return sorted(name for name in names if KEY.fullmatch(name) or name == UNFINISHED)

    def _path(self, *names: str) -> str:
        return posixpath.join(self._folder, *names)
