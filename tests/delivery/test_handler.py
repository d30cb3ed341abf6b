"""One job from claim to verdict, by a direct route: what DNS says of a domain ends its touches, or defers them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import sqlalchemy as sa
from pydantic import SecretStr

from postroad.clock import SystemClock
from postroad.delivery.compiled_steps import CompiledSteps
from postroad.delivery.destinations import Destinations
from postroad.delivery.handler import SendHandler
from postroad.delivery.job import decode_job
from postroad.delivery.result import decode_result
from postroad.delivery.routes import open_routes
from postroad.delivery.submit import SubmitOptions, submit_due
from postroad.dns.public_address import networks
from postroad.dns.resolver import Resolver
from postroad.gates.controller import GateController
from postroad.mail.token import TokenSigner
from postroad.queue import Dead, Defer, Done, Queue
from postroad.queue.lease import Lease, MarkBatcher
from postroad.sandbox import Sandbox, SandboxConfig
from postroad.settings import RouteSettings
from postroad.shaping.config import read_shaping
from postroad.shaping.shaper import Shaper
from postroad.smtp.endpoint import LocalBinding
from postroad.store.campaign import Step
from postroad.store.engine import write
from postroad.store.ledger import TouchState
from tests.dns.nameserver import Nameserver, Trouble
from tests.kit.clock import FakeClock
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

ZONE = {
    "well.example": {"MX": ["10 mx.well.example."]},
    "mx.well.example": {"A": ["127.0.0.1"]},
    "null.example": {"MX": ["0 ."]},
}
DOMAINS = ("well.example", "null.example", "nobody.example", "unwell.example")


async def test_what_dns_says_becomes_a_verdict(engine: sa.Engine, queue: Queue, tmp_path: Path) -> None:
    with write(engine) as connection:
        campaign_id, (step,) = add_campaign(connection, name="trial")
        for domain in DOMAINS:
            recipient_id = add_recipient(connection, f"ada@{domain}")
            add_touch(connection, campaign_id, step, TouchState.PLANNED, recipient_id=recipient_id)
    await submit_due(
        engine,
        queue,
        "trial",
        SubmitOptions(expire_ms=10 * 365 * 86_400_000, horizon_ms=1),
        now=NOW,
        cursor=0,
        limit=100,
    )
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Nameserver(ZONE, troubles={"unwell.example": Trouble.SERVFAIL}))
        sandbox = await stack.enter_async_context(
            Sandbox(SandboxConfig(directory=str(tmp_path / "sandbox")), rng=Random(7))
        )
        resolver = await stack.enter_async_context(Resolver(server.settings(), clock))
        settings = RouteSettings.model_validate({"kind": "direct", "port": sandbox.port})
        routes = await stack.enter_async_context(
            open_routes(
                {"relay": settings},
                shaping=read_shaping(None),
                resolver=resolver,
                engine=engine,
                clock=clock,
                rng=Random(7),
                destinations=Destinations(allowed=networks(["127.0.0.0/8"])),
            )
        )
        delivery = SendHandler(
            steps=CompiledSteps(
                engine=engine,
                signer=TokenSigner(SecretStr("a key that is only used in tests")),
                public_url="https://mail.example.com",
                clock=clock,
            ),
            queue=queue,
            routes=routes,
            origins={"news@example.com": LocalBinding(helo="news.sender.example")},
            clock=clock,
            shaper=Shaper(
                engine=engine,
                gates=GateController(engine, queue, []),
                shaping=read_shaping(None),
                clock=clock,
            ),
        )
        marker = MarkBatcher(queue)
        verdicts = {}
        for job in (await queue.claim("w", want=100, lease_ms=60_000, nonce="n")).jobs:
            domain = decode_job(job.payload).address.partition("@")[2]
            verdicts[domain] = await delivery(Lease(job, marker))
        assert [found.recipient for found in sandbox.accepted()] == ["ada@well.example"]
        assert "news.sender.example" in next(p for p in sandbox.maildir_path.rglob("*") if p.is_file()).read_text()
    assert isinstance(verdicts["well.example"], Done)
    for domain, cause in (("null.example", "domain takes no mail"), ("nobody.example", "no such domain")):
        dead = verdicts[domain]
        assert isinstance(dead, Dead)
        assert dead.note is not None
        note = decode_result(dead.note)
        assert (note.state, note.cause, note.suppress) == (TouchState.BOUNCED, cause, True)
    deferred = verdicts["unwell.example"]
    assert isinstance(deferred, Defer)
    assert deferred.cause == "DNS gives no answer"
    # A fault of one domain does not hold other domains.
    assert not [
        state
        for state in await queue.gates()
        if state.gate.name.startswith("route:") and state.paused_since_ms is not None
    ]


async def test_a_step_that_cannot_be_compiled_is_compiled_once_a_minute(engine: sa.Engine, queue: Queue) -> None:
    with write(engine) as connection:
        campaign_id, (step,) = add_campaign(connection, name="trial")
        for _ in range(20):
            add_touch(connection, campaign_id, step, TouchState.PLANNED)
    await submit_due(
        engine,
        queue,
        "trial",
        SubmitOptions(expire_ms=10 * 365 * 86_400_000, horizon_ms=1),
        now=NOW,
        cursor=0,
        limit=100,
    )
    with write(engine) as connection:
        settings = connection.execute(sa.select(Step.__table__.c.settings)).scalar_one()  # type: ignore[attr-defined]
        connection.execute(sa.update(Step).values(settings={**settings, "text": "{{ 'x'|pprint }}"}))
    compilations: list[str] = []

    def count(*call: object) -> None:
        if "FROM step" in str(call[2]):
            compilations.append(str(call[2]))

    sa.event.listen(engine, "before_cursor_execute", count)
    clock = FakeClock(int(NOW.timestamp() * 1000))
    delivery = SendHandler(
        steps=CompiledSteps(
            engine=engine,
            signer=TokenSigner(SecretStr("a key that is only used in tests")),
            public_url="https://mail.example.com",
            clock=clock,
        ),
        queue=queue,
        routes={},
        origins={},
        clock=clock,
        shaper=Shaper(
            engine=engine,
            gates=GateController(engine, queue, []),
            shaping=read_shaping(None),
            clock=clock,
        ),
    )
    marker = MarkBatcher(queue)
    jobs = (await queue.claim("w", want=100, lease_ms=60_000, nonce="n")).jobs
    assert len(jobs) == 20
    for job in jobs[:19]:
        dead = await delivery(Lease(job, marker))
        assert isinstance(dead, Dead)
        assert dead.cause == "template"
        assert "the filter pprint is not available in templates" in dead.error
    assert len(compilations) == 1
    clock.advance(60_000)
    assert isinstance(await delivery(Lease(jobs[19], marker)), Dead)
    assert len(compilations) == 2
