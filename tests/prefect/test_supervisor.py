from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postroad.errors import StateError, UnavailableError
from postroad.local.processes import Supervisor
from tests.prefect.processes import (
    STUBBORN,
    SUPERVISOR,
    family,
    is_up,
    living,
    pids,
    python,
    until_exists,
    until_gone,
)

CHECKOUT = Path(__file__).parents[2]


async def never() -> bool:
    return False


@contextmanager
def supervisor_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor in a process of its own, so that it can be killed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT / "src"), str(CHECKOUT)])}
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(folder)], env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_stop_ends_the_last_child_first_and_leaves_no_grandchild(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        for name in ("first", "second"):
            await supervisor.start(family(name, tmp_path), ready=is_up(name, tmp_path))
        everything = pids("first", tmp_path) + pids("second", tmp_path)
        assert living(everything) == set(everything)
    assert living(everything) == set()
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


async def test_a_child_that_ignores_sigterm_is_killed_with_its_group(tmp_path: Path) -> None:
    async with Supervisor(tmp_path, stop_within_s=0.2) as supervisor:
        child = await supervisor.start(family("deaf", tmp_path, STUBBORN), ready=is_up("deaf", tmp_path))
        everything = pids("deaf", tmp_path)
    assert child.exit_code == -signal.SIGKILL
    assert living(everything) == set()


async def test_ctrl_c_stops_everything_in_order(tmp_path: Path) -> None:
    with supervisor_process(tmp_path) as process:
        await until_exists(tmp_path / "up", within_s=30)
        everything = pids("first", tmp_path) + pids("second", tmp_path)
        process.send_signal(signal.SIGINT)
        code = await asyncio.to_thread(process.wait, 30)
        # All must be gone when the parent is gone, not a moment later.
        assert living(everything) == set()
        assert code in (-signal.SIGINT, 128 + signal.SIGINT)
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
async def test_children_do_not_outlive_a_killed_parent(tmp_path: Path, death: signal.Signals) -> None:
    with supervisor_process(tmp_path) as process:
        await until_exists(tmp_path / "up", within_s=30)
        everything = pids("first", tmp_path) + pids("second", tmp_path)
        assert living(everything) == set(everything)
        process.send_signal(death)
        await asyncio.to_thread(process.wait, 30)
        await until_gone(everything, within_s=20)
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


async def test_a_child_that_dies_at_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('\\n'.join(f'line {n}' for n in range(100))); sys.exit('no such database')"
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(UnavailableError) as caught:
            await supervisor.start(python("server", code), ready=never)
    message = str(caught.value)
    assert "server ended with exit code 1 before it was ready" in message
    assert "no such database" in message
    assert str(tmp_path / "logs" / "server.log") in message
    assert "line 99" in message
    assert "line 50" not in message


async def test_the_tail_has_only_the_output_of_this_start(tmp_path: Path) -> None:
    messages = []
    for words in ("the first time", "the second time"):
        async with Supervisor(tmp_path) as supervisor:
            with pytest.raises(UnavailableError) as caught:
                await supervisor.start(python("server", f"raise SystemExit({words!r})"), ready=never)
            messages.append(str(caught.value))
    assert "the second time" in messages[1]
    assert "the first time" not in messages[1]
    assert "the first time" in (tmp_path / "logs" / "server.log").read_text()


async def test_a_child_that_is_not_ready_in_time_is_reported_and_stopped(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(UnavailableError, match=r"slow was not ready within 0\.3 s"):
            await supervisor.start(family("slow", tmp_path), ready=never, ready_within_s=0.3)
        (child,) = supervisor.children
    assert child.exit_code is not None


async def test_watch_names_the_child_that_died(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(family("steady", tmp_path), ready=is_up("steady", tmp_path))
        child = await supervisor.start(family("frail", tmp_path), ready=is_up("frail", tmp_path))
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError, match=r"^frail ended with SIGKILL") as caught:
            async with asyncio.timeout(10):
                await supervisor.watch()
    assert "Run the command again" in (caught.value.remedy or "")


async def test_run_requires_exit_code_0(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.run(python("migrate", "print('done')"))
        assert (tmp_path / "logs" / "migrate.log").read_text() == "done\n"
        with pytest.raises(UnavailableError, match="migrate ended with exit code 3"):
            await supervisor.run(python("migrate", "raise SystemExit(3)"))
        with pytest.raises(UnavailableError, match=r"migrate did not finish within 0\.2 s"):
            await supervisor.run(python("migrate", "import time; time.sleep(60)"), within_s=0.2)
        assert supervisor.children == ()


async def test_a_name_is_used_once_at_a_time(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(family("worker", tmp_path))
        with pytest.raises(StateError, match="worker is running already"):
            await supervisor.start(family("worker", tmp_path))
