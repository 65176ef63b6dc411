"""The pipeline's metrics, as Prometheus' own parser reads them, and `ndr check`."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from components.pusher import labels
from components.pusher.versions import PushFolder
from pipeline.config import Config
from pipeline.monitoring import metrics, standing
from pipeline.monitoring.settings import MonitoringSettings
from tests.work import Work

FIRST = 20261122001


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "var")


def day(work: Work, date: str, blessed: bool = True) -> int:
    """A day that was run to its end; the version that it pushed, or 0."""
    made = work.day(date, blessed=blessed)
    version = work.push(made) if blessed else 0
    pushed = work.step(made.run, "Pusher", "pushed", "PushedModel", pushed=int(blessed))
    if version:
        pushed.custom_properties["pushed_version"].string_value = str(version)
        work.store.put_artifacts([pushed])
    return version


def config(work: Work, **monitoring: str) -> Config:
    return work.places.model_copy(update={"name": "shop", "monitoring": MonitoringSettings(**monitoring)})


def read(text: str) -> dict[tuple[str, ...], float]:
    """By name and the values of its labels but the pipeline's, each sample."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            assert sample.labels.pop("pipeline") == "shop"
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def test_a_pushed_day(work: Work) -> None:
    version = day(work, "2026-11-22")
    labels.assign(PushFolder(work.places.serving), "stable", version)
    found = read(generate_latest(metrics.registry(config(work), standing.read(work.places))).decode())
    midnight = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    assert found["ndr_newest_version",] == version == FIRST
    assert found["ndr_newest_day_timestamp_seconds",] == found["ndr_day_timestamp_seconds",] == midnight
    assert found["ndr_labelled_version", "stable"] == version
    outcomes = {name[1]: value for name, value in found.items() if name[0] == "ndr_day_outcome"}
    assert outcomes.pop("pushed") == 1 and set(outcomes.values()) == {0} and len(outcomes) == 7
    now = datetime.now(UTC).timestamp()
    assert now - 600 < found["ndr_last_success_timestamp_seconds",] <= now + 1
    assert found["ndr_last_step_timestamp_seconds",] == found["ndr_last_success_timestamp_seconds",]
    assert found["ndr_step_duration_seconds", "Trainer"] >= 0
    (build,) = (name for name in found if name[0] == "ndr_build_info")
    assert "0.1.0" in build and found[build] == 1


def test_a_refused_day_leaves_the_version_before(work: Work) -> None:
    day(work, "2026-11-22")
    before = standing.read(work.places)
    day(work, "2026-11-23", blessed=False)
    after = standing.read(work.places)
    found = read(generate_latest(metrics.registry(config(work), after)).decode())
    assert (found["ndr_day_outcome", "refused"], found["ndr_day_outcome", "pushed"]) == (1, 0)
    assert found["ndr_newest_version",] == FIRST
    assert after.succeeded == before.succeeded
    assert found["ndr_day_timestamp_seconds",] == datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def test_a_rollback_is_no_success(work: Work) -> None:
    day(work, "2026-11-22")
    first = standing.read(work.places)
    day(work, "2026-11-23")
    assert standing.read(work.places).succeeded != first.succeeded
    work.roll_back()
    now = standing.read(work.places)
    assert now.succeeded == first.succeeded
    assert now.live and (now.live.version, str(now.live.day)) == (20261123002, "2026-11-22")


def test_before_the_first_run_there_is_no_day(tmp_path: Path) -> None:
    found = read(
        generate_latest(metrics.registry(config(Work(tmp_path)), standing.read(Work(tmp_path).places))).decode()
    )
    assert found["ndr_newest_version",] == found["ndr_last_success_timestamp_seconds",] == 0
    assert {value for name, value in found.items() if name[0] == "ndr_day_outcome"} == {0}


def test_the_file_is_whole_and_a_fault_is_no_exception(work: Work, tmp_path: Path) -> None:
    day(work, "2026-11-22")
    path = tmp_path / "collector" / "ndr.prom"
    assert metrics.export(config(work, textfile=str(path))) == []
    assert read(path.read_text())["ndr_newest_version",] == FIRST
    assert list(path.parent.iterdir()) == [path]  # nothing aside is left
    (fault,) = metrics.export(config(work, textfile=str(path / "below.prom")))
    assert "The metrics were not written" in fault
    assert metrics.export(config(work)) == []


class Gateway(HTTPServer):
    """Keeps what is pushed, as a Pushgateway takes it: PUT replaces all metrics of a group."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, str]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                received.append((self.command, self.path, body))
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        yield gateway
        gateway.shutdown()


def test_the_pushgateway_gets_the_group_of_the_pipeline(work: Work, gateway: Gateway) -> None:
    day(work, "2026-11-22")
    assert metrics.export(config(work, pushgateway=f"http://127.0.0.1:{gateway.server_port}")) == []
    ((method, path, body),) = gateway.received
    assert (method, path) == ("PUT", "/metrics/job/ndr/pipeline/shop")
    assert read(body)["ndr_newest_version",] == FIRST
    (fault,) = metrics.export(config(work, pushgateway="http://127.0.0.1:1"))
    assert "not pushed to http://127.0.0.1:1" in fault


def test_the_check_says_why(work: Work) -> None:
    hour, now = timedelta(hours=1), datetime.now(UTC)
    nothing = standing.check(standing.read(work.places), hour, now)
    assert (nothing.is_good, nothing.sentence) == (False, "No day was pushed yet; no run was started. Nothing is live.")
    day(work, "2026-11-22")
    good = standing.check(standing.read(work.places), hour, datetime.now(UTC))
    assert good.is_good and good.sentence.endswith(f"minutes ago. Version {FIRST} of 2026-11-22 is live.")
    made = work.run("2026-11-23")
    work._execution(made, "Interactions", mlmd.Execution.FAILED)
    # The last success was today; of the days since, the first does not exist: a day more is allowed.
    today = datetime.now(UTC).date()
    assert standing.check(standing.read(work.places), 30 * hour, datetime.now(UTC) + 31 * hour, today.__eq__).is_good
    late = standing.check(standing.read(work.places), 30 * hour, datetime.now(UTC) + 31 * hour)
    assert not late.is_good
    assert late.sentence == (
        f"The last pushed day ended 31.0 hours ago; at most 30.0 hours is allowed. Version {FIRST} of 2026-11-22 is live."
    )
    assert late.reasons == (f"2026-11-23, run {made.name}: failed.", "Interactions failed.")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"textfile": "ndr.txt"}, "ending in .prom"),
        ({"pushgateway": "pushgateway:9091"}, "an address such as"),
        ({"pushgateway": "http://user:secret@gateway"}, "an address such as"),
    ],
)
def test_invalid_settings_are_rejected(settings: dict[str, str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        MonitoringSettings(**settings)
