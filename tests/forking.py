"""Runs `ndr` commands, steps by `run_node` and functions as forks of one process that has TFX loaded, which takes 13 seconds; and
kills them where it is told to.

Reads a JSON line a request, `{"program": "ndr", "command": [...], "fault": "...", "stdout": FILE, "stderr": FILE}`,
and answers with the process's number; a program that is neither `ndr` nor `run_node` is a function, `MODULE:NAME`, of the words of
the command.
`{"wait": NUMBER}` is answered with the exit status, negative where a signal ended the process; `{"poll": NUMBER}` with that, or
null where it runs.

A fault is `MOMENT:VALUE`:

    before:NODE     a step's driver has not yet run
    in:NODE         the first file of its output is there
    after:NODE      its executor has ended, and nothing is published
    training:STEP   after this number of steps of the attempt, the last of them in no checkpoint
    pusher:NUMBER   before the operation of that number on the push folder
    ending:NODE     as `in`, but asked to end by SIGTERM
    stopped:NODE    not killed: stopped before a step, to be continued by whoever asked for it
"""

import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from tf_keras import Model
from tfx.dsl.io import fileio
from tfx.orchestration.portable.launcher import Launcher

import components.evaluator.ranker
import components.trainer.run
import components.transform.preprocessing
from components.pusher import files, versions
from pipeline import cli, local, run_node

assert components.evaluator.ranker and components.transform.preprocessing  # steps import these by name
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})  # as in tests/conftest.py
Call = Callable[..., Any]
PROGRAMS = {"ndr": cli.main, "run_node": run_node.main}


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    if number == signal.SIGKILL:
        time.sleep(60)  # a signal may take a moment; nothing more is to happen until then


def before(call: Call, happens: Call) -> Call:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        happens(*arguments)
        return call(*arguments, **options)

    return wrapped


def after(call: Call, happens: Call) -> Call:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        answer = call(*arguments, **options)
        happens()
        return answer

    return wrapped


def at_node(node: str, number: int) -> Call:
    def happens(launcher: Any, *_: Any) -> None:
        if launcher._pipeline_node.node_info.id == node:
            send(number)

    return happens


def at_call(number: int) -> Call:
    left = iter(range(number - 1))

    def happens(*_: Any) -> None:
        if next(left, None) is None:
            send(signal.SIGKILL)

    return happens


class Mortal:
    """A file system that kills whoever is about to make a change at which something is to happen."""

    def __init__(self, fileio: Any, happens: Call) -> None:
        self._fileio = fileio
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._fileio, name)
        return before(call, self._happens) if name in ("rename", "makedirs", "rmtree") else call


def install(fault: str) -> None:
    moment, _, value = fault.partition(":")
    match moment:
        case "before":
            Launcher.launch = before(Launcher.launch, at_node(value, signal.SIGKILL))
        case "stopped":
            Launcher.launch = before(Launcher.launch, at_node(value, signal.SIGSTOP))
        case "after":
            Launcher._publish_successful_execution = before(
                Launcher._publish_successful_execution, at_node(value, signal.SIGKILL)
            )
        case "in":
            Launcher._run_executor = before(Launcher._run_executor, partial(watch, value, signal.SIGKILL))
        case "ending":
            Launcher._run_executor = before(Launcher._run_executor, partial(watch, value, signal.SIGTERM))
        case "training":
            # Not the project's own function: TFX loads the module of the user function again.
            make, happens = Model.make_train_function, at_call(int(value))
            Model.make_train_function = lambda model: after(make(model), happens)
        case "pusher":
            mortal = Mortal(fileio, at_call(int(value)))
            for module in (versions, files):
                vars(module)["fileio"] = mortal


def watch(node: str, number: int, launcher: Any, info: Any) -> None:
    if launcher._pipeline_node.node_info.id != node:
        return
    folders = [Path(artifact.uri) for artifacts in info.output_dict.values() for artifact in artifacts]

    def until_something_is_written() -> None:
        while not any(names for folder in folders for _, _, names in os.walk(folder)):
            time.sleep(0.001)
        send(number)

    threading.Thread(target=until_something_is_written, daemon=True).start()


def run(request: dict[str, Any]) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_CREAT | os.O_WRONLY | os.O_TRUNC), descriptor)
    install(request["fault"])
    program, command = request["program"], request["command"]
    sys.argv = [program, *command]
    status = 70
    try:
        if program in PROGRAMS:
            PROGRAMS[program]()
        else:
            module, _, name = program.partition(":")
            getattr(importlib.import_module(module), name)(*command)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    assert local
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        elif "poll" in request:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        else:
            answer = os.fork()
            if answer == 0:
                run(request)
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()
