"""`kubectl kustomize` builds the manifests as the guide has it, and KEDA reads metrics that processes serve."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from postroad.settings import Settings
from tests.deployments.kubernetes import (
    COMPONENT,
    COMPONENTS,
    DEPLOYMENTS,
    FOLDER,
    GUIDE,
    WORKLOADS,
    Manifest,
    generated_variables,
    name_of,
    of_kind,
    read_manifests,
)
from tests.deployments.promql import OF_PROMETHEUS, selectors, unknown_names
from tests.deployments.test_monitoring import run, served
from tests.required import missing

__all__ = ["served"]

[SCALED] = of_kind("ScaledObject").values()
TRIGGERS = {trigger["name"]: trigger for trigger in SCALED["spec"]["triggers"]}
Build = Callable[[str], list[Manifest]]


def blocks_of_guide() -> list[dict[str, Any]]:
    """Return the YAML of the guide."""
    found = re.findall(r"^```yaml\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [yaml.safe_load(text) for text in found]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a kustomization next to a checkout, as the guide has it."""
    if not shutil.which("kubectl"):
        missing("kubectl", "apt-get install kubernetes-client, on Debian 13 or newer")
    version = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False).stdout
    if "Kustomize Version: v" not in version:
        pytest.skip("kubectl is older than 1.24, as in Debian 12, and knows no components")
    shutil.copytree(FOLDER, tmp_path / "postroad/deployments/kubernetes")
    shutil.copy(FOLDER / "postroad.toml", tmp_path)

    def built(kustomization: str) -> list[Manifest]:
        (tmp_path / "kustomization.yaml").write_text(kustomization)
        done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return list(yaml.safe_load_all(done.stdout))

    return built


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind and name_of(manifest) == name]
    return found


def config_maps(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the ConfigMaps by their name without the digest."""
    return {name_of(m).rpartition("-")[0]: m for m in manifests if m["kind"] == "ConfigMap"}


def test_the_base_builds_what_its_files_have(build: Build) -> None:
    built = build("resources: [postroad/deployments/kubernetes]\n")
    made = config_maps(built)
    for manifest in read_manifests(FOLDER):
        found = find(built, manifest["kind"], name_of(manifest))
        assert without_digests(found, made) == manifest
    assert len(built) == len(list(read_manifests(FOLDER))) + len(made)
    assert {name: m["data"] for name, m in made.items() if name.endswith("-environment")} == generated_variables()
    assert made["postroad-settings"]["data"] == {"postroad.toml": (FOLDER / "postroad.toml").read_text()}
    # The first command of the guide selects them by this label.
    assert {m["metadata"]["labels"]["app.kubernetes.io/component"] for m in made.values()} == {"settings"}


def without_digests(manifest: Any, made: dict[str, Manifest]) -> Any:
    """Return a manifest that names ConfigMaps as its file does. Each that it names exists."""
    names = {name_of(config_map): name for name, config_map in made.items()}
    match manifest:
        case dict():
            return {key: without_digests(value, made) for key, value in manifest.items()}
        case list():
            return [without_digests(value, made) for value in manifest]
    return names.get(manifest, manifest) if isinstance(manifest, str) else manifest


def test_the_kustomization_of_the_guide_builds(build: Build) -> None:
    kustomization, secret, _ = blocks_of_guide()
    merged = {
        **kustomization,
        "components": [f"postroad/deployments/kubernetes/components/{name}" for name in COMPONENTS],
        "configMapGenerator": kustomization["configMapGenerator"] + secret["configMapGenerator"],
    }
    assert set(kustomization["components"]) <= set(merged["components"])
    built = build(yaml.safe_dump(merged))
    assert {manifest["metadata"].get("namespace") for manifest in built} == {"postroad"}
    environment = config_maps(built)["postroad-environment"]
    [literal] = secret["configMapGenerator"][0]["literals"]
    name, _, value = literal.partition("=")
    assert environment["data"] == {**generated_variables()["postroad-environment"], name: value}
    for workload, manifest in WORKLOADS.items():
        pod = find(built, manifest["kind"], workload)["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert container["image"] == "registry.example.com/postroad:0.1.0"
        sources = [source["configMapRef"]["name"] for source in container["envFrom"]]
        assert set(sources) <= {name_of(config_map) for config_map in config_maps(built).values()}
    # KEDA sets it: an apply must not.
    assert "replicas" not in find(built, "Deployment", "worker")["spec"]


def test_the_guide_lists_the_components() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| ", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(COMPONENTS)


def test_the_first_command_of_the_guide_selects_settings_and_the_migration() -> None:
    commands = re.findall(r"^\$ kubectl apply -k \. -l \"(.*)\"$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 2
    assert set(commands) == {"app.kubernetes.io/component in (settings, migrate)"}
    labelled = [m for m in WORKLOADS.values() if m["metadata"]["labels"]["app.kubernetes.io/component"] == "migrate"]
    assert [m["kind"] for m in labelled] == ["Job"]


def test_prometheus_accepts_the_configuration_of_the_guide(tmp_path: Path) -> None:
    *_, configuration = blocks_of_guide()
    [job] = configuration["scrape_configs"]
    # Debian builds promtool without the discovery of Kubernetes.
    assert job.pop("kubernetes_sd_configs") == [{"role": "endpoints", "namespaces": {"names": ["postroad"]}}]
    path = tmp_path / "prometheus.yaml"
    path.write_text(yaml.safe_dump({"scrape_configs": [{**job, "static_configs": [{"targets": ["pod:9464"]}]}]}))
    run("promtool", "check", "config", str(path))
    keep, service = job["relabel_configs"]
    assert (keep["source_labels"], keep["regex"]) == (["__meta_kubernetes_service_name"], "metrics")
    # Prometheus replaces characters that a label cannot have.
    assert service["source_labels"] == ["__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", COMPONENT)]
    assert service["target_label"] in OF_PROMETHEUS


def test_workers_are_never_scaled_to_zero() -> None:
    spec = SCALED["spec"]
    assert spec["scaleTargetRef"] == {"name": "worker"}
    assert spec["minReplicaCount"] == DEPLOYMENTS["worker"]["spec"]["replicas"] == 2
    assert spec["maxReplicaCount"] > spec["minReplicaCount"]
    assert "idleReplicaCount" not in spec


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_reads_what_processes_serve_and_not_the_depth(name: str, served: dict[str, set[str]]) -> None:
    trigger = TRIGGERS[name]
    query = trigger["metadata"]["query"]
    assert trigger["type"] == "prometheus"
    assert selectors(query)
    assert unknown_names(query, served) == []
    assert 'queue="email:send"' in query
    assert "depth" not in query
    assert 'state="queued"' not in query
    # Without an answer the number of workers stays.
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert float(trigger["metadata"]["threshold"]) > 0


def test_a_full_worker_is_above_the_target_of_its_jobs() -> None:
    concurrency = Settings.load(FOLDER / "postroad.toml").queue("email:send").concurrency
    assert TRIGGERS["in-flight"]["metricType"] == "AverageValue"
    assert float(TRIGGERS["in-flight"]["metadata"]["threshold"]) == 0.8 * concurrency
    assert TRIGGERS["oldest-ready"]["metricType"] == "Value"


def test_prometheus_accepts_the_queries_of_the_triggers(tmp_path: Path) -> None:
    rules = [{"record": f"trigger:{n}", "expr": t["metadata"]["query"]} for n, t in enumerate(TRIGGERS.values())]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "triggers", "rules": rules}]}))
    run("promtool", "check", "rules", str(path))


@pytest.mark.parametrize(
    ("ages", "more"),
    [("4000 0 3900 3900 0 4100 0 3900 4000", False), ("100 115 130 145 160 175 190 205 220", True)],
    ids=["a throttled sender", "too few workers"],
)
def test_more_workers_start_only_for_jobs_that_wait_for_one(ages: str, more: bool, tmp_path: Path) -> None:
    trigger = TRIGGERS["oldest-ready"]["metadata"]
    expression = f"{trigger['query']} > {trigger['threshold']}"
    series = [
        {"series": f'postroad_queue_oldest_ready_seconds{{queue="email:send", instance="{name}"}}', "values": ages}
        for name in ("a", "b")
    ]
    check = {
        "expr": f"({expression}) > bool 0",
        "eval_time": "2m",
        "exp_samples": [{"labels": "{}", "value": 1}] * more,
    }
    case = {"interval": "15s", "input_series": series, "promql_expr_test": [check]}
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump({"tests": [case]}))
    run("promtool", "test", "rules", str(path))
