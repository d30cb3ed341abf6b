"""A part that is unreachable or does not answer fails its own check, and no other."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import SETTINGS
from tests.doctor.conftest import Doctor, checks_of


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port at which connections are accepted and no byte is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield server.getsockname()[1]


@pytest.mark.timeout(150)
def test_silent_servers_are_named_and_the_command_ends(
    site: Path, environment: dict[str, str], silent_port: int
) -> None:
    (site / "postroad.toml").write_text(SETTINGS.replace("port = 1", f"port = {silent_port}"))
    silent = f"127.0.0.1:{silent_port}"
    environment |= {
        "POSTROAD_REDIS_URL": f"redis://{silent}/0",
        "POSTROAD_DATABASE_URL": f"postgresql://ada:s3cret@{silent}/none",
        "PREFECT_API_URL": f"http://{silent}/api",
    }
    # A process of its own, which must end although its threads still wait.
    command = [sys.executable, "-m", "postroad", "doctor", "--json"]
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=110, check=False)
    checks = checks_of(done)
    for part in ("database", "redis", "route relay", "queue email:send"):
        assert checks[part]["health"] == "fail", part
    assert checks["database"]["seen"] == "did not answer in 5 s"
    assert checks["prefect"]["health"] != "ok"
    assert checks["settings"]["health"] == checks["secret key"]["health"] == checks["shaping"]["health"] == "ok"
    assert "s3cret" not in str(checks)


def test_other_checks_run_without_the_database(doctor: Doctor) -> None:
    checks = doctor(POSTROAD_DATABASE_URL="postgresql://ada:s3cret@127.0.0.1:1/none")
    assert checks["database"]["health"] == "fail"
    assert "the database does not answer" in checks["database"]["seen"]
    assert checks["redis"]["health"] == checks["queue email:send"]["health"] == "ok"
    assert checks["secret key"]["health"] == "ok"
    assert {"recorder", "route relay", "prefect"} <= checks.keys()


def test_other_checks_run_without_the_queue(doctor: Doctor) -> None:
    checks = doctor(POSTROAD_REDIS_URL="redis://127.0.0.1:1/0")
    assert checks["redis"]["health"] == checks["queue email:send"]["health"] == "fail"
    assert checks["database"]["health"] == "ok"
    assert {"recorder", "route relay", "prefect"} <= checks.keys()
