"""Limits where mail goes straight to the receivers: two workers, a real queue, sandboxes as mail hosts, DNS of ours.

Google, Yahoo and a small host of no provider are known by their MX records, as they are in the world.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from postroad.app.context import AppContext
from postroad.app.worker import open_send_handler
from postroad.clock import Clock
from postroad.delivery.admit import Admission
from postroad.delivery.job import SEND_QUEUE, decode_job
from postroad.delivery.provider_lookup import Providers
from postroad.delivery.recorder import Recorder
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.dns.resolver import Resolver
from postroad.gates.name import GateName, Receiver
from postroad.queue import Gate, Lease, Queue, Verdict, Worker, WorkerOptions
from postroad.sandbox import Fault, RulePhase, Sandbox, SandboxConfig, SandboxRule
from postroad.sandbox.rules import RuleRate as SandboxRate
from postroad.settings import BounceSettings, Settings
from postroad.shaping.config import read_shaping
from postroad.store.engine import read, write
from postroad.store.ledger import TouchState
from postroad.store.shaping import ShapingChange, newest_changes
from tests.dns.nameserver import Nameserver, Trouble
from tests.kit.clock import SleepingClock
from tests.smtp.conftest import Certificates
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

pytestmark = pytest.mark.timeout(120)


class _Context(AppContext):
    """The open parts, with a resolver of names that exist in the test alone."""

    def __init__(
        self, settings: Settings, engine: sa.Engine, clock: Clock, stack: AsyncExitStack, resolver: Resolver
    ) -> None:
        super().__init__(settings, engine, clock, stack)
        self._test_resolver = resolver

    async def resolver(self) -> Resolver:
        return self._test_resolver


SENDER = "news@example.com"
GOOGLE, YAHOO, SMALL = "127.0.0.1", "127.0.0.2", "127.0.0.3"
ZONE = {
    "club.net": {"MX": ["10 aspmx.l.google.com."]},
    "aspmx.l.google.com": {"A": [GOOGLE]},
    "shop.net": {"MX": ["10 mx-biz.mail.am0.yahoodns.net."]},
    "mx-biz.mail.am0.yahoodns.net": {"A": [YAHOO]},
    "village.net": {"MX": ["10 mx.small.net."]},
    "hamlet.net": {"MX": ["10 mx.small.net."]},
    "mx.small.net": {"A": [SMALL]},
    "null.net": {"MX": ["0 ."]},
    "down.net": {"MX": ["10 mx.down.net."]},
    "mx.down.net": {"A": ["127.0.0.9"]},
    "addressless.net": {"MX": ["10 nowhere.net."]},
}
SHAPING = """
[provider.google]
connections = 3
messages_per_connection = 4
[provider.yahoo]
connections = 6
[site."mx.small.net"]
connections = 1
rate = "20/1s"
# Meets whatever a receiver may say, and everything that we say ourselves if it came this far.
[rule.anything]
providers = ["google", "yahoo", "other/site.mx.small.net", "other"]
text = "."
rate = "1/1h"
for = "1h"
off = true
"""
TOO_FAST = "421 4.7.0 Too many messages, slow down"


class World:
    """A sender's campaign, the receivers, and two workers that share nothing but the queue and the ledger."""

    def __init__(
        self, folder: Path, engine: sa.Engine, queue: Queue, clock: SleepingClock, stack: AsyncExitStack
    ) -> None:
        self.engine, self.queue, self.clock = engine, queue, clock
        self.hosts: dict[str, Sandbox] = {}
        self.at_once: Counter[str] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self._folder, self._stack = folder, stack
        self._port = 0

    async def host(self, address: str, certificates: Certificates | None = None) -> None:
        config = SandboxConfig(
            directory=str(self._folder / address),
            host=address,
            port=self._port,
            certificate=str(certificates.certificate) if certificates else None,
            private_key=str(certificates.private_key) if certificates else None,
        )
        self.hosts[address] = await self._stack.enter_async_context(Sandbox(config, rng=Random(1)))
        self._port = self.hosts[address].port

    async def resolver(self, troubles: dict[str, Trouble] | None = None) -> Resolver:
        server = await self._stack.enter_async_context(Nameserver(ZONE, troubles=troubles))
        return await self._stack.enter_async_context(Resolver(server.settings(timeout_ms=300), self.clock))

    async def submit(self, addresses: list[str], settings: Settings, resolver: Resolver) -> None:
        with write(self.engine) as connection:
            campaign_id, (step,) = add_campaign(connection, name="trial")
            for address in addresses:
                recipient_id = add_recipient(connection, address)
                add_touch(connection, campaign_id, step, TouchState.PLANNED, recipient_id=recipient_id)
        await submit_due(
            self.engine,
            self.queue,
            "trial",
            SubmitOptions(
                expire_ms=10 * 365 * 86_400_000,
                horizon_ms=1,
                shaping=read_shaping(settings.delivery.shaping),
                providers=Providers(resolver, self.engine, self.clock),
            ),
            now=NOW,
            cursor=0,
            limit=10_000,
        )

    def settings(self, shaping: str = SHAPING) -> Settings:
        (self._folder / "shaping.toml").write_text(shaping)
        config = self._folder / "postroad.toml"
        config.write_text(
            f"""
            public_url = "https://mail.example.com"
            [senders.news]
            address = "{SENDER}"
            postal_address = "1 High Street, Springfield"
            route = "relay"
            [routes.relay]
            kind = "direct"
            port = {self._port}
            helo = "mail.sender.example"
            connections = 5
            [delivery]
            allowed_networks = ["127.0.0.0/8"]
            shaping = "{self._folder / "shaping.toml"}"
            """
        )
        return Settings.load(config)

    async def work(self, settings: Settings, resolver: Resolver, workers: int = 2) -> None:
        """Start workers, as `postroad worker` opens them, and a recorder. They stop with the stack."""
        stop = asyncio.Event()
        recorder = Recorder(engine=self.engine, queue=self.queue, clock=self.clock, name="r", bounce=BounceSettings())
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(recorder.run(stop))]
        for number in range(workers):
            context = _Context(settings, self.engine, self.clock, self._stack, resolver)
            delivery = await self._stack.enter_async_context(
                open_send_handler(context, self.queue, settings.queue(SEND_QUEUE))
            )
            worker = Worker(
                self.queue,
                self._counted(delivery),
                concurrency=20,
                prepare=Admission(self.engine, self.clock),
                clock=self.clock,
                # A year, because the queue's clock leaps.
                options=WorkerOptions(name=f"w{number}", lease_ms=365 * 86_400_000),
            )
            tasks.append(asyncio.create_task(worker.run(stop)))

        async def leave() -> None:
            stop.set()
            await self.until(lambda: all(task.done() for task in tasks), step_ms=1_000)
            await asyncio.gather(*tasks)

        self._stack.push_async_callback(leave)

    def _counted(self, deliver: Callable[[Lease], Awaitable[Verdict]]) -> Callable[[Lease], Awaitable[Verdict]]:
        async def handle(lease: Lease) -> Verdict:
            job = decode_job(lease.job.payload)
            who = str(job.receiver)
            self.at_once[who] += 1
            self.most_at_once[who] = max(self.most_at_once[who], self.at_once[who])
            try:
                return await deliver(lease)
            finally:
                self.at_once[who] -= 1

        return handle

    async def until(self, condition: Callable[[], bool], step_ms: int = 50) -> None:
        """Turn the clock until the condition holds."""
        async with asyncio.timeout(60):
            while not condition():
                self.clock.advance(step_ms)
                await asyncio.sleep(0.005)

    def states(self) -> dict[str, str]:
        statement = sa.text(
            "SELECT recipient.address, touch.state FROM touch JOIN recipient ON recipient.id = touch.recipient_id"
        )
        with read(self.engine) as connection:
            return {row.address: row.state for row in connection.execute(statement)}

    def accepted(self, address: str) -> list[str]:
        return sorted(found.recipient for found in self.hosts[address].accepted())

    def log(self) -> list[ShapingChange]:
        with read(self.engine) as connection:
            return newest_changes(connection, None, 100)

    async def gate(self, name: str) -> Gate:
        return next((state.gate for state in await self.queue.gates() if state.gate.name == name), Gate(name=name))


@pytest.fixture
async def world(tmp_path: Path, engine: sa.Engine, redis_url: str) -> AsyncIterator[World]:
    clock = SleepingClock()
    async with (
        Queue.open(redis_url, f"direct-{tmp_path.name}", clock=clock) as queue,
        AsyncExitStack() as stack,
    ):
        yield World(tmp_path, engine, queue, clock, stack)


async def test_one_that_says_too_fast_is_given_time_and_the_other_is_not_held(world: World, tmp_path: Path) -> None:
    await world.host(GOOGLE, Certificates(tmp_path, names=("whatever.example",)))
    await world.host(YAHOO)
    yahoo = world.hosts[YAHOO]
    beyond = SandboxRate(count=8, per_ms=3_600_000)
    yahoo.use([SandboxRule(phase=RulePhase.RCPT, fault=Fault(reply=TOO_FAST), over=beyond)])
    settings, resolver = world.settings(), await world.resolver()
    at_club = sorted(f"ada{number}@club.net" for number in range(40))
    at_shop = sorted(f"bob{number}@shop.net" for number in range(40))
    await world.submit([*at_club, *at_shop], settings, resolver)
    await world.work(settings, resolver)

    await world.until(lambda: len(world.accepted(GOOGLE)) == 40 and bool(world.log()))
    await world.until(lambda: not any(world.at_once.values()))
    # Yahoo took some, and the sender goes slower there, and nowhere else.
    assert len(world.accepted(YAHOO)) == 8
    at_yahoo = str(GateName.at_receiver(SENDER, Receiver("yahoo")))
    assert {(change.gate, change.rule) for change in world.log()} == {(at_yahoo, "pace")}
    assert TOO_FAST in world.log()[-1].reply
    slowed = await world.gate(at_yahoo)
    assert slowed.rate is not None
    assert slowed.rate.count / slowed.rate.per_ms < 100 / 1000
    assert slowed.concurrency in (1, 3)
    free = await world.gate(str(GateName.at_receiver(SENDER, Receiver("google"))))
    assert (free.concurrency, (await world.gate(str(GateName.provider("google")))).concurrency) == (3, 5)
    assert free.paused_until_ms is None

    yahoo.use([])
    await world.until(lambda: set(world.states().values()) == {"accepted"}, step_ms=5_000)
    assert (world.accepted(GOOGLE), world.accepted(YAHOO)) == (at_club, at_shop)  # each once
    # Each receiver's own limits held: encrypted, four messages each, three at once.
    google = world.hosts[GOOGLE]
    assert google.counters.secured == google.counters.connections >= 40 / 4
    assert yahoo.counters.secured == 0
    assert world.most_at_once["google"] <= 3


async def test_a_site_that_the_file_names_has_a_gate_that_all_workers_keep_to(world: World) -> None:
    await world.host(SMALL)
    await world.host(YAHOO)
    settings, resolver = world.settings(), await world.resolver()
    small = [f"ada{number}@{domain}" for domain in ("village.net", "hamlet.net") for number in range(10)]
    await world.submit([*small, *(f"bob{number}@shop.net" for number in range(60))], settings, resolver)
    await world.work(settings, resolver)
    await world.until(lambda: set(world.states().values()) == {"accepted"}, step_ms=20)
    assert world.accepted(SMALL) == sorted(small)
    # Both domains together, in both workers; mail to the other receiver is not delayed.
    assert world.most_at_once["other/site.mx.small.net"] == 1
    assert 1 < world.most_at_once["yahoo"] <= 6
    gate = await world.gate(str(GateName.at_receiver(SENDER, Receiver("other", site="mx.small.net"))))
    assert gate.rate is not None
    assert (gate.rate.count, gate.rate.per_ms, gate.concurrency) == (20, 1000, 1)


async def test_no_rule_meets_what_no_receiver_said(world: World) -> None:
    """Errors of DNS and sockets match no reply rule, not even one that matches every reply."""
    await world.host(SMALL)
    await world.host(YAHOO)
    yahoo = world.hosts[YAHOO]
    yahoo.use([SandboxRule(phase=RulePhase.RCPT, fault=Fault(reply="550 5.1.1 No such user"), local_part="gone")])
    settings = world.settings(SHAPING.replace("off = true", ""))
    resolver = await world.resolver({"silent.net": Trouble.SILENT, "servfail.net": Trouble.SERVFAIL})
    domains = ["null.net", "nobody.net", "down.net", "addressless.net", "silent.net", "servfail.net"]
    addresses = [f"ada@{domain}" for domain in domains]
    await world.submit([*addresses, "drop+drop-at-rcpt@shop.net"], settings, resolver)
    await world.work(settings, resolver, workers=1)
    expected = {
        "ada@null.net": "bounced",
        "ada@nobody.net": "bounced",
        "ada@addressless.net": "bounced",
        "ada@down.net": "deferred",
        "ada@silent.net": "deferred",
        "ada@servfail.net": "deferred",
    }
    seen: set[tuple[str, str]] = set()

    def all_seen() -> bool:
        seen.update(world.states().items())
        return expected.items() <= seen

    # What is deferred is tried again, and its state moves on; so does that of whom a busy machine's DNS did not find
    # within its time.
    await world.until(lambda: all_seen() and yahoo.counters.dropped > 0, step_ms=500)
    assert world.log() == []
    # The rule is not blind: what a receiver does say, it meets.
    with write(world.engine) as connection:
        connection.execute(sa.text("UPDATE campaign SET name = 'first'"))
    await world.submit(["gone@shop.net"], settings, resolver)
    await world.until(lambda: bool(world.log()), step_ms=1)
    [change] = world.log()
    assert (change.rule, change.gate) == ("anything", str(GateName.at_receiver(SENDER, Receiver("yahoo"))))
    assert "No such user" in change.reply
