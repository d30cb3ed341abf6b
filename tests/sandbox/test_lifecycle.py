"""Starting, stopping, and clients that hang, send garbage or vanish."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from postroad.errors import UnavailableError
from postroad.sandbox import (
    ConnectionEnding,
    Fault,
    RulePhase,
    Sandbox,
    SandboxConfig,
    SandboxRule,
    accepted,
    serve,
    server,
    session,
)
from postroad.sandbox.framing import Framer
from postroad.sandbox.session import SandboxSession
from tests.kit.clock import SleepingClock
from tests.kit.waiting import until
from tests.sandbox.client import Wire
from tests.sandbox.conftest import Bench


async def test_serve_announces_its_port_and_ends_when_stopped(tmp_path: Path) -> None:
    stop, ports = asyncio.Event(), asyncio.Queue[int]()
    config = SandboxConfig(directory=str(tmp_path / "in"))
    running = asyncio.create_task(serve(config, stop, ready=ports.put_nowait))
    port = await asyncio.wait_for(ports.get(), 10)
    async with Wire("127.0.0.1", port) as wire:
        assert (await wire.greeted()).startswith("250")
        assert (await wire.deliver()).startswith("250")
        stop.set()
        await asyncio.wait_for(running, 10)
        assert await wire.rest() == b"421 4.3.2 Service shutting down, closing transmission channel\r\n"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert len(accepted(tmp_path / "in" / "accepted.jsonl")) == 1


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
async def test_nothing_is_left_open_after_the_end(tmp_path: Path) -> None:
    rules = (SandboxRule(phase=RulePhase.MAIL, sender="hang@*", fault=Fault(ending=ConnectionEnding.HANG)),)
    before, tasks = open_files(), asyncio.all_tasks()
    clients: list[Wire] = []
    async with Sandbox(SandboxConfig(directory=str(tmp_path), rules=rules)) as sandbox:
        for number in range(10):
            wire = Wire(sandbox.host, sandbox.port)
            await wire.__aenter__()
            clients.append(wire)
            await wire.greeted()
            wire.send(b"MAIL FROM:<hang@from.test>\r\n" if number % 2 else b"MAIL FR")
    assert sandbox.counters.open_connections == 0
    for wire in clients:
        await wire.__aexit__(None, None, None)
    await until(lambda: open_files() == before)
    await until(lambda: asyncio.all_tasks() == tasks)


async def test_errors_name_a_port_in_use_and_an_invalid_folder(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"cannot listen on 127.0.0.1:{port}"):
            await Sandbox(SandboxConfig(directory=str(tmp_path), port=port)).__aenter__()
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="folder cannot be created"):
        await Sandbox(SandboxConfig(directory=str(tmp_path / "file"))).__aenter__()


async def test_a_silent_client_is_sent_away_after_its_time(bench: Bench, sleeper: SleepingClock) -> None:
    sandbox = await bench.sandbox(clock=sleeper, idle_timeout_ms=10_000)
    silent, talking = await bench.hello(sandbox), await bench.hello(sandbox)
    for _ in range(9):
        await sleeper.asked_for(1.0)
        sleeper.advance(1000)
    assert (await talking.ask("NOOP")).startswith("250")
    await sleeper.asked_for(1.0)
    sleeper.advance(1000)
    assert await silent.rest() == b"421 4.4.2 Error: timeout exceeded\r\n"
    assert (await talking.ask("NOOP")).startswith("250")
    assert sandbox.counters.timed_out == 1


async def test_a_client_held_up_by_a_fault_is_not_silent(bench: Bench, sleeper: SleepingClock) -> None:
    rule = SandboxRule(phase=RulePhase.MAIL, fault=Fault(delay_ms=60_000))
    sandbox = await bench.sandbox(clock=sleeper, idle_timeout_ms=10_000, rules=(rule,))
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@b.test>\r\n")
    await sleeper.asked_for(60.0)
    for _ in range(60):
        await sleeper.asked_for(1.0)
        sleeper.advance(1000)
    assert (await wire.reply()).startswith("250")


async def test_garbage_ends_the_session_after_a_while(bench: Bench) -> None:
    sandbox = await bench.sandbox(max_command_errors=5)
    wire = await bench.wire(sandbox)
    wire.send(os.urandom(2000).replace(b"\n", b"") + b"\n" + b"\x16\x03\x01\n" * 50)
    lines = (await wire.rest()).split(b"\r\n")
    assert [line[:3] for line in lines] == [b"220", *[b"500"] * 5, b"421", b""]
    assert (await (await bench.hello(sandbox)).deliver()).startswith("250")


async def test_a_client_that_vanishes_in_the_middle_leaves_nothing(bench: Bench) -> None:
    sandbox = await bench.sandbox()
    wire = await bench.hello(sandbox)
    assert (await wire.envelope()).startswith("250")
    assert (await wire.ask("DATA")).startswith("354")
    wire.send(b"half a message\r\n")
    await wire.writer.drain()
    wire.writer.transport.abort()
    await until(lambda: sandbox.counters.open_connections == 0)
    assert sandbox.accepted() == []
    assert list(sandbox.maildir_path.rglob("*.*")) == []


class WatchedSession(SandboxSession):
    """Keeps the transport that asyncio gives to it, and whether it may write."""

    transport: asyncio.Transport
    write_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        super().connection_made(transport)

    def pause_writing(self) -> None:
        self.write_paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.write_paused = False
        super().resume_writing()


class Watched:
    """The sessions that a server opens, and their framers."""

    def __init__(self) -> None:
        self.sessions: list[WatchedSession] = []
        self.framers: list[Framer] = []

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch) -> Watched:
        watched = cls()

        def open_session(*args: Any, **options: Any) -> WatchedSession:
            watched.sessions.append(WatchedSession(*args, **options))
            return watched.sessions[-1]

        def make_framer() -> Framer:
            watched.framers.append(Framer())
            return watched.framers[-1]

        monkeypatch.setattr(server, "SandboxSession", open_session)
        monkeypatch.setattr(session, "Framer", make_framer)
        return watched


async def test_a_client_that_never_reads_is_not_read_from_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the client does not read, replies fill the buffers, and then the server stops reading."""
    watched = Watched.install(monkeypatch)
    wire = await bench.hello(await bench.sandbox())
    (opened,), (framer,) = watched.sessions, watched.framers
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    piece, pieces = b"NOOP\r\n" * 10_000, 0
    while not opened.write_paused:
        wire.send(piece)
        pieces += 1
        assert pieces < 10_000
        await asyncio.sleep(0)
    assert not opened.transport.is_reading()
    assert len(framer) < 1024 * 1024
    assert opened.transport.get_write_buffer_size() < 4 * 1024 * 1024
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    expected = b"250 2.0.0 Ok\r\n" * (10_000 * pieces)
    assert await wire.reader.readexactly(len(expected)) == expected


async def test_read_ahead_during_a_delay_is_bounded(
    bench: Bench, sleeper: SleepingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched.install(monkeypatch)
    rule = SandboxRule(phase=RulePhase.MAIL, fault=Fault(delay_ms=1000))
    sandbox = await bench.sandbox(clock=sleeper, rules=(rule,))
    wire = await bench.hello(sandbox)
    wire.send(b"MAIL FROM:<a@b.test>\r\n")
    await sleeper.asked_for(1.0)
    blob = b"NOOP\r\n" * 4_000_000
    wire.send(blob)
    (opened,), (framer,) = watched.sessions, watched.framers
    await until(lambda: not opened.transport.is_reading())
    assert len(framer) < 1024 * 1024
    sleeper.advance(1000)
    assert (await wire.reply()).startswith("250")
    assert (await wire.reply()) == "250 2.0.0 Ok"


async def test_using_a_sandbox_that_does_not_run_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="enter it first"):
        Sandbox(SandboxConfig(directory=str(tmp_path))).use([])
