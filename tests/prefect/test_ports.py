"""When another program has a port, the local stack starts on other ports."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroad.errors import UnavailableError
from postroad.local.prefect_access import PrefectAccess
from postroad.local.prefect_api import PrefectApi
from postroad.local.prefect_server import PrefectServer
from postroad.local.processes import Command, Supervisor
from postroad.local.stack import LocalStack, start_stack
from postroad.settings import CONFIG_VARIABLE, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    # start_stack writes what it chose into the environment of this process.
    for name in (
        "PREFECT_API_URL",
        "POSTROAD_ROUTES__sandbox__PORT",
        "POSTROAD_WEB__PORT",
        "POSTROAD_CONSOLE__PORT",
        "POSTROAD_PUBLIC_URL",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv(CONFIG_VARIABLE, str(ROOT / "postroad.toml"))
    monkeypatch.setenv("POSTROAD_STATE_DIR", str(tmp_path))
    return Settings.load(ROOT / "postroad.toml")


class Contest:
    """Starts of a stack in which another program takes a chosen port first, the first `lost` times."""

    def __init__(self, lost: int) -> None:
        self.lost = lost
        self.starts: list[list[tuple[str, int]]] = []
        self.sockets: list[socket.socket] = []

    async def start(self, server: PrefectServer, supervisor: Supervisor) -> None:
        chosen = Settings.load(ROOT / "postroad.toml")  # with what the stack wrote into the environment
        ports = LocalStack(settings=chosen, prefect=server, supervisor=supervisor, sandbox_dir=None).ports
        self.starts.append(ports)
        if len(self.starts) <= self.lost:
            self.sockets.append(socket.create_server(ports[len(self.starts) % len(ports)]))
            raise UnavailableError("a child ended before it was ready")


async def start_nothing(supervisor: Supervisor, command: Command, **ready: Any) -> None:
    pass


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Contest]:
    contest = Contest(lost=2)

    async def start(server: PrefectServer, supervisor: Supervisor) -> None:
        await contest.start(server, supervisor)

    monkeypatch.setattr(PrefectServer, "start", start)
    monkeypatch.setattr(Supervisor, "start", start_nothing)
    yield contest
    for taken in contest.sockets:
        taken.close()


async def test_a_port_taken_during_the_start_is_replaced(settings: Settings, contest: Contest) -> None:
    reports: list[str] = []
    async with start_stack(settings, reports.append) as running:
        taken = [place.getsockname() for place in contest.sockets]
        assert len(taken) == len([report for report in reports if report.startswith("other ports")]) == 2
        assert not set(taken) & set(running.ports)
        assert os.environ["PREFECT_API_URL"] == running.prefect.api_url
        assert int(os.environ["POSTROAD_WEB__PORT"]) == running.settings.web.port


async def test_ports_that_are_always_taken_are_an_error(settings: Settings, contest: Contest) -> None:
    contest.lost = 100
    with pytest.raises(UnavailableError, match="taken by another program"):
        async with start_stack(settings, lambda _: None):
            pass


async def test_another_failure_is_not_tried_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*parts: Any, **ready: Any) -> None:
        raise UnavailableError("the disk is full")

    monkeypatch.setattr(PrefectServer, "start", fail)
    monkeypatch.setattr(Supervisor, "start", fail)
    with pytest.raises(ExceptionGroup) as failed:
        async with start_stack(settings, lambda _: None):
            pass
    assert failed.group_contains(UnavailableError, match="the disk is full")


async def test_a_server_with_another_password_is_not_ours(server: PrefectServer) -> None:
    async with server.client() as ours, PrefectApi(PrefectAccess(url=server.url, password="postroad:no")) as theirs:
        assert await ours.is_own()
        assert await theirs.is_ready()
        assert not await theirs.is_own()
