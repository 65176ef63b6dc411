"""Reads the items of a pushed version, as stores hold them."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from components.indexer import faiss_index
from components.indexer import files as index_files
from components.pusher import files
from components.pusher.files import Source
from components.pusher.manifest import Digest, Manifest
from components.pusher.versions import PushFolder
from ndr_client.served import INDEX, names_of
from pipeline.export.store import OWN_COLUMNS, Items
from schemas.errors import PassingError, UserError
from schemas.features import CANDIDATE_ID

DIGITS = 8  # of a digest in a key: enough to tell contents of one version number apart


def key_of(folder: PushFolder, manifest: Manifest) -> str:
    """Return the name of a version's content in stores: the version under which it was first pushed, and its digest.

    Raises:
        UserError: the version has no index.
    """
    names = names_of(INDEX, manifest.parts)
    if not manifest.parts.keys() >= {*names}:
        raise UserError(f"{folder.root}: expected a version with an index, and {manifest.version} has none.")
    places = folder.places(manifest)
    file_digests: dict[str, Digest] = {}
    for name in names:
        of_shard = manifest.files.get(name) or files.digests(Source(places[name]))
        file_digests |= {file if name == INDEX else f"{name}/{file}": digest for file, digest in of_shard.items()}
    digests = json.dumps({name: digest.sha256 for name, digest in sorted(file_digests.items())})
    return f"{manifest.content}_{hashlib.sha256(digests.encode()).hexdigest()[:DIGITS]}"


def read(folder: PushFolder, manifest: Manifest) -> Items:
    """Read a version's index, ids and filter columns, after comparing the files with the manifest's checksums.

    Raises:
        PassingError: the version was removed meanwhile, or cannot be read.
        UserError: it is damaged, or has ids or filters that stores cannot hold.
    """
    try:
        names = names_of(INDEX, manifest.parts)
        if faults := folder.verify(manifest.version, names):
            raise UserError(
                f"{folder.root}: expected version {manifest.version} as it was pushed: {'; '.join(faults)}."
            )
        places = [folder.places(manifest)[name] for name in names]
        shards = [(faiss_index.load(place).vectors, index_files.read_ids(place)) for place in places]
    except (tf.errors.OpError, OSError) as error:
        raise PassingError(
            f"{folder.root}: version {manifest.version} cannot be read, or was removed: {error}"
        ) from error
    for place, (vectors, ids) in zip(places, shards, strict=True):
        if ids.num_rows != len(vectors):
            raise UserError(f"{place}: expected an id for each of {len(vectors)} vectors, found {ids.num_rows}.")
    embeddings, table = shards[0]
    if len(shards) > 1:
        table = pa.concat_tables([ids for _, ids in shards])
        order = pc.sort_indices(table.column(CANDIDATE_ID))
        embeddings, table = np.concatenate([vectors for vectors, _ in shards])[order.to_numpy()], table.take(order)
    columns = table.drop_columns([CANDIDATE_ID])
    if taken := sorted({*OWN_COLUMNS} & {*columns.column_names}):
        raise UserError(
            f"catalogue.filters: expected no filter named {' or '.join(taken)}, which every export has as a column of its own. "
            "Rename it in features.yaml, with `column` for the data's name."
        )
    return Items(
        key_of(folder, manifest),
        manifest.version,
        manifest.day,
        _texts(table.column(CANDIDATE_ID), CANDIDATE_ID),
        embeddings,
        pa.table({name: _readable(columns.column(name), name) for name in columns.column_names})
        if columns.num_columns
        else columns,
    )


def _readable(column: pa.ChunkedArray, name: str) -> pa.Array:
    """Turn lists of binary into lists of texts; numbers stay."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # without rows
        whole = pa.concat_arrays(whole.chunks)
    if not pa.types.is_list(whole.type):
        return whole
    return pa.ListArray.from_arrays(whole.offsets, _texts(whole.values, name))


def _texts(values: pa.Array | pa.ChunkedArray, name: str) -> pa.Array:
    """Turn binary into texts."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    try:
        return whole.cast(pa.string())
    except pa.ArrowInvalid as error:
        raise UserError(f"{name}: expected ids of UTF-8, which is what stores hold, found others. {error}") from error
