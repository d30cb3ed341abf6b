"""Doctor fails if a required process does not run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run_command
from tests.doctor.conftest import Doctor
from tests.kit.waiting import block_until

GONE_WITHIN_S = 30.0
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(site: Path, environment: dict[str, str]) -> Iterator[Start]:
    """Start a command as a process, which is killed at the end of the test."""
    with (site / "log").open("ab") as log, ExitStack() as stack:

        def started(*words: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "postroad", *words],
                cwd=site,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield started


@pytest.fixture
def processes(site: Path, environment: dict[str, str]) -> Callable[[], dict[str, dict[str, Any]]]:
    """Return what `postroad processes` lists, by role."""

    def listed() -> dict[str, dict[str, Any]]:
        done = run_command(site, environment, "processes", "--json")
        assert done.returncode == 0, done.stderr
        return {process["role"]: process for process in json.loads(done.stdout)}

    return listed


def test_missing_processes_fail(doctor: Doctor) -> None:
    checks = doctor()
    assert checks["worker email:send"]["health"] == checks["recorder"]["health"] == "fail"
    assert checks["worker email:send"]["seen"] == "none is alive"
    assert "postroad worker" in checks["worker email:send"]["remedy"]


@pytest.mark.timeout(180)
def test_killed_and_stopped_processes_are_detected(
    doctor: Doctor, start: Start, processes: Callable[[], dict[str, dict[str, Any]]]
) -> None:
    worker, recorder, web = start("worker"), start("recorder"), start("web", "--port", "0")
    pids = {"worker": worker.pid, "recorder": recorder.pid, "web": web.pid}
    block_until(lambda: {role: process["pid"] for role, process in processes().items()} == pids, 40)
    checks = doctor()
    assert checks["worker email:send"]["health"] == checks["recorder"]["health"] == "ok"
    web.send_signal(signal.SIGTERM)
    assert web.wait(20) == 0
    assert processes().keys() == {"worker", "recorder"}

    worker.send_signal(signal.SIGKILL)
    recorder.send_signal(signal.SIGSTOP)
    began_s = time.monotonic()
    block_until(lambda: not any(process["alive"] for process in processes().values()), GONE_WITHIN_S)
    assert time.monotonic() - began_s < GONE_WITHIN_S
    checks = doctor()
    assert checks["worker email:send"]["health"] == checks["recorder"]["health"] == "fail"
    assert "ended unexpectedly" in checks["worker email:send"]["seen"]

    recorder.send_signal(signal.SIGCONT)
    block_until(lambda: bool(processes()["recorder"]["alive"]), 20)


def test_required_workers_are_checked(site: Path, doctor: Doctor) -> None:
    assert "worker bounce:process" not in doctor()
    settings = site / "postroad.toml"
    settings.write_text(settings.read_text() + '[inbound]\nenabled = true\nsmtp = "127.0.0.1:1"\n')
    assert doctor()["worker bounce:process"]["health"] == "fail"
