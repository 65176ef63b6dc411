"""Argo's workflow controller as the judge of retries: its own code, at the release that Kubeflow Pipelines 2.17 has.

`tests/argo/judge_test.go` asks. It is laid into a copy of Argo's package, whose tests bring a controller over a fake Kubernetes;
the copy lies in `build/`, comes from Go's module proxy, and is checked against `tests/argo/go.sum`. The first build takes minutes
of two cores, later ones seconds.

Example:
    strategy = {"limit": "3", "backoff": {"duration": "30", "factor": "2", "maxDuration": "31536000"}}
    (step,) = argo_controller.ask([Question(strategy, [Attempt(30, "failed"), Attempt(5, "succeeded")])])
    assert [each.retried for each in step.verdicts] == [True, False]
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

MODULE = "github.com/argoproj/argo-workflows/v4"
ASKING = Path(__file__).parent / "argo"
BUILD = Path(__file__).parents[1] / "build" / "argo"
UNUSED = ("ui", "docs", "examples", "manifests", "community", "sdks", "hack", "*.md")
PATIENCE = 1800  # seconds, for a first build on a busy machine


@dataclass(frozen=True)
class Attempt:
    """One pod of a step.

    Attributes:
        minutes: from its start to its end.
        end: what ended it. `deadline`: it ran over its activeDeadlineSeconds; `deleted`: it is gone, as with a drained node.
    """

    minutes: float
    end: Literal["succeeded", "failed", "deadline", "evicted", "deleted"]


@dataclass(frozen=True)
class Question:
    """A step, and how its attempts end one after the other.

    Attributes:
        strategy: Argo's retryStrategy, as Kubeflow compiled it.
        attempts: the number that the step is to have; the last one may fail too.
    """

    strategy: Mapping[str, Any]
    attempts: Sequence[Attempt]


@dataclass(frozen=True)
class Verdict:
    """What Argo makes of an attempt that ended.

    Attributes:
        node: the phase that it gives the attempt: Succeeded, Failed or Error.
        retried: whether it started another.
        wait_seconds: before that.
        killed_after: minutes from this attempt's start at which Argo would end it, or None.
        message: why it waits or gives up, in its words.
    """

    node: str
    retried: bool
    wait_seconds: float
    killed_after: float | None
    message: str


@dataclass(frozen=True)
class Answer:
    """What became of the step.

    Attributes:
        verdicts: on each attempt, up to the one after which none was started.
        phase: of the step: Succeeded, Failed, Error, or Running.
        message: why, in Argo's words.
    """

    verdicts: Sequence[Verdict]
    phase: str
    message: str


def missing() -> str:
    """Why Argo's controller cannot be built here; empty where it can."""
    if shutil.which("go") is None:
        return "go is not installed"
    found = _go("mod", "download", "-json", MODULE)
    return (
        "" if found.returncode == 0 else f"Argo's module cannot be fetched: {found.stdout[-300:]}{found.stderr[-300:]}"
    )


def ask(questions: Sequence[Question]) -> list[Answer]:
    """What becomes of steps whose attempts fail; one answer for each question."""
    asked = [{"retryStrategy": each.strategy, "attempts": [asdict(a) for a in each.attempts]} for each in questions]
    return [
        Answer([Verdict(**verdict) for verdict in each["verdicts"]], each["phase"], each["message"])
        for each in _answers("TestNdrSteps", asked)
    ]


def _answers(test: str, questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    program = _built()
    with TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "questions.json", Path(folder) / "answers.json"
        asked.write_text(json.dumps(questions))
        environment = os.environ | {"NDR_QUESTIONS": str(asked), "NDR_ANSWERS": str(answered)}
        ran = subprocess.run(
            [program, f"-test.run=^{test}$"],
            env=environment, cwd=folder, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
        answers: list[dict[str, Any]] = json.loads(answered.read_text())
        return answers


def _built() -> Path:
    """The controller's tests with ours among them, built where they are not yet."""
    module = json.loads(_go("mod", "download", "-json", MODULE).stdout)
    question = ASKING / "judge_test.go"
    program = BUILD / f"controller-{module['Version']}"
    if program.exists() and program.stat().st_mtime > question.stat().st_mtime:
        return program
    source = BUILD / f"source-{os.getpid()}"
    shutil.copytree(module["Dir"], source, ignore=shutil.ignore_patterns(*UNUSED), copy_function=shutil.copyfile)
    for folder in [source, *(path for path in source.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)  # the module cache's are read-only
    shutil.copyfile(question, source / "workflow" / "controller" / "ndr_judge_test.go")
    aside = BUILD / f"controller-{os.getpid()}"
    # -trimpath: what is compiled in one checkout serves the next.
    built = _go("test", "-c", "-trimpath", "-vet=off", "-o", str(aside), "./workflow/controller", folder=source)
    assert built.returncode == 0, built.stderr[-3000:]
    shutil.rmtree(source)
    return aside.replace(program)


def _go(*words: str, folder: Path = ASKING) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    return subprocess.run(["go", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
