"""Kubeflow Pipelines' API on a socket, as far as `ndr kubeflow` uses it; what it is sent must be one of the API's own models.

It is ours, and proves nothing of Kubeflow but what its published models say. Where we had assumed otherwise once it does as
Kubeflow's sources do: a schedule that is deleted takes the runs with it that it started, unless a server from 2.16 on is asked to
orphan them.
"""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import kfp_server_api

ROOT = "/apis/v2beta1"
PAGE = 2  # whatever is asked for: clients have to come back for the rest
KINDS = {
    "recurringruns": ("V2beta1RecurringRun", "recurring_run_id", "recurringRuns"),
    "runs": ("V2beta1Run", "run_id", "runs"),
    "experiments": ("V2beta1Experiment", "experiment_id", "experiments"),
    "pipelines": ("V2beta1Pipeline", "pipeline_id", "pipelines"),
    "versions": ("V2beta1PipelineVersion", "pipeline_version_id", "pipeline_versions"),
}
API = kfp_server_api.ApiClient()


class Api(ThreadingHTTPServer):
    """Keeps what it is sent.

    Attributes:
        kept: by kind and id, what was made.
        requests: method and path of every request, in their order, but for those after its health.
        headers: of the last request.
        health: what it says of itself.
        failing: the number of next requests that are answered by a fault.
        answer: where set, the status, type and body of every answer.
        location: where set, all requests are redirected there.
        silent: answers nothing until it is set.
        states: what the runs that are made are in each time they are asked for, by their names; else they succeed at once.
        succeeded: told the name of a run each time it is found to have succeeded.
    """

    def __init__(self, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token = token
        self.kept: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.requests: list[str] = []
        self.headers: dict[str, str] = {}
        self.health: dict[str, Any] = {"commit_sha": "x", "tag_name": "2.16.0", "multi_user": False}
        self.failing = 0
        self.answer: tuple[int, str, str] | None = None
        self.location = ""
        self.silent = threading.Event()
        self.silent.set()
        self.states: dict[str, list[str]] = {}
        self.succeeded: Callable[[str], None] = lambda name: None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def keeps_orphans(self) -> bool:
        return int(str(self.health["tag_name"]).split(".")[1]) >= 16

    def named(self, kind: str, name: str) -> list[dict[str, Any]]:
        return [each for each in self.kept[kind].values() if each["display_name"] == name]

    def fire(self, schedule: dict[str, Any], state: str) -> str:
        """A run that a schedule starts, which stays in a state; returns its id."""
        run = uuid4().hex
        name = f"{schedule['display_name']} {run}"
        self.states[name] = [state]
        self.kept["runs"][run] = {
            "run_id": run, "display_name": name,
            **{key: schedule[key] for key in ("recurring_run_id", "experiment_id", "runtime_config")},
        }  # fmt: skip
        return run


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle(self._get)

    def do_POST(self) -> None:
        self._handle(self._post)

    def do_DELETE(self) -> None:
        self._handle(self._delete)

    def _handle(self, act: Callable[[str, list[str], dict[str, str]], dict[str, Any]]) -> None:
        address = urlsplit(self.path)
        path = address.path.removeprefix(ROOT)
        self._body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.headers = dict(self.headers)
        if path != "/healthz":
            self.server.requests.append(f"{self.command} {path}")
        self.server.silent.wait()
        if self.server.failing:
            self.server.failing -= 1
            return self._answer(503, "restarts")
        if self.server.location:
            return self._answer(302, "")
        if self.server.answer:
            status, kind, body = self.server.answer
            return self._answer(status, body, kind)
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._answer(401, "who are you?")
        if path == "/healthz":
            return self._answer(200, json.dumps(self.server.health))
        kind, *rest = path.strip("/").split("/")
        if kind not in KINDS:
            return self._answer(404, f"no {kind}")
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        try:
            self._answer(200, json.dumps(act(kind, rest, query)))
        except ValueError as error:
            self._answer(400, json.dumps({"error": str(error), "code": 3, "message": str(error)}))

    def _get(self, kind: str, path: list[str], query: dict[str, str]) -> dict[str, Any]:
        if path[1:] == ["versions"]:
            return self._page("versions", {"pipeline_id": path[0]}, query)
        if path:
            return self._now(kind, self.server.kept[kind][path[0]])
        (wanted,) = json.loads(query["filter"])["predicates"] if "filter" in query else [{}]
        assert wanted.get("operation", "EQUALS") == "EQUALS" and wanted.get("key", "display_name") == "display_name"
        named = {"display_name": wanted["stringValue"]} if wanted else {}
        own = {"experiment_id": query["experiment_id"]} if "experiment_id" in query else {}
        return self._page(kind, {**named, **own}, query)

    def _page(self, kind: str, wanted: dict[str, str], query: dict[str, str]) -> dict[str, Any]:
        found = [
            self._now(kind, each)
            for each in self.server.kept[kind].values()
            if all(each.get(key) == value for key, value in wanted.items())
        ]
        start = int(query.get("page_token", "0"))
        more = {"next_page_token": str(start + PAGE)} if start + PAGE < len(found) else {}
        return {KINDS[kind][2]: found[start : start + PAGE], **more}

    def _now(self, kind: str, kept: dict[str, Any]) -> dict[str, Any]:
        """What is kept, and for a run the next of its states."""
        if kind != "runs":
            return kept
        left = self.server.states.get(kept["display_name"]) or ["SUCCEEDED"]
        state = left.pop(0) if len(left) > 1 else left[0]
        if state == "SUCCEEDED":
            self.server.succeeded(kept["display_name"])
        return {**kept, "state": state}

    def _post(self, kind: str, path: list[str], query: dict[str, str]) -> dict[str, Any]:
        if path == ["upload_version"]:
            (content,) = re.findall(rb'name="uploadfile".*?\r\n\r\n(.*)\r\n--', self._body, re.DOTALL)
            version = {"display_name": query["name"], "pipeline_id": query["pipelineid"], "content": content.decode()}
            return self._keep("versions", version)
        if path:
            name, _, action = path[0].partition(":")
            if action != "retry":
                self.server.kept[kind][name]["mode"] = {"enable": "ENABLE", "disable": "DISABLE"}[action]
            return {}
        sent = json.loads(self._body)
        if (understood := self._understood(sent, KINDS[kind][0])) != sent:
            raise ValueError(f"{sent} is no {KINDS[kind][0]}, which is {understood}")
        return self._keep(kind, sent)

    def _keep(self, kind: str, sent: dict[str, Any]) -> dict[str, Any]:
        name = uuid4().hex
        self.server.kept[kind][name] = {**sent, KINDS[kind][1]: name}
        return self.server.kept[kind][name]

    def _delete(self, kind: str, path: list[str], query: dict[str, str]) -> dict[str, Any]:
        del self.server.kept[kind][path[0]]
        if query.get("propagation_policy") != "ORPHAN" or not self.server.keeps_orphans:
            runs = self.server.kept["runs"]
            for run in [name for name, each in runs.items() if each.get("recurring_run_id") == path[0]]:
                if self._now("runs", runs[run])["state"] == "RUNNING":
                    del runs[run]
        return {}

    def _understood(self, sent: dict[str, Any], model: str) -> dict[str, Any]:
        """What the API's model keeps of it."""

        class Response:
            data = json.dumps(sent)

        kept: dict[str, Any] = API.sanitize_for_serialization(API.deserialize(Response, model))
        return kept

    def _answer(self, status: int, body: str, kind: str = "application/json") -> None:
        content = body.encode()
        self.send_response(status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""
