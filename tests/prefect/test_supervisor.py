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
    HOUSE,
    STUBBORN,
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
def house_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A house in a process of its own, so that it can be killed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(CHECKOUT / "src"), str(CHECKOUT)])}
    with subprocess.Popen(
        [sys.executable, "-c", HOUSE, str(folder)], env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_stop_ends_the_last_child_first_and_leaves_no_grandchild(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as house:
        for name in ("first", "second"):
            await house.start(family(name, tmp_path), ready=is_up(name, tmp_path))
        everybody = pids("first", tmp_path) + pids("second", tmp_path)
        assert living(everybody) == set(everybody)
    assert living(everybody) == set()
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


async def test_a_child_that_ignores_sigterm_is_killed_with_its_group(tmp_path: Path) -> None:
    async with Supervisor(tmp_path, stop_within_s=0.2) as house:
        child = await house.start(family("deaf", tmp_path, STUBBORN), ready=is_up("deaf", tmp_path))
        everybody = pids("deaf", tmp_path)
    assert child.exit_code == -signal.SIGKILL
    assert living(everybody) == set()


async def test_ctrl_c_stops_everything_in_order(tmp_path: Path) -> None:
    with house_process(tmp_path) as process:
        await until_exists(tmp_path / "up", within_s=30)
        everybody = pids("first", tmp_path) + pids("second", tmp_path)
        process.send_signal(signal.SIGINT)
        code = await asyncio.to_thread(process.wait, 30)
        # Clean means: all are gone when the parent is, not a moment later.
        assert living(everybody) == set()
        assert code in (-signal.SIGINT, 128 + signal.SIGINT)
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
async def test_children_do_not_outlive_a_killed_parent(tmp_path: Path, death: signal.Signals) -> None:
    with house_process(tmp_path) as process:
        await until_exists(tmp_path / "up", within_s=30)
        everybody = pids("first", tmp_path) + pids("second", tmp_path)
        assert living(everybody) == set(everybody)
        process.send_signal(death)
        await asyncio.to_thread(process.wait, 30)
        await until_gone(everybody, within_s=20)
    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


async def test_a_child_that_dies_at_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    code = "import sys; print('\\n'.join(f'line {n}' for n in range(100))); sys.exit('no such database')"
    async with Supervisor(tmp_path) as house:
        with pytest.raises(UnavailableError) as caught:
            await house.start(python("server", code), ready=never)
    told = str(caught.value)
    assert "server ended with exit code 1 before it was ready" in told
    assert "no such database" in told
    assert str(tmp_path / "logs" / "server.log") in told
    assert "line 99" in told
    assert "line 50" not in told


async def test_the_tail_is_of_this_start_and_not_of_an_earlier_one(tmp_path: Path) -> None:
    told = []
    for words in ("the first time", "the second time"):
        async with Supervisor(tmp_path) as house:
            with pytest.raises(UnavailableError) as caught:
                await house.start(python("server", f"raise SystemExit({words!r})"), ready=never)
            told.append(str(caught.value))
    assert "the second time" in told[1]
    assert "the first time" not in told[1]
    assert "the first time" in (tmp_path / "logs" / "server.log").read_text()


async def test_a_child_that_is_not_ready_in_time_is_reported_and_stopped(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as house:
        with pytest.raises(UnavailableError, match=r"slow was not ready within 0\.3 s"):
            await house.start(family("slow", tmp_path), ready=never, ready_within_s=0.3)
        (child,) = house.children
    assert child.exit_code is not None


async def test_watch_tells_which_child_died(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as house:
        await house.start(family("steady", tmp_path), ready=is_up("steady", tmp_path))
        child = await house.start(family("frail", tmp_path), ready=is_up("frail", tmp_path))
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(UnavailableError, match=r"^frail ended with SIGKILL") as caught:
            async with asyncio.timeout(10):
                await house.watch()
    assert "Run the command again" in (caught.value.remedy or "")


async def test_run_wants_exit_code_0(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as house:
        await house.run(python("migrate", "print('done')"))
        assert (tmp_path / "logs" / "migrate.log").read_text() == "done\n"
        with pytest.raises(UnavailableError, match="migrate ended with exit code 3"):
            await house.run(python("migrate", "raise SystemExit(3)"))
        with pytest.raises(UnavailableError, match=r"migrate did not finish within 0\.2 s"):
            await house.run(python("migrate", "import time; time.sleep(60)"), within_s=0.2)
        assert house.children == ()


async def test_a_name_is_used_once_at_a_time(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as house:
        await house.start(family("worker", tmp_path))
        with pytest.raises(StateError, match="worker is running already"):
            await house.start(family("worker", tmp_path))
