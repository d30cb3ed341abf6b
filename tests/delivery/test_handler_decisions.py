"""What the handler does with one job: its verdict, the touch's next state, and the gate that it pauses.

Each row is one SMTP conversation with a real connection, or a job that cannot be sent at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from random import Random

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from postroad.clock import SystemClock
from postroad.delivery.compiled_steps import CompiledSteps
from postroad.delivery.handler import SendHandler
from postroad.delivery.result import DeliveryResult, decode_result
from postroad.delivery.routes import open_routes
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.dns.resolver import Resolver
from postroad.gates.controller import GateController
from postroad.mail.token import TokenSigner
from postroad.queue import ClaimedJob, Dead, Defer, Done, LeaseLostError, Queue, Retry, Uncertain, Verdict
from postroad.queue.lease import Lease, MarkBatcher
from postroad.settings import DnsSettings, RouteSettings
from postroad.shaping.config import read_shaping
from postroad.shaping.shaper import Shaper
from postroad.store.engine import write
from postroad.store.ledger import TouchState as State
from tests.kit.waiting import until
from tests.smtp.scripted import Act, Answer, ScriptedServer
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

SENDER = "news@example.com"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a conversation leads to. ``gate``: the gate that it pauses. ``delay_ms``: of a deferral."""

    verdict: type[Verdict]
    state: State
    cause: str
    suppress: bool = False
    gate: str = ""
    delay_ms: int | None = None


ACCOUNT = "554 Message rejected: Sending paused for this account."
DECISIONS: dict[str, tuple[dict[str, Answer | list[Answer]], Decision]] = {
    "accepted": ({}, Decision(verdict=Done, state=State.ACCEPTED, cause="accepted")),
    "no such user": (
        {"RCPT": "550 5.1.1 User unknown"},
        Decision(verdict=Dead, state=State.BOUNCED, cause="no such mailbox", suppress=True),
    ),
    "mailbox full": (
        {"RCPT": "552 5.2.2 Mailbox full"},
        Decision(verdict=Dead, state=State.BOUNCED, cause="mailbox full"),
    ),
    "content refused": (
        {"DOT": "554 5.6.0 Message content rejected"},
        Decision(verdict=Dead, state=State.DEAD, cause="content"),
    ),
    "deferred": (
        {"RCPT": "451 4.7.1 Greylisted, try again later"},
        Decision(verdict=Defer, state=State.DEFERRED, cause="greylisted, so far", delay_ms=1_800_000),
    ),
    "account refused": (
        {"DOT": ACCOUNT},
        Decision(
            verdict=Defer,
            state=State.DEFERRED,
            cause="account at the relay: 554 Message rejected: Sending paused for this account.",
            gate="route:relay",
            delay_ms=60_000,
        ),
    ),
    "sender refused": (
        {"MAIL": "550 5.7.1 Sender domain is not verified"},
        Decision(
            verdict=Defer,
            state=State.DEFERRED,
            cause="account at the relay: 550 5.7.1 Sender domain is not verified",
            gate=f"sender:{SENDER}",
            delay_ms=60_000,
        ),
    ),
    "not greeted": (
        {"CONNECT": "421 4.3.2 Service shutting down"},
        Decision(
            verdict=Defer,
            state=State.DEFERRED,
            cause="route down: 421 4.3.2 Service shutting down",
            gate="route:relay",
            delay_ms=5_000,
        ),
    ),
    "lost at RCPT": (
        {"RCPT": Act.DROP},
        Decision(verdict=Retry, state=State.DEFERRED, cause="connection lost at rcpt"),
    ),
    "lost after the dot": (
        {"DOT": Act.DROP},
        Decision(verdict=Uncertain, state=State.UNKNOWN, cause="connection lost after the final dot"),
    ),
}
"""By what happens: the replies of the server by verb, and the decision."""


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """The verdict on the only job, what its note says, and the gates that are paused."""

    verdict: Verdict
    result: DeliveryResult
    paused: list[str]


@asynccontextmanager
async def handler(engine: sa.Engine, queue: Queue, routes: dict[str, RouteSettings]) -> AsyncIterator[SendHandler]:
    clock, shaping = SystemClock(), read_shaping(None)
    async with (
        Resolver(DnsSettings(nameservers=("127.0.0.1:1",)), clock) as resolver,
        open_routes(routes, shaping=shaping, resolver=resolver, engine=engine, clock=clock, rng=Random(7)) as opened,
        SendHandler(
            steps=CompiledSteps(
                engine=engine,
                signer=TokenSigner(SecretStr("a key that is only used in tests")),
                public_url="https://mail.example.com",
                clock=clock,
            ),
            queue=queue,
            routes=opened,
            origins={},
            clock=clock,
            shaper=Shaper(engine=engine, gates=GateController(engine, queue, []), shaping=shaping, clock=clock),
        ) as opened_handler,
    ):
        yield opened_handler


async def deliver(engine: sa.Engine, queue: Queue, routes: dict[str, RouteSettings]) -> Delivered:
    """Deliver the only due touch."""
    options = SubmitOptions(expire_ms=10 * 365 * 86_400_000, horizon_ms=1)
    await submit_due(engine, queue, "trial", options, now=NOW, cursor=0, limit=100)
    [job] = (await queue.claim("w", want=100, lease_ms=60_000, nonce="n")).jobs
    async with handler(engine, queue, routes) as handle:
        verdict = await handle(Lease(job, MarkBatcher(queue)))
        paused = [state.gate.name for state in await queue.gates() if state.paused_since_ms is not None]
    await queue.settle("w", [(job, verdict)])
    note = verdict.note
    assert note is not None
    return Delivered(verdict=verdict, result=decode_result(note), paused=paused)


def relay(port: int) -> dict[str, RouteSettings]:
    return {"relay": RouteSettings.model_validate({"host": "127.0.0.1", "port": port, "tls": "none"})}


@pytest.fixture
def touch(engine: sa.Engine) -> None:
    with write(engine) as connection:
        campaign_id, (step,) = add_campaign(connection, name="trial")
        recipient_id = add_recipient(connection, "ada@example.org")
        add_touch(connection, campaign_id, step, State.PLANNED, recipient_id=recipient_id)


@pytest.mark.usefixtures("touch")
@pytest.mark.parametrize(("answers", "decision"), DECISIONS.values(), ids=DECISIONS)
async def test_decisions(
    engine: sa.Engine, queue: Queue, answers: dict[str, Answer | list[Answer]], decision: Decision
) -> None:
    async with ScriptedServer(answers) as server:
        done = await deliver(engine, queue, relay(server.port))
    found = Decision(
        verdict=type(done.verdict),
        state=done.result.state,
        cause=done.result.cause,
        suppress=done.result.suppress,
        gate=",".join(done.paused),
        delay_ms=done.verdict.delay_ms if isinstance(done.verdict, Defer) else None,
    )
    assert found == decision


@pytest.mark.usefixtures("touch")
async def test_a_message_without_a_route_is_dead(engine: sa.Engine, queue: Queue) -> None:
    done = await deliver(engine, queue, {})
    assert isinstance(done.verdict, Dead)
    assert (done.result.state, done.result.cause, done.paused) == (State.DEAD, "no such route", [])
    assert "route relay is not in postroad.toml" in done.result.reply


async def test_an_address_that_the_relay_cannot_carry_is_dead(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        campaign_id, (step,) = add_campaign(connection, name="trial")
        recipient_id = add_recipient(connection, "jürgen@example.org")
        add_touch(connection, campaign_id, step, State.PLANNED, recipient_id=recipient_id)
    async with ScriptedServer(extensions=("PIPELINING", "8BITMIME")) as server:
        done = await deliver(engine, queue, relay(server.port))
        assert server.bodies == []
    assert isinstance(done.verdict, Dead)
    assert (done.result.state, done.result.cause) == (State.DEAD, "unsendable")
    assert "SMTPUTF8" in done.result.reply


@pytest.mark.usefixtures("touch")
async def test_a_lost_lease_sends_nothing_and_returns_the_touch(engine: sa.Engine, queue: Queue) -> None:
    options = SubmitOptions(expire_ms=10 * 365 * 86_400_000, horizon_ms=1)
    await submit_due(engine, queue, "trial", options, now=NOW, cursor=0, limit=100)
    [lost] = (await queue.claim("w", want=100, lease_ms=1, nonce="n")).jobs

    nonces = count()

    async def claim_again() -> list[ClaimedJob]:
        return (await queue.claim("v", want=100, lease_ms=60_000, nonce=f"m{next(nonces)}")).jobs

    [again] = await until(claim_again)
    async with ScriptedServer() as server, handler(engine, queue, relay(server.port)) as handle:
        with pytest.raises(LeaseLostError):
            await handle(Lease(lost, MarkBatcher(queue)))
        assert server.bodies == []
        verdict = await handle(Lease(again, MarkBatcher(queue)))
        assert isinstance(verdict, Done)
        assert len(server.bodies) == 1
    await queue.settle("v", [(again, verdict)])
    events = [event for event in await queue.read_events("test", "c", count=1000, block_ms=0) if event.note]
    states = [decode_result(event.note).state for event in events if event.note]
    assert states == [State.QUEUED, State.ACCEPTED]
