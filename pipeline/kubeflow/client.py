"""A client of Kubeflow Pipelines for a daily pipeline: its versions, its runs, and its one schedule."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import kfp_server_api as kfp

from pipeline.kubeflow.connection import Connection
from pipeline.kubeflow.package import Package
from pipeline.monitoring.missed import DAYS_BACK, MAKE_UP_DAYS
from schemas.errors import PassingError, UserError

PAGE = 100
POLL = 15.0  # seconds between requests for a run's state; longer than a new run takes to be listed
PATIENCE = 40  # consecutive requests that may fail
CRON_FIELDS = 6
ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}
MADE_BY = "Made by ndr from "

Say = Callable[[str], None]


@dataclass(frozen=True)
class Schedule:
    """When a pipeline runs, and for which day: the oldest without a complete run, chosen by the run's first step.

    Attributes:
        cron: six fields, the first of them seconds; in the time zone of Kubeflow's schedule controller.
        days_back: the newest day that may be chosen is n days before the UTC day on which the run starts.
        make_up_days: the oldest day that may be chosen is n days before the newest.
        settings: `key=value` each, in place of those that the pipeline was compiled with; empty to keep these.
    """

    cron: str
    days_back: int = DAYS_BACK
    make_up_days: int = MAKE_UP_DAYS
    settings: Sequence[str] = ()


class Client:
    """One installation of Kubeflow Pipelines.

    Every method raises UserError if the installation refuses or is not Kubeflow's API, and PassingError if it cannot be
    reached or fails internally.

    Args:
        connection: the connection. The constructor checks the installation's version.
        namespace: the profile, on an installation for many users.
        say: called with each progress message.
    """

    def __init__(self, connection: Connection, namespace: str = "", say: Say = lambda words: None) -> None:
        self._to, self._namespace, self._say = connection, namespace, say
        if not connection.version:
            say(f"{connection.host} does not say which version it is; 2.5.0 or later is expected")

    def upload(self, package: Package) -> tuple[str, str, bool]:
        """Upload a compiled pipeline as a version, unless it exists already.

        Returns:
            The ids of pipeline and version, and whether the version is new.
        """
        pipeline = self._pipeline(package.name)
        if pipeline is None:
            wanted = kfp.V2beta1Pipeline(display_name=package.name, namespace=self._namespace or None)
            created = self._to.call(self._to.pipelines.pipeline_service_create_pipeline, wanted, making="a pipeline")
            pipeline = self._id_of(created, "pipeline_id")
        for version in self._listed(
            self._to.pipelines.pipeline_service_list_pipeline_versions,
            "pipeline_versions",
            pipeline,
            sort_by="created_at desc",
        ):
            if version.display_name == package.version:
                return pipeline, self._id_of(version, "pipeline_version_id"), False
        version = self._to.call(
            self._to.uploads.upload_pipeline_version, str(package.path),
            making="a version", name=package.version, pipelineid=pipeline,
        )  # fmt: skip
        return pipeline, self._id_of(version, "pipeline_version_id"), True

    def submit(self, package: Package, day: date, settings: Sequence[str] = ()) -> str:
        """Start a run of a day; return its id."""
        run = kfp.V2beta1Run(
            display_name=f"{package.name} {day}",
            experiment_id=self._experiment(package.name),
            pipeline_version_reference=self._reference(package),
            runtime_config=_parameters({"date": str(day)}, settings),
        )
        return self._id_of(self._to.call(self._to.runs.run_service_create_run, run, making="a run"), "run_id")

    def retry(self, run: str) -> None:
        """Retry the failed steps of a run; each resumes where it stopped."""
        self._to.call(self._to.runs.run_service_retry_run, run)

    def unfinished(self, name: str, schedule: str = "") -> list[str]:
        """Return the ids of a pipeline's or a schedule's unfinished runs, oldest first."""
        experiment = self._experiment(name)
        runs = self._listed(
            self._to.runs.run_service_list_runs, "runs",
            namespace=self._namespace, experiment_id=experiment, sort_by="created_at asc",
        )  # fmt: skip
        return [
            self._id_of(run, "run_id")
            for run in runs
            if run.state not in ENDED and schedule in ("", run.recurring_run_id)
        ]

    def wait(self, run: str) -> str:
        """Wait for a run to end, and return its state. Retries failed requests, since asking again is harmless."""
        unanswered = 0
        while True:
            try:
                state, unanswered = str(self._to.call(self._to.runs.run_service_get_run, run).state), 0
            except PassingError:
                unanswered += 1
                if unanswered == PATIENCE:
                    raise
                state = ""
            if state in ENDED:
                return state
            time.sleep(POLL)

    def schedule(self, package: Package, wanted: Schedule) -> str:
        """Set a pipeline's schedule; return `new`, `replaced` or `the same`.

        The API cannot change a schedule, so a new one replaces it: it is created paused, which validates it; then the old one is
        removed as in `delete`; then the new one is resumed. If this is interrupted anywhere, the same call
        completes it.

        Raises:
            UserError: the cron expression does not have six fields, or ndr did not make the schedule of that name.
        """
        if len(wanted.cron.split()) != CRON_FIELDS:
            raise UserError(
                "expected a cron expression of six fields, seconds first, such as '0 0 4 * * *' for four o'clock, "
                f"received {wanted.cron!r}."
            )
        schedules = self._named(package.name)
        if foreign := [schedule for schedule in schedules if not str(schedule.description or "").startswith(MADE_BY)]:
            raise UserError(
                f"{self._to.host} has a schedule {package.name} that ndr did not make ({foreign[0].recurring_run_id}). Rename or "
                f"remove it there, or `ndr kubeflow delete {package.name}`; then schedule again."
            )
        content = json.dumps([package.version, asdict(wanted)], sort_keys=True)
        described = f"{MADE_BY}{hashlib.sha256(content.encode()).hexdigest()[:16]}."
        same = [schedule for schedule in schedules if schedule.description == described]
        others = [schedule for schedule in schedules if schedule not in same[:1]]
        if same and not others and same[0].mode != "DISABLE":
            return "the same"
        new = self._id_of(same[0], "recurring_run_id") if same else self._paused(package, wanted, described)
        for schedule in others:
            self._remove(package.name, self._id_of(schedule, "recurring_run_id"))
        self._to.call(self._to.schedules.recurring_run_service_enable_recurring_run, new)
        return "replaced" if others else "new"

    def schedules(self) -> list[Any]:
        """Return all schedules (V2beta1RecurringRun) of all pipelines."""
        return list(self._listed_schedules())

    def pause(self, name: str) -> None:
        """Start no further runs of a pipeline until it is resumed. A running one continues."""
        self._each(name, self._to.schedules.recurring_run_service_disable_recurring_run)

    def resume(self, name: str) -> None:
        """Resume a paused schedule."""
        self._each(name, self._to.schedules.recurring_run_service_enable_recurring_run)

    def delete(self, name: str) -> None:
        """Remove a pipeline's schedule once its last run has ended; its runs stay."""
        for schedule in self._existing(name):
            self._remove(name, self._id_of(schedule, "recurring_run_id"))

    def _paused(self, package: Package, wanted: Schedule, described: str) -> str:
        """Create a paused schedule; return its id."""
        schedule = kfp.V2beta1RecurringRun(
            display_name=package.name,
            description=described,
            experiment_id=self._experiment(package.name),
            pipeline_version_reference=self._reference(package),
            # Without a date: no release fills one into such a run, so Begin works it out.
            runtime_config=_parameters(
                {} if package.is_refresh else {"days_back": wanted.days_back, "make_up_days": wanted.make_up_days},
                wanted.settings,
            ),
            trigger=kfp.V2beta1Trigger(cron_schedule=kfp.V2beta1CronSchedule(cron=wanted.cron)),
            max_concurrency="1",  # a day continues from the one before
            no_catchup=True,  # missed days are found in ML Metadata, not by missed times
            mode=kfp.RecurringRunMode.DISABLE,
        )
        created = self._to.call(
            self._to.schedules.recurring_run_service_create_recurring_run, schedule, making="a schedule"
        )
        return self._id_of(created, "recurring_run_id")

    def _remove(self, name: str, schedule: str) -> None:
        """Remove a schedule once none of its runs is unfinished: Kubernetes would remove such a run with it.

        From 2.16 on Kubeflow can be asked to keep the runs, which also covers one not listed yet. Older releases ignore that.
        """
        self._to.call(self._to.schedules.recurring_run_service_disable_recurring_run, schedule)
        time.sleep(POLL)
        for run in self.unfinished(name, schedule):
            self._say(f"waits for unfinished run {run} before removing its schedule, which is paused")
            self.wait(run)
        delete = self._to.schedules.recurring_run_service_delete_recurring_run
        self._to.call(delete, schedule, propagation_policy="ORPHAN")

    def _each(self, name: str, action: Callable[..., Any]) -> None:
        for schedule in self._existing(name):
            self._to.call(action, schedule.recurring_run_id)

    def _existing(self, name: str) -> list[Any]:
        schedules = self._named(name)
        if not schedules:
            raise UserError(f"{self._to.host} has no schedule {name}. `ndr kubeflow list` shows all schedules.")
        return schedules

    def _named(self, name: str) -> list[Any]:
        return [schedule for schedule in self._listed_schedules(filter=_equals(name)) if schedule.display_name == name]

    def _listed_schedules(self, **options: str) -> Iterator[Any]:
        method = self._to.schedules.recurring_run_service_list_recurring_runs
        return self._listed(method, "recurring_runs", namespace=self._namespace, **options)

    def _listed(self, method: Callable[..., Any], kind: str, *arguments: str, **options: str) -> Iterator[Any]:
        """Yield every object of a kind, page by page."""
        token = ""
        while True:
            page = self._to.call(method, *arguments, page_token=token, page_size=PAGE, **options)
            yield from getattr(page, kind) or []
            token = page.next_page_token
            if not token:
                return

    def _reference(self, package: Package) -> kfp.V2beta1PipelineVersionReference:
        pipeline, version, _ = self.upload(package)
        return kfp.V2beta1PipelineVersionReference(pipeline_id=pipeline, pipeline_version_id=version)

    def _pipeline(self, name: str) -> str | None:
        """Return the id of the pipeline of a name, or None."""
        pipeline = self._find(self._to.pipelines.pipeline_service_list_pipelines, "pipelines", name)
        return self._id_of(pipeline, "pipeline_id") if pipeline else None

    def _experiment(self, name: str) -> str:
        """Return the id of the experiment of a name; create it if missing."""
        answer = self._find(self._to.experiments.experiment_service_list_experiments, "experiments", name)
        if not answer:
            experiment = kfp.V2beta1Experiment(display_name=name, namespace=self._namespace or None)
            create = self._to.experiments.experiment_service_create_experiment
            answer = self._to.call(create, experiment, making="an experiment")
        return self._id_of(answer, "experiment_id")

    def _find(self, method: Callable[..., Any], kind: str, name: str) -> Any:
        """Return the object of a name among those that a method lists, or None."""
        listed = self._listed(method, kind, namespace=self._namespace, filter=_equals(name))
        return next((entry for entry in listed if entry.display_name == name), None)

    def _id_of(self, answer: Any, name: str) -> str:
        value = getattr(answer, name, None)
        if not value:
            raise UserError(
                f"{self._to.host} answered without a {name}, which Kubeflow's API always sends. Check --host and its path, and any "
                "proxy in between."
            )
        return str(value)


def _parameters(parameters: dict[str, Any], settings: Sequence[str]) -> kfp.V2beta1RuntimeConfig:
    return kfp.V2beta1RuntimeConfig(parameters={**parameters, **({"settings": list(settings)} if settings else {})})


def _equals(name: str) -> str:
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})
