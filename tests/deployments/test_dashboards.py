"""Dashboards and the containers of monitoring: valid, read what processes serve, and find what they mount."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployments.compose import FOLDER, ROOT, compose, services
from tests.deployments.promql import OF_PROMETHEUS, grouped_by, selectors, unknown_names
from tests.deployments.test_monitoring import PROMETHEUS, content, run, served

__all__ = ["served"]

GRAFANA = ROOT / "deployments/grafana"
DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(GRAFANA.glob("*.json"))}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {"short", "s", "ops", "mps", "percentunit"}
"""Units of Grafana that the panels use: numbers, seconds, operations and messages a second, shares of 1."""
OF_GRAFANA_11 = 39
COLUMNS = 24


def queries(dashboard: dict[str, Any]) -> list[dict[str, str]]:
    return [target for panel in dashboard["panels"] for target in panel["targets"]]


def expression_of(query: dict[str, str]) -> str:
    """Return the expression as Grafana sends it."""
    return re.sub(r"\$(sender|queue)\b", ".*", query["expr"].replace("$__rate_interval", "1m"))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_what_grafana_requires(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"postroad-{name}"
    assert dashboard["title"].startswith("Postroad / ")
    assert dashboard["schemaVersion"] >= OF_GRAFANA_11
    source, *variables = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert all((variable["type"], variable["datasource"]) == ("query", DATASOURCE) for variable in variables)
    for panel in dashboard["panels"]:
        assert panel["datasource"] == DATASOURCE
        assert panel["type"] in ("timeseries", "stat")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["description"].endswith(".")
        assert [query["refId"] for query in panel["targets"]] == list("ABC")[: len(panel["targets"])]
    titles = [panel["title"] for panel in dashboard["panels"]]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert (len({*titles}), len({*ids})) == (len(titles), len(ids))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        x, y, width, height = (panel["gridPos"][key] for key in "xywh")
        cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
        assert x + width <= COLUMNS
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_reads_what_processes_serve(name: str, served: dict[str, set[str]]) -> None:
    for query in queries(DASHBOARDS[name]):
        expression = expression_of(query)
        assert selectors(expression)
        assert unknown_names(expression, served) == []
        assert query["legendFormat"]
        assert {*re.findall(r"\{\{(\w+)\}\}", query["legendFormat"])} <= grouped_by(expression), query
    for variable in DASHBOARDS[name]["templating"]["list"][1:]:
        [(metric, label)] = re.findall(r"^label_values\((\w+), (\w+)\)$", variable["query"])
        assert label in served[metric]
        assert any(f'{label}=~"${variable["name"]}"' in query["expr"] for query in queries(DASHBOARDS[name]))


def test_each_metric_is_on_a_dashboard(served: dict[str, set[str]]) -> None:
    shown = {
        re.sub("_(bucket|sum|count)$", "", selector.metric)
        for dashboard in DASHBOARDS.values()
        for query in queries(dashboard)
        for selector in selectors(query["expr"])
    }
    assert {re.sub("_(bucket|sum|count|created)$", "", name) for name in served if "_created" not in name} <= shown


def test_prometheus_accepts_each_query(tmp_path: Path) -> None:
    expressions = [expression_of(query) for dashboard in DASHBOARDS.values() for query in queries(dashboard)]
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    run("promtool", "check", "rules", str(path))


def test_images_of_monitoring_are_pinned_and_hardened() -> None:
    monitoring = compose("monitoring.yaml")
    for name, fields in monitoring["services"].items():
        assert re.fullmatch(r"docker\.io/\w+/\w+:v?\d+\.\d+\.\d+", fields["image"]), name
        assert (fields["read_only"], fields["cap_drop"]) == (True, ["ALL"])
        assert all(port.startswith("127.0.0.1:") for port in fields["ports"])
        for volume in fields["volumes"]:
            source, _, rest = volume.partition(":")
            if source.startswith("."):
                assert (FOLDER / source).exists(), volume
                assert rest.endswith(":ro")
            else:
                assert source in monitoring["volumes"]
    assert not set(monitoring["services"]) & set(services())


def test_configurations_name_services_and_files_that_exist() -> None:
    monitoring = compose("monitoring.yaml")["services"]
    prometheus = content(PROMETHEUS / "prometheus.yaml")
    [job] = prometheus["scrape_configs"]
    [discovery] = job["dns_sd_configs"]
    with_metrics = [name for name, service in services().items() if "--metrics-port" in service.command]
    assert sorted(discovery["names"]) == sorted(with_metrics)
    assert discovery["port"] == 9464
    added = {relabel["target_label"] for relabel in job["relabel_configs"]}
    assert {"job", "instance", *added} == OF_PROMETHEUS
    [alertmanager] = prometheus["alerting"]["alertmanagers"]
    source = content(GRAFANA / "provisioning/datasources/prometheus.yaml")["datasources"][0]
    for address in (*alertmanager["static_configs"][0]["targets"], source["url"].removeprefix("http://")):
        name, _, port = address.partition(":")
        assert monitoring[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]
    provider = content(GRAFANA / "provisioning/dashboards/postroad.yaml")["providers"][0]
    assert f"../grafana:{provider['options']['path']}:ro" in monitoring["grafana"]["volumes"]
