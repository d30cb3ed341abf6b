"""Alarms: Prometheus and Alertmanager accept them, processes serve what they read, and each has its runbook."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import RedisServer
from tests.deployments.compose import ROOT
from tests.deployments.promql import grouped_by, selectors, unknown_names
from tests.deployments.served import served_metrics, settings_of
from tests.required import missing

PROMETHEUS = ROOT / "deployments/prometheus"
RUNBOOKS = ROOT / "docs/runbooks"
GUIDE = ROOT / "docs/how-to/monitor.md"
REFERENCE = ROOT / "docs/reference/metrics.md"
BASE = "https://example.org/postroad/docs/runbooks/"


def content(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


ALARMS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in content(PROMETHEUS / "rules.yaml")["groups"] for rule in group["rules"]
}


def pages_of_alarms() -> dict[str, str]:
    """Return the runbook of each alarm."""
    return {name: rule["annotations"]["runbook_url"].removeprefix(BASE) for name, rule in ALARMS.items()}


@pytest.fixture(scope="module")
def served(
    redis_servers: Callable[[str], RedisServer], sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, set[str]]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "state").mkdir()
    shutil.copyfile(sqlite_template, folder / "state/postroad.db")
    return asyncio.run(served_metrics(settings_of(folder, redis_servers("valkey").url)))


def run(program: str, *words: str) -> None:
    """Run a checker of the configuration."""
    if not shutil.which(program):
        package = "prometheus" if program == "promtool" else "prometheus-alertmanager"
        missing(program, f"apt-get install --no-install-recommends {package}")
    done = subprocess.run([program, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_rules_and_the_configuration() -> None:
    run("promtool", "check", "config", "--lint=all", "--lint-fatal", "prometheus.yaml")


def test_alarms_fire_when_they_should() -> None:
    run("promtool", "test", "rules", "rules.test.yaml")


def test_each_alarm_is_tested_with_and_without_its_cause() -> None:
    cases: dict[str, set[bool]] = {name: set() for name in ALARMS}
    for case in content(PROMETHEUS / "rules.test.yaml")["tests"]:
        for check in case["promql_expr_test"]:
            for name in re.findall(r'alertname="(\w+)"', check["expr"]):
                cases[name].add(bool(check["exp_samples"]))
    assert {name: fires for name, fires in cases.items() if fires != {True, False}} == {}


def test_alertmanager_accepts_its_example() -> None:
    run("amtool", "check-config", "alertmanager.yaml")


def test_alarms_that_suppress_others_exist() -> None:
    matchers = [
        matcher
        for rule in content(PROMETHEUS / "alertmanager.yaml")["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
    ]
    named = {name for matcher in matchers for name in re.findall(r"Postroad\w+", matcher)}
    assert named
    assert named <= set(ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_reads_what_processes_serve(name: str, served: dict[str, set[str]]) -> None:
    assert selectors(ALARMS[name]["expr"])
    assert unknown_names(ALARMS[name]["expr"], served) == []


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('max by (queue) (postroad_queue_up{queue="postroad_x{y}"}) == 0', []),
        ("max by (queue) (postroad_queue_upp) == 0", ["postroad_queue_upp", "queue"]),
        ('postroad_queue_up{sender="a"}', ["postroad_queue_up{sender}"]),
        ("sum by (sender) (rate(postroad_queue_claimed_total[5m]))", ["sender"]),
        ("sum by (le, script) (rate(postroad_queue_script_seconds_bucket[5m]))", []),
    ],
)
def test_a_name_that_no_process_serves_is_found(expression: str, found: list[str], served: dict[str, set[str]]) -> None:
    assert unknown_names(expression, served) == found


def test_documented_and_served_metrics_are_equal(served: dict[str, set[str]]) -> None:
    rows = re.findall(
        r"^\| `(postroad_\w+)` \| (\w+) \| ([^|]*) \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = {
        name + "_count" * (kind == "histogram"): set(re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows
    }
    assert documented == {
        name: labels for name, labels in served.items() if not name.endswith(("_created", "_sum", "_bucket"))
    }


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_has_a_severity_and_a_summary_of_labels_that_it_has(name: str) -> None:
    rule = ALARMS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    summary = rule["annotations"]["summary"]
    assert summary.endswith(".")
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= grouped_by(rule["expr"]) | set(rule["labels"])


def test_each_alarm_has_a_runbook_and_each_runbook_an_alarm() -> None:
    pages = pages_of_alarms()
    assert sorted(pages.values()) == sorted(page.name for page in RUNBOOKS.iterdir())
    for name, page in pages.items():
        assert page == re.sub(r"(?<!^)(?=[A-Z])", "-", name.removeprefix("Postroad")).lower() + ".md"
        text = (RUNBOOKS / page).read_text(encoding="utf-8")
        assert text.startswith(f"# {name}\n"), page
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Look at", "Do"], page
        assert re.findall(r"^\$ postroad ", text, re.MULTILINE), page


def test_the_guide_lists_each_alarm_with_its_severity() -> None:
    listed = re.findall(
        r"^\| \[(\w+)\]\(\.\./runbooks/(\S+)\) \| (\w+) \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE
    )
    pages = pages_of_alarms()
    assert listed == [(name, pages[name], rule["labels"]["severity"]) for name, rule in ALARMS.items()]
