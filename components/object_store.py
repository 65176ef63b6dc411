"""Object stores, s3:// and gs://, by Arrow's file systems.

Everything about a store but its address comes from the environment, by the names that the stores' own tools read, so that a pod, a
worker and a laptop are told in one way:

    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE    credentials; or the machine's role
    AWS_REGION, AWS_DEFAULT_REGION                                              else Amazon is asked where the bucket is
    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL                                       a store that is not Amazon's, such as MinIO
    GOOGLE_APPLICATION_CREDENTIALS                                              credentials; or the machine's service account
    STORAGE_EMULATOR_HOST                                                       an emulator, which is asked without credentials

A store of one's own is asked by paths, http://minio:9000/bucket/key, never by http://bucket.minio:9000/key.
"""

import fnmatch
import functools
import itertools
import os
from datetime import timedelta
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from schemas.declaration import OBJECT_STORE
from schemas.errors import PassingError, UserError

S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
S3_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
GS_ENDPOINT = "STORAGE_EMULATOR_HOST"
MAGIC = frozenset("*?[")
HADOOP_FOLDER = "_$folder$"
PATIENCE = timedelta(seconds=60)  # with a store that does not answer; Google's library has 15 minutes
LOST = (
    "NETWORK_CONNECTION",
    "curlCode",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "Retry policy exhausted",
)


def file_system(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an address, and the path in it: the bucket's name and the key.

    Raises:
        UserError: it is no address of a store, or the environment's endpoint is none.
        OSError: the store cannot be asked where the bucket is.
    """
    if not (match := OBJECT_STORE.fullmatch(address)):
        # It is not shown, because it may contain credentials.
        raise UserError("Expected an address such as s3://bucket/folder or gs://bucket/folder, without credentials.")
    scheme, bucket, key = match.groups()
    return _file_system(scheme, bucket, *_environment(scheme)), f"{bucket}{(key or '').rstrip('/')}"


def matched(address: str) -> list[str]:
    """List the addresses of the files and folders that a glob matches; `*`, `?` and `[...]` match within one part of the key.

    Raises:
        UserError: it is no address of a store; or the store refuses, or does not answer.
    """
    scheme, segments, files = _found(address)
    return sorted({f"{scheme}://{'/'.join(info.path.split('/')[: len(segments)])}" for info in files})


def below(address: str) -> list[tuple[str, fs.FileInfo, tuple[str, ...]]]:
    """List the files that a glob matches, and those in folders that it matches.

    Returns:
        Of each file its address, what the store says of it, and the parts of its key below what the glob matches; none for that
        itself.

    Raises:
        UserError: see `matched`.
    """
    scheme, segments, files = _found(address)
    return [(f"{scheme}://{info.path}", info, tuple(info.path.split("/")[len(segments) :])) for info in files]


def _found(address: str) -> tuple[str, list[str], list[fs.FileInfo]]:
    """Return an address's scheme, the parts of the rest, and every file that they match, or that is below what they match."""
    try:
        system, path = file_system(address)
        segments = path.split("/")
        literal = list(itertools.takewhile(lambda segment: not MAGIC & set(segment), segments))
        files = [info for info in files_below(system, "/".join(literal)) if _matches(info.path.split("/"), segments)]
    except OSError as error:
        raise fault(address, error) from error
    return address.partition("://")[0], segments, files


def _matches(names: list[str], segments: list[str]) -> bool:
    return len(names) >= len(segments) and all(map(fnmatch.fnmatchcase, names, segments))


def files_below(system: fs.FileSystem, path: str) -> list[fs.FileInfo]:
    """List a file, or the files in a folder at any depth. What stands for a folder itself is none.

    Raises:
        OSError: the store refuses, or does not answer.
    """
    if (named := system.get_file_info(path)).type == fs.FileType.File:
        return [named]
    infos = system.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    return [info for info in infos if info.type == fs.FileType.File and not info.path.endswith(HADOOP_FOLDER)]


def open_input(address: str) -> pa.NativeFile:
    """Open a file of a store to read; it can be sought in.

    Raises:
        UserError: it is no address of a store; there is no such file; or the store refuses, or does not answer.
    """
    try:
        system, path = file_system(address)
        return system.open_input_file(path)
    except OSError as error:
        raise fault(address, error) from error


def fault(address: str, error: OSError) -> UserError:
    """Say what a store answered; a PassingError where it did not answer."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{address}: there is no such file.")
    lines = str(error).splitlines() or [type(error).__name__]
    kind = PassingError if any(word in lines[0] for word in LOST) else UserError
    return kind(f"{address}: the object store says: {lines[0].rstrip('.')}.")


def _environment(scheme: str) -> tuple[str | None, str | None]:
    """Return the endpoint and the region that the environment names."""
    endpoints, regions = (S3_ENDPOINTS, S3_REGIONS) if scheme == "s3" else ((GS_ENDPOINT,), ())
    return _first(endpoints), _first(regions)


def _first(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


@functools.cache
def _file_system(scheme: str, bucket: str, endpoint: str | None, region: str | None) -> fs.FileSystem:
    protocol, host = _endpoint(scheme, endpoint) if endpoint else (None, None)
    if scheme == "gs":
        # Without TLS there is nobody to show credentials to.
        of_emulator = {"endpoint_override": host, "scheme": protocol, "anonymous": protocol == "http"} if host else {}
        return fs.GcsFileSystem(retry_time_limit=PATIENCE, **of_emulator)
    of_store = {"endpoint_override": host, "scheme": protocol} if host else {}
    region = region or (fs.resolve_s3_region(bucket) if not host else None)
    return fs.S3FileSystem(region=region, **of_store)


def _endpoint(scheme: str, endpoint: str) -> tuple[str, str]:
    """Return the protocol and the host of an endpoint; Google's emulators are named without a protocol."""
    url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
    if url.scheme not in ("http", "https") or not url.netloc or "@" in url.netloc or url.path.strip("/"):
        names = " or ".join(S3_ENDPOINTS if scheme == "s3" else (GS_ENDPOINT,))
        raise UserError(
            f"{names}: expected the endpoint of an object store, such as http://minio:9000, found something else."
        )
    return url.scheme, url.netloc
