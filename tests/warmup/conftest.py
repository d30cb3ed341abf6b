"""A sender that warms up, a ledger with its mail, and the queue whose gates limit it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col

from postroad.queue import Queue
from postroad.settings import Settings
from postroad.store.campaign import Campaign, Sender
from postroad.store.engine import write
from postroad.store.ledger import DeliveryEvent, TouchState
from tests.kit.clock import FakeClock
from tests.store.rows import add_campaign, add_recipient, add_touch

NEWS = "news@example.com"
SETTINGS = """
[routes.relay]
host = "127.0.0.1"
[senders.news]
address = "news@example.com"
postal_address = "1 High Street, Springfield"
route = "relay"
[senders.news.warmup]
zone = "Europe/Berlin"
"""
OFFERS = """
[senders.offers]
address = "offers@example.com"
postal_address = "1 High Street, Springfield"
route = "relay"
source_address = "192.0.2.7"
[senders.offers.warmup]
zone = "Europe/Berlin"
"""
_uids = count()


Load = Callable[[str], Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.delenv("POSTROAD_CONFIG", raising=False)

    def load_text(text: str) -> Settings:
        path = tmp_path / "postroad.toml"
        path.write_text(text)
        return Settings.load(path)

    return load_text


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def queue(redis_url: str, clock: FakeClock) -> AsyncIterator[Queue]:
    async with Queue.open(redis_url, f"warmup-{uuid.uuid4().hex}", clock=clock) as queue:
        yield queue
        assert await queue.audit() == []


class Mail:
    """Writes outcomes of mail to the ledger, as the recorder would."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._touches: dict[tuple[str, str], int] = {}

    def came_to(
        self,
        at: datetime,
        state: TouchState,
        times: int,
        *,
        domain: str = "gmail.com",
        sender: str = NEWS,
        reply_code: int | None = None,
        cause: str | None = None,
        blame: str | None = None,
    ) -> None:
        """Record this many attempts of a sender at a domain with the given outcome."""
        with write(self._engine) as connection:
            touch_id = self._touch(connection, sender, domain)
            row = {
                "touch_id": touch_id,
                "state": state,
                "at": at,
                "attempt": 1,
                "reply_code": reply_code,
                "cause": cause,
                "blame": blame,
            }
            if times:
                connection.execute(sa.insert(DeliveryEvent), [row | {"uid": f"e{next(_uids)}"} for _ in range(times)])

    def accepted(self, at: datetime, times: int, *, domain: str = "gmail.com", sender: str = NEWS) -> None:
        self.came_to(at, TouchState.ACCEPTED, times, domain=domain, sender=sender, reply_code=250)

    def waits(self, times: int, *, domain: str = "gmail.com", sender: str = NEWS) -> None:
        """Record this many queued messages of a sender to a domain."""
        with write(self._engine) as connection:
            campaign, (step,) = add_campaign(connection)
            sender_id = sa.select(col(Campaign.sender_id)).where(col(Campaign.id) == campaign).scalar_subquery()
            connection.execute(sa.update(Sender).where(col(Sender.id) == sender_id).values(address=sender))
            connection.execute(sa.update(Campaign).where(col(Campaign.id) == campaign).values(state="running"))
            for _ in range(times):
                recipient = add_recipient(connection, f"{uuid.uuid4().hex}@{domain}")
                add_touch(connection, campaign, step, TouchState.QUEUED, recipient_id=recipient)

    def _touch(self, connection: sa.Connection, sender: str, domain: str) -> int:
        if (sender, domain) not in self._touches:
            campaign, (step,) = add_campaign(connection)
            sender_id = sa.select(col(Campaign.sender_id)).where(col(Campaign.id) == campaign).scalar_subquery()
            connection.execute(sa.update(Sender).where(col(Sender.id) == sender_id).values(address=sender))
            recipient = add_recipient(connection, f"{uuid.uuid4().hex}@{domain}")
            touch = add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=recipient)
            self._touches[sender, domain] = touch
        return self._touches[sender, domain]


@pytest.fixture
def mail(engine: sa.Engine) -> Mail:
    return Mail(engine)
