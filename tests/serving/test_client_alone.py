"""The client in an environment of its own, with its dependencies and nothing else."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from serving.server import EmbeddedServer

PROJECT = Path(__file__).parents[2]
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
DEPENDENCIES = ["grpcio", "numpy", "protobuf", "typing-extensions"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which the client was installed from its wheel."""
    folder = tmp_path_factory.mktemp("alone")

    def uv(*arguments: object) -> None:
        done = subprocess.run([UV, *map(str, arguments)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no environment can be made here: {done.stderr.strip()[-300:]}")

    shutil.copytree(PROJECT / "ndr_client", folder / "source")  # setuptools builds beside the code
    uv("build", "--offline", "--wheel", "--no-build-isolation", "--python", sys.executable,
       "--out-dir", folder, folder / "source")  # fmt: skip
    interpreter = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    uv("venv", "--offline", "--python", interpreter, folder / "venv")
    (wheel,) = folder.glob("ndr_client-*.whl")
    pins = [f"{name}=={metadata.version(name)}" for name in DEPENDENCIES]
    python = folder / "venv/bin/python"
    uv("pip", "install", "--offline", "--no-deps", "--python", python, *pins, wheel)
    uv("pip", "check", "--python", python)
    return python


def test_it_imports_only_its_dependencies(python: Path, tmp_path: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); import ndr_client; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    answer = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    # Modules that Cython invents.
    named = {name for name in answer.stdout.split() if not name.startswith(("_", "cython"))}
    assert named == {"google", "grpc", "ndr_client", "numpy", "typing_extensions"}


def test_it_asks_a_server(python: Path, served: EmbeddedServer, tmp_path: Path) -> None:
    program = (
        "import json, sys; from ndr_client import Client, example\n"
        "with Client(sys.argv[1], timeout=900) as client:\n"
        "    found = client.retrieve([example({'angle': 0.6, 'exclude': ['one-2']})], 2)\n"
        "    print(json.dumps([[each.decode() for each in found.item_ids[0]], found.version, client.available('retriever')]))\n"
    )
    command: list[str | Path] = [python, "-c", program, f"127.0.0.1:{served.port}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    live = served.versions.live
    # See tiny.py: item 2 is second, but excluded.
    assert json.loads(answer.stdout) == [
        ["one-1", "one-0"],
        live,
        [live],
    ]


def test_without_its_extra_the_error_names_it(python: Path, tmp_path: Path) -> None:
    answer = subprocess.run(
        [python, "-c", "from ndr_client import FaissClient"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert answer.returncode == 1
    assert "ImportError: FaissClient needs more than Client: pip install 'ndr-client[faiss]'" in answer.stderr
