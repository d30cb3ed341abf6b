"""Every command of the README, the tutorial and the how-to pages runs, in order, as it is written there."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from postroad.app.context import open_context
from postroad.embedded import stop_redis
from postroad.queue import Job, JobClass, Lane
from postroad.settings import Settings
from postroad.store.engine import write
from postroad.store.webhook_out import NewDelivery, add_deliveries, add_endpoint
from tests.commands import run_command
from tests.dns.nameserver import Nameserver
from tests.docs.pages import PAGES, ROOT, Typed, typed_on
from tests.docs.world import CAMPAIGNS, FILES, settings_toml

NOT_RUN = {
    "make demo": "tests/end_to_end/test_demo.py runs it",
    "make test": "it is what runs this",
    "make up": "tests/end_to_end/test_through_prefect.py starts all processes",
    "postroad up": "tests/end_to_end/test_wheel.py runs it in such a folder",
    "uv build": "tests/end_to_end/test_wheel.py builds the wheel",
    "uv tool install": "tests/end_to_end/test_wheel.py installs the wheel",
    "postroad campaign launch spring": "needs a Prefect server: tests/end_to_end/test_through_prefect.py",
    "postroad campaign launch receipt": "needs a Prefect server: tests/end_to_end/test_through_prefect.py",
    "postroad campaign launch hello": "needs a Prefect server: tests/end_to_end/test_through_prefect.py",
    "python -m deployments.bootstrap": "needs a Prefect server: tests/prefect/test_install.py",
    "postroad console user add": "asks for a password: tests/cli/test_console.py adds a user",
    "postroad dns canary": "needs a mailbox at a receiver: tests/canary",
    "postroad dns canary news --json": "needs a mailbox at a receiver: tests/canary",
    "docker": "no container runtime runs here: tests/deployments runs the commands of the Compose file",
    "kubectl": "no cluster runs here: tests/deployments/test_kubernetes.py reads the manifests",
    "cd deployments/compose": "the folder of the Compose file, which is not here",
    "./make-secrets": "tests/deployments/test_files.py runs it",
    "swaks": "talks to a host of yours, with a program of its own",
}
"""Beginnings of commands that cannot run here, and why."""

ENDS_WITH = {
    "postroad doctor": {1},  # Prefect, workers and relays do not run here, and it says so.
    "postroad dns check": {1},  # The domain has no records, and it says so.
    "postroad campaign proof spring --to": {1},  # No relay listens, and it shows why each proof was not sent.
    "postroad campaign approve spring": {7},  # No launch waits for it: tests/prefect/test_approval.py.
    "postroad campaign refuse spring": {7},  # The same.
    "postroad campaign widen spring": {7},  # It was not launched: tests/cli/test_campaign_widen.py.
    "postroad campaign close trial": {7},  # It needs Prefect to be launched: tests/cli closes one.
    "postroad campaign recall spring": {7},  # The same: tests/cli/test_campaign_recall.py.
    "postroad campaign proof spring-correction": {7},  # The campaign that it corrects reached no recipient here.
    "postroad webhook send-test shop": {6},  # No receiver listens, and it says so.
    "postroad campaign launch broken": {5},  # Preflight refuses it before Prefect is asked.
}
"""Exit codes of commands that find something; all others end with 0."""

SERVERS = {
    "postroad web": "web listens at",
    "postroad console --host": "the console listens at",
    "postroad inbound": "inbound listens at",
    "postroad bounce watch": "watching",
    "postroad worker webhook:out": "serves webhook:out",
    "postroad worker": "serves email:",
}
"""Commands that stay, and what they log once they serve."""

SHORTER = {"postroad rehearse": ["--recipients", "5"]}
"""Arguments that make a command shorter than its page has it."""

PLACEHOLDERS = {"ID": "1", "EVENT": "evt_1", "CURSOR": "0"}


class World:
    """A folder with all that the pages take for granted: settings, campaigns, lists, reports, a name server."""

    def __init__(self, folder: Path, nameserver: str) -> None:
        self.folder = folder
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (folder / "postroad.toml").write_text(settings_toml(nameserver), encoding="utf-8")
        (folder / "examples").symlink_to(ROOT / "examples")
        for name in ("new", "cur", "tmp"):
            (folder / "box" / name).mkdir(parents=True)
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "POSTROAD_CONFIG": str(folder / "postroad.toml"),
            "PREFECT_API_URL": "http://127.0.0.1:1/api",
            "USER": "ada",
        }

    def prepare(self) -> None:
        for words in (*CAMPAIGNS, ("audience", "import", "readers", "readers.csv")):
            done = run_command(self.folder, self.environment, *words)
            assert done.returncode == 0, done.stderr
        asyncio.run(self._rows())

    async def _rows(self) -> None:
        async with open_context(Settings.load(self.folder / "postroad.toml")) as context:
            with write(context.engine) as connection:
                pause = {"id": 7, "step_id": 2, "source": "fair", "provider": "google", "evidence": "hard_bounces"}
                table = sa.Table("cohort_pause", sa.MetaData(), autoload_with=connection)
                connection.execute(sa.insert(table).values(**pause, reason="a test", at=datetime.now(UTC)))
                add_endpoint(connection, "shop", 0, datetime.now(UTC))
                add_deliveries(connection, "shop", 0, [NewDelivery(1, "evt_1")], datetime.now(UTC))
            queue = await context.queue("email:send")
            await queue.enqueue(Lane(name="a", gates=(), job_class=JobClass.NORMAL), [Job(id="1", payload=b"")])

    def run(self, typed: Typed) -> None:
        if not typed.command.startswith("postroad"):
            subprocess.run(["bash", "-c", typed.command], cwd=self.folder, env=self.environment, check=True)
            return
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(typed.command, comments=True)[1:]]
        words = [found for word in words for found in (self._files(word) if "*" in word else [word])]
        if ready := next((log for start, log in SERVERS.items() if f"{typed.command} ".startswith(f"{start} ")), None):
            self._serve(words, ready)
            return
        more = next((more for start, more in SHORTER.items() if typed.command.startswith(start)), [])
        done = run_command(self.folder, self.environment, *words, *more)
        codes = next((codes for start, codes in ENDS_WITH.items() if typed.command.startswith(start)), {0})
        assert done.returncode in codes, f"{typed.command}\n{done.stdout}{done.stderr}"
        for line in typed.output.splitlines():
            assert line in done.stdout.splitlines(), f"{typed.command} does not print: {line}"

    def _files(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.glob(pattern))

    def _serve(self, words: list[str], ready: str) -> None:
        log = self.folder / "server.log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "postroad", *words]
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=out, stderr=out)
        try:
            deadline_s = time.monotonic() + 60
            while ready not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def nameserver() -> Iterator[str]:
    """A resolver that knows no records. It has a loop of its own: a command has one, too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = Nameserver({"example.com": {"A": ["192.0.2.1"]}})
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(20)
    yield f"127.0.0.1:{server.port}"
    asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


@contextmanager
def _world(folder: Path, nameserver: str) -> Iterator[World]:
    world = World(folder, nameserver)
    try:
        world.prepare()
        yield world
    finally:
        stop_redis(folder / ".postroad")


def _runs(typed: Typed) -> bool:
    return not any(typed.command.startswith(start) and not _goes_on(typed.command, start) for start in NOT_RUN)


def _goes_on(command: str, start: str) -> bool:
    """Whether a command only begins alike: `launch spring --dry-run` runs."""
    return command.removeprefix(start).lstrip().startswith("--dry-run")


WRITTEN = {page: list(typed_on(page)) for page in PAGES}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page", [page for page, typed in WRITTEN.items() if any(map(_runs, typed))], ids=lambda page: page.stem
)
def test_a_page_runs_as_written(page: Path, tmp_path: Path, nameserver: str) -> None:
    with _world(tmp_path, nameserver) as world:
        for typed in filter(_runs, WRITTEN[page]):
            world.run(typed)


def test_every_exception_belongs_to_a_documented_command() -> None:
    commands = [typed.command for page in WRITTEN.values() for typed in page]
    for start in (*NOT_RUN, *ENDS_WITH, *SERVERS, *SHORTER):
        assert any(command.startswith(start) for command in commands), start
