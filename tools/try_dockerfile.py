"""Runs the steps of the Dockerfile in a folder, for machines without a container engine. Root, Debian and the standard library.

    debootstrap --variant=minbase trixie /tmp/try/debian
    tools/try_dockerfile.py build /tmp/try/debian /tmp/try/image
    tools/try_dockerfile.py run /tmp/try/image ndr doctor

The folder that debootstrap makes stands for the base image. Layers, health checks and .dockerignore are not tried.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# In a mount namespace of its own, so that nothing stays mounted whatever happens.
ENTER = 'mount --rbind /proc "$0/proc" && mount -t tmpfs none "$0/dev/shm" && exec chroot "$@"'


class Stage:
    """A stage that is being built, and in the end the image."""

    def __init__(self, folder: Path, settings: dict) -> None:
        self.folder = folder
        self.settings = settings

    def run(self, command: list[str], lent: dict[str, str]) -> None:
        """Run a command in it, as its user."""
        environment = {**lent, **self.settings["env"]}
        words = [f"{name}={value}" for name, value in environment.items()]
        user = ["--userspec", self.settings["user"]] if self.settings["user"] else []
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self.settings["workdir"], *command]
        entered = ["unshare", "--mount", "sh", "-c", ENTER, str(self.folder), *user, str(self.folder)]
        status = subprocess.run([*entered, "env", "-i", *words, *inside], check=False).returncode
        if status:
            sys.exit(status)

    def path(self, inside: str) -> Path:
        """Where a path in it, or one relative to its working directory, lies on this machine."""
        return self.folder / os.path.join(self.settings["workdir"], inside).lstrip("/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("build", "run"):
        command = commands.add_parser(name)
        if name == "build":
            command.add_argument("base", type=Path)
            command.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
            command.add_argument("--lend", action="append", default=["/etc/resolv.conf"], metavar="FILE",
                                 help="a file of this machine that the steps find at the same path below /lent")  # fmt: skip
        command.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
        command.add_argument("image", type=Path)
        if name == "run":
            command.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    lent = dict(each.split("=", 1) for each in given.env)
    if given.command == "build":
        arguments = dict(each.split("=", 1) for each in given.build_arg)
        stage = build(given.base, given.image, arguments, given.lend, lent)
        (given.image / "image.json").write_text(json.dumps({"folder": str(stage.folder), **stage.settings}))
    else:
        settings = json.loads((given.image / "image.json").read_text())
        Stage(Path(settings.pop("folder")), settings).run(given.words or settings["cmd"], lent)


def instructions() -> list[tuple[str, str]]:
    text = "".join(line for line in (PROJECT / "Dockerfile").open() if not line.startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", text)
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word]


def build(base: Path, target: Path, given: dict[str, str], files: list[str], lent: dict[str, str]) -> Stage:
    stages: dict[str, Stage] = {}
    stage = Stage(base, {})
    for word, rest in instructions():
        print(f"{word} {rest}", flush=True)
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            before = stages.get(image, Stage(base, {"env": {}, "user": "", "workdir": "/", "cmd": []}))
            stage = Stage(target / (name or "image"), json.loads(json.dumps(before.settings)))
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--reflink=auto", before.folder, stage.folder], check=True)
            for file in files:
                place = stage.folder / (file if file == "/etc/resolv.conf" else f"/lent{file}").lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
            stages[name or "image"] = stage
            scope: dict[str, str] = {}
        elif word == "ARG":
            name, _, default = rest.partition("=")
            scope[name] = given.get(name, default)
        elif word == "RUN":
            stage.run(["/bin/sh", "-c", rest], {"PATH": os.defpath + ":/usr/sbin:/sbin", **lent, **scope})
        elif word == "COPY":
            copy(stage, stages, shlex.split(rest))
        elif word == "ENV":
            stage.settings["env"].update(each.split("=", 1) for each in shlex.split(rest))
        elif word == "USER":
            stage.settings["user"] = rest
        elif word == "WORKDIR":
            stage.settings["workdir"] = rest
            stage.path("").mkdir(parents=True, exist_ok=True)
        elif word == "CMD":
            stage.settings["cmd"] = json.loads(rest)
        elif word != "LABEL":
            raise SystemExit(f"{word}: an instruction that this does not know")
    return stage


def copy(stage: Stage, stages: dict[str, Stage], words: list[str]) -> None:
    """Copy a folder's content, or files into a folder, or one file to the target's name."""
    origin = PROJECT
    if words[0].startswith("--from="):
        origin = stages[words.pop(0).removeprefix("--from=")].folder
    *sources, last = words
    target = stage.path(last)
    for source in (origin / each.lstrip("/") for each in sources):
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", "-a", "--no-preserve=ownership", f"{source}/.", target], check=True)
        else:
            target.mkdir(parents=True, exist_ok=True) if last.endswith("/") else None
            subprocess.run(["cp", "-a", "--no-preserve=ownership", source, target], check=True)


if __name__ == "__main__":
    main()
