"""Alerts and the dashboard, by Prometheus's own tools."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rendered import DEPLOY, of_kind

FOLDER = DEPLOY / "components" / "monitoring"
(RULES,) = of_kind(list(yaml.safe_load_all((FOLDER / "rules.yaml").read_text())), "PrometheusRule").values()
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
JOB = 'job="ndr/ndr-serving"'


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    return subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "5m")


def loaded(instance: str, version: int) -> dict[str, str]:
    """A server that loaded a version once, as TF Serving's exporter writes it."""
    labels = f'{JOB}, instance="{instance}", status="success", model_path="/ndr/serving/retriever/{version}"'
    return {"series": f":tensorflow:cc:saved_model:load_attempt_count{{{labels}}}", "values": "1x20"}


def test_the_rules_are_prometheus_own(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump(RULES["spec"]))
    done = promtool("check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [rule["alert"] for group in RULES["spec"]["groups"] for rule in group["rules"]]
    assert f"{len(names)} rules found" in done.stdout and len(set(names)) == len(names)


def test_every_panels_query_is_valid(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions())]
    assert rules
    asked = tmp_path / "panels.yaml"
    asked.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", asked)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def alert(name: str, at: str, *expected: dict[str, str]) -> dict[str, Any]:
    """That an alert fires, with these labels, or does not."""
    (rule,) = (rule for group in RULES["spec"]["groups"] for rule in group["rules"] if rule["alert"] == name)
    return {
        "eval_time": at, "alertname": name,
        "exp_alerts": [{"exp_labels": {**rule["labels"], **labels}} for labels in expected],
    }  # fmt: skip


# Prometheus's tests begin at 1970-01-01T00:00Z: a day that began at 01:00 is 56 hours old at 57 hours.
CASES: dict[str, dict[str, Any]] = {
    "a version of each day": {
        "interval": "1h",
        "input_series": [
            {"series": 'ndr_newest_day_timestamp_seconds{pipeline="radio"}', "values": "3600x60"},
            {"series": 'ndr_newest_day_timestamp_seconds{pipeline="new"}', "values": "0x60"},  # nothing was pushed yet
        ],
        "alert_rule_test": [alert("NdrNoNewVersion", "57h"), alert("NdrNoNewVersion", "58h", {"pipeline": "radio"})],
    },
    "the outcome of the day": {
        "interval": "1h",
        "input_series": [
            {"series": f'ndr_day_outcome{{pipeline="radio", outcome="{outcome}"}}', "values": values}
            for outcome, values in {
                "pushed": "1 0 0 0 0 0",
                "unfinished": "0 1 0 0 0 0",
                "refused": "0 0 1 0 0 0",
                "not servable": "0 0 0 1 0 0",
                "withdrawn": "0 0 0 0 1 0",
                "passed over": "0 0 0 0 0 1",
            }.items()
        ],
        "alert_rule_test": [
            alert("NdrDayRefused", "0h"),
            alert("NdrDayRefused", "1h"),
            alert("NdrDayRefused", "2h", {"pipeline": "radio", "outcome": "refused"}),
            alert("NdrDayRefused", "3h", {"pipeline": "radio", "outcome": "not servable"}),
            alert("NdrDayRefused", "4h"),
            alert("NdrDayRefused", "5h"),
            alert("NdrPipelineUnknown", "1h"),
            alert("NdrPipelineUnknown", "3h", {}),
        ],
    },
    "a server behind the newest version": {
        "interval": "5m",
        "input_series": [
            # From 25 minutes on.
            {
                "series": 'ndr_newest_version{pipeline="radio"}',
                "values": "20261123001x4 20261124001x16",
            },
            *({"series": f'up{{{JOB}, instance="{each}"}}', "values": "1x20"} for each in ("a", "b")),
            loaded("a", 20261123001),
            loaded("b", 20261123001),
            {**loaded("a", 20261124001), "values": "_x5 1x14"},
            # Embedded servers, which say what is live.
            *({"series": f'up{{{JOB}, instance="{each}"}}', "values": "1x20"} for each in ("c", "d")),
            {"series": f'ndr_serving_live_version{{{JOB}, instance="c"}}', "values": "20261123001x4 20261124001x16"},
            {"series": f'ndr_serving_live_version{{{JOB}, instance="d"}}', "values": "20261123001x20"},
        ],
        "alert_rule_test": [
            alert("NdrServingBehind", "20m"),
            alert("NdrServingBehind", "30m"),  # for how long it may be so
            alert(
                "NdrServingBehind",
                "45m",
                {"instance": "b", "job": "ndr/ndr-serving"},
                {"instance": "d", "job": "ndr/ndr-serving", "version": "20261123001"},
            ),
        ],
    },
    "nobody serves": {
        "interval": "1m",
        "input_series": [{"series": f'up{{{JOB}, instance="a"}}', "values": "1x10 0x20"}],
        "alert_rule_test": [alert("NdrServingDown", "10m"), alert("NdrServingDown", "20m", {})],
    },
    "requests fail": {
        "interval": "1m",
        "input_series": [
            # Two in a hundred; those that the client is to blame for do not count.
            {"series": f':tensorflow:serving:request_count{{{JOB}, status="OK"}}', "values": "0+98x30"},
            {"series": f':tensorflow:serving:request_count{{{JOB}, status="INTERNAL"}}', "values": "0x10 0+2x20"},
            {"series": f':tensorflow:serving:request_count{{{JOB}, status="INVALID_ARGUMENT"}}', "values": "0+50x30"},
        ],
        "alert_rule_test": [alert("NdrServingErrors", "10m"), alert("NdrServingErrors", "30m", {})],
    },
    "requests are slow": {
        "interval": "1m",
        "input_series": [
            # All below 100 ms for 20 minutes, then 95 of a hundred; the others below a second.
            {"series": f':tensorflow:serving:request_latency_bucket{{{JOB}, le="{limit}"}}', "values": values}
            for limit, values in (("100000", "0+100x20 2095+95x29"), ("1000000", "0+100x50"), ("+Inf", "0+100x50"))
        ],
        "alert_rule_test": [alert("NdrServingSlow", "20m"), alert("NdrServingSlow", "45m", {})],
    },
    "a load fails": {
        "interval": "5m",
        "input_series": [
            {**loaded("a", 3), "values": "1x20"},
            {
                "series": f':tensorflow:cc:saved_model:load_attempt_count{{{JOB}, instance="b", status="fail"}}',
                "values": "0x3 1x16",
            },
            {"series": f'ndr_serving_loads_total{{{JOB}, instance="c", result="failed"}}', "values": "0x3 1x16"},
        ],
        "alert_rule_test": [
            alert("NdrServingLoadFails", "15m"),
            alert("NdrServingLoadFails", "30m", {"instance": "b"}, {"instance": "c"}),
        ],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_alerts_fire_when_they_should_and_not_before(tmp_path: Path, case: str) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(bare(RULES["spec"])))
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [CASES[case]]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", tmp_path / "test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def bare(rules: dict[str, Any]) -> dict[str, Any]:
    """Without annotations, which a test would have to repeat."""
    return {
        "groups": [
            {
                **group,
                "rules": [
                    {key: value for key, value in rule.items() if key != "annotations"} for rule in group["rules"]
                ],
            }
            for group in rules["groups"]
        ]
    }


def test_every_alert_is_tested_and_has_advice() -> None:
    tested = {each["alertname"] for case in CASES.values() for each in case["alert_rule_test"] if each["exp_alerts"]}
    for group in RULES["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["alert"] in tested
            assert {"summary", "runbook"} <= rule["annotations"].keys()
