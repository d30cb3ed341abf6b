from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from redis import Redis

from postroad.embedded import ensure_redis, redis_running, server_binary, stop_redis
from postroad.errors import UnavailableError


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    stop_redis(folder)


def pid_of(state: Path) -> int:
    return int((state / "redis" / "server.pid").read_text())


def kill(state: Path) -> None:
    os.kill(pid_of(state), signal.SIGKILL)
    while redis_running(state):
        pass


def ask(state: Path) -> tuple[str, str]:
    url = ensure_redis(state)
    with Redis.from_url(url) as client:
        return url, client.info("server")["run_id"]


def test_eight_concurrent_processes_get_one_server(state: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        answers = pool.map(ask, [state] * 8, chunksize=1)
    assert len(set(answers)) == 1
    # It outlives the processes that started it.
    assert ask(state) == answers[0]


def test_the_server_is_private_and_persistent(state: Path) -> None:
    with Redis.from_url(ensure_redis(state)) as client:
        client.set("a", "1")
        for name, wanted in [
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("maxmemory-policy", "noeviction"),
            ("port", "0"),
        ]:
            assert client.config_get(name) == {name: wanted}
    assert stat.S_IMODE((state / "redis").stat().st_mode) == 0o700
    stop_redis(state)
    assert not redis_running(state)
    with Redis.from_url(ensure_redis(state)) as client:
        assert client.get("a") == b"1"


@contextmanager
def lock_briefly(state: Path) -> Iterator[None]:
    """Hold the lock briefly, like a child process that was forked during a check, until its exec."""
    path = state / "redis" / "running"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ends = threading.Timer(0.3, fcntl.flock, (file, fcntl.LOCK_UN))
        ends.start()
        yield
        ends.join()


def test_it_starts_if_its_lock_is_held_during_the_check(state: Path) -> None:
    with lock_briefly(state):
        _, run = ask(state)
    assert redis_running(state)
    assert ask(state)[1] == run


def test_it_starts_if_its_lock_is_held_during_the_start(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:

        def between_check_and_start() -> Path:
            stack.enter_context(lock_briefly(state))
            return server_binary()

        monkeypatch.setattr("postroad.embedded.server_binary", between_check_and_start)
        _, run = ask(state)
    assert redis_running(state)
    assert ask(state)[1] == run


def test_a_folder_without_a_server_can_be_stopped(state: Path) -> None:
    assert not redis_running(state)
    stop_redis(state)
    assert not state.exists()


def test_a_killed_server_is_replaced_if_its_pid_is_reused(state: Path) -> None:
    _, first = ask(state)
    kill(state)
    # The pid in the file now belongs to another process, and the socket's file still exists.
    (state / "redis" / "server.pid").write_text(f"{os.getpid()}\n")
    _, second = ask(state)
    assert second != first


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_append_only_file_loses_only_its_tail(state: Path, damage: str) -> None:
    with Redis.from_url(ensure_redis(state)) as client:
        client.set("a", "1")
        client.set("b", "2")
        # Wait for the write, not for a duration.
        client.waitaof(1, 0, 5000)
    kill(state)
    [log] = (state / "redis" / "appendonlydir").glob("*.incr.aof")
    content = log.read_bytes()
    log.write_bytes(content[:-5] if damage == "cut" else content + b"*3\r\n$3\r\nSET\r\n\x00\x01garbage\r\n" * 3)
    with Redis.from_url(ensure_redis(state)) as client:
        assert client.get("a") == b"1"
        assert client.get("b") == (None if damage == "cut" else b"2")
    kept = list((state / "redis").glob("appendonlydir.damaged-*"))
    assert len(kept) == (damage == "garbage")


def test_a_long_path_puts_the_socket_into_a_short_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    state = tmp_path / ("long" * 25) / "state with % and space"
    url = ensure_redis(state)
    try:
        socket = Path(unquote(urlsplit(url).path))
        assert len(os.fsencode(socket)) < 100
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        with Redis.from_url(url) as client:
            assert client.ping()
    finally:
        stop_redis(state)
    assert not socket.exists()


def test_a_server_that_does_not_start_names_its_log(state: Path) -> None:
    ensure_redis(state)
    kill(state)
    [manifest] = (state / "redis" / "appendonlydir").glob("*.manifest")
    manifest.write_text("no manifest\n")
    with pytest.raises(UnavailableError) as caught:
        ensure_redis(state)
    assert "server.log" in str(caught.value)
    assert not redis_running(state)


def test_a_missing_program_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("postroad.embedded.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="no Redis server program") as caught:
        ensure_redis(tmp_path)
    assert caught.value.remedy
    other = tmp_path / "redis-server"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert server_binary() == other
