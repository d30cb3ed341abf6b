"""A listener for inbound mail, before a real store and a real queue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import sqlalchemy as sa

from postroad.bounce.intake import Intake
from postroad.bounce.sources.listener import Listening, listen
from postroad.bounce.sources.metrics import InboundMetrics
from postroad.bounce.sources.recipient_policy import RecipientPolicy
from postroad.bounce.sources.smtp_handler import Submit
from postroad.clock import SystemClock
from postroad.queue import Queue
from postroad.settings import InboundSettings
from postroad.store.engine import read
from tests.bounce.ledger import DOMAIN, LedgerFixture

REPLIES = "hello@replies.example.com"

Open = Callable[..., AbstractAsyncContextManager[Listening]]


@pytest.fixture
def opened(ledger: LedgerFixture, bounces: Queue) -> Open:
    @asynccontextmanager
    async def _open(
        submit: Submit | None = None, metrics: InboundMetrics | None = None, **settings: object
    ) -> AsyncIterator[Listening]:
        intake = Intake(engine=ledger.engine, queue=bounces, clock=SystemClock())
        inbound = InboundSettings.model_validate({"smtp": "127.0.0.1:0", **settings})
        recipient_policy = RecipientPolicy(
            ledger.signer, domains=[DOMAIN], addresses=[REPLIES], senders=inbound.senders
        )
        async with listen(
            inbound,
            host_name="in.example.com",
            submit=submit or intake.submit,
            recipient_policy=recipient_policy,
            clock=SystemClock(),
            metrics=metrics,
        ) as listening:
            yield listening

    return _open


def stored_mails(ledger: LedgerFixture) -> list[tuple[str, str, str, bytes]]:
    with read(ledger.engine) as connection:
        rows = connection.execute(sa.text("SELECT source, mail_from, recipient, raw FROM bounce_mail ORDER BY digest"))
        return [(row.source, row.mail_from, row.recipient, bytes(row.raw)) for row in rows]
