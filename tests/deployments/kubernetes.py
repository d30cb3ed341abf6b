"""The manifests of deployments/kubernetes: those of the base, and those of its components."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.deployments.compose import ROOT

FOLDER = ROOT / "deployments/kubernetes"
GUIDE = ROOT / "docs/how-to/run-on-kubernetes.md"
COMPONENTS = {path.parent.name: path.parent for path in sorted(FOLDER.glob("components/*/kustomization.yaml"))}
OPTIONAL_ROLES = ("webhook-worker", "warmup-worker", "bounce-watch")
JOBS = ("migrate", "bootstrap")

Manifest = dict[str, Any]
Labels = Mapping[str, str]

NAME, COMPONENT, PART_OF = (f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of"))


def read_manifests(folder: Path) -> Iterator[Manifest]:
    """Yield the manifests that a kustomization lists."""
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]:
        yield from yaml.safe_load_all((folder / name).read_text(encoding="utf-8"))


ALL = [manifest for folder in (FOLDER, *COMPONENTS.values()) for manifest in read_manifests(folder)]


def name_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def of_kind(*kinds: str) -> dict[str, Manifest]:
    """Return the manifests of some kinds by name. A name is unique among them."""
    found = [manifest for manifest in ALL if manifest["kind"] in kinds]
    by_name = {name_of(manifest): manifest for manifest in found}
    assert len(by_name) == len(found)
    return by_name


DEPLOYMENTS = of_kind("Deployment")
WORKLOADS = of_kind("Deployment", "Job")
SERVICES = of_kind("Service")
POLICIES = of_kind("NetworkPolicy")
BUDGETS = of_kind("PodDisruptionBudget")
ROLES = [name for name in DEPLOYMENTS if not name.startswith("prefect-")]


def pod_of(workload: str) -> dict[str, Any]:
    """Return the specification of a workload's pods."""
    return dict(WORKLOADS[workload]["spec"]["template"]["spec"])


def labels_of(workload: str) -> Labels:
    """Return the labels of a workload's pods."""
    return dict(WORKLOADS[workload]["spec"]["template"]["metadata"]["labels"])


def container_of(workload: str) -> dict[str, Any]:
    [container] = pod_of(workload)["containers"]
    return dict(container)


def ports_of(workload: str) -> dict[str, int]:
    """Return the ports of a workload's pods by name."""
    return {port["name"]: port["containerPort"] for port in container_of(workload).get("ports", ())}


def environment_of(workload: str) -> dict[str, str]:
    """Return the variables of a workload's container."""
    container = container_of(workload)
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= generated_variables()[source["configMapRef"]["name"]]
    return found | {variable["name"]: variable["value"] for variable in container.get("env", ())}


def generated_variables() -> dict[str, dict[str, str]]:
    """Return the variables of each ConfigMap that is made from a file of variables."""
    generators = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["configMapGenerator"]
    found = {}
    for generator in generators:
        for file in generator.get("envs", ()):
            lines = (FOLDER / file).read_text(encoding="utf-8").splitlines()
            found[generator["name"]] = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return found


def selects(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Return whether a selector of Kubernetes matches labels."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def selected_by(selector: Mapping[str, Any], workloads: Iterable[str] = WORKLOADS) -> set[str]:
    """Return the workloads whose pods a selector matches."""
    return {name for name in workloads if selects(selector, labels_of(name))}
