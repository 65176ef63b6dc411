"""A connection to Kubeflow Pipelines: credentials, a check that it is Kubeflow, and readable errors."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import kfp_server_api as kfp
import urllib3

from schemas.errors import PassingError, UserError

TIMEOUT = 30  # seconds
OLDEST = (2, 5, 0)  # the first that passes a run's id to its steps, and parameters for the names of volumes and secrets
HEALTH = "/apis/v2beta1/healthz"
# The API server sends the first; the user interface, a proxy for the rest, sends the second.
TAGS = ("tag_name", "apiServerTagName")
SIGN_IN = (
    "sign in (NDR_KUBEFLOW_TOKEN, or NDR_KUBEFLOW_TOKEN_FILE with a file that is read at every request, or NDR_KUBEFLOW_COOKIE "
    "with a session's cookie), or add the path, such as /pipeline"
)
REFUSED = {
    401: "the token is missing, is refused or has expired: set NDR_KUBEFLOW_TOKEN again, or put it into a file that is read at "
    "every request, and name that in NDR_KUBEFLOW_TOKEN_FILE",
    403: "the token's owner has no right to this: ask the administrator for it, or name another profile with --namespace",
}


@dataclass(frozen=True)
class Access:
    """How to reach an installation of Kubeflow Pipelines.

    Attributes:
        host: its address, such as https://kubeflow.example/pipeline.
        token: sent with every request as a bearer token.
        token_file: a file that holds the token; read at every request, because the token in it may be renewed.
        cookie: a session cookie, `name=value`, for a site that signs users in with one.
        certificates: a file of certificates to trust; by default those of the public authorities.
        plain_http: whether token or cookie may be sent over http://.
    """

    host: str
    token: str = ""
    token_file: Path | None = None
    cookie: str = ""
    certificates: Path | None = None
    plain_http: bool = False


class Connection:
    """Sends requests to an installation. Every method raises what `_in_words` does.

    Args:
        access: how to reach it.

    Raises:
        UserError: the address is malformed, or would disclose the token.
    """

    def __init__(self, access: Access) -> None:
        self.host = access.host.rstrip("/")
        if not re.fullmatch(r"https?://[^/?#\s]+(/[^?#\s]*)?", self.host):
            raise UserError(
                "--host: expected an address such as https://kubeflow.example/pipeline, without what follows # or ?, received "
                f"{access.host!r}."
            )
        if access.token and access.token_file:
            raise UserError("expected one of NDR_KUBEFLOW_TOKEN and NDR_KUBEFLOW_TOKEN_FILE, received both.")
        if (
            self.host.startswith("http:")
            and (access.token or access.token_file or access.cookie)
            and not access.plain_http
        ):
            raise UserError(
                f"{self.host}: over http:// anyone on the way can read the token. Use https://, or allow it with --plain-http, as "
                "within a cluster or through `kubectl port-forward`."
            )
        configuration = kfp.Configuration(host=self.host)
        configuration.retries = False  # a second request could start a second run
        configuration.ssl_ca_cert = str(access.certificates) if access.certificates else None
        if access.token or access.token_file:
            configuration.api_key = {"authorization": access.token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        if access.token_file:
            configuration.refresh_api_key_hook = _reading(access.token_file)
        self._api = _Api(configuration, cookie=access.cookie or None)
        self.runs = kfp.RunServiceApi(self._api)
        self.schedules = kfp.RecurringRunServiceApi(self._api)
        self.experiments = kfp.ExperimentServiceApi(self._api)
        self.pipelines = kfp.PipelineServiceApi(self._api)
        self.uploads = kfp.PipelineUploadServiceApi(self._api)

    @cached_property
    def version(self) -> str:
        """Return the release of Kubeflow Pipelines, or an empty string if it does not say.

        Raises:
            UserError: it is not Kubeflow Pipelines, or a release that is too old.
        """
        health = self.call(
            self._api.call_api, HEALTH, "GET",
            response_type="object", auth_settings=["Bearer"], _return_http_data_only=True,
        )  # fmt: skip
        tag = next((health[name] for name in TAGS if name in health), None)
        if tag is None and health.get("apiServerReady") is False:
            raise PassingError(f"{self.host}: the user interface cannot reach Kubeflow's API server. Retry later.")
        if tag is None:
            raise UserError(
                f"{self.host} is not Kubeflow Pipelines: it answers {HEALTH} with {json.dumps(health)[:100]}. Check --host and its "
                "path."
            )
        match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", str(tag))
        if match and tuple(int(number or 0) for number in match.groups()) < OLDEST:
            raise UserError(
                f"{self.host} is Kubeflow Pipelines {tag}; expected {'.'.join(map(str, OLDEST))} or later, which passes a run's id "
                "to its steps. Upgrade it."
            )
        return str(tag) if match else ""

    def call(self, method: Callable[..., Any], *arguments: Any, making: str = "", **options: Any) -> Any:
        """Send a request once.

        Args:
            method: a method of one of the services.
            arguments: its positional arguments.
            making: what the request creates, if anything: the error then says that it may have been created.
            options: its keyword arguments; empty ones are left out.
        """
        with _in_words(self.host, making):
            passed = {name: value for name, value in options.items() if value != ""}
            return method(*arguments, _request_timeout=TIMEOUT, **passed)


class _Api(kfp.ApiClient):
    """Rejects answers that are not the API's."""

    def deserialize(self, response: Any, response_type: Any) -> Any:
        try:
            content = json.loads(response.data)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            kind = (response.getheader("content-type") or "of no type").partition(";")[0]
            raise UserError(
                f"{self.configuration.host} answered with a page ({kind}), not with what Kubeflow's API says: {SIGN_IN}."
            )
        return super().deserialize(response, response_type)


def _reading(path: Path) -> Callable[[Any], None]:
    def refresh(configuration: Any) -> None:
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: expected a token: {getattr(error, 'strerror', None) or error}.") from error
        if not token:
            raise UserError(f"{path}: expected a token, received an empty file.")
        configuration.api_key = {"authorization": token}

    return refresh


@contextmanager
def _in_words(host: str, making: str) -> Iterator[None]:
    """Turn a failed request into a sentence.

    Raises:
        PassingError: the server cannot be reached, does not answer in time, or fails internally.
        UserError: the server is not trusted, refuses, or is not Kubeflow's API.
    """
    doubt = f" Whether it created {making} is unknown: check before you repeat the command." if making else ""
    try:
        yield
    except (kfp.ApiException, AttributeError) as error:
        # Without an answer the API's client has nothing to decode, and raises an error of its own.
        failure = error if isinstance(error, kfp.ApiException) else error.__context__
        if not isinstance(failure, kfp.ApiException):
            raise
        status = int(failure.status or 0)
        if not status:
            reason = " ".join(str(failure.reason).split())
            raise UserError(
                f"{host} cannot be trusted: {reason}. Name a file with the certificates of its authority: --certificates FILE."
            ) from error
        if status >= 500 or status == 429:
            raise PassingError(f"{host} answered {status}: {_reason(failure)}.{doubt}") from error
        raise UserError(f"{host} answered {status}: {REFUSED.get(status) or _reason(failure)}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{host} answered without text: {SIGN_IN}.") from error
    except urllib3.exceptions.HTTPError as error:
        raise PassingError(
            f"{host} cannot be reached: {error}. Check --host, and that the server runs.{doubt}"
        ) from error


def _reason(failure: Any) -> str:
    """Extract the readable part of the server's answer."""
    body = failure.body.decode(errors="replace") if isinstance(failure.body, bytes) else str(failure.body or "")
    try:
        answer = json.loads(body)
        text = str(answer.get("message") or answer.get("error") or answer) if isinstance(answer, dict) else body
    except ValueError:
        text = body
    target = (failure.headers or {}).get("Location")
    if target:
        return f"it redirects to {target}, a sign-in perhaps: {SIGN_IN}"
    if text.lstrip().startswith("<"):
        return f"a page, not what Kubeflow's API says: {SIGN_IN}"
    return " ".join(text.split())[:300] or str(failure.reason)
