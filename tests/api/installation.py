"""A small installation for tests of the API: settings, campaigns, a queue, a worker and a mailbox."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

import sqlalchemy as sa
from aiosmtpd.smtp import SMTP, Envelope, Session

from postroad.app.advance import advance_campaign
from postroad.app.context import AppContext
from postroad.app.worker import open_worker
from postroad.campaign.apply import apply
from postroad.campaign.audience import import_file
from postroad.campaign.definition import read_campaign
from postroad.campaign.plan import launch
from postroad.delivery.job import SEND_QUEUE
from postroad.store.engine import read
from tests.conftest import RedisServer
from tests.kit.waiting import until

CONFIG = """
public_url = "https://post.example.com"
secret_key = "a key of the tests"
[routes.relay]
host = "127.0.0.1"
port = {port}
tls = "none"
[senders.shop]
address = "shop@example.com"
name = "Shop"
postal_address = "1 High Street, Springfield"
route = "relay"
[audiences.customers.fields]
amount = "number"
"""
RECEIPT = """
name: receipt
sender: shop
entry: api
transactional: true
audience: {name: customers}
steps:
  - {email: receipt, subject: "Receipt {{ number }}", text: receipt.txt}
"""
NEWS = """
name: news
sender: shop
entry: api
audience: {name: customers}
steps:
  - {email: news, subject: "News for {{ name|default('you') }}", text: news.txt}
"""
TEXT = "{{ name|default('Dear customer') }}: {{ amount|default('') }}\n{{ unsubscribe_url }}\n{{ postal_address }}\n"


@dataclass
class Mailbox:
    """A mail server on loopback that keeps what it accepts."""

    contents: list[bytes] = field(default_factory=list)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd)
        assert isinstance(envelope.content, bytes)
        self.contents.append(envelope.content)
        return "250 2.0.0 taken"

    @property
    def mails(self) -> list[EmailMessage]:
        return [BytesParser(policy=policy.default).parsebytes(content) for content in self.contents]


@dataclass
class Installation:
    """The open parts of an installation, and what a test does with them."""

    context: AppContext
    mailbox: Mailbox
    folder: Path
    redis: RedisServer

    @property
    def engine(self) -> sa.Engine:
        return self.context.engine

    def apply(self, text: str) -> str:
        """Apply a campaign. Returns its name."""
        (self.folder / "receipt.txt").write_text(TEXT)
        (self.folder / "news.txt").write_text(TEXT)
        path = self.folder / "campaign.yaml"
        path.write_text(text)
        settings = self.context.settings
        return apply(self.engine, settings, read_campaign(path, settings), self.context.clock.now()).name

    def launch(self, text: str) -> str:
        """Apply and launch a campaign. Returns its name."""
        name = self.apply(text)
        launch(self.engine, name, self.context.clock.now(), self.context.hash_of)
        return name

    def add_members(self, *addresses: str, audience: str = "customers") -> None:
        path = self.folder / f"{audience}-{len(addresses)}.csv"
        path.write_text("address,name\n" + "".join(f"{address},Ada\n" for address in addresses))
        import_file(self.engine, audience, path, self.context.clock.now())

    def touches(self) -> list[tuple[int, str]]:
        """Id and state of every touch."""
        with read(self.engine) as connection:
            rows = connection.execute(sa.text("SELECT id, state FROM touch ORDER BY id")).all()
        return [(row.id, row.state) for row in rows]

    def count(self, table: str) -> int:
        with read(self.engine) as connection:
            return int(connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())

    async def jobs(self) -> int:
        """Number of jobs that are in the queue and have not ended."""
        stats = await (await self.context.queue(SEND_QUEUE)).stats()
        return stats.queued + stats.scheduled + stats.in_flight

    async def advance(self) -> None:
        """Make one pass over the campaigns that run."""
        for name in self.running():
            await advance_campaign(self.context, name)

    def running(self) -> list[str]:
        with read(self.engine) as connection:
            return list(connection.execute(sa.text("SELECT name FROM campaign WHERE state = 'running'")).scalars())

    async def work(self) -> None:
        """Run a worker until every job has ended, and record the outcomes."""
        queue = await self.context.queue(SEND_QUEUE)
        limits = self.context.settings.queue(SEND_QUEUE)
        async with open_worker(self.context, queue, limits, name="w", idle_ms=20) as worker:
            stop = asyncio.Event()
            running = asyncio.create_task(worker.run(stop))
            await until(self._is_idle)
            stop.set()
            await running
        await self.context.recorder(queue, "r").drain()

    async def _is_idle(self) -> bool:
        return await self.jobs() == 0
