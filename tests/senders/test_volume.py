"""Bulk senders are counted by organisation: domains of one count together, and each day for itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count

import sqlalchemy as sa
from sqlmodel import col

from postroad.clock import SystemClock
from postroad.dns.finding import Code, make_finding
from postroad.dns.health import HealthReport
from postroad.dns.resolver import Resolver
from postroad.senders.volume import with_volume
from postroad.store.campaign import Campaign, Sender
from postroad.store.engine import write
from postroad.store.ledger import DeliveryEvent, TouchState
from tests.dns.nameserver import Nameserver, Trouble
from tests.store.rows import NOW, add_campaign, add_recipient, add_touch

ZONE = {
    "_dmarc.acme.dev": {"TXT": ['"v=DMARC1; p=reject"']},
    "_dmarc.other.dev": {"TXT": ['"v=DMARC1; p=reject"']},
}
WELL = tuple(make_finding(code, "acme.dev", "") for code in (Code.SPF_OK, Code.DKIM_OK, Code.DMARC_OK))
_uids = count()


def accepted(engine: sa.Engine, sender: str, at: datetime, messages: int, *, to: str = "gmail.com") -> None:
    with write(engine) as connection:
        campaign, (step,) = add_campaign(connection)
        sender_id = sa.select(col(Campaign.sender_id)).where(col(Campaign.id) == campaign).scalar_subquery()
        connection.execute(sa.update(Sender).where(col(Sender.id) == sender_id).values(address=sender))
        recipient = add_recipient(connection, f"r{next(_uids)}@{to}")
        touch = add_touch(connection, campaign, step, TouchState.ACCEPTED, recipient_id=recipient)
        row = {"touch_id": touch, "state": TouchState.ACCEPTED, "at": at, "attempt": 1}
        connection.execute(sa.insert(DeliveryEvent), [row | {"uid": f"v{next(_uids)}"} for _ in range(messages)])


async def seen(engine: sa.Engine, *domains: str, troubles: dict[str, Trouble] | None = None) -> list[tuple[str, str]]:
    reports = [HealthReport(domain=domain, checked_at=NOW, findings=WELL) for domain in domains]
    async with Nameserver(ZONE, troubles=troubles) as server, Resolver(server.settings(), SystemClock()) as resolver:
        judged = await with_volume(resolver, engine, reports, NOW)
    return [(finding.subject, finding.code) for report in judged for finding in report.findings[len(WELL) :]]


async def test_domains_of_one_organisation_count_together(engine: sa.Engine) -> None:
    accepted(engine, "a@acme.dev", NOW, 2_000)
    accepted(engine, "b@news.acme.dev", NOW, 1_000)
    accepted(engine, "c@shop.acme.dev", NOW, 1_500)
    accepted(engine, "d@other.dev", NOW, 3_000)
    assert await seen(engine, "news.acme.dev", "other.dev") == [
        ("acme.dev at google", "large-sender.near"),
        ("other.dev", "large-sender.small"),
    ]


async def test_the_busiest_day_of_a_week_counts_and_no_other(engine: sa.Engine) -> None:
    accepted(engine, "a@acme.dev", NOW, 3_000)
    accepted(engine, "a@acme.dev", NOW - timedelta(days=1), 3_000)
    accepted(engine, "a@acme.dev", NOW - timedelta(days=8), 9_000)
    assert await seen(engine, "acme.dev") == [("acme.dev", "large-sender.small")]
    accepted(engine, "a@acme.dev", NOW - timedelta(days=1), 2_000)
    accepted(engine, "a@acme.dev", NOW, 1, to="yahoo.com")
    assert await seen(engine, "acme.dev") == [
        ("acme.dev at google", "large-sender.met"),
        ("acme.dev at yahoo", "large-sender.met"),
    ]


async def test_a_domain_that_dns_is_silent_about_counts_for_itself(engine: sa.Engine) -> None:
    accepted(engine, "a@acme.dev", NOW, 3_000)
    accepted(engine, "b@news.acme.dev", NOW, 3_000)
    trouble = {"_dmarc.news.acme.dev": Trouble.SERVFAIL}
    assert await seen(engine, "acme.dev", troubles=trouble) == [("acme.dev", "large-sender.small")]
