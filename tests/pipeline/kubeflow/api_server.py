"""Kubeflow Pipelines' API on a socket, as far as `ndr kubeflow` uses it; what it is sent must be one of the API's own models."""

import json
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
}
API = kfp_server_api.ApiClient()


class Api(ThreadingHTTPServer):
    """Keeps what it is sent.

    Attributes:
        kept: by kind and id, what was made.
        requests: method and path of every request, in their order.
        failing: so many of the next requests are answered by a fault.
        answer: where set, the status and body of every answer.
        silent: answers nothing until it is set.
        states: what the runs that are made are in each time they are asked for, by their names; else they succeed at once.
    """

    def __init__(self, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token = token
        self.kept: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.requests: list[str] = []
        self.failing = 0
        self.answer: tuple[int, str] | None = None
        self.silent = threading.Event()
        self.silent.set()
        self.states: dict[str, list[str]] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def named(self, kind: str, name: str) -> list[dict[str, Any]]:
        return [each for each in self.kept[kind].values() if each["display_name"] == name]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle(self._list)

    def do_POST(self) -> None:
        self._handle(self._post)

    def do_DELETE(self) -> None:
        self._handle(lambda kind, path, _: self.server.kept[kind].pop(path[0]) and {})

    def _handle(self, act: Callable[[str, list[str], dict[str, str]], dict[str, Any]]) -> None:
        address = urlsplit(self.path)
        self.server.requests.append(f"{self.command} {address.path.removeprefix(ROOT)}")
        self.server.silent.wait()
        if self.server.failing:
            self.server.failing -= 1
            return self._answer(503, "restarts")
        if self.server.answer:
            return self._answer(*self.server.answer)
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._answer(401, "who are you?")
        kind, *path = address.path.removeprefix(ROOT).strip("/").split("/")
        if kind not in KINDS:
            return self._answer(404, f"no {kind}")
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        try:
            self._answer(200, json.dumps(act(kind, path, query)))
        except ValueError as error:
            self._answer(400, str(error))

    def _list(self, kind: str, path: list[str], query: dict[str, str]) -> dict[str, Any]:
        if path:
            return self._now(kind, self.server.kept[kind][path[0]])
        (wanted,) = json.loads(query["filter"])["predicates"] if "filter" in query else [{}]
        assert wanted.get("operation", "EQUALS") == "EQUALS" and wanted.get("key", "display_name") == "display_name"
        found = [
            self._now(kind, each)
            for each in self.server.kept[kind].values()
            if wanted.get("stringValue") in (None, each["display_name"])
            and query.get("experiment_id") in (None, each.get("experiment_id"))
        ]
        start = int(query.get("page_token", "0"))
        more = {"next_page_token": str(start + PAGE)} if start + PAGE < len(found) else {}
        return {KINDS[kind][2]: found[start : start + PAGE], **more}

    def _now(self, kind: str, kept: dict[str, Any]) -> dict[str, Any]:
        """What is kept, and for a run the next of its states."""
        if kind != "runs":
            return kept
        left = self.server.states.get(kept["display_name"]) or ["SUCCEEDED"]
        return {**kept, "state": left.pop(0) if len(left) > 1 else left[0]}

    def _post(self, kind: str, path: list[str], _: dict[str, str]) -> dict[str, Any]:
        if path:
            name, _, action = path[0].partition(":")
            self.server.kept[kind][name]["mode"] = {"enable": "ENABLE", "disable": "DISABLE"}[action]
            return {}
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model, key, _ = KINDS[kind]
        if (understood := self._understood(sent, model)) != sent:
            raise ValueError(f"{sent} is no {model}, which is {understood}")
        name = uuid4().hex
        self.server.kept[kind][name] = {**sent, key: name}
        return self.server.kept[kind][name]

    def _understood(self, sent: dict[str, Any], model: str) -> dict[str, Any]:
        """What the API's model keeps of it."""

        class Response:
            data = json.dumps(sent)

        kept: dict[str, Any] = API.sanitize_for_serialization(API.deserialize(Response, model))
        return kept

    def _answer(self, status: int, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Tests are quiet."""
