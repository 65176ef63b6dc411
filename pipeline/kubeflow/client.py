"""Kubeflow Pipelines' API, as far as a daily pipeline needs it: runs, and one schedule a pipeline."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import kfp_server_api as kfp
import urllib3
import yaml

from schemas.errors import PassingError, UserError

TIMEOUT = 30  # seconds
PAGE = 100
SCHEDULED_DAY = "[[ScheduledTime.2006-01-02]]"  # filled in by Kubeflow; the day is Go's way of writing a format
CRON_FIELDS = 6
ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}
REFUSED = {401: "the token is missing or has expired", 403: "the token's owner may not do this"}


@dataclass(frozen=True)
class Package:
    """A compiled pipeline.

    Attributes:
        name: the pipeline's, which its schedule and its experiment have too.
        spec: as the API takes it.
    """

    name: str
    spec: dict[str, Any]


@dataclass(frozen=True)
class Schedule:
    """When a pipeline runs.

    Attributes:
        cron: six fields, the first of them seconds; in the time zone of the cluster.
        days_back: the day that is run lies so many days before the scheduled one.
        catch_up: whether days that were missed while it was paused are run, one after the other.
        settings: `key=value` each, in place of those that the pipeline was compiled with; none leaves these.
    """

    cron: str
    days_back: int = 0
    catch_up: bool = False
    settings: Sequence[str] = ()


def read_package(path: Path) -> Package:
    """Reads what `ndr kubeflow compile` wrote.

    Raises:
        UserError: it is not there, or is something else.
    """
    try:
        pipeline, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        return Package(pipeline["pipelineInfo"]["name"], {"pipeline_spec": pipeline, "platform_spec": platform})
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: expected what `ndr kubeflow compile` writes, found something else: {error}."
        ) from error


class Client:
    """One installation of Kubeflow Pipelines. Every method raises what `_told` does.

    Args:
        host: its address, such as https://kubeflow.example/pipeline.
        token: goes with every request as a bearer; none where the installation asks for none.
        certificates: a file of certificates to trust; by default those of the public authorities.
        namespace: the profile, on an installation for many users.
    """

    def __init__(self, host: str, token: str = "", certificates: Path | None = None, namespace: str = "") -> None:
        configuration = kfp.Configuration(host=host.rstrip("/"))
        configuration.retries = False  # a second request could start a second run
        configuration.ssl_ca_cert = str(certificates) if certificates else None
        if token:
            configuration.api_key = {"authorization": token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        api = kfp.ApiClient(configuration)
        self._host, self._namespace = host, namespace
        self._runs = kfp.RunServiceApi(api)
        self._schedules = kfp.RecurringRunServiceApi(api)
        self._experiments = kfp.ExperimentServiceApi(api)

    def submit(self, package: Package, day: date, settings: Sequence[str] = ()) -> str:
        """Starts a run of a day; returns its id."""
        run = kfp.V2beta1Run(
            display_name=f"{package.name} {day}",
            experiment_id=self._experiment(package.name),
            pipeline_spec=package.spec,
            runtime_config=_parameters(str(day), 0, settings),
        )
        return str(self._call(self._runs.run_service_create_run, run).run_id)

    def unfinished(self, name: str) -> list[str]:
        """The ids of a pipeline's runs that have not ended, oldest first."""
        experiment = self._experiment(name)
        runs = self._listed(
            self._runs.run_service_list_runs, "runs", experiment_id=experiment, sort_by="created_at asc"
        )
        return [str(each.run_id) for each in runs if each.state not in ENDED]

    def final_state(self, run: str) -> str | None:
        """What a run ended as: SUCCEEDED, SKIPPED, FAILED or CANCELED; None while it is at work."""
        state = self._call(self._runs.run_service_get_run, run).state
        return str(state) if state in ENDED else None

    def schedule(self, package: Package, wanted: Schedule) -> bool:
        """Makes a pipeline's schedule what is wanted, whatever it was; returns whether that changed anything.

        The API cannot change a schedule: another one takes its place. One whose making fails is made by the same call again.

        Raises:
            UserError: the cron expression does not have six fields.
        """
        if len(wanted.cron.split()) != CRON_FIELDS:
            raise UserError(
                "expected a cron expression of six fields, seconds first, such as '0 0 4 * * *' for four o'clock, "
                f"received {wanted.cron!r}."
            )
        content = json.dumps([package.spec, asdict(wanted)], sort_keys=True, default=str)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        described = f"Made by ndr from {digest}."
        there = self._named(package.name)
        if [each.description for each in there] == [described]:
            return False
        experiment = self._experiment(package.name)
        for each in there:
            self._call(self._schedules.recurring_run_service_delete_recurring_run, each.recurring_run_id)
        schedule = kfp.V2beta1RecurringRun(
            display_name=package.name,
            description=described,
            experiment_id=experiment,
            pipeline_spec=package.spec,
            runtime_config=_parameters(SCHEDULED_DAY, wanted.days_back, wanted.settings),
            trigger=kfp.V2beta1Trigger(cron_schedule=kfp.V2beta1CronSchedule(cron=wanted.cron)),
            max_concurrency="1",  # a day goes on from the one before
            no_catchup=not wanted.catch_up,
            mode=kfp.RecurringRunMode.ENABLE,
        )
        self._call(self._schedules.recurring_run_service_create_recurring_run, schedule)
        return True

    def schedules(self) -> list[Any]:
        """All schedules (V2beta1RecurringRun), of whatever pipeline."""
        return list(self._listed_schedules())

    def pause(self, name: str) -> None:
        """Starts no further run of a pipeline until it is resumed."""
        self._each(name, self._schedules.recurring_run_service_disable_recurring_run)

    def resume(self, name: str) -> None:
        """Takes up a schedule that was paused."""
        self._each(name, self._schedules.recurring_run_service_enable_recurring_run)

    def delete(self, name: str) -> None:
        """Removes a pipeline's schedule; its runs stay."""
        self._each(name, self._schedules.recurring_run_service_delete_recurring_run)

    def _each(self, name: str, action: Callable[..., Any]) -> None:
        found = self._named(name)
        if not found:
            raise UserError(f"{self._host} has no schedule {name}. `ndr kubeflow list` shows those that it has.")
        for each in found:
            self._call(action, each.recurring_run_id)

    def _named(self, name: str) -> list[Any]:
        return [each for each in self._listed_schedules(filter=_equals(name)) if each.display_name == name]

    def _listed_schedules(self, **options: str) -> Iterator[Any]:
        return self._listed(self._schedules.recurring_run_service_list_recurring_runs, "recurring_runs", **options)

    def _listed(self, method: Callable[..., Any], kind: str, **options: str) -> Iterator[Any]:
        """Everything of a kind, page after page."""
        token = ""
        while True:
            page = self._call(method, page_token=token, page_size=PAGE, namespace=self._namespace, **options)
            yield from getattr(page, kind) or []
            token = page.next_page_token
            if not token:
                return

    def _experiment(self, name: str) -> str:
        """The id of the experiment of a name, made where there is none."""
        listed = self._call(
            self._experiments.experiment_service_list_experiments, filter=_equals(name), namespace=self._namespace
        )
        for each in listed.experiments or []:
            if each.display_name == name:
                return str(each.experiment_id)
        experiment = kfp.V2beta1Experiment(display_name=name, namespace=self._namespace or None)
        return str(self._call(self._experiments.experiment_service_create_experiment, experiment).experiment_id)

    def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with _told(self._host):
            given = {name: value for name, value in options.items() if value != ""}
            return method(*arguments, _request_timeout=TIMEOUT, **given)


def _parameters(day: str, days_back: int, settings: Sequence[str]) -> kfp.V2beta1RuntimeConfig:
    own = {"settings": list(settings)} if settings else {}
    return kfp.V2beta1RuntimeConfig(parameters={"date": day, "days_back": days_back, **own})


def _equals(name: str) -> str:
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


@contextmanager
def _told(host: str) -> Iterator[None]:
    """A request that failed, in words.

    Raises:
        PassingError: the server cannot be reached, does not answer in time, or has a fault of its own.
        UserError: it is not to be trusted, or refuses.
    """
    try:
        yield
    except (kfp.ApiException, AttributeError) as error:
        # The API's client has nothing to decode where there was no answer, and trips over that.
        failure = error if isinstance(error, kfp.ApiException) else error.__context__
        if not isinstance(failure, kfp.ApiException):
            raise
        status = int(failure.status or 0)
        if not status:
            reason = " ".join(str(failure.reason).split())
            raise UserError(
                f"{host} cannot be trusted: {reason}. Name a file of the certificates that vouch for it: --certificates FILE."
            ) from error
        said = REFUSED.get(status) or str(failure.body or failure.reason)[:300]
        raise (PassingError if status >= 500 or status == 429 else UserError)(
            f"{host} answered {status}: {said}."
        ) from error
    except urllib3.exceptions.HTTPError as error:
        raise PassingError(f"{host} cannot be reached: {error}. Check --host, and that the server runs.") from error
