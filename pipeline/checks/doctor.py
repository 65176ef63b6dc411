"""Looks whether a machine or an image has all that a run needs. TensorFlow is imported last; TFX is not."""

import fcntl
import functools
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from pipeline.beam_settings import RunnerSettings
from pipeline.checks import rights
from pipeline.config import Config
from schemas.errors import Status, UserError

DISTRIBUTION = "ndr"
NEEDED_GLIBC = (2, 39)
SHOWN = ("tensorflow", "tfx", "tf-keras", "ml-metadata", "apache-beam")
GIB = 1 << 30
LITTLE_DISK = GIB  # bytes
LITTLE_MEMORY = 4 * GIB  # bytes; what a step is given on Kubeflow by default
NVIDIA = Path("/proc/driver/nvidia")  # there once the kernel has the driver
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: what was checked.
        state: `warn` where runs work, but less well than they could.
        found: what there is.
        advice: what to do; empty where the state is ok.
        status: the exit status of a run with this fault.
    """

    check: str
    state: Literal["ok", "warn", "FAIL"]
    found: str
    advice: str = ""
    status: Status = Status.DONE


def examine(config: Config) -> Iterator[Finding]:
    """Run the checks one after the other. They leave nothing behind but the tables of an empty metadata database."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", _python),
        ("C library", _c_library),
        ("packages", _packages),
        ("root", lambda: _folder("root", config.root)),
        ("root's disk", lambda: _disk("root's disk", config.root)),
        ("files", lambda: _files(config)),
    ]
    if "://" not in config.serving:
        checks.append(("push folder", lambda: _folder("push folder", Path(config.serving))))
        checks.append(("push folder's disk", lambda: _disk("push folder's disk", Path(config.serving))))
    checks += [
        ("metadata", lambda: _metadata(config)),
        ("memory", _memory),
        ("Keras", _keras),
        ("devices", _devices),
        ("serving", lambda: _serving(config)),
    ]
    checks += [("job server", functools.partial(_job_server, engine)) for engine in config.beam.engines]
    if "://" in config.serving:
        checks.append(("push folder", lambda: _object_store(config.serving)))
    for name, check in checks:
        try:
            yield check()
        except Exception as error:  # one check that fails does not keep the others from being made
            message = f"{type(error).__name__}: {error}"
            yield Finding(name, "FAIL", message, "The check itself failed.", Status.INTERNAL_FAULT)


def verdict(findings: Sequence[Finding]) -> Status:
    """Return the worst status: first a user's fault, then a fault of the project, then one that may pass."""
    statuses = {finding.status for finding in findings}
    worst_first = (Status.USER_FAULT, Status.INTERNAL_FAULT, Status.PASSING_FAULT)
    return next((status for status in worst_first if status in statuses), Status.DONE)


def _python() -> Finding:
    python = f"{platform.python_version()}, {sys.executable}"
    wanted = metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if Requirement(f"python{wanted}").specifier.contains(platform.python_version()):
        return Finding("Python", "ok", python)
    return _failed("Python", python, f"Take one that is {wanted}.")


def _serving(config: Config) -> Finding:
    """Which TensorFlow serves what this one exports."""
    exports = metadata.version("tensorflow")
    sentence = f"TensorFlow {config.server.tensorflow} (server.tensorflow) loads what {exports} exports"
    return Finding("serving", "ok", sentence)


def _c_library() -> Finding:
    name, version = platform.libc_ver()
    library = f"{name or 'unknown'} {version}".strip()
    if name == "glibc" and tuple(map(int, version.split(".")[:2])) >= NEEDED_GLIBC:
        return Finding("C library", "ok", library)
    return _failed(
        "C library", library, "ml-metadata and TFDV need glibc 2.39: Debian 13, Ubuntu 24.04, or `make setup`."
    )


def _packages() -> Finding:
    """Whether what is installed is what the project asks for."""
    wrong = []
    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return _failed(
            "packages", "; ".join(wrong), "Install requirements.lock: `make setup`, or build the image again."
        )
    return Finding("packages", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN))


def _folder(check: str, folder: Path) -> Finding:
    """Check that the folder is writable, that a rename replaces, and that files can be locked."""
    nearest = _nearest(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=nearest) as aside:
            old, new = Path(aside) / "old", Path(aside) / "new"
            old.write_text("old")
            with new.open("w") as file:
                file.write("new")
                file.flush()
                os.fsync(file.fileno())
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.replace(old)
            if old.read_text() != "new" or new.exists():
                raise OSError("a rename did not replace the file")
    except OSError as error:
        key = "root" if check == "root" else "pusher.destination"
        return _failed(
            check, f"{nearest}: {error.strerror or error}",
            f"Give user {os.getuid()} the right to write there, on a file system with locks, or name another: --set {key}=DIR.",
        )  # fmt: skip
    is_made = "" if nearest == folder else "; made by the first run"
    return Finding(check, "ok", f"{folder}: can be written, renamed and locked{is_made}")


def _files(config: Config) -> Finding:
    """Check that the files of earlier runs are writable, whoever ran them."""
    if faults := rights.not_writable(config):
        more = f" ... and {len(faults) - 1} more" if len(faults) > 1 else ""
        return _failed("files", faults[0] + more, rights.advice())
    return Finding("files", "ok", "what earlier runs left can be written")


def _disk(check: str, folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free
    room = f"{free / GIB:.1f} GiB free"
    if free < LITTLE_DISK:
        return Finding(check, "warn", room, "Make room: a run that finds the disk full pushes nothing.")
    return Finding(check, "ok", room)


def _nearest(folder: Path) -> Path:
    """Return the folder or its nearest existing parent."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _metadata(config: Config) -> Finding:
    from pipeline.records import connect_once, connection, has_begun, place

    try:
        to = connection(config)
        where = place(to).rstrip(",")
        if not has_begun(config):
            return Finding("metadata", "ok", f"{where}: made by the first run")
        connect_once(to).get_contexts()
    except UserError as error:
        return Finding("metadata", "FAIL", str(error), "See its last sentence.", error.status)
    return Finding("metadata", "ok", f"{where}: of ml-metadata {metadata.version('ml-metadata')}'s schema")


def _memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.exists() else "max"
    usable = total if limit == "max" else min(total, int(limit))
    capacity = f"{usable / GIB:.1f} GiB, {len(os.sched_getaffinity(0))} cores"
    if usable < LITTLE_MEMORY:
        return Finding("memory", "warn", capacity, f"Large days need more: {LITTLE_MEMORY // GIB} GiB or more a step.")
    return Finding("memory", "ok", capacity)


def _keras() -> Finding:
    """Which Keras TensorFlow took, which is settled once both are imported."""
    import tensorflow as tf

    module = tf.keras.Model.__module__.partition(".")[0]
    if module == "tf_keras":
        return Finding("Keras", "ok", f"2 (tf_keras {metadata.version('tf-keras')})")
    return _failed("Keras", module, "TFRS needs Keras 2: install tf-keras, and unset TF_USE_LEGACY_KERAS.")


def _devices() -> Finding:
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and NVIDIA.exists():
        return Finding(
            "devices", "warn", "the CPU; the GPU that this machine has cannot be used",
            "Build the image with --build-arg DEVICE=gpu, or install requirements-gpu.lock.",
        )  # fmt: skip
    names = [str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)) for gpu in gpus]
    return Finding("devices", "ok", ", ".join(["the CPU", *names]))


def _job_server(engine: RunnerSettings) -> Finding:
    from pipeline.checks import job_server

    try:
        return Finding("job server", "ok", job_server.check(engine))
    except UserError as error:
        return Finding("job server", "FAIL", str(error), "See its last sentence.", error.status)


def _object_store(address: str) -> Finding:
    import tensorflow as tf

    from components.pusher import files

    try:
        files.probe(address)
    except (UserError, OSError, tf.errors.OpError) as error:
        return _failed("push folder", f"{address}: {error}", "See to its address, the credentials and their rights.")
    return Finding("push folder", "ok", f"{address}: can be written, moved and removed")


def _failed(check: str, found: str, advice: str) -> Finding:
    return Finding(check, "FAIL", found, advice, Status.USER_FAULT)


def in_words(finding: Finding) -> str:
    """Format a finding for a person, with its advice."""
    head = f"{finding.state:<5} {finding.check:<18} {finding.found}"
    return f"{head}\n{'':<25}{finding.advice}" if finding.advice else head
