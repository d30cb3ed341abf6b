"""The image, the Compose file and the units of systemd agree with the commands, and with each other."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroad.app.worker import WORK
from postroad.delivery.job import SEND_QUEUE
from tests.commands import run_command
from tests.deployments.compose import CONTAINERFILE, FOLDER, ONE_SHOTS, OTHERS, ROOT, compose, services
from tests.required import missing

SYSTEMD = ROOT / "deployments/systemd"
BACKUP = ROOT / "deployments/backup"
UNITS = sorted(path.stem for path in SYSTEMD.glob("*.service"))
ALL_UNITS = [*UNITS, *sorted(path.stem for path in BACKUP.glob("*.service"))]
PROGRAMS = "/opt/postroad/.venv/bin/"
MAX_EXPOSURE = 2.0
"""Of systemd-analyze, from 0 (best) to 10. A service of the network without a file system of its own has 1.4."""

OURS = [name for name in services() if name not in OTHERS]
ROLES = [name for name in OURS if name not in ONE_SHOTS and not name.startswith("prefect-")]


def unit_commands(name: str) -> list[list[str]]:
    [path] = [folder / f"{name}.service" for folder in (SYSTEMD, BACKUP) if (folder / f"{name}.service").exists()]
    return list(map(shlex.split, re.findall(r"^ExecStart=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)))


def unit_command(name: str) -> list[str]:
    return unit_commands(name)[0]


def without_addresses(words: list[str]) -> list[str]:
    """Return a command without its options of hosts and ports, which differ between a host and a container."""
    text = " ".join(words).removeprefix(PROGRAMS)
    return re.sub(r" --(metrics-)?(host|port|smtp) \S+| --no-services| --with-healthcheck", "", text).split()


def test_units_and_containers_run_the_same_commands() -> None:
    of_units = {name.removeprefix("postroad-"): without_addresses(unit_command(name)) for name in UNITS}
    of_containers = {name: without_addresses(services()[name].command) for name in OURS}
    del of_containers["prefect-services"]  # On a host they are part of the server.
    assert of_units == of_containers


def test_each_queue_has_a_worker() -> None:
    served = {" ".join(without_addresses(services()[name].command)) for name in ROLES}
    assert {f"postroad worker {queue}" for queue in WORK if queue != SEND_QUEUE} | {"postroad worker"} <= served


@pytest.mark.parametrize("name", OURS)
def test_a_container_can_write_its_state_only_and_has_no_rights(name: str) -> None:
    fields = services()[name].fields
    assert fields["read_only"] is True
    assert fields["cap_drop"] == ["ALL"]
    assert fields["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.endswith(":ro") for volume in fields["volumes"])
    assert [mount.partition(":")[0] for mount in fields["tmpfs"]] == ["/tmp", "/var/lib/postroad"]


@pytest.mark.parametrize("name", ROLES)
def test_a_role_has_a_health_check_and_more_time_than_it_takes_to_stop(name: str) -> None:
    service = services()[name]
    assert service.health_command is not None
    assert "9464/readyz" in service.health_command[-1]
    assert service.command[-4:] == ["--metrics-host", "0.0.0.0", "--metrics-port", "9464"]  # noqa: S104
    assert service.stop_within_s > 25


def test_secrets_are_files_and_each_is_used_and_written() -> None:
    declared = compose()["secrets"]
    mounted = {secret for service in services().values() for secret in service.fields.get("secrets", ())}
    assert set(declared) == mounted
    for name, service in services().items():
        named = {value for value in service.environment.values() if str(value).startswith("/run/secrets/")}
        assert {value.removeprefix("/run/secrets/") for value in named} <= set(service.fields.get("secrets", ())), name
        plain = [key for key in service.environment if re.search("PASSWORD|AUTH|_KEY|DATABASE.*URL|REDIS.*URL", key)]
        assert all(key.endswith("_FILE") for key in plain), name
    assert {secret["file"] for secret in declared.values()} == {f"./secrets/{name}" for name in declared}


def test_secrets_are_made_once_and_agree(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "make-secrets", tmp_path)
    made = []
    for _ in range(2):
        subprocess.run([tmp_path / "make-secrets"], check=True, cwd="/")
        made.append({path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()})
    assert made[0] == made[1]
    assert set(made[0]) == {*compose()["secrets"], *compose("monitoring.yaml")["secrets"]}
    assert made[0]["postgres_password"] in made[0]["database_url"]
    assert made[0]["postgres_password"] in made[0]["prefect_database_url"]
    assert made[0]["valkey_auth"].split()[1] in made[0]["redis_url"]
    assert len(set(made[0].values())) == len(made[0])
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_only_mail_is_published_to_other_hosts() -> None:
    for name, service in services().items():
        elsewhere = [port for port in service.fields.get("ports", ()) if not port.startswith("127.0.0.1:")]
        assert elsewhere == (["25:2525"] if name == "inbound" else []), name


def test_the_image_is_built_from_what_the_repository_has() -> None:
    text = CONTAINERFILE.read_text(encoding="utf-8")
    [uv] = re.findall(r"UV_VERSION=(\S+)", text)
    assert f"UV_VERSION = {uv}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    ignored = (CONTAINERFILE.parent / "Containerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for word in line.split()]
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path.removeprefix('./')}" in ignored
    [entrypoint] = re.findall(r'^ENTRYPOINT \["/opt/postroad/(.*)"\]$', text, re.MULTILINE)
    assert (ROOT / entrypoint).stat().st_mode & 0o111 == 0o111
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]


def locked_packages() -> Iterator[tuple[str, list[str]]]:
    """Yield the packages of the image, each with the names of its wheels."""
    packages = {package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    extra = packages["postroad"]["optional-dependencies"]["prefect-services"]
    seen: set[str] = set()
    names = ["postroad", *(dependency["name"] for dependency in extra)]
    while names:
        name = names.pop()
        if name not in seen:
            seen.add(name)
            required = [d for d in packages[name].get("dependencies", ()) if "win32" not in d.get("marker", "")]
            names += [dependency["name"] for dependency in required]
            if name != "postroad":
                yield name, [wheel["url"].rpartition("/")[2] for wheel in packages[name].get("wheels", ())]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_no_package_of_the_image_needs_a_compiler(machine: str) -> None:
    [python] = set(re.findall(r"python:3\.(\d+)-slim", CONTAINERFILE.read_text()))
    binary = re.compile(rf"-(cp3{python}-cp3{python}|cp3\d+-abi3|py3-none)-manylinux\S*_{machine}")
    for name, wheels in locked_packages():
        assert any("none-any" in wheel or binary.search(wheel) for wheel in wheels), name


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a host with the units installed, and with empty programs."""
    if not shutil.which("systemd-analyze"):
        missing("systemd-analyze", "apt-get install systemd")
    root = tmp_path_factory.mktemp("host")
    shutil.copytree(SYSTEMD, root / "etc/systemd/system")
    shutil.copytree(BACKUP, root / "etc/systemd/system", dirs_exist_ok=True)
    shutil.copytree("/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    (root / "lib").symlink_to("usr/lib")
    for program in {root / words[0][1:] for unit in ALL_UNITS for words in unit_commands(unit)}:
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    pages = "opt/postroad/docs"
    (root / pages).parent.mkdir(parents=True, exist_ok=True)
    (root / pages).symlink_to(ROOT / "docs")
    return root


def analyze(host: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", verb, f"--root={host}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def unit_file(host: Path, unit: str) -> str:
    return str(host / "etc/systemd/system" / unit)


def test_systemd_accepts_the_units(host: Path) -> None:
    units = [
        unit_file(host, name)
        for name in (*(f"{unit}.service" for unit in ALL_UNITS), "postroad.target", "postroad-backup.timer")
    ]
    done = analyze(host, "verify", "--recursive-errors=no", "--man=no", *units)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", ALL_UNITS)
def test_a_unit_is_hardened(host: Path, unit: str) -> None:
    limit = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    done = analyze(host, "security", "--offline=yes", "--no-pager", limit, unit_file(host, f"{unit}.service"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_of_the_nightly_backup_work(tmp_path: Path) -> None:
    """On a database of its own, in a folder of its own: a backup is made and verified, and an old one is deleted."""
    environment = {"PATH": os.environ["PATH"], "POSTROAD_STATE_DIR": str(tmp_path / "state")}
    assert run_command(tmp_path, environment, "db", "upgrade").returncode == 0
    folder = tmp_path / "backups"
    folder.mkdir()
    old, recent = folder / "postroad-20260101T000000Z.tar", folder / "postroad-20260102T000000Z.tar"
    for path, age_days in ((old, 16), (recent, 3)):
        path.touch()
        os.utime(path, (time.time() - age_days * 86_400,) * 2)
    for command in unit_commands("postroad-backup"):
        words = [word.replace("/var/lib/postroad-backup", str(folder)) for word in command]
        if words[0] == f"{PROGRAMS}postroad":
            done = run_command(tmp_path, environment, *words[1:])
            assert done.returncode == 0, done.stderr
        else:
            subprocess.run(words, check=True)
    assert not old.exists()
    assert recent.exists()
    assert len(list(folder.iterdir())) == 2


def test_units_of_roles_notify_and_have_ports_of_their_own() -> None:
    ports = []
    for role in ROLES:
        text = (SYSTEMD / f"postroad-{role}.service").read_text(encoding="utf-8")
        assert "Type=notify\nWatchdogSec=30\n" in text, role
        words = unit_command(f"postroad-{role}")
        ports.append(words[words.index("--metrics-port") + 1])
    assert len(set(ports)) == len(ROLES)
