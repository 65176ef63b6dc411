"""What Kubeflow is asked, by the command line, against a server that takes only what its API declares."""

import datetime
import ipaddress
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import Api
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.kubeflow import client
from schemas.errors import PassingError, UserError

PACKAGE = """
pipelineInfo: {name: shop}
root: {dag: {tasks: {}}}
schemaVersion: 2.1.0
---
platforms: {kubernetes: {}}
"""
DAILY = ("--cron", "0 0 4 * * *")


@pytest.fixture
def api() -> Iterator[Api]:
    started = Api(token="s3cret")
    yield started
    started.silent.set()
    started.shutdown()
    started.server_close()


@pytest.fixture
def package(tmp_path: Path) -> str:
    path = tmp_path / "shop.yaml"
    path.write_text(PACKAGE)
    return str(path)


def ndr(api: Api, *command: str, token: str = "s3cret", status: int = 0) -> str:
    """What a command says."""
    environment = {"NDR_KUBEFLOW_TOKEN": token, "NDR_KUBEFLOW_HOST": api.host}
    answer = CliRunner(env=environment).invoke(app, ["kubeflow", *command])
    assert answer.exit_code == status, answer.output
    return answer.output


def test_a_day_is_submitted_to_the_experiment_of_its_pipeline(api: Api, package: str) -> None:
    said = ndr(api, "submit", package, "--date", "2026-11-24")
    ((run_id, run),) = api.kept["runs"].items()
    assert run_id in said
    assert run["runtime_config"] == {"parameters": {"date": "2026-11-24", "days_back": 0}}
    assert run["pipeline_spec"].keys() == {"pipeline_spec", "platform_spec"}
    ((experiment_id, experiment),) = api.kept["experiments"].items()
    assert (experiment["display_name"], run["experiment_id"]) == ("shop", experiment_id)
    ndr(api, "submit", package, "--date", "2026-11-25", "--set", "trainer.epochs=2")
    assert len(api.kept["experiments"]) == 1
    assert list(api.kept["runs"].values())[1]["runtime_config"]["parameters"]["settings"] == ["trainer.epochs=2"]


def test_a_schedule_passes_the_day_and_runs_one_at_a_time(api: Api, package: str) -> None:
    ndr(api, "schedule", package, *DAILY, "--days-back", "1")
    (schedule,) = api.named("recurringruns", "shop")
    assert schedule["runtime_config"]["parameters"] == {"date": "[[ScheduledTime.2006-01-02]]", "days_back": 1}
    assert schedule["trigger"] == {"cron_schedule": {"cron": "0 0 4 * * *"}}
    assert (schedule["max_concurrency"], schedule["no_catchup"], schedule["mode"]) == ("1", True, "ENABLE")


def test_a_schedule_is_one_a_pipeline_however_often_it_is_made(api: Api, package: str) -> None:
    assert "is scheduled" in ndr(api, "schedule", package, *DAILY)
    (first,) = api.named("recurringruns", "shop")
    assert "was so before" in ndr(api, "schedule", package, *DAILY)
    assert api.named("recurringruns", "shop") == [first]
    ndr(api, "schedule", package, "--cron", "0 0 5 * * *", "--catch-up")
    (second,) = api.named("recurringruns", "shop")
    assert (second["trigger"]["cron_schedule"]["cron"], second["no_catchup"]) == ("0 0 5 * * *", False)
    # A pipeline that was compiled anew is scheduled anew.
    Path(package).write_text(PACKAGE.replace("tasks: {}", "tasks: {another: {}}"))
    ndr(api, "schedule", package, "--cron", "0 0 5 * * *", "--catch-up")
    (third,) = api.named("recurringruns", "shop")
    assert "another" in third["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]


def test_schedules_are_listed_paused_resumed_and_deleted_by_name(api: Api, package: str, tmp_path: Path) -> None:
    for name in ("shop", "radio", "film"):  # more than fit on a page
        other = tmp_path / f"{name}.yaml"
        other.write_text(PACKAGE.replace("shop", name))
        ndr(api, "schedule", str(other), *DAILY)
    ndr(api, "pause", "radio")
    listed = ndr(api, "list")
    assert [("paused" in line) for line in listed.splitlines() if "0 0 4" in line] == [False, True, False]
    assert all(name in listed for name in ("shop", "radio", "film"))
    ndr(api, "resume", "radio")
    assert "paused" not in ndr(api, "list")
    ndr(api, "delete", "radio")
    assert [each["display_name"] for each in api.kept["recurringruns"].values()] == ["shop", "film"]
    assert "has no schedule radio" in ndr(api, "pause", "radio", status=1)


def test_what_the_server_refuses_is_told_in_words(api: Api, package: str) -> None:
    said = ndr(api, "list", token="wrong", status=1)
    assert (
        "answered 401: the token is missing or has expired" in said and "Traceback" not in said and "wrong" not in said
    )
    api.answer = (400, "no such day")
    assert "answered 400: no such day" in ndr(api, "submit", package, "--date", "2026-11-24", status=1)
    api.answer = (503, "busy")
    with pytest.raises(PassingError, match="answered 503"):
        client.Client(api.host).schedules()


def test_a_run_is_asked_for_once_whatever_comes_of_it(api: Api, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 1)
    ndr(api, "submit", package, "--date", "2026-11-24")
    api.requests.clear()
    api.silent.clear()
    said = ndr(api, "list", status=1)
    assert "timed out" in said and "Traceback" not in said
    assert len(api.requests) == 1


def test_a_server_that_is_not_there_is_named(package: str) -> None:
    with pytest.raises(PassingError, match=r"127\.0\.0\.1:1 cannot be reached: .*refused"):
        client.Client("http://127.0.0.1:1").schedules()


def test_a_certificate_is_checked_against_those_that_are_trusted(api: Api, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = Api()
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    host = secure.host.replace("http:", "https:")
    with pytest.raises(UserError, match=r"cannot be trusted: .*self-signed"):
        client.Client(host).schedules()
    assert client.Client(host, certificates=certificate).schedules() == []
    secure.shutdown()
    secure.server_close()


@pytest.mark.parametrize("cron", ["0 4 * * *", "daily"])
def test_a_cron_expression_without_seconds_is_refused(api: Api, package: str, cron: str) -> None:
    assert "six fields, seconds first" in ndr(api, "schedule", package, "--cron", cron, status=1)
    assert api.requests == []


@pytest.mark.parametrize("text", ["", "a: b\n---\nc: d\n", "- x\n---\n- y\n", "a: [", "one: document\n"])
def test_a_file_that_is_no_compiled_pipeline_is_named(api: Api, tmp_path: Path, text: str) -> None:
    (tmp_path / "other.yaml").write_text(text)
    said = ndr(api, "submit", str(tmp_path / "other.yaml"), "--date", "2026-11-24", status=1)
    assert "expected what `ndr kubeflow compile` writes" in said and "Traceback" not in said


def self_signed(folder: Path) -> Path:
    """A certificate of 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    return path
