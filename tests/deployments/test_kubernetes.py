"""The manifests of Kubernetes: valid, hardened, and the same processes as those of the Compose file."""

from __future__ import annotations

import asyncio
import inspect
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml
from prefect.server.api.server import create_api_app

from postroad.app.context import Role
from postroad.cli.options import MetricsAt
from postroad.cli.role_process import open_role
from postroad.cli.signals import STOP_WITHIN_S
from postroad.cli.worker import AFTER_DRAIN_S
from postroad.delivery.job import SEND_QUEUE
from postroad.settings import Settings
from postroad.settings.secret_files import secret_of_file_variable
from tests.deployments.compose import FOLDER as COMPOSE
from tests.deployments.compose import ONE_SHOTS, OTHERS, ROOT, services
from tests.deployments.kubernetes import (
    ALL,
    COMPONENT,
    COMPONENTS,
    DEPLOYMENTS,
    FOLDER,
    GUIDE,
    JOBS,
    NAME,
    OPTIONAL_ROLES,
    PART_OF,
    ROLES,
    WORKLOADS,
    Manifest,
    container_of,
    environment_of,
    generated_variables,
    labels_of,
    name_of,
    pod_of,
    ports_of,
)
from tests.deployments.served import settings_of
from tests.queue.nodes import free_port

OLDEST, NEWEST = "1.27", "1.37"
"""Versions of Kubernetes: the oldest that the guide names, and the newest with a schema."""
SECRETS = "/run/secrets/"
MARGIN_S = 5
OWN_DEFINITIONS = ("keda.sh/v1alpha1",)
"""Kinds that Kubernetes does not define."""
SERVED_BY_ROLES = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
PROBES = tuple(SERVED_BY_ROLES)


def title(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{name_of(manifest)}"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", [m for m in ALL if m["apiVersion"] not in OWN_DEFINITIONS], ids=title)
def test_kubernetes_accepts_a_manifest(manifest: Manifest, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_manifest_with_a_misspelt_field_is_found() -> None:
    wrong = yaml.safe_load((FOLDER / "metrics.yaml").read_text())
    wrong["spec"]["clusterIp"] = wrong["spec"].pop("clusterIP")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_guide_names_the_oldest_version() -> None:
    assert f"Kubernetes {OLDEST} or newer" in GUIDE.read_text(encoding="utf-8")


def test_each_file_is_in_its_kustomization() -> None:
    for folder in (FOLDER, *COMPONENTS.values()):
        kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
        assert {path.name for path in folder.glob("*.yaml")} == {"kustomization.yaml", *kustomization["resources"]}
        assert len(kustomization["resources"]) == len({*kustomization["resources"]})


def test_files_are_named_for_their_workloads_and_say_what_was_not_tested() -> None:
    files = {path.stem for path in FOLDER.rglob("*.yaml")}
    assert set(WORKLOADS) <= files
    assert "*Untested* in a cluster" in (FOLDER / "kustomization.yaml").read_text()
    assert not any("namespace" in manifest["metadata"] for manifest in ALL)


def test_pods_run_what_compose_runs() -> None:
    ours = {name: service for name, service in services().items() if name not in OTHERS}
    assert {name: container_of(name)["args"] for name in WORKLOADS} == {n: s.command for n, s in ours.items()}
    assert set(JOBS) == set(ONE_SHOTS)
    assert {name for name, service in ours.items() if "profiles" in service.fields} == set(OPTIONAL_ROLES)
    assert set(OPTIONAL_ROLES) <= set(COMPONENTS)
    # `command` would replace the entrypoint, which reads the secrets of Prefect.
    assert not any("command" in container_of(name) for name in WORKLOADS)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_has_the_variables_and_secrets_of_its_container_of_compose(name: str) -> None:
    service = services()[name]
    assert environment_of(name) == service.environment
    mounted = {value.removeprefix(SECRETS) for value in environment_of(name).values() if value.startswith(SECRETS)}
    assert mounted == set(service.fields["secrets"])
    assert mounted <= documented_secrets()[secret_of(name)]


def secret_of(workload: str) -> str:
    """Return the Secret that a workload mounts at /run/secrets."""
    [volume] = [volume["secret"] for volume in pod_of(workload)["volumes"] if "secret" in volume]
    assert {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True} in container_of(workload)["volumeMounts"]
    return str(volume["secretName"])


def documented_secrets() -> dict[str, set[str]]:
    """Return the keys of each Secret, as the guide lists them."""
    found: dict[str, set[str]] = {}
    for secret, key in re.findall(r"^\| `secrets/(\w+)/(\w+)` \|", GUIDE.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(secret, set()).add(key)
    return found


def test_each_documented_secret_is_used_and_made() -> None:
    used: dict[str, set[str]] = {}
    for name in WORKLOADS:
        keys = {value.removeprefix(SECRETS) for value in environment_of(name).values() if value.startswith(SECRETS)}
        used.setdefault(secret_of(name), set()).update(keys)
    assert documented_secrets() == used
    for secret in used:
        command = f"$ kubectl create secret generic {secret} --from-file secrets/{secret}\n"
        assert command in GUIDE.read_text(encoding="utf-8")


def test_variables_of_secrets_are_read_by_the_settings_or_the_entrypoint() -> None:
    entrypoint = (ROOT / "deployments/image/entrypoint").read_text()
    names = {name for variables in generated_variables().values() for name in variables if name.endswith("_FILE")}
    for name in names:
        by_settings = secret_of_file_variable(Settings, name)
        assert by_settings or re.search(rf"\b{name.removesuffix('_FILE')}\b", entrypoint), name


def test_no_secret_is_a_value() -> None:
    assert not [manifest for manifest in ALL if manifest["kind"] == "Secret"]
    for name in WORKLOADS:
        plain = [key for key in environment_of(name) if re.search("PASSWORD|AUTH|_KEY|DATABASE.*URL|REDIS.*URL", key)]
        assert all(key.endswith("_FILE") for key in plain), name


def test_settings_are_those_of_compose_and_trust_the_proxies() -> None:
    settings = Settings.load(FOLDER / "postroad.toml")
    assert settings.web.trusted_proxies == settings.console.trusted_proxies != ()
    ours = tomllib.loads((FOLDER / "postroad.toml").read_text())
    for section in ("web", "console"):
        del ours[section]["trusted_proxies"]
    assert {key: value for key, value in ours.items() if value} == tomllib.loads(
        (COMPOSE / "settings/postroad.toml").read_text()
    )


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_is_restricted(name: str) -> None:
    """By the Pod Security Standard *restricted*, and with a root that is read-only."""
    pod, container = pod_of(name), container_of(name)
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    # Variables of Services are named like settings of Prefect.
    assert (pod["enableServiceLinks"], pod["shareProcessNamespace"]) == (False, True)
    assert {"cpu", "memory"} == set(container["resources"]["requests"])
    assert_volumes(pod, container)


def assert_volumes(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """Check that a container writes to memory only, to the two folders of the image that are written to."""
    volumes = {volume.pop("name"): volume for volume in map(dict, pod["volumes"])}
    writable = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"] if "readOnly" not in mount}
    assert set(writable) == {"/tmp", "/var/lib/postroad"}
    for name in writable.values():
        assert volumes[name]["emptyDir"]["medium"] == "Memory"
        assert volumes[name]["emptyDir"]["sizeLimit"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert {key for volume in volumes.values() for key in volume} <= {"configMap", "secret", "emptyDir"}


@pytest.mark.parametrize("name", ROLES)
def test_pods_of_roles_differ_only_in_what_their_role_needs(name: str) -> None:
    assert common_part(name) == common_part("worker")
    assert DEPLOYMENTS[name]["spec"]["strategy"] == {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def common_part(role: str) -> tuple[Any, ...]:
    """Return a pod without name, command, ports, grace period, resources and size of its folders."""
    pod, container = pod_of(role), container_of(role)
    for key in ("args", "name", "ports", "lifecycle", "resources"):
        container.pop(key, None)
    [spread] = pod["topologySpreadConstraints"]
    assert spread["labelSelector"] == DEPLOYMENTS[role]["spec"]["selector"]
    volumes = [{key: value for key, value in volume.items() if key != "emptyDir"} for volume in pod["volumes"]]
    kept = {
        key: value
        for key, value in pod.items()
        if key not in ("containers", "volumes", "topologySpreadConstraints", "terminationGracePeriodSeconds")
    }
    return container, volumes, kept, {key: value for key, value in spread.items() if key != "labelSelector"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_labels_name_the_workload(name: str) -> None:
    workload = WORKLOADS[name]
    assert labels_of(name) == workload["metadata"]["labels"]
    assert (labels_of(name)[COMPONENT], labels_of(name)[PART_OF]) == (name, "postroad")
    assert container_of(name)["name"] == name
    if workload["kind"] == "Deployment":
        assert workload["spec"]["selector"] == {"matchLabels": {key: labels_of(name)[key] for key in (NAME, COMPONENT)}}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_pod_has_more_time_to_end_than_its_process_takes(name: str) -> None:
    listens_s = 0
    if hook := container_of(name).get("lifecycle"):
        program, seconds = hook["preStop"]["exec"]["command"]
        assert program == "sleep"
        listens_s = int(seconds)
    # Proxies and mail servers connect until they have noticed that a pod ends.
    assert bool(listens_s) == bool({"http", "smtp"} & set(ports_of(name)) and name in ROLES)
    takes_s: float = services()[name].stop_within_s - MARGIN_S
    if name in ROLES:
        drain_s = Settings.load(FOLDER / "postroad.toml").queue(SEND_QUEUE).drain_ms / 1000
        takes_s = max(STOP_WITHIN_S, drain_s + AFTER_DRAIN_S)
    assert pod_of(name)["terminationGracePeriodSeconds"] >= listens_s + takes_s + MARGIN_S


@pytest.mark.parametrize("name", ROLES)
def test_probes_of_a_role_ask_for_its_health(name: str) -> None:
    container = container_of(name)
    assert {probe: container[probe]["httpGet"]["path"] for probe in PROBES} == SERVED_BY_ROLES
    assert {container[probe]["httpGet"]["port"] for probe in PROBES} == {"metrics"}
    assert f"--metrics-port {ports_of(name)['metrics']}" in " ".join(container["args"])
    assert all(container[probe]["timeoutSeconds"] == 5 for probe in PROBES)
    restarted_after_s = container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"]
    assert restarted_after_s == 30  # WatchdogSec of the units.


async def test_a_role_serves_the_paths_of_the_probes(sqlite_template: Path, tmp_path: Path) -> None:
    """Each role serves them by the same function."""
    (tmp_path / "state").mkdir()
    shutil.copyfile(sqlite_template, tmp_path / "state/postroad.db")
    settings, port = settings_of(tmp_path, f"unix://{tmp_path}/no-server"), free_port()
    async with (
        open_role(
            settings, Role.WEB, SEND_QUEUE, MetricsAt("127.0.0.1", port), asyncio.Event(), required=frozenset()
        ) as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        process.ready()
        assert {(await client.get(path)).status_code for path in SERVED_BY_ROLES.values()} == {200}
        assert (await client.get("/healthy")).status_code == 404


def test_probes_of_prefect_ask_for_its_health() -> None:
    server, worker = container_of("prefect-server"), container_of("prefect-worker")
    health = inspect.signature(create_api_app).parameters["health_check_path"].default
    assert {server[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {f"/api{health}"}
    # The process test of the Compose file asks for the two others.
    for container, port in (
        (server, ports_of("prefect-server")["http"]),
        (worker, ports_of("prefect-worker")["health"]),
    ):
        path = container["readinessProbe"]["httpGet"]["path"]
        assert f"127.0.0.1:{port}{path}'" in (services()[container["name"]].health_command or [""])[-1]
    # It fails while the server is unavailable, and a restart would end the runs.
    assert "livenessProbe" not in worker
    assert services()["prefect-services"].health_command is None
    assert not set(PROBES) & set(container_of("prefect-services"))
