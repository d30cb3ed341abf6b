"""A small Postroad on real servers, in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from postroad.app.context import AppContext, open_context
from postroad.app.submit import submit
from postroad.campaign.status import CampaignSummary, summary
from postroad.delivery.job import SEND_QUEUE
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.settings import Settings
from postroad.store.engine import read
from postroad.store.ledger import TouchState
from tests.commands import run_command
from tests.conftest import RedisServer

SETTINGS = """
public_url = "https://mail.sender.example"
[senders.ada]
address = "ada@sender.example"
name = "Ada"
postal_address = "1 Post Road, Milestone"
route = "sandbox"
bounce_domain = "bounce.sender.example"
[routes.sandbox]
host = "127.0.0.1"
port = {port}
tls = "none"
connections = 20
[queues."email:send"]
concurrency = {concurrency}
rate = "{rate}"
lease_ms = "{lease}"
drain_ms = "5s"
"""

CAMPAIGN = """
name: trial
sender: ada
audience: {name: readers, file: readers.csv}
steps:
  - email: hello
    subject: "Hello {{ first_name }}"
    text: hello.txt
"""

TEXT = "Dear {{ first_name }},\n\nas you asked.\n\n{{ unsubscribe_url }}\n{{ postal_address }}\n"


@dataclass
class Site:
    """An installation in a folder of its own: a sandbox, a Redis server, and the processes that a test starts."""

    folder: Path
    redis: RedisServer
    sandbox: Sandbox
    settings: Settings
    variables: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "POSTROAD_CONFIG": str(self.folder / "postroad.toml"),
            "POSTROAD_REDIS_URL": self.redis.url,
            **self.variables,
        }

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of Postroad to its end."""
        done = run_command(self.folder, self.environment, *arguments)
        assert done.returncode == 0 or not check, done.stderr
        return done

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command of Postroad that keeps running."""
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "postroad", *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    async def stop(self, process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
        process.send_signal(number)
        return await asyncio.to_thread(process.wait, 30)

    def write_campaign(self, recipients: int | Sequence[str], campaign: str = CAMPAIGN) -> Path:
        """Write a campaign for recipients, given as a number or as addresses."""
        if isinstance(recipients, int):
            recipients = [f"reader{number}@mailbox.example" for number in range(recipients)]
        rows = [f"{address},Reader {number}" for number, address in enumerate(recipients)]
        (self.folder / "readers.csv").write_text("\n".join(["address,first_name", *rows]) + "\n")
        (self.folder / "hello.txt").write_text(TEXT)
        path = self.folder / "campaign.yaml"
        path.write_text(campaign)
        return path

    async def launch(self, recipients: int | Sequence[str], campaign: str = CAMPAIGN) -> None:
        """Apply, import, launch and submit a campaign named `trial`, as the flow does."""
        from postroad.campaign.apply import apply
        from postroad.campaign.audience import import_file
        from postroad.campaign.definition import read_campaign
        from postroad.campaign.plan import launch
        from postroad.campaign.preflight import check

        path = self.write_campaign(recipients, campaign)
        async with self.context() as context:
            now = context.clock.now()
            apply(context.engine, context.settings, read_campaign(path), now)
            import_file(context.engine, "readers", self.folder / "readers.csv", now)
            check(context.engine, context.settings, context.signer, "trial").require_ok()
            launch(context.engine, "trial", now)
            await self.submit(context)

    async def submit(self, context: AppContext) -> int:
        submitted, cursor, done = 0, 0, False
        while not done:
            step = await submit(context, "trial", cursor=cursor, rows=5_000)
            submitted, cursor, done = submitted + step.submitted, step.cursor, step.done
        return submitted

    @asynccontextmanager
    async def context(self) -> AsyncIterator[AppContext]:
        async with open_context(self.settings) as context:
            yield context

    async def summary(self) -> CampaignSummary:
        async with self.context() as context:
            return await asyncio.to_thread(summary, context.engine, "trial")

    async def counts(self) -> dict[TouchState, int]:
        return {state: n for state, n in (await self.summary()).counts.items() if n}

    async def until_settled(self, within_s: float = 45) -> dict[TouchState, int]:
        """Wait until no touch of the campaign changes any more, and everything is recorded."""

        async def settled() -> bool:
            async with self.context() as context:
                current = await asyncio.to_thread(summary, context.engine, "trial")
                stats = await (await context.queue(SEND_QUEUE)).stats()
                lag = sum(group.pending + group.unread for group in stats.groups)
                waits = current.counts[TouchState.PLANNED] + current.counts[TouchState.DEFERRED]
                return current.settled and lag == 0 and waits == 0

        await self.until(settled, within_s)
        return await self.counts()

    async def until(self, true: Callable[[], bool | Awaitable[bool]], within_s: float = 90) -> None:
        """Wait until a condition is true. Several processes may have to start before."""
        end = time.monotonic() + within_s
        while True:
            answer = true()
            if answer if isinstance(answer, bool) else await answer:
                return
            if time.monotonic() > end:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in ("worker", "recorder"))
                raise AssertionError(f"it did not come true within {within_s} s: {await self.counts()}\n{logs}")
            await asyncio.sleep(0.05)

    def received(self) -> Counter[str]:
        """How often the provider accepted each Message-ID."""
        return Counter(str(message.message_id) for message in self.sandbox.accepted())

    def states(self) -> dict[str, str]:
        """State of each recipient's touch."""
        from postroad.app.context import ready_engine

        engine = ready_engine(self.settings)
        with read(engine) as connection:
            rows = connection.execute(
                sa.text(
                    "SELECT recipient.address, touch.state FROM touch "
                    "JOIN recipient ON recipient.id = touch.recipient_id"
                )
            ).all()
        engine.dispose()
        return {row.address: row.state for row in rows}


@asynccontextmanager
async def open_site(
    folder: Path,
    redis: RedisServer,
    monkeypatch_env: Callable[[str, str], None],
    *,
    concurrency: int = 20,
    rate: str = "5000/1s",
    lease: str = "2s",
    sandbox: SandboxConfig | None = None,
    database_url: str | None = None,
) -> AsyncIterator[Site]:
    config = sandbox or SandboxConfig(directory=str(folder / "sandbox"))
    async with Sandbox(config) as provider:
        text = SETTINGS.format(port=provider.port, concurrency=concurrency, rate=rate, lease=lease)
        (folder / "postroad.toml").write_text(text)
        variables = {"POSTROAD_DATABASE_URL": database_url} if database_url else {}
        for name, value in {"POSTROAD_REDIS_URL": redis.url, **variables}.items():
            monkeypatch_env(name, value)
        site = Site(folder, redis, provider, Settings.load(folder / "postroad.toml"), variables)
        try:
            yield site
        finally:
            for process in site.processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
