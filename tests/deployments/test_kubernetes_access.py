"""Services, budgets and network policies of Kubernetes select the pods that they are about, and no others."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from postroad.settings import Settings
from tests.deployments.kubernetes import (
    ALL,
    BUDGETS,
    DEPLOYMENTS,
    FOLDER,
    NAME,
    POLICIES,
    ROLES,
    SERVICES,
    WORKLOADS,
    environment_of,
    labels_of,
    name_of,
    ports_of,
    selected_by,
    selects,
)

PUBLISHED = {"web": {"http"}, "console": {"http"}, "inbound": {"smtp"}, "prefect-server": {"http"}}
"""Ports of the pods of each Service, but those of metrics."""
EVERYWHERE = "everywhere"


def allowed_ingress(workload: str) -> dict[str, list[Any]]:
    """Return who may connect to each port of a workload's pods. A policy without peers allows everyone."""
    found: dict[str, list[Any]] = {}
    for policy in POLICIES.values():
        if selects(policy["spec"]["podSelector"], labels_of(workload)):
            for rule in policy["spec"].get("ingress", ()):
                for port in rule["ports"]:
                    found.setdefault(port["port"], []).extend(rule.get("from", [EVERYWHERE]))
    return found


def allowed_egress(workload: str) -> set[int]:
    """Return the ports to which a workload's pods may connect."""
    rules = [
        rule
        for policy in POLICIES.values()
        if selects(policy["spec"]["podSelector"], labels_of(workload))
        for rule in policy["spec"].get("egress", ())
    ]
    return {port["port"] for rule in rules for port in rule["ports"]}


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "metrics"])
def test_a_service_leads_to_its_pods(name: str) -> None:
    spec = SERVICES[name]["spec"]
    assert selected_by({"matchLabels": spec["selector"]}) == {name}
    assert {port["targetPort"] for port in spec["ports"]} == PUBLISHED[name]
    assert PUBLISHED[name] <= set(ports_of(name))


def test_each_published_port_has_its_service() -> None:
    assert {*SERVICES} == {*PUBLISHED, "metrics"}
    assert SERVICES["inbound"]["spec"]["ports"][0]["port"] == 25
    # Without it, all clients have the address of a node, and share the limits of one.
    assert SERVICES["inbound"]["spec"]["externalTrafficPolicy"] == "Local"
    assert not [name for name in SERVICES if name != "inbound" and "type" in SERVICES[name]["spec"]]


def test_the_service_of_metrics_has_an_address_of_each_process_of_postroad() -> None:
    spec = SERVICES["metrics"]["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert selected_by({"matchLabels": spec["selector"]}) == set(ROLES)
    assert {ports_of(name)[spec["ports"][0]["targetPort"]] for name in ROLES} == {spec["ports"][0]["port"]} == {9464}


def test_prefect_is_reached_by_its_service() -> None:
    [port] = SERVICES["prefect-server"]["spec"]["ports"]
    for name in WORKLOADS:
        if url := environment_of(name).get("PREFECT_API_URL"):
            assert urlsplit(url).netloc == f"prefect-server:{port['port']}"
            assert ports_of("prefect-server")["http"] in allowed_egress(name)


def test_several_pods_end_one_after_the_other() -> None:
    several = {name for name, deployment in DEPLOYMENTS.items() if deployment["spec"]["replicas"] > 1}
    assert several
    assert set(BUDGETS) == several
    for name, budget in BUDGETS.items():
        assert selected_by(budget["spec"]["selector"]) == {name}
        assert budget["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_selects_pods_and_names_their_ports(name: str) -> None:
    spec = POLICIES[name]["spec"]
    selected = selected_by(spec["podSelector"])
    assert selected
    for expression in spec["podSelector"].get("matchExpressions", ()):
        assert set(expression["values"]) == selected  # Each value is that of a pod.
    for rule in spec.get("ingress", ()):
        for port in rule["ports"]:
            assert all(port["port"] in ports_of(workload) for workload in selected), port
    for peer in [peer for rule in (*spec.get("ingress", ()), *spec.get("egress", ())) for peer in _peers(rule)]:
        assert "podSelector" not in peer or selected_by(peer["podSelector"])


def _peers(rule: dict[str, Any]) -> list[dict[str, Any]]:
    return [*rule.get("from", ()), *rule.get("to", ())]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_port_is_open_to_those_who_need_it_and_no_others(name: str) -> None:
    default = POLICIES["postroad"]["spec"]
    assert selects(default["podSelector"], labels_of(name))
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in default
    open_to = allowed_ingress(name)
    expected: dict[str, list[Any]] = {}
    if name in ROLES:
        expected["metrics"] = [in_namespace("monitoring")]
    if name in ("web", "console"):
        expected["http"] = [in_namespace("ingress-nginx")]
    if name == "inbound":
        expected["smtp"] = [EVERYWHERE]
    if name == "prefect-server":
        expected["http"] = [{"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "postroad"}}}]
    assert open_to == expected
    assert set(open_to) == set(ports_of(name)) - {"health"}  # The kubelet asks for that one.


def in_namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


SENDS = {"worker", "warmup-worker", "prefect-worker", "console"}
FETCHES = {"bounce-watch", "prefect-worker"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_connects_to_what_it_needs(name: str) -> None:
    everyone = {53, 5432, 6379, 26379, 443, 4200}
    assert allowed_egress(name) == everyone | (SENDS_TO if name in SENDS else set()) | (
        {143, 993} if name in FETCHES else set()
    )


SENDS_TO = {25, 465, 587}


def test_the_relay_of_the_settings_is_reached() -> None:
    routes = Settings.load(FOLDER / "postroad.toml").routes
    assert routes
    assert {route.port for route in routes.values()} <= SENDS_TO


def test_an_ingress_leads_to_the_hosts_of_the_settings() -> None:
    settings = Settings.load(FOLDER / "postroad.toml")
    found = {}
    for ingress in [manifest for manifest in ALL if manifest["kind"] == "Ingress"]:
        [rule] = ingress["spec"]["rules"]
        assert [host for tls in ingress["spec"]["tls"] for host in tls["hosts"]] == [rule["host"]]
        for path in rule["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["name"] == name_of(ingress)
            assert backend["port"]["name"] in {port["name"] for port in SERVICES[backend["name"]]["spec"]["ports"]}
        found[f"https://{rule['host']}"] = [path["path"] for path in rule["http"]["paths"]]
    assert found == {settings.public_url: ["/u/", "/webhooks/", "/healthz"], settings.console.url: ["/"]}


def test_the_selector_of_metrics_is_no_label_of_prefect() -> None:
    assert {labels_of(name)[NAME] for name in WORKLOADS} == {"postroad", "prefect", "postroad-job"}
