"""Has Kubernetes' own API server check deploy/, for machines without a cluster. Go, kubectl and Debian's etcd-server.

    python3 tools/try_manifests.py

Builds kube-apiserver from its Go module below var/ the first time, which takes a quarter of an hour on two cores; starts it on
loopback with an etcd of its own; and applies each folder of the example by a dry run on the server, with strict validation. Nothing
runs in pods: there are no nodes.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
BUILT = PROJECT / "var" / "kubernetes"
VERSION = "1.31.14"
# Definitions of custom resources, by Go module. JobSet's newer ones want a newer Kubernetes.
DEFINITIONS = {
    "sigs.k8s.io/jobset@v0.10.1": "config/components/crd/bases",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd",
}
FOLDERS = (".", "doctor", "daily", "restore", "trainer")
OPTIONS = "components: [../../components/autoscaling, ../../components/monitoring, values]"


def main() -> None:
    server = api_server()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {**os.environ, "KUBECONFIG": str(stack.enter_context(cluster(server, folder)))}
        for module, path in DEFINITIONS.items():
            definitions = ["kubectl", "apply", "--server-side", "--filename", str(fetched(module) / path)]
            subprocess.run(definitions, env=environment, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["kubectl", "wait", "--for=condition=Established", "crd", "--all"], env=environment, check=True)
        example = a_users_copy(folder / "deploy")
        subprocess.run(["kubectl", "create", "namespace", "ndr"], env=environment, check=True)
        failed = [
            name
            for name in FOLDERS
            if subprocess.run(
                ["kubectl", "apply", "--dry-run=server", "--validate=strict", "--kustomize", str(example / name)],
                env=environment, check=False,
            ).returncode
        ]  # fmt: skip
    if failed:
        sys.exit(f"refused: {', '.join(failed)}")


def fetched(module: str) -> Path:
    """Return the folder of a Go module, fetched if missing."""
    answer = subprocess.run(
        ["go", "mod", "download", "-json", module], cwd="/", check=True, capture_output=True, text=True
    )
    return Path(json.loads(answer.stdout)["Dir"])


def api_server() -> Path:
    """Return the program, built if missing."""
    program = BUILT / f"kube-apiserver-{VERSION}"
    if not program.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        module = f"k8s.io/kubernetes@v{VERSION}"
        # Kubernetes names its own libraries by folders that its module does not have; they are modules, too.
        libraries = re.findall(r"^\t(\S+) => \./staging/", (fetched(module) / "go.mod").read_text(), re.MULTILINE)
        lines = ["module try", "go 1.22.0", f"require {module.replace('@', ' ')}"]
        lines += [f"replace {each} => {each} v0{VERSION[1:]}" for each in libraries]
        (BUILT / "go.mod").write_text("\n".join(lines) + "\n")
        (BUILT / "try.go").write_text('package try\n\nimport _ "k8s.io/kubernetes/cmd/kube-apiserver/app"\n')
        subprocess.run(["go", "mod", "tidy"], cwd=BUILT, check=True)
        build = ["go", "build", "-o", f"{program}.unfinished", "k8s.io/kubernetes/cmd/kube-apiserver"]
        subprocess.run(build, cwd=BUILT, check=True)
        Path(f"{program}.unfinished").rename(program)
    return program


@contextmanager
def cluster(server: Path, folder: Path) -> Iterator[Path]:
    """Run an API server on loopback; yield kubectl's configuration for it."""
    with ExitStack() as sockets:
        ports = [sockets.enter_context(socket.socket()) for _ in range(3)]
        for each in ports:
            each.bind(("127.0.0.1", 0))
        clients, peers, port = (each.getsockname()[1] for each in ports)
    token, key = secrets.token_hex(), folder / "key"
    (folder / "tokens").write_text(f"{token},admin,admin,system:masters\n")
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    etcd = [
        "etcd", f"--data-dir={folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{clients}",
        f"--advertise-client-urls=http://127.0.0.1:{clients}", f"--listen-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}", f"--initial-cluster=default=http://127.0.0.1:{peers}",
    ]  # fmt: skip
    api = [
        str(server), f"--etcd-servers=http://127.0.0.1:{clients}", "--bind-address=127.0.0.1", f"--secure-port={port}",
        f"--cert-dir={folder}/certificates", f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc", f"--token-auth-file={folder}/tokens",
        "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24",
    ]  # fmt: skip
    config = folder / "kubeconfig"
    config.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "try",
        "clusters": [{"name": "try", "cluster": {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}}],
        "users": [{"name": "try", "user": {"token": token}}],
        "contexts": [{"name": "try", "context": {"cluster": "try", "user": "try"}}],
    }))  # fmt: skip
    with (folder / "log").open("w") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log) for command in (etcd, api)]
        try:
            ready = ["kubectl", "--kubeconfig", str(config), "get", "--raw", "/readyz"]
            deadline = time.monotonic() + 120
            while subprocess.run(ready, capture_output=True, check=False).returncode:
                if time.monotonic() > deadline or any(each.poll() is not None for each in processes):
                    sys.exit(f"the API server did not start:\n{(folder / 'log').read_text()[-3000:]}")
                time.sleep(1)
            yield config
        finally:
            for each in reversed(processes):
                each.terminate()
                each.wait()


def a_users_copy(deploy: Path) -> Path:
    """Return the example with a password, a pipeline, and the optional components."""
    shutil.copytree(PROJECT / "deploy", deploy, ignore=shutil.ignore_patterns("metadata.env"))
    example = deploy / "overlays" / "example"
    shutil.copy(example / "metadata.env.example", example / "metadata.env")
    (example / "daily" / "pipeline.yaml").write_text("pipelineInfo: {name: example}\n")
    all_of_it = example / "kustomization.yaml"
    all_of_it.write_text(all_of_it.read_text().replace("components: [values]", OPTIONS))
    return example


if __name__ == "__main__":
    main()
